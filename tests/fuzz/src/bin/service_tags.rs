//! Azure's service tags.
//!
//! Seeds: tests/fuzz/seeds/service_tags
#![no_main]

use std::sync::{LazyLock, Mutex};

use exogate::source::{feed::FeedId, microsoft365::MAX_PREFIXES, service_tags};
use exogate_fuzz::{Fed, assert_message};
use libfuzzer_sys::fuzz_target;

const TAGS: [&str; 2] = ["AzureActiveDirectory", "ActionGroup"];
const CONFIG: &str = "
[[guard]]
port = 443
sources = [\"entra\"]
[source.entra]
kind = \"service-tags\"
tags = [\"AzureActiveDirectory\", \"ActionGroup\"]
path = \"/var/lib/exogate/ServiceTags_Public.json\"";

static LIST: LazyLock<Mutex<Fed>> =
    LazyLock::new(|| Mutex::new(Fed::new(CONFIG, FeedId::Source("entra".to_owned()))));

fuzz_target!(|body: &[u8]| {
    match service_tags::parse(body, &TAGS.map(str::to_owned)) {
        Ok((_, entries)) => assert!(entries.len() <= MAX_PREFIXES),
        Err(problem) => assert_message(&problem.to_string()),
    }
    LIST.lock().unwrap().take(body);
});
