//! Connections that belong to one client's connection.
//!
//! NTLM and Negotiate authenticate a connection, not a request: whoever is next on
//! it is taken for who was first. So what proxies for clients never takes a
//! connection from a pool and never puts one back. A [`Pinned`] is made for one
//! client, is owned by that client's connection, and ends with it.
//!
//! # When things fail
//!
//! Until credentials have been seen on a pinned connection, a request that was
//! certainly not sent is sent on a new one, one that may be made twice goes to the next
//! server, and a server that cannot be reached is passed over. Afterwards nothing is sent twice, whatever happened: the error goes
//! to the client, and its connection ends with the server's, so that neither end
//! believes in an identity that the other has forgotten.

use std::{
    future::poll_fn,
    net::IpAddr,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
};

use hyper::{
    Request, Response, StatusCode, Version,
    body::{Bytes, Frame, Incoming, SizeHint},
    client::conn::{TrySendError, http1},
    header::{CONNECTION, HOST, HeaderValue, UPGRADE},
    http::response::Parts,
    upgrade::{OnUpgrade, Upgraded},
};
use hyper_util::rt::TokioIo;
use tokio::{
    task::unconstrained,
    time::{Instant, timeout_at},
};

use super::{
    Pool, SendError, after,
    answer::Place,
    circuit::Admission,
    connection::Failure,
    metrics::Outcome,
    outbound::remove_hop_by_hop,
    progress::Progress,
    replay::{Failed, Replay},
    server::{Attempt, Refused, Server},
};
use crate::{relay::Body, source::fetch::chain};

/// Told when a server's connection ends that somebody may be authenticated on.
pub(in crate::relay) type OnEnd = Arc<dyn Fn() + Send + Sync>;

/// The client that a connection is for.
pub(in crate::relay) struct Client {
    /// Its address.
    pub(in crate::relay) source: IpAddr,
    /// Ends its connection.
    pub(in crate::relay) on_end: OnEnd,
}

/// A connection to a server that one client owns. Dropped, it is closed.
pub(in crate::relay) struct Pinned {
    server: Arc<Server>,
    sender: http1::SendRequest<Body>,
    /// Whether credentials that hold for the connection may have been given on it.
    is_authenticated: AtomicBool,
    on_end: OnEnd,
    /// Gone when the connection has ended. Whoever uses the connection drives it, and the
    /// session while nobody does: no task of its own stands between a request and its
    /// answer.
    driver: Option<Driver>,
}

type Driver = Pin<Box<dyn Future<Output = hyper::Result<()>> + Send + Sync>>;

impl Pinned {
    /// From now on the connection speaks for somebody.
    pub(in crate::relay) fn authenticate(&self) {
        self.is_authenticated.store(true, Ordering::Release);
    }

    /// Moves the connection on as far as it goes now. Whether it is open still.
    pub(in crate::relay) fn drive(&mut self, cx: &mut Context<'_>) -> bool {
        if let Some(driver) = &mut self.driver
            && driver.as_mut().poll(cx).is_ready()
        {
            // How it ended, its request tells.
            self.driver = None;
        }
        self.driver.is_some()
    }

    /// Whether it may speak for somebody.
    pub(in crate::relay) fn is_authenticated(&self) -> bool {
        self.is_authenticated.load(Ordering::Acquire)
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        self.server.pinned(false);
        if self.is_authenticated() {
            (self.on_end)();
        }
    }
}

/// The answer to a request.
pub(in crate::relay) struct Answered {
    pub(in crate::relay) response: Response<Streamed>,
    /// The connection that it comes by, free when its body has ended.
    pub(in crate::relay) pinned: Pinned,
    /// Whether the server closes the connection after it.
    pub(in crate::relay) is_last: bool,
    /// There if the server changes the protocol, as it was asked to.
    pub(in crate::relay) switched: Option<Switched>,
}

/// The change of a connection to another protocol.
pub(in crate::relay) struct Switched {
    /// The protocol, as the server names it.
    pub(in crate::relay) protocol: HeaderValue,
    on_upgrade: OnUpgrade,
}

impl Switched {
    /// The bytes of the server that changed the protocol on this connection.
    pub(in crate::relay) async fn stream(
        mut self,
        pinned: &mut Pinned,
    ) -> hyper::Result<TokioIo<Upgraded>> {
        let upgraded = poll_fn(|cx| {
            pinned.drive(cx);
            Pin::new(&mut self.on_upgrade).poll(cx)
        });
        upgraded.await.map(TokioIo::new)
    }
}

