//! A peer that means ill: what it smuggles, holds up or floods.

use std::time::Duration;

use exogate_tests::{
    agent::relay::GRAPH,
    load::{CLIENT_STATE, Load},
    notification::{Notification, RELAY_NAME},
    pega::Pega,
    raw::{Below, Ended, exchanges},
};

use super::{SOON, Setting, identities::add_proxy, proxied::client};

/// The listener's limits in these tests. Only who has no request may be idle longer: on a
/// busy machine senders that mean well are that, too.
const LIMIT: Duration = Duration::from_secs(1);
/// How long a connection that has to end by its limit may last, on a busy machine.
pub(super) const ENDED: Duration = Duration::from_secs(15);
/// How long is waited for more, where the relay has nothing to hang up for.
pub(super) const QUIET: Duration = Duration::from_millis(700);
/// A proxied path that is as long as that of notifications, so that all lengths stay what
/// they are.
pub(super) const PROXIED: &str = "/EWS/8Jx2mVq0s7ab";
/// The pace of senders that mean well.
const PACE: Duration = Duration::from_millis(25);

/// A setting with short limits.
pub(super) fn started() -> Setting {
    let mut setting = Setting::new();
    let listener = setting.agent.listener().unwrap();
    for limit in ["handshake_timeout", "header_timeout", "body_timeout"] {
        listener.insert(limit.to_owned(), format!("{}s", LIMIT.as_secs()).into());
    }
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
fn whole(subscription: &str) -> String {
    let body = body(subscription);
    format!("{}Content-Length: {}\r\n\r\n{body}", head("HTTP/1.1"), body.len())
}

pub(super) fn body(subscription: &str) -> String {
    let sent = Notification::graph(GRAPH, &[subscription], 1, CLIENT_STATE);
    String::from_utf8(sent.body.to_vec()).unwrap()
}

/// A head that framing is still missing from.
fn head(version: &str) -> String {
    format!("POST {GRAPH} {version}\r\nHost: {RELAY_NAME}\r\nContent-Type: application/json\r\n")
}

fn chunked(body: &str) -> String {
    format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len())
}

