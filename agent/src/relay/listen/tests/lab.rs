//! A listener with a certificate authority, a handler that keeps what it was
//! asked, and clients that may send anything. Every wait has an end.

use std::{
    fmt::Write as _,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use exogate_ebpf::verdict::{Action, Reason};
use futures_util::{FutureExt, future::BoxFuture};
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, StatusCode, body::Bytes};
use prometheus::{Registry, TextEncoder};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::{
    ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{Notify, Semaphore},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::super::*;
use crate::config::{Certificate, ClientCertificates, ListenerAddress, TlsVersion};

/// The longest that anything may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Waits for something that has to come.
pub(super) async fn wait<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("waited for {what}"))
}

/// A certificate authority.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(super) pem: String,
}

impl Authority {
    pub(super) fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// A chain with its key, as PEM.
    pub(super) fn issue(&self, names: &[&str]) -> (String, String) {
        self.issue_with(names, &KeyPair::generate().unwrap(), |_| {})
    }

    pub(super) fn issue_with(
        &self,
        names: &[&str],
        key: &KeyPair,
        change: impl FnOnce(&mut CertificateParams),
    ) -> (String, String) {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, "server");
        change(&mut params);
        let certificate = params.signed_by(key, &self.issuer).unwrap();
        (format!("{}{}", certificate.pem(), self.pem), key.serialize_pem())
    }
}

/// The first certificate of a chain.
pub(super) fn leaf(chain: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(chain.as_bytes()).unwrap()
}

/// What the list says: everybody but those who are named.
#[derive(Default)]
pub(super) struct List {
    pub(super) dropped: Vec<IpAddr>,
    pub(super) would_drop: Vec<IpAddr>,
    pub(super) asked: Mutex<Vec<(IpAddr, u16)>>,
}

impl Admission for List {
    fn judge(&self, source: IpAddr, port: u16) -> (Action, Reason) {
        self.asked.lock().unwrap().push((source, port));
        if self.dropped.contains(&source) {
            (Action::Drop, Reason::Unlisted)
        } else if self.would_drop.contains(&source) {
            (Action::WouldDrop, Reason::Unlisted)
        } else {
            (Action::Pass, Reason::Allowed)
        }
    }
}

/// Keeps what it is asked, and answers by the path.
pub(super) struct Server {
    pub(super) asked: Mutex<Vec<(String, Peer)>>,
    /// A request to `/hold` has come.
    pub(super) holding: Notify,
    /// A permit lets one go.
    pub(super) release: Semaphore,
}

impl Handler for Server {
    fn handle(
        self: Arc<Self>,
        request: Request<RequestBody>,
        peer: Arc<Peer>,
    ) -> BoxFuture<'static, Response<Body>> {
        async move {
            let (head, body) = request.into_parts();
            let path = head.uri.path().to_owned();
            assert_ne!(path, "/panic");
            let answer = |status: u16, text: String| {
                let body = Full::new(Bytes::from(text)).map_err(|never| match never {});
                let mut response = Response::new(Body::new(body));
                *response.status_mut() = StatusCode::from_u16(status).unwrap();
                response
            };
            let body = if path == "/unread" {
                Bytes::new()
            } else {
                match body.collect().await {
                    Ok(body) => body.to_bytes(),
                    Err(BodyError::TimedOut(_)) => return answer(408, "timed out".to_owned()),
                    Err(BodyError::Broken(_)) => return answer(400, "broken".to_owned()),
                }
            };
            let asked = format!("{} {path} {}", head.method, String::from_utf8_lossy(&body));
            self.asked.lock().unwrap().push((asked.clone(), (*peer).clone()));
            match path.as_str() {
                "/hold" => {
                    self.holding.notify_one();
                    self.release.acquire().await.unwrap().forget();
                }
                "/big" => return answer(200, "x".repeat(64 << 20)),
                _ => {}
            }
            answer(200, asked)
        }
        .boxed()
    }
}

