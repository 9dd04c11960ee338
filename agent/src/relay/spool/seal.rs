//! What makes a stored record whole, and secret if there is a key.
//!
//! A sealed part begins with a byte that says how:
//!
//! - 0: a SHA-256 of identity, part and content, cut to 16 bytes; then the content.
//! - 1: a random nonce of 12 bytes; then the content under AES-256-GCM, with
//!   identity and part as associated data.
//!
//! Either way a part that was damaged, torn, or moved to another record does not
//! open. With a key, what was stored without one still opens; without a key, or
//! with another one, what was stored with it does not. Nonces are random, so a key
//! is good for about four billion records.
//!
//! Marks stand for what has to be found again but not read: digests, under a key
//! that is derived from the same file, if there is one.

use std::{fs, path::Path};

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey},
    digest, hmac,
};
use hyper::body::Bytes;

use super::{Error, Message, RecordId};

const PLAIN: u8 = 0;
const ENCRYPTED: u8 = 1;
const DIGEST_LEN: usize = 16;
const TAG_LEN: usize = 16;

/// Which part of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// The message with its body.
    Message,
    /// The lanes.
    Lanes,
}

/// What a mark stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A key of [`super::NewRecord::once`].
    Once,
    /// A fact of [`super::Spool::remember`].
    Fact,
}

/// Seals and opens the parts of records.
pub(crate) struct Sealer {
    keys: Option<Keys>,
}

struct Keys {
    parts: RandomizedNonceKey,
    marks: hmac::Key,
}

impl Sealer {
    /// With the key in this file, or with checksums alone.
    ///
    /// # Errors
    ///
    /// If there is a file, and not a key in it.
    pub(crate) fn new(key_file: Option<&Path>) -> Result<Self, Error> {
        let keys = key_file.map(|path| {
            Keys::read(path).map_err(|problem| {
                Error::Open(format!("spool.key_file {}: {problem}", path.display()))
            })
        });
        Ok(Self { keys: keys.transpose()? })
    }

    /// A message and its body as they are stored.
    ///
    /// # Errors
    ///
    /// If it cannot be written as JSON, or the system has no randomness.
    pub(crate) fn seal_message(&self, id: RecordId, message: &Message) -> Result<Vec<u8>, Error> {
        let json = serde_json::to_vec(message)
            .map_err(|error| Error::Failed(format!("a message does not become JSON: {error}")))?;
        let length = u32::try_from(json.len())
            .map_err(|_| Error::Failed("a message's header fields exceed 4 GiB".to_owned()))?;
        self.seal(id, Part::Message, &[&length.to_be_bytes(), &json, &message.body])
    }

    /// The message in what was stored.
    ///
    /// # Errors
    ///
    /// [`Error::Unreadable`].
    pub(crate) fn open_message(&self, id: RecordId, sealed: Vec<u8>) -> Result<Message, Error> {
        let content = Bytes::from(self.open(id, Part::Message, sealed)?);
        let unreadable = |problem: &str| Error::Unreadable { id, problem: problem.to_owned() };
        let (length, rest) =
            content.split_first_chunk().ok_or_else(|| unreadable("it is too short"))?;
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        let (json, body) =
            rest.split_at_checked(length).ok_or_else(|| unreadable("it is too short"))?;
        let message = serde_json::from_slice(json)
            .map_err(|_| unreadable("it was written by an exogate that this one does not know"))?;
        Ok(Message { body: content.slice_ref(body), ..message })
    }

    /// Lanes as they are stored.
    ///
    /// # Errors
    ///
    /// As for messages.
    pub(crate) fn seal_lanes(&self, id: RecordId, lanes: &[String]) -> Result<Vec<u8>, Error> {
        if lanes.is_empty() {
            return Ok(Vec::new());
        }
        let json = serde_json::to_vec(lanes)
            .map_err(|error| Error::Failed(format!("lanes do not become JSON: {error}")))?;
        self.seal(id, Part::Lanes, &[&json])
    }

    /// The lanes in what was stored.
    ///
    /// # Errors
    ///
    /// [`Error::Unreadable`].
    pub(crate) fn open_lanes(&self, id: RecordId, sealed: Vec<u8>) -> Result<Vec<String>, Error> {
        if sealed.is_empty() {
            return Ok(Vec::new());
        }
        serde_json::from_slice(&self.open(id, Part::Lanes, sealed)?)
            .map_err(|_| Error::Unreadable { id, problem: "its lanes are malformed".to_owned() })
    }

    /// What stands for a text that has to be found again.
    #[must_use]
    pub(crate) fn mark(&self, kind: Kind, text: &str) -> [u8; 32] {
        let kind: &[u8] = match kind {
            Kind::Once => b"once:",
            Kind::Fact => b"fact:",
        };
        let mut mark = [0; 32];
        let copy = |mark: &mut [u8; 32], digest: &[u8]| {
            for (to, from) in mark.iter_mut().zip(digest) {
                *to = *from;
            }
        };
        if let Some(keys) = &self.keys {
            let mut context = hmac::Context::with_key(&keys.marks);
            context.update(kind);
            context.update(text.as_bytes());
            copy(&mut mark, context.sign().as_ref());
        } else {
            let mut context = digest::Context::new(&digest::SHA256);
            context.update(kind);
            context.update(text.as_bytes());
            copy(&mut mark, context.finish().as_ref());
        }
        mark
    }

