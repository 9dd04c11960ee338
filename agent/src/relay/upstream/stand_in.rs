//! A server that reacts as it is told, for tests.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::{StreamExt, stream};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::{
    HeaderMap, Method, Request, Response, Uri,
    body::{Bytes, Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use tokio::{
    net::TcpListener,
    sync::watch,
    task::{JoinHandle, JoinSet},
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

use crate::{config, relay::Body};

/// Longer than any test should wait for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) method: Method,
    pub(crate) target: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

/// What a server does with a request.
pub(crate) enum Reaction {
    /// It answers.
    Answer(Response<Full<Bytes>>),
    /// It answers after a while.
    Late(Duration, Response<Full<Bytes>>),
    /// It never answers.
    Hang,
    /// It answers 200 and hangs in the middle of the body.
    HangInBody,
    /// It closes the connection.
    Break,
}

impl Reaction {
    pub(crate) fn status(status: u16) -> Self {
        Self::answer(status, "")
    }

    pub(crate) fn answer(status: u16, body: &'static str) -> Self {
        let body = Full::from(body);
        Self::Answer(Response::builder().status(status).body(body).unwrap())
    }

    pub(crate) fn retry_after(status: u16, value: &str) -> Self {
        let response = Response::builder().status(status).header("retry-after", value);
        Self::Answer(response.body(Full::default()).unwrap())
    }
}

type React = Box<dyn FnMut(&Seen) -> Reaction + Send>;

struct Shared {
    react: Mutex<React>,
    seen: Mutex<Vec<Seen>>,
    count: watch::Sender<usize>,
    connections: AtomicUsize,
}

/// The server.
pub(crate) struct StandIn {
    pub(crate) address: SocketAddr,
    tls: Option<Arc<ServerConfig>>,
    shared: Arc<Shared>,
    serving: Mutex<Option<JoinHandle<()>>>,
}

impl StandIn {
    pub(crate) async fn start(react: impl FnMut(&Seen) -> Reaction + Send + 'static) -> Self {
        Self::start_with(None, react).await
    }

    pub(crate) async fn start_with(
        tls: Option<ServerConfig>,
        react: impl FnMut(&Seen) -> Reaction + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self {
            address: listener.local_addr().unwrap(),
            tls: tls.map(Arc::new),
            shared: Arc::new(Shared {
                react: Mutex::new(Box::new(react)),
                seen: Mutex::default(),
                count: watch::Sender::new(0),
                connections: AtomicUsize::new(0),
            }),
            serving: Mutex::default(),
        };
        server.serve(listener);
        server
    }

    /// Reacts otherwise from now on.
    pub(crate) fn react(&self, react: impl FnMut(&Seen) -> Reaction + Send + 'static) {
        *self.shared.react.lock().unwrap() = Box::new(react);
    }

    /// Breaks all connections and listens no more.
    pub(crate) async fn stop(&self) {
        let serving = self.serving.lock().unwrap().take();
        if let Some(serving) = serving {
            serving.abort();
            serving.await.ok();
        }
    }

    /// Listens again.
    pub(crate) async fn restart(&self) {
        self.stop().await;
        self.serve(TcpListener::bind(self.address).await.unwrap());
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().clone()
    }

    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Waits until that many requests came, all in all.
    pub(crate) async fn saw(&self, requests: usize) {
        let mut count = self.shared.count.subscribe();
        let waited = timeout(PATIENCE, count.wait_for(|count| *count >= requests)).await;
        waited.unwrap_or_else(|_| panic!("{} of {requests} requests", self.seen().len())).unwrap();
    }

    /// Its address in a configuration.
    pub(crate) fn uri(&self) -> Uri {
        let (scheme, host) =
            if self.tls.is_some() { ("https", "localhost") } else { ("http", "127.0.0.1") };
        format!("{scheme}://{host}:{}", self.address.port()).parse().unwrap()
    }

    fn serve(&self, listener: TcpListener) {
        let shared = Arc::clone(&self.shared);
        let tls = self.tls.clone().map(TlsAcceptor::from);
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                shared.connections.fetch_add(1, Ordering::SeqCst);
                let (shared, tls) = (Arc::clone(&shared), tls.clone());
                // Clients that leave are part of the tests.
                connections.spawn(async move {
                    let service = service_fn(|request| answer(Arc::clone(&shared), request));
                    let http = http1::Builder::new();
                    match tls {
                        None => http.serve_connection(TokioIo::new(stream), service).await.ok(),
                        Some(tls) => match tls.accept(stream).await {
                            Ok(stream) => {
                                http.serve_connection(TokioIo::new(stream), service).await.ok()
                            }
                            Err(_) => None,
                        },
                    }
                });
            }
        });
        *self.serving.lock().unwrap() = Some(task);
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        if let Some(serving) = self.serving.lock().unwrap().take() {
            serving.abort();
        }
    }
}

async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> io::Result<Response<Body>> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let target = head.uri.to_string();
    let seen = Seen { method: head.method, target, headers: head.headers, body };
    // What is decided is seen in the same order.
    let reaction = {
        let mut react = shared.react.lock().unwrap();
        let reaction = react(&seen);
        shared.seen.lock().unwrap().push(seen);
        reaction
    };
    shared.count.send_modify(|count| *count = count.saturating_add(1));
    let whole = |response: Response<Full<Bytes>>| {
        response.map(|body| body.map_err(|never: Infallible| match never {}).boxed())
    };
    match reaction {
        Reaction::Answer(response) => Ok(whole(response)),
        Reaction::Late(wait, response) => {
            tokio::time::sleep(wait).await;
            Ok(whole(response))
        }
        Reaction::Hang => std::future::pending().await,
        Reaction::HangInBody => {
            let first = stream::iter([Ok(Frame::data(Bytes::from_static(b"half of it")))]);
            Ok(Response::new(BodyExt::boxed(StreamBody::new(first.chain(stream::pending())))))
        }
        Reaction::Break => Err(io::ErrorKind::ConnectionReset.into()),
    }
}

/// A pool as it is configured, with all that is optional left out.
pub(crate) fn upstream(servers: &[&StandIn]) -> config::Upstream {
    config::Upstream {
        name: "pega".to_owned(),
        servers: servers.iter().map(|server| server.uri()).collect(),
        ca_file: None,
        client_certificate: None,
        proxy: None,
        host: None,
        balance: config::Balance::Failover,
        health: None,
        connect_timeout: Duration::from_secs(3),
        response_timeout: PATIENCE,
        connections: 64,
        breaker: config::Breaker { failures: 1000, pause: Duration::from_millis(50) },
        credentials: None,
        headers: Vec::new(),
    }
}
