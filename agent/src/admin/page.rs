//! The status page, for people with a browser at the admin address.
//!
//! That address has no access control, so the page tells no more than the metrics: no address
//! of a sender, no reason that an operator gave, no subscription, no path of a route. It needs
//! no script, and loads nothing from anywhere; its policy forbids both.

use hyper::{
    StatusCode,
    header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderValue, X_CONTENT_TYPE_OPTIONS},
};
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::{
    answer::{Answer, response},
    api::{Feed, Interface, Status, relay::Relay},
};

/// How often a browser asks anew.
const REFRESH_SECONDS: &str = "10";

const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'";

const STYLE: &str = "
:root { color-scheme: light dark; --good: #0a7d33; --bad: #b3261e; --warn: #9a6700; }
@media (prefers-color-scheme: dark) { :root { --good: #5bd68a; --bad: #ff8a80; --warn: #ffca62; } }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .25rem .75rem .25rem 0; border-bottom: 1px solid #8884; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
.good { color: var(--good); } .bad { color: var(--bad); } .warn { color: var(--warn); }
.banner { border-left: .4rem solid currentColor; padding: .3rem .8rem; font-weight: 600; }
code { overflow-wrap: anywhere; } footer { margin-top: 2rem; opacity: .7; }
";

/// The page of a status.
pub(super) fn page(status: &Status) -> Answer {
    let html = document(status).into_string().into_bytes();
    let mut page = response(StatusCode::OK, "text/html; charset=utf-8", html);
    let headers = page.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    page
}

fn document(status: &Status) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta http-equiv="refresh" content=(REFRESH_SECONDS);
                title { "exogate: " (status.mode) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                h1 { "exogate" }
                (mode(status))
                @if !status.waiting_for.is_empty() {
                    p.banner.bad { "Not ready: waiting for " (status.waiting_for.join(", ")) }
                }
                @for interface in &status.interfaces { (packets(interface)) }
                @if status.interfaces.is_empty() { p.warn { "No interface is filtered." } }
                (list(status))
                @if let Some(relay) = &status.relay { (relayed(relay)) }
                footer {
                    "Version " (status.version) ", running since " (status.started) ". "
                    a href="/metrics" { "Metrics" } ", "
                    a href="/healthz" { "health" } ", "
                    a href="/readyz" { "readiness" } ". More: " code { "exogate status" } ", "
                    code { "exogate doctor" } "."
                }
            }
        }
    }
}

fn mode(status: &Status) -> Markup {
    html! {
        @if status.mode == "enforce" {
            p.banner.good { "Enforcing: packets from unlisted sources are dropped." }
        } @else {
            p.banner.warn { "Monitor mode: nothing is dropped, only counted." }
        }
        @if let Some(until) = &status.confirm_by {
            p.banner.warn { "To be confirmed until " (until) ", or the mode before comes back." }
        }
    }
}

fn packets(interface: &Interface) -> Markup {
    let class = if interface.attached == "native" { "good" } else { "warn" };
    html! {
        h2 { "Interface " (interface.name) }
        p { "Filtered in " span class=(class) { (interface.attached) } " mode." }
        table {
            thead { tr {
                th { "verdict" } th { "reason" } th { "family" }
                th.number { "packets" } th.number { "bytes" }
            } }
            tbody {
                @for count in &interface.packets {
                    tr {
                        td { (count.action) } td { (count.reason) } td { (count.family) }
                        td.number { (count.packets) } td.number { (count.bytes) }
                    }
                }
            }
        }
    }
}

fn list(status: &Status) -> Markup {
    html! {
        h2 { "Allow-list" }
        p { code { (status.list.hash) } }
        @if !status.temporary.is_empty() {
            p.warn { (status.temporary.len()) " prefixes pass for a while by an operator's order." }
        }
        table {
            thead { tr {
                th { "source" } th.number { "IPv4 prefixes" } th.number { "IPv6 prefixes" }
            } }
            tbody {
                @for source in &status.list.sources {
                    tr {
                        td { (source.name) }
                        td.number { (source.ipv4) } td.number { (source.ipv6) }
                    }
                }
            }
        }
        h2 { "Feeds" }
        @if status.hold { p.banner.warn { "Updates are on hold." } }
        table {
            thead { tr {
                th { "feed" } th { "version" } th { "in force from" }
                th { "last success" } th { "next poll" }
            } }
            tbody { @for feed in &status.feeds { (followed(feed)) } }
        }
    }
}

