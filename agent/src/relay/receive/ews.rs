//! EWS: the upstream's answer goes back, or `OK` as soon as it is durable.

use std::time::Duration;

use hyper::{Response, StatusCode, body::Bytes};
use tokio::time::{Instant, timeout_at};

use super::{Inbound, Room};
use crate::{
    config::Delivery,
    relay::{
        Body,
        deliver::Verdict,
        ews::{
            Answer, Checks, Judged, Refusal, SubscriptionStatus,
            answer::{self, read_answer, response, result},
            notification,
        },
        forward,
        spool::{Message, NewRecord},
        upstream::{BodyError, Repeat, SendError},
    },
};

/// Exchange waits for 60 s. What is not durable by then will not be soon.
const ACCEPTANCE: Duration = Duration::from_secs(10);
/// Largest answer of an upstream that is read. Exchange would read 1,023 bytes.
const LARGEST_ANSWER: usize = 64 << 10;

pub(super) async fn receive(
    room: &Room,
    checks: &Checks,
    delivery: Delivery,
    mut inbound: Inbound<'_>,
) -> Response<Body> {
    if let Err(bad) = checks.guard(&inbound.head, inbound.target) {
        return room.refuse(bad.name(), StatusCode::NOT_FOUND);
    }
    let (body, _held) = match room.read(inbound.body.take()).await {
        Ok(body) => body,
        Err(refusal) => return refusal,
    };
    let judged = match checks.judge(&body) {
        Ok(judged) => judged,
        Err(refusal @ Refusal::Subscription) => {
            return room.refuse(refusal.name(), StatusCode::NOT_FOUND);
        }
        Err(refusal) => return room.refuse(refusal.name(), StatusCode::BAD_REQUEST),
    };
    match delivery {
        Delivery::PassThrough => pass_through(room, inbound, body, judged).await,
        Delivery::StoreAndForward => {
            let until = inbound.since.checked_add(ACCEPTANCE).unwrap_or(inbound.since);
            match timeout_at(until, store(room, inbound, body, judged)).await {
                Ok(response) => response,
                Err(_) => {
                    tracing::warn!(
                        route = room.route.name,
                        "a notification was not durable within {} s; answered 503, so that it is repeated",
                        ACCEPTANCE.as_secs_f32()
                    );
                    room.refuse("too_slow", StatusCode::SERVICE_UNAVAILABLE)
                }
            }
        }
    }
}

/// The upstream answers while Exchange waits.
async fn pass_through(
    room: &Room,
    inbound: Inbound<'_>,
    body: Bytes,
    judged: Judged,
) -> Response<Body> {
    let until = inbound.since.checked_add(room.pool.response_timeout()).unwrap_or(inbound.since);
    match ask_upstream(room, inbound, body, until).await {
        Ok((answer, body)) => {
            room.metrics.passed.inc();
            match answer {
                SubscriptionStatus::Ok => room.hear(&judged.lanes),
                SubscriptionStatus::Unsubscribe => room.forget(&judged.lanes),
            }
            response(body)
        }
        Err(Unanswered { reason, status, problem }) => {
            tracing::warn!(
                route = room.route.name,
                problem,
                %status,
                "no answer for Exchange; answered so that it is repeated"
            );
            room.refuse(reason, status)
        }
    }
}

/// Why Exchange has no answer of the upstream.
struct Unanswered {
    /// As a metric label.
    reason: &'static str,
    /// What Exchange gets instead.
    status: StatusCode,
    problem: String,
}

impl Unanswered {
    fn of(problem: &impl ToString) -> Self {
        let (reason, status) = ("upstream_unanswered", StatusCode::BAD_GATEWAY);
        Self { reason, status, problem: problem.to_string() }
    }

    fn late(problem: &impl ToString) -> Self {
        Self { status: StatusCode::GATEWAY_TIMEOUT, ..Self::of(problem) }
    }
}

