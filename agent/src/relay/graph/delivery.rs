//! Notifications: which of them pass.
//!
//! A POST is `{"value": [...], "validationTokens": [...]}`, and each element of
//! `value` is judged by itself. Of the others the bytes are not touched: if all
//! pass, the body is the one that came; if some do, it is that body without the
//! rest.
//!
//! Whoever reads the body behind the relay must see what was judged here. So the
//! fields that are judged may stand there once only, and not a second time with
//! other capitals; fields of other names may be anything.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashSet},
    ops::Range,
    sync::Arc,
};

use hyper::{StatusCode, body::Bytes};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::{
    Keys,
    json::{AtMost, fields, string},
    keys::NoKeys,
    token::{BadToken, Tokens},
};
use crate::{
    config::{Feed, Graph},
    relay::secret::{self, Secrets},
};

/// Most notifications in one request.
const MOST_ITEMS: usize = 10_000;
/// Most tokens in one request. Graph makes one for each application and tenant.
const MOST_TOKENS: usize = 100;
/// Longest id of a subscription; Graph's are UUIDs.
const LONGEST_ID: usize = 128;

/// What notifications have to be.
#[derive(Debug)]
pub struct Checks {
    client_state: Option<Secrets>,
    tenants: Vec<Uuid>,
    subscriptions: Vec<String>,
    tokens: Option<Tokens>,
}

/// Why there are no checks.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file with values of `clientState`.
    #[error("client_state_file: {0}")]
    ClientState(#[from] secret::Error),
    /// The address of the keys.
    #[error("keys_url {0:?} is not a URL")]
    KeysUrl(String),
}

/// A request that was judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged {
    /// What goes on.
    pub accepted: Accepted,
    /// The subscriptions of what goes on, each once.
    pub lanes: Vec<String>,
    /// How many notifications were refused for what.
    pub refused: BTreeMap<Refusal, u64>,
    /// How many tokens were refused for what.
    pub bad_tokens: BTreeMap<BadToken, u64>,
}

/// What of a request goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// The body as it came.
    All,
    /// This body: the one that came, without the notifications that were refused.
    Some(Bytes),
    /// Nothing.
    None,
}

/// Why a notification is refused. The answer is 202 all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Refusal {
    /// It is no object, has no id of a subscription, or a field of a wrong type.
    Malformed,
    /// It has a field twice, perhaps with other capitals.
    Ambiguous,
    /// It does not know the secret.
    ClientState,
    /// Its subscription is not among those that are allowed.
    Subscription,
    /// Its tenant is not among those that are allowed.
    Tenant,
    /// It has data, and no token proves that Graph sent them for this tenant.
    Token,
}

impl Refusal {
    /// The name in metrics and logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Ambiguous => "ambiguous",
            Self::ClientState => "client_state",
            Self::Subscription => "subscription",
            Self::Tenant => "tenant",
            Self::Token => "token",
        }
    }
}

/// Why a request is not judged at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Undecided {
    /// It is not JSON in UTF-8.
    #[error("the body is not JSON")]
    NotJson,
    /// It is JSON of another shape, or has a field twice.
    #[error("the body is not a collection of notifications")]
    Malformed,
    /// It holds no notification.
    #[error("the body holds no notification")]
    Empty,
    /// It holds more notifications than Graph sends.
    #[error("the body holds more than {MOST_ITEMS} notifications")]
    TooManyItems,
    /// It holds more tokens than can be checked.
    #[error("the body holds more than {MOST_TOKENS} validationTokens")]
    TooManyTokens,
    /// Tokens cannot be checked now.
    #[error("the keys that validationTokens are signed with could not be had")]
    NoKeys,
}

impl Undecided {
    /// The name in metrics and logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotJson => "not_json",
            Self::Malformed => "malformed",
            Self::Empty => "empty",
            Self::TooManyItems => "too_many_items",
            Self::TooManyTokens => "too_many_tokens",
            Self::NoKeys => "no_keys",
        }
    }

    /// The answer: repeat it later, or do not.
    #[must_use]
    pub const fn status(self) -> StatusCode {
        match self {
            Self::NoKeys => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::BAD_REQUEST,
        }
    }
}

impl From<NoKeys> for Undecided {
    fn from(_: NoKeys) -> Self {
        Self::NoKeys
    }
}

