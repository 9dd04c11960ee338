//! The target of a request: what is checked is what is forwarded.
//!
//! Seeds: tests/fuzz/seeds/target
#![no_main]

use exogate::{
    config::Config,
    relay::{
        graph::handshake,
        route::{CREDENTIALS, Routes, Target, parameters, rewrite, without_parameters},
    },
};
use hyper::Request;
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

const CONFIG: &str = "
[[listener]]
address = \"[::]:443\"
certificates = [{ chain = \"/chain.pem\", key = \"/key.pem\" }]
[upstream.pega]
servers = [\"https://pega.example.com\"]
[route.graph]
kind = \"graph\"
path = \"/graph/8Jx2mVq0s7\"
upstream = \"pega\"
upstream_path = \"/behind\"
[route.all]
kind = \"graph\"
path_prefix = \"/all/\"
upstream = \"pega\"
upstream_path = \"/prweb/\"";

static CONFIGURED: LazyLock<Config> =
    LazyLock::new(|| Config::parse("fuzz".as_ref(), CONFIG).unwrap());

fuzz_target!(|text: &str| {
    let Ok(request) = Request::builder().uri(text).header("host", "a.example").body(()) else {
        return;
    };
    let (head, ()) = request.into_parts();
    let Ok(target) = Target::parse(&head) else { return };
    let path = target.path();
    assert!(path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic()));
    assert!(!path.contains("//") && !path.contains(['\\', ';']));
    assert!(path.split('/').all(|segment| !matches!(segment, "." | "..")));
    // Read once more it is the same.
    let again = Request::builder().uri(target.path_and_query().clone()).header("host", "a.example");
    assert_eq!(Target::parse(&again.body(()).unwrap().into_parts().0), Ok(target.clone()));

    if let Some(query) = target.query() {
        drop(handshake::token(query));
        let left = without_parameters(query, &CREDENTIALS);
        assert!(left.len() <= query.len());
        for (name, _) in parameters(&left) {
            let name = String::from_utf8_lossy(&name);
            assert!(!CREDENTIALS.iter().any(|credential| name.eq_ignore_ascii_case(credential)));
        }
    }
    let routes = Routes::new(&CONFIGURED.relay);
    if let Some(found) = routes.find(&target) {
        let forwarded = rewrite(found.route, target.path_and_query()).unwrap();
        let (kept, behind) = match found.route.name.as_str() {
            "graph" => ("/graph/8Jx2mVq0s7", "/behind"),
            _ => ("/all/", "/prweb/"),
        };
        assert_eq!(path, [kept, found.remainder].concat());
        assert_eq!(forwarded.path(), [behind, found.remainder].concat());
    }
});
