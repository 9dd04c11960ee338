//! What is read back from a disk or a stream, for fuzzing: `tests/fuzz` sees nothing that is
//! private.

use async_nats::{HeaderMap, HeaderValue};

use super::{
    super::{
        DeadLetter, Entry, Error, Message, RecordId,
        seal::{Part, Sealer},
    },
    marks,
    record::{self, DEATH, RECORD, Reader},
};

/// The record that all bytes are taken for.
const ID: [u8; 16] = [7; 16];

/// Reads what was stored, without a key.
pub struct Stored(Sealer);

impl Stored {
    /// A store without a key; `None` never.
    #[must_use]
    pub fn new() -> Option<Self> {
        Sealer::new(None).ok().map(Self)
    }

    /// The message in these bytes, of which the checksum must be right.
    ///
    /// # Errors
    ///
    /// As the spool has them.
    pub fn message(&self, bytes: &[u8]) -> Result<Message, Error> {
        self.0.open_message(RecordId::from_bytes(ID), bytes.to_vec())
    }

    /// The lanes in these bytes, of which the checksum must be right.
    ///
    /// # Errors
    ///
    /// As the spool has them.
    pub fn lanes(&self, bytes: &[u8]) -> Result<Vec<String>, Error> {
        self.0.open_lanes(RecordId::from_bytes(ID), bytes.to_vec())
    }

    /// This content as it would be stored, with a checksum that is right.
    #[must_use]
    pub fn sealed(&self, content: &[u8]) -> [Vec<u8>; 2] {
        [Part::Message, Part::Lanes]
            .map(|part| self.0.seal(RecordId::from_bytes(ID), part, &[content]).unwrap_or_default())
    }

    /// A message as it is stored.
    #[must_use]
    pub fn seal(&self, message: &Message) -> Vec<u8> {
        self.0.seal_message(RecordId::from_bytes(ID), message).unwrap_or_default()
    }

    /// What becomes of a message of NATS whose header fields hold this text: an entry in
    /// the queue, and a dead letter. `None` if no header can hold it.
    #[must_use]
    pub fn header(&self, text: &str) -> Option<(Option<Entry>, Result<DeadLetter, Error>)> {
        let value: HeaderValue = text.parse().ok()?;
        let id = RecordId::from_bytes(ID);
        let mut headers = HeaderMap::new();
        headers.insert(RECORD, value.clone());
        headers.insert(DEATH, value);
        let subject = format!("exogate.waiting.{id}");
        let entry = Reader::default().entry(&self.0, &subject, 1, &headers);
        Some((entry, record::dead_letter(&self.0, id, &headers)))
    }
}

/// The state and the identity in a mark.
#[must_use]
pub fn mark(bytes: &[u8]) -> Option<(u8, RecordId)> {
    marks::parse(bytes)
}
