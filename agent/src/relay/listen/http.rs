//! HTTP on a connection: HTTP/1.1 or HTTP/2, as was agreed in the handshake.
//!
//! The HTTP library keeps what is said in [`guard`](super::guard), and its limits
//! here. Times are kept by [`Activity`]. A handler that panics is answered 500 and
//! ends nothing else.

use std::{
    convert::Infallible, future::poll_fn, panic::AssertUnwindSafe, pin::pin, sync::Arc, task::Poll,
    time::Duration,
};

use futures_util::{FutureExt, future::BoxFuture};
use http_body_util::{BodyExt, Empty};
use hyper::{
    Request, Response, StatusCode, Version,
    body::{Bytes, Incoming},
    header::{CONNECTION, HeaderValue},
    server::conn::{http1, http2},
    service::{HttpService, service_fn},
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::graceful::GracefulConnection,
};
use tokio::{
    io::AsyncWriteExt as _,
    net::TcpStream,
    time::{sleep_until, timeout},
};
use tokio_rustls::server::TlsStream;

use super::{
    Handler, Peer, Shared,
    activity::{Activity, Expired, LINGER, UnderWay, Watched},
    attached::Attached,
    body::{RequestBody, ResponseBody},
    connection::Outcome,
    dormant::Dormant,
    guard::{self, Refusal},
};
use crate::{config::Limits, relay::Body};

/// Requests at once on a connection of HTTP/2.
const STREAMS: u32 = 128;
/// Streams that a client opened and reset, and that nobody has looked at yet; and
/// those that we had to reset. Beyond that the connection ends ("rapid reset").
const RESET_STREAMS: usize = 20;
const LOCAL_RESET_STREAMS: usize = 128;
/// Bytes on their way to us for a stream, and for a connection.
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 1 << 20;
/// Bytes of answers that wait in a stream.
const SEND_BUFFER: usize = 64 << 10;
/// A client of HTTP/2 that says nothing is asked whether it is there.
const PING_AFTER: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// The library's settings for all connections of a listener.
pub(super) struct Protocols {
    http1: http1::Builder,
    http2: http2::Builder<TokioExecutor>,
}

impl Protocols {
    pub(super) fn new(limits: &Limits) -> Self {
        let mut http1 = http1::Builder::new();
        http1
            // Ours are finer: they tell an idle connection from a slow one.
            .header_read_timeout(None)
            .max_header_size(limits.header_bytes)
            .max_buf_size(limits.header_bytes.max(64 << 10))
            .writev(true);
        let mut http2 = http2::Builder::new(TokioExecutor::new());
        http2
            .timer(TokioTimer::new())
            .max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX))
            .max_concurrent_streams(STREAMS)
            .max_pending_accept_reset_streams(RESET_STREAMS)
            .max_local_error_reset_streams(LOCAL_RESET_STREAMS)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buf_size(SEND_BUFFER)
            .keep_alive_interval(PING_AFTER)
            .keep_alive_timeout(PING_TIMEOUT);
        Self { http1, http2 }
    }
}

