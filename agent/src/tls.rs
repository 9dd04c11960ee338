//! Whom a TLS client of this product trusts, and what it shows of itself.
//!
//! Certificates are always verified, against a file with authorities of one's own
//! or against those of the system. Files are read when a configuration is made and
//! not again; whoever wants renewed ones makes another. Reading them blocks.

use std::{path::Path, sync::Arc};

use rustls::{
    ClientConfig, ConfigBuilder, RootCertStore,
    client::WantsClientCert,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

/// Why TLS cannot be set up: what was read, what is wrong with it, what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Error(String);

/// PEM files of a client's certificate: the chain and its key.
#[derive(Clone, Copy, Debug)]
pub struct Identity<'a> {
    /// The certificate, then those that vouch for it.
    pub chain: &'a Path,
    /// Its private key.
    pub key: &'a Path,
}

/// A client that trusts the authorities in `ca_file`, or those of the system, and
/// shows `identity` to a server that asks for a certificate.
///
/// # Errors
///
/// If a file cannot be read or holds something else; the error names it.
pub fn client(
    ca_file: Option<&Path>,
    identity: Option<Identity<'_>>,
) -> Result<ClientConfig, Error> {
    let roots = match ca_file {
        Some(path) => roots_of_file(path)?,
        None => roots_of_system()?,
    };
    let builder = trusting(roots)?;
    let Some(identity) = identity else { return Ok(builder.with_no_client_auth()) };
    let chain = certificates(identity.chain, "no client certificate")?;
    let key = PrivateKeyDer::from_pem_file(identity.key).map_err(|error| {
        Error(format!("no key of a client certificate from {}: {error}", identity.key.display()))
    })?;
    builder.with_client_auth_cert(chain, key).map_err(|error| {
        let (chain, key) = (identity.chain.display(), identity.key.display());
        Error(format!("the client certificate {chain} cannot be used with the key {key}: {error}"))
    })
}

/// A client that trusts nobody, where no TLS is going to be spoken.
///
/// # Errors
///
/// If TLS itself cannot be set up.
pub fn client_of_nobody() -> Result<ClientConfig, Error> {
    Ok(trusting(RootCertStore::empty())?.with_no_client_auth())
}

fn trusting(roots: RootCertStore) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error(format!("TLS cannot be set up: {error}")))?;
    Ok(builder.with_root_certificates(roots))
}

fn roots_of_file(path: &Path) -> Result<RootCertStore, Error> {
    const WHAT: &str = "no trusted certificates";
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path, WHAT)? {
        let added = roots.add(certificate);
        added.map_err(|error| Error(format!("{WHAT} from {}: {error}", path.display())))?;
    }
    Ok(roots)
}

/// The certificates in a PEM file, one at least.
fn certificates(path: &Path, what: &str) -> Result<Vec<CertificateDer<'static>>, Error> {
    let problem = |problem: &str| Error(format!("{what} from {}: {problem}", path.display()));
    let certificates = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| problem(&error.to_string()))?;
    if certificates.is_empty() {
        return Err(problem("the file holds no PEM certificate"));
    }
    Ok(certificates)
}

fn roots_of_system() -> Result<RootCertStore, Error> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        let problems: Vec<_> = found.errors.iter().map(ToString::to_string).collect();
        return Err(Error(format!(
            "the system has no trusted certificates; install ca-certificates or set ca_file {}",
            problems.join("; ")
        )));
    }
    Ok(roots)
}
