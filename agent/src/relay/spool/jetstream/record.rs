//! A record as a message of NATS.
//!
//! The payload is the sealed message. The header has what is needed to put the
//! record in line without reading that: `Exogate-Record`, and for a dead letter
//! `Exogate-Death`. The identity is the last part of the subject. Route, time and
//! size are readable for whoever may read the stream; the rest is not, if there is
//! a key.

use std::{collections::HashSet, fmt::Write, sync::Arc};

use async_nats::{HeaderMap, HeaderValue};
use hyper::body::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::super::{DeadLetter, Death, Entry, Error, NewRecord, RecordId, seal::Sealer};

pub(super) const RECORD: &str = "Exogate-Record";
pub(super) const DEATH: &str = "Exogate-Death";
/// What of a reason goes into a header.
const REASON: usize = 500;

/// What is known of a record without reading it.
#[derive(Debug, Serialize, Deserialize)]
struct Head {
    route: String,
    accepted: Timestamp,
    size: u64,
    /// The sealed lanes in hexadecimal digits.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    lanes: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Burial {
    buried: Timestamp,
    #[serde(flatten)]
    death: Death,
}

/// A record as it is published.
#[derive(Clone, Debug)]
pub(super) struct Packed {
    pub(super) headers: HeaderMap,
    pub(super) payload: Bytes,
    /// As it will be handed over, but for its sequence.
    pub(super) entry: Entry,
}

impl Packed {
    pub(super) fn new(sealer: &Sealer, id: RecordId, record: NewRecord) -> Result<Self, Error> {
        let head = Head {
            accepted: Timestamp::now(),
            size: u64::try_from(record.message.body.len()).unwrap_or(u64::MAX),
            lanes: to_hex(&sealer.seal_lanes(id, &record.lanes)?),
            route: record.message.route.clone(),
        };
        let mut headers = HeaderMap::new();
        headers.insert(RECORD, json(&head)?);
        Ok(Self {
            headers,
            payload: sealer.seal_message(id, &record.message)?.into(),
            entry: Entry {
                id,
                sequence: 0,
                route: head.route.into(),
                lanes: record.lanes.into_iter().map(Into::into).collect(),
                accepted: head.accepted,
                size: head.size,
            },
        })
    }

    /// Bytes of it in a stream, roughly.
    pub(super) fn stored(&self) -> u64 {
        let headers = self.headers.iter().flat_map(|(_, values)| values);
        let headers: usize = headers.map(|value| value.as_str().len()).sum();
        u64::try_from(headers.saturating_add(self.payload.len())).unwrap_or(u64::MAX)
    }
}

/// Turns headers into entries; names of routes are kept once.
#[derive(Default)]
pub(super) struct Reader {
    routes: HashSet<Arc<str>>,
}

impl Reader {
    /// The entry of a message in a stream; `None` if its subject is not that of a
    /// record. If its header is damaged it is an entry nevertheless, so that it can
    /// be buried.
    pub(super) fn entry(
        &mut self,
        sealer: &Sealer,
        subject: &str,
        sequence: u64,
        headers: &HeaderMap,
    ) -> Option<Entry> {
        let id = id_of(subject)?;
        let head = head(id, headers).unwrap_or(Head {
            route: String::new(),
            accepted: Timestamp::now(),
            size: 0,
            lanes: String::new(),
        });
        Some(Entry {
            id,
            sequence,
            route: self.route(&head.route),
            lanes: lanes(sealer, id, &head).into_iter().map(Into::into).collect(),
            accepted: head.accepted,
            size: head.size,
        })
    }

    fn route(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.routes.get(name) {
            return Arc::clone(known);
        }
        let route: Arc<str> = name.into();
        self.routes.insert(Arc::clone(&route));
        route
    }
}

/// The identity that a subject ends with.
pub(super) fn id_of(subject: &str) -> Option<RecordId> {
    subject.rsplit('.').next()?.parse().ok()
}

/// Marks headers of a record as those of a dead letter.
pub(super) fn bury(headers: &mut HeaderMap, death: Death) -> Result<(), Error> {
    let short = |text: String| text.chars().take(REASON).collect();
    let death = match death {
        Death::Expired { last } => Death::Expired { last: short(last) },
        Death::Unreadable { problem } => Death::Unreadable { problem: short(problem) },
        other => other,
    };
    headers.insert(DEATH, json(&Burial { buried: Timestamp::now(), death })?);
    Ok(())
}

/// The headers of a dead letter as those of a record that waits.
pub(super) fn revive(headers: &HeaderMap) -> HeaderMap {
    let mut revived = HeaderMap::new();
    if let Some(record) = headers.get(RECORD) {
        revived.insert(RECORD, record.clone());
    }
    revived
}