/// Serves a connection until it ends. The future is small: thousands of them wait.
pub(super) fn serve<H: Handler>(
    shared: &Arc<Shared<H>>,
    stream: TlsStream<TcpStream>,
    peer: Peer,
) -> BoxFuture<'static, Outcome> {
    let is_http1 = stream.get_ref().1.alpn_protocol() != Some(b"h2");
    let activity = Activity::new(is_http1);
    let attached = Arc::clone(&peer.attached);
    let peer = Arc::new(peer);
    let tell = {
        let (shared, peer) = (Arc::clone(shared), Arc::clone(&peer));
        move |outcome: &Outcome| {
            if *outcome == Outcome::ProtocolError {
                shared.handler.refused(&peer, None, outcome.name(), None);
            }
        }
    };
    let service = service_fn({
        let (shared, activity) = (Arc::clone(shared), Arc::clone(&activity));
        move |request| {
            answer(Arc::clone(&shared), Arc::clone(&activity), Arc::clone(&peer), request)
        }
    });
    let watch = {
        let activity = Arc::clone(&activity);
        move |stream, unread| TokioIo::new(Watched::new(stream, unread, Arc::clone(&activity)))
    };
    let shared = Arc::clone(shared);
    let protocols = Arc::clone(&shared.protocols);
    if is_http1 {
        let serve = move |stream, unread| {
            protocols.http1.serve_connection(watch(stream, unread), service.clone())
        };
        let connection = Dormant::new(stream, serve, Some(take_apart));
        drive(shared, activity, attached, connection, is_http1).inspect(tell).boxed()
    } else {
        let serve = move |stream, unread| {
            protocols.http2.serve_connection(watch(stream, unread), service.clone())
        };
        let mut connection = Dormant::new(stream, serve, None);
        // The server speaks as soon as the client.
        connection.wake();
        drive(shared, activity, attached, connection, is_http1).inspect(tell).boxed()
    }
}

/// The stream of a connection of HTTP/1 that has nothing to do.
fn take_apart<S>(
    connection: http1::Connection<TokioIo<Watched<TlsStream<TcpStream>>>, S>,
) -> (TlsStream<TcpStream>, Bytes)
where
    S: HttpService<Incoming, ResBody = ResponseBody, Error = Infallible>,
{
    let parts = connection.into_parts();
    (parts.io.into_inner().into_inner(), parts.read_buf)
}

async fn answer<H: Handler>(
    shared: Arc<Shared<H>>,
    activity: Arc<Activity>,
    peer: Arc<Peer>,
    request: Request<Incoming>,
) -> Result<Response<ResponseBody>, Infallible> {
    let under_way = activity.begin();
    let version = request.version();
    let limit = shared.limits.body_timeout;
    let request = request.map(|body| RequestBody::new(body, activity, limit));
    let refused = match guard::check(&request) {
        Err(refusal) => Some((refusal, StatusCode::BAD_REQUEST)),
        Ok(()) if peer.attached.admits() => None,
        Ok(()) => Some((Refusal::SourceLimit, StatusCode::TOO_MANY_REQUESTS)),
    };
    if let Some((refusal, status)) = refused {
        shared.metrics.refused(refusal);
        shared.handler.refused(&peer, Some(request.method()), refusal.name(), Some(status));
        return Ok(plain(status, version, under_way));
    }
    let handler = Arc::clone(&shared.handler);
    let handled = AssertUnwindSafe(async move { handler.handle(request, peer).await });
    match handled.catch_unwind().await {
        Ok(response) => Ok(response.map(|body| ResponseBody::new(body, under_way))),
        Err(_) => {
            shared.metrics.panics.inc();
            tracing::error!(listener = &*shared.name, "a request ended in a panic: this is a bug");
            Ok(plain(StatusCode::INTERNAL_SERVER_ERROR, version, under_way))
        }
    }
}

