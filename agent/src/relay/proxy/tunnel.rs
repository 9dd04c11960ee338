//! Bytes of a client and a server that are nobody's business here: TLS that is passed on, or
//! a protocol that a connection changed to.
//!
//! Whatever breaks, or is silent for too long, ends both connections; nothing is repeated.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf, copy_bidirectional},
    time::{Instant, sleep_until, timeout},
};

use crate::relay::upstream::{Progress, after};

/// Passes on what the client has `said` already, and then copies both ways until both have
/// ended, one breaks off, or nothing has come from either for so long.
///
/// # Errors
///
/// What broke off, or [`io::ErrorKind::TimedOut`].
pub(in crate::relay) async fn pass(
    client: impl AsyncRead + AsyncWrite + Unpin,
    mut server: impl AsyncRead + AsyncWrite + Unpin,
    said: &[u8],
    limit: Duration,
) -> io::Result<()> {
    let say = async {
        server.write_all(said).await?;
        server.flush().await
    };
    timeout(limit, say).await??;
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
