//! What was stored, when it is read back from the disk or from a stream of NATS: a message,
//! its lanes, the header fields of a record and of a dead letter, and a mark.
//!
//! What is behind the checksum is reached by giving it one that is right.
//!
//! Seeds: tests/fuzz/seeds/record
#![no_main]

use std::sync::LazyLock;

use exogate::relay::spool::{
    Error, Message,
    jetstream::fuzzing::{Stored, mark},
};
use exogate_fuzz::assert_message;
use libfuzzer_sys::fuzz_target;

static STORED: LazyLock<Stored> = LazyLock::new(|| Stored::new().unwrap());

/// What cannot be read says so, and is not taken for anything else.
fn read<T>(result: Result<T, Error>) -> Option<T> {
    result
        .inspect_err(|error| {
            assert!(matches!(error, Error::Unreadable { .. }), "{error}");
            assert_message(&error.to_string());
        })
        .ok()
}

fuzz_target!(|bytes: &[u8]| {
    read(STORED.message(bytes));
    read(STORED.lanes(bytes));
    let [message, lanes] = STORED.sealed(bytes);
    if let Some(message) = read(STORED.message(&message)) {
        assert!(bytes.ends_with(&message.body));
        let again: Message = STORED.message(&STORED.seal(&message)).unwrap();
        assert_eq!(again, message, "it is stored as it was read");
    }
    read(STORED.lanes(&lanes));
    // A part is of no use in the other's place.
    assert!(STORED.lanes(&message).is_err() && STORED.message(&lanes).is_err());

    if let Ok(text) = str::from_utf8(bytes)
        && let Some((entry, dead)) = STORED.header(text)
    {
        let entry = entry.expect("a record is never overlooked");
        if let Some(dead) = read(dead) {
            assert_eq!((dead.id, dead.size), (entry.id, entry.size));
            assert_eq!((&*dead.route, dead.accepted), (&*entry.route, entry.accepted));
        }
    }
    assert_eq!(mark(bytes).is_some(), bytes.len() == 17);
});
