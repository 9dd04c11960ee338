//! The one HTTP client of the product.
//!
//! It reads a bounded body over verified TLS, within a time limit for the whole
//! request, and answers with a typed [`Error`] for everything else. It does not
//! follow redirects: a list that decides who may pass comes from the configured
//! host or not at all.
//!
//! A [`Client`] reads its trusted certificates when it is made, so one that is
//! made for every poll takes up a renewed certificate file by itself.

use std::{fmt, path::PathBuf, time::Duration};

use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::{
    Method, Request, Response, StatusCode, Uri,
    body::{Bytes, Incoming},
    header::{
        ACCEPT, AUTHORIZATION, DATE, ETAG, HeaderValue, IF_NONE_MATCH, LOCATION, RETRY_AFTER,
        USER_AGENT,
    },
};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::{
        legacy::{
            self,
            connect::{HttpConnector, proxy::Tunnel},
        },
        proxy::matcher::{Intercept, Matcher},
    },
    rt::TokioExecutor,
};
use jiff::{Timestamp, fmt::rfc2822};
use serde::Deserialize;

use super::{concealed, microsoft365::excerpt, shown};
use crate::tls;

/// How to reach a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// PEM file with the only certificates to trust, instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// HTTP proxy that is asked to CONNECT.
    pub proxy: Option<Proxy>,
    /// For a whole request, with its body.
    pub timeout: Duration,
}

/// The address of an HTTP proxy, `http://[user:password@]host:port`. Its
/// credentials show in no log.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Proxy(Uri);

impl TryFrom<String> for Proxy {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.parse::<Uri>() {
            Ok(uri) if uri.scheme_str() == Some("http") && uri.host().is_some() => Ok(Self(uri)),
            _ => Err("a proxy is http://host:port or http://user:password@host:port".to_owned()),
        }
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}:{}", self.0.host().unwrap_or(""), self.0.port_u16().unwrap_or(80))
    }
}

/// Why a body could not be had.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The client cannot be made.
    #[error("{0}")]
    Setup(String),
    /// The name, the connection, TLS or the proxy failed, or the connection
    /// broke.
    #[error("GET {url} failed: {problem}")]
    Transport {
        /// What was asked for.
        url: String,
        /// The chain of causes.
        problem: String,
    },
    /// No whole answer in time.
    #[error("GET {url}: no whole answer within {} s", .after.as_secs_f32())]
    Timeout {
        /// What was asked for.
        url: String,
        /// The limit.
        after: Duration,
    },
    /// A redirect, which is not followed.
    #[error(
        "GET {url} answered {status}, a redirect to {location}, which is not followed; if the \
         service has moved, configure its new address"
    )]
    Redirect {
        /// What was asked for.
        url: String,
        /// The status.
        status: StatusCode,
        /// Where to.
        location: String,
    },
    /// Another status than 200.
    #[error("GET {url} answered {status}")]
    Status {
        /// What was asked for.
        url: String,
        /// The status.
        status: StatusCode,
        /// `Retry-After`, where it is a number of seconds.
        retry_after: Option<Duration>,
    },
    /// A body beyond the limit.
    #[error("GET {url}: the body is larger than {limit} bytes")]
    TooLarge {
        /// What was asked for.
        url: String,
        /// The limit.
        limit: usize,
    },
}

impl Error {
    /// The reason as a metric label.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Setup(_) => "setup",
            Self::Transport { .. } => "transport",
            Self::Timeout { .. } => "timeout",
            Self::Redirect { .. } => "redirect",
            Self::Status { status, .. } if *status == StatusCode::TOO_MANY_REQUESTS => "throttled",
            Self::Status { status, .. } if status.is_server_error() => "server_error",
            Self::Status { .. } => "status",
            Self::TooLarge { .. } => "too_large",
        }
    }

    /// How long the server asked to be left alone: `None` unless it throttles,
    /// then at least an hour, as the service's documentation says.
    #[must_use]
    pub fn throttled(&self) -> Option<Duration> {
        const AN_HOUR: Duration = Duration::from_secs(3600);
        const A_DAY: Duration = Duration::from_secs(86_400);
        match self {
            Self::Status { status: StatusCode::TOO_MANY_REQUESTS, retry_after, .. } => {
                Some(retry_after.unwrap_or(AN_HOUR).clamp(AN_HOUR, A_DAY))
            }
            _ => None,
        }
    }
}

