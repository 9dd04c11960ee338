//! EWS push notifications: what a request has to be, and its answer.
//!
//! Exchange posts a SOAP message, `SendNotification`, to an address that its
//! subscriber named, and wants `OK` or `Unsubscribe` back ([`answer`]). It does not
//! identify itself, so the relay takes only what looks exactly like it
//! ([`Checks::guard`]), knows the secrets that the subscriber gave it, and speaks
//! of a subscription that is expected ([`Checks::judge`]).
//!
//! # When things fail
//!
//! Exchange repeats a notification that was not answered well after 30 s, then
//! after twice that, and so on, until its `StatusFrequency` is over; then it
//! deletes the subscription and tells nobody. So whatever may get better is
//! answered 5xx, and only what is not Exchange's at all 404.

pub mod answer;
pub mod notification;
mod xml;

use std::collections::HashSet;

use aws_lc_rs::digest::{SHA256, digest};
use hyper::{Method, http::request::Parts};

pub use self::{
    answer::{Answer, SubscriptionStatus},
    notification::Malformed,
};
use super::{
    route::{Target, is_of_type, parameters, single},
    secret::{self, Secrets},
};
use crate::config::Ews;

/// What Exchange says that it does.
const ACTION: &str =
    "http://schemas.microsoft.com/exchange/services/2006/messages/SendNotification";

/// What requests have to be.
#[derive(Debug)]
pub struct Checks {
    caller_data: Option<Secrets>,
    query_secret: Option<(String, Secrets)>,
    subscriptions: Vec<String>,
}

/// Why there are no checks.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file with values of the `CallerData` header.
    #[error("caller_data_file: {0}")]
    CallerData(secret::Error),
    /// The file with values of the query parameter.
    #[error("query_secret: {0}")]
    QuerySecret(secret::Error),
}

/// Why a request is refused by its head. The answer is 404.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum BadHead {
    /// Exchange only posts.
    #[error("the method is not POST")]
    Method,
    /// It is not said to be XML.
    #[error("the content is not text/xml")]
    ContentType,
    /// It is not said to be a notification.
    #[error("SOAPAction is not SendNotification")]
    SoapAction,
    /// It does not know the secret.
    #[error("CallerData is not one of the secrets")]
    CallerData,
    /// It does not know the secret.
    #[error("the query has none of the secrets")]
    QuerySecret,
}

impl BadHead {
    /// The name in metrics and logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Method => "method",
            Self::ContentType => "content_type",
            Self::SoapAction => "soap_action",
            Self::CallerData => "caller_data",
            Self::QuerySecret => "query_secret",
        }
    }
}

/// Why a message is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    /// It is no notification. The answer is 400.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// A subscription is not among those that are allowed. The answer is 404.
    #[error("the subscription is not among those that may notify")]
    Subscription,
}

impl Refusal {
    /// The name in metrics and logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Malformed(reason) => reason.name(),
            Self::Subscription => "subscription",
        }
    }
}

/// A message that passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged {
    /// Its subscriptions, each once.
    pub lanes: Vec<String>,
    /// Whether it says more than that nothing happened.
    pub says_something: bool,
}

impl Judged {
    /// What tells the message from all others: a repetition has the same, because
    /// Exchange repeats byte for byte. It is a hash of the message, and so of its
    /// subscription and its previous watermark too; with only these two, what
    /// happened since the first attempt would be lost. `None` for a message that
    /// only says that nothing happened: two of them may be equal and both count.
    #[must_use]
    pub fn once(&self, body: &[u8]) -> Option<String> {
        self.says_something.then(|| {
            let hash = digest(&SHA256, body);
            hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
        })
    }
}

impl Checks {
    /// The checks of a route. It reads files, which blocks.
    ///
    /// # Errors
    ///
    /// [`LoadError`].
    pub fn load(config: &Ews) -> Result<Self, LoadError> {
        let caller_data = config.caller_data_file.as_deref().map(Secrets::load).transpose();
        let query_secret = config.query_secret.as_ref().map(|secret| {
            let values = Secrets::load(&secret.file).map_err(LoadError::QuerySecret)?;
            Ok((secret.name.clone(), values))
        });
        Ok(Self {
            caller_data: caller_data.map_err(LoadError::CallerData)?,
            query_secret: query_secret.transpose()?,
            subscriptions: config.subscriptions.clone(),
        })
    }

    /// Judges a request by its head.
    ///
    /// # Errors
    ///
    /// [`BadHead`].
    pub fn guard(&self, head: &Parts, target: &Target) -> Result<(), BadHead> {
        if head.method != Method::POST {
            return Err(BadHead::Method);
        }
        if !is_of_type(&head.headers, "text/xml") {
            return Err(BadHead::ContentType);
        }
        let action = single(&head.headers, "soapaction").unwrap_or_default();
        let quoted = action.strip_prefix(b"\"").and_then(|action| action.strip_suffix(b"\""));
        if quoted.unwrap_or(action) != ACTION.as_bytes() {
            return Err(BadHead::SoapAction);
        }
        if let Some(secrets) = &self.caller_data {
            let given = single(&head.headers, "callerdata");
            if !given.is_some_and(|given| secrets.contain(given)) {
                return Err(BadHead::CallerData);
            }
        }
        if let Some((name, secrets)) = &self.query_secret {
            let mut given = parameters(target.query().unwrap_or_default())
                .filter_map(|(other, value)| (*other == *name.as_bytes()).then_some(value));
            let first = given.next();
            if given.next().is_some() || !first.is_some_and(|given| secrets.contain(&given)) {
                return Err(BadHead::QuerySecret);
            }
        }
        Ok(())
    }

    /// Judges a message.
    ///
    /// # Errors
    ///
    /// [`Refusal`].
    pub fn judge(&self, body: &[u8]) -> Result<Judged, Refusal> {
        let notifications = notification::parse(body)?;
        let is_allowed = |id| self.subscriptions.is_empty() || self.subscriptions.contains(id);
        if !notifications.iter().all(|notification| is_allowed(&notification.subscription)) {
            return Err(Refusal::Subscription);
        }
        let says_something = notifications.iter().any(|notification| !notification.only_status);
        let mut seen = HashSet::new();
        let ids = notifications.into_iter().map(|notification| notification.subscription);
        let lanes = ids.filter(|id| seen.insert(id.clone())).collect();
        Ok(Judged { lanes, says_something })
    }
}

#[cfg(test)]
mod tests;
