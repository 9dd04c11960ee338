//! Certificates, credentials and what is wrong with them.

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    server::WebPkiClientVerifier,
};

use super::*;

struct Authority {
    directory: tempfile::TempDir,
    issuer: Issuer<'static, KeyPair>,
    roots: RootCertStore,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("ca.pem"), certificate.pem()).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(certificate.der().clone()).unwrap();
        Self { directory, issuer: Issuer::new(params, key), roots }
    }

    fn ca_file(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
    }

    /// A server that wants client certificates of this authority.
    fn server(&self) -> ServerConfig {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let roots = Arc::new(self.roots.clone());
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider));
        ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier.build().unwrap())
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap()
    }

    fn client(&self) -> config::Certificate {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(["relay".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let path = |name| self.directory.path().join(name);
        std::fs::write(path("relay.pem"), certificate.pem()).unwrap();
        std::fs::write(path("relay-key.pem"), key.serialize_pem()).unwrap();
        config::Certificate { chain: path("relay.pem"), key: path("relay-key.pem") }
    }
}

#[tokio::test]
async fn a_server_that_its_own_authority_vouches_for_sees_the_relays_certificate() {
    let authority = Authority::new();
    let server = StandIn::start_with(Some(authority.server()), |_| Reaction::status(202)).await;
    let mut upstream = upstream(&[&server]);
    upstream.ca_file = Some(authority.ca_file());
    upstream.client_certificate = Some(authority.client());
    let response = pool(&upstream).send(post("x"), Repeat::Never).await.unwrap();
    assert_eq!(response.status(), 202);
}

#[tokio::test]
async fn a_server_that_nobody_vouches_for_gets_nothing() {
    let authority = Authority::new();
    let server = StandIn::start_with(Some(authority.server()), |_| Reaction::status(202)).await;
    let mut upstream = upstream(&[&server]);
    let other = Authority::new();
    upstream.ca_file = Some(other.ca_file());
    upstream.client_certificate = Some(authority.client());
    let error = pool(&upstream).send(post("x"), Repeat::Never).await.unwrap_err();
    assert!(matches!(error, SendError::Connect { .. }), "{error}");
    assert!(error.to_string().contains("certificate"), "{error}");
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn a_server_that_wants_a_certificate_takes_no_request_without_one() {
    let authority = Authority::new();
    let server = StandIn::start_with(Some(authority.server()), |_| Reaction::status(202)).await;
    let mut upstream = upstream(&[&server]);
    upstream.ca_file = Some(authority.ca_file());
    assert!(pool(&upstream).send(post("x"), Repeat::Never).await.is_err());
    assert!(server.seen().is_empty());
}

/// What the error of a pool says.
fn refusal(upstream: &config::Upstream) -> String {
    let metrics = Metrics::register(&Registry::new()).unwrap();
    let Err(error) = Pool::new(upstream, &metrics) else { panic!("it was taken") };
    error.to_string()
}

#[tokio::test]
async fn a_file_that_cannot_be_used_is_named_with_its_option() {
    let authority = Authority::new();
    let directory = tempfile::tempdir().unwrap();
    let empty = directory.path().join("empty");
    std::fs::write(&empty, "\n").unwrap();
    let names = |text: &str, option: &str, path: &Path| {
        assert!(text.contains("upstream pega"), "{text}");
        assert!(text.contains(option) && text.contains(path.to_str().unwrap()), "{text}");
    };
    for path in [empty.as_path(), Path::new("/nowhere/file")] {
        let mut broken = upstream(&[]);
        broken.ca_file = Some(path.to_owned());
        names(&refusal(&broken), "ca_file", path);

        let mut broken = upstream(&[]);
        let (chain, key) = (path.to_owned(), path.to_owned());
        broken.client_certificate = Some(config::Certificate { chain, key });
        broken.ca_file = Some(authority.ca_file());
        names(&refusal(&broken), "client_certificate", path);

        let mut broken = upstream(&[]);
        broken.credentials = Some(config::BasicCredentials {
            username: "pega".to_owned(),
            password_file: path.to_owned(),
        });
        names(&refusal(&broken), "credentials.password_file", path);
    }
}