/// A listener with everything that belongs to it.
pub(super) struct Lab {
    pub(super) directory: tempfile::TempDir,
    pub(super) authority: Authority,
    pub(super) config: config::Listener,
    pub(super) list: Arc<List>,
    pub(super) server: Arc<Server>,
    pub(super) registry: Registry,
    pub(super) metrics: Metrics,
    pub(super) address: SocketAddr,
}

impl Lab {
    /// With a certificate for `edge.example.com`, and limits that no good client
    /// meets. Listens nowhere yet.
    pub(super) fn new() -> Self {
        let registry = Registry::new();
        let mut lab = Self {
            directory: tempfile::tempdir().unwrap(),
            authority: Authority::new("test authority"),
            config: config::Listener {
                address: ListenerAddress::Bind("127.0.0.1:0".parse().unwrap()),
                certificates: Vec::new(),
                client_certificates: ClientCertificates::Off,
                http2: true,
                min_tls: TlsVersion::V12,
                guard: Some(443),
                trusted_proxies: Vec::new(),
                limits: Limits::default(),
            },
            list: Arc::default(),
            server: Arc::new(Server {
                asked: Mutex::default(),
                holding: Notify::new(),
                release: Semaphore::new(0),
            }),
            metrics: Metrics::register(&registry).unwrap(),
            registry,
            address: SocketAddr::from(([0, 0, 0, 0], 0)),
        };
        let pair = lab.authority.issue(&["edge.example.com"]);
        lab.add("edge", &pair);
        lab
    }

    /// Writes a file.
    pub(super) fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    /// Writes a pair and adds it to the configuration.
    pub(super) fn add(&mut self, name: &str, (chain, key): &(String, String)) {
        let chain = self.write(&format!("{name}.pem"), chain);
        let key = self.write(&format!("{name}-key.pem"), key);
        self.config.certificates.push(Certificate { chain, key });
    }

    pub(super) fn bind(&self) -> Result<Listener, Error> {
        Listener::bind(&self.config, &mut Inherited::none(), &self.metrics)
    }

    pub(super) fn start(&mut self) -> Running {
        let listener = self.bind().unwrap();
        self.address = listener.addresses()[0];
        let list: Arc<dyn Admission> = Arc::<List>::clone(&self.list);
        listener.serve(list, Arc::clone(&self.server))
    }

    /// What was asked, without who.
    pub(super) fn asked(&self) -> Vec<String> {
        self.server.asked.lock().unwrap().iter().map(|(asked, _)| asked.clone()).collect()
    }

    /// The value of a metric's only series with this label.
    pub(super) fn metric(&self, name: &str, label: &str) -> f64 {
        let text = TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap();
        let mut lines = text.lines().filter(|line| line.starts_with(name) && line.contains(label));
        let line = lines.next().unwrap_or_else(|| panic!("no {name} with {label} in {text}"));
        line.rsplit_once(' ').unwrap().1.parse().unwrap()
    }

    /// Waits until connections have ended like this.
    pub(super) async fn ended(&self, result: &str, count: f64) {
        let label = format!("result=\"{result}\"");
        self.until("exogate_relay_connections_total", &label, count).await;
    }

