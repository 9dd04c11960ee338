//! A peer that means ill: what it holds up or floods. `smuggling` is about what it hides.

use std::time::Duration;

use exogate_tests::{
    agent::relay::GRAPH,
    load::{CLIENT_STATE, Load},
    notification::{Notification, RELAY_NAME},
    pega::{Pega, Received},
    raw::{Below, Ended, exchanges},
};

use super::{SOON, Setting, identities::add_proxy, proxied::client};

/// The listener's limits in these tests. Only who has no request may be idle longer: on a
/// busy machine senders that mean well are that, too. Shorter than what a notification may
/// take in all.
const LIMIT: Duration = Duration::from_secs(2);
/// How long a connection that has to end by its limit may last, on a busy machine.
pub(super) const ENDED: Duration = Duration::from_secs(15);
/// How long is waited for more, where the relay has nothing to hang up for.
pub(super) const QUIET: Duration = Duration::from_millis(700);
/// A proxied path that is as long as that of notifications, so that all lengths stay what
/// they are.
pub(super) const PROXIED: &str = "/EWS/8Jx2mVq0s7ab";
/// The pace of senders that mean well.
const PACE: Duration = Duration::from_millis(25);

/// What is attacked: a route that stores notifications, or one that passes requests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Notified,
    Proxied,
}

impl Place {
    /// A request for notifications as one for this place. All lengths stay what they are.
    pub(super) fn of(self, request: &str) -> String {
        assert_eq!(GRAPH.len(), PROXIED.len());
        match self {
            Self::Notified => request.to_owned(),
            Self::Proxied => request.replace(GRAPH, PROXIED),
        }
    }

    /// A setting with short limits, in which others can notify too, and the server of the
    /// proxy.
    pub(super) fn started(self) -> (Setting, Option<Pega>) {
        let mut setting = limited();
        let server = (self == Self::Proxied).then(|| {
            let server = Pega::start(&setting.lab, 8091).unwrap();
            add_proxy(&mut setting.agent, &[server.url()]);
            setting.agent.set("route.exchange.body_size", "1MiB").unwrap();
            server
        });
        setting.agent.start().unwrap();
        (setting, server)
    }
}

/// A setting with short limits, not started yet.
fn limited() -> Setting {
    let mut setting = Setting::new();
    let listener = setting.agent.listener().unwrap();
    for limit in ["handshake_timeout", "header_timeout", "body_timeout"] {
        listener.insert(limit.to_owned(), format!("{}s", LIMIT.as_secs()).into());
    }
    setting
}

/// A setting with short limits.
pub(super) fn started() -> Setting {
    let mut setting = limited();
    setting.agent.start().unwrap();
    setting
}

/// Lets `attack` happen while others send notifications, of which each is accepted and
/// arrives, and nothing else does.
pub(super) fn while_others_send(setting: &Setting, attack: impl FnOnce()) {
    let load = Load::start(&setting.lab, GRAPH, 4, PACE).unwrap();
    load.wait_for(20, SOON).unwrap();
    attack();
    load.wait_for(load.count() + 20, SOON).unwrap();
    let report = load.stop().unwrap();
    assert_eq!((report.broken, &report.refused), (0, &Default::default()));
    setting
        .pega
        .wait_until("all of it arrives", SOON, |received| {
            report.hold_against(received, GRAPH).is_ok()
        })
        .unwrap();
}

pub(super) fn one(setting: &Setting, below: Below, bytes: &[u8], patience: Duration) -> Ended {
    exchanges(&setting.lab, below, &[vec![bytes]], Duration::ZERO, patience).unwrap().remove(0)
}

/// A whole request that would be accepted, of a subscription.
pub(super) fn whole(subscription: &str) -> String {
    let body = body(subscription);
    format!("{}Content-Length: {}\r\n\r\n{body}", head("HTTP/1.1"), body.len())
}

pub(super) fn body(subscription: &str) -> String {
    let sent = Notification::graph(GRAPH, &[subscription], 1, CLIENT_STATE);
    String::from_utf8(sent.body.to_vec()).unwrap()
}

