//! Which certificate a client is shown: by the name that it asks for.

use std::{collections::HashMap, sync::Arc};

use rustls::{
    SignatureScheme,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use super::certificate::Loaded;

/// The certificates of a listener by name. Names are compared in lower case; a
/// wildcard stands for exactly one label.
///
/// Of several certificates with a name, one that the client can verify is shown,
/// and ECDSA before RSA, which costs many times as much to sign with. A client
/// that asks for no name, or for an unknown one, sees the first certificate of
/// the configuration.
#[derive(Debug, Default)]
pub(super) struct Chooser {
    exact: HashMap<String, Vec<Arc<CertifiedKey>>>,
    /// By what follows the first label.
    wildcard: HashMap<String, Vec<Arc<CertifiedKey>>>,
    /// All of them, in the order of the configuration.
    all: Vec<Arc<CertifiedKey>>,
}

impl Chooser {
    pub(super) fn new(certificates: &[Loaded]) -> Self {
        let all = certificates.iter().map(|loaded| Arc::clone(&loaded.key)).collect();
        let mut chooser = Self { all, ..Self::default() };
        let (slow, fast): (Vec<_>, Vec<_>) =
            certificates.iter().partition(|loaded| loaded.is_slow());
        for loaded in fast.into_iter().chain(slow) {
            for name in &loaded.names {
                let named = match name.strip_prefix("*.") {
                    Some(rest) => chooser.wildcard.entry(rest.to_owned()),
                    None => chooser.exact.entry(name.clone()),
                };
                named.or_default().push(Arc::clone(&loaded.key));
            }
        }
        chooser
    }

    fn named(&self, name: &str) -> Option<&[Arc<CertifiedKey>]> {
        let lower;
        let name = if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
            lower = name.to_ascii_lowercase();
            &lower
        } else {
            name
        };
        let exact = self.exact.get(name);
        let found = exact.or_else(|| self.wildcard.get(name.split_once('.')?.1));
        found.map(Vec::as_slice)
    }

    fn choose(&self, name: Option<&str>, schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let candidates = name.and_then(|name| self.named(name)).unwrap_or(&self.all);
        let suits = |key: &&Arc<CertifiedKey>| key.key.choose_scheme(schemes).is_some();
        candidates.iter().find(suits).or_else(|| candidates.first()).cloned()
    }
}

impl ResolvesServerCert for Chooser {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.choose(hello.server_name(), hello.signature_schemes())
    }
}
