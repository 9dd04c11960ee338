//! The body of a server's answer, on its way to a client.
//!
//! Each part goes on as it comes; a server may stay silent between two of them for
//! `idle_timeout`, which is longer than Exchange's streaming notifications do. At its
//! end the connection to the server is free for the client's next request.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use hyper::body::{Body, Bytes, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

use super::session::Session;
use crate::relay::{
    BoxError,
    upstream::{Pinned, Streamed, after},
};

/// The server said nothing for too long.
#[derive(Debug, thiserror::Error)]
#[error("the server sent nothing for {0:?} (idle_timeout)")]
pub(in crate::relay) struct Silent(Duration);

/// The body of an answer.
pub(in crate::relay) struct Download {
    answer: Streamed,
    /// Comes back to the session if the answer ends well.
    pinned: Option<Pinned>,
    session: Arc<Session>,
    pool: usize,
    limit: Duration,
    since: Instant,
    timer: Option<Pin<Box<Sleep>>>,
    is_at_end: bool,
    /// Whether the connection can take another request after this one.
    is_reusable: bool,
}

impl Download {
    /// `pool` is its place in the configuration.
    pub(in crate::relay) fn new(
        answer: Streamed,
        pinned: Pinned,
        session: Arc<Session>,
        pool: usize,
        limit: Duration,
        is_reusable: bool,
    ) -> Self {
        Self {
            answer,
            pinned: Some(pinned),
            session,
            pool,
            limit,
            since: Instant::now(),
            timer: None,
            is_at_end: false,
            is_reusable,
        }
    }
}

impl Body for Download {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        if let Some(pinned) = &mut this.pinned {
            pinned.drive(cx);
        }
        if let Poll::Ready(frame) = Pin::new(&mut this.answer).poll_frame(cx) {
            this.since = Instant::now();
            this.is_at_end = frame.is_none();
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let end = after(this.since, this.limit);
        let timer = this.timer.get_or_insert_with(|| Box::pin(sleep_until(end)));
        loop {
            ready!(timer.as_mut().poll(cx));
            if Instant::now() >= end {
                return Poll::Ready(Some(Err(Silent(this.limit).into())));
            }
            // Parts that came in the meantime did not touch it.
            timer.as_mut().reset(end);
        }
    }

    fn is_end_stream(&self) -> bool {
        self.answer.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.answer.size_hint()
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        let is_whole = self.is_at_end || self.answer.is_end_stream();
        if let Some(pinned) = self.pinned.take_if(|_| is_whole && self.is_reusable) {
            self.session.give_back(self.pool, pinned);
        }
    }
}
