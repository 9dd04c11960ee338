//! TLS that is not the relay's: passed on byte by byte, by the name that the client
//! asks for.
//!
//! Extended Protection ties an identity to the TLS session that it was proven in, so it
//! holds only where the client's session is the server's own. The source is judged and
//! the limits hold as for all connections; what is inside is nobody's business here.

use std::{
    collections::HashMap,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_util::future::BoxFuture;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf, copy_bidirectional},
    net::TcpStream,
    time::{Instant, sleep_until},
};

use crate::{
    config,
    relay::{
        listen::{Passage, Passed, Peer},
        upstream::{Pool, Progress, after},
    },
};

/// Names and where they lead.
#[derive(Default)]
pub(in crate::relay) struct Passthroughs(HashMap<String, Arc<To>>);

struct To {
    name: String,
    pool: Arc<Pool>,
    idle_timeout: Duration,
}

impl Passthroughs {
    /// `pools` are in the order of the configuration.
    pub(in crate::relay) fn new(config: &config::Relay, pools: &[Arc<Pool>]) -> Self {
        let mut names = HashMap::new();
        for passthrough in &config.passthroughs {
            let Some(pool) = pools.get(passthrough.upstream) else { continue };
            let to = Arc::new(To {
                name: passthrough.name.clone(),
                pool: Arc::clone(pool),
                idle_timeout: passthrough.idle_timeout,
            });
            for name in &passthrough.server_names {
                names.insert(name.clone(), Arc::clone(&to));
            }
        }
        Self(names)
    }

    pub(in crate::relay) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl crate::relay::listen::Passthrough for Passthroughs {
    fn find(&self, server_name: &str) -> Option<Arc<dyn Passage>> {
        let to = self.0.get(server_name)?;
        Some(Arc::clone(to) as Arc<dyn Passage>)
    }
}

impl Passage for To {
    fn pass(
        self: Arc<Self>,
        stream: TcpStream,
        said: Vec<u8>,
        peer: Peer,
    ) -> BoxFuture<'static, Passed> {
        Box::pin(async move {
            let mut tunnel = match self.pool.tunnel(peer.source.ip()).await {
                Ok(tunnel) => tunnel,
                Err(error) => {
                    tracing::warn!(passthrough = self.name, %error, "no server for a connection");
                    return Passed::Unreachable;
                }
            };
            let server = &mut tunnel.stream;
            if server.write_all(&said).await.is_ok() {
                // Whoever breaks off, the other one is told by the end of its connection.
                let _ = between(stream, server, self.idle_timeout).await;
            }
            Passed::On
        })
    }
}

/// Copies both ways until both have ended, one breaks off, or nothing has come from
/// either for so long.
async fn between(client: TcpStream, server: &mut TcpStream, limit: Duration) -> io::Result<()> {
    let progress = Progress::new();
    let mut client = Seen { stream: client, progress: &progress };
    let mut server = Seen { stream: server, progress: &progress };
    let mut copying = Box::pin(copy_bidirectional(&mut client, &mut server));
    loop {
        let end = after(progress.last(), limit);
        tokio::select! {
            copied = &mut copying => return copied.map(drop),
            () = sleep_until(end) => {
                if after(progress.last(), limit) <= Instant::now() {
                    return Err(io::ErrorKind::TimedOut.into());
                }
            }
        }
    }
}

/// A stream that tells when something comes.
struct Seen<'a, S> {
    stream: S,
    progress: &'a Progress,
}

impl<S: AsyncRead + Unpin> AsyncRead for Seen<'_, S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        self.progress.moved();
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Seen<'_, S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