/// The body of an answer, which the connection's own task brings. While it lives, the
/// request counts as under way.
#[derive(Debug)]
pub(in crate::relay) struct Streamed {
    body: Incoming,
    _place: Place,
}

impl hyper::body::Body for Streamed {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Pool {
    /// The answer to a client's request, by its own connection: the one that it has, or a
    /// new one. `authenticates`: the request carries credentials that will
    /// hold for the connection. The request names a path alone, has only fields that may
    /// go to a server, and `Upgrade` if it may change the protocol; the
    /// server's own `Host` is set if it has none. Safe to cancel: the connection ends.
    ///
    /// # Errors
    ///
    /// See [`SendError`]. The connection is closed then.
    pub(in crate::relay) async fn send_pinned(
        &self,
        mut pinned: Option<Pinned>,
        mut request: Request<Body>,
        authenticates: bool,
        progress: &Progress,
        client: &Client,
    ) -> Result<Answered, SendError> {
        self.caller.set(request.headers_mut());
        let replay = Replay::of(&request).filter(|_| !authenticates);
        let deadline = after(Instant::now(), self.response_timeout());
        let mut failed = None;
        if let Some(pinned) = pinned.take_if(|pinned| self.is_of_use(pinned)) {
            let server = Arc::clone(&pinned.server);
            match server.enter(deadline).await {
                Ok((attempt, place)) => {
                    let was_authenticated = pinned.is_authenticated();
                    let sent = self
                        .exchange(pinned, attempt, place, request, authenticates, progress)
                        .await;
                    match sent {
                        Ok(answered) => return Ok(answered),
                        Err(failure) => {
                            let (error, again) = failure.again(replay.as_ref());
                            let Some(again) = again.filter(|_| !was_authenticated) else {
                                return Err(error);
                            };
                            request = again;
                            failed = Some(error);
                        }
                    }
                }
                Err(Refused::Busy) => return Err(self.busy(&server)),
                Err(Refused::Stopping) => return Err(SendError::Stopping(self.name.clone())),
                Err(Refused::NotWell) if pinned.is_authenticated() => {
                    return Err(self.unavailable());
                }
                Err(Refused::NotWell) => {}
            }
        } else if let Some(pinned) = pinned
            && pinned.is_authenticated()
        {
            return Err(SendError::Reset {
                server: pinned.server.name.clone(),
                problem: "the connection that the client is authenticated on has ended".to_owned(),
            });
        }
        for server in self.order(Some(client.source)) {
            let (attempt, place) = match server.enter(deadline).await {
                Ok(entered) => entered,
                Err(Refused::NotWell) => continue,
                Err(Refused::Busy) => return Err(self.busy(server)),
                Err(Refused::Stopping) => return Err(SendError::Stopping(self.name.clone())),
            };
            let pinned = match self.connect(server, client).await {
                Ok(pinned) => pinned,
                Err(problem) => {
                    let error = SendError::Connect { server: server.name.clone(), problem };
                    attempt.failed(Outcome::Connect, error.to_string());
                    failed = Some(error);
                    continue;
                }
            };
            let sent =
                self.exchange(pinned, attempt, place, request, authenticates, progress).await;
            match sent {
                Ok(answered) => return Ok(answered),
                Err(failure) => {
                    let (error, again) = failure.again(replay.as_ref());
                    let Some(again) = again.filter(|_| !authenticates) else { return Err(error) };
                    request = again;
                    failed = Some(error);
                }
            }
        }
        Err(failed.unwrap_or_else(|| self.unavailable()))
    }

    /// Whether the next request can go by a connection: it is open, and nobody loses an
    /// identity if its server is down and another one is asked.
    fn is_of_use(&self, pinned: &Pinned) -> bool {
        !pinned.sender.is_closed()
            && (pinned.is_authenticated()
                || pinned.server.admission() == Admission::Now && !pinned.server.is_drained())
    }

    pub(super) fn busy(&self, server: &Server) -> SendError {
        SendError::Busy { server: server.name.clone(), after: self.response_timeout() }
    }

    async fn connect(&self, server: &Arc<Server>, client: &Client) -> Result<Pinned, String> {
        let io = self
            .connector
            .connect(server.address().clone())
            .await
            .map_err(|error| chain(&*error))?;
        let (sender, connection) = http1::handshake(io).await.map_err(|error| chain(&error))?;
        server.pinned(true);
        Ok(Pinned {
            server: Arc::clone(server),
            sender,
            is_authenticated: AtomicBool::new(false),
            on_end: Arc::clone(&client.on_end),
            driver: Some(Box::pin(connection.with_upgrades())),
        })
    }

