//! TLS of a listener: its certificates, whom it asks for one, and how both are
//! replaced while connections go on.
//!
//! Each connection takes the settings that are in force when it begins and keeps
//! them. New files are looked at by [`Tls::look`]; they are taken when two looks
//! in a row see the same, so that files that are being written are left alone. If
//! they are of no use, what was in force stays, with an error in the log and in a
//! metric.
//!
//! Sessions are resumed by tickets, whose key lives in memory and changes by the
//! hour. Where clients show certificates, new files end all sessions: a session
//! would outlive an authority that is not trusted any more.

mod certificate;
mod chooser;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
};

use aws_lc_rs::digest;
use jiff::Timestamp;
use rustls::{
    RootCertStore, ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs as provider},
    pki_types::{CertificateDer, pem::PemObject},
    server::{NoServerSessionStorage, ProducesTickets, WebPkiClientVerifier},
    version::{TLS12, TLS13},
};

use self::{certificate::Loaded, chooser::Chooser};
use super::{Error, metrics::ListenerMetrics};
use crate::config::{Certificate, ClientCertificates, Listener, TlsVersion};

/// What became of a reload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reload {
    /// The files are those in force.
    Unchanged,
    /// New connections see the new files.
    Replaced,
}

/// The TLS settings of a listener, and the files that they come from.
pub(super) struct Tls {
    listener: String,
    certificates: Vec<Certificate>,
    clients: ClientCertificates,
    http2: bool,
    min_tls: TlsVersion,
    provider: Arc<CryptoProvider>,
    metrics: Arc<ListenerMetrics>,
    current: RwLock<Arc<ServerConfig>>,
    looks: Mutex<Looks>,
}

/// What was seen of the files.
struct Looks {
    /// What was last loaded, or refused.
    judged: Digest,
    /// What the last look saw.
    seen: Digest,
    /// Whether what was last judged is in force.
    is_in_force: bool,
    names: Vec<String>,
    tickets: Arc<dyn ProducesTickets>,
}

type Digest = [u8; 32];

/// The content of each file, or what is wrong with it.
struct Files(Vec<(PathBuf, Result<Vec<u8>, String>)>);

/// What the files of a certificate hold, for whoever only looks.
#[derive(Clone, Debug)]
pub struct Examined {
    /// DNS names in lower case.
    pub names: Vec<String>,
    /// When it, or the last of its chain, begins to be valid, in seconds since 1970.
    pub begins: i64,
    /// When it, or the first of its chain, expires.
    pub expires: i64,
    /// What an operator should know about it.
    pub warnings: Vec<&'static str>,
}

/// Reads the files of a certificate as a listener would.
///
/// # Errors
///
/// A sentence, if a listener could not use them.
pub fn examine(files: &Certificate) -> Result<Examined, String> {
    let read = |path: &Path| {
        std::fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))
    };
    let (chain, key) = (read(&files.chain)?, read(&files.key)?);
    let loaded = Loaded::parse(&chain, &key, &provider::default_provider());
    let loaded = loaded.map_err(|problem| match problem {
        certificate::Problem::Chain(problem) => format!("{}: {problem}", files.chain.display()),
        certificate::Problem::Key(problem) => format!("{}: {problem}", files.key.display()),
    })?;
    Ok(Examined {
        warnings: loaded.warnings(Timestamp::now()),
        begins: loaded.begins(),
        expires: loaded.expires,
        names: loaded.names,
    })
}

