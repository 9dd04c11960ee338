//! Which certificate is shown, to whom, and how it is replaced.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use rcgen::{KeyPair, date_time_ymd};
use rustls::{ClientConfig, HandshakeKind, ProtocolVersion};

use super::lab::*;
use crate::{
    config::{ClientCertificates, TlsVersion},
    relay::listen::{Reload, tls::Tls},
};

const RELOADS: &str = "exogate_relay_certificate_reloads_total";

/// Whose certificate is shown to a client that asks for this name.
async fn shown(lab: &Lab, name: &str) -> Vec<u8> {
    let client = lab.connect_as(&Options { name, ..Options::default() }).await.unwrap();
    client.stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

#[tokio::test]
async fn the_certificate_goes_by_the_name_that_is_asked_for() {
    let mut lab = Lab::new();
    lab.config.certificates.clear();
    let first = lab.authority.issue(&["edge.example.com", "www.example.com"]);
    let wild = lab.authority.issue(&["*.Example.com"]);
    let other = lab.authority.issue(&["other.example.com"]);
    for (name, pair) in [("first", &first), ("wild", &wild), ("other", &other)] {
        lab.add(name, pair);
    }
    let _running = lab.start();
    for (name, pair) in [
        ("edge.example.com", &first),
        ("www.example.com", &first),
        ("OTHER.example.COM", &other),
        ("any.example.com", &wild),
        ("a.b.example.com", &first),
        ("example.com", &first),
        ("example.org", &first),
        // An address is no name, so none is asked for.
        ("127.0.0.1", &first),
    ] {
        assert!(shown(&lab, name).await == leaf(&pair.0).to_vec(), "{name}");
    }
}

#[tokio::test]
async fn of_two_kinds_of_keys_the_one_is_shown_that_the_client_knows() {
    let mut lab = Lab::new();
    lab.config.certificates.clear();
    let key = KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
    let rsa = lab.authority.issue_with(&["edge.example.com"], &key, |_| {});
    let ecdsa = lab.authority.issue(&["edge.example.com"]);
    lab.add("rsa", &rsa);
    lab.add("ecdsa", &ecdsa);
    let _running = lab.start();
    assert!(shown(&lab, "edge.example.com").await == leaf(&ecdsa.0).to_vec());
    let knows_rsa = client_config_of("RSA", None);
    let options = Options { config: knows_rsa, ..Options::default() };
    let client = lab.connect_as(&options).await.unwrap();
    assert_eq!(client.stream.get_ref().1.peer_certificates().unwrap()[0], leaf(&rsa.0));
}

#[tokio::test]
async fn the_oldest_version_is_as_configured() {
    for (min_tls, is_spoken) in [(TlsVersion::V12, true), (TlsVersion::V13, false)] {
        let mut lab = Lab::new();
        lab.config.min_tls = min_tls;
        let _running = lab.start();
        let client = lab.connect().await;
        assert_eq!(client.stream.get_ref().1.protocol_version(), Some(ProtocolVersion::TLSv1_3));
        let old = client_config_of("", Some(&rustls::version::TLS12));
        let client = lab.connect_as(&Options { config: old, ..Options::default() }).await;
        assert_eq!(client.is_ok(), is_spoken);
    }
}

#[tokio::test]
async fn sessions_are_resumed() {
    let mut lab = Lab::new();
    let running = lab.start();
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let options = Options { config: client_config_of("", Some(version)), ..Options::default() };
        let mut first = lab.connect_as(&options).await.unwrap();
        first.ask("/").await;
        let kind = |client: &Client| client.stream.get_ref().1.handshake_kind();
        assert_eq!(kind(&first), Some(HandshakeKind::Full));
        // Other files do not end a session.
        let pair = lab.authority.issue(&["edge.example.com"]);
        lab.write("edge.pem", &pair.0);
        lab.write("edge-key.pem", &pair.1);
        assert_eq!(running.reload().await.unwrap(), Reload::Replaced);
        let second = lab.connect_as(&options).await.unwrap();
        assert_eq!(kind(&second), Some(HandshakeKind::Resumed), "{version:?}");
    }
}

