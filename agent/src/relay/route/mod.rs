//! Host and path to a route; what is checked is what is forwarded.
//!
//! Proxies are fooled where two of them read one request in two ways. So a
//! target is read once, by [`Target::parse`], into the only form that anything
//! later sees: the choice of the route, the checks, the store and the request to
//! the upstream. What could be read in another way is refused, with a
//! [`BadTarget`], and reaches no upstream; so is what no route takes.

mod head;
mod path;
mod query;
mod target;

use std::cmp::Reverse;

use hyper::http::uri::PathAndQuery;

pub use self::{
    head::{is_of_type, single},
    query::{parameters, without_parameters},
    target::{BadTarget, Target},
};
use crate::config::{PathRule, Relay, Route};

/// Parameters of the query that carry the credentials of a Pega operator.
pub const CREDENTIALS: [&str; 2] = ["UserIdentifier", "Password"];

/// The routes, in the order in which they are asked.
#[derive(Clone, Debug)]
pub struct Routes(Vec<(usize, Route)>);

/// The route that takes a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found<'a> {
    /// Its place in [`Relay::routes`].
    pub place: usize,
    /// The route.
    pub route: &'a Route,
    /// What follows the prefix in the path; empty for an exact path.
    pub remainder: &'a str,
}

impl Routes {
    /// The routes of a configuration.
    #[must_use]
    pub fn new(config: &Relay) -> Self {
        let mut routes: Vec<_> = config.routes.iter().cloned().enumerate().collect();
        for (_, route) in &mut routes {
            // As hosts of targets are.
            let plain = |host: &String| host.trim_end_matches('.').to_ascii_lowercase();
            route.host = route.host.as_ref().map(plain);
        }
        routes.sort_by_key(|(_, route)| {
            let (is_prefix, length) = match &route.path {
                PathRule::Exact(path) => (false, path.len()),
                PathRule::Prefix(prefix) => (true, prefix.len()),
            };
            (route.host.is_none(), is_prefix, Reverse(length))
        });
        Self(routes)
    }

    /// The route that takes a target: one for its host before one for any host,
    /// then an exact path before a prefix, then the longest prefix.
    #[must_use]
    pub fn find<'a>(&'a self, target: &'a Target) -> Option<Found<'a>> {
        self.0.iter().find_map(|(place, route)| {
            if route.host.as_ref().is_some_and(|host| host != target.host()) {
                return None;
            }
            let remainder = remainder(&route.path, target.path())?;
            Some(Found { place: *place, route, remainder })
        })
    }
}

/// What the upstream of a route is asked for: the target with the matched part
/// replaced, and without credentials unless the route keeps them. The target is a
/// normalised one, from [`Target::path_and_query`] or out of a store.
///
/// `None` if the route does not take this path: it was changed since the target
/// was stored.
#[must_use]
pub fn rewrite(route: &Route, target: &PathAndQuery) -> Option<PathAndQuery> {
    let remainder = remainder(&route.path, target.path())?;
    let query = target.query().map(|query| match route.keep_credentials {
        true => query.into(),
        false => without_parameters(query, &CREDENTIALS),
    });
    if route.upstream_path.is_none() && query.as_deref() == target.query() {
        return Some(target.clone());
    }
    let mut text = match &route.upstream_path {
        Some(path) => [path, remainder].concat(),
        None => target.path().to_owned(),
    };
    if let Some(query) = query.filter(|query| !query.is_empty()) {
        text.push('?');
        text.push_str(&query);
    }
    PathAndQuery::try_from(text).ok()
}

/// What follows the matched part of a path, if it matches.
fn remainder<'a>(rule: &PathRule, path: &'a str) -> Option<&'a str> {
    match rule {
        PathRule::Exact(exact) => (path == exact).then_some(""),
        PathRule::Prefix(prefix) => path.strip_prefix(prefix.as_str()),
    }
}

#[cfg(test)]
mod tests;
