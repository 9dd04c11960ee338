//! The same by frames of HTTP/2 that no library would send.

use exogate_tests::{agent::relay::GRAPH, notification::RELAY_NAME, raw::Below};

use super::{
    Setting,
    hostile::{ENDED, one, started, while_others_send},
};

/// Frames of HTTP/2 (RFC 9113), and of heads only what HPACK can say without state.
pub(super) mod h2 {
    use exogate_tests::{agent::relay::GRAPH, notification::RELAY_NAME};

    pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    pub(crate) const DATA: u8 = 0;
    pub(crate) const HEADERS: u8 = 1;
    pub(crate) const RST_STREAM: u8 = 3;
    pub(crate) const SETTINGS: u8 = 4;
    pub(crate) const PING: u8 = 6;
    pub(crate) const GOAWAY: u8 = 7;
    pub(crate) const CONTINUATION: u8 = 9;
    pub(crate) const END_STREAM: u8 = 1;
    pub(crate) const END_HEADERS: u8 = 4;

    pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
        [&head, payload].concat()
    }

    pub(crate) fn fields(fields: &[(&str, &str)]) -> Vec<u8> {
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

    /// A frame of an answer.
    pub(crate) struct Frame<'a> {
        pub(crate) kind: u8,
        pub(crate) stream: u32,
        pub(crate) payload: &'a [u8],
    }

    /// The frames in an answer.
    pub(crate) fn frames(mut answer: &[u8]) -> Vec<Frame<'_>> {
        let mut frames = Vec::new();
        while let [a, b, c, kind, _, d, e, f, g, rest @ ..] = answer {
            let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
            let Some((payload, rest)) = rest.split_at_checked(length) else { break };
            frames.push(Frame {
                kind: *kind,
                stream: u32::from_be_bytes([*d, *e, *f, *g]),
                payload,
            });
            answer = rest;
        }
        frames
    }

    /// The kinds of the frames in an answer.
    pub(crate) fn kinds(answer: &[u8]) -> Vec<u8> {
        frames(answer).iter().map(|frame| frame.kind).collect()
    }

    /// The status in the head of an answer, which is its first field (RFC 7541).
    pub(crate) fn status(block: &[u8]) -> u16 {
        // How large the table may be comes before it.
        let sizes = block.iter().take_while(|byte| **byte & 0xe0 == 0x20).count();
        let block = &block[sizes..];
        match *block {
            [index @ 0x88..=0x8e, ..] => {
                [200, 204, 206, 304, 400, 404, 500][usize::from(index - 0x88)]
            }
            [_, length, ref rest @ ..] => {
                let text = &rest[..usize::from(length & 0x7f)];
                let digits = if length & 0x80 == 0 { text.to_vec() } else { digits(text) };
                String::from_utf8(digits).unwrap().parse().unwrap()
            }
            _ => panic!("{block:?}"),
        }
    }

    /// Digits in Huffman's code: five bits for 0 to 2, six for the others.
    fn digits(code: &[u8]) -> Vec<u8> {
        let bits: Vec<u8> =
            code.iter().flat_map(|byte| (0..8).rev().map(move |n| byte >> n & 1)).collect();
        let value = |bits: &[u8]| bits.iter().fold(0, |value, bit| value << 1 | bit);
        let (mut rest, mut digits) = (&bits[..], Vec::new());
        while rest.len() >= 5 && rest.contains(&0) {
            let (length, digit) = match value(&rest[..5]) {
                short @ 0..=2 => (5, short),
                _ => (6, value(&rest[..6]) - 0b011_001 + 3),
            };
            digits.push(b'0' + digit);
            rest = &rest[length..];
        }
        digits
    }

    /// The head of a notification.
    pub(crate) const fn usual() -> [(&'static str, &'static str); 5] {
        [
            (":method", "POST"),
            (":scheme", "https"),
            (":authority", RELAY_NAME),
            (":path", GRAPH),
            ("content-type", "application/json"),
        ]
    }

    /// A connection that begins as it should, and what follows.
    pub(crate) fn connection(frames: &[Vec<u8>]) -> Vec<u8> {
        [PREFACE, &frame(SETTINGS, 0, 0, &[]), &frames.concat()].concat()
    }
}

/// The head of a notification, with more fields.
pub(super) fn fields_with(more: &[(&str, &str)]) -> Vec<u8> {
    h2::fields(&[&h2::usual(), more].concat())
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
