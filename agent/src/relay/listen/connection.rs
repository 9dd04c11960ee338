//! The life of a connection: PROXY header, admission, TLS, HTTP, and its end.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use exogate_ebpf::verdict::Action;
use futures_util::future::BoxFuture;
use tokio::{io::AsyncWriteExt, net::TcpStream, sync::OwnedSemaphorePermit, time::Instant};
use tokio_rustls::{StartHandshake, TlsAcceptor};

use super::{
    Handler, Passage, Passed, Peer, Shared, attached::Attached, hello, http, proxy, sources::Place,
};

/// How long the farewell to a health check may take.
const FAREWELL: Duration = Duration::from_secs(1);

/// What became of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It brought requests, and ended as connections end.
    Served,
    /// It came through the handshake and brought none.
    Unused,
    /// Its source is not on the list.
    Unlisted,
    /// It comes from a trusted proxy, without a PROXY header of version 2.
    NoProxyHeader,
    /// Its PROXY header cannot be read.
    BadProxyHeader,
    /// A trusted proxy looked whether we are well.
    HealthCheck,
    /// TLS could not be agreed on.
    TlsFailed,
    /// The client left before the end of the handshake.
    Left,
    /// The handshake took too long.
    HandshakeTimeout,
    /// The head of a request took too long.
    HeaderTimeout,
    /// The client did not take its answer.
    NotReading,
    /// What came is no HTTP, or breaks the rules of HTTP/2.
    ProtocolError,
    /// Its source has as many connections as it may.
    SourceLimit,
    /// It changed to another protocol, and that ended.
    Switched,
    /// Its TLS was passed on to a server.
    PassedOn,
    /// Its TLS was to be passed on, and there was no server.
    Unreachable,
    /// It was still open at the end of the draining.
    Cut,
}

impl Outcome {
    /// Each, in the order of its number.
    pub(super) const ALL: [Self; 17] = [
        Self::Served,
        Self::Unused,
        Self::Unlisted,
        Self::NoProxyHeader,
        Self::BadProxyHeader,
        Self::HealthCheck,
        Self::TlsFailed,
        Self::Left,
        Self::HandshakeTimeout,
        Self::HeaderTimeout,
        Self::NotReading,
        Self::ProtocolError,
        Self::SourceLimit,
        Self::Switched,
        Self::PassedOn,
        Self::Unreachable,
        Self::Cut,
    ];

    /// The name as a metric label.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Served => "served",
            Self::Unused => "unused",
            Self::Unlisted => "unlisted",
            Self::NoProxyHeader => "no_proxy_header",
            Self::BadProxyHeader => "bad_proxy_header",
            Self::HealthCheck => "health_check",
            Self::TlsFailed => "tls_failed",
            Self::Left => "left",
            Self::HandshakeTimeout => "handshake_timeout",
            Self::HeaderTimeout => "header_timeout",
            Self::NotReading => "not_reading",
            Self::ProtocolError => "protocol_error",
            Self::SourceLimit => "source_limit",
            Self::Switched => "switched",
            Self::PassedOn => "passed_on",
            Self::Unreachable => "unreachable",
            Self::Cut => "cut",
        }
    }

    /// Of a connection with or without requests that ended as connections end.
    pub(super) const fn of_served(was_asked: bool) -> Self {
        if was_asked { Self::Served } else { Self::Unused }
    }
}

/// Takes a connection that was accepted on the guarded `port`. A source that is
/// not on the list is turned away here, before it costs a task.
pub(super) fn admit<H: Handler>(
    shared: &Arc<Shared<H>>,
    stream: TcpStream,
    remote: SocketAddr,
    port: u16,
    permit: OwnedSemaphorePermit,
) {
    let remote = proxy::canonical(remote);
    let is_proxy = shared.trusted_proxies.iter().any(|prefix| prefix.contains(&remote.ip()));
    if !is_proxy && !is_admitted(shared, remote, port) {
        refuse(&stream);
        shared.metrics.ended(Outcome::Unlisted);
        return;
    }
    let open = Open::new(shared, permit);
    shared.tasks.spawn(async move {
        let shared = &open.shared;
        let outcome = serve(shared, stream, remote, is_proxy, port).await;
        shared.metrics.ended(outcome);
    });
}

fn is_admitted<H>(shared: &Shared<H>, source: SocketAddr, port: u16) -> bool {
    let (action, _) = shared.admission.judge(source.ip(), port);
    shared.metrics.judged(action);
    action != Action::Drop
}

/// Resets the connection instead of closing it: a stranger leaves nothing behind
/// that the kernel would have to keep.
fn refuse(stream: &TcpStream) {
    // Without it the connection is closed as usual.
    let _ = stream.set_zero_linger();
}

/// An open connection: its place among the connections at once.
struct Open<H> {
    shared: Arc<Shared<H>>,
    _permit: OwnedSemaphorePermit,
}

impl<H> Open<H> {
    fn new(shared: &Arc<Shared<H>>, permit: OwnedSemaphorePermit) -> Self {
        shared.metrics.connections.inc();
        Self { shared: Arc::clone(shared), _permit: permit }
    }
}

