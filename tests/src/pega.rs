//! A stand-in of the internal server that notifications are for.
//!
//! It listens on the edge host's loopback, speaks HTTP/1.1, with TLS or without, and answers as Pega's
//! services do: a Graph validation by its token, an EWS notification by a SOAP
//! result, everything else by 200. What it was sent it remembers. How it feels
//! changes while it runs ([`Pega::feel`]), and it can be stopped and started.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::{
    HeaderMap, Request, Response,
    body::{Bytes, Frame, Incoming},
    header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::{
    lab::{Background, Lab},
    lock,
};

/// The header field by which a delivery can be told from a repetition.
pub const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// How the server feels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mood {
    /// It takes everything.
    Well,
    /// It takes everything, after a while.
    Slow(Duration),
    /// It answers with a status, and `Retry-After` perhaps.
    Answers(u16, Option<u64>),
    /// It never answers.
    Hangs,
    /// It begins to answer and never ends.
    HangsMidBody,
    /// It hangs up.
    Resets,
    /// It answers EWS notifications with `Unsubscribe`.
    Unsubscribes,
    /// It answers 200, with a page for people.
    Html,
    /// It answers 200 with this JSON.
    Json(String),
}

/// A request that it was sent, whatever it answered.
#[derive(Clone, Debug)]
pub struct Received {
    /// Path and query.
    pub target: String,
    /// The header fields.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
    /// The status of the answer; none if it was never given.
    pub status: Option<u16>,
    /// The connection that it came by.
    pub connection: u64,
}

impl Received {
    /// The identity of the delivery.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        self.headers.get(IDEMPOTENCY_KEY)?.to_str().ok()
    }

    /// Whether it was taken.
    #[must_use]
    pub fn is_taken(&self) -> bool {
        self.status.is_some_and(|status| (200..300).contains(&status))
    }
}

/// The server.
#[derive(Debug)]
pub struct Pega {
    lab: Lab,
    port: u16,
    tls: Option<Arc<ServerConfig>>,
    state: Arc<State>,
    thread: Option<Background>,
}

#[derive(Debug)]
struct State {
    mood: Mutex<Mood>,
    /// How it feels about a path alone.
    about: Mutex<Option<(String, Mood)>>,
    arrived: Mutex<Vec<String>>,
    received: Mutex<Vec<Received>>,
    connections: AtomicU64,
}

impl State {
    fn mood(&self, path: &str) -> Mood {
        let about = lock(&self.about).clone().filter(|(about, _)| about == path);
        about.map_or_else(|| lock(&self.mood).clone(), |(_, mood)| mood)
    }
}

impl Pega {
    /// Starts it on the edge host's loopback.
    ///
    /// # Errors
    ///
    /// If the port is taken.
    pub fn start(lab: &Lab, port: u16) -> Result<Self> {
        Self::start_with(lab, port, None)
    }

    /// Starts it with TLS; see [`Authority::server`](crate::tls::Authority::server).
    ///
    /// # Errors
    ///
    /// If the port is taken.
    pub fn start_tls(lab: &Lab, port: u16, tls: Arc<ServerConfig>) -> Result<Self> {
        Self::start_with(lab, port, Some(tls))
    }

    fn start_with(lab: &Lab, port: u16, tls: Option<Arc<ServerConfig>>) -> Result<Self> {
        let state = State {
            mood: Mutex::new(Mood::Well),
            about: Mutex::default(),
            arrived: Mutex::default(),
            received: Mutex::default(),
            connections: AtomicU64::new(0),
        };
        let mut pega = Self { lab: lab.clone(), port, tls, state: Arc::new(state), thread: None };
        pega.resume()?;
        Ok(pega)
    }

