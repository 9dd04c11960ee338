//! What a handler attaches to a connection of a client, and how it ends one.
//!
//! A request is answered and forgotten, but some of what answers it belongs to the
//! connection: whatever is attached lives until the connection ends, however that
//! comes, and is dropped with it. The other way round, a [`Closer`] ends the
//! connection when what it stands on is gone.

use std::{
    any::Any,
    fmt,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::Context,
};

use futures_util::{future::BoxFuture, task::AtomicWaker};
use hyper::body::Bytes;
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use super::sources::Place;

/// What a handler attaches to a connection.
pub trait Attachment: Any + Send + Sync {
    /// Called whenever the connection's task runs. What it waits for wakes that task.
    fn poll(&self, cx: &mut Context<'_>);
}

/// Goes on with the stream of a connection that is not HTTP any more, and what of it was
/// read already.
type Takeover = Box<dyn FnOnce(TlsStream<TcpStream>, Bytes) -> BoxFuture<'static, ()> + Send>;

/// What belongs to a connection.
#[derive(Default)]
pub struct Attached {
    /// The source's place for the connection, where sources have limits.
    place: Option<Place>,
    value: OnceLock<Box<dyn Attachment>>,
    closer: Closer,
    takeover: OnceLock<Mutex<Option<Takeover>>>,
}

impl Attached {
    pub(super) fn new(place: Option<Place>) -> Self {
        Self { place, ..Self::default() }
    }

    /// Whether the source may make a request now; it counts as made then.
    pub(super) fn admits(&self) -> bool {
        self.place.as_ref().is_none_or(Place::admits)
    }

    /// What is attached; the first call attaches it. `None` if it is of another type.
    pub fn get_or_init<T: Attachment>(&self, value: impl FnOnce() -> T) -> Option<&T> {
        let value: &dyn Any = &**self.value.get_or_init(|| Box::new(value()));
        value.downcast_ref()
    }

    /// Lets what is attached go on. Whether the connection was told to end; if not, its
    /// task is woken when it is.
    pub(super) fn poll_closed(&self, cx: &mut Context<'_>) -> bool {
        if let Some(value) = self.value.get() {
            value.poll(cx);
        }
        self.closer.poll_closed(cx)
    }

    /// Hands the connection over, after an answer that changes its protocol.
    pub fn hand_over(
        &self,
        takeover: impl FnOnce(TlsStream<TcpStream>, Bytes) -> BoxFuture<'static, ()> + Send + 'static,
    ) {
        let _ = self.takeover.set(Mutex::new(Some(Box::new(takeover))));
    }

    /// Who the connection was handed over to.
    pub(super) fn taken_over(&self) -> Option<Takeover> {
        self.takeover.get()?.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// What ends the connection. It does not keep what is attached alive.
    #[must_use]
    pub fn closer(&self) -> Closer {
        self.closer.clone()
    }
}

impl fmt::Debug for Attached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attached").finish_non_exhaustive()
    }
}

/// Ends a connection: at once if it is idle, or else after the answer that is under
/// way.
#[derive(Clone, Debug, Default)]
pub struct Closer(Arc<Signal>);

#[derive(Debug, Default)]
struct Signal {
    is_closed: AtomicBool,
    connection: AtomicWaker,
}

impl Closer {
    /// Ends the connection. Nothing happens if it has ended.
    pub fn close(&self) {
        self.0.is_closed.store(true, Ordering::Release);
        self.0.connection.wake();
    }

    /// Whether it was told to end; if not, the task is woken when it is.
    fn poll_closed(&self, cx: &Context<'_>) -> bool {
        if self.0.is_closed.load(Ordering::Acquire) {
            return true;
        }
        self.0.connection.register(cx.waker());
        self.0.is_closed.load(Ordering::Acquire)
    }
}