/// Longer entity tags are not believed: they are kept on disk.
const LONGEST_TAG: usize = 256;

/// What a conditional request brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fetched {
    /// The entity tag still names the latest body.
    Unchanged,
    /// Another body.
    Body {
        /// The body.
        body: Bytes,
        /// Its entity tag, where the server gave one.
        tag: Option<String>,
    },
}

type Legacy<C> = legacy::Client<HttpsConnector<C>, Empty<Bytes>>;

enum Inner {
    Direct(Legacy<HttpConnector>),
    Proxied(Legacy<Tunnel<HttpConnector>>),
}

/// An HTTPS client.
pub struct Client {
    inner: Inner,
    timeout: Duration,
}

impl Client {
    /// Makes a client and reads the trusted certificates.
    ///
    /// # Errors
    ///
    /// [`Error::Setup`].
    pub fn new(options: &Options) -> Result<Self, Error> {
        let tls = tls::client(options.ca_file.as_deref(), None)
            .map_err(|error| Error::Setup(error.to_string()))?;
        let https = HttpsConnectorBuilder::new().with_tls_config(tls).https_only().enable_http1();

        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_connect_timeout(Some(options.timeout));
        let mut builder = legacy::Client::builder(TokioExecutor::new());
        builder.pool_max_idle_per_host(0);
        let inner = match &options.proxy {
            None => Inner::Direct(builder.build(https.wrap_connector(http))),
            Some(proxy) => Inner::Proxied(builder.build(https.wrap_connector(tunnel(proxy, http)))),
        };
        Ok(Self { inner, timeout: options.timeout })
    }

