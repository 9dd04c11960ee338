//! As much of HTTP/1.1 as two ends need that know what they are going to be sent.

use anyhow::{Context, Result, ensure};
use exogate_tests::notification::{Notification, RELAY_NAME};
use hyper::header::{AUTHORIZATION, HeaderValue};

/// Path of the notifications that are passed through.
pub const EWS_PATH: &str = "/ews/Kq81zB4tYc";
/// Path of the requests that are proxied, with credentials of their connection.
pub const EXCHANGE_PATH: &str = "/EWS/Exchange.asmx";
/// Path of large bodies.
pub const LARGE_PATH: &str = "/EWS/large";
/// Path of the notifications that are stored.
pub const GRAPH_PATH: &str = "/graph/8Jx2mVq0s7";
/// The least bytes of a notification.
const BODY: usize = 2048;
/// Numbers of this many digits make every notification a new one.
const DIGITS: usize = 12;
const FIRST: u64 = 100_000_000_000;

/// A request, ready to be sent, and where in it its number stands.
#[derive(Clone)]
pub struct Request {
    bytes: Vec<u8>,
    numbers: Vec<usize>,
}

impl Request {
    /// A push notification of Exchange, of a subscription of its own; the last one of
    /// its connection perhaps.
    pub fn ews(sender: usize, is_last: bool) -> Result<Self> {
        let id = format!("U1VCU0NSSVBUSU9O{sender:020}");
        Self::soap(&Notification::ews(EWS_PATH, &id, FIRST)?, is_last)
    }

    /// A request of a client of Exchange, on a connection that it is authenticated on.
    pub fn exchange(sender: usize) -> Result<Self> {
        let id = format!("U1VCU0NSSVBUSU9O{sender:020}");
        let mut request = Notification::ews(EXCHANGE_PATH, &id, FIRST)?;
        let credentials = HeaderValue::from_static("NTLM TlRMTVNTUAADAAAAGAAYAEAAAAA=");
        request.headers.push((AUTHORIZATION, credentials));
        Self::soap(&request, false)
    }

    fn soap(notification: &Notification, is_last: bool) -> Result<Self> {
        let text = std::str::from_utf8(&notification.body)?;
        // The capture has two events. More of the last kind make it as large as is wanted.
        let begin = text.rfind("<t:ModifiedEvent>").context("the capture has an event")?;
        let end = text.rfind("</m:Notification>").context("the capture has a notification")?;
        let events = (BODY - begin).div_ceil(end - begin);
        let body = [&text[..begin], &text[begin..end].repeat(events), &text[end..]].concat();
        Self::new(notification, body.as_bytes(), is_last)
    }

    /// A notification of Graph, of a subscription of its own.
    pub fn graph(sender: usize) -> Result<Self> {
        let id = format!("7f105c7d-2dc5-4530-97cd-{sender:012}");
        let of = |items| {
            let ids: Vec<&str> = std::iter::repeat_n(id.as_str(), items).collect();
            Notification::graph(GRAPH_PATH, &ids, FIRST, "the state of the client")
        };
        let items =
            (1..64).find(|items| of(*items).body.len() >= BODY).context("items are small")?;
        let notification = of(items);
        Self::new(&notification, &notification.body, false)
    }

    fn new(notification: &Notification, body: &[u8], is_last: bool) -> Result<Self> {
        let mut head = format!(
            "POST {} HTTP/1.1\r\nHost: {RELAY_NAME}\r\nContent-Length: {}\r\n",
            notification.target,
            body.len()
        );
        for (name, value) in &notification.headers {
            head.push_str(&format!("{name}: {}\r\n", value.to_str()?));
        }
        head.push_str(if is_last { "Connection: close\r\n\r\n" } else { "\r\n" });
        let bytes = [head.as_bytes(), body].concat();
        let first = FIRST.to_string();
        let numbers = (0..bytes.len() - DIGITS)
            .filter(|begin| &bytes[*begin..begin + DIGITS] == first.as_bytes())
            .collect();
        Ok(Self { bytes, numbers })
    }

    /// The bytes, with another number.
    pub fn numbered(&mut self, number: u64) -> &[u8] {
        let digits = (FIRST + number).to_string();
        for begin in &self.numbers {
            self.bytes[*begin..begin + DIGITS].copy_from_slice(digits.as_bytes());
        }
        &self.bytes
    }

    /// How many bytes it has, with its head.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }
}

/// How long the message is of which this is the beginning, if that can be told yet.
pub fn length(message: &[u8]) -> Result<Option<usize>> {
    let Some(head) = message.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Ok(None);
    };
    let body = head + 4;
    for line in message[..head].split(|byte| *byte == b'\n').skip(1) {
        if let Some(length) = value(line, b"content-length:") {
            return Ok(Some(body + std::str::from_utf8(length)?.trim().parse::<usize>()?));
        }
        if value(line, b"transfer-encoding:").is_some() {
            let is_whole = message[body..].ends_with(b"0\r\n\r\n");
            return Ok(is_whole.then_some(message.len()));
        }
    }
    Ok(Some(body))
}

/// The status of a response, which is whole.
pub fn status(response: &[u8]) -> Result<u16> {
    ensure!(response.starts_with(b"HTTP/1.1 "), "no HTTP/1.1: {response:?}");
    Ok(std::str::from_utf8(&response[9..12])?.parse()?)
}

fn value<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (head, value) = line.split_at_checked(name.len())?;
    head.eq_ignore_ascii_case(name).then_some(value)
}