/// A head that framing is still missing from.
pub(super) fn head(version: &str) -> String {
    format!("POST {GRAPH} {version}\r\nHost: {RELAY_NAME}\r\nContent-Type: application/json\r\n")
}

#[test]
fn whoever_is_slow_is_cut_off_and_holds_nobody_up() {
    slow(Place::Notified);
}

#[test]
fn whoever_is_slow_with_a_proxy_is_cut_off_and_holds_nobody_up() {
    slow(Place::Proxied);
}

fn slow(place: Place) {
    let (setting, server) = place.started();
    let whole = place.of(&whole("slow"));
    let (head, body) = whole.split_at(whole.find("\r\n\r\n").unwrap() + 4);
    while_others_send(&setting, || {
        // A byte in a quarter of a second, in thirty connections each.
        let slowly = |start: &str, rest: &str| {
            let rest: Vec<_> = rest.bytes().take(80).map(|byte| vec![byte]).collect();
            [vec![start.as_bytes().to_vec()], rest].concat()
        };
        let nothing: Vec<Vec<u8>> = Vec::new();
        let slow_body = match place {
            Place::Notified => slowly(head, body),
            // It may take its time, as long as it comes: here it does not.
            Place::Proxied => vec![[head, body.split_at(3).0].concat().into_bytes()],
        };
        let mut cases = vec![
            ("a head", Below::Http1, slowly("P", head.strip_prefix('P').unwrap()), None),
            ("a body", Below::Http1, slow_body, Some(408)),
            ("nothing in TLS", Below::Http1, nothing.clone(), None),
            ("no TLS", Below::Tcp, nothing.clone(), None),
            ("TLS", Below::Tcp, slowly("\u{16}\u{3}\u{1}\u{1}", &"\u{1}".repeat(80)), None),
        ];
        // With a proxy there is no HTTP/2.
        if place == Place::Notified {
            cases.push(("nothing in HTTP/2", Below::Http2, nothing, None));
        }
        for (name, below, pieces, status) in cases {
            let pieces: Vec<_> = pieces.iter().map(Vec::as_slice).collect();
            let pause = LIMIT / 4;
            let ended = exchanges(&setting.lab, below, &vec![pieces; 30], pause, ENDED).unwrap();
            for one in ended {
                assert!(one.closed, "{name} is waited for longer than {:?}", one.lasted);
                if let Some(status) = status {
                    assert_eq!(one.statuses(), [status], "{name}");
                }
            }
        }
    });
    let result = |result| setting.metric("exogate_relay_connections_total", &[("result", result)]);
    // On a busy machine a handshake may be late that was to be in time.
    let (heads, handshakes) = (result("header_timeout"), result("handshake_timeout"));
    let without_request = if place == Place::Notified { 90.0 } else { 60.0 };
    assert!(handshakes >= 60.0 && heads > 0.0, "{heads} heads, {handshakes} handshakes");
    assert!(heads + handshakes >= 60.0 + without_request, "{heads} and {handshakes}");
    let too_slow = setting.metric("exogate_relay_refused_total", &[("reason", "body_too_slow")]);
    assert_eq!(too_slow, 30.0);
    assert_eq!(setting.metric("exogate_relay_handler_panics_total", &[]), 0.0);
    // A body that did not end is none to the server.
    assert!(server.is_none_or(|server| server.arrived().is_empty()));
}

#[test]
fn bodies_that_are_held_back_do_not_take_all_memory() {
    let mut setting = Setting::new();
    setting.agent.set("relay.body_memory", "1MiB").unwrap();
    setting.agent.start().unwrap();
    let held = |bytes: u32| setting.until("exogate_relay_body_memory_bytes", &[], bytes.into());
    let most = 600 << 10;
    let slow = format!("{}Content-Length: {}\r\n\r\n", head("HTTP/1.1"), most + 1);
    let slow = slow + &" ".repeat(most);
    let mut first = client(&setting.lab, &[]);
    first.send(&slow);
    held(most.try_into().unwrap());
    let mut second = client(&setting.lab, &[]);
    second.send(&slow);
    assert!(second.head().starts_with("HTTP/1.1 503 "));
    let reason = [("reason", "no_memory")];
    assert_eq!(setting.metric("exogate_relay_refused_total", &reason), 1.0);
    // What is small finds room, and what was taken comes back.
    let mut third = client(&setting.lab, &[]);
    third.send(&whole("small"));
    assert!(third.head().starts_with("HTTP/1.1 202 "));
    held(most.try_into().unwrap());
    drop(first);
    held(0);
}