/// An answer without a body, the last one of its connection in HTTP/1.
fn plain(status: StatusCode, version: Version, request: UnderWay) -> Response<ResponseBody> {
    let body = Body::new(Empty::new().map_err(|never| match never {}));
    let mut response = Response::new(ResponseBody::new(body, request));
    *response.status_mut() = status;
    if version < Version::HTTP_2 {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Polls a connection, keeps its deadlines and lets it end when we drain or when it
/// is told to.
async fn drive<H, F, C>(
    shared: Arc<Shared<H>>,
    activity: Arc<Activity>,
    attached: Arc<Attached>,
    mut connection: Dormant<F, C>,
    is_http1: bool,
) -> Outcome
where
    F: Fn(TlsStream<TcpStream>, Bytes) -> C + Unpin,
    C: GracefulConnection<Error = hyper::Error> + Future<Output = Result<(), hyper::Error>> + Unpin,
{
    let limits = &shared.limits;
    let (mut armed, _) = activity.deadline(limits, false);
    let mut timer = pin!(sleep_until(armed));
    let mut drain = pin!(shared.drain.begun());
    let mut is_draining = false;
    let mut is_ending = false;
    let outcome = poll_fn(|cx| {
        loop {
            if let Poll::Ready(Some(awake)) = connection.poll_awake(cx)
                && let Poll::Ready(result) = awake.poll(cx)
            {
                return Poll::Ready(outcome(&shared, &activity, result));
            }
            is_draining = is_draining || drain.as_mut().poll(cx).is_ready();
            // A connection of HTTP/1 that was just made brings its first request:
            // it has no other way to know that it should not.
            let is_new = is_http1 && !activity.was_asked();
            let is_told = (is_draining && !is_new) || attached.poll_closed(cx);
            if is_told && !is_ending {
                is_ending = true;
                activity.end();
                end(&mut connection);
                continue;
            }
            let (mut deadline, mut expired) = activity.deadline(limits, connection.is_restless());
            if is_new
                && !is_ending
                && let Some(latest) = shared.drain.latest_start().filter(|end| *end <= deadline)
            {
                (deadline, expired) = (latest, Some(Expired::Idle));
            }
            if let Some(end) = shared.drain.end().filter(|end| *end <= deadline) {
                (deadline, expired) = (end, Some(Expired::Broken(Outcome::Cut)));
            }
            // A deadline that has moved away is noticed when the timer fires.
            if deadline < armed {
                armed = deadline;
                timer.as_mut().reset(armed);
            }
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            let is_due = deadline <= armed;
            match expired {
                Some(Expired::Broken(outcome)) if is_due => return Poll::Ready(outcome),
                Some(Expired::Rest) if is_due => {
                    connection.rest();
                    armed = activity.deadline(limits, false).0;
                }
                Some(Expired::Idle) if is_due => {
                    // HTTP/2 says so, in case a request is on its way.
                    is_ending = true;
                    activity.end();
                    end(&mut connection);
                    armed = activity.deadline(limits, false).0;
                }
                _ => armed = deadline,
            }
            timer.as_mut().reset(armed);
        }
    })
    .await;
    if let Some(takeover) = attached.taken_over() {
        let stream = connection.into_stream().filter(|_| outcome == Outcome::Served);
        let Some((stream, unread)) = stream else { return outcome };
        // Its requests, if it has any, cannot be told apart: when we drain it goes on
        // until the end.
        tokio::select! {
            () = takeover(stream, unread) => return Outcome::Switched,
            () = shared.drain.cut() => return Outcome::Cut,
        }
    }
    // The library leaves the end to others where a request asked for another protocol, even
    // if it was refused.
    if is_http1
        && !activity.was_shut()
        && outcome == Outcome::Served
        && let Some((stream, unread)) = connection.into_stream()
    {
        let mut stream = Watched::new(stream, unread, activity);
        let _ = timeout(LINGER, stream.shutdown()).await;
    }
    outcome
}

/// Lets a connection end after what it has begun.
fn end<F, C>(connection: &mut Dormant<F, C>)
where
    F: Fn(TlsStream<TcpStream>, Bytes) -> C,
    C: GracefulConnection + Unpin,
{
    if let Some(connection) = connection.wake() {
        connection.graceful_shutdown();
    }
}

fn outcome<H>(
    shared: &Shared<H>,
    activity: &Activity,
    result: Result<(), hyper::Error>,
) -> Outcome {
    let served = Outcome::of_served(activity.was_asked());
    let Err(error) = result else { return served };
    if error.is_parse() {
        let refusal = match error.is_parse_too_large() {
            true => Refusal::HeadTooLarge,
            false => Refusal::Malformed,
        };
        shared.metrics.refused(refusal);
        return Outcome::ProtocolError;
    }
    let source = std::error::Error::source(&error);
    match source.and_then(|source| source.downcast_ref::<h2::Error>()) {
        Some(error) if error.is_library() => Outcome::ProtocolError,
        _ => served,
    }
}
