//! A certificate with its chain and key, as it is in the files.
//!
//! What no client could use is refused: a key of another certificate, a chain in
//! disorder. What only some clients mind, or what time will cure, is a warning.

use std::sync::Arc;

use jiff::Timestamp;
use rustls::{
    SignatureAlgorithm,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};
use x509_parser::{
    certificate::X509Certificate,
    extensions::GeneralName,
    prelude::{FromDer, X509Error},
};

/// A certificate that can be shown.
pub(super) struct Loaded {
    pub(super) key: Arc<CertifiedKey>,
    /// Its DNS names in lower case.
    pub(super) names: Vec<String>,
    /// Seconds since 1970 at which it, or one of its chain, expires.
    pub(super) expires: i64,
    /// The same for when all of them are valid.
    begins: i64,
    /// Whether somebody other than itself vouches for it and is not in the file.
    lacks_chain: bool,
}

/// Why a certificate cannot be shown.
pub(super) enum Problem {
    /// The file with the certificates is of no use.
    Chain(String),
    /// The file with the key is.
    Key(String),
}

impl Loaded {
    /// Reads both files.
    pub(super) fn parse(
        chain: &[u8],
        key: &[u8],
        provider: &CryptoProvider,
    ) -> Result<Self, Problem> {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<_, _>>()
            .map_err(|error| Problem::Chain(format!("it is no PEM file: {error}")))?;
        let parsed: Vec<_> = chain
            .iter()
            .map(|der| X509Certificate::from_der(der).map(|(_, certificate)| certificate))
            .collect::<Result<_, _>>()
            .map_err(|error| Problem::Chain(format!("a certificate cannot be read: {error}")))?;
        let Some(first) = parsed.first() else {
            return Err(Problem::Chain("there is no certificate in it".to_owned()));
        };
        let lacks_chain = parsed.len() == 1 && first.subject() != first.issuer();
        let names = names(first).map_err(|error| {
            Problem::Chain(format!("the names of its certificate cannot be read: {error}"))
        })?;
        let validity = || parsed.iter().map(|certificate| certificate.validity());
        let expires = validity().map(|time| time.not_after.timestamp()).min().unwrap_or(0);
        let begins = validity().map(|time| time.not_before.timestamp()).max().unwrap_or(0);
        let checked = check_order(&parsed);
        let key = certify(chain, key, provider)?;
        checked.map_err(Problem::Chain)?;
        Ok(Self { key: Arc::new(key), names, expires, begins, lacks_chain })
    }

    /// What it is called in metrics.
    pub(super) fn name(&self) -> Option<&str> {
        self.names.first().map(String::as_str)
    }

    /// When it begins to be valid, in seconds since 1970.
    pub(super) fn begins(&self) -> i64 {
        self.begins
    }

    /// Whether it signs much slower than others.
    pub(super) fn is_slow(&self) -> bool {
        self.key.key.algorithm() == SignatureAlgorithm::RSA
    }

    /// What an operator should know about it.
    pub(super) fn warnings(&self, now: Timestamp) -> Vec<&'static str> {
        let now = now.as_second();
        [
            (now < self.begins, "the certificate, or one of its chain, is not valid yet"),
            (now > self.expires, "the certificate, or one of its chain, has expired"),
            (self.names.is_empty(), "the certificate has no DNS name, so clients will refuse it"),
            (
                self.lacks_chain,
                "the file holds no certificate of the authority that issued the first one; clients \
                 that do not have it will refuse: use the full chain",
            ),
        ]
        .into_iter()
        .filter_map(|(applies, warning)| applies.then_some(warning))
        .collect()
    }
}

fn names(certificate: &X509Certificate<'_>) -> Result<Vec<String>, X509Error> {
    let names = certificate.subject_alternative_name()?;
    let names = names.iter().flat_map(|extension| &extension.value.general_names);
    Ok(names
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
            _ => None,
        })
        .collect())
}

/// Each certificate has to be vouched for by the next one.
fn check_order(chain: &[X509Certificate<'_>]) -> Result<(), String> {
    for (place, (certificate, issuer)) in chain.iter().zip(chain.iter().skip(1)).enumerate() {
        let is_issuer = certificate.issuer() == issuer.subject()
            && certificate.verify_signature(Some(issuer.public_key())).is_ok();
        if !is_issuer {
            let place = place.saturating_add(1);
            return Err(format!(
                "certificate {place} ({}) was not issued by the one that follows it ({}); the order \
                 is: the server's own, then each one's issuer",
                certificate.subject(),
                issuer.subject(),
            ));
        }
    }
    Ok(())
}

fn certify(
    chain: Vec<CertificateDer<'static>>,
    key: &[u8],
    provider: &CryptoProvider,
) -> Result<CertifiedKey, Problem> {
    // What the libraries say never holds a part of the key.
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| {
        Problem::Key(format!(
            "there is no private key in it that can be read without a password: {error}"
        ))
    })?;
    let key = provider
        .key_provider
        .load_private_key(key)
        .map_err(|error| Problem::Key(format!("the private key is of no use: {error}")))?;
    let certified = CertifiedKey::new(chain, key);
    certified.keys_match().map_err(|_| {
        Problem::Key("the key is not that of the first certificate in the chain".to_owned())
    })?;
    Ok(certified)
}