#[tokio::test]
async fn what_cannot_be_shown_is_refused_with_its_file() {
    let lab = Lab::new();
    let good = lab.authority.issue(&["edge.example.com"]);
    let other = lab.authority.issue(&["edge.example.com"]);
    let stranger = Authority::new("test authority");
    let leaf_only = good.0.split_inclusive("-----END CERTIFICATE-----\n").next().unwrap();
    let disordered = format!("{}{leaf_only}", lab.authority.pem);
    for (chain, key, file, problem) in [
        (good.0.as_str(), other.1.as_str(), "edge-key.pem", "not that of the first certificate"),
        (&disordered, &good.1, "edge-key.pem", "not that of the first certificate"),
        // The name is right, and the signature is not.
        (&format!("{leaf_only}{}", stranger.pem), &good.1, "edge.pem", "certificate 1 "),
        (&format!("{}{}", good.0, other.0), &good.1, "edge.pem", "certificate 2 "),
        ("", &good.1, "edge.pem", "no certificate"),
        ("-----BEGIN CERTIFICATE-----\n!\n", &good.1, "edge.pem", "no PEM"),
        (
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            &good.1,
            "edge.pem",
            "read",
        ),
        (&good.0, "", "edge-key.pem", "no private key"),
    ] {
        lab.write("edge.pem", chain);
        lab.write("edge-key.pem", key);
        let error = lab.bind().err().expect(problem).to_string();
        assert!(error.contains(&format!("/{file}: ")) && error.contains(problem), "{error}");
    }
    std::fs::remove_file(lab.directory.path().join("edge.pem")).unwrap();
    let error = lab.bind().err().unwrap().to_string();
    assert!(error.contains("edge.pem: it cannot be read"), "{error}");
}

#[tokio::test]
async fn an_expired_certificate_is_shown_all_the_same_and_its_end_is_a_metric() {
    let mut lab = Lab::new();
    let expired =
        lab.authority.issue_with(&["edge.example.com"], &KeyPair::generate().unwrap(), |params| {
            params.not_after = date_time_ymd(2020, 1, 1)
        });
    lab.write("edge.pem", &expired.0);
    lab.write("edge-key.pem", &expired.1);
    let _running = lab.start();
    assert!(shown(&lab, "edge.example.com").await == leaf(&expired.0).to_vec());
    let metric = "exogate_relay_certificate_expiry_timestamp_seconds";
    let label = "listener=\"127.0.0.1:0\",name=\"edge.example.com\"";
    assert!((lab.metric(metric, label) - 1_577_836_800.0).abs() < 1.0);
}

#[tokio::test]
async fn client_certificates_are_off_optional_or_required() {
    let clients = Authority::new("clients");
    let known = clients.issue(&["client.example.com"]);
    let unknown = Authority::new("strangers").issue(&["client.example.com"]);
    for (kind, none, stranger) in
        [("off", true, true), ("optional", true, false), ("required", false, false)]
    {
        let mut lab = Lab::new();
        let path = lab.write("clients.pem", &clients.pem);
        lab.config.client_certificates = match kind {
            "off" => ClientCertificates::Off,
            "optional" => ClientCertificates::Optional(path),
            _ => ClientCertificates::Required(path),
        };
        let _running = lab.start();
        for (pair, is_served) in [(Some(&known), true), (None, none), (Some(&unknown), stranger)] {
            let config = client_config(&[b"http/1.1"], pair);
            let client = lab.connect_as(&Options { config, ..Options::default() }).await;
            // TLS 1.3 tells a client after its handshake.
            let answer = match client {
                Ok(mut client) => {
                    client
                        .send(post("/", "").replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n"))
                        .await;
                    client.rest().await
                }
                Err(_) => String::new(),
            };
            assert_eq!(answer.starts_with("HTTP/1.1 200"), is_served, "{kind}: {answer}");
        }
    }
}

#[tokio::test]
async fn authorities_that_are_none_are_refused_with_their_file() {
    let mut lab = Lab::new();
    let path = lab.write("clients.pem", "");
    lab.config.client_certificates = ClientCertificates::Required(path);
    let error = lab.bind().err().unwrap().to_string();
    assert!(error.contains("clients.pem: there is no certificate"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_under_load_drops_nothing() {
    let mut lab = Lab::new();
    let running = lab.start();
    let mut open = lab.connect().await;
    open.ask("/").await;
    let lab = Arc::new(lab);
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (lab, stop) = (Arc::clone(&lab), Arc::clone(&stop));
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let answer = lab.connect().await.ask("/").await;
                    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
                }
            })
        })
        .collect();
    for _ in 0..10 {
        let pair = lab.authority.issue(&["edge.example.com"]);
        lab.write("edge.pem", &pair.0);
        lab.write("edge-key.pem", &pair.1);
        assert_eq!(running.reload().await.unwrap(), Reload::Replaced);
        assert!(shown(&lab, "edge.example.com").await == leaf(&pair.0).to_vec());
    }
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        wait("a client", client).await.unwrap();
    }
    open.ask("/").await;
    assert_eq!(running.reload().await.unwrap(), Reload::Unchanged);
}