impl Tls {
    /// Reads all files, which have to be of use.
    pub(super) fn load(listener: &Listener, metrics: &Arc<ListenerMetrics>) -> Result<Self, Error> {
        let name = listener.address.to_string();
        let failed = |source| Error::Tls { listener: name.clone(), source };
        let tickets = provider::Ticketer::new().map_err(failed)?;
        let placeholder =
            ServerConfig::builder_with_provider(Arc::new(provider::default_provider()))
                .with_protocol_versions(&[&TLS13])
                .map_err(failed)?
                .with_no_client_auth()
                .with_cert_resolver(Arc::new(Chooser::default()));
        let tls = Self {
            certificates: listener.certificates.clone(),
            clients: listener.client_certificates.clone(),
            http2: listener.http2,
            min_tls: listener.min_tls,
            provider: Arc::clone(placeholder.crypto_provider()),
            metrics: Arc::clone(metrics),
            current: RwLock::new(Arc::new(placeholder)),
            looks: Mutex::new(Looks {
                judged: [0; 32],
                seen: [0; 32],
                is_in_force: false,
                names: Vec::new(),
                tickets,
            }),
            listener: name,
        };
        let files = tls.read();
        let digest = files.digest();
        tls.take(&files, digest, &mut tls.looks())?;
        Ok(tls)
    }