/// Requests that are framed so that two readers may disagree where they end, each with
/// another request where one of them would look for it; and the one answer to each.
pub(super) fn smuggled() -> Vec<(String, String, u16)> {
    let (outer, hidden) = (body("outer"), whole("smuggled"));
    let head = head("HTTP/1.1");
    let long = outer.len() + hidden.len();
    let chunks = chunked(&outer);
    let mut all = vec![
        // Two framings at once: the chunks count, and the connection ends.
        (
            "CL.TE",
            format!(
                "Content-Length: {}\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}{hidden}",
                chunks.len() + hidden.len()
            ),
            202,
        ),
        (
            "TE.CL",
            format!(
                "Transfer-Encoding: chunked\r\nContent-Length: {}\r\n\r\n{chunks}{hidden}",
                outer.len()
            ),
            202,
        ),
        (
            "TE.CL in a chunk",
            format!("Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n{}", chunked(&hidden)),
            400,
        ),
        // Lengths.
        (
            "CL.CL",
            format!(
                "Content-Length: {}\r\nContent-Length: {long}\r\n\r\n{outer}{hidden}",
                outer.len()
            ),
            400,
        ),
        ("CL,CL", format!("Content-Length: {}, {long}\r\n\r\n{outer}{hidden}", outer.len()), 400),
        ("CL with a sign", format!("Content-Length: +{}\r\n\r\n{outer}{hidden}", outer.len()), 400),
        ("CL below 0", format!("Content-Length: -1\r\n\r\n{outer}{hidden}"), 400),
        (
            "CL in hexadecimal",
            format!("Content-Length: {:#x}\r\n\r\n{outer}{hidden}", outer.len()),
            400,
        ),
        (
            "CL with a blank inside",
            format!("Content-Length: {} 1\r\n\r\n{outer}{hidden}", outer.len()),
            400,
        ),
        (
            "CL beyond numbers",
            format!("Content-Length: 99999999999999999999999\r\n\r\n{outer}{hidden}"),
            400,
        ),
        (
            "CL before a colon and a blank",
            format!("Content-Length : {}\r\n\r\n{outer}{hidden}", outer.len()),
            400,
        ),
        ("CL folded", format!("Content-Length:\r\n {}\r\n\r\n{outer}{hidden}", outer.len()), 400),
        (
            "a folded field",
            format!("X-A: 1\r\n\tTransfer-Encoding: chunked\r\n\r\n{chunks}{hidden}"),
            400,
        ),
        // Chunks.
        (
            "a chunk size with a prefix",
            format!("Transfer-Encoding: chunked\r\n\r\n0x{chunks}{hidden}"),
            400,
        ),
        (
            "a chunk size below 0",
            format!("Transfer-Encoding: chunked\r\n\r\n-1\r\n{outer}\r\n0\r\n\r\n{hidden}"),
            400,
        ),
        (
            "a chunk size beyond numbers",
            format!(
                "Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff1\r\n{outer}\r\n0\r\n\r\n{hidden}"
            ),
            400,
        ),
        (
            "a chunk that is longer than its size",
            format!("Transfer-Encoding: chunked\r\n\r\n1\r\n{outer}\r\n0\r\n\r\n{hidden}"),
            400,
        ),
        (
            "no chunk size",
            format!("Transfer-Encoding: chunked\r\n\r\n\r\n{outer}\r\n0\r\n\r\n{hidden}"),
            400,
        ),
        (
            "LF after a chunk",
            format!(
                "Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{outer}\n0\r\n\r\n{hidden}",
                outer.len()
            ),
            400,
        ),
        (
            "LF after a chunk size",
            format!(
                "Transfer-Encoding: chunked\r\n\r\n{:x}\n{outer}\r\n0\r\n\r\n{hidden}",
                outer.len()
            ),
            400,
        ),
        (
            "LF in an extension of a chunk",
            format!(
                "Transfer-Encoding: chunked\r\n\r\n{:x};a\nb\r\n{outer}\r\n0\r\n\r\n{hidden}",
                outer.len()
            ),
            400,
        ),
        // Hosts and bytes.
        (
            "two hosts",
            format!(
                "Host: other.example.com\r\nContent-Length: {}\r\n\r\n{outer}{hidden}",
                outer.len()
            ),
            400,
        ),
        (
            "NUL in a field",
            format!("X-A: a\0b\r\nContent-Length: {}\r\n\r\n{outer}{hidden}", outer.len()),
            400,
        ),
        (
            "CR in a field",
            format!(
                "X-A: a\rTransfer-Encoding: chunked\r\nContent-Length: {}\r\n\r\n{outer}{hidden}",
                outer.len()
            ),
            400,
        ),
        ("no colon", format!("X-A\r\nContent-Length: {}\r\n\r\n{outer}{hidden}", outer.len()), 400),
    ];
    // TE.TE: one reader knows the coding, the other does not.
    let codings = [
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: x",
        "Transfer-Encoding: x\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding : chunked",
        " Transfer-Encoding: chunked",
        "Transfer-Encoding\r\n : chunked",
        "Transfer-Encoding: \u{b}chunked",
        "Transfer-Encoding: \"chunked\"",
        "X-A: 1\rTransfer-Encoding: chunked",
    ];
    let length = chunks.len();
    for coding in codings {
        let rest = format!("Content-Length: {length}\r\n{coding}\r\n\r\n{chunks}{hidden}");
        all.push((coding, rest, 400));
    }
    let with_head = |(name, rest, status): (&str, String, u16)| {
        (name.to_owned(), format!("{head}{rest}"), status)
    };
    all.into_iter().map(with_head).collect()
}

#[test]
fn no_request_is_smuggled_in_another() {
    let setting = started();
    let corpus = smuggled();
    while_others_send(&setting, || {
        let all: Vec<_> = corpus.iter().map(|(_, bytes, _)| vec![bytes.as_bytes()]).collect();
        let ended = exchanges(&setting.lab, Below::Http1, &all, Duration::ZERO, ENDED).unwrap();
        for ((name, _, status), ended) in corpus.iter().zip(ended) {
            let answer = String::from_utf8_lossy(&ended.answer);
            assert_eq!(ended.statuses(), [*status], "{name:?}: {answer}");
            assert!(ended.closed, "{name:?} leaves the connection open: {answer}");
        }
    });
    let accepted = corpus.iter().filter(|(_, _, status)| *status == 202).count();
    let bodies = |text: &str| {
        let received = setting.pega.received();
        received.iter().filter(|one| String::from_utf8_lossy(&one.body).contains(text)).count()
    };
    assert_eq!(bodies("smuggled"), 0);
    assert_eq!(bodies("\"outer\""), accepted);
    // What one sends openly, one after the other, is no smuggling.
    let both = [whole("open-1"), whole("open-2")].concat();
    assert_eq!(one(&setting, Below::Http1, both.as_bytes(), QUIET).statuses(), [202, 202]);
    let none = format!("{}Content-Length: 0\r\n\r\n{}", head("HTTP/1.1"), whole("open-3"));
    assert_eq!(one(&setting, Below::Http1, none.as_bytes(), QUIET).statuses(), [400, 202]);
}