impl Checks {
    /// The checks of a route. It reads files, which blocks. Somebody has to
    /// [run](Keys::run) the [keys](Self::keys).
    ///
    /// # Errors
    ///
    /// [`LoadError`].
    pub fn load(config: &Graph, feed: &Feed) -> Result<Self, LoadError> {
        let client_state = config.client_state_file.as_deref().map(Secrets::load).transpose()?;
        let tokens = config.tokens.as_ref().map(|tokens| {
            let keys = Keys::new(tokens, feed)
                .ok_or_else(|| LoadError::KeysUrl(tokens.keys_url.clone()))?;
            Ok::<_, LoadError>(Tokens::new(Arc::new(keys), &tokens.audiences))
        });
        Ok(Self {
            client_state,
            tenants: config.tenants.clone(),
            subscriptions: config.subscriptions.clone(),
            tokens: tokens.transpose()?,
        })
    }

    /// The keys that tokens are checked with, if they are.
    #[must_use]
    pub fn keys(&self) -> Option<&Arc<Keys>> {
        self.tokens.as_ref().map(Tokens::keys)
    }

    /// Judges each notification of a request. It waits for nothing but keys that
    /// it has not seen, and for these at most [`super::keys::PATIENCE`].
    ///
    /// # Errors
    ///
    /// [`Undecided`].
    pub async fn judge(&self, body: &Bytes) -> Result<Judged, Undecided> {
        let request = Request::parse(body)?;
        let mut verdicts: Vec<_> = request.items.iter().map(|item| self.check(item)).collect();
        let mut bad_tokens = BTreeMap::new();
        let has_data = |verdict: &Result<Item<'_>, _>| verdict.as_ref().is_ok_and(|i| i.has_data);
        if let Some(tokens) = &self.tokens
            && verdicts.iter().any(has_data)
        {
            let proof = tokens.prove(&request.tokens()?).await?;
            for verdict in verdicts.iter_mut().filter(|verdict| has_data(verdict)) {
                let tenant = verdict.as_ref().ok().and_then(|item| item.tenant);
                if !tenant.is_some_and(|tenant| proof.tenants.contains(&tenant)) {
                    *verdict = Err(Refusal::Token);
                }
            }
            bad_tokens = proof.refused;
        }
        request.conclude(&verdicts, bad_tokens).ok_or(Undecided::Malformed)
    }

    /// Judges one notification by all but its token.
    fn check<'a>(&self, item: &'a RawValue) -> Result<Item<'a>, Refusal> {
        let item = Item::parse(item)?;
        if let Some(secrets) = &self.client_state {
            let known = item.client_state.as_deref().is_some_and(|s| secrets.contain(s.as_bytes()));
            if !known {
                return Err(Refusal::ClientState);
            }
        }
        let is_this = |id: &String| id.eq_ignore_ascii_case(&item.subscription);
        if !self.subscriptions.is_empty() && !self.subscriptions.iter().any(is_this) {
            return Err(Refusal::Subscription);
        }
        let is_allowed = |tenant| self.tenants.contains(&tenant);
        if !self.tenants.is_empty() && !item.tenant.is_some_and(is_allowed) {
            return Err(Refusal::Tenant);
        }
        Ok(item)
    }
}

/// A body, taken apart.
struct Request<'a> {
    text: &'a str,
    /// The array of notifications.
    value: &'a RawValue,
    items: Vec<&'a RawValue>,
    tokens: Option<&'a RawValue>,
}

impl<'a> Request<'a> {
    fn parse(body: &'a [u8]) -> Result<Self, Undecided> {
        let text = str::from_utf8(body).map_err(|_| Undecided::NotJson)?;
        let json = text.strip_prefix('\u{feff}').unwrap_or(text);
        // Whatever is not an object makes the visitor refuse.
        let shape = |error: serde_json::Error| match error.classify() {
            serde_json::error::Category::Data => Undecided::Malformed,
            _ => Undecided::NotJson,
        };
        let [value, tokens] = match fields(json, ["value", "validationTokens"]).map_err(shape)? {
            Some(found) => found,
            None => return Err(Undecided::Malformed),
        };
        let value = value.ok_or(Undecided::Malformed)?;
        let items: AtMost<'_, MOST_ITEMS> = serde_json::from_str(value.get()).map_err(shape)?;
        if items.more {
            return Err(Undecided::TooManyItems);
        }
        if items.list.is_empty() {
            return Err(Undecided::Empty);
        }
        Ok(Self { text, value, items: items.list, tokens })
    }