    /// The settings for a new connection.
    pub(super) fn current(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Looks at the files; takes them if they are new and the look before saw the
    /// same. Blocks on the disk.
    pub(super) fn look(&self) {
        let files = self.read();
        let digest = files.digest();
        let mut looks = self.looks();
        let is_settled = looks.seen == digest;
        looks.seen = digest;
        if is_settled && looks.judged != digest {
            // Whoever should know reads it in the log.
            let _ = self.replace(&files, digest, &mut looks);
        }
    }

    /// Takes the files as they are now. Blocks on the disk.
    pub(super) fn reload(&self) -> Result<Reload, Error> {
        let files = self.read();
        let digest = files.digest();
        let mut looks = self.looks();
        looks.seen = digest;
        if looks.judged == digest && looks.is_in_force {
            return Ok(Reload::Unchanged);
        }
        self.replace(&files, digest, &mut looks)?;
        Ok(Reload::Replaced)
    }

    fn replace(&self, files: &Files, digest: Digest, looks: &mut Looks) -> Result<(), Error> {
        match self.take(files, digest, looks) {
            Ok(()) => {
                self.metrics.reloads_ok.inc();
                tracing::info!(listener = self.listener, "new certificates are in force");
                Ok(())
            }
            Err(error) => {
                self.metrics.reloads_failed.inc();
                tracing::error!(
                    listener = self.listener,
                    %error,
                    "the new certificates are of no use; those before stay in force"
                );
                Err(error)
            }
        }
    }

    fn take(&self, files: &Files, digest: Digest, looks: &mut Looks) -> Result<(), Error> {
        looks.judged = digest;
        looks.is_in_force = false;
        let loaded = self.certificates(files)?;
        if self.clients != ClientCertificates::Off && !looks.names.is_empty() {
            looks.tickets = provider::Ticketer::new().map_err(|source| self.failed(source))?;
        }
        let settings = self.settings(files, &loaded, Arc::clone(&looks.tickets))?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(settings);
        looks.is_in_force = true;
        self.show_expiry(&loaded, looks);
        Ok(())
    }

    fn certificates(&self, files: &Files) -> Result<Vec<Loaded>, Error> {
        let now = Timestamp::now();
        let mut all = Vec::new();
        for Certificate { chain, key } in &self.certificates {
            let fault = |file: &Path, problem| self.fault(file, problem);
            let (chain_pem, key_pem) = (self.content(files, chain)?, self.content(files, key)?);
            let loaded =
                Loaded::parse(chain_pem, key_pem, &self.provider).map_err(
                    |problem| match problem {
                        certificate::Problem::Chain(problem) => fault(chain, problem),
                        certificate::Problem::Key(problem) => fault(key, problem),
                    },
                )?;
            for warning in loaded.warnings(now) {
                tracing::warn!(listener = self.listener, file = %chain.display(), "{warning}");
            }
            all.push(loaded);
        }
        Ok(all)
    }

    fn settings(
        &self,
        files: &Files,
        loaded: &[Loaded],
        tickets: Arc<dyn ProducesTickets>,
    ) -> Result<ServerConfig, Error> {
        let versions: &[_] = match self.min_tls {
            TlsVersion::V12 => &[&TLS13, &TLS12],
            TlsVersion::V13 => &[&TLS13],
        };
        let builder = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(versions)
            .map_err(|source| self.failed(source))?;
        let builder = match &self.clients {
            ClientCertificates::Off => builder.with_no_client_auth(),
            ClientCertificates::Optional(path) | ClientCertificates::Required(path) => {
                let roots = self.authorities(path, self.content(files, path)?)?;
                let provider = Arc::clone(&self.provider);
                let mut verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
                if matches!(self.clients, ClientCertificates::Optional(_)) {
                    verifier = verifier.allow_unauthenticated();
                }
                let verifier =
                    verifier.build().map_err(|error| self.fault(path, error.to_string()))?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let mut settings = builder.with_cert_resolver(Arc::new(Chooser::new(loaded)));
        settings.ticketer = tickets;
        settings.session_storage = Arc::new(NoServerSessionStorage {});
        // Each ticket costs bytes and time in every handshake, and a client that
        // comes back at all comes back with the newest.
        settings.send_tls13_tickets = 1;
        settings.alpn_protocols = match self.http2 {
            true => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
            false => vec![b"http/1.1".to_vec()],
        };
        Ok(settings)
    }

    fn authorities(&self, path: &Path, pem: &[u8]) -> Result<Arc<RootCertStore>, Error> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate.map_err(|error| self.fault(path, error.to_string()))?;
            roots.add(certificate).map_err(|error| self.fault(path, error.to_string()))?;
        }
        if roots.is_empty() {
            return Err(self.fault(path, "there is no certificate in it".to_owned()));
        }
        Ok(Arc::new(roots))
    }

    fn show_expiry(&self, loaded: &[Loaded], looks: &mut Looks) {
        for name in looks.names.drain(..) {
            self.metrics.remove_expiry(&name);
        }
        let mut expiry = BTreeMap::new();
        for (loaded, files) in loaded.iter().zip(&self.certificates) {
            let name =
                loaded.name().map_or_else(|| files.chain.display().to_string(), str::to_owned);
            // Two certificates may have a name in common: the earlier end counts.
            let earliest = expiry.entry(name).or_insert(loaded.expires);
            *earliest = loaded.expires.min(*earliest);
        }
        for (name, timestamp) in expiry {
            self.metrics.set_expiry(&name, timestamp);
            looks.names.push(name);
        }
    }

    fn read(&self) -> Files {
        let clients = match &self.clients {
            ClientCertificates::Off => None,
            ClientCertificates::Optional(path) | ClientCertificates::Required(path) => Some(path),
        };
        let pairs = self.certificates.iter().flat_map(|files| [&files.chain, &files.key]);
        let read = |path: &PathBuf| {
            let content = std::fs::read(path).map_err(|error| error.to_string());
            (path.clone(), content)
        };
        Files(pairs.chain(clients).map(read).collect())
    }

    fn content<'a>(&self, files: &'a Files, path: &Path) -> Result<&'a [u8], Error> {
        match files.0.iter().find(|(known, _)| known == path) {
            Some((_, Ok(content))) => Ok(content),
            Some((_, Err(problem))) => {
                Err(self.fault(path, format!("it cannot be read: {problem}")))
            }
            None => Err(self.fault(path, "it was not read".to_owned())),
        }
    }

    fn looks(&self) -> MutexGuard<'_, Looks> {
        self.looks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fault(&self, file: &Path, problem: String) -> Error {
        Error::File { listener: self.listener.clone(), file: file.to_owned(), problem }
    }

    fn failed(&self, source: rustls::Error) -> Error {
        Error::Tls { listener: self.listener.clone(), source }
    }
}

impl Files {
    fn digest(&self) -> Digest {
        let mut all = digest::Context::new(&digest::SHA256);
        for (_, content) in &self.0 {
            let (mark, bytes): (u8, &[u8]) = match content {
                Ok(content) => (1, content),
                Err(problem) => (0, problem.as_bytes()),
            };
            all.update(&[mark]);
            all.update(digest::digest(&digest::SHA256, bytes).as_ref());
        }
        let mut digest = Digest::default();
        for (to, from) in digest.iter_mut().zip(all.finish().as_ref()) {
            *to = *from;
        }
        digest
    }
}
