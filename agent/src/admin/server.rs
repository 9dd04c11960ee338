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

use futures_util::future::BoxFuture;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus::{Encoder as _, Registry, TextEncoder};
use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::Semaphore,
};

use crate::{
    admin::{
        Health,
        api::{self, ExportFormat},
    },
    allowlist::MAX_IMPORT,
    config,
};

/// Requests that are served at once, by each listener.
const CONNECTIONS: usize = 32;
/// Limit for one connection, from its first byte to its last.
const LIMIT: Duration = Duration::from_secs(10);
/// The same on the control socket, where polls are waited for.
const CONTROL_LIMIT: Duration = Duration::from_secs(75);
/// Largest order: an import, with every character of it escaped.
const LARGEST_ORDER: usize = 2 * MAX_IMPORT;

/// What the control socket asks of the rest of the agent.
pub trait Control: Send + Sync + 'static {
    /// The state of everything.
    fn status(&self) -> api::Status;
    /// What would become of packets from an address.
    fn check(&self, address: IpAddr) -> api::Check;
    /// Running against offered.
    fn diff(&self) -> api::Diff;
    /// What happened to the list.
    ///
    /// # Errors
    ///
    /// A sentence, if it cannot be read.
    fn history(&self) -> Result<api::History, String>;
    /// What passes for a while.
    fn temporary(&self) -> Vec<api::Temporary>;
    /// The list in the form that others read, or of it the sources that are named.
    ///
    /// # Errors
    ///
    /// A sentence, if there is no such source.
    fn export(&self, format: ExportFormat, sources: &[String]) -> Result<String, String>;
    /// Obeys an order, or says in a sentence why not.
    fn obey(&self, order: api::Order) -> BoxFuture<'static, Result<api::Obeyed, String>>;
    /// Does something with stored notifications, or says in a sentence why not.
    fn spool(
        &self,
        order: api::relay::SpoolOrder,
    ) -> BoxFuture<'static, Result<api::relay::SpoolAnswer, String>>;
    /// Takes servers out of service or back, or says in a sentence why not.
    fn upstream(
        &self,
        order: api::relay::UpstreamOrder,
    ) -> BoxFuture<'static, Result<api::relay::Upstream, String>>;
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
    export: bool,
}

impl Server {
    /// Binds both listeners.
    ///
    /// # Errors
    ///
    /// If an address is in use or may not be bound.
    pub async fn bind(admin: &config::Admin) -> Result<Self, BindError> {
        let (listen, socket): (SocketAddr, &Path) = (admin.listen, &admin.socket);
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
        Ok(Self { public, control, socket: socket.to_owned(), export: admin.export })
    }

