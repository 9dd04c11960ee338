//! A Graph notification, whose items are judged one by one.
//!
//! Seeds: tests/fuzz/seeds/graph
#![no_main]

use std::sync::LazyLock;

use exogate::{
    config::{Config, RouteKind},
    relay::graph::{Accepted, Checks},
};
use hyper::body::Bytes;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

const SECRET: &str = "known";
const CONFIG: &str = "
[[listener]]
address = \"[::]:443\"
certificates = [{ chain = \"/chain.pem\", key = \"/key.pem\" }]
[upstream.pega]
servers = [\"https://pega.example.com\"]
[route.graph]
kind = \"graph\"
path = \"/graph\"
upstream = \"pega\"
client_state_file = \"FILE\"";

static CHECKS: LazyLock<Checks> = LazyLock::new(|| {
    let directory = exogate_fuzz::directory();
    let file = directory.path().join("client-state");
    std::fs::write(&file, SECRET).unwrap();
    let text = CONFIG.replace("FILE", file.to_str().unwrap());
    let config = Config::parse("fuzz".as_ref(), &text).unwrap();
    let RouteKind::Graph(graph) = &config.relay.routes[0].kind else { unreachable!() };
    Checks::load(graph, &config.feed).unwrap()
});

fuzz_target!(|body: &[u8]| {
    let body = Bytes::copy_from_slice(body);
    // Without tokens there is nothing to wait for.
    let judged = futures_util::FutureExt::now_or_never(CHECKS.judge(&body)).unwrap();
    let Ok(judged) = judged else { return };
    let passed = match judged.accepted {
        Accepted::All => body,
        Accepted::Some(part) => {
            assert!(part.len() < body.len());
            part
        }
        Accepted::None => {
            assert!(judged.lanes.is_empty());
            return;
        }
    };
    // As anybody else reads it: every item that passed knows the secret, and is of a
    // subscription that is waited for.
    let json: Value =
        serde_json::from_slice(passed.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&passed)).unwrap();
    let items = json["value"].as_array().unwrap();
    assert!(!items.is_empty());
    for item in items {
        assert_eq!(item["clientState"], SECRET);
        let subscription = item["subscriptionId"].as_str().unwrap();
        assert!(judged.lanes.iter().any(|lane| lane == subscription));
    }
});
