//! What is remembered: keys of records that are taken once only, and facts.
//!
//! Both are digests in a bucket. The value of a fact is empty. That of a key is
//! the identity of its record, and whether the record is known to be stored:
//!
//! 1. The key is *reserved* for an identity; only one can.
//! 2. The record is published under that identity.
//! 3. The key is marked as *stored*.
//!
//! Whoever finds a key that is stored has a duplicate. Whoever finds it reserved
//! cannot know how far the other came, who may be dead, so publishes its own copy
//! under the *other's* identity. If that is in the stream already, it is refused.
//! At worst the record was delivered in the meantime and comes a second time, under
//! the same identity. In no order of events a sender is told that a record is
//! taken which is not.

use async_nats::jetstream::kv::{CreateErrorKind, Operation};
use hyper::body::Bytes;

use super::{
    super::{Error, RecordId, seal::Kind},
    Inner,
    record::to_hex,
    servers::failed,
};

const RESERVED: u8 = b'r';
const STORED: u8 = b's';
const NOT_KEPT: &str = "a mark was not kept";

/// What a `once` key says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// Its record is to be published under this identity; the entry has this
    /// revision.
    Reserved(RecordId, u64),
    /// Its record is stored.
    Stored,
}

impl Inner {
    /// Reserves a key for `id`, or tells what is there.
    pub(super) async fn reserve(&self, key: &str, id: RecordId) -> Result<Key, Error> {
        let name = self.mark(Kind::Once, key);
        match self.servers.marks.create(&name, value(RESERVED, id)).await {
            Ok(revision) => Ok(Key::Reserved(id, revision)),
            Err(error) if error.kind() == CreateErrorKind::AlreadyExists => {
                let entry = self.servers.marks.entry(&name).await;
                let entry = entry.map_err(|error| failed("a mark cannot be looked up", error))?;
                let entry = entry.ok_or_else(|| failed(NOT_KEPT, "it was there and is gone"))?;
                match parse(&entry.value) {
                    Some((STORED, _)) => Ok(Key::Stored),
                    Some((RESERVED, id)) => Ok(Key::Reserved(id, entry.revision)),
                    _ => Err(failed(NOT_KEPT, format!("{name} holds something else"))),
                }
            }
            Err(error) => Err(failed(NOT_KEPT, error)),
        }
    }

    /// Marks a key as that of a record that is stored.
    pub(super) async fn confirm(&self, key: &str, id: RecordId, revision: u64) {
        let name = self.mark(Kind::Once, key);
        // If it fails, the next one with this key publishes under this identity.
        if let Err(error) = self.servers.marks.update(name, value(STORED, id), revision).await {
            tracing::debug!(%id, %error, "a key stays reserved");
        }
    }

    pub(super) async fn remember_fact(&self, fact: &str) -> Result<(), Error> {
        let put = self.servers.marks.put(self.mark(Kind::Fact, fact), Bytes::new()).await;
        put.map(drop).map_err(|error| failed(NOT_KEPT, error))
    }

    pub(super) async fn remembers_fact(&self, fact: &str) -> Result<bool, Error> {
        let entry = self.servers.marks.entry(self.mark(Kind::Fact, fact)).await;
        let entry = entry.map_err(|error| failed("a mark cannot be looked up", error))?;
        Ok(entry.is_some_and(|entry| entry.operation == Operation::Put))
    }

    fn mark(&self, kind: Kind, text: &str) -> String {
        to_hex(&self.sealer.mark(kind, text))
    }
}

fn value(state: u8, id: RecordId) -> Bytes {
    let mut value = vec![state];
    value.extend_from_slice(id.as_bytes());
    value.into()
}

pub(super) fn parse(value: &[u8]) -> Option<(u8, RecordId)> {
    let (state, id) = value.split_first()?;
    Some((*state, RecordId::from_bytes(id.try_into().ok()?)))
}
