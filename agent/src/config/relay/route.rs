//! `[route.NAME]`.

use std::{path::PathBuf, time::Duration};

use hyper::{header::HeaderValue, http::uri::PathAndQuery};
use serde::Deserialize;
use uuid::Uuid;

use super::{
    super::value::{self, Size},
    Upstream,
    proxy::{self, Maintenance, Proxy},
};

/// Where Microsoft publishes the keys that it signs tokens with.
const TOKEN_KEYS: &str = "https://login.microsoftonline.com/common/discovery/v2.0/keys";

/// Less than the 60 s that Exchange waits for an answer to a notification.
const EXCHANGE_WAITS: Duration = Duration::from_secs(55);

/// More than the 30 minutes that Exchange may be silent in a stream of notifications.
pub(super) const LONGEST_SILENCE: Duration = Duration::from_secs(35 * 60);

/// What is taken, what it has to be, and where it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Lower-case letters, digits and dashes; also a metric label.
    pub name: String,
    /// The host that is asked for, in lower case and without port; any if not
    /// given.
    pub host: Option<String>,
    /// The paths that are taken.
    pub path: PathRule,
    /// The place of its upstream in [`super::Relay::upstreams`].
    pub upstream: usize,
    /// What stands in the place of the matched part of the path in the request to
    /// the upstream; the same path if not given.
    pub upstream_path: Option<String>,
    /// Largest body.
    pub body_bytes: usize,
    /// Whether `Authorization`, and `UserIdentifier` and `Password` in the query,
    /// go on to the upstream.
    pub keep_credentials: bool,
    /// After how long without a notification a subscription is called silent.
    pub silent_after: Option<Duration>,
    /// What requests have to be.
    pub kind: RouteKind,
}

/// Paths that a route takes, as they stand in a normalised request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathRule {
    /// This one.
    Exact(String),
    /// This one, which ends with a slash, and all that begin with it.
    Prefix(String),
}

/// What the requests of a route have to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteKind {
    /// Microsoft Graph change notifications.
    Graph(Graph),
    /// EWS push notifications.
    Ews(Ews),
    /// Requests of clients to a server behind the relay.
    Proxy(Proxy),
}

/// A route for Microsoft Graph change notifications.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Graph {
    /// Who answers when Graph validates the address.
    pub handshake: Handshake,
    /// File with values of `clientState`, one in a line; each notification has to
    /// carry one of them.
    pub client_state_file: Option<PathBuf>,
    /// Tenants that may notify; any if empty.
    pub tenants: Vec<Uuid>,
    /// Subscriptions that may notify; any if empty.
    pub subscriptions: Vec<String>,
    /// How `validationTokens` are checked; they are not if not given.
    pub tokens: Option<Tokens>,
}

/// Who answers when Graph validates the address of a subscription.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Handshake {
    /// The upstream: it knows whether it wants the subscription.
    #[default]
    Upstream,
    /// The relay, for a path that nobody can guess.
    Local,
}

/// How the tokens of rich notifications are checked.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tokens {
    /// Own application ids: who the token has to be for.
    pub audiences: Vec<String>,
    /// Where the keys are published; https only. Fetched through `feed.proxy`.
    #[serde(default = "token_keys")]
    pub keys_url: String,
    /// PEM file with the only certificates to trust for that.
    pub ca_file: Option<PathBuf>,
}

fn token_keys() -> String {
    TOKEN_KEYS.to_owned()
}

/// A route for EWS push notifications.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ews {
    /// When Exchange gets its answer.
    pub delivery: Delivery,
    /// File with values of the `CallerData` header, one in a line; each request
    /// has to carry one of them.
    pub caller_data_file: Option<PathBuf>,
    /// A parameter of the query that has to hold a secret.
    pub query_secret: Option<QuerySecret>,
    /// Subscriptions that may notify; any if empty.
    pub subscriptions: Vec<String>,
}

/// When Exchange gets its answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Delivery {
    /// When the upstream has answered, and what it answered.
    #[default]
    PassThrough,
    /// At once, when the notification is durable.
    StoreAndForward,
}

/// A parameter of the query that has to hold a secret.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuerySecret {
    /// Its name.
    pub name: String,
    /// File with its values, one in a line.
    pub file: PathBuf,
}

impl Route {
    /// Whether it stores before it answers.
    #[must_use]
    pub const fn is_stored(&self) -> bool {
        match &self.kind {
            RouteKind::Graph(_) => true,
            RouteKind::Ews(ews) => matches!(ews.delivery, Delivery::StoreAndForward),
            RouteKind::Proxy(_) => false,
        }
    }

    /// Whether another route is asked for the same requests.
    pub(super) fn is_same_place(&self, other: &Self) -> bool {
        (&self.host, &self.path) == (&other.host, &other.path)
    }
}

impl RouteKind {
    /// The name in configuration, metrics, CLI and documentation.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Graph(_) => "graph",
            Self::Ews(_) => "ews",
            Self::Proxy(_) => "proxy",
        }
    }
}

