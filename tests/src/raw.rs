//! Bytes that no HTTP client would send, over TLS that is sound or over none.
//!
//! What a hostile peer writes is fixed; what counts is what comes back, and whether
//! and when the other side hangs up.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::sleep,
};
use tokio_rustls::TlsConnector;

use crate::{
    lab::{Family, Lab, Peer, edge},
    notification::RELAY_NAME,
    peer::{HTTPS, PATIENCE, reach},
};

/// The most of an answer that is read.
const MOST: usize = 16 << 20;

/// What is spoken below the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Below {
    /// Nothing: TCP alone.
    Tcp,
    /// TLS, with HTTP/1.1 agreed on.
    Http1,
    /// TLS, with HTTP/2 agreed on.
    Http2,
}

/// What became of a connection.
#[derive(Clone, Debug)]
pub struct Ended {
    /// What came back.
    pub answer: Vec<u8>,
    /// Whether the other side hung up.
    pub closed: bool,
    /// How long the connection lived.
    pub lasted: Duration,
}

impl Ended {
    /// The statuses of the answers of HTTP/1.1 in it.
    #[must_use]
    pub fn statuses(&self) -> Vec<u16> {
        let text = String::from_utf8_lossy(&self.answer);
        let status = |rest: &str| rest.get(..3)?.parse().ok();
        text.split("HTTP/1.1 ").skip(1).filter_map(status).collect()
    }
}

/// Who calls, and how.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Whose host and address.
    pub peer: Peer,
    /// What is sent before anything else.
    pub before: Vec<u8>,
    /// How TLS is spoken.
    pub tls: Arc<ClientConfig>,
    /// The name that is asked for in TLS, and that the certificate must have.
    pub name: &'static str,
}

impl Caller {
    /// The sender of Graph's notifications, as it usually calls.
    ///
    /// # Errors
    ///
    /// If the lab's authority is of no use.
    pub fn graph(lab: &Lab) -> Result<Self> {
        let (peer, tls) = (Peer::Graph, lab.authority().client()?);
        Ok(Self { peer, before: Vec::new(), tls, name: RELAY_NAME })
    }

    /// Sends one request of HTTP/1.1 and reads until the relay hangs up. `None` if there
    /// is no connection, or no TLS on it.
    ///
    /// # Errors
    ///
    /// If it takes too long.
    pub fn call(&self, lab: &Lab, request: &[u8]) -> Result<Option<Ended>> {
        lab.peer(self.peer).run_async(Duration::from_secs(20), || async {
            let begin = Instant::now();
            let target = SocketAddr::new(edge(Family::V4), HTTPS);
            let stream = reach(self.peer.address(Family::V4), target, PATIENCE).await?;
            let Some(mut stream) = stream.answer() else { return Ok(None) };
            if stream.write_all(&self.before).await.is_err() {
                return Ok(None);
            }
            let name = ServerName::try_from(self.name)?;
            let connector = TlsConnector::from(Arc::clone(&self.tls));
            let Ok(stream) = connector.connect(name, stream).await else { return Ok(None) };
            let patience = Duration::from_secs(15);
            let (answer, closed) = talk(stream, &[request], Duration::ZERO, patience).await;
            Ok(Some(Ended { answer, closed, lasted: begin.elapsed() }))
        })
    }
}

/// Sends pieces to the relay, one after the other with a pause between, and reads until
/// the other side hangs up, or nothing has come for `patience` after the last piece.
///
/// # Errors
///
/// If no connection can be made.
pub async fn exchange(
    lab: &Lab,
    below: Below,
    pieces: &[&[u8]],
    pause: Duration,
    patience: Duration,
) -> Result<Ended> {
    let begin = Instant::now();
    let target = SocketAddr::new(edge(Family::V4), HTTPS);
    let stream = reach(Peer::Graph.address(Family::V4), target, PATIENCE).await?;
    let stream = stream.answer().context("the relay does not listen")?;
    let (answer, closed) = match below {
        Below::Tcp => talk(stream, pieces, pause, patience).await,
        Below::Http1 | Below::Http2 => {
            let protocol: &[u8] = if below == Below::Http2 { b"h2" } else { b"http/1.1" };
            let mut config = (*lab.authority().client()?).clone();
            config.alpn_protocols = vec![protocol.to_vec()];
            let name = ServerName::try_from(RELAY_NAME)?;
            let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
            talk(stream, pieces, pause, patience).await
        }
    };
    Ok(Ended { answer, closed, lasted: begin.elapsed() })
}

async fn talk(
    stream: impl AsyncRead + AsyncWrite,
    pieces: &[&[u8]],
    pause: Duration,
    patience: Duration,
) -> (Vec<u8>, bool) {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let mut answer = Vec::new();
    let mut closed = false;
    let writing = async {
        for (number, piece) in pieces.iter().enumerate() {
            if number > 0 && !pause.is_zero() {
                sleep(pause).await;
            }
            if writer.write_all(piece).await.is_err() || writer.flush().await.is_err() {
                break;
            }
        }
        sleep(patience).await;
    };
    let reading = async {
        let mut buffer = vec![0; 16 << 10];
        while answer.len() < MOST {
            match reader.read(&mut buffer).await {
                Ok(0) | Err(_) => {
                    closed = true;
                    break;
                }
                Ok(read) => answer.extend_from_slice(buffer.get(..read).unwrap_or_default()),
            }
        }
    };
    // Whoever hangs up ends the writing as well.
    tokio::select! {
        () = reading => {}
        () = writing => {}
    }
    (answer, closed)
}

/// Runs all of these exchanges at once, from the host of Graph's senders.
///
/// # Errors
///
/// If one cannot be made, or they are not over in time.
pub fn exchanges(
    lab: &Lab,
    below: Below,
    all: &[Vec<&[u8]>],
    pause: Duration,
    patience: Duration,
) -> Result<Vec<Ended>> {
    lab.peer(Peer::Graph).run_async(Duration::from_secs(60), || async {
        let exchanges = all.iter().map(|pieces| exchange(lab, below, pieces, pause, patience));
        futures_util::future::try_join_all(exchanges).await
    })
}
