//! Graph: a handshake, or notifications that are durable before they are answered.

use std::time::Duration;

use hyper::{Response, StatusCode, body::Bytes};
use tokio::time::{Instant, timeout, timeout_at};

use super::{Inbound, Room, answer::empty};
use crate::{
    config::Handshake,
    relay::{
        Body, forward,
        graph::{Accepted, BadHead, Checks, Request, guard, handshake},
        spool::{Appended, Message, NewRecord},
        upstream::Repeat,
    },
};

/// Graph waits for 10 s, of which the way there and back takes some.
const HANDSHAKE: Duration = Duration::from_secs(8);
/// Largest answer of an upstream to a handshake: the token, and blanks perhaps.
const LARGEST_ANSWER: usize = 16 << 10;
/// Graph calls more than 3 s slow. What is not durable by then is answered 503, and
/// Graph repeats it.
const ACCEPTANCE: Duration = Duration::from_millis(2500);

pub(super) async fn receive(
    room: &Room,
    checks: &Checks,
    handshake: Handshake,
    inbound: Inbound<'_>,
) -> Response<Body> {
    match guard(&inbound.head, inbound.target) {
        Ok(Request::Delivery) => {}
        Ok(Request::Handshake(token)) => return shake_hands(room, handshake, token, inbound).await,
        Err(bad @ BadHead::Token) => return room.refuse(bad.name(), StatusCode::BAD_REQUEST),
        Err(bad) => return room.refuse(bad.name(), StatusCode::NOT_FOUND),
    }
    let since = inbound.since;
    match timeout_at(deadline(since), accept(room, checks, inbound)).await {
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

fn deadline(since: Instant) -> Instant {
    since.checked_add(ACCEPTANCE).unwrap_or(since)
}

async fn accept(room: &Room, checks: &Checks, mut inbound: Inbound<'_>) -> Response<Body> {
    let (body, _held) = match room.read(inbound.body.take()).await {
        Ok(body) => body,
        Err(refusal) => return refusal,
    };
    let judged = match checks.judge(&body).await {
        Ok(judged) => judged,
        Err(undecided) => return room.refuse(undecided.name(), undecided.status()),
    };
    for (refusal, count) in &judged.refused {
        room.metrics.discard(refusal.name(), *count);
    }
    for (bad, count) in &judged.bad_tokens {
        tracing::info!(route = room.route.name, reason = bad.name(), count, "tokens refused");
    }
    let body = match judged.accepted {
        Accepted::All => body,
        Accepted::Some(body) => body,
        // Nobody learns from the answer what passes.
        Accepted::None => return empty(StatusCode::ACCEPTED),
    };
    room.hear(&judged.lanes);
    let message = Message {
        route: room.route.name.clone(),
        target: inbound.target.path_and_query().to_string(),
        headers: forward::stored(&inbound.head.headers),
        source: Some(inbound.peer.source.ip().to_canonical()),
        body,
    };
    match room.store(NewRecord { message, lanes: judged.lanes, once: None }).await {
        Ok(_) => empty(StatusCode::ACCEPTED),
        Err(refusal) => refusal,
    }
}

/// Validates the address for a new subscription.
async fn shake_hands(
    room: &Room,
    handshake: Handshake,
    token: String,
    inbound: Inbound<'_>,
) -> Response<Body> {
    match handshake {
        Handshake::Local => handshake::answer(token),
        Handshake::Upstream => {
            match timeout(HANDSHAKE, ask_upstream(room, &token, inbound)).await {
                Ok(Ok(())) => handshake::answer(token),
                Ok(Err((reason, problem))) => {
                    tracing::warn!(
                        route = room.route.name,
                        reason,
                        problem,
                        "the upstream did not confirm a subscription"
                    );
                    room.refuse(reason, StatusCode::BAD_GATEWAY)
                }
                Err(_) => room.refuse("handshake_timeout", StatusCode::GATEWAY_TIMEOUT),
            }
        }
    }
}

/// Whether the upstream wants the subscription.
async fn ask_upstream(
    room: &Room,
    token: &str,
    inbound: Inbound<'_>,
) -> Result<(), (&'static str, String)> {
    let target = inbound.target.path_and_query();
    let request = forward::outbound(&room.route, target, inbound.head.headers, Bytes::new())
        .ok_or_else(|| ("handshake_target", "the request cannot be rewritten".to_owned()))?;
    let answer = room.pool.send(request, Repeat::Always).await;
    let (head, body) =
        answer.map_err(|error| ("handshake_unanswered", error.to_string()))?.into_parts();
    let until = deadline(Instant::now());
    let body = body.read(LARGEST_ANSWER, until).await;
    let body = body.map_err(|error| ("handshake_unanswered", error.to_string()))?;
    handshake::check_upstream_answer(head.status, &body, token)
        .map_err(|wrong| ("handshake_refused", wrong.to_string()))
}

impl Room {
    /// Makes a record durable, or says what to answer instead.
    pub(super) async fn store(&self, record: NewRecord) -> Result<Appended, Response<Body>> {
        let Some(spool) = self.spool.get() else {
            return Err(self.refuse("spool_closed", StatusCode::SERVICE_UNAVAILABLE));
        };
        match spool.append(record).await {
            Ok(appended @ Appended::Stored(_)) => {
                self.metrics.stored.inc();
                Ok(appended)
            }
            Ok(Appended::Duplicate) => {
                self.metrics.duplicates.inc();
                Ok(Appended::Duplicate)
            }
            Err(error) => {
                tracing::error!(
                    route = self.route.name,
                    %error,
                    "a notification could not be made durable; answered 503, so that it is repeated"
                );
                Err(self.refuse("not_durable", StatusCode::SERVICE_UNAVAILABLE))
            }
        }
    }
}