impl<H> Drop for Open<H> {
    fn drop(&mut self) {
        self.shared.metrics.connections.dec();
    }
}

async fn serve<H: Handler>(
    shared: &Arc<Shared<H>>,
    stream: TcpStream,
    remote: SocketAddr,
    is_proxy: bool,
    port: u16,
) -> Outcome {
    let limit = shared.limits.handshake_timeout;
    // In a box, so that an idle connection does not keep the room of a handshake.
    let establish = Box::pin(establish(shared, stream, remote, is_proxy, port));
    let established = tokio::select! {
        biased;
        established = establish => established,
        () = tokio::time::sleep(limit) => Err(Outcome::HandshakeTimeout),
        () = shared.drain.cut() => Err(Outcome::Cut),
        () = shared.drain.late() => Err(Outcome::HandshakeTimeout),
    };
    match established {
        Ok(served) => served.await,
        Err(outcome) => outcome,
    }
}

/// From the first byte to the end of the handshake. What comes of it is what serves
/// the connection from there.
async fn establish<H: Handler>(
    shared: &Arc<Shared<H>>,
    mut stream: TcpStream,
    remote: SocketAddr,
    is_proxy: bool,
    port: u16,
) -> Result<BoxFuture<'static, Outcome>, Outcome> {
    let mut client = Some(remote);
    if is_proxy {
        client = match proxy::read(&mut stream).await {
            Ok(proxy::Proxied::Client(client)) => Some(client),
            Ok(proxy::Proxied::HealthCheck) => None,
            Err(proxy::Fault::Missing) => return Err(Outcome::NoProxyHeader),
            Err(proxy::Fault::Malformed) => return Err(Outcome::BadProxyHeader),
            Err(proxy::Fault::Left) => return Err(Outcome::Left),
        };
        if client.is_some_and(|client| !is_admitted(shared, client, port)) {
            refuse(&stream);
            return Err(Outcome::Unlisted);
        }
    }
    let place = match (&shared.sources, client) {
        (Some(sources), Some(source)) => {
            let Some(place) = sources.enter(source.ip()) else {
                refuse(&stream);
                return Err(Outcome::SourceLimit);
            };
            Some(place)
        }
        _ => None,
    };
    let begin = Instant::now();
    let stream = match (&shared.passthrough, client) {
        (Some(passthrough), Some(source)) => {
            let hello = hello::read(&mut stream).await?;
            let server_name = hello.server_name();
            let passage = server_name.as_ref().and_then(|name| passthrough.find(name));
            if let Some(passage) = passage {
                let peer = peer(shared, source, is_proxy.then(|| remote.ip()), server_name, place);
                return Ok(Box::pin(pass(Arc::clone(shared), passage, stream, hello.bytes, peer)));
            }
            let start = StartHandshake::from_parts(hello.accepted, stream);
            start.into_stream(shared.tls.current()).await
        }
        _ => TlsAcceptor::from(shared.tls.current()).accept(stream).await,
    };
    let Some(source) = client else {
        // The balancer knows now what it wanted to know. A request of its own has
        // no client, so none is read.
        if let Ok(mut stream) = stream {
            let _ = tokio::time::timeout(FAREWELL, stream.shutdown()).await;
        }
        return Err(Outcome::HealthCheck);
    };
    let stream = stream.map_err(|error| outcome_of_handshake(shared, source, &error))?;
    shared.metrics.handshakes.observe(begin.elapsed().as_secs_f64());
    let server_name = stream.get_ref().1.server_name().map(str::to_ascii_lowercase);
    let peer = peer(shared, source, is_proxy.then(|| remote.ip()), server_name, place);
    Ok(http::serve(shared, stream, peer))
}

fn peer<H>(
    shared: &Shared<H>,
    source: SocketAddr,
    proxy: Option<IpAddr>,
    server_name: Option<String>,
    place: Option<Place>,
) -> Peer {
    let listener = Arc::clone(&shared.name);
    Peer { source, proxy, server_name, listener, attached: Arc::new(Attached::new(place)) }
}

/// Passes a connection on whose TLS is not ours. Its requests cannot be told apart, so
/// when we drain it goes on until the end.
async fn pass<H: Handler>(
    shared: Arc<Shared<H>>,
    passage: Arc<dyn Passage>,
    stream: TcpStream,
    said: Vec<u8>,
    peer: Peer,
) -> Outcome {
    tokio::select! {
        passed = passage.pass(stream, said, peer) => match passed {
            Passed::On => Outcome::PassedOn,
            Passed::Unreachable => Outcome::Unreachable,
        },
        () = shared.drain.cut() => Outcome::Cut,
    }
}

fn outcome_of_handshake<H>(shared: &Shared<H>, source: SocketAddr, error: &io::Error) -> Outcome {
    if error.kind() != io::ErrorKind::InvalidData {
        return Outcome::Left;
    }
    tracing::debug!(listener = &*shared.name, %source, %error, "TLS could not be agreed on");
    Outcome::TlsFailed
}
