//! Connections that bring nothing: not yet, or not any more.
//!
//! An HTTP connection has 16 KiB of buffers. Thousands may be open that bring
//! nothing, because a client keeps them for later, or because somebody wants to see
//! how many we bear. So HTTP begins with the first byte, and a connection of HTTP/1
//! that has nothing to do is put to sleep: what is left of it is its TLS.

use std::{
    mem,
    pin::Pin,
    task::{Context, Poll},
};

use hyper::body::Bytes;
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

/// A connection that is made of a stream when something comes.
pub(super) struct Dormant<F, C> {
    state: State<C>,
    make: F,
    unmake: Option<Unmake<C>>,
}

/// Takes a connection apart that has nothing to do: its stream, and what of it was
/// read and not looked at.
pub(super) type Unmake<C> = fn(C) -> (TlsStream<TcpStream>, Bytes);

enum State<C> {
    /// In a box, so that a connection that is awake has no room for a second stream.
    Asleep(Box<TlsStream<TcpStream>>, Bytes),
    Awake(Pin<Box<C>>),
    /// While one of them is made of the other.
    Between,
}

impl<F, C> Dormant<F, C>
where
    F: Fn(TlsStream<TcpStream>, Bytes) -> C,
    C: Unpin,
{
    /// Waits for the first byte. Without `unmake` it wakes only once.
    pub(super) fn new(stream: TlsStream<TcpStream>, make: F, unmake: Option<Unmake<C>>) -> Self {
        Self { state: State::Asleep(Box::new(stream), Bytes::new()), make, unmake }
    }

    /// The connection, once there is something for it to read.
    pub(super) fn poll_awake(&mut self, cx: &mut Context<'_>) -> Poll<Option<Pin<&mut C>>> {
        if let State::Asleep(stream, unread) = &self.state {
            let (tcp, tls) = stream.get_ref();
            // It may have come with the end of the handshake. An error is one for
            // whoever reads.
            if unread.is_empty() && tls.wants_read() && tcp.poll_read_ready(cx).is_pending() {
                return Poll::Pending;
            }
        }
        Poll::Ready(self.wake())
    }

    /// The connection, whether something came or not.
    pub(super) fn wake(&mut self) -> Option<Pin<&mut C>> {
        self.state = match mem::replace(&mut self.state, State::Between) {
            State::Asleep(stream, unread) => State::Awake(Box::pin((self.make)(*stream, unread))),
            other => other,
        };
        match &mut self.state {
            State::Awake(connection) => Some(connection.as_mut()),
            State::Asleep(..) | State::Between => None,
        }
    }

    /// The stream, of a connection that has ended without closing it, and what of it was
    /// read and not looked at.
    pub(super) fn into_stream(self) -> Option<(TlsStream<TcpStream>, Bytes)> {
        match self.state {
            State::Awake(connection) => Some(self.unmake?(*Pin::into_inner(connection))),
            State::Asleep(stream, unread) => Some((*stream, unread)),
            State::Between => None,
        }
    }

    /// Whether it is awake and can be put to sleep.
    pub(super) const fn is_restless(&self) -> bool {
        self.unmake.is_some() && matches!(self.state, State::Awake(_))
    }

    /// Puts a connection to sleep that has nothing to read, to do or to write.
    pub(super) fn rest(&mut self) {
        let Some(unmake) = self.unmake else { return };
        self.state = match mem::replace(&mut self.state, State::Between) {
            State::Awake(connection) => {
                let (stream, unread) = unmake(*Pin::into_inner(connection));
                // Empty, it would still hold the buffer that it was read into.
                let unread = if unread.is_empty() { Bytes::new() } else { unread };
                State::Asleep(Box::new(stream), unread)
            }
            other => other,
        };
    }
}
