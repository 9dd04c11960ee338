//! Bodies of requests, bounded in time, and of answers, which tell when they end.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use hyper::body::{Body as _, Bytes, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep};

use super::activity::{Activity, UnderWay};
use crate::relay::{Body, BoxError};

/// Why the body of a request did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// It took longer than `body_timeout`.
    #[error("the body did not come within {0:?} (body_timeout)")]
    TimedOut(Duration),
    /// It is malformed, or the client went away in the middle of it.
    #[error("the body broke off: {0}")]
    Broken(#[source] hyper::Error),
}

/// The body of a request. It fails when it takes too long.
#[derive(Debug)]
pub struct RequestBody {
    incoming: Incoming,
    activity: Arc<Activity>,
    limit: Duration,
    /// Whether the limit is for each part of it and not for all of it.
    in_parts: bool,
    /// Whether it was asked for.
    is_wanted: bool,
    since: Instant,
    /// Set up when the body has to be waited for: most come with their head.
    timer: Option<Pin<Box<Sleep>>>,
    ended: bool,
}

impl RequestBody {
    pub(super) fn new(incoming: Incoming, activity: Arc<Activity>, limit: Duration) -> Self {
        Self {
            incoming,
            activity,
            limit,
            in_parts: false,
            is_wanted: false,
            since: Instant::now(),
            timer: None,
            ended: false,
        }
    }

    /// One that may take as long as it wants.
    #[cfg(test)]
    pub(in crate::relay) fn of(incoming: Incoming) -> Self {
        Self::new(incoming, Activity::new(true), Duration::from_secs(3600))
    }

    /// The same with `body_timeout` as the limit for each part, for bodies that may be
    /// as large as they want to be slow.
    #[must_use]
    pub fn in_parts(mut self) -> Self {
        self.in_parts = true;
        self
    }
}

impl hyper::body::Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        if this.in_parts && !this.is_wanted {
            // Until now the client may have waited for us.
            this.since = Instant::now();
        }
        this.is_wanted = true;
        if let Poll::Ready(frame) = Pin::new(&mut this.incoming).poll_frame(cx) {
            this.ended = frame.is_none();
            if this.in_parts {
                this.since = Instant::now();
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(BodyError::Broken)));
        }
        let (since, limit) = (this.since, this.limit);
        let timer = this.timer.get_or_insert_with(|| {
            Box::pin(tokio::time::sleep(limit.saturating_sub(since.elapsed())))
        });
        loop {
            ready!(timer.as_mut().poll(cx));
            // Parts that came in the meantime did not touch it.
            let end = since.checked_add(limit).unwrap_or(since);
            if Instant::now() >= end {
                return Poll::Ready(Some(Err(BodyError::TimedOut(limit))));
            }
            timer.as_mut().reset(end);
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if !self.ended && !self.incoming.is_end_stream() {
            self.activity.left_unread();
        }
    }
}

/// The body of an answer. While it exists its request is under way.
pub(super) struct ResponseBody {
    body: Body,
    _request: UnderWay,
}

impl ResponseBody {
    pub(super) fn new(body: Body, mut request: UnderWay) -> Self {
        request.answer();
        Self { body, _request: request }
    }
}

impl hyper::body::Body for ResponseBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