    /// Serves until the task is dropped.
    pub async fn serve(self, registry: Registry, health: Health, control: Arc<dyn Control>) {
        let Self { public, control: socket_listener, socket, export } = self;
        let _remove = RemoveOnDrop(socket);
        let anybody = Answers {
            registry: registry.clone(),
            health: health.clone(),
            control: Arc::clone(&control),
            may: if export { May::Export } else { May::Look },
        };
        let owner = Answers { registry, health, control, may: May::Order };
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
                    let limit = if answers.may == May::Order { CONTROL_LIMIT } else { LIMIT };
                    let service = service_fn(|request| {
                        let answers = Arc::clone(&answers);
                        async move { Ok::<_, Infallible>(answers.answer(request).await) }
                    });
                    let connection = http1::Builder::new()
                        .timer(TokioTimer::new())
                        .header_read_timeout(LIMIT)
                        .serve_connection(TokioIo::new(stream), service);
                    if let Ok(Err(error)) = tokio::time::timeout(limit, connection).await {
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

/// What a listener lets its clients do.
#[derive(Clone, Copy, PartialEq, Eq)]
enum May {
    /// See metrics and health.
    Look,
    /// And the list.
    Export,
    /// And everything else, and change it.
    Order,
}

struct Answers {
    registry: Registry,
    health: Health,
    control: Arc<dyn Control>,
    may: May,
}

type Answer = Response<Full<Bytes>>;

impl Answers {
    async fn answer(&self, request: Request<Incoming>) -> Answer {
        let path = request.uri().path();
        if request.method() == Method::POST && self.may == May::Order {
            match path {
                "/v1/order" => return obey(request, |order| self.control.obey(order)).await,
                "/v1/spool" => return obey(request, |order| self.control.spool(order)).await,
                "/v1/upstream" => {
                    return obey(request, |order| self.control.upstream(order)).await;
                }
                _ => {}
            }
        }
        if request.method() != Method::GET {
            return text(StatusCode::METHOD_NOT_ALLOWED, "only GET is understood\n");
        }
        let query = request.uri().query();
        match path {
            "/metrics" => self.metrics(),
            "/healthz" if self.health.is_alive() => text(StatusCode::OK, "ok\n"),
            "/healthz" => text(StatusCode::SERVICE_UNAVAILABLE, "the main loop does not answer\n"),
            "/readyz" => self.readiness(),
            "/export" if self.may != May::Look => self.export(query),
            _ if self.may == May::Order => self.look(path, query),
            _ => text(StatusCode::NOT_FOUND, "there are /metrics, /healthz and /readyz\n"),
        }
    }

    /// What the control socket answers besides.
    fn look(&self, path: &str, query: Option<&str>) -> Answer {
        match path {
            "/v1/status" => json(&self.control.status()),
            "/v1/check" => match values(query, "address").next().and_then(|a| a.parse().ok()) {
                Some(address) => json(&self.control.check(address)),
                None => text(StatusCode::BAD_REQUEST, "address=IP is missing or malformed\n"),
            },
            "/v1/diff" => json(&self.control.diff()),
            "/v1/allow" => json(&self.control.temporary()),
            "/v1/history" => match self.control.history() {
                Ok(history) => json(&history),
                Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error),
            },
            _ => text(StatusCode::NOT_FOUND, "there is no such page\n"),
        }
    }

    fn export(&self, query: Option<&str>) -> Answer {
        let format = match values(query, "format").next() {
            None => Some(ExportFormat::Plain),
            Some(name) => ExportFormat::ALL.into_iter().find(|format| format.name() == name),
        };
        let Some(format) = format else {
            return text(StatusCode::BAD_REQUEST, "format is plain, nft, ipset or json\n");
        };
        let sources: Vec<_> = values(query, "source").map(str::to_owned).collect();
        match self.control.export(format, &sources) {
            Ok(page) if format == ExportFormat::Json => {
                response(StatusCode::OK, "application/json", page.into_bytes())
            }
            Ok(page) => text(StatusCode::OK, page),
            Err(problem) => text(StatusCode::BAD_REQUEST, problem),
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

/// Reads an order and has it obeyed.
async fn obey<Order: DeserializeOwned, Obeyed: Serialize>(
    request: Request<Incoming>,
    obeyed: impl FnOnce(Order) -> BoxFuture<'static, Result<Obeyed, String>>,
) -> Answer {
    let body = match Limited::new(request.into_body(), LARGEST_ORDER).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => return text(StatusCode::PAYLOAD_TOO_LARGE, format!("{error}\n")),
    };
    let order = match serde_json::from_slice(&body) {
        Ok(order) => order,
        Err(error) => return text(StatusCode::BAD_REQUEST, format!("not an order: {error}\n")),
    };
    match obeyed(order).await {
        Ok(obeyed) => json(&obeyed),
        Err(problem) => text(StatusCode::CONFLICT, problem),
    }
}

/// The values of a key in a query. None of ours needs escapes.
fn values<'a>(query: Option<&'a str>, key: &'a str) -> impl Iterator<Item = &'a str> {
    let pairs = query.unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
    pairs.filter(move |(name, _)| *name == key).map(|(_, value)| value)
}

fn json(value: &impl Serialize) -> Answer {
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
