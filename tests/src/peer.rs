//! Both ends of a connection through the gate.
//!
//! An attempt has three outcomes that matter: it is answered; it is refused, which
//! means that the packets passed the gate and nobody listened; or it times out,
//! which is what a dropped packet looks like from outside. Everything else is a
//! fault of the test.

use std::{
    collections::BTreeMap,
    io::ErrorKind,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use http_body_util::Full;
use hyper::{Request, Response, body::Bytes, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

use crate::{
    http::{self, Get},
    lab::{Background, Family, Lab, Peer, edge},
    lock, tls,
    tls::Validity,
};

/// The guarded port.
pub const HTTPS: u16 = 443;
/// How long a single attempt to connect may last: a SYN and its first repetition.
pub const PATIENCE: Duration = Duration::from_millis(1500);
/// The time between attempts of which one is waited for.
const POLL: Duration = Duration::from_millis(50);
/// The longest that a request may take once it is connected.
const EXCHANGE: Duration = Duration::from_secs(10);
/// The name in the edge host's certificate.
pub const EDGE_NAME: &str = "edge.example.com";

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reached<T> {
    /// There was an answer.
    Answered(T),
    /// The packets arrived, but nobody listened, or hung up at once.
    Refused,
    /// Nothing came back.
    TimedOut,
}

impl<T> Reached<T> {
    /// Whether the packets passed the gate.
    #[must_use]
    pub const fn passed(&self) -> bool {
        !matches!(self, Self::TimedOut)
    }

    /// The answer, if there is one.
    #[must_use]
    pub fn answer(self) -> Option<T> {
        match self {
            Self::Answered(answer) => Some(answer),
            Self::Refused | Self::TimedOut => None,
        }
    }
}

/// Connects from `source` to `target`, in the calling thread's namespace.
///
/// # Errors
///
/// If there is no route, or the source is not an address of this host.
pub async fn reach(
    source: IpAddr,
    target: SocketAddr,
    patience: Duration,
) -> Result<Reached<TcpStream>> {
    let socket = match target {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.bind(SocketAddr::new(source, 0)).with_context(|| format!("{source} cannot be used"))?;
    match timeout(patience, socket.connect(target)).await {
        Ok(Ok(stream)) => Ok(Reached::Answered(stream)),
        Ok(Err(error))
            if matches!(
                error.kind(),
                ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset
            ) =>
        {
            Ok(Reached::Refused)
        }
        Ok(Err(error)) if error.kind() == ErrorKind::TimedOut => Ok(Reached::TimedOut),
        Ok(Err(error)) => Err(error).with_context(|| format!("{target} from {source}")),
        Err(_) => Ok(Reached::TimedOut),
    }
}

impl Lab {
    /// Tries a TCP connection from a sender to a port of the edge host.
    ///
    /// # Errors
    ///
    /// See [`reach`].
    pub fn connect(&self, peer: Peer, family: Family, port: u16) -> Result<Reached<()>> {
        self.connect_from(peer, peer.address(family), port)
    }

    /// Tries a TCP connection from one of a sender's addresses, for those that
    /// [`Lab::add_source`] added.
    ///
    /// # Errors
    ///
    /// See [`reach`].
    pub fn connect_from(&self, peer: Peer, source: IpAddr, port: u16) -> Result<Reached<()>> {
        let target = SocketAddr::new(edge(Family::of(source)), port);
        self.peer(peer).run_async(EXCHANGE, || async move {
            Ok(match reach(source, target, PATIENCE).await? {
                Reached::Answered(_) => Reached::Answered(()),
                Reached::Refused => Reached::Refused,
                Reached::TimedOut => Reached::TimedOut,
            })
        })
    }

    /// Waits until packets from one of a sender's addresses pass to a port of the edge
    /// host, or until they are dropped.
    ///
    /// # Errors
    ///
    /// If they are still not, or still are, when `patience` ends.
    pub fn wait_for_verdict(
        &self,
        peer: Peer,
        source: IpAddr,
        port: u16,
        passes: bool,
        patience: Duration,
    ) -> Result<()> {
        let begin = Instant::now();
        while self.connect_from(peer, source, port)?.passed() != passes {
            let wanted = if passes { "does not pass" } else { "still passes" };
            ensure!(
                begin.elapsed() < patience,
                "{source} {wanted} to port {port} after {patience:?}"
            );
            sleep(POLL);
        }
        Ok(())
    }

    /// Gets `path` from the edge host's HTTPS port, as a sender, with the
    /// certificate checked.
    ///
    /// # Errors
    ///
    /// See [`reach`]; also if TLS or HTTP fail.
    pub fn https(&self, peer: Peer, family: Family, path: &str) -> Result<Reached<http::Response>> {
        self.https_from(peer, peer.address(family), path)
    }

    /// Gets `path` from the edge host's HTTPS port, from one of a sender's addresses.
    ///
    /// # Errors
    ///
    /// See [`Lab::https`].
    pub fn https_from(
        &self,
        peer: Peer,
        source: IpAddr,
        path: &str,
    ) -> Result<Reached<http::Response>> {
        let get = Get {
            source: Some(source),
            target: SocketAddr::new(edge(Family::of(source)), HTTPS),
            tls: Some((self.authority().client()?, ServerName::try_from(EDGE_NAME)?)),
            path: path.to_owned(),
            patience: PATIENCE,
        };
        self.peer(peer).run_async(EXCHANGE, || get.send())
    }
}

/// An HTTPS server on the edge host, in place of what stands behind the gate. It
/// answers every request with the address that the client has.
#[derive(Debug)]
pub struct EdgeServer {
    connections: Arc<Mutex<BTreeMap<IpAddr, u64>>>,
    _threads: Vec<Background>,
    _lab: Lab,
}

impl EdgeServer {
    /// Starts it on port 443, for both families.
    ///
    /// # Errors
    ///
    /// If the port is taken.
    pub fn start(lab: &Lab) -> Result<Self> {
        let key = lab.authority().issue(&[EDGE_NAME], Validity::Now)?;
        let acceptor = TlsAcceptor::from(tls::server(key)?);
        let connections = Arc::default();
        let threads = Family::ALL.into_iter().map(|family| {
            let listener = lab.edge().listen(SocketAddr::new(edge(family), HTTPS))?;
            let (acceptor, connections) = (acceptor.clone(), Arc::clone(&connections));
            lab.edge().serve(move || serve(listener, acceptor, connections))
        });
        Ok(Self { _threads: threads.collect::<Result<_>>()?, connections, _lab: lab.clone() })
    }

    /// How many connections came from each address. A connection counts a moment
    /// after its client has it.
    #[must_use]
    pub fn connections(&self) -> BTreeMap<IpAddr, u64> {
        lock(&self.connections).clone()
    }
}

async fn serve(
    listener: std::net::TcpListener,
    acceptor: TlsAcceptor,
    connections: Arc<Mutex<BTreeMap<IpAddr, u64>>>,
) -> Result<()> {
    let listener = TcpListener::from_std(listener)?;
    loop {
        // A client may be gone before it is accepted.
        let Ok((stream, client)) = listener.accept().await else { continue };
        let client = client.ip();
        let mut connections = lock(&connections);
        let count = connections.entry(client).or_insert(0);
        *count = count.saturating_add(1);
        drop(connections);
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            // Probes hang up before TLS starts; that is no fault.
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let answer = service_fn(async |_: Request<_>| {
                let body = Full::new(Bytes::from(client.to_string()));
                Ok::<_, std::convert::Infallible>(Response::new(body))
            });
            // What the client sees of a failure is what counts.
            drop(http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await);
        });
    }
}