    async fn exchange(
        &self,
        mut pinned: Pinned,
        attempt: Attempt<'_>,
        place: Place,
        mut request: Request<Body>,
        authenticates: bool,
        progress: &Progress,
    ) -> Result<Answered, Failed> {
        let name = pinned.server.name.clone();
        let limit = self.response_timeout();
        if !request.headers().contains_key(HOST) {
            request.headers_mut().insert(HOST, pinned.server.host.clone());
        }
        let ready = poll_fn(|cx| {
            pinned.drive(cx);
            pinned.sender.poll_ready(cx)
        });
        if timeout_at(after(Instant::now(), limit), ready).await.is_err() {
            let error = self.busy(&pinned.server);
            attempt.spoilt(Outcome::Busy);
            return Err(Failed { error, unsent: Some(request) });
        }
        let asks = request.headers().get(UPGRADE).cloned();
        if authenticates {
            // Before a byte of it is sent: from here on the connection is somebody's.
            pinned.authenticate();
        }
        progress.moved();
        let began = Instant::now();
        // It has no waker of its own to come back with when its task has done enough.
        let sending = unconstrained(pinned.sender.try_send_request(request));
        let sent = {
            let mut sending = pin!(sending);
            let mut exchange = poll_fn(|cx| {
                pinned.drive(cx);
                // Only the driver makes it ready, and that is polled above.
                sending.as_mut().poll(&mut Context::from_waker(Waker::noop()))
            });
            loop {
                let deadline = after(progress.last(), limit);
                match timeout_at(deadline, &mut exchange).await {
                    Ok(sent) => break Some(sent),
                    Err(_) if after(progress.last(), limit) > Instant::now() => {}
                    Err(_) => break None,
                }
            }
        };
        let Some(sent) = sent else {
            let error = SendError::Timeout { server: name, after: limit };
            attempt.failed(Outcome::Timeout, error.to_string());
            return Err(Failed { error, unsent: None });
        };
        match sent {
            Ok(mut response) => {
                let switched = match switched(asks.as_ref(), &mut response) {
                    Ok(switched) => switched,
                    Err(problem) => {
                        let error = SendError::Invalid { server: name, problem };
                        attempt.failed(Outcome::Invalid, error.to_string());
                        return Err(Failed { error, unsent: None });
                    }
                };
                attempt.answered(response.status(), began.elapsed());
                let (mut head, body) = response.into_parts();
                let is_last = is_last(&head);
                remove_hop_by_hop(&mut head.headers);
                let response = Response::from_parts(head, Streamed { body, _place: place });
                Ok(Answered { response, pinned, is_last, switched })
            }
            Err(error) => Err(failed(attempt, &name, error)),
        }
    }
}

/// The change of protocol that an answer speaks of.
fn switched(
    asked: Option<&HeaderValue>,
    answer: &mut Response<Incoming>,
) -> Result<Option<Switched>, String> {
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(None);
    }
    let is_asked = |given: &&HeaderValue| {
        asked.is_some_and(|asked| asked.as_bytes().eq_ignore_ascii_case(given.as_bytes()))
    };
    let Some(protocol) = answer.headers().get(UPGRADE).filter(is_asked).cloned() else {
        return Err("it changes to a protocol that was not asked for".to_owned());
    };
    Ok(Some(Switched { protocol, on_upgrade: hyper::upgrade::on(answer) }))
}

/// Whether a server closes its connection after an answer (RFC 9112, 9.3).
fn is_last(answer: &Parts) -> bool {
    let mut options = answer
        .headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|field| field.to_str().ok())
        .flat_map(|field| field.split(',').map(str::trim));
    match answer.version {
        Version::HTTP_11 => options.any(|option| option.eq_ignore_ascii_case("close")),
        _ => !options.any(|option| option.eq_ignore_ascii_case("keep-alive")),
    }
}

fn failed(attempt: Attempt<'_>, server: &str, mut error: TrySendError<Request<Body>>) -> Failed {
    let unsent = error.take_message();
    let error = error.into_error();
    let failure = match unsent {
        Some(_) => Failure::Connect(error.into()),
        None => Failure::Request(error),
    };
    let error = SendError::of(server, &failure);
    match error.outcome() {
        // The server closed an idle connection, as it may; or the client's body broke.
        outcome @ (Outcome::Connect | Outcome::Request) => attempt.spoilt(outcome),
        outcome => attempt.failed(outcome, error.to_string()),
    }
    Failed { error, unsent }
}
