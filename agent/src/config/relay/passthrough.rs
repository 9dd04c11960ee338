//! `[passthrough.NAME]`.

use std::time::Duration;

use serde::Deserialize;

use super::{super::value, Upstream, route};

/// TLS that is passed on as it is, by the name that clients ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passthrough {
    /// Lower-case letters, digits and dashes.
    pub name: String,
    /// The names that clients ask for, in lower case.
    pub server_names: Vec<String>,
    /// The place of its upstream in [`super::Relay::upstreams`].
    pub upstream: usize,
    /// How long nothing may come from either end.
    pub idle_timeout: Duration,
}

/// `[passthrough.NAME]` as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct RawPassthrough {
    /// The names that clients ask for in TLS.
    server_names: Vec<String>,
    /// The name of an upstream.
    upstream: String,
    /// How long nothing may come from either end.
    #[serde(default = "longest_silence", deserialize_with = "value::duration")]
    idle_timeout: Duration,
}

const fn longest_silence() -> Duration {
    route::LONGEST_SILENCE
}

impl RawPassthrough {
    pub(super) fn define(&self, name: &str, upstreams: &[Upstream]) -> Result<Passthrough, String> {
        if self.server_names.is_empty() {
            return Err("a passthrough needs server_names = [\"mail.example.com\"]".to_owned());
        }
        let names = self.server_names.iter().map(|name| route::host_name(name));
        if !(1..=7200).contains(&self.idle_timeout.as_secs()) {
            return Err("idle_timeout must be \"1s\" to \"2h\"".to_owned());
        }
        let upstream = route::place_of(&self.upstream, upstreams)?;
        if upstreams.get(upstream).is_some_and(|upstream| upstream.proxy.is_some()) {
            return Err("a passthrough needs an upstream without proxy".to_owned());
        }
        Ok(Passthrough {
            name: name.to_owned(),
            server_names: names.collect::<Result<_, _>>()?,
            upstream,
            idle_timeout: self.idle_timeout,
        })
    }
}