#[tokio::test]
async fn a_bad_reload_keeps_what_was_in_force() {
    let mut lab = Lab::new();
    let running = lab.start();
    let before = shown(&lab, "edge.example.com").await;
    lab.write("edge-key.pem", "");
    for count in [1.0, 2.0] {
        let error = running.reload().await.unwrap_err().to_string();
        assert!(error.contains("edge-key.pem"), "{error}");
        lab.until(RELOADS, "result=\"failed\"", count).await;
    }
    assert!(shown(&lab, "edge.example.com").await == before);
}

/// Looks of a watcher at files, by hand.
fn watched(lab: &Lab) -> Tls {
    Tls::load(&lab.config, &Arc::new(lab.metrics.of("watched"))).unwrap()
}

#[test]
fn new_files_are_taken_once_two_looks_see_the_same() {
    let lab = Lab::new();
    let tls = watched(&lab);
    let before = tls.current();
    let is_new = || !Arc::ptr_eq(&before, &tls.current());
    tls.look();
    tls.look();
    assert!(!is_new(), "nothing has changed");
    let (chain, key) = lab.authority.issue(&["edge.example.com"]);
    lab.write("edge.pem", &chain);
    lab.write("edge-key.pem", &key);
    tls.look();
    assert!(!is_new(), "it may be half of it");
    tls.look();
    assert!(is_new());
    assert!((lab.metric(RELOADS, "watched\",result=\"ok\"") - 1.0).abs() < 0.1);
}

#[test]
fn a_pair_that_is_half_written_is_left_alone() {
    let lab = Lab::new();
    let tls = watched(&lab);
    let before = tls.current();
    let is_new = || !Arc::ptr_eq(&before, &tls.current());
    let (chain, key) = lab.authority.issue(&["edge.example.com"]);
    let (half, _) = chain.split_at(chain.len() / 3);
    lab.write("edge.pem", half);
    tls.look();
    lab.write("edge.pem", &chain);
    tls.look();
    lab.write("edge-key.pem", &key);
    tls.look();
    assert!(!is_new());
    assert!(lab.metric(RELOADS, "watched\",result=\"failed\"").abs() < 0.1, "no false alarm");
    tls.look();
    assert!(is_new());
}

#[test]
fn a_bad_pair_is_reported_once_and_a_good_one_is_taken_later() {
    let lab = Lab::new();
    let tls = watched(&lab);
    let before = tls.current();
    let (chain, key) = lab.authority.issue(&["edge.example.com"]);
    lab.write("edge.pem", &chain);
    for _ in 0..5 {
        tls.look();
    }
    assert!(Arc::ptr_eq(&before, &tls.current()));
    assert!((lab.metric(RELOADS, "watched\",result=\"failed\"") - 1.0).abs() < 0.1);
    lab.write("edge-key.pem", &key);
    tls.look();
    tls.look();
    assert!(!Arc::ptr_eq(&before, &tls.current()));
}

#[tokio::test(start_paused = true)]
async fn a_running_listener_looks_by_itself() {
    let mut lab = Lab::new();
    let _running = lab.start();
    let (chain, key) = lab.authority.issue(&["edge.example.com"]);
    replace(&lab.directory.path().join("edge.pem"), &chain);
    replace(&lab.directory.path().join("edge-key.pem"), &key);
    lab.until(RELOADS, "result=\"ok\"", 1.0).await;
}

/// In one step, as certificate tools do.
fn replace(path: &Path, content: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, content).unwrap();
    std::fs::rename(new, path).unwrap();
}

/// A client that knows only signatures whose name begins so, and this version.
fn client_config_of(
    signatures: &'static str,
    version: Option<&'static rustls::SupportedProtocolVersion>,
) -> Arc<ClientConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let both: &[_] = &[&rustls::version::TLS13, &rustls::version::TLS12];
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(version.as_ref().map_or(both, std::slice::from_ref))
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody { signatures }))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(config)
}