fn followed(feed: &Feed) -> Markup {
    let or = |text: &Option<String>, other: &str| text.clone().unwrap_or_else(|| other.to_owned());
    html! {
        tr {
            td { (feed.feed) }
            td { (or(&feed.version, "unknown")) }
            td { (feed.provenance) }
            td { (or(&feed.last_success, "never")) }
            td { (or(&feed.next_attempt, "under way")) }
        }
        @if let Some(problem) = &feed.problem {
            tr { td.bad colspan="5" { "Since " (problem.at) ": " (problem.reason) } }
        }
    }
}

fn relayed(relay: &Relay) -> Markup {
    html! {
        h2 { "Relay" }
        table {
            thead { tr {
                th { "route" } th { "kind" } th.number { "waiting" } th.number { "dead letters" }
                th.number { "silent" } th { "last notification" }
            } }
            tbody {
                @for route in &relay.routes {
                    tr {
                        td { (route.name) } td { (route.kind) }
                        td.number { (route.waiting) }
                        td.number.bad[route.dead_letters > 0] { (route.dead_letters) }
                        td.number { (route.silent.len()) " of " (route.subscriptions) }
                        td { (route.last_notification.as_deref().unwrap_or("none yet")) }
                    }
                }
            }
        }
        @for upstream in &relay.upstreams {
            @let up = upstream.servers.iter().filter(|server| server.up).count();
            @let all = upstream.servers.len();
            p.bad[up == 0] {
                "Upstream " (upstream.name) ": " (up) " of " (all) " servers are up."
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::api::{Blocked, List, Problem, Temporary};

    /// A status with something in every place that a stranger or an operator wrote.
    fn status() -> Status {
        let at: jiff::Timestamp = "2026-11-23T20:00:00Z".parse().unwrap();
        Status {
            version: "0".to_owned(),
            pid: 1,
            started: at.to_string(),
            mode: "monitor".to_owned(),
            configured_mode: "monitor".to_owned(),
            confirm_by: None,
            waiting_for: vec!["<script>alert(1)</script>".to_owned()],
            interfaces: vec![],
            list: List { hash: "hash".to_owned(), sources: vec![] },
            feeds: vec![Feed {
                feed: "<b>".to_owned(),
                kind: "source".to_owned(),
                provenance: "nothing".to_owned(),
                since: None,
                version: Some("\"'&".to_owned()),
                last_success: None,
                last_attempt: None,
                next_attempt: None,
                problem: Some(Problem {
                    at: at.to_string(),
                    reason: "transport".to_owned(),
                    message: "a secret of the message".to_owned(),
                    can_be_accepted: false,
                }),
                pending_removals: 0,
                offered: None,
            }],
            hold: true,
            temporary: vec![Temporary {
                prefix: "203.0.113.0/24".parse().unwrap(),
                reason: "a secret of the operator".to_owned(),
                since: at,
                until: at,
            }],
            blocked: vec![Blocked {
                interface: "eth0".to_owned(),
                address: "198.51.100.99".parse().unwrap(),
                packets: 1,
                last_seen: at.to_string(),
                port: 443,
                action: "drop".to_owned(),
                nearest: None,
            }],
            relay: None,
        }
    }

    #[test]
    fn what_others_wrote_is_text_and_nothing_private_is_told() {
        let page = document(&status()).into_string();
        assert!(page.contains("&lt;script&gt;alert(1)"), "{page}");
        for part in
            ["<script", "<b>", "secret", "198.51.100.99", "203.0.113", "http://", "https://"]
        {
            assert!(!page.contains(part), "{part}: {page}");
        }
    }
}
