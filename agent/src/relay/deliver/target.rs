//! One attempt to deliver a message, and what its answer means.

use std::{sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use hyper::{Response, StatusCode};
use jiff::Timestamp;
use tokio::time::Instant;

use super::{DeliveryRoute, Verdict, backoff::retry_after};
use crate::relay::{
    spool::{Message, RecordId},
    upstream::{Answer, Repeat, SendError, after},
};

/// Bytes of an answer that are read.
const LARGEST_ANSWER: usize = 64 << 10;

/// How long the rest of an answer that nobody needs may take, so that its
/// connection can be used again.
const REST: Duration = Duration::from_secs(1);

/// Where the records of a route go.
pub(super) trait Target: Send + Sync + 'static {
    /// Targets with the same number share what they may have under way at once.
    fn group(&self) -> usize;

    /// How many records it takes at once.
    fn width(&self) -> usize;

    /// Whether an attempt makes sense now.
    fn is_available(&self) -> bool;

    /// Waits until it does.
    fn available(self: Arc<Self>) -> BoxFuture<'static, ()>;

    /// Tries once.
    fn attempt(self: Arc<Self>, id: RecordId, message: Message) -> BoxFuture<'static, Attempt>;
}

/// What became of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Attempt {
    /// The upstream has it.
    Delivered {
        /// A fact to remember.
        remember: Option<String>,
    },
    /// The upstream will never take it.
    Refused {
        /// What it answered.
        status: u16,
    },
    /// No request can be made of it.
    Unusable {
        /// Why, in a sentence.
        problem: String,
    },
    /// It may go well another time.
    Failed(Failure),
    /// No server could be asked.
    NotTried,
}

/// Why an attempt failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    /// The name as a metric label.
    pub(super) result: &'static str,
    /// What went wrong, in a sentence.
    pub(super) problem: String,
    /// How long the server asks to be left alone.
    pub(super) retry_after: Option<Duration>,
    /// Whether there was no connection: no server has seen it.
    pub(super) away: bool,
}

impl Target for DeliveryRoute {
    fn group(&self) -> usize {
        Arc::as_ptr(&self.pool).addr()
    }

    fn width(&self) -> usize {
        self.pool.connections()
    }

    fn is_available(&self) -> bool {
        self.pool.is_available()
    }

    fn available(self: Arc<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async move { self.pool.available().await })
    }

    fn attempt(self: Arc<Self>, id: RecordId, message: Message) -> BoxFuture<'static, Attempt> {
        Box::pin(async move {
            let outbound = match (self.prepare)(&message, &id) {
                Ok(outbound) => outbound,
                Err(problem) => return Attempt::Unusable { problem },
            };
            match self.pool.send(outbound, Repeat::Always).await {
                Ok(response) => self.judge(&message, response).await,
                Err(SendError::Unavailable { .. }) => Attempt::NotTried,
                Err(error) => Attempt::Failed(Failure {
                    result: error.name(),
                    problem: error.to_string(),
                    retry_after: None,
                    away: matches!(error, SendError::Connect { .. }),
                }),
            }
        })
    }
}

impl DeliveryRoute {
    async fn judge(&self, message: &Message, response: Response<Answer>) -> Attempt {
        let status = response.status();
        let result = match status {
            _ if status.is_success() => return self.read(message, response).await,
            StatusCode::REQUEST_TIMEOUT => "timeout",
            StatusCode::TOO_MANY_REQUESTS => "throttled",
            _ if status.is_server_error() => "server_error",
            _ => {
                finish(response).await;
                return Attempt::Refused { status: status.as_u16() };
            }
        };
        let retry_after = retry_after(response.headers(), Timestamp::now());
        finish(response).await;
        Attempt::Failed(Failure {
            result,
            problem: format!("upstream {} answered {status}", self.pool.name()),
            retry_after,
            away: false,
        })
    }

    /// What an answer of 2xx says, to a route that asks.
    async fn read(&self, message: &Message, response: Response<Answer>) -> Attempt {
        let Some(answered) = &self.answered else {
            finish(response).await;
            return Attempt::Delivered { remember: None };
        };
        let status = response.status();
        let deadline = after(Instant::now(), self.pool.response_timeout());
        let problem = match response.into_body().read(LARGEST_ANSWER, deadline).await {
            Ok(body) => match answered(message, status, &body) {
                Verdict::Accepted { remember } => return Attempt::Delivered { remember },
                Verdict::Retry(problem) => problem,
            },
            Err(error) => error.to_string(),
        };
        Attempt::Failed(Failure {
            result: "wrong_answer",
            problem: format!("upstream {} answered {status}: {problem}", self.pool.name()),
            retry_after: None,
            away: false,
        })
    }
}

/// Reads the rest of an answer that says no more.
async fn finish(response: Response<Answer>) {
    let deadline = after(Instant::now(), REST);
    // If it cannot be read, the connection is closed; that is all.
    response.into_body().read(LARGEST_ANSWER, deadline).await.ok();
}
