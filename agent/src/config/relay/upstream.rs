//! `[upstream.NAME]`.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use hyper::{
    Uri,
    header::{HeaderName, HeaderValue},
};
use serde::Deserialize;

use super::{super::value, Certificate};
use crate::source::fetch;

/// A pool of servers that answer alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// Lower-case letters, digits and dashes; also a metric label.
    pub name: String,
    /// `http://host[:port]` or `https://host[:port]`, without a path.
    pub servers: Vec<Uri>,
    /// PEM file with the only certificates to trust, instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// What the relay shows when a server asks for a certificate.
    pub client_certificate: Option<Certificate>,
    /// HTTP proxy that is asked to CONNECT.
    pub proxy: Option<fetch::Proxy>,
    /// `Host` of the requests; that of the server if not given.
    pub host: Option<HeaderValue>,
    /// Which server is asked.
    pub balance: Balance,
    /// How a server is seen to be well.
    pub health: Option<HealthCheck>,
    /// Limit for a connection with its TLS handshake.
    pub connect_timeout: Duration,
    /// Limit for an answer, from the request to the end of its head.
    pub response_timeout: Duration,
    /// Requests at once to each server.
    pub connections: usize,
    /// When a server that fails is left alone.
    pub breaker: Breaker,
    /// Basic credentials that are set on each request.
    pub credentials: Option<BasicCredentials>,
    /// Header fields that are set on each request.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

/// Which server of a pool is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Balance {
    /// The first one that is well, in the order of the configuration.
    #[default]
    Failover,
    /// One after the other.
    RoundRobin,
    /// The one that has the fewest requests and clients' connections.
    LeastConnections,
    /// The same one for the same source, as long as it is well.
    Source,
}

/// How a server is seen to be well: it answers 200.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HealthCheck {
    /// Path and query of the probe.
    pub path: String,
    /// Time between probes.
    #[serde(default = "five_seconds", deserialize_with = "value::duration")]
    pub interval: Duration,
    /// Limit for a probe.
    #[serde(default = "two_seconds", deserialize_with = "value::duration")]
    pub timeout: Duration,
}

const fn five_seconds() -> Duration {
    Duration::from_secs(5)
}

const fn two_seconds() -> Duration {
    Duration::from_secs(2)
}

/// When a server that fails is left alone.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Breaker {
    /// After so many failures in a row.
    pub failures: u32,
    /// For so long; then one request tries it.
    #[serde(deserialize_with = "value::duration")]
    pub pause: Duration,
}

impl Default for Breaker {
    fn default() -> Self {
        Self { failures: 5, pause: Duration::from_secs(5) }
    }
}

/// A user of the upstream, for instance a Pega operator.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BasicCredentials {
    /// The name.
    pub username: String,
    /// File that holds the password, and a line feed perhaps.
    pub password_file: PathBuf,
}

/// `[upstream.NAME]` as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct RawUpstream {
    /// `https://host[:port]` or `http://host[:port]`.
    servers: Vec<String>,
    /// PEM file with the only certificates to trust.
    ca_file: Option<PathBuf>,
    /// What is shown to servers that ask.
    client_certificate: Option<Certificate>,
    /// HTTP proxy to reach the servers through.
    proxy: Option<fetch::Proxy>,
    /// `Host` of the requests.
    host: Option<String>,
    /// `failover`, `round-robin`, `least-connections` or `source`.
    #[serde(default)]
    balance: Balance,
    /// How a server is seen to be well.
    health: Option<HealthCheck>,
    /// Limit for a connection.
    #[serde(default = "three_seconds", deserialize_with = "value::duration")]
    connect_timeout: Duration,
    /// Limit for an answer.
    #[serde(default = "response_timeout", deserialize_with = "value::duration")]
    response_timeout: Duration,
    /// Requests at once to each server.
    #[serde(default = "connections")]
    connections: usize,
    /// When a server that fails is left alone.
    #[serde(default)]
    breaker: Breaker,
    /// Basic credentials.
    credentials: Option<BasicCredentials>,
    /// Header fields to set.
    #[serde(default)]
    headers: BTreeMap<String, String>,
}

const fn three_seconds() -> Duration {
    Duration::from_secs(3)
}

/// Exchange waits 60 s for an answer; DOMAIN sets 25 s as the relay's own limit.
const fn response_timeout() -> Duration {
    Duration::from_secs(25)
}

const fn connections() -> usize {
    64
}

impl RawUpstream {
    pub(super) fn define(&self, name: &str) -> Result<Upstream, String> {
        let servers =
            self.servers.iter().map(|text| server(text)).collect::<Result<Vec<_>, _>>()?;
        if servers.is_empty() {
            return Err("an upstream needs servers = [\"https://host:port\"]".to_owned());
        }
        let secs = |time: Duration| time.as_secs();
        if !(1..=60).contains(&secs(self.connect_timeout)) {
            return Err("connect_timeout must be \"1s\" to \"60s\"".to_owned());
        }
        if !(1..=3600).contains(&secs(self.response_timeout)) {
            return Err("response_timeout must be \"1s\" to \"1h\"".to_owned());
        }
        if !(1..=65_536).contains(&self.connections) {
            return Err("connections must be 1 to 65536".to_owned());
        }
        if self.breaker.failures == 0 || !(1..=3600).contains(&secs(self.breaker.pause)) {
            return Err(
                "breaker needs failures of at least 1 and a pause of \"1s\" to \"1h\"".to_owned()
            );
        }
        if let Some(health) = &self.health {
            let fine = health.path.starts_with('/')
                && health.path.parse::<Uri>().is_ok()
                && (1..=3600).contains(&secs(health.interval))
                && (1..=60).contains(&secs(health.timeout));
            if !fine {
                return Err("health needs a path that begins with /, an interval of \"1s\" to \"1h\" and a timeout of \"1s\" to \"60s\"".to_owned());
            }
        }
        if self.credentials.as_ref().is_some_and(|basic| basic.username.contains(':')) {
            return Err("a username of Basic credentials cannot hold a colon".to_owned());
        }
        let headers = self.headers.iter().map(|(name, value)| header(name, value));
        let host = self
            .host
            .as_ref()
            .map(|host| HeaderValue::from_str(host).map_err(|_| format!("{host:?} is not a host")));
        Ok(Upstream {
            name: name.to_owned(),
            servers,
            ca_file: self.ca_file.clone(),
            client_certificate: self.client_certificate.clone(),
            proxy: self.proxy.clone(),
            host: host.transpose()?,
            balance: self.balance,
            health: self.health.clone(),
            connect_timeout: self.connect_timeout,
            response_timeout: self.response_timeout,
            connections: self.connections,
            breaker: self.breaker.clone(),
            credentials: self.credentials.clone(),
            headers: headers.collect::<Result<_, _>>()?,
        })
    }
}

fn server(text: &str) -> Result<Uri, String> {
    let uri = text.parse::<Uri>().ok().filter(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.host().is_some()
            && uri.path() == "/"
            && uri.query().is_none()
            && !uri.authority().is_some_and(|authority| authority.as_str().contains('@'))
    });
    uri.ok_or_else(|| {
        format!("{text:?} is not a server; it must be https://host[:port] or http://host[:port]")
    })
}

fn header(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), String> {
    let parsed = name.parse::<HeaderName>().ok().zip(HeaderValue::from_str(value).ok());
    let (name, mut value) = parsed.ok_or_else(|| format!("{name:?} cannot be a header field"))?;
    // Whoever sets one may well set a secret.
    value.set_sensitive(true);
    Ok((name, value))
}