#[test]
fn what_is_too_large_is_refused_before_it_is_read() {
    too_large(Place::Notified);
}

#[test]
fn what_is_too_large_for_a_proxy_is_refused_before_it_is_whole() {
    too_large(Place::Proxied);
}

fn too_large(place: Place) {
    let (setting, server) = place.started();
    let (post, path) = (place.of(&head("HTTP/1.1")), place.of(GRAPH));
    let length = format!("Content-Length: {}\r\n\r\n", 100 << 20);
    let long = |text: &str, count: usize| text.repeat(count);
    let chunk = format!("10000\r\n{}\r\n", "a".repeat(0x10000));
    while_others_send(&setting, || {
        for (name, bytes, status) in [
            ("a field", format!("{post}X-A: {}\r\n\r\n", long("a", 64 << 10)), 431),
            ("fields", format!("{post}{}\r\n", long("X-A: a\r\n", 200)), 431),
            ("a name of a field", format!("{post}{}: a\r\n\r\n", long("a", 70_000)), 431),
            (
                "a head that never ends",
                format!("{post}{}", long("X-A: aaaaaaaaaaaaaaaa\r\n", 9000)),
                431,
            ),
            ("a target", post.replace(&path, &long("/a", 6 << 10)) + "\r\n", 400),
            ("a target beyond heads", post.replace(&path, &long("/a", 40 << 10)) + "\r\n", 431),
            ("a body, announced", format!("{post}{length}"), 413),
            (
                "a body, in chunks",
                format!("{post}Transfer-Encoding: chunked\r\n\r\n{}", long(&chunk, 40)),
                413,
            ),
        ] {
            let ended = one(
                &setting,
                Below::Http1,
                bytes.as_bytes(),
                if status == 400 { QUIET } else { ENDED },
            );
            let statuses = ended.statuses();
            // A target may be too long for the library or for the relay.
            let is_it = statuses == [status] || (status == 431 && statuses == [414]);
            // After a head that is sound, if refused, another may follow.
            let is_over = ended.closed || status == 400;
            assert!(is_it && is_over, "{name}: {statuses:?}, closed: {}", ended.closed);
        }
    });
    assert!(server.is_none_or(|server| server.arrived().is_empty()));
}

#[test]
fn what_is_no_tls_ends_at_once() {
    no_tls(Place::Notified);
}

#[test]
fn what_is_no_tls_ends_at_once_before_a_proxy() {
    no_tls(Place::Proxied);
}

fn no_tls(place: Place) {
    let (setting, server) = place.started();
    let junk: Vec<u8> = (0..4096_u32).map(|number| ((number * 167) >> 3) as u8).collect();
    let plain = place.of(&whole("plain"));
    let record = [&[0x16, 3, 1, 0x40, 0][..], &junk].concat();
    let large = [0x16, 3, 1, 0xff, 0xff];
    while_others_send(&setting, || {
        let all = [&junk, plain.as_bytes(), &record, &large, b"\r\n\r\n\0\r\nQUIT\n\x21\x11"];
        let all: Vec<_> = all.iter().map(|bytes| vec![*bytes]).collect();
        for ended in exchanges(&setting.lab, Below::Tcp, &all, Duration::ZERO, ENDED).unwrap() {
            assert!(ended.closed);
            let answer = String::from_utf8_lossy(&ended.answer);
            assert!(!answer.contains("HTTP"), "{answer}");
        }
    });
    assert!(setting.metric("exogate_relay_connections_total", &[("result", "tls_failed")]) >= 3.0);
    let text = |one: &Received| String::from_utf8_lossy(&one.body).into_owned();
    assert!(setting.pega.received().iter().all(|one| !text(one).contains("\"plain\"")));
    assert!(server.is_none_or(|server| server.arrived().is_empty()));
}
