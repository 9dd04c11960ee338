//! Asking the service, and pairing its version with its endpoint sets.

use hyper::Uri;

use super::{
    EndpointSets, Instance, Malformed, RequestId, Version,
    answer::{MAX_BYTES, parse_endpoints, parse_version},
};
use crate::source::fetch;

/// Where the service is, for every cloud.
pub const BASE_URL: &str = "https://endpoints.office.com";

/// How often the sets are fetched again because the version moved meanwhile.
const PAIRING_ATTEMPTS: usize = 3;

/// Endpoint sets with the version that they belong to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The version, the same before and after the sets were read.
    pub version: Version,
    /// The sets.
    pub sets: EndpointSets,
}

/// What a poll brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Collected {
    /// The version in force is still the latest.
    Unchanged(Version),
    /// There is another one.
    New(Answer),
}

/// Why a poll brought nothing.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// There was no answer.
    #[error(transparent)]
    Fetch(#[from] fetch::Error),
    /// The answer cannot be used.
    #[error("{url}: {problem}")]
    Malformed {
        /// What was asked for.
        url: String,
        /// What is wrong with it.
        problem: Malformed,
    },
    /// The version was another one after each reading of the sets.
    #[error("the version moved during {PAIRING_ATTEMPTS} readings of the endpoint sets")]
    Moving,
    /// The base URL and the method do not make a URL.
    #[error("{0} is not a URL")]
    Url(String),
}

impl Error {
    /// The reason as a metric label.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Fetch(error) => error.name(),
            Self::Malformed { problem, .. } => problem.name(),
            Self::Moving => "moving",
            Self::Url(_) => "setup",
        }
    }
}

/// A client of the service.
pub struct Client {
    http: fetch::Client,
    base_url: String,
    id: RequestId,
}

impl Client {
    /// Makes a client for the service at `base_url`.
    ///
    /// # Errors
    ///
    /// If the trusted certificates cannot be read.
    pub fn new(base_url: &str, id: RequestId, options: &fetch::Options) -> Result<Self, Error> {
        let http = fetch::Client::new(options)?;
        Ok(Self { http, base_url: base_url.trim_end_matches('/').to_owned(), id })
    }

    /// Asks whether there is another version than `applied`, and gets it if so.
    /// An answer does not carry its version, so the version is read again after
    /// the sets; if it moved, so may have the sets.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub async fn collect(
        &self,
        instance: Instance,
        applied: Option<Version>,
    ) -> Result<Collected, Error> {
        let mut version = self.version(instance).await?;
        if applied == Some(version) {
            return Ok(Collected::Unchanged(version));
        }
        for _ in 0..PAIRING_ATTEMPTS {
            let sets = self.endpoints(instance).await?;
            let after = self.version(instance).await?;
            if after == version {
                return Ok(Collected::New(Answer { version, sets }));
            }
            version = after;
        }
        Err(Error::Moving)
    }

    /// The latest version.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub async fn version(&self, instance: Instance) -> Result<Version, Error> {
        let url = self.url("version", instance)?;
        let body = self.http.get(&url, MAX_BYTES).await?;
        parse_version(&body, instance)
            .map_err(|problem| Error::Malformed { url: url.to_string(), problem })
    }

    /// The endpoint sets of the latest version.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub async fn endpoints(&self, instance: Instance) -> Result<EndpointSets, Error> {
        let url = self.url("endpoints", instance)?;
        let body = self.http.get(&url, MAX_BYTES).await?;
        parse_endpoints(&body).map_err(|problem| Error::Malformed { url: url.to_string(), problem })
    }

    fn url(&self, method: &str, instance: Instance) -> Result<Uri, Error> {
        let text = format!("{}/{method}/{instance}?ClientRequestId={}", self.base_url, self.id);
        text.parse().map_err(|_| Error::Url(text))
    }
}
