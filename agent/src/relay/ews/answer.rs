//! What Exchange gets back: `OK`, or `Unsubscribe` to hear no more.
//!
//! Exchange reads at most 1,023 bytes and takes the first element of the name
//! `SubscriptionStatus`, in any namespace; capitals matter. The upstream's answer
//! is read here as Exchange would read it. One that Exchange would understand goes
//! on as it is, or cut down to its status where it is too long; any other is a
//! failure, which Exchange gets as 502 and repeats.

use http_body_util::{BodyExt, Full};
use hyper::{
    Response, StatusCode,
    body::Bytes,
    header::{CONTENT_TYPE, HeaderValue},
};

use super::xml::{BadXml, Node, walk};
use crate::relay::Body;

/// An answer of this length or more is a failure for Exchange.
const TOO_LONG: usize = 1024;

/// What a subscriber says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SubscriptionStatus {
    /// It took the notification.
    Ok,
    /// It wants no more of this subscription.
    Unsubscribe,
}

impl SubscriptionStatus {
    /// The name in the protocol.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Unsubscribe => "Unsubscribe",
        }
    }
}

/// The upstream's answer, as Exchange would understand it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It took the notification.
    Ok,
    /// It wants no more of this subscription.
    Unsubscribe,
    /// Exchange would call it a failure.
    Wrong(WrongAnswer),
}

/// What is wrong with an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WrongAnswer {
    /// Another status than 200.
    #[error("the upstream answered {0} instead of 200")]
    Http(StatusCode),
    /// Not XML, or XML with a document type.
    #[error("the upstream's answer is not XML that Exchange can read")]
    NotXml,
    /// No `SubscriptionStatus`.
    #[error("the upstream's answer has no SubscriptionStatus")]
    NoStatus,
    /// Neither `OK` nor `Unsubscribe`.
    #[error("the upstream's SubscriptionStatus is neither OK nor Unsubscribe")]
    Status,
}

impl WrongAnswer {
    /// The name in metrics and logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Http(_) => "http_status",
            Self::NotXml => "not_xml",
            Self::NoStatus => "no_status",
            Self::Status => "status",
        }
    }
}

impl From<BadXml> for WrongAnswer {
    fn from(_: BadXml) -> Self {
        Self::NotXml
    }
}

/// The shortest answer with this status.
#[must_use]
pub const fn result(status: SubscriptionStatus) -> Bytes {
    macro_rules! envelope {
        ($status:literal) => {
            concat!(
                r#"<?xml version="1.0" encoding="utf-8"?>"#,
                r#"<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body>"#,
                r#"<m:SendNotificationResult xmlns:m="#,
                r#""http://schemas.microsoft.com/exchange/services/2006/messages">"#,
                "<m:SubscriptionStatus>",
                $status,
                "</m:SubscriptionStatus></m:SendNotificationResult></s:Body></s:Envelope>"
            )
            .as_bytes()
        };
    }
    Bytes::from_static(match status {
        SubscriptionStatus::Ok => envelope!("OK"),
        SubscriptionStatus::Unsubscribe => envelope!("Unsubscribe"),
    })
}

/// A response with this body.
#[must_use]
pub fn response(body: Bytes) -> Response<Body> {
    let mut response = Response::new(Full::new(body).map_err(|never| match never {}).boxed());
    let content_type = HeaderValue::from_static("text/xml; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

/// Reads the upstream's answer as Exchange would.
#[must_use]
pub fn read_answer(status: StatusCode, body: &[u8]) -> Answer {
    match read(status, body) {
        Ok(SubscriptionStatus::Ok) => Answer::Ok,
        Ok(SubscriptionStatus::Unsubscribe) => Answer::Unsubscribe,
        Err(problem) => Answer::Wrong(problem),
    }
}

/// What Exchange gets when the upstream answered so: the same bytes, or if they
/// are too many, the same status.
///
/// # Errors
///
/// [`WrongAnswer`]: 502.
pub fn pass_through(
    status: StatusCode,
    body: Bytes,
) -> Result<(SubscriptionStatus, Bytes), WrongAnswer> {
    let status = read(status, &body)?;
    let body = if body.len() < TOO_LONG { body } else { result(status) };
    Ok((status, body))
}

fn read(status: StatusCode, body: &[u8]) -> Result<SubscriptionStatus, WrongAnswer> {
    if status != StatusCode::OK {
        return Err(WrongAnswer::Http(status));
    }
    let mut reading = Reading::default();
    walk(body, |node| {
        reading.visit(node);
        Ok::<_, WrongAnswer>(())
    })?;
    // .NET cuts blanks off before it looks a name up.
    match reading.text.as_deref().map(str::trim_ascii) {
        Some("OK") => Ok(SubscriptionStatus::Ok),
        Some("Unsubscribe") => Ok(SubscriptionStatus::Unsubscribe),
        Some(_) => Err(WrongAnswer::Status),
        None => Err(WrongAnswer::NoStatus),
    }
}

/// Reads the text of the first `SubscriptionStatus`.
#[derive(Default)]
struct Reading {
    text: Option<String>,
    /// How deep in it the reader is.
    depth: usize,
}

impl Reading {
    fn visit(&mut self, node: Node<'_>) {
        match node {
            Node::Start { name: "SubscriptionStatus", .. } if self.text.is_none() => {
                self.text = Some(String::new());
                self.depth = 1;
            }
            Node::Start { .. } if self.depth > 0 => self.depth = self.depth.saturating_add(1),
            Node::End => self.depth = self.depth.saturating_sub(1),
            Node::Text(text) if self.depth > 0 => {
                self.text.get_or_insert_default().push_str(text);
            }
            Node::Start { .. } | Node::Text(_) => {}
        }
    }
}

#[cfg(test)]
mod tests;
