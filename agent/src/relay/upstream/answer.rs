//! The body of a server's answer.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body, Bytes, Frame, SizeHint};
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, timeout_at},
};
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::connection::Reply;
use crate::relay;

/// A request's place at a server, from before it is sent to the end of its answer.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) _permit: OwnedSemaphorePermit,
    pub(super) _under_way: TaskTrackerToken,
}

/// The body of an answer. While it lives, the request counts as under way.
#[derive(Debug)]
pub struct Answer {
    body: Reply,
    _place: Place,
}

/// Why the body of an answer could not be read.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// It is larger than what is taken.
    #[error("the body of the answer is larger than {0} bytes")]
    TooLarge(usize),
    /// It did not end in time.
    #[error("the body of the answer did not end in time")]
    Timeout,
    /// The connection broke.
    #[error("the body of the answer broke off: {0}")]
    Broken(String),
}

impl Answer {
    pub(super) const fn new(body: Reply, place: Place) -> Self {
        Self { body, _place: place }
    }

    /// Reads all of it, if that is at most `most` bytes and ends before `deadline`.
    ///
    /// # Errors
    ///
    /// See [`BodyError`].
    pub async fn read(self, most: usize, deadline: Instant) -> Result<Bytes, BodyError> {
        let announced = usize::try_from(self.size_hint().lower()).unwrap_or(usize::MAX);
        if announced > most {
            return Err(BodyError::TooLarge(most));
        }
        match timeout_at(deadline, Limited::new(self, most).collect()).await {
            Ok(Ok(body)) => Ok(body.to_bytes()),
            Ok(Err(error)) if error.is::<LengthLimitError>() => Err(BodyError::TooLarge(most)),
            Ok(Err(error)) => Err(BodyError::Broken(error.to_string())),
            Err(_) => Err(BodyError::Timeout),
        }
    }
}

impl From<Answer> for relay::Body {
    /// As it comes; the request is under way until its end.
    fn from(answer: Answer) -> Self {
        answer.map_err(Into::into).boxed()
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
