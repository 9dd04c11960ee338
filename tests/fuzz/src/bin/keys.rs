//! The keys that Microsoft signs tokens with, and the head of a token.
//!
//! Seeds: tests/fuzz/seeds/keys
#![no_main]

use exogate::relay::graph::{keys, token};
use exogate_fuzz::assert_message;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    match keys::read(body) {
        Ok(count) => assert!(count > 0),
        Err(problem) => assert_message(&problem),
    }
    if let Ok(text) = str::from_utf8(body)
        && let Some(id) = token::key_id(text)
    {
        assert!(id.len() <= text.len());
    }
});
