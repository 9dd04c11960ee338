//! Notifications as Microsoft sends them, from the senders of the lab.

use std::{fs, net::SocketAddr, time::Duration};

use anyhow::{Context, Result};
use hyper::{
    body::Bytes,
    header::{ACCEPT, CONTENT_TYPE, HeaderName, HeaderValue},
};
use rustls::pki_types::ServerName;
use serde_json::json;

use crate::{
    http::{Get, Post, Response},
    lab::{Family, Lab, Peer, edge},
    peer::{HTTPS, PATIENCE, Reached},
    service::captures,
};

/// The name in the certificate of the relay.
pub const RELAY_NAME: &str = "notify.example.com";
/// The longest that an answer may take: Exchange waits for 60 s.
const ANSWER: Duration = Duration::from_secs(65);

/// A request of a sender.
#[derive(Clone, Debug)]
pub struct Notification {
    /// Path and query.
    pub target: String,
    /// Header fields.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The body.
    pub body: Bytes,
}

impl Notification {
    /// A change notification of Graph, of one item for each subscription.
    #[must_use]
    pub fn graph(target: &str, subscriptions: &[&str], number: u64, client_state: &str) -> Self {
        let items: Vec<_> = subscriptions
            .iter()
            .map(|subscription| {
                json!({
                    "subscriptionId": subscription,
                    "subscriptionExpirationDateTime": "2026-11-28T11:00:00.0000000Z",
                    "changeType": "updated",
                    "resource": format!("Users/1/Events/{number}"),
                    "clientState": client_state,
                    "tenantId": "84bd8158-6d4d-4958-8b9f-9d6445542f95",
                    "resourceData": { "@odata.type": "#Microsoft.Graph.Event", "id": number },
                })
            })
            .collect();
        Self {
            target: target.to_owned(),
            headers: vec![(CONTENT_TYPE, HeaderValue::from_static("application/json"))],
            body: Bytes::from(json!({ "value": items }).to_string()),
        }
    }

    /// The request by which Graph validates an address.
    #[must_use]
    pub fn validation(target: &str, token: &str) -> Self {
        Self {
            target: format!("{target}?validationToken={token}"),
            headers: vec![(CONTENT_TYPE, HeaderValue::from_static("text/plain"))],
            body: Bytes::new(),
        }
    }

    /// The captured push notification of Exchange Online, with another subscription and
    /// watermark.
    ///
    /// # Errors
    ///
    /// If the capture is not there.
    pub fn ews(target: &str, subscription: &str, number: u64) -> Result<Self> {
        let capture = captures().join("samples/ews-sendnotification-exchangeonline.http");
        let capture = fs::read_to_string(capture)?.replace("\r\n", "\n");
        let (_, body) = capture.split_once("\n\n").context("a capture has a head and a body")?;
        let body = body
            .replace("U1VCU0NSSVBUSU9OLUlELVBMQUNFSE9MREVS", subscription)
            .replace("V0FURVJNQVJLLTA=", &format!("WATERMARK{number}="));
        let action =
            "http://schemas.microsoft.com/exchange/services/2006/messages/SendNotification";
        Ok(Self {
            target: target.to_owned(),
            headers: vec![
                (CONTENT_TYPE, HeaderValue::from_static("text/xml; charset=utf-8")),
                (ACCEPT, HeaderValue::from_static("text/xml")),
                (HeaderName::from_static("soapaction"), HeaderValue::from_static(action)),
            ],
            body: Bytes::from(body.trim_end().to_owned()),
        })
    }

    /// The same with one more header field.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: &'static str) -> Self {
        self.headers.push((HeaderName::from_static(name), HeaderValue::from_static(value)));
        self
    }

    /// The bytes of a request of HTTP/1.1 that is the last one of its connection.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = format!("POST {} HTTP/1.1\r\nHost: {RELAY_NAME}\r\n", self.target);
        for (name, value) in &self.headers {
            bytes.push_str(&format!("{name}: {}\r\n", value.to_str().unwrap_or_default()));
        }
        bytes
            .push_str(&format!("Connection: close\r\nContent-Length: {}\r\n\r\n", self.body.len()));
        [bytes.as_bytes(), &self.body].concat()
    }

    /// Sends it to the relay on the edge host's guarded port, on a connection of its own.
    ///
    /// # Errors
    ///
    /// If the connection was made, but TLS or HTTP failed on it.
    pub fn send(&self, lab: &Lab, peer: Peer, family: Family) -> Result<Reached<Response>> {
        let post = Post {
            to: Get {
                source: Some(peer.address(family)),
                target: SocketAddr::new(edge(family), HTTPS),
                tls: Some((lab.authority().client()?, ServerName::try_from(RELAY_NAME)?)),
                path: self.target.clone(),
                patience: PATIENCE,
            },
            headers: self.headers.clone(),
            body: self.body.clone(),
        };
        lab.peer(peer).run_async(ANSWER, || post.send())
    }

    /// Sends it as [`Notification::send`] does, and expects an answer.
    ///
    /// # Errors
    ///
    /// If there is none.
    pub fn answer(&self, lab: &Lab, peer: Peer) -> Result<Response> {
        self.send(lab, peer, Family::V4)?.answer().context("the relay does not answer")
    }
}