    /// Waits until a metric has a value.
    pub(super) async fn until(&self, name: &str, label: &str, value: f64) {
        let reaching = async {
            while (self.metric(name, label) - value).abs() > 0.5 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let is = || TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap();
        let reached = tokio::time::timeout(PATIENCE, reaching).await;
        assert!(reached.is_ok(), "{name} {label} is not {value}: {}", is());
    }

    /// Waits until something has been counted, however often.
    pub(super) async fn counted(&self, name: &str, label: &str) {
        let counting = async {
            while self.metric(name, label) < 0.5 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        wait(name, counting).await;
    }

    pub(super) async fn tcp(&self) -> TcpStream {
        wait("a connection", TcpStream::connect(self.address)).await.unwrap()
    }

    pub(super) async fn connect(&self) -> Client {
        self.connect_as(&Options::default()).await.unwrap()
    }

    pub(super) async fn connect_as(&self, options: &Options<'_>) -> std::io::Result<Client> {
        let mut tcp = self.tcp().await;
        tcp.write_all(options.before).await?;
        let name = ServerName::try_from(options.name.to_owned()).unwrap();
        let config = Arc::clone(&options.config);
        let stream = wait("a handshake", TlsConnector::from(config).connect(name, tcp)).await?;
        Ok(Client { stream })
    }

    /// Sends bytes on a connection of its own, and all that comes back.
    pub(super) async fn exchange(&self, bytes: &[u8]) -> String {
        let mut client = self.connect().await;
        client.send(bytes).await;
        client.rest().await
    }
}

/// How a client begins.
pub(super) struct Options<'a> {
    pub(super) name: &'a str,
    pub(super) config: Arc<ClientConfig>,
    /// What is sent before TLS.
    pub(super) before: &'a [u8],
}

impl Default for Options<'_> {
    fn default() -> Self {
        Self { name: "edge.example.com", config: client_config(&[b"http/1.1"], None), before: b"" }
    }
}

/// A client that trusts everybody, with these protocols and this pair.
pub(super) fn client_config(
    protocols: &[&[u8]],
    pair: Option<&(String, String)>,
) -> Arc<ClientConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody { signatures: "" }));
    let mut config = match pair {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => {
            let chain = CertificateDer::pem_slice_iter(chain.as_bytes()).map(Result::unwrap);
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
            builder.with_client_auth_cert(chain.collect(), key).unwrap()
        }
    };
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    Arc::new(config)
}

/// Trusts every certificate, but knows only signatures whose name begins so.
#[derive(Debug)]
pub(super) struct Anybody {
    pub(super) signatures: &'static str,
}

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let mut schemes = provider.signature_verification_algorithms.supported_schemes();
        schemes.retain(|scheme| format!("{scheme:?}").starts_with(self.signatures));
        schemes
    }
}

/// A client that sends what it is told.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) stream: TlsStream<TcpStream>,
}

impl Client {
    pub(super) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        // The listener may have had enough before the end.
        let _ = wait("sending", self.stream.write_all(bytes.as_ref())).await;
        let _ = self.stream.flush().await;
    }

    /// A request and its whole answer.
    pub(super) async fn ask(&mut self, path: &str) -> String {
        self.send(post(path, "hello")).await;
        self.answer().await
    }

    /// The next answer: head and body.
    pub(super) async fn answer(&mut self) -> String {
        let mut answer = Vec::new();
        while !is_complete(&answer) {
            let mut byte = [0];
            match wait("an answer", self.stream.read(&mut byte)).await {
                Ok(1) => answer.push(byte[0]),
                end => panic!("{end:?} after {:?}", String::from_utf8_lossy(&answer)),
            }
        }
        String::from_utf8(answer).unwrap()
    }

    /// What comes until the connection ends, in whatever way.
    pub(super) async fn rest(&mut self) -> String {
        let mut rest = Vec::new();
        let mut buffer = [0; 4096];
        while let Ok(read @ 1..) = wait("the end", self.stream.read(&mut buffer)).await {
            rest.extend_from_slice(&buffer[..read]);
        }
        String::from_utf8_lossy(&rest).into_owned()
    }
}

fn is_complete(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer).to_ascii_lowercase();
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    body.len() >= length.map_or(0, |length| length.parse().unwrap())
}

/// A request with a body.
pub(super) fn post(path: &str, body: &str) -> String {
    let mut request = format!("POST {path} HTTP/1.1\r\nHost: edge.example.com\r\n");
    let length = body.len();
    write!(request, "Content-Length: {length}\r\n\r\n{body}").unwrap();
    request
}
