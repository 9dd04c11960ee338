//! Reads the stream of what waits into the [`Queue`](super::queue::Queue), from its
//! first message on, headers alone.
//!
//! This is an ordered consumer: ephemeral, without acknowledgements, begun anew
//! after whatever it missed. The client library has one of its own, but that
//! notices the end of its server after half a minute only.

use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use futures_util::StreamExt;
use tokio::time::sleep;

use super::{Inner, record::Reader};

/// The server says that often that it is there; twice nothing is the end.
const HEARTBEAT: Duration = Duration::from_millis(750);
/// How long a request for more stands.
const EXPIRES: Duration = Duration::from_secs(10);
/// Messages that are asked for at once.
const BATCH: usize = 500;
/// The servers forget a consumer that nobody reads for so long.
const FORGET: Duration = Duration::from_secs(20);
/// The pause before it is begun anew.
const PAUSE: Duration = Duration::from_millis(200);

/// Reads without end. `complete` is called when all is read for the first time.
pub(super) async fn follow(inner: &Inner, mut complete: impl FnMut()) {
    let mut reader = Reader::default();
    let mut next = 1;
    loop {
        if let Err(problem) = read_from(inner, &mut reader, &mut next, &mut complete).await {
            tracing::debug!(problem, next, "what waits is read anew from there");
        }
        sleep(PAUSE).await;
    }
}

async fn read_from(
    inner: &Inner,
    reader: &mut Reader,
    next: &mut u64,
    complete: &mut impl FnMut(),
) -> Result<(), String> {
    let config = pull::Config {
        deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: *next },
        ack_policy: AckPolicy::None,
        headers_only: true,
        inactive_threshold: FORGET,
        num_replicas: 1,
        memory_storage: true,
        ..pull::Config::default()
    };
    let consumer = inner.servers.waiting.create_consumer(config).await.map_err(text)?;
    if consumer.cached_info().num_pending == 0 {
        complete();
    }
    let messages = consumer
        .stream()
        .max_messages_per_batch(BATCH)
        .heartbeat(HEARTBEAT)
        .expires(EXPIRES)
        .messages();
    let mut messages = messages.await.map_err(text)?;
    let mut expected = 1_u64;
    while let Some(message) = messages.next().await {
        let message = message.map_err(text)?;
        let (place, sequence, pending) = {
            let info = message.info().map_err(text)?;
            (info.consumer_sequence, info.stream_sequence, info.pending)
        };
        if place != expected {
            return Err(format!("message {place} came in the place of {expected}"));
        }
        expected = expected.saturating_add(1);
        *next = sequence.saturating_add(1);
        let headers = message.headers.as_ref();
        let entry = headers
            .and_then(|headers| reader.entry(&inner.sealer, &message.subject, sequence, headers));
        if entry.is_none() {
            tracing::warn!(subject = %message.subject, "a message in the stream is no record");
        }
        inner.queue.read(sequence, entry);
        if pending == 0 {
            complete();
        }
    }
    Err("the servers ended it".to_owned())
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
