//! The body of a client's request, on its way to a server.
//!
//! With `Expect: 100-continue` the client waits until the server wants the body. The
//! HTTP library tells the client to go on when the body is first asked for, so it is
//! not asked for before the server has said so. A server that says nothing for a
//! second does not know the expectation, and gets the body (RFC 9110, 10.1.1). One
//! that answers instead never does.

use std::{
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_util::task::AtomicWaker;
use hyper::{
    StatusCode,
    body::{Body, Bytes, Frame, SizeHint},
};
use tokio::time::{Sleep, sleep};

use crate::relay::{
    BoxError,
    listen::{BodyError, RequestBody},
    upstream::Progress,
};

/// How long a server may take to say that it wants the body.
const CONTINUE_WITHIN: Duration = Duration::from_secs(1);

/// What is wrong with a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::relay) enum Fault {
    /// It is larger than the route takes.
    #[error("the body is larger than body_size")]
    TooLarge,
    /// The client sent nothing of it for too long.
    #[error("the body did not come")]
    TooSlow,
    /// It ended before its end, or was badly framed.
    #[error("the body broke off")]
    Broken,
}

impl Fault {
    /// The name as a metric label.
    pub(in crate::relay) const fn name(self) -> &'static str {
        match self {
            Self::TooLarge => "body_too_large",
            Self::TooSlow => "body_too_slow",
            Self::Broken => "body_broken",
        }
    }

    /// The answer.
    pub(in crate::relay) const fn status(self) -> StatusCode {
        match self {
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::Broken => StatusCode::BAD_REQUEST,
        }
    }
}

/// Whether the server wants the body yet.
#[derive(Debug, Default)]
pub(in crate::relay) struct Gate {
    state: AtomicU8,
    upload: AtomicWaker,
}

const WAITING: u8 = 0;
const OPEN: u8 = 1;
const SHUT: u8 = 2;

impl Gate {
    /// The server wants it.
    pub(in crate::relay) fn open(&self) {
        self.leave(OPEN);
    }

    /// The server has answered without it. Whether it was wanted before.
    pub(in crate::relay) fn shut(&self) -> bool {
        self.leave(SHUT)
    }

    fn leave(&self, next: u8) -> bool {
        let change =
            self.state.compare_exchange(WAITING, next, Ordering::AcqRel, Ordering::Acquire);
        self.upload.wake();
        change.is_err()
    }
}

/// The body of a request, of at most so many bytes.
pub(in crate::relay) struct Upload {
    body: RequestBody,
    left: u64,
    gate: Option<Arc<Gate>>,
    /// Set up when it has to wait there.
    timer: Option<Pin<Box<Sleep>>>,
    progress: Arc<Progress>,
    fault: Arc<OnceLock<Fault>>,
}

impl Upload {
    /// `gate` is what the body waits for, if the client does. What goes wrong is told to
    /// `fault`.
    ///
    /// # Errors
    ///
    /// If more is announced than the route takes: then nothing is read.
    pub(in crate::relay) fn new(
        body: RequestBody,
        most: usize,
        gate: Option<Arc<Gate>>,
        progress: Arc<Progress>,
        fault: Arc<OnceLock<Fault>>,
    ) -> Result<Self, Fault> {
        let left = u64::try_from(most).unwrap_or(u64::MAX);
        if body.size_hint().lower() > left {
            return Err(Fault::TooLarge);
        }
        Ok(Self { body: body.in_parts(), left, gate, timer: None, progress, fault })
    }

    fn poll_gate(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(gate) = &self.gate else { return Poll::Ready(()) };
        gate.upload.register(cx.waker());
        match gate.state.load(Ordering::Acquire) {
            OPEN => {}
            // It is never asked for; whoever sends it is about to end.
            SHUT => return Poll::Pending,
            _ => {
                let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(CONTINUE_WITHIN)));
                ready!(timer.as_mut().poll(cx));
                if gate.state.load(Ordering::Acquire) == SHUT {
                    return Poll::Pending;
                }
                gate.open();
            }
        }
        (self.gate, self.timer) = (None, None);
        Poll::Ready(())
    }

    fn fails(&self, fault: Fault) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        // The first one is what went wrong.
        let _ = self.fault.set(fault);
        Poll::Ready(Some(Err(fault.into())))
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        ready!(this.poll_gate(cx));
        let frame = ready!(Pin::new(&mut this.body).poll_frame(cx));
        this.progress.moved();
        match frame {
            Some(Ok(frame)) => {
                let length = frame.data_ref().map_or(0, Bytes::len);
                match this.left.checked_sub(u64::try_from(length).unwrap_or(u64::MAX)) {
                    Some(left) => this.left = left,
                    None => return this.fails(Fault::TooLarge),
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(BodyError::TimedOut(_))) => this.fails(Fault::TooSlow),
            Some(Err(BodyError::Broken(_))) => this.fails(Fault::Broken),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
