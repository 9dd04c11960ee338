//! An EWS notification, and the answer of the server behind the relay.
//!
//! Seeds: tests/data/samples
#![no_main]

use exogate::relay::ews::{
    Answer, SubscriptionStatus,
    answer::{pass_through, read_answer, result},
    notification,
};
use hyper::{StatusCode, body::Bytes};
use libfuzzer_sys::fuzz_target;

/// Exchange takes no longer answers.
const TOO_LONG: usize = 1024;

fuzz_target!(|body: &[u8]| {
    // The capture has a head as well.
    let body =
        body.windows(4).position(|end| end == b"\r\n\r\n").map_or(body, |at| &body[at + 4..]);
    if let Ok(notifications) = notification::parse(body) {
        assert!((1..=1000).contains(&notifications.len()));
        for one in notifications {
            assert!((1..=1024).contains(&one.subscription.len()));
        }
    }
    let answer = read_answer(StatusCode::OK, body);
    match pass_through(StatusCode::OK, Bytes::copy_from_slice(body)) {
        Ok((status, passed)) => {
            assert!(passed.len() < TOO_LONG);
            assert!(passed == body || passed == result(status));
            let same = match status {
                SubscriptionStatus::Ok => Answer::Ok,
                SubscriptionStatus::Unsubscribe => Answer::Unsubscribe,
            };
            assert_eq!((answer, read_answer(StatusCode::OK, &passed)), (same, same));
        }
        Err(wrong) => assert_eq!(answer, Answer::Wrong(wrong)),
    }
});