/// The dead letter with these headers.
pub(super) fn dead_letter(
    sealer: &Sealer,
    id: RecordId,
    headers: &HeaderMap,
) -> Result<DeadLetter, Error> {
    let head = head(id, headers)?;
    let burial: Burial = parse(id, headers, DEATH)?;
    Ok(DeadLetter {
        id,
        lanes: lanes(sealer, id, &head),
        route: head.route,
        accepted: head.accepted,
        buried: burial.buried,
        size: head.size,
        death: burial.death,
    })
}

fn head(id: RecordId, headers: &HeaderMap) -> Result<Head, Error> {
    parse(id, headers, RECORD)
}

fn parse<T: DeserializeOwned>(id: RecordId, headers: &HeaderMap, name: &str) -> Result<T, Error> {
    let unreadable = |problem: String| Error::Unreadable { id, problem };
    let value = headers.get(name).ok_or_else(|| unreadable(format!("it has no {name}")))?;
    // The library would quote what is there, and that may be anything.
    serde_json::from_str(value.as_str()).map_err(|error| {
        unreadable(format!("its {name} is malformed at character {}", error.column()))
    })
}

/// None, if they cannot be read: then the message cannot be either.
fn lanes(sealer: &Sealer, id: RecordId, head: &Head) -> Vec<String> {
    from_hex(&head.lanes).and_then(|sealed| sealer.open_lanes(id, sealed).ok()).unwrap_or_default()
}

fn json(value: &impl Serialize) -> Result<HeaderValue, Error> {
    // JSON escapes line breaks, the only thing that a header cannot hold.
    let text = serde_json::to_string(value).map_err(|error| error.to_string());
    text.and_then(|text| text.parse::<HeaderValue>().map_err(|error| error.to_string()))
        .map_err(|error| Error::Failed(format!("a record does not become a header: {error}")))
}

/// Hexadecimal digits.
pub(super) fn to_hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().saturating_mul(2));
    for byte in bytes {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let byte = |pair: &[u8; 2]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    rest.is_empty().then(|| pairs.iter().map(byte).collect())?
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::relay::spool::conformance::record;

    fn sealer() -> Sealer {
        Sealer::new(None).unwrap()
    }

    fn packed(id: RecordId) -> Packed {
        let lanes = vec!["one".to_owned(), "zwei\r\n\u{1f600}".to_owned()];
        Packed::new(&sealer(), id, NewRecord { lanes, ..record("a body") }).unwrap()
    }

    #[test]
    fn an_entry_comes_back_from_its_headers() {
        let id = RecordId::new();
        let packed = packed(id);
        let subject = format!("exogate.waiting.{id}");
        let entry = Reader::default().entry(&sealer(), &subject, 7, &packed.headers).unwrap();
        assert_eq!(entry, Entry { sequence: 7, ..packed.entry });
    }

    #[test]
    fn a_message_without_headers_of_ours_can_still_be_buried() {
        let id = RecordId::new();
        let subject = format!("exogate.waiting.{id}");
        let entry = Reader::default().entry(&sealer(), &subject, 7, &HeaderMap::new()).unwrap();
        assert_eq!((entry.id, &*entry.route, entry.size), (id, "", 0));
    }

    #[test]
    fn a_subject_without_an_identity_is_no_record() {
        let entry = Reader::default().entry(
            &sealer(),
            "exogate.waiting.x",
            7,
            &packed(RecordId::new()).headers,
        );
        assert_eq!(entry, None);
    }

    #[test]
    fn a_dead_letter_says_why_and_is_revived_without_that() {
        let id = RecordId::new();
        let mut headers = packed(id).headers;
        let alive = revive(&headers);
        bury(&mut headers, Death::Expired { last: "x\r\n".repeat(1000) }).unwrap();
        let letter = dead_letter(&sealer(), id, &headers).unwrap();
        assert_eq!(letter.lanes.len(), 2);
        assert!(matches!(letter.death, Death::Expired { last } if last.len() == REASON));
        assert_eq!(revive(&headers), alive);
        assert!(dead_letter(&sealer(), id, &alive).is_err());
    }

    proptest! {
        #[test]
        fn no_header_panics(text in "[^\r\n]*") {
            let id = RecordId::new();
            let mut headers = HeaderMap::new();
            headers.insert(RECORD, text.parse::<HeaderValue>().unwrap());
            headers.insert(DEATH, text.parse::<HeaderValue>().unwrap());
            let _ = dead_letter(&sealer(), id, &headers);
            let _ = Reader::default().entry(&sealer(), &format!("a.{id}"), 1, &headers);
        }

        #[test]
        fn hexadecimal_digits_come_back(bytes: Vec<u8>, text: String) {
            prop_assert_eq!(from_hex(&to_hex(&bytes)), Some(bytes));
            let _ = from_hex(&text);
        }
    }
}