#[test]
fn no_request_is_smuggled_through_a_proxy() {
    let mut setting = Setting::new();
    let server = Pega::start(&setting.lab, 8091).unwrap();
    add_proxy(&mut setting.agent, &[server.url()]);
    setting.agent.start().unwrap();
    let corpus: Vec<_> = smuggled()
        .into_iter()
        .map(|(name, bytes, status)| {
            assert_eq!(GRAPH.len(), PROXIED.len());
            // What is in the body of a proxied request is nobody's business but the server's.
            let is_whole = status == 202 || name == "TE.CL in a chunk";
            let status = if is_whole { 200 } else { status };
            (name, bytes.replace(GRAPH, PROXIED), status)
        })
        .collect();
    let all: Vec<_> = corpus.iter().map(|(_, bytes, _)| vec![bytes.as_bytes()]).collect();
    let ended = exchanges(&setting.lab, Below::Http1, &all, Duration::ZERO, ENDED).unwrap();
    for ((name, _, status), ended) in corpus.iter().zip(ended) {
        let answer = String::from_utf8_lossy(&ended.answer);
        assert_eq!(ended.statuses(), [*status], "{name:?}: {answer}");
        assert!(ended.closed, "{name:?} leaves the connection open: {answer}");
    }
    let accepted = corpus.iter().filter(|(_, _, status)| *status == 200).count();
    assert_eq!(server.received().len(), accepted, "each is one request to the server too");
}

#[test]
fn whoever_is_slow_is_cut_off_and_holds_nobody_up() {
    let setting = started();
    let whole = whole("slow");
    let (head, body) = whole.split_at(whole.find("\r\n\r\n").unwrap() + 4);
    while_others_send(&setting, || {
        // A byte in a quarter of a second, in thirty connections each.
        let slowly = |start: &str, rest: &str| {
            let rest: Vec<_> = rest.bytes().take(80).map(|byte| vec![byte]).collect();
            [vec![start.as_bytes().to_vec()], rest].concat()
        };
        let nothing: Vec<Vec<u8>> = Vec::new();
        for (name, below, pieces, status) in [
            ("a head", Below::Http1, slowly("P", head.strip_prefix('P').unwrap()), None),
            ("a body", Below::Http1, slowly(head, body), Some(408)),
            ("nothing in TLS", Below::Http1, nothing.clone(), None),
            ("nothing in HTTP/2", Below::Http2, nothing.clone(), None),
            ("no TLS", Below::Tcp, nothing, None),
            ("TLS", Below::Tcp, slowly("\u{16}\u{3}\u{1}\u{1}", &"\u{1}".repeat(80)), None),
        ] {
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
    assert!(result("header_timeout") >= 90.0);
    assert!(result("handshake_timeout") >= 60.0);
    assert_eq!(setting.metric("exogate_relay_handler_panics_total", &[]), 0.0);
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
    let setting = started();
    let post = head("HTTP/1.1");
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
            ("a target", post.replace(GRAPH, &long("/a", 6 << 10)) + "\r\n", 400),
            ("a target beyond heads", post.replace(GRAPH, &long("/a", 40 << 10)) + "\r\n", 431),
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
}

#[test]
fn what_is_no_tls_ends_at_once() {
    let setting = started();
    let junk: Vec<u8> = (0..4096_u32).map(|number| ((number * 167) >> 3) as u8).collect();
    let plain = whole("plain");
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
    assert!(setting.pega.received().iter().all(|one| !one.body.ends_with(b"plain")));
}
