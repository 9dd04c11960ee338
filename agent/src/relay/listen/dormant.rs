//! Connections that have brought nothing yet.
//!
//! An HTTP connection has 16 KiB of buffers from its beginning on. Thousands may be
//! open that bring nothing, because a client keeps them for later, or because
//! somebody wants to see how many we bear. So HTTP begins with the first byte.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

/// A connection that is made of a stream when something comes.
pub(super) struct Dormant<F, C> {
    stream: Option<(TlsStream<TcpStream>, F)>,
    connection: Option<Pin<Box<C>>>,
}

impl<F, C> Dormant<F, C>
where
    F: FnOnce(TlsStream<TcpStream>) -> C,
{
    /// Waits for the first byte.
    pub(super) const fn new(stream: TlsStream<TcpStream>, make: F) -> Self {
        Self { stream: Some((stream, make)), connection: None }
    }

    /// The connection, once there is something for it to read.
    pub(super) fn poll_awake(&mut self, cx: &mut Context<'_>) -> Poll<Option<Pin<&mut C>>> {
        if let Some((stream, _)) = &self.stream {
            let (tcp, tls) = stream.get_ref();
            // It may have come with the end of the handshake. An error is one for
            // whoever reads.
            if tls.wants_read() && tcp.poll_read_ready(cx).is_pending() {
                return Poll::Pending;
            }
        }
        Poll::Ready(self.wake())
    }

    /// The connection, whether something came or not.
    pub(super) fn wake(&mut self) -> Option<Pin<&mut C>> {
        if let Some((stream, make)) = self.stream.take() {
            self.connection = Some(Box::pin(make(stream)));
        }
        self.connection.as_mut().map(Pin::as_mut)
    }
}
