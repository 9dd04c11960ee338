//! The HTTP server behind both listeners.

use std::{
    convert::Infallible,
    fs, io,
    net::{IpAddr, SocketAddr},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus::{Encoder as _, Registry, TextEncoder};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::Semaphore,
};

use crate::admin::{Health, api};

/// Requests that are served at once, by each listener.
const CONNECTIONS: usize = 32;
/// Limit for one connection, from its first byte to its last.
const LIMIT: Duration = Duration::from_secs(10);

/// What the control socket asks of the rest of the agent.
pub trait Control: Send + Sync + 'static {
    /// The state of everything.
    fn status(&self) -> api::Status;
    /// What would become of packets from an address.
    fn check(&self, address: IpAddr) -> api::Check;
}

/// An address that could not be bound.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {what}: {source}; another agent may be running, or set {option}")]
pub struct BindError {
    what: String,
    option: &'static str,
    source: io::Error,
}

/// Listeners that are bound but not served yet.
pub struct Server {
    public: TcpListener,
    control: UnixListener,
    socket: PathBuf,
}

impl Server {
    /// Binds both listeners.
    ///
    /// # Errors
    ///
    /// If an address is in use or may not be bound.
    pub async fn bind(listen: SocketAddr, socket: &Path) -> Result<Self, BindError> {
        let public = TcpListener::bind(listen).await.map_err(|source| BindError {
            what: format!("admin address {listen}"),
            option: "admin.listen",
            source,
        })?;
        let control = bind_socket(socket).await.map_err(|source| BindError {
            what: format!("control socket {}", socket.display()),
            option: "admin.socket",
            source,
        })?;
        Ok(Self { public, control, socket: socket.to_owned() })
    }

    /// Serves until the task is dropped.
    pub async fn serve(self, registry: Registry, health: Health, control: Arc<dyn Control>) {
        let Self { public, control: socket_listener, socket } = self;
        let _remove = RemoveOnDrop(socket);
        let anybody = Answers { registry: registry.clone(), health: health.clone(), control: None };
        let owner = Answers { registry, health, control: Some(control) };
        tokio::join!(accept(public, anybody), accept(socket_listener, owner));
    }
}

/// A source of connections.
trait Listen: Sync {
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    fn next(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

impl Listen for TcpListener {
    type Stream = TcpStream;

    async fn next(&self) -> io::Result<TcpStream> {
        self.accept().await.map(|(stream, _)| stream)
    }
}

impl Listen for UnixListener {
    type Stream = UnixStream;

    async fn next(&self) -> io::Result<UnixStream> {
        self.accept().await.map(|(stream, _)| stream)
    }
}

/// Binds a socket that only its owner may open, replacing one that nobody
/// answers on.
async fn bind_socket(path: &Path) -> io::Result<UnixListener> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    if UnixStream::connect(path).await.is_ok() {
        return Err(io::ErrorKind::AddrInUse.into());
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

struct RemoveOnDrop(PathBuf);

impl Drop for RemoveOnDrop {
    fn drop(&mut self) {
        let Self(path) = self;
        let _ = fs::remove_file(path);
    }
}

/// Accepts connections for ever, each in a task of its own.
async fn accept(listener: impl Listen, answers: Answers) {
    let answers = Arc::new(answers);
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        match listener.next().await {
            Ok(stream) => {
                let answers = Arc::clone(&answers);
                tokio::spawn(async move {
                    let _slot = slot;
                    let service = service_fn(|request| {
                        let response = answers.answer(&request);
                        async move { Ok::<_, Infallible>(response) }
                    });
                    let connection = http1::Builder::new()
                        .timer(TokioTimer::new())
                        .header_read_timeout(LIMIT)
                        .serve_connection(TokioIo::new(stream), service);
                    if let Ok(Err(error)) = tokio::time::timeout(LIMIT, connection).await {
                        tracing::debug!(%error, "a request to the admin server failed");
                    }
                });
            }
            Err(error) => {
                // Out of file descriptors, most likely: wait for some.
                tracing::warn!(%error, "the admin server cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

struct Answers {
    registry: Registry,
    health: Health,
    /// Only on the control socket.
    control: Option<Arc<dyn Control>>,
}

type Answer = Response<Full<Bytes>>;

impl Answers {
    fn answer(&self, request: &Request<Incoming>) -> Answer {
        if request.method() != Method::GET {
            return text(StatusCode::METHOD_NOT_ALLOWED, "only GET is understood\n");
        }
        match (request.uri().path(), &self.control) {
            ("/metrics", _) => self.metrics(),
            ("/healthz", _) if self.health.is_alive() => text(StatusCode::OK, "ok\n"),
            ("/healthz", _) => {
                text(StatusCode::SERVICE_UNAVAILABLE, "the main loop does not answer\n")
            }
            ("/readyz", _) => self.readiness(),
            ("/v1/status", Some(control)) => json(&control.status()),
            ("/v1/check", Some(control)) => match address(request.uri().query()) {
                Some(address) => json(&control.check(address)),
                None => text(StatusCode::BAD_REQUEST, "address=IP is missing or malformed\n"),
            },
            _ => text(StatusCode::NOT_FOUND, "there are /metrics, /healthz and /readyz\n"),
        }
    }

    fn metrics(&self) -> Answer {
        let mut page = Vec::new();
        let encoder = TextEncoder::new();
        match encoder.encode(&self.registry.gather(), &mut page) {
            Ok(()) => response(StatusCode::OK, encoder.format_type(), page),
            Err(error) => {
                text(StatusCode::INTERNAL_SERVER_ERROR, format!("cannot encode metrics: {error}\n"))
            }
        }
    }

    fn readiness(&self) -> Answer {
        let pending = self.health.pending();
        if pending.is_empty() {
            text(StatusCode::OK, "ready\n")
        } else {
            let message = format!("waiting for {}\n", pending.join(", "));
            text(StatusCode::SERVICE_UNAVAILABLE, message)
        }
    }
}

fn address(query: Option<&str>) -> Option<IpAddr> {
    query?.split('&').find_map(|pair| pair.strip_prefix("address="))?.parse().ok()
}

fn json(value: &impl serde::Serialize) -> Answer {
    match serde_json::to_vec(value) {
        Ok(page) => response(StatusCode::OK, "application/json", page),
        Err(error) => {
            text(StatusCode::INTERNAL_SERVER_ERROR, format!("cannot encode the answer: {error}\n"))
        }
    }
}

fn text(status: StatusCode, message: impl Into<String>) -> Answer {
    response(status, "text/plain; charset=utf-8", message.into().into_bytes())
}

fn response(status: StatusCode, kind: &str, body: Vec<u8>) -> Answer {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    if let Ok(kind) = HeaderValue::from_str(kind) {
        response.headers_mut().insert(CONTENT_TYPE, kind);
    }
    response
}
