//! Requests that two parties could read in two ways: a table of raw bytes.

use tokio::io::AsyncWriteExt;

use super::lab::*;

/// What has to come of it.
enum Then {
    /// This status, the end of the connection, and nobody was asked.
    Refused(u16),
    /// The end of the connection.
    Closed,
    /// One request, answered with this status; the connection ends.
    OneAndEnd(u16),
    /// One request, answered 200; the connection goes on.
    One,
}
use Then::{Closed, One, OneAndEnd, Refused};

/// A second request that is hidden in the first one.
const HIDDEN: &str = "GET /hidden HTTP/1.1\r\nHost: edge.example.com\r\n\r\n";

fn table() -> Vec<(&'static str, String, Then)> {
    let host = "Host: edge.example.com\r\n";
    let chunked = "Transfer-Encoding: chunked\r\n";
    let head = |fields: &str| format!("POST /a HTTP/1.1\r\n{host}{fields}\r\n");
    let with = |fields: &str, body: &str| format!("{}{body}", head(fields));
    let hidden = |fields: &str, body: &str| format!("{}{body}{HIDDEN}", head(fields));
    vec![
        // Sound ones, so that the table proves something.
        ("content-length", with("Content-Length: 2\r\n", "hi"), One),
        ("chunked", with(chunked, "2\r\nhi\r\n0\r\n\r\n"), One),
        ("chunked in capitals", with("Transfer-Encoding: CHUNKED\r\n", "0\r\n\r\n"), One),
        ("chunk extension", with(chunked, "2;a=b\r\nhi\r\n0\r\n\r\n"), One),
        ("trailer", with(chunked, "2\r\nhi\r\n0\r\nA: b\r\n\r\n"), One),
        ("absolute form", format!("GET https://edge.example.com/a HTTP/1.1\r\n{host}\r\n"), One),
        (
            "absolute form, port",
            format!("GET https://Edge.example.com:443/a HTTP/1.1\r\n{host}\r\n"),
            One,
        ),
        ("equal lengths twice", with("Content-Length: 2\r\nContent-Length: 2\r\n", "hi"), One),
        ("HTTP/1.0", "GET /a HTTP/1.0\r\n\r\n".to_owned(), OneAndEnd(200)),
        ("bare LF", "GET /a HTTP/1.1\nHost: edge.example.com\n\n".to_owned(), One),
        // About where the request ends.
        (
            "length, then chunked: the chunks count, and nothing after them",
            hidden(&format!("Content-Length: 6\r\n{chunked}"), "0\r\n\r\n"),
            OneAndEnd(200),
        ),
        (
            "chunked, then length: the chunks count, and nothing after them",
            hidden(&format!("{chunked}Content-Length: 6\r\n"), "0\r\n\r\n"),
            OneAndEnd(200),
        ),
        (
            "chunked with a length that is none",
            hidden(&format!("{chunked}Content-Length: x\r\n"), "0\r\n\r\n"),
            OneAndEnd(200),
        ),
        ("two lengths", hidden("Content-Length: 2\r\nContent-Length: 3\r\n", "hi"), Refused(400)),
        ("a list of lengths", hidden("Content-Length: 2, 2\r\n", "hi"), Refused(400)),
        ("length with a sign", hidden("Content-Length: +2\r\n", "hi"), Refused(400)),
        ("negative length", hidden("Content-Length: -2\r\n", "hi"), Refused(400)),
        ("length in hexadecimal", hidden("Content-Length: 0x2\r\n", "hi"), Refused(400)),
        (
            "length beyond 64 bits",
            hidden("Content-Length: 18446744073709551618\r\n", ""),
            Refused(400),
        ),
        ("empty length", hidden("Content-Length:\r\n", ""), Refused(400)),
        ("other coding", hidden("Transfer-Encoding: gzip\r\n", ""), Refused(400)),
        ("identity", hidden("Transfer-Encoding: identity\r\n", ""), Refused(400)),
        (
            "coding before chunked",
            hidden("Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n"),
            Refused(400),
        ),
        (
            "chunked twice",
            hidden("Transfer-Encoding: chunked, chunked\r\n", "0\r\n\r\n"),
            Refused(400),
        ),
        (
            "chunked in two fields",
            hidden(&format!("{chunked}{chunked}"), "0\r\n\r\n"),
            Refused(400),
        ),
        (
            "chunked, then another",
            hidden(&format!("{chunked}Transfer-Encoding: x\r\n"), ""),
            Refused(400),
        ),
        ("quoted chunked", hidden("Transfer-Encoding: \"chunked\"\r\n", ""), Refused(400)),
        ("xchunked", hidden("Transfer-Encoding: xchunked\r\n", ""), Refused(400)),
        ("vertical tab", hidden("Transfer-Encoding: \x0bchunked\r\n", ""), Refused(400)),
        ("space before the colon", hidden("Content-Length : 2\r\n", "hi"), Refused(400)),
        ("tab before the colon", hidden("Transfer-Encoding\t: chunked\r\n", ""), Refused(400)),
        ("space before the name", format!("POST /a HTTP/1.1\r\n {host}\r\n{HIDDEN}"), Refused(400)),
        ("folded line", hidden("X: a\r\n b\r\n", ""), Refused(400)),
        ("folded coding", hidden("Transfer-Encoding:\r\n chunked\r\n", ""), Refused(400)),
        ("bare CR", hidden("X: a\rTransfer-Encoding: chunked\r\n", ""), Refused(400)),
        ("NUL", hidden("X: a\0b\r\n", ""), Refused(400)),
        ("field without a colon", hidden("X\r\n", ""), Refused(400)),
        ("empty name", hidden(": x\r\n", ""), Refused(400)),
        (
            "coding in HTTP/1.0",
            format!("POST /a HTTP/1.0\r\n{host}{chunked}\r\n0\r\n\r\n{HIDDEN}"),
            Refused(400),
        ),
        ("no digits in a chunk size", hidden(chunked, "\r\nhi\r\n0\r\n\r\n"), OneAndEnd(400)),
        ("chunk size with a sign", hidden(chunked, "+2\r\nhi\r\n0\r\n\r\n"), OneAndEnd(400)),
        ("chunk size 0x2", hidden(chunked, "0x2\r\nhi\r\n0\r\n\r\n"), OneAndEnd(400)),
        (
            "chunk size beyond 64 bits",
            hidden(chunked, "10000000000000002\r\nhi\r\n0\r\n\r\n"),
            OneAndEnd(400),
        ),
        ("chunk size ended by LF", hidden(chunked, "2\nhi\r\n0\r\n\r\n"), OneAndEnd(400)),
        ("LF in a chunk extension", hidden(chunked, "2;a\nhi\r\n0\r\n\r\n"), OneAndEnd(400)),
        ("chunk longer than its size", hidden(chunked, "2\r\nhi!\r\n0\r\n\r\n"), OneAndEnd(400)),
        // About whom it is for.
        ("no host", format!("GET /a HTTP/1.1\r\n\r\n{HIDDEN}"), Refused(400)),
        ("empty host", format!("GET /a HTTP/1.1\r\nHost:\r\n\r\n{HIDDEN}"), Refused(400)),
        ("two hosts", hidden("Host: edge.example.com\r\n", ""), Refused(400)),
        (
            "host with a path",
            format!("GET /a HTTP/1.1\r\nHost: edge/a\r\n\r\n{HIDDEN}"),
            Refused(400),
        ),
        (
            "host with a user",
            format!("GET /a HTTP/1.1\r\nHost: a@edge\r\n\r\n{HIDDEN}"),
            Refused(400),
        ),
        (
            "absolute form, other host",
            format!("GET https://evil/a HTTP/1.1\r\n{host}\r\n{HIDDEN}"),
            Refused(400),
        ),
        (
            "absolute form, other port",
            format!("GET https://edge.example.com:8443/a HTTP/1.1\r\n{host}\r\n{HIDDEN}"),
            Refused(400),
        ),
        (
            "absolute form without host",
            format!("GET https://edge.example.com/a HTTP/1.1\r\n\r\n{HIDDEN}"),
            Refused(400),
        ),
        (
            "absolute form, other scheme",
            format!("GET ftp://edge.example.com/a HTTP/1.1\r\n{host}\r\n"),
            Refused(400),
        ),
        (
            "CONNECT",
            format!("CONNECT edge.example.com:443 HTTP/1.1\r\n{host}\r\n{HIDDEN}"),
            Refused(400),
        ),
        ("asterisk", format!("OPTIONS * HTTP/1.1\r\n{host}\r\n{HIDDEN}"), Refused(400)),
        ("relative target", format!("GET a HTTP/1.1\r\n{host}\r\n{HIDDEN}"), Refused(400)),
        ("no target", format!("GET HTTP/1.1\r\n{host}\r\n{HIDDEN}"), Refused(400)),
        // Other protocols.
        ("HTTP/0.9", format!("GET /a\r\n{HIDDEN}"), Refused(400)),
        ("HTTP/1.2", format!("GET /a HTTP/1.2\r\n{host}\r\n{HIDDEN}"), Refused(400)),
        ("HTTP/2 without ALPN", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), Closed),
        ("lower case version", format!("GET /a http/1.1\r\n{host}\r\n{HIDDEN}"), Refused(400)),
        ("two spaces", format!("GET  /a HTTP/1.1\r\n{host}\r\n{HIDDEN}"), Refused(400)),
        (
            "a word after the version",
            format!("GET /a HTTP/1.1 x\r\n{host}\r\n{HIDDEN}"),
            Refused(400),
        ),
        ("junk", "\x16\x03\x01\x02\x00\x01\r\n\r\n".to_owned(), Refused(400)),
    ]
}