    /// Its address, for `servers` of an upstream.
    #[must_use]
    pub fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address())
    }

    /// Changes how it answers, from the next request on.
    pub fn feel(&self, mood: Mood) {
        *lock(&self.state.mood) = mood;
    }

    /// Changes how it answers requests for a path, its health page for instance. About
    /// everything else it feels as before.
    pub fn feel_about(&self, path: &str, mood: Mood) {
        *lock(&self.state.about) = Some((path.to_owned(), mood));
    }

    /// Stops it: connections are refused.
    pub fn stop(&mut self) {
        self.thread = None;
    }

    /// Starts it again.
    ///
    /// # Errors
    ///
    /// If the port is taken.
    pub fn resume(&mut self) -> Result<()> {
        ensure!(self.thread.is_none(), "it runs");
        let listener = self.lab.edge().listen(self.address())?;
        let state = Arc::clone(&self.state);
        let tls = self.tls.clone().map(TlsAcceptor::from);
        self.thread = Some(self.lab.edge().serve(move || serve(listener, tls, state))?);
        Ok(())
    }

    /// Every request so far, in the order of their answers.
    #[must_use]
    pub fn received(&self) -> Vec<Received> {
        lock(&self.state.received).clone()
    }

    /// Path and query of every request that came whole, in the order of arrival, whatever
    /// became of it.
    #[must_use]
    pub fn arrived(&self) -> Vec<String> {
        lock(&self.state.arrived).clone()
    }

    /// Every request that it took.
    #[must_use]
    pub fn taken(&self) -> Vec<Received> {
        let mut received = self.received();
        received.retain(Received::is_taken);
        received
    }

    /// How many connections there have been.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.state.connections.load(Ordering::Relaxed)
    }

    /// Waits until what it has received is as wanted.
    ///
    /// # Errors
    ///
    /// If it is not in time.
    pub fn wait_until(
        &self,
        what: &str,
        patience: Duration,
        mut holds: impl FnMut(&[Received]) -> bool,
    ) -> Result<Vec<Received>> {
        let begin = Instant::now();
        loop {
            let received = self.received();
            if holds(&received) {
                return Ok(received);
            }
            ensure!(
                begin.elapsed() < patience,
                "not within {patience:?}: {what}; received {}, the last: {:#?}",
                received.len(),
                received.last()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until it has taken so many requests, repetitions included.
    ///
    /// # Errors
    ///
    /// If it has not in time.
    pub fn wait_for(&self, count: usize, patience: Duration) -> Result<Vec<Received>> {
        self.wait_until(&format!("{count} requests are taken"), patience, |received| {
            received.iter().filter(|received| received.is_taken()).count() >= count
        })
    }

    fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }
}

type Answer = Response<BoxBody<Bytes, std::io::Error>>;

async fn serve(
    listener: std::net::TcpListener,
    tls: Option<TlsAcceptor>,
    state: Arc<State>,
) -> Result<()> {
    let listener = TcpListener::from_std(listener)?;
    loop {
        // A client may be gone before it is accepted.
        let Ok((stream, _)) = listener.accept().await else { continue };
        let connection = state.connections.fetch_add(1, Ordering::Relaxed);
        let (state, tls) = (Arc::clone(&state), tls.clone());
        tokio::spawn(async move {
            let service = service_fn(|request| answer(&state, connection, request));
            let http = http1::Builder::new();
            // How a client fails is for its own test to see.
            match tls {
                None => drop(http.serve_connection(TokioIo::new(stream), service).await),
                Some(tls) => {
                    let Ok(stream) = tls.accept(stream).await else { return };
                    drop(http.serve_connection(TokioIo::new(stream), service).await);
                }
            }
        });
    }
}

async fn answer(
    state: &State,
    connection: u64,
    request: Request<Incoming>,
) -> std::io::Result<Answer> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(std::io::Error::other)?.to_bytes();
    let target = head.uri.path_and_query().map(ToString::to_string).unwrap_or_default();
    lock(&state.arrived).push(target.clone());
    let mood = state.mood(head.uri.path());
    let mut received = Received { target, headers: head.headers, body, status: None, connection };
    if let Mood::Slow(time) = mood {
        tokio::time::sleep(time).await;
    }
    let answer = match mood {
        Mood::Hangs => None,
        Mood::Resets => None,
        Mood::Answers(status, retry_after) => {
            let mut answer = plain(status, "");
            if let Some(seconds) = retry_after {
                answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
            }
            Some(answer)
        }
        Mood::HangsMidBody => {
            let first = Bytes::from_static(b"<?xml");
            let first = futures_util::stream::once(async { Ok(Frame::data(first)) });
            let rest = futures_util::stream::pending();
            let body = StreamBody::new(futures_util::StreamExt::chain(first, rest));
            Some(Response::new(BoxBody::new(body)))
        }
        Mood::Html => Some(typed(200, "text/html", "<html><body>Welcome to Pega</body></html>")),
        Mood::Json(ref json) => Some(typed(200, "application/json", json)),
        Mood::Unsubscribes => Some(well(&received, "Unsubscribe")),
        Mood::Well | Mood::Slow(_) => Some(well(&received, "OK")),
    };
    // Who sends a status has taken it, whatever becomes of the rest.
    received.status = answer.as_ref().map(|answer| answer.status().as_u16());
    lock(&state.received).push(received);
    match answer {
        Some(answer) => Ok(answer),
        None if mood == Mood::Resets => Err(std::io::ErrorKind::ConnectionReset.into()),
        None => std::future::pending().await,
    }
}

/// What a server that is well answers.
fn well(received: &Received, status: &str) -> Answer {
    if received.headers.contains_key("soapaction") {
        let body = format!(
            "<?xml version=\"1.0\" encoding=\"utf-8\"?><s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\">\
             <s:Body><SendNotificationResult xmlns=\"http://schemas.microsoft.com/exchange/services/2006/messages\">\
             <SubscriptionStatus>{status}</SubscriptionStatus></SendNotificationResult></s:Body></s:Envelope>"
        );
        return typed(200, "text/xml; charset=utf-8", &body);
    }
    match received.target.split_once("validationToken=") {
        // Tokens of tests have nothing to decode.
        Some((_, token)) => plain(200, token.split('&').next().unwrap_or_default()),
        None => plain(200, ""),
    }
}

fn plain(status: u16, body: &str) -> Answer {
    typed(status, "text/plain", body)
}

fn typed(status: u16, kind: &'static str, body: &str) -> Answer {
    let body = Full::new(Bytes::copy_from_slice(body.as_bytes()));
    let mut answer = Response::new(body.map_err(|never| match never {}).boxed());
    *answer.status_mut() = hyper::StatusCode::from_u16(status).unwrap_or_default();
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}
