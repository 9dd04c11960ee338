//! Answers about the relay, and orders about what it has stored.

use std::sync::Arc;

use crate::{
    admin::api::relay::{
        Message, Relay, Route, Silent, SpoolAnswer, SpoolOrder, Upstream, UpstreamOrder,
    },
    relay::{
        RouteStatus, Running,
        spool::{self, RecordId, Spool},
    },
};

/// Dead letters that are listed at once.
const MOST: usize = 1000;

pub(super) fn status(relay: &Running) -> Relay {
    let status = relay.status();
    Relay {
        listeners: status.listeners,
        routes: status.routes.into_iter().map(route).collect(),
        upstreams: status
            .upstreams
            .into_iter()
            .map(|(name, servers)| Upstream { name, servers })
            .collect(),
    }
}

fn route(status: RouteStatus) -> Route {
    let RouteStatus { name, kind, upstream, depth, last, subscriptions, silent } = status;
    Route {
        name,
        kind: kind.to_owned(),
        upstream,
        waiting: depth.records,
        waiting_bytes: depth.bytes,
        oldest: depth.oldest.map(|time| time.to_string()),
        dead_letters: depth.dead,
        last_notification: last.map(|time| time.to_string()),
        subscriptions,
        silent: silent
            .into_iter()
            .map(|heard| Silent { subscription: heard.subscription, last: heard.at.to_string() })
            .collect(),
    }
}

/// Takes servers out of service, or back.
pub(super) fn drain(order: UpstreamOrder, relay: Option<&Running>) -> Result<Upstream, String> {
    let UpstreamOrder { upstream: name, server, drained } = order;
    let relay = relay.ok_or("there is no relay: the configuration has no [[listener]]")?;
    let servers = relay.drain_server(&name, server.as_deref(), drained)?;
    let server = server.as_deref().unwrap_or("all");
    tracing::info!(upstream = name, server, drained, "an operator changed what is in service");
    Ok(Upstream { name, servers })
}

/// Does something with stored notifications.
pub(super) async fn obey(
    order: SpoolOrder,
    spool: Option<Arc<dyn Spool>>,
) -> Result<SpoolAnswer, String> {
    let Some(spool) = spool else {
        return Err("there is no spool: no route stores before it answers, or the spool is not \
                    open yet; see `exogate status`"
            .to_owned());
    };
    let said = |error: spool::Error| error.to_string();
    Ok(match order {
        SpoolOrder::List { selection, after, most } => {
            let dead_letters = spool.dead(selection, after, most.min(MOST)).await.map_err(said)?;
            SpoolAnswer::Listed { dead_letters }
        }
        SpoolOrder::Show { id } => {
            let message = spool.read(id).await.map_err(said)?;
            SpoolAnswer::Shown(Box::new(shown(id, message)))
        }
        SpoolOrder::Replay { selection } => {
            let count = spool.replay(selection.clone()).await.map_err(said)?;
            tracing::info!(?selection, count, "dead letters are delivered once more");
            SpoolAnswer::Done { count }
        }
        SpoolOrder::Purge { selection } => {
            let count = spool.purge(selection.clone()).await.map_err(said)?;
            tracing::info!(?selection, count, "dead letters removed");
            SpoolAnswer::Done { count }
        }
    })
}

fn shown(id: RecordId, message: spool::Message) -> Message {
    let spool::Message { route, target, headers, source, body } = message;
    let (body, body_hex) = match String::from_utf8(body.to_vec()) {
        Ok(text) => (Some(text), None),
        Err(error) => {
            let bytes = error.into_bytes();
            (None, Some(bytes.iter().map(|byte| format!("{byte:02x}")).collect()))
        }
    };
    Message { id, route, target, headers, source, body, body_hex }
}
