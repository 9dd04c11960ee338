//! The HTTP server behind both listeners.

use std::{
    convert::Infallible,
    io,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::future::BoxFuture;
use http_body_util::Either;
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus::Registry;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    select,
    sync::{Semaphore, broadcast},
    time::sleep,
};

use super::{
    Audit, AuditRecord, Caller, Health,
    answers::{Answers, May},
    api::{self, ExportFormat},
    socket::{self, ControlSocket, Listen, RemoveOnDrop},
};
use crate::{config, listening};

/// Requests that are served at once, by each listener.
const CONNECTIONS: usize = 32;
/// Limit for one connection, from its first byte to its last.
const LIMIT: Duration = Duration::from_secs(10);
/// The same on the control socket, where polls are waited for.
const CONTROL_LIMIT: Duration = Duration::from_secs(75);

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
    /// Who ordered what.
    ///
    /// # Errors
    ///
    /// A sentence, if it cannot be read.
    fn audit(&self) -> Result<Vec<AuditRecord>, String>;
    /// What passes for a while.
    fn temporary(&self) -> Vec<api::Temporary>;
    /// The list in the form that others read, or of it the sources that are named.
    ///
    /// # Errors
    ///
    /// A sentence, if there is no such source.
    fn export(&self, format: ExportFormat, sources: &[String]) -> Result<String, String>;
    /// The refused packets that were recorded lately, and those that will be.
    fn events(&self) -> Recent;
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

/// Refused packets.
pub struct Recent {
    /// The latest, oldest first.
    pub past: Vec<Arc<api::events::Refused>>,
    /// What comes after them.
    pub coming: broadcast::Receiver<Arc<api::events::Refused>>,
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
    control: ControlSocket,
    socket: PathBuf,
    export: bool,
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = listening::bind(address)?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

impl Server {
    /// Binds both listeners.
    ///
    /// # Errors
    ///
    /// If an address is in use or may not be bound.
    pub async fn bind(admin: &config::Admin) -> Result<Self, BindError> {
        let (listen, socket): (SocketAddr, &Path) = (admin.listen, &admin.socket);
        let public = bind(listen).map_err(|source| BindError {
            what: format!("admin address {listen}"),
            option: "admin.listen",
            source,
        })?;
        let control =
            socket::bind(socket, admin.group.as_deref()).await.map_err(|source| BindError {
                what: format!("control socket {}", socket.display()),
                option: "admin.socket",
                source,
            })?;
        Ok(Self { public, control, socket: socket.to_owned(), export: admin.export })
    }

    /// Serves until the task is dropped.
    pub async fn serve(
        self,
        registry: Registry,
        health: Health,
        audit: Audit,
        control: Arc<dyn Control>,
    ) {
        let Self { public, control: socket_listener, socket, export } = self;
        let _remove = RemoveOnDrop(socket);
        let may = if export { May::Export } else { May::Look };
        let anybody = Answers::new(
            registry.clone(),
            health.clone(),
            audit.clone(),
            Arc::clone(&control),
            may,
        );
        let owner = Answers::new(registry, health, audit, control, May::Order);
        tokio::join!(accept(public, anybody), accept(socket_listener, owner));
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
                let caller = match listener.judge(&stream).await {
                    Ok(caller) => caller,
                    Err(error) => {
                        tracing::warn!(%error, "a caller on the control socket cannot be told");
                        continue;
                    }
                };
                tokio::spawn(async move {
                    let _slot = slot;
                    serve(stream, &answers, caller).await;
                });
            }
            Err(error) => {
                // Out of file descriptors, most likely: wait for some.
                tracing::warn!(%error, "the admin server cannot accept a connection");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Answers on a connection until its time is over. An answer that goes on ends with its reader.
async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    answers: &Answers,
    caller: Option<(Caller, bool)>,
) {
    let limit = if answers.may_order() { CONTROL_LIMIT } else { LIMIT };
    let goes_on = AtomicBool::new(false);
    let service = service_fn(|request| async {
        let answer = answers.answer(request, caller.as_ref()).await;
        goes_on.fetch_or(matches!(answer.body(), Either::Right(_)), Ordering::Relaxed);
        Ok::<_, Infallible>(answer)
    });
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(LIMIT)
            .serve_connection(TokioIo::new(stream), service)
    );
    let result = select! {
        result = &mut connection => result,
        () = sleep(limit) => match goes_on.load(Ordering::Relaxed) {
            true => connection.await,
            false => return,
        },
    };
    if let Err(error) = result {
        tracing::debug!(%error, "a request to the admin server failed");
    }
}
