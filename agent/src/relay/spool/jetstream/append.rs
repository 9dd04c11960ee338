//! Makes a record durable: it is published, and a quorum says that it has it.
//!
//! Within [`BOUND`] that is tried again when a server goes away or a stream has no
//! leader for a moment. A second attempt may meet what the first one has stored
//! after all, so it demands that the record's own subject be empty, and whether it
//! is not is looked up before anything is believed. The servers' own window of
//! message ids is not used: after a restart they rebuild it from what is still
//! in the stream, which does not hold what was delivered; and a replay inside of
//! the window would be swallowed.

use std::time::Duration;

use async_nats::{
    HeaderMap,
    header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE,
    jetstream::{
        self, ErrorCode,
        context::{PublishError, PublishErrorKind},
    },
};
use hyper::body::Bytes;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::{
    super::{Appended, Error, NewRecord, RecordId},
    Inner,
    marks::Key,
    record::Packed,
    servers::{Servers, failed, is_missing},
};

/// The longest that an append may take: Microsoft waits 3 s for an answer.
pub(super) const BOUND: Duration = Duration::from_secs(2);
/// The longest that one attempt waits for its answer.
const ATTEMPT: Duration = Duration::from_millis(900);
/// How long a lost connection may take to be made again.
const RECONNECT: Duration = Duration::from_millis(500);
/// The pause between two attempts.
const PAUSE: Duration = Duration::from_millis(50);
/// Room in a message for what a burial adds to its header.
const BURIAL: usize = 4096;

impl Inner {
    pub(super) async fn append(&self, record: NewRecord) -> Result<Appended, Error> {
        // The key and its confirmation need an answer each.
        let bound = BOUND.saturating_mul(2);
        let appended = timeout(bound, self.append_once(record)).await;
        appended.unwrap_or_else(|_| Err(failed("a record was not stored in time", "no answer")))
    }

    async fn append_once(&self, mut record: NewRecord) -> Result<Appended, Error> {
        let id = RecordId::new();
        let Some(key) = record.once.take() else { return self.store(id, record, false).await };
        match self.reserve(&key, id).await? {
            Key::Stored => Ok(Appended::Duplicate),
            Key::Reserved(id, revision) => {
                let appended = self.store(id, record, true).await?;
                self.confirm(&key, id, revision).await;
                Ok(appended)
            }
        }
    }

    async fn store(
        &self,
        id: RecordId,
        record: NewRecord,
        unique: bool,
    ) -> Result<Appended, Error> {
        let Packed { headers, payload, mut entry } = {
            let packed = Packed::new(&self.sealer, id, record)?;
            let size = packed.stored();
            if self.room.taken().saturating_add(size) > self.max_bytes {
                return Err(Error::Full(format!(
                    "{} bytes are stored; raise spool.max_size of {}, or purge dead letters",
                    self.room.taken(),
                    self.max_bytes
                )));
            }
            let most = self.servers.max_payload().saturating_sub(BURIAL);
            if size > u64::try_from(most).unwrap_or(u64::MAX) {
                return Err(Error::Failed(format!(
                    "a record of {size} bytes is more than a message may have; raise max_payload \
                     of the NATS servers"
                )));
            }
            packed
        };
        let size = u64::try_from(payload.len()).unwrap_or(u64::MAX);
        match publish(&self.servers, id, &headers, &payload, unique).await? {
            Published::Stored(sequence) => {
                entry.sequence = sequence;
                self.room.appended(size);
                self.queue.appended(entry);
                Ok(Appended::Stored(id))
            }
            Published::There => Ok(Appended::Duplicate),
        }
    }
}

/// What became of a record that was to be published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Published {
    /// It is in the stream, at this place.
    Stored(u64),
    /// It was there before anything was published here.
    There,
}

/// Publishes a record to the stream of what waits.
///
/// `unique` is set if others may publish the same record.
pub(super) async fn publish(
    servers: &Servers,
    id: RecordId,
    headers: &HeaderMap,
    payload: &Bytes,
    unique: bool,
) -> Result<Published, Error> {
    let subject = format!("{}.waiting.{id}", servers.prefix);
    let begin = Instant::now();
    let end = begin.checked_add(BOUND).unwrap_or(begin);
    let mut demanding = unique;
    let mut sent = false;
    let mut problem = "there is no connection".to_owned();
    while Instant::now() < end {
        if !servers.connected() {
            if begin.elapsed() > RECONNECT && !sent {
                break;
            }
            sleep(PAUSE).await;
            continue;
        }
        let attempt = attempt(servers, &subject, headers, payload, demanding);
        let answer = match timeout_at(end, timeout(ATTEMPT, attempt)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) | Err(_) => Err(PublishError::new(PublishErrorKind::TimedOut)),
        };
        let error = match answer {
            Ok(sequence) => return Ok(Published::Stored(sequence)),
            Err(error) => error,
        };
        problem = error.to_string();
        match error.kind() {
            // Nobody has heard of it.
            PublishErrorKind::StreamNotFound => {}
            // It may be stored, or not.
            PublishErrorKind::TimedOut | PublishErrorKind::BrokenPipe => {
                sent = true;
                demanding = true;
            }
            // It is stored, or about to be.
            PublishErrorKind::WrongLastSequence => {
                if let Ok(Some(sequence)) = find(servers, &subject).await {
                    return Ok(if sent { Published::Stored(sequence) } else { Published::There });
                }
            }
            _ => return Err(refusal(&error)),
        }
        sleep(PAUSE).await;
    }
    Err(failed("a record was not stored in time", problem))
}

async fn attempt(
    servers: &Servers,
    subject: &str,
    headers: &HeaderMap,
    payload: &Bytes,
    demanding: bool,
) -> Result<u64, PublishError> {
    let mut headers = headers.clone();
    if demanding {
        headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, "0");
    }
    let publish =
        servers.context.publish_with_headers(subject.to_owned(), headers, payload.clone());
    Ok(publish.await?.await?.sequence)
}

/// The place of what was published to this subject.
pub(super) async fn find(servers: &Servers, subject: &str) -> Result<Option<u64>, Error> {
    match servers.waiting.get_last_raw_message_by_subject(subject).await {
        Ok(message) => Ok(Some(message.sequence)),
        Err(error) if is_missing(&error) => Ok(None),
        Err(error) => Err(failed("a record cannot be looked up", error)),
    }
}

/// Why the servers refused to store something.
pub(super) fn refusal(error: &PublishError) -> Error {
    let cause = std::error::Error::source(error);
    let code = cause
        .and_then(|cause| cause.downcast_ref::<jetstream::Error>())
        .map(|cause| (cause.error_code(), cause.to_string()));
    match code {
        Some((ErrorCode::STREAM_STORE_FAILED, text)) if text.contains("maximum bytes") => {
            Error::Full("a stream holds spool.max_size; raise it, or purge dead letters".to_owned())
        }
        Some((
            ErrorCode::INSUFFICIENT_RESOURCES
            | ErrorCode::STORAGE_RESOURCES_EXCEEDED
            | ErrorCode::ACCOUNT_RESOURCES_EXCEEDED,
            text,
        )) => Error::Full(format!(
            "the NATS servers have no room for spool.max_size: {text}; raise max_file_store or \
             the limits of the account"
        )),
        _ if error.kind() == PublishErrorKind::MaxPayloadExceeded => Error::Failed(format!(
            "a record is larger than a message may be: {error}; raise max_payload of the NATS servers"
        )),
        _ => failed("a record was refused", error),
    }
}
