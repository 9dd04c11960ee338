//! The same by frames of HTTP/2 that no library would send.

use exogate_tests::{
    agent::relay::GRAPH,
    lab::Peer,
    notification::{Notification, RELAY_NAME},
    raw::Below,
};

use super::{
    SOON, Setting,
    hostile::{ENDED, QUIET, body, one, started, while_others_send},
};

/// Frames of HTTP/2 (RFC 9113), and of heads only what HPACK can say without state.
mod h2 {
    pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    pub(super) const DATA: u8 = 0;
    pub(super) const HEADERS: u8 = 1;
    pub(super) const RST_STREAM: u8 = 3;
    pub(super) const SETTINGS: u8 = 4;
    pub(super) const PING: u8 = 6;
    pub(super) const GOAWAY: u8 = 7;
    pub(super) const CONTINUATION: u8 = 9;
    pub(super) const END_STREAM: u8 = 1;
    pub(super) const END_HEADERS: u8 = 4;

    pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
        [&head, payload].concat()
    }

    pub(super) fn fields(fields: &[(&str, &str)]) -> Vec<u8> {
        let mut block = Vec::new();
        for (name, value) in fields {
            block.push(0);
            for text in [name, value] {
                assert!(text.len() < 127, "one byte of length");
                block.push(text.len() as u8);
                block.extend_from_slice(text.as_bytes());
            }
        }
        block
    }

    /// The kinds of the frames in an answer.
    pub(super) fn kinds(mut answer: &[u8]) -> Vec<u8> {
        let mut kinds = Vec::new();
        while let [a, b, c, kind, ..] = *answer {
            kinds.push(kind);
            let length = 9 + u32::from_be_bytes([0, a, b, c]) as usize;
            answer = answer.get(length..).unwrap_or_default();
        }
        kinds
    }

    /// A connection that begins as it should, and what follows.
    pub(super) fn connection(frames: &[Vec<u8>]) -> Vec<u8> {
        [PREFACE, &frame(SETTINGS, 0, 0, &[]), &frames.concat()].concat()
    }
}

/// The head of a notification in HTTP/2, with more fields.
fn fields_with(more: &[(&str, &str)]) -> Vec<u8> {
    let usual = [
        (":method", "POST"),
        (":scheme", "https"),
        (":authority", RELAY_NAME),
        (":path", GRAPH),
        ("content-type", "application/json"),
    ];
    h2::fields(&[&usual, more].concat())
}

#[test]
fn floods_of_http2_end_the_connection_and_nothing_else() {
    let setting = started();
    let stream = |number: u32| 2 * number + 1;
    let post = fields_with(&[]);
    let reset = |number| {
        let headers = h2::frame(h2::HEADERS, h2::END_HEADERS, stream(number), &post);
        [headers, h2::frame(h2::RST_STREAM, 0, stream(number), &8_u32.to_be_bytes())].concat()
    };
    let more = h2::fields(&[("x-a", &"a".repeat(120))]).repeat(100);
    let continuation = |end| h2::frame(h2::CONTINUATION, end, 1, &more);
    let rapid: Vec<_> = (0..20_000).map(reset).collect();
    let mut endless = vec![h2::frame(h2::HEADERS, h2::END_STREAM, 1, &post)];
    endless.extend(vec![continuation(0); 2000]);
    let mut empty = vec![h2::frame(h2::HEADERS, h2::END_STREAM, 1, &post)];
    empty.extend(vec![h2::frame(h2::CONTINUATION, 0, 1, &[]); 100_000]);
    while_others_send(&setting, || {
        for (name, frames) in [
            ("rapid reset", rapid),
            ("continuations", endless),
            ("empty continuations", empty),
            ("pings", vec![h2::frame(h2::PING, 0, 0, &[0; 8]); 200_000]),
            ("settings", vec![h2::frame(h2::SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100]); 200_000]),
            ("data on stream 0", vec![h2::frame(h2::DATA, 0, 0, &[0; 8])]),
            ("a frame that is too large", vec![h2::frame(h2::HEADERS, 4, 1, &[0; 20_000])]),
        ] {
            let bytes = h2::connection(&frames);
            let ended = one(&setting, Below::Http2, &bytes, ENDED);
            assert!(ended.closed, "{name}: {:?}", h2::kinds(&ended.answer).last());
        }
    });
    let ended = |result| setting.metric("exogate_relay_connections_total", &[("result", result)]);
    assert!(ended("protocol_error") >= 3.0);
}

#[test]
fn an_answer_that_nobody_takes_does_not_hold_a_connection_for_ever() {
    let mut setting = Setting::new();
    setting.agent.set("route.graph.handshake", "local").unwrap();
    setting.agent.listener().unwrap().insert("body_timeout".to_owned(), "1s".into());
    setting.agent.start().unwrap();
    let path = format!("{GRAPH}?validationToken=token");
    let post = h2::fields(&[
        (":method", "POST"),
        (":scheme", "https"),
        (":authority", RELAY_NAME),
        (":path", &path),
    ]);
    // No room for bytes of an answer.
    let window = h2::frame(h2::SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]);
    let flags = h2::END_HEADERS | h2::END_STREAM;
    let bytes = h2::connection(&[window, h2::frame(h2::HEADERS, flags, 1, &post)]);
    let ended = one(&setting, Below::Http2, &bytes, ENDED);
    assert!(h2::kinds(&ended.answer).contains(&h2::HEADERS), "the answer has begun");
    assert!(ended.closed, "it lasted {:?}", ended.lasted);
}

#[test]
fn nothing_is_smuggled_through_http2() {
    let setting = started();
    let body = body("outer");
    let length = (body.len() + 1).to_string();
    for (name, more) in [
        ("a transfer coding", [("transfer-encoding", "chunked")]),
        ("a length that is not the body's", [("content-length", "0")]),
        ("a longer length", [("content-length", length.as_str())]),
        ("a line break in a value", [("x-a", "a\r\ntransfer-encoding: chunked")]),
        ("a line break in a name", [("x-a\r\nhost: other", "a")]),
        ("a colon in a name", [("x-a: b", "a")]),
        ("a capital in a name", [("X-A", "a")]),
        ("a second path", [(":path", "/other")]),
        ("another host", [("host", "other.example.com")]),
        ("a connection field", [("connection", "close")]),
    ] {
        let bytes = h2::connection(&[
            h2::frame(h2::HEADERS, h2::END_HEADERS, 1, &fields_with(&more)),
            h2::frame(h2::DATA, h2::END_STREAM, 1, body.as_bytes()),
        ]);
        let ended = one(&setting, Below::Http2, &bytes, QUIET);
        let kinds = h2::kinds(&ended.answer);
        let is_refused = [h2::RST_STREAM, h2::GOAWAY].iter().any(|kind| kinds.contains(kind));
        let answers = kinds.contains(&h2::HEADERS);
        assert!(is_refused || answers, "{name}: {kinds:?}");
    }
    // The same without a fault is accepted; and only that arrives.
    let sent = Notification::graph(GRAPH, &["sound"], 1, "state");
    assert_eq!(sent.answer(&setting.lab, Peer::Graph).unwrap().status, 202);
    let bytes = h2::connection(&[
        h2::frame(h2::HEADERS, h2::END_HEADERS, 1, &fields_with(&[])),
        h2::frame(h2::DATA, h2::END_STREAM, 1, body.as_bytes()),
    ]);
    one(&setting, Below::Http2, &bytes, QUIET);
    let received = setting.pega.wait_for(2, SOON).unwrap();
    assert_eq!(received.len(), 2, "{received:#?}");
    assert!(received.iter().any(|one| one.body == body));
}
