//! The relay: `[[listener]]`, `[route.NAME]`, `[passthrough.NAME]`, `[upstream.NAME]`, `[spool]` and
//! `[relay]`.
//!
//! Without a listener there is no relay, and the agent is a filter alone; a route that
//! nothing can reach is a mistake. Names are resolved here: a [`Route`] knows its upstream by its place. Secrets are
//! not part of the configuration; it names the files that hold them.

mod listener;
mod passthrough;
mod proxy;
mod route;
mod spool;
mod upstream;

use std::{collections::BTreeMap, path::Path, time::Duration};

use serde::Deserialize;
use toml::Spanned;

pub(super) use self::{
    listener::RawListener, passthrough::RawPassthrough, route::RawRoute, spool::RawSpool,
    upstream::RawUpstream,
};
pub use self::{
    listener::{Certificate, ClientCertificates, Limits, Listener, ListenerAddress, TlsVersion},
    passthrough::Passthrough,
    proxy::{Maintenance, Proxy},
    route::{Delivery, Ews, Graph, Handshake, PathRule, QuerySecret, Route, RouteKind, Tokens},
    spool::{Jetstream, Spool, Store},
    upstream::{Balance, BasicCredentials, Breaker, HealthCheck, Upstream},
};
use super::{error::Fault, source::check_name, value};

/// All that the relay is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Relay {
    /// Where requests come in; none: no relay.
    pub listeners: Vec<Listener>,
    /// What is taken, and where it goes.
    pub routes: Vec<Route>,
    /// TLS that is passed on as it is.
    pub passthroughs: Vec<Passthrough>,
    /// The servers behind it.
    pub upstreams: Vec<Upstream>,
    /// Where notifications wait.
    pub spool: Spool,
    /// What belongs to none of them.
    pub general: General,
}

impl Relay {
    /// Whether there is a relay at all.
    #[must_use]
    pub fn is_on(&self) -> bool {
        !self.listeners.is_empty()
    }

    /// How long a stop waits for requests and deliveries that are under way. Where nothing is
    /// said, 1 s for notifications: a server that hangs must not hold up a restart, and what
    /// is cut comes again, from Microsoft or from the spool (servers of a JetStream cluster that
    /// do not answer take up to 4 s more). A client's upload does not, so
    /// it is 30 s where requests are proxied.
    #[must_use]
    pub fn drain(&self) -> Duration {
        let proxies = self.routes.iter().any(|route| matches!(route.kind, RouteKind::Proxy(_)));
        let usual = if proxies || !self.passthroughs.is_empty() { 30 } else { 1 };
        self.general.drain.unwrap_or(Duration::from_secs(usual))
    }

    /// Whether any route stores before it answers.
    #[must_use]
    pub fn needs_spool(&self) -> bool {
        self.is_on() && self.routes.iter().any(Route::is_stored)
    }
}

/// `[relay]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct General {
    /// How long a stop waits for what is under way; see [`Relay::drain`].
    #[serde(deserialize_with = "value::some_duration")]
    pub drain: Option<Duration>,
    /// Whether each request is logged.
    pub access_log: bool,
    /// Bytes of bodies that are held in memory at once, of all routes together.
    #[serde(deserialize_with = "value::size")]
    pub body_memory: usize,
}

impl Default for General {
    fn default() -> Self {
        Self { drain: None, access_log: false, body_memory: 256 << 20 }
    }
}

/// The relay's sections as they are written.
pub(super) struct Raw<'a> {
    pub(super) listeners: &'a [Spanned<RawListener>],
    pub(super) routes: &'a BTreeMap<Spanned<String>, Spanned<RawRoute>>,
    pub(super) passthroughs: &'a BTreeMap<Spanned<String>, Spanned<RawPassthrough>>,
    pub(super) upstreams: &'a BTreeMap<Spanned<String>, Spanned<RawUpstream>>,
    pub(super) spool: &'a Spanned<RawSpool>,
    pub(super) general: &'a General,
    pub(super) state_directory: &'a Path,
    /// Guarded TCP ports.
    pub(super) guarded: &'a [u16],
}

/// Checks the sections and turns names into places.
pub(super) fn resolve(raw: &Raw<'_>) -> Result<Relay, Fault> {
    let mut upstreams = Vec::new();
    for (name, upstream) in raw.upstreams {
        let fault = |message| Fault::new(name.span(), message);
        check_name(name.get_ref()).map_err(fault)?;
        upstreams.push(upstream.get_ref().define(name.get_ref()).map_err(fault)?);
    }
    let mut routes: Vec<Route> = Vec::new();
    for (name, route) in raw.routes {
        let fault = |message| Fault::new(name.span(), message);
        check_name(name.get_ref()).map_err(fault)?;
        let route = route.get_ref().define(name.get_ref(), &upstreams).map_err(fault)?;
        if let Some(other) = routes.iter().find(|other| other.is_same_place(&route)) {
            let message = format!(
                "routes {} and {} take the same host and path; one would never be asked",
                other.name, route.name
            );
            return Err(fault(message));
        }
        routes.push(route);
    }
    let mut passthroughs: Vec<Passthrough> = Vec::new();
    for (name, passthrough) in raw.passthroughs {
        let fault = |message| Fault::new(name.span(), message);
        check_name(name.get_ref()).map_err(fault)?;
        let one = passthrough.get_ref().define(name.get_ref(), &upstreams).map_err(fault)?;
        for server_name in &one.server_names {
            let taken = passthroughs.iter().find(|other| other.server_names.contains(server_name));
            let route = routes.iter().find(|route| route.host.as_ref() == Some(server_name));
            let other = taken
                .map(|other| format!("passthrough {}", other.name))
                .or_else(|| route.map(|route| format!("route {}", route.name)));
            if let Some(other) = other {
                let message = format!("{server_name} is the name of {other} too");
                return Err(fault(message));
            }
        }
        passthroughs.push(one);
    }
    if raw.listeners.is_empty()
        && let Some(name) = raw.routes.keys().chain(raw.passthroughs.keys()).next()
    {
        let message = format!("nothing can reach {}: there is no [[listener]]", name.get_ref());
        return Err(Fault::new(name.span(), message));
    }
    let mut listeners = Vec::new();
    for listener in raw.listeners {
        let fault = |message| Fault::new(listener.span(), message);
        let proxies = routes.iter().any(|route| matches!(route.kind, RouteKind::Proxy(_)));
        listeners.push(
            listener
                .get_ref()
                .define(raw.guarded, proxies, !passthroughs.is_empty())
                .map_err(fault)?,
        );
    }
    let spool = raw.spool.get_ref().define(raw.state_directory);
    let spool = spool.map_err(|message| Fault::new(raw.spool.span(), message))?;
    let general = raw.general.clone();
    let held = routes.iter().filter(|route| !matches!(route.kind, RouteKind::Proxy(_)));
    if let Some(route) = held.max_by_key(|route| route.body_bytes)
        && general.body_memory < route.body_bytes
    {
        let message = format!(
            "relay.body_memory must be at least body_size of each route; {} has {} bytes",
            route.name, route.body_bytes
        );
        let name = raw.routes.keys().find(|name| *name.get_ref() == route.name);
        return Err(Fault::new(name.map_or(0..0, Spanned::span), message));
    }
    Ok(Relay { listeners, routes, passthroughs, upstreams, spool, general })
}

#[cfg(test)]
mod tests;
