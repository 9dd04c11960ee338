//! The endpoint sets of Microsoft's web service, from the bytes of the answer to the
//! list.
//!
//! Seeds: tests/data/worldwide tests/data/history
#![no_main]

use std::sync::{LazyLock, Mutex};

use exogate::source::{
    feed::FeedId,
    microsoft365::{Instance, MAX_PREFIXES, MAX_RECORDS, parse_endpoints},
};
use exogate_fuzz::{Fed, assert_message};
use libfuzzer_sys::fuzz_target;

static LIST: LazyLock<Mutex<Fed>> =
    LazyLock::new(|| Mutex::new(Fed::new("", FeedId::Instance(Instance::Worldwide))));

fuzz_target!(|body: &[u8]| {
    match parse_endpoints(body) {
        Ok(sets) => {
            let sets = sets.into_sets();
            assert!(sets.len() <= MAX_RECORDS);
            assert!(sets.iter().map(|set| set.ips.len()).sum::<usize>() <= MAX_PREFIXES);
            let texts = sets.iter().flat_map(|set| set.urls.iter().chain([&set.service_area]));
            assert!(texts.into_iter().all(|text| text.len() <= 253));
        }
        Err(problem) => assert_message(&problem.to_string()),
    }
    LIST.lock().unwrap().take(body);
});