    /// Content as it is stored.
    pub(super) fn seal(
        &self,
        id: RecordId,
        part: Part,
        content: &[&[u8]],
    ) -> Result<Vec<u8>, Error> {
        let length = content.iter().map(|piece| piece.len()).sum::<usize>();
        let Some(keys) = &self.keys else {
            let mut sealed = Vec::with_capacity(length.saturating_add(1 + DIGEST_LEN));
            sealed.push(PLAIN);
            sealed.extend(checksum(id, part, content));
            content.iter().for_each(|piece| sealed.extend_from_slice(piece));
            return Ok(sealed);
        };
        let mut secret = Vec::with_capacity(length.saturating_add(TAG_LEN));
        content.iter().for_each(|piece| secret.extend_from_slice(piece));
        let nonce = keys
            .parts
            .seal_in_place_append_tag(Aad::from(associated(id, part)), &mut secret)
            .map_err(|_| Error::Failed("a record could not be encrypted".to_owned()))?;
        let mut sealed = Vec::with_capacity(secret.len().saturating_add(1 + NONCE_LEN));
        sealed.push(ENCRYPTED);
        sealed.extend_from_slice(nonce.as_ref());
        sealed.extend_from_slice(&secret);
        Ok(sealed)
    }

    fn open(&self, id: RecordId, part: Part, mut sealed: Vec<u8>) -> Result<Vec<u8>, Error> {
        let unreadable = |problem: &str| Error::Unreadable { id, problem: problem.to_owned() };
        let damaged = || unreadable("it is damaged");
        match (sealed.split_first(), &self.keys) {
            (Some((&PLAIN, rest)), _) => {
                let (expected, content) =
                    rest.split_first_chunk::<DIGEST_LEN>().ok_or_else(damaged)?;
                if checksum(id, part, &[content]) != *expected {
                    return Err(damaged());
                }
                sealed.drain(..1 + DIGEST_LEN);
                Ok(sealed)
            }
            (Some((&ENCRYPTED, rest)), Some(keys)) => {
                let (nonce, _) = rest.split_first_chunk::<NONCE_LEN>().ok_or_else(damaged)?;
                let nonce = Nonce::assume_unique_for_key(*nonce);
                sealed.drain(..1 + NONCE_LEN);
                let length = keys
                    .parts
                    .open_in_place(nonce, Aad::from(associated(id, part)), &mut sealed)
                    .map_err(|_| unreadable("it is damaged, or encrypted with another key"))?
                    .len();
                sealed.truncate(length);
                Ok(sealed)
            }
            (Some((&ENCRYPTED, _)), None) => {
                Err(unreadable("it is encrypted, and there is no spool.key_file"))
            }
            _ => Err(damaged()),
        }
    }
}

impl Keys {
    fn read(path: &Path) -> Result<Self, String> {
        let text = fs::read_to_string(path).map_err(|error| format!("cannot be read: {error}"))?;
        let key = key(text.trim()).ok_or("it must hold 64 hexadecimal digits, and nothing else")?;
        let marks = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), b"exogate spool marks");
        Ok(Self {
            parts: RandomizedNonceKey::new(&AES_256_GCM, &key)
                .map_err(|_| "it is not taken as a key")?,
            marks: hmac::Key::new(hmac::HMAC_SHA256, marks.as_ref()),
        })
    }
}

/// 64 hexadecimal digits.
fn key(text: &str) -> Option<[u8; 32]> {
    let mut key = [0; 32];
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if pairs.len() != key.len() || !rest.is_empty() {
        return None;
    }
    for (byte, &[high, low]) in key.iter_mut().zip(pairs) {
        let digit = |digit: u8| char::from(digit).to_digit(16).and_then(|d| u8::try_from(d).ok());
        *byte = digit(high)? << 4 | digit(low)?;
    }
    Some(key)
}

/// What ties a part to its place.
fn associated(id: RecordId, part: Part) -> [u8; 17] {
    let mut bytes = [match part {
        Part::Message => 0,
        Part::Lanes => 1,
    }; 17];
    for (to, from) in bytes.iter_mut().zip(id.as_bytes()) {
        *to = *from;
    }
    bytes
}