/// What a route takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Kind {
    /// Microsoft Graph change notifications.
    Graph,
    /// EWS push notifications.
    Ews,
    /// Requests of clients.
    Proxy,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Graph => "graph",
            Self::Ews => "ews",
            Self::Proxy => "proxy",
        }
    }
}

/// `[route.NAME]` as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct RawRoute {
    /// `graph`, `ews` or `proxy`.
    kind: Kind,
    /// The host that is asked for; any if not given.
    host: Option<String>,
    /// The one path that is taken.
    path: Option<String>,
    /// Or the beginning of all paths that are taken; it ends with a slash.
    path_prefix: Option<String>,
    /// The name of an upstream.
    upstream: String,
    /// What replaces the path, or its prefix, on the way to the upstream.
    upstream_path: Option<String>,
    /// Largest body.
    body_size: Option<Size>,
    /// Whether credentials of the sender go on to the upstream.
    #[serde(default)]
    keep_credentials: bool,
    /// After how long a subscription is called silent; `"0s"`: never.
    #[serde(default, deserialize_with = "value::some_duration")]
    silent_after: Option<Duration>,
    /// Subscriptions that may notify.
    #[serde(default)]
    subscriptions: Vec<String>,
    /// Kind `graph`: `upstream` or `local`.
    handshake: Option<Handshake>,
    /// Kind `graph`: file with values of clientState.
    client_state_file: Option<PathBuf>,
    /// Kind `graph`: tenants that may notify.
    #[serde(default)]
    tenants: Vec<Uuid>,
    /// Kind `graph`: how validationTokens are checked.
    tokens: Option<Tokens>,
    /// Kind `ews`: `pass-through` or `store-and-forward`.
    delivery: Option<Delivery>,
    /// Kind `ews`: file with values of the CallerData header.
    caller_data_file: Option<PathBuf>,
    /// Kind `ews`: a parameter of the query that has to hold a secret.
    query_secret: Option<QuerySecret>,
    /// Kind `proxy`: how long the server may send nothing of its answer.
    #[serde(default, deserialize_with = "value::some_duration")]
    idle_timeout: Option<Duration>,
    /// Kind `proxy`: what is answered while all servers are drained.
    maintenance: Option<Maintenance>,
    /// Kind `proxy`: protocols that a connection may change to.
    #[serde(default)]
    upgrades: Vec<String>,
}

impl RawRoute {
    pub(super) fn define(&self, name: &str, upstreams: &[Upstream]) -> Result<Route, String> {
        self.check_kind()?;
        let upstream = place_of(&self.upstream, upstreams)?;
        let known = upstreams.get(upstream).ok_or("there is no upstream")?;
        self.check_upstream(known)?;
        let body_bytes = match self.body_size {
            // What Exchange takes.
            None if self.kind == Kind::Proxy => 64 << 20,
            None => 1 << 20,
            Some(Size(size @ 1..=67_108_864)) => size,
            Some(_) => return Err("body_size must be at most \"64MiB\"".to_owned()),
        };
        let path = self.path()?;
        if let Some(upstream_path) = &self.upstream_path {
            is_plain(upstream_path)?;
            if matches!(path, PathRule::Prefix(_)) != upstream_path.ends_with('/') {
                return Err(
                    "upstream_path ends with a slash if it replaces a path_prefix, and only then"
                        .to_owned(),
                );
            }
        }
        Ok(Route {
            name: name.to_owned(),
            host: self.host()?,
            path,
            upstream,
            upstream_path: self.upstream_path.clone(),
            body_bytes,
            keep_credentials: self.keep_credentials || self.kind == Kind::Proxy,
            silent_after: self.silent_after(),
            kind: self.kind(&known.host)?,
        })
    }

    /// Whether every key that is given means something for the kind.
    fn check_kind(&self) -> Result<(), String> {
        for (given, key, kind) in [
            (self.handshake.is_some(), "handshake", Kind::Graph),
            (self.client_state_file.is_some(), "client_state_file", Kind::Graph),
            (!self.tenants.is_empty(), "tenants", Kind::Graph),
            (self.tokens.is_some(), "tokens", Kind::Graph),
            (self.delivery.is_some(), "delivery", Kind::Ews),
            (self.caller_data_file.is_some(), "caller_data_file", Kind::Ews),
            (self.query_secret.is_some(), "query_secret", Kind::Ews),
            (self.idle_timeout.is_some(), "idle_timeout", Kind::Proxy),
            (self.maintenance.is_some(), "maintenance", Kind::Proxy),
            (!self.upgrades.is_empty(), "upgrades", Kind::Proxy),
        ] {
            if given && kind != self.kind {
                return Err(format!("{key} is for routes of kind {:?}", kind.name()));
            }
        }
        for (given, key) in [
            (self.keep_credentials, "keep_credentials"),
            (self.silent_after.is_some(), "silent_after"),
            (!self.subscriptions.is_empty(), "subscriptions"),
        ] {
            if given && self.kind == Kind::Proxy {
                return Err(format!("{key} is for notifications, and not for a proxy"));
            }
        }
        if self.idle_timeout.is_some_and(|time| !(1..=7200).contains(&time.as_secs())) {
            return Err("idle_timeout must be \"1s\" to \"2h\"".to_owned());
        }
        match &self.tokens {
            Some(tokens) if tokens.audiences.is_empty() => {
                Err("tokens needs audiences: the application ids that tokens are for".to_owned())
            }
            Some(tokens) if !tokens.keys_url.starts_with("https://") => {
                Err("keys_url must begin with https://".to_owned())
            }
            _ => Ok(()),
        }
    }