/// What the upstream says, as Exchange would understand it.
async fn ask_upstream(
    room: &Room,
    inbound: Inbound<'_>,
    body: Bytes,
    until: Instant,
) -> Result<(SubscriptionStatus, Bytes), Unanswered> {
    let target = inbound.target.path_and_query();
    let request = forward::outbound(&room.route, target, inbound.head.headers, body)
        .ok_or_else(|| Unanswered::of(&"the request cannot be rewritten"))?;
    // Once it was sent, only Exchange may repeat it: it knows whether it was answered.
    let answer = room.pool.send_by(request, Repeat::Unsent, until).await;
    let answer = answer.map_err(|error| match error {
        SendError::Timeout { .. } | SendError::Busy { .. } => Unanswered::late(&error),
        _ => Unanswered::of(&error),
    })?;
    let (head, body) = answer.into_parts();
    let body = body.read(LARGEST_ANSWER, until).await.map_err(|error| match error {
        BodyError::Timeout => Unanswered::late(&error),
        _ => Unanswered::of(&error),
    })?;
    answer::pass_through(head.status, body)
        .map_err(|wrong| Unanswered { reason: "upstream_answer", ..Unanswered::of(&wrong) })
}

/// Exchange is answered when it is durable.
async fn store(room: &Room, inbound: Inbound<'_>, body: Bytes, judged: Judged) -> Response<Body> {
    match room.is_unsubscribed(&judged.lanes).await {
        Ok(true) => {
            room.forget(&judged.lanes);
            return response(result(SubscriptionStatus::Unsubscribe));
        }
        Ok(false) => {}
        Err(refusal) => return refusal,
    }
    room.hear(&judged.lanes);
    let route = &room.route.name;
    let record = NewRecord {
        once: judged.once(&body).map(|once| format!("{route} {once}")),
        lanes: judged.lanes,
        message: Message {
            route: route.clone(),
            target: inbound.target.path_and_query().to_string(),
            headers: forward::stored(&inbound.head.headers),
            source: Some(inbound.peer.source.ip().to_canonical()),
            body,
        },
    };
    match room.store(record).await {
        Ok(_) => response(result(SubscriptionStatus::Ok)),
        Err(refusal) => refusal,
    }
}

impl Room {
    /// Whether the upstream has said, of an earlier notification, that it wants no
    /// more of one of these subscriptions.
    async fn is_unsubscribed(&self, subscriptions: &[String]) -> Result<bool, Response<Body>> {
        let Some(spool) = self.spool.get() else {
            return Err(self.refuse("spool_closed", StatusCode::SERVICE_UNAVAILABLE));
        };
        for subscription in subscriptions {
            match spool.remembers(unsubscribed(&self.route.name, subscription)).await {
                Ok(true) => return Ok(true),
                Ok(false) => {}
                Err(error) => {
                    tracing::error!(route = self.route.name, %error, "cannot look into the spool");
                    return Err(self.refuse("not_durable", StatusCode::SERVICE_UNAVAILABLE));
                }
            }
        }
        Ok(false)
    }

    pub(super) fn hear(&self, subscriptions: &[String]) {
        self.silence.hear(subscriptions, jiff::Timestamp::now());
    }

    fn forget(&self, subscriptions: &[String]) {
        subscriptions.iter().for_each(|subscription| self.silence.forget(subscription));
    }
}

/// The fact that the upstream wants no more of a subscription.
fn unsubscribed(route: &str, subscription: &str) -> String {
    format!("unsubscribed {route} {subscription}")
}

/// What the upstream's answer to a stored notification means.
pub(in crate::relay) fn answered(message: &Message, status: StatusCode, body: &Bytes) -> Verdict {
    match read_answer(status, body) {
        Answer::Ok => Verdict::Accepted { remember: None },
        Answer::Unsubscribe => {
            let parsed = notification::parse(&message.body).unwrap_or_default();
            let first = parsed.into_iter().next().map(|first| first.subscription);
            Verdict::Accepted { remember: first.map(|first| unsubscribed(&message.route, &first)) }
        }
        Answer::Wrong(wrong) => Verdict::Retry(wrong.to_string()),
    }
}