    fn tokens(&self) -> Result<Vec<Cow<'a, str>>, Undecided> {
        let Some(tokens) = self.tokens else { return Ok(Vec::new()) };
        let tokens: Option<AtMost<'_, MOST_TOKENS>> =
            serde_json::from_str(tokens.get()).map_err(|_| Undecided::Malformed)?;
        match tokens {
            None => Ok(Vec::new()),
            Some(tokens) if tokens.more => Err(Undecided::TooManyTokens),
            Some(tokens) => {
                let read = |token: &&'a RawValue| string(token).ok().flatten();
                let tokens: Option<_> = tokens.list.iter().map(read).collect();
                tokens.ok_or(Undecided::Malformed)
            }
        }
    }

    fn conclude(
        &self,
        verdicts: &[Result<Item<'_>, Refusal>],
        bad_tokens: BTreeMap<BadToken, u64>,
    ) -> Option<Judged> {
        let (mut lanes, mut seen, mut refused) = (Vec::new(), HashSet::new(), BTreeMap::new());
        for verdict in verdicts {
            match verdict {
                Ok(item) if seen.insert(&item.subscription) => {
                    lanes.push(item.subscription.clone().into_owned());
                }
                Ok(_) => {}
                Err(reason) => {
                    let count: &mut u64 = refused.entry(*reason).or_default();
                    *count = count.saturating_add(1);
                }
            }
        }
        let accepted = if refused.is_empty() {
            Accepted::All
        } else if lanes.is_empty() {
            Accepted::None
        } else {
            let passed = self.items.iter().zip(verdicts).filter(|(_, verdict)| verdict.is_ok());
            let passed: Vec<_> = passed.map(|(item, _)| item.get()).collect();
            let array = place(self.text, self.value.get())?;
            let (before, after) = (self.text.get(..array.start)?, self.text.get(array.end..)?);
            Accepted::Some([before, "[", &passed.join(","), "]", after].concat().into())
        };
        Some(Judged { accepted, lanes, refused, bad_tokens })
    }
}

/// The place of a part in the whole that it is borrowed from.
fn place(whole: &str, part: &str) -> Option<Range<usize>> {
    let start = part.as_ptr().addr().checked_sub(whole.as_ptr().addr())?;
    Some(start..start.checked_add(part.len())?)
}

/// What is judged of a notification.
struct Item<'a> {
    subscription: Cow<'a, str>,
    client_state: Option<Cow<'a, str>>,
    tenant: Option<Uuid>,
    has_data: bool,
}

impl<'a> Item<'a> {
    fn parse(item: &'a RawValue) -> Result<Self, Refusal> {
        let names = ["subscriptionId", "clientState", "tenantId", "encryptedContent"];
        let [subscription, client_state, tenant, content] =
            fields(item.get(), names).map_err(|_| Refusal::Malformed)?.ok_or(Refusal::Ambiguous)?;
        let text = |field: Option<&'a RawValue>| match field {
            Some(value) => string(value).map_err(|_| Refusal::Malformed),
            None => Ok(None),
        };
        let subscription = text(subscription)?.ok_or(Refusal::Malformed)?;
        let is_id = (1..=LONGEST_ID).contains(&subscription.len())
            && subscription.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_id {
            return Err(Refusal::Malformed);
        }
        let tenant = text(tenant)?.map(|tenant| Uuid::try_parse(&tenant));
        Ok(Self {
            subscription,
            client_state: text(client_state)?,
            tenant: tenant.transpose().map_err(|_| Refusal::Malformed)?,
            has_data: content.is_some_and(|content| content.get() != "null"),
        })
    }
}

/// Reads a body as [`Checks::judge`] does, and all that it might look at. For
/// fuzzing: it must return, whatever the bytes are.
pub fn read(body: &[u8]) -> Result<usize, Undecided> {
    let request = Request::parse(body)?;
    request.tokens()?;
    let read = request.items.iter().filter(|item| Item::parse(item).is_ok());
    Ok(read.count())
}

#[cfg(test)]
mod tests;