    /// Whether the upstream is one for the kind.
    fn check_upstream(&self, upstream: &Upstream) -> Result<(), String> {
        let name = &upstream.name;
        if self.kind != Kind::Proxy && upstream.response_timeout > EXCHANGE_WAITS {
            return Err(format!(
                "notifications go to upstream {name}, so its response_timeout must be at most \
                 \"55s\": Exchange waits for 60 s"
            ));
        }
        if self.kind == Kind::Proxy && upstream.credentials.is_some() {
            return Err(format!(
                "upstream {name} has credentials, which would take the place of the clients'; a \
                 proxy needs an upstream without"
            ));
        }
        Ok(())
    }

    fn host(&self) -> Result<Option<String>, String> {
        self.host.as_deref().map(host_name).transpose()
    }

    fn path(&self) -> Result<PathRule, String> {
        match (&self.path, &self.path_prefix) {
            (Some(path), None) => is_plain(path).map(|()| PathRule::Exact(path.clone())),
            (None, Some(prefix)) if prefix.ends_with('/') => {
                is_plain(prefix).map(|()| PathRule::Prefix(prefix.clone()))
            }
            (None, Some(_)) => Err("a path_prefix ends with a slash".to_owned()),
            _ => Err("a route needs either a path or a path_prefix".to_owned()),
        }
    }

    /// Exchange is silent for at most `StatusFrequency`, of which Pega advises 30
    /// minutes; Graph may have nothing to say for days.
    fn silent_after(&self) -> Option<Duration> {
        match (self.silent_after, self.kind) {
            (Some(Duration::ZERO), _) | (None, Kind::Graph | Kind::Proxy) => None,
            (None, Kind::Ews) => Some(Duration::from_secs(3600)),
            (Some(time), _) => Some(time),
        }
    }

    fn kind(&self, host: &Option<HeaderValue>) -> Result<RouteKind, String> {
        let subscriptions = self.subscriptions.clone();
        Ok(match self.kind {
            Kind::Graph => RouteKind::Graph(Graph {
                handshake: self.handshake.unwrap_or_default(),
                client_state_file: self.client_state_file.clone(),
                tenants: self.tenants.clone(),
                subscriptions,
                tokens: self.tokens.clone(),
            }),
            Kind::Ews => RouteKind::Ews(Ews {
                delivery: self.delivery.unwrap_or_default(),
                caller_data_file: self.caller_data_file.clone(),
                query_secret: self.query_secret.clone(),
                subscriptions,
            }),
            Kind::Proxy => RouteKind::Proxy(Proxy {
                idle_timeout: self.idle_timeout.unwrap_or(LONGEST_SILENCE),
                keep_host: host.is_none(),
                maintenance: self.maintenance.clone(),
                upgrades: proxy::protocols(&self.upgrades)?,
            }),
        })
    }
}

/// The place of an upstream of this name.
pub(super) fn place_of(name: &str, upstreams: &[Upstream]) -> Result<usize, String> {
    upstreams.iter().position(|upstream| upstream.name == name).ok_or_else(|| {
        let known: Vec<_> = upstreams.iter().map(|upstream| upstream.name.as_str()).collect();
        format!("there is no upstream {name:?}; there are {}", known.join(", "))
    })
}

/// The name of a host, in lower case.
pub(super) fn host_name(host: &str) -> Result<String, String> {
    let is_fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-');
    if host.is_empty() || !host.chars().all(is_fine) {
        return Err(format!("{host:?} is not a host name; it has no port and no wildcard"));
    }
    Ok(host.to_ascii_lowercase())
}

/// A path that normalisation leaves as it is.
fn is_plain(path: &str) -> Result<(), String> {
    let plain = path.starts_with('/')
        && path.bytes().all(|byte| byte.is_ascii_graphic())
        && !path.contains(['%', '?', '#', '\\', ';'])
        && !path.contains("//")
        && !path.split('/').any(|segment| matches!(segment, "." | ".."))
        && PathAndQuery::try_from(path).is_ok();
    let message = || {
        format!(
            "{path:?} must begin with / and hold no escape, query, parameter, empty or dot segment"
        )
    };
    plain.then_some(()).ok_or_else(message)
}
