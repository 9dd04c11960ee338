//! Asking the service, and pairing its version with its endpoint sets.

use hyper::Uri;

use super::{
    EndpointSets, Instance, Malformed, RequestId, Version,
    answer::{MAX_BYTES, parse_endpoints, parse_version},
};
use crate::source::{fetch, shown};

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
            .map_err(|problem| Error::Malformed { url: shown(&url), problem })
    }

    /// The endpoint sets of the latest version.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub async fn endpoints(&self, instance: Instance) -> Result<EndpointSets, Error> {
        let url = self.url("endpoints", instance)?;
        let body = self.http.get(&url, MAX_BYTES).await?;
        parse_endpoints(&body).map_err(|problem| Error::Malformed { url: shown(&url), problem })
    }

    fn url(&self, method: &str, instance: Instance) -> Result<Uri, Error> {
        let text = format!("{}/{method}/{instance}?ClientRequestId={}", self.base_url, self.id);
        text.parse().map_err(|_| Error::Url(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::fetch::stand_in::{Server, answer};

    const SETS: &str = r#"[{"id":1,"serviceArea":"Exchange","ips":["40.96.0.0/13"]}]"#;

    fn version(number: &str) -> String {
        answer("200 OK", "", &format!(r#"{{"instance":"Worldwide","latest":"{number}"}}"#))
    }

    fn sets() -> String {
        answer("200 OK", "", SETS)
    }

    async fn collect(server: &Server, applied: Option<&str>) -> Result<Collected, Error> {
        let id = RequestId::parse("f2c1a0a6-5a5e-4c39-9f6b-3d3f1f4c2b11").unwrap();
        let client = Client::new(&server.base_url(), id, &server.options()).unwrap();
        let applied = applied.map(|number| number.parse().unwrap());
        client.collect(Instance::Worldwide, applied).await
    }

    #[tokio::test]
    async fn the_sets_are_asked_for_only_if_the_version_is_another() {
        let server = Server::start(&[version("2026112300")], false).await;
        let collected = collect(&server, Some("2026112300")).await.unwrap();
        assert_eq!(collected, Collected::Unchanged("2026112300".parse().unwrap()));
        assert_eq!(
            server.asked(),
            [
                "GET /version/Worldwide?ClientRequestId=f2c1a0a6-5a5e-4c39-9f6b-3d3f1f4c2b11 HTTP/1.1"
            ]
        );

        // Also if it is an older one: Microsoft may take a publication back.
        for applied in [None, Some("2026102900"), Some("2026122300")] {
            let script = [version("2026112300"), sets(), version("2026112300")];
            let server = Server::start(&script, false).await;
            let Collected::New(answer) = collect(&server, applied).await.unwrap() else {
                panic!("{applied:?} is not the latest")
            };
            assert_eq!(answer.version, "2026112300".parse().unwrap());
            assert_eq!(answer.sets.into_sets().len(), 1);
            assert!(server.asked()[1].starts_with("GET /endpoints/Worldwide?ClientRequestId="));
        }
    }

    #[tokio::test]
    async fn a_publication_between_the_two_requests_is_not_paired_with_the_old_version() {
        let old = answer("200 OK", "", "[]");
        let script =
            [version("2026102900"), old, version("2026112300"), sets(), version("2026112300")];
        let server = Server::start(&script, false).await;
        let Collected::New(answer) = collect(&server, None).await.unwrap() else {
            panic!("nothing was applied")
        };
        assert_eq!(answer.version, "2026112300".parse().unwrap());
        assert_eq!(answer.sets.into_sets().len(), 1);
        assert_eq!(server.asked().len(), 5);
    }

    #[tokio::test]
    async fn a_version_that_never_rests_is_given_up() {
        let mut script = vec![version("2026112300")];
        for number in ["2026112301", "2026112302", "2026112303"] {
            script.extend([sets(), version(number)]);
        }
        let server = Server::start(&script, false).await;
        assert_eq!(collect(&server, None).await.unwrap_err().name(), "moving");
    }

    #[tokio::test]
    async fn what_is_no_answer_of_the_service_is_named_with_its_url() {
        for (script, name) in [
            (vec![answer("200 OK", "", "<html>")], "not_json"),
            (vec![version("20261123")], "malformed"),
            (vec![version("2026112300"), answer("200 OK", "", "{}")], "malformed"),
            (vec![version("2026112300"), answer("503 Busy", "", "")], "server_error"),
            (vec![version("2026112300"), sets(), answer("429 Slow", "", "")], "throttled"),
        ] {
            let server = Server::start(&script, false).await;
            let error = collect(&server, None).await.unwrap_err();
            assert_eq!(error.name(), name);
            assert!(error.to_string().contains(&server.base_url()), "{error}");
        }
    }
}
