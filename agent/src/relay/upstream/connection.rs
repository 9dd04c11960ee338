//! A connection to a server, and the ones that wait for the next request.
//!
//! Whoever uses a connection drives it: no task of its own stands between a request
//! and its answer. What waits is looked at when it is taken, and given up when it
//! has waited too long; a server that closed it in the meantime costs nothing.
//!
//! A request has a connection for itself, so that one that breaks or stalls takes
//! nothing else with it. A connection whose answer was not read to its end is closed.

use std::{
    fmt,
    future::poll_fn,
    mem::take,
    pin::{Pin, pin},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use futures_util::future::BoxFuture;
use hyper::{
    Request, Response, Uri,
    body::{Body, Bytes, Frame, Incoming, SizeHint},
    client::conn::http1::{self, SendRequest},
};
use tokio::{
    task::unconstrained,
    time::{Instant, interval},
};

use super::{connect::Connector, outbound::Sent};
use crate::{relay::BoxError, source::fetch::chain};

/// Below the 20 s after which Tomcat, on which Pega often runs, closes a connection
/// without requests: whoever closes first does not lose a request to the other.
const IDLE: Duration = Duration::from_secs(15);
/// How often is looked for what has waited too long.
const TIDY_EVERY: Duration = Duration::from_secs(5);

/// Moves a connection on. Its type does not matter, and would not pass through the
/// futures of those who hold it.
type Driver = Pin<Box<dyn Future<Output = hyper::Result<()>> + Send + Sync>>;

/// Why a request was not answered.
#[derive(Debug)]
pub(super) enum Failure {
    /// There was no connection.
    Connect(BoxError),
    /// The connection that was there failed.
    Request(hyper::Error),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&match self {
            Self::Connect(error) => chain(error.as_ref()),
            Self::Request(error) => chain(error),
        })
    }
}

/// The connections to one server.
pub(super) struct Connections {
    connector: Connector,
    server: Uri,
    idle: Arc<Idle>,
}

impl Connections {
    pub(super) fn new(connector: Connector, server: Uri) -> Self {
        Self { connector, server, idle: Arc::default() }
    }

    /// Sends a request for a path, over a connection that waits for one or over a new
    /// one. A connection that closes before it was used is replaced.
    pub(super) async fn send(
        &self,
        mut request: Request<Sent>,
    ) -> Result<Response<Reply>, Failure> {
        while let Some(mut connection) = self.idle.take() {
            match connection.send(request).await {
                Ok(response) => return Ok(self.reply(response, connection)),
                Err((error, None)) => return Err(Failure::Request(error)),
                Err((_, Some(untouched))) => request = untouched,
            }
        }
        let mut connection = self.connect().await?;
        match connection.send(request).await {
            Ok(response) => Ok(self.reply(response, connection)),
            Err((error, None)) => Err(Failure::Request(error)),
            Err((error, Some(_))) => Err(Failure::Connect(error.into())),
        }
    }

    /// Closes what waits too long, for ever.
    pub(super) fn tidy(&self) -> impl Future<Output = ()> + Send + use<> {
        let idle = Arc::clone(&self.idle);
        async move {
            let mut due = interval(TIDY_EVERY);
            loop {
                due.tick().await;
                idle.tidy(Instant::now());
            }
        }
    }

    fn connect(&self) -> BoxFuture<'static, Result<Connection, Failure>> {
        let connecting = self.connector.connect(self.server.clone());
        Box::pin(async move {
            let stream = connecting.await.map_err(Failure::Connect)?;
            let connected = http1::handshake(stream).await;
            let (sender, driver) = connected.map_err(|error| Failure::Connect(error.into()))?;
            Ok(Connection { sender, driver: Some(Box::pin(driver)) })
        })
    }

    fn reply(&self, response: Response<Incoming>, connection: Connection) -> Response<Reply> {
        let idle = Arc::clone(&self.idle);
        response.map(|body| {
            let mut reply = Reply { body, connection: Some(connection), idle };
            // An answer without a body has ended with its head.
            if reply.body.is_end_stream() {
                reply.end();
            }
            reply
        })
    }
}

/// Connections without a request, the one that was used last at the end.
#[derive(Default)]
struct Idle(Mutex<Vec<(Instant, Connection)>>);

impl Idle {
    fn lock(&self) -> MutexGuard<'_, Vec<(Instant, Connection)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The one that was used last, if it is still good.
    fn take(&self) -> Option<Connection> {
        loop {
            let (since, mut connection) = self.lock().pop()?;
            if since.elapsed() < IDLE && connection.is_ready() {
                return Some(connection);
            }
        }
    }

    fn put(&self, connection: Connection) {
        self.lock().push((Instant::now(), connection));
    }

    fn tidy(&self, now: Instant) {
        let all = take(&mut *self.lock());
        let good = |(since, connection): &mut (Instant, Connection)| {
            now.saturating_duration_since(*since) < IDLE && connection.is_ready()
        };
        let mut kept: Vec<_> =
            all.into_iter().filter_map(|mut one| good(&mut one).then_some(one)).collect();
        let mut idle = self.lock();
        // What came in the meantime was used later.
        kept.append(&mut idle);
        *idle = kept;
    }
}

struct Connection {
    sender: SendRequest<Sent>,
    /// Gone when the connection has ended.
    driver: Option<Driver>,
}

impl Connection {
    /// The head of the answer; or the error, with the request if nothing of it was
    /// sent.
    async fn send(
        &mut self,
        request: Request<Sent>,
    ) -> Result<Response<Incoming>, (hyper::Error, Option<Request<Sent>>)> {
        // It has no waker of its own to come back with when its task has done enough.
        let mut response = pin!(unconstrained(self.sender.try_send_request(request)));
        let driver = &mut self.driver;
        poll_fn(|cx| {
            drive(driver, cx);
            // Only the driver makes it ready, and that is polled above.
            response.as_mut().poll(&mut Context::from_waker(Waker::noop()))
        })
        .await
        .map_err(|mut failed| {
            let request = failed.take_message();
            (failed.into_error(), request)
        })
    }

    /// Whether it takes a request: it is open, and the last one is done.
    fn is_ready(&mut self) -> bool {
        drive(&mut self.driver, &mut Context::from_waker(Waker::noop()));
        self.sender.is_ready()
    }
}

/// Moves a connection on as far as it goes now. How it ends, its request tells.
fn drive(driver: &mut Option<Driver>, cx: &mut Context<'_>) {
    if let Some(open) = driver
        && open.as_mut().poll(cx).is_ready()
    {
        *driver = None;
    }
}

/// The body of an answer, which brings its connection home.
pub(super) struct Reply {
    body: Incoming,
    /// Until the end.
    connection: Option<Connection>,
    idle: Arc<Idle>,
}

impl Reply {
    fn end(&mut self) {
        if let Some(mut connection) = self.connection.take()
            && connection.is_ready()
        {
            self.idle.put(connection);
        }
    }
}

impl Body for Reply {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = &mut *self;
        if let Some(connection) = &mut this.connection {
            drive(&mut connection.driver, cx);
        }
        // Only the driver makes it ready, and that is polled above.
        let body = Pin::new(&mut this.body);
        let frame = ready!(body.poll_frame(&mut Context::from_waker(Waker::noop())));
        match &frame {
            Some(Ok(_)) if !this.body.is_end_stream() => {}
            Some(Err(_)) => this.connection = None,
            _ => this.end(),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply").field("body", &self.body).finish_non_exhaustive()
    }
}