    /// Gets a body of at most `limit` bytes.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub async fn get(&self, url: &Uri, limit: usize) -> Result<Bytes, Error> {
        match self.get_unless(url, None, limit).await? {
            Fetched::Body { body, .. } => Ok(body),
            // Nobody asked for that.
            Fetched::Unchanged => Err(Error::Status {
                url: shown(url),
                status: StatusCode::NOT_MODIFIED,
                retry_after: None,
            }),
        }
    }

    /// Gets a body of at most `limit` bytes, unless the server says that it still
    /// is the one with this entity tag.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub async fn get_unless(
        &self,
        url: &Uri,
        tag: Option<&str>,
        limit: usize,
    ) -> Result<Fetched, Error> {
        match tokio::time::timeout(self.timeout, self.exchange(url, tag, limit)).await {
            Ok(result) => result,
            Err(_) => Err(Error::Timeout { url: shown(url), after: self.timeout }),
        }
    }

    /// The time of the server, where it says one; whatever else it answers.
    ///
    /// # Errors
    ///
    /// [`Error::Transport`] or [`Error::Timeout`].
    pub async fn date(&self, url: &Uri) -> Result<Option<Timestamp>, Error> {
        match tokio::time::timeout(self.timeout, self.ask(url, None)).await {
            Ok(response) => {
                let response = response?;
                let date = response.headers().get(DATE).and_then(|date| date.to_str().ok());
                Ok(date.and_then(|date| rfc2822::DateTimeParser::new().parse_timestamp(date).ok()))
            }
            Err(_) => Err(Error::Timeout { url: shown(url), after: self.timeout }),
        }
    }

    async fn ask(&self, url: &Uri, tag: Option<&str>) -> Result<Response<Incoming>, Error> {
        let transport = |error: &dyn std::error::Error| Error::Transport {
            url: shown(url),
            problem: chain(error),
        };
        let mut request = Request::builder()
            .method(Method::GET)
            .uri(without_credentials(url))
            .header(USER_AGENT, concat!("exogate/", env!("CARGO_PKG_VERSION")))
            .header(ACCEPT, "application/json, text/plain;q=0.9");
        if let Some(tag) = tag {
            request = request.header(IF_NONE_MATCH, tag);
        }
        if let Some(credentials) = credentials(url) {
            request = request.header(AUTHORIZATION, credentials);
        }
        let request = request.body(Empty::new()).map_err(|error| transport(&error))?;
        match &self.inner {
            Inner::Direct(client) => client.request(request).await,
            Inner::Proxied(client) => client.request(request).await,
        }
        .map_err(|error| transport(&error))
    }

    async fn exchange(&self, url: &Uri, tag: Option<&str>, limit: usize) -> Result<Fetched, Error> {
        let response = self.ask(url, tag).await?;
        if response.status() == StatusCode::NOT_MODIFIED && tag.is_some() {
            return Ok(Fetched::Unchanged);
        }
        if response.status() != StatusCode::OK {
            return Err(refused(url, &response));
        }
        let tag = response.headers().get(ETAG).and_then(|tag| tag.to_str().ok());
        let tag = tag.filter(|tag| tag.len() <= LONGEST_TAG).map(str::to_owned);
        match Limited::new(response.into_body(), limit).collect().await {
            Ok(body) => Ok(Fetched::Body { body: body.to_bytes(), tag }),
            Err(error) if error.is::<LengthLimitError>() => {
                Err(Error::TooLarge { url: shown(url), limit })
            }
            Err(error) => Err(Error::Transport { url: shown(url), problem: chain(error.as_ref()) }),
        }
    }
}

fn refused(url: &Uri, response: &Response<Incoming>) -> Error {
    let url = shown(url);
    let status = response.status();
    let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
    if status.is_redirection() {
        let location = concealed(&excerpt(header(LOCATION).unwrap_or("nowhere")));
        return Error::Redirect { url, status, location };
    }
    let retry_after =
        header(RETRY_AFTER).and_then(|text| text.trim().parse().ok()).map(Duration::from_secs);
    Error::Status { url, status, retry_after }
}

/// Connections through a proxy.
pub(crate) fn tunnel(Proxy(proxy): &Proxy, http: HttpConnector) -> Tunnel<HttpConnector> {
    match intercept(proxy) {
        Some(intercept) => {
            let tunnel = Tunnel::new(intercept.uri().clone(), http);
            match intercept.basic_auth() {
                Some(credentials) => tunnel.with_auth(credentials.clone()),
                None => tunnel,
            }
        }
        None => Tunnel::new(proxy.clone(), http),
    }
}

/// The credentials in a URL, as a header.
fn credentials(url: &Uri) -> Option<HeaderValue> {
    intercept(url)?.basic_auth().cloned()
}

/// Credentials are a header; in the URL they would get into the log of the connections.
fn without_credentials(url: &Uri) -> Uri {
    let mut parts = url.clone().into_parts();
    let host = url.authority().and_then(|all| all.as_str().rsplit_once('@')).map(|(_, host)| host);
    if let Some(host) = host.and_then(|host| host.parse().ok()) {
        parts.authority = Some(host);
    }
    Uri::from_parts(parts).unwrap_or_else(|_| url.clone())
}

/// The matcher splits user and password off an address.
fn intercept(address: &Uri) -> Option<Intercept> {
    let matcher = Matcher::builder().all(address.to_string()).build();
    matcher.intercept(&Uri::from_static("https://destination.invalid"))
}

/// An error with its causes, because "client error (Connect)" helps nobody.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
pub(crate) mod stand_in;
#[cfg(test)]
mod tests;
