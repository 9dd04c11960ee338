//! Accepts connections, at most so many at once.
//!
//! Who finds no place waits in the kernel's queue. When descriptors or memory run
//! out, nothing is accepted for a moment, and it goes on: connections that end
//! give back what is missing.

use std::{io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use nix::errno::Errno;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::OwnedSemaphorePermit,
    time::{Instant, sleep},
};

use super::{Handler, Shared, connection, socket::Listening};

/// How long nothing is accepted after a failure for want of something.
const BACK_OFF: Duration = Duration::from_millis(75);

/// Failures come in floods: one of a second is logged.
const LOG_EVERY: Duration = Duration::from_secs(1);

/// Accepts connections until we drain.
pub(super) async fn accept<H: Handler>(shared: Arc<Shared<H>>, listening: Listening, port: u16) {
    let Listening { socket, is_own, .. } = listening;
    let mut logged = None;
    let mut drain = pin!(shared.drain.begun());
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut drain => break,
            accepted = next(&shared, &socket) => accepted,
        };
        match accepted {
            Ok((permit, stream, remote)) => {
                connection::admit(&shared, stream, remote, port, permit);
            }
            Err(error) => {
                if is_scarcity(&shared, &error, &mut logged) {
                    sleep(BACK_OFF).await;
                }
            }
        }
    }
    if is_own && let Err(error) = take_waiting(&shared, socket, port) {
        tracing::debug!(listener = &*shared.name, %error, "the rest of the queue was not taken");
    }
}

async fn next<H>(
    shared: &Shared<H>,
    socket: &TcpListener,
) -> io::Result<(OwnedSemaphorePermit, TcpStream, SocketAddr)> {
    let permit = Arc::clone(&shared.places).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, remote) = socket.accept().await?;
    Ok((permit, stream, remote))
}

/// Counts a failure, and whether it is for want of something.
fn is_scarcity<H>(shared: &Shared<H>, error: &io::Error, logged: &mut Option<Instant>) -> bool {
    let metrics = &shared.metrics;
    let (counter, is_scarcity) = match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EMFILE | Errno::ENFILE) => (&metrics.no_descriptors, true),
        Some(Errno::ENOMEM | Errno::ENOBUFS) => (&metrics.no_memory, true),
        // The client is gone again, or its network is.
        _ => (&metrics.other_accept_errors, false),
    };
    counter.inc();
    let now = Instant::now();
    if logged.is_none_or(|last| now.duration_since(last) >= LOG_EVERY) {
        *logged = Some(now);
        tracing::warn!(
            listener = &*shared.name,
            %error,
            "a connection could not be accepted; if it is for want of descriptors, raise \
             LimitNOFILE= of the service or lower connections in [[listener]]"
        );
    }
    is_scarcity
}

/// Takes the connections that wait in a queue which ends with us: to their
/// clients, they are made.
fn take_waiting<H: Handler>(
    shared: &Arc<Shared<H>>,
    socket: TcpListener,
    port: u16,
) -> io::Result<()> {
    let socket = socket.into_std()?;
    while let Ok(permit) = Arc::clone(&shared.places).try_acquire_owned() {
        let (stream, remote) = match socket.accept() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            accepted => accepted?,
        };
        stream.set_nonblocking(true)?;
        connection::admit(shared, TcpStream::from_std(stream)?, remote, port, permit);
    }
    Ok(())
}
