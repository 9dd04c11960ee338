//! Fields whose values decide what happens: credentials and challenges that hold for a
//! connection, and `Retry-After`.
//!
//! Seeds: tests/fuzz/seeds/fields
#![no_main]

use std::time::Duration;

use exogate::relay::fuzzing::Field;
use hyper::header::HeaderValue;
use libfuzzer_sys::fuzz_target;

/// Schemes that are known to hold for a request alone.
const OF_A_REQUEST: [&str; 3] = ["basic", "bearer", "digest"];

fuzz_target!(|bytes: &[u8]| {
    let Ok(value) = HeaderValue::from_bytes(bytes) else { return };
    let field = Field::read(&value);
    assert!(field.retry_after.is_none_or(|wait| wait <= Duration::from_secs(3600)));

    // What is not known to be harmless is not taken to be.
    let text = String::from_utf8_lossy(bytes).trim_ascii().to_ascii_lowercase();
    if !field.authenticates {
        assert!(OF_A_REQUEST.iter().any(|scheme| text.starts_with(scheme)), "{text:?}");
    }
    // Whatever stands beside it, NTLM is seen: in a list, and before its own data.
    for scheme in ["NTLM", "Negotiate YII=", "nTlM TlRM"] {
        for list in [[bytes, b", ", scheme.as_bytes()], [scheme.as_bytes(), b",", bytes]] {
            let list = HeaderValue::from_bytes(&list.concat()).unwrap();
            assert!(Field::read(&list).challenges, "{list:?}");
        }
        let credentials = [scheme.as_bytes(), b" ", bytes].concat();
        assert!(Field::read(&HeaderValue::from_bytes(&credentials).unwrap()).authenticates);
    }
});
