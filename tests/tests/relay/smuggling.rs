//! Requests that two readers may understand in two ways: each is one request or none.

use std::time::Duration;

use exogate_tests::raw::{Below, exchanges};

use super::hostile::{ENDED, Place, QUIET, body, head, one, started, while_others_send, whole};

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
    let (setting, server) = Place::Proxied.started();
    let server = server.unwrap();
    let corpus: Vec<_> = smuggled()
        .into_iter()
        .map(|(name, bytes, status)| {
            // What is in the body of a proxied request is nobody's business but the server's.
            let is_whole = status == 202 || name == "TE.CL in a chunk";
            let status = if is_whole { 200 } else { status };
            (name, Place::Proxied.of(&bytes), status)
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

fn chunked(body: &str) -> String {
    format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len())
}
