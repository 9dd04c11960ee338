//! The keys that Microsoft signs tokens with, and the head and the claims of a token.
//!
//! Seeds: tests/fuzz/seeds/keys
#![no_main]

use exogate::relay::graph::{keys, token};
use exogate_fuzz::assert_message;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

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
    // Claims that nobody asks for are not read, be they malformed.
    if let Ok(tenant) = token::tenant(body)
        && let Ok(claims) = serde_json::from_slice::<Value>(body)
    {
        // As anybody else reads it: of this tenant, and made for Graph alone.
        let named = claims["tid"].as_str().unwrap();
        assert_eq!(named.replace('-', "").to_lowercase(), tenant.simple().to_string());
        assert!(claims["iss"].as_str().unwrap().contains(named));
        let publishers: Vec<_> =
            [&claims["appid"], &claims["azp"]].into_iter().filter_map(Value::as_str).collect();
        assert!(!publishers.is_empty());
        assert!(publishers.iter().all(|publisher| *publisher == token::PUBLISHER));
    }
});