#[tokio::test]
async fn every_ambiguous_request_is_refused_and_hides_no_other() {
    let mut lab = Lab::new();
    let _running = lab.start();
    let mut faults = Vec::new();
    for (name, bytes, then) in table() {
        lab.server.asked.lock().unwrap().clear();
        let mut client = lab.connect().await;
        client.send(&bytes).await;
        let answers = if matches!(then, One) {
            let first = client.answer().await;
            // The connection goes on, in step.
            let second = client.ask("/next").await;
            if !second.contains("POST /next hello") {
                faults.push(format!("{name}: then {second:?}"));
            }
            lab.server.asked.lock().unwrap().pop();
            first
        } else {
            client.rest().await
        };
        let asked = lab.asked();
        let (status, count) = match then {
            One => (200, 1),
            OneAndEnd(200) => (200, 1),
            Closed => (0, 0),
            OneAndEnd(status) | Refused(status) => (status, 0),
        };
        let is_answered = answers.starts_with(&format!("HTTP/1.1 {status} "))
            || answers.starts_with(&format!("HTTP/1.0 {status} "));
        let is_right = match then {
            Closed => answers.is_empty(),
            _ => is_answered && answers.matches("HTTP/1.").count() == 1,
        };
        if !is_right || asked.len() != count {
            faults.push(format!("{name}: asked {asked:?}, answered {answers:?}"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[tokio::test]
async fn refusals_are_counted_by_their_reason() {
    let mut lab = Lab::new();
    let _running = lab.start();
    for (reason, request) in [
        ("malformed", "GET /\0 HTTP/1.1\r\n\r\n"),
        ("target", "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("host", "GET / HTTP/1.1\r\n\r\n"),
        ("host_mismatch", "GET https://b/ HTTP/1.1\r\nHost: a\r\n\r\n"),
        (
            "transfer_encoding",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: x, chunked\r\n\r\n",
        ),
    ] {
        let answer = lab.exchange(request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{reason}: {answer}");
        let label = format!("reason=\"{reason}\"");
        lab.until("exogate_relay_malformed_requests_total", &label, 1.0).await;
    }
}

#[tokio::test]
async fn a_client_whose_body_is_not_read_is_not_reset() {
    let mut lab = Lab::new();
    let _running = lab.start();
    let request = post("/unread", &"x".repeat(8 << 20));
    let mut client = lab.connect().await;
    // A part of it, that waits in the kernel when we close.
    let (part, rest) = request.split_at(1 << 20);
    client.send(part).await;
    let answer = client.rest().await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    // It may go on sending. A reset would take the answer away from clients of
    // some systems, before they have seen it.
    wait("sending", client.stream.write_all(rest.as_bytes())).await.unwrap();
    drop(client);
    lab.ended("served", 1.0).await;
}
