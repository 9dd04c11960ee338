//! The JSON that another agent exports.
//!
//! Seeds: tests/fuzz/seeds/export
#![no_main]

use std::sync::{LazyLock, Mutex};

use exogate::{
    admin::api::ExportFormat,
    daemon,
    source::{feed::FeedId, list, microsoft365::MAX_PREFIXES},
};
use exogate_fuzz::{Fed, assert_message};
use libfuzzer_sys::fuzz_target;

const SOURCE: &str = "central";
const CONFIG: &str = "
[[guard]]
port = 443
sources = [\"central\"]
[source.central]
kind = \"url\"
url = \"https://central.example.com/export?format=json\"
exported = [\"exchange-online\"]";

static LIST: LazyLock<Mutex<Fed>> =
    LazyLock::new(|| Mutex::new(Fed::new(CONFIG, FeedId::Source(SOURCE.to_owned()))));

fuzz_target!(|body: &[u8]| {
    for sources in [vec![], vec!["exchange-online".to_owned()]] {
        match list::parse(body, &sources) {
            Ok(prefixes) => assert!(prefixes.len() <= MAX_PREFIXES),
            Err(problem) => assert_message(&problem.to_string()),
        }
    }
    // What was taken can be handed on, and is the same then.
    if let Some(taken) = LIST.lock().unwrap().take(body) {
        let export = daemon::export(&taken, ExportFormat::Json, &[]).unwrap();
        let again = list::parse(export.as_bytes(), &[SOURCE.to_owned()]).unwrap();
        let entries = &taken.sources()[0].entries;
        assert!(entries.iter().map(|entry| &entry.prefix).eq(&again));
    }
});