fn checksum(id: RecordId, part: Part, content: &[&[u8]]) -> [u8; DIGEST_LEN] {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(&associated(id, part));
    content.iter().for_each(|piece| context.update(piece));
    let digest = context.finish();
    digest.as_ref().first_chunk().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::conformance::record, *};

    fn sealers() -> [Sealer; 2] {
        [Sealer::new(None).unwrap(), keyed('1')]
    }

    fn keyed(digit: char) -> Sealer {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), format!("{}\n", String::from(digit).repeat(64))).unwrap();
        Sealer::new(Some(file.path())).unwrap()
    }

    #[test]
    fn what_is_sealed_opens() {
        let id = RecordId::new();
        for sealer in sealers() {
            for body in [&b""[..], b"a body"] {
                let message = record(body.to_vec()).message;
                let sealed = sealer.seal_message(id, &message).unwrap();
                assert_eq!(sealer.open_message(id, sealed).unwrap(), message);
            }
            for lanes in [vec![], vec!["a".to_owned(), "b".to_owned()]] {
                let sealed = sealer.seal_lanes(id, &lanes).unwrap();
                assert_eq!(sealer.open_lanes(id, sealed).unwrap(), lanes);
            }
        }
    }

    #[test]
    fn with_a_key_nothing_shows() {
        let message = record("a body").message;
        let sealed = keyed('1').seal_message(RecordId::new(), &message).unwrap();
        for secret in ["a body", "notify", "graph"] {
            let shows = sealed.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!shows, "{secret}");
        }
    }

    #[test]
    fn each_sealing_has_a_nonce_of_its_own() {
        let (sealer, id, message) = (keyed('1'), RecordId::new(), record("a body").message);
        let nonces: std::collections::BTreeSet<_> =
            (0..100).map(|_| sealer.seal_message(id, &message).unwrap()[1..13].to_vec()).collect();
        assert_eq!(nonces.len(), 100);
    }

    #[test]
    fn a_part_opens_in_its_place_only() {
        let (id, other) = (RecordId::new(), RecordId::new());
        for sealer in sealers() {
            let sealed = sealer.seal(id, Part::Message, &[b"content"]).unwrap();
            assert_eq!(sealer.open(id, Part::Message, sealed.clone()).unwrap(), b"content");
            assert!(sealer.open(other, Part::Message, sealed.clone()).is_err());
            assert!(sealer.open(id, Part::Lanes, sealed).is_err());
        }
    }

    #[test]
    fn what_was_stored_before_there_was_a_key_still_opens() {
        let (id, message) = (RecordId::new(), record("a body").message);
        let sealed = Sealer::new(None).unwrap().seal_message(id, &message).unwrap();
        assert_eq!(keyed('1').open_message(id, sealed).unwrap(), message);
    }

    #[test]
    fn marks_differ_by_kind_and_by_key() {
        let [plain, keyed_one] = sealers();
        let mut marks = std::collections::BTreeSet::new();
        for sealer in [&plain, &keyed_one, &keyed('2')] {
            for kind in [Kind::Once, Kind::Fact] {
                assert_eq!(sealer.mark(kind, "a"), sealer.mark(kind, "a"));
                marks.insert(sealer.mark(kind, "a"));
            }
        }
        assert_eq!(marks.len(), 6);
        assert_eq!(keyed_one.mark(Kind::Once, "a"), keyed('1').mark(Kind::Once, "a"));
    }

    #[test]
    fn a_file_without_a_key_is_refused_and_not_shown() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for text in ["", "12", &"1".repeat(63), &"1".repeat(65), &"g".repeat(64), &"ä".repeat(32)]
        {
            fs::write(file.path(), text).unwrap();
            let error = Sealer::new(Some(file.path())).err().unwrap().to_string();
            assert!(error.contains("64 hexadecimal digits"), "{error}");
            assert!(text.is_empty() || !error.contains(&format!("{text} ")), "{error}");
        }
        let error = Sealer::new(Some(Path::new("/none"))).err().unwrap().to_string();
        assert!(error.contains("/none"), "{error}");
    }

    proptest! {
        #[test]
        fn no_damage_goes_unseen(flip in any::<prop::sample::Index>(), bit in 0..8_u8) {
            let (id, message) = (RecordId::new(), record("a body").message);
            for sealer in sealers() {
                let mut sealed = sealer.seal_message(id, &message).unwrap();
                let place = flip.index(sealed.len());
                sealed[place] ^= 1 << bit;
                let opened = sealer.open_message(id, sealed);
                let seen = matches!(opened, Err(Error::Unreadable { .. }));
                prop_assert!(seen, "byte {}, bit {}", place, bit);
            }
        }

        #[test]
        fn whatever_is_stored_opening_it_does_not_panic(bytes: Vec<u8>) {
            let id = RecordId::new();
            for sealer in sealers() {
                let _ = sealer.open_message(id, bytes.clone());
                let _ = sealer.open_lanes(id, bytes.clone());
            }
        }

        #[test]
        fn a_torn_part_does_not_open(length in any::<prop::sample::Index>()) {
            let (id, message) = (RecordId::new(), record("a body").message);
            for sealer in sealers() {
                let mut sealed = sealer.seal_message(id, &message).unwrap();
                sealed.truncate(length.index(sealed.len()));
                prop_assert!(sealer.open_message(id, sealed).is_err());
            }
        }
    }
}
