//! Plain lists, as files and web servers hold them.
//!
//! Seeds: tests/fuzz/seeds/plain_list
#![no_main]

use std::sync::{LazyLock, Mutex};

use exogate::source::{feed::FeedId, list, microsoft365::MAX_PREFIXES};
use exogate_fuzz::{Fed, assert_message};
use libfuzzer_sys::fuzz_target;

const CONFIG: &str = "
[[guard]]
port = 443
sources = [\"partners\"]
[source.partners]
kind = \"url\"
url = \"https://lists.example.com/partners.txt\"";

static LIST: LazyLock<Mutex<Fed>> =
    LazyLock::new(|| Mutex::new(Fed::new(CONFIG, FeedId::Source("partners".to_owned()))));

fuzz_target!(|body: &[u8]| {
    match list::parse_plain(body) {
        Ok(prefixes) => {
            assert!(prefixes.len() <= MAX_PREFIXES);
            let text: String = prefixes.iter().map(|prefix| format!("{prefix}\n")).collect();
            assert_eq!(list::parse_plain(text.as_bytes()), Ok(prefixes));
        }
        Err(problem) => assert_message(&problem.to_string()),
    }
    LIST.lock().unwrap().take(body);
});
