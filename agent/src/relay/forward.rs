//! What of a request goes on to the upstream, and what is added.
//!
//! Kept: what the sender said about the notification. Dropped: what belongs to
//! the connection (the pool does that), credentials of the sender unless the route
//! keeps them, those of NTLM and Negotiate always, and every claim about who forwarded the request, because anybody
//! can make it. Added: who the sender was, under the usual names, and for a stored
//! notification its identity.

use std::net::IpAddr;

use hyper::{
    HeaderMap, Method,
    body::Bytes,
    header::{
        ACCEPT_ENCODING, AUTHORIZATION, COOKIE, FORWARDED, HOST, HeaderName, HeaderValue, VIA,
    },
    http::uri::PathAndQuery,
};

use super::{
    proxy::binding,
    route::rewrite,
    spool::{Message, RecordId},
    upstream::{Outbound, Payload, remove_hop_by_hop},
};
use crate::config::{Route, RouteKind};

/// The field that identifies a notification: the same in every attempt to deliver
/// it (draft-ietf-httpapi-idempotency-key-header).
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// Fields that only the relay may set.
const OURS: [HeaderName; 4] =
    [FORWARDED, VIA, HeaderName::from_static("x-real-ip"), IDEMPOTENCY_KEY];

/// Removes what does not go on, and says who the sender was.
pub(super) fn clean(headers: &mut HeaderMap, route: &Route, host: &str, source: IpAddr) {
    // First: a sender's `Connection` must not name a field that is set below, or
    // that field would not go on.
    remove_hop_by_hop(headers);
    // Between a client and its server it is theirs.
    let is_theirs = matches!(route.kind, RouteKind::Proxy(_));
    if !route.keep_credentials {
        headers.remove(AUTHORIZATION);
        headers.remove(COOKIE);
    }
    if !is_theirs && binding::authenticates(headers) {
        // They would hold for a connection that others use next.
        headers.remove(AUTHORIZATION);
    }
    let claims: Vec<HeaderName> =
        headers.keys().filter(|name| name.as_str().starts_with("x-forwarded-")).cloned().collect();
    for name in OURS.iter().chain(&claims) {
        if !(is_theirs && *name == IDEMPOTENCY_KEY) {
            headers.remove(name);
        }
    }
    headers.remove(HOST);
    if let Ok(source) = HeaderValue::from_str(&source.to_canonical().to_string()) {
        headers.insert(X_FORWARDED_FOR, source);
    }
    if let Ok(host) = HeaderValue::from_str(host) {
        headers.insert(X_FORWARDED_HOST, host);
    }
    headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static("https"));
}

/// A POST for the upstream of a route, made of cleaned header fields, whose answer the
/// relay reads. `None` if the route does not take the target.
pub(super) fn outbound(
    route: &Route,
    target: &PathAndQuery,
    mut headers: HeaderMap,
    body: Bytes,
) -> Option<Outbound> {
    let path_and_query = rewrite(route, target)?;
    // The sender may be able to read what we are not.
    headers.remove(ACCEPT_ENCODING);
    Some(Outbound { method: Method::POST, path_and_query, headers, body: Payload::Whole(body) })
}

/// The header fields of a stored notification. What is not text is not stored; no
/// sender of notifications has any.
pub(super) fn stored(headers: &HeaderMap) -> Vec<(String, String)> {
    let text = |value: &HeaderValue| value.to_str().ok().map(str::to_owned);
    let pair = |(name, value): (&HeaderName, _)| Some((name.as_str().to_owned(), text(value)?));
    headers.iter().filter_map(pair).collect()
}

/// The request that delivers a stored notification. `None` if the route does not
/// take it any more.
pub(super) fn delivery(route: &Route, message: &Message, id: RecordId) -> Option<Outbound> {
    let target = PathAndQuery::try_from(message.target.as_str()).ok()?;
    let field = |(name, value): &(String, String)| {
        Some((name.parse::<HeaderName>().ok()?, HeaderValue::from_str(value).ok()?))
    };
    let mut headers: HeaderMap = message.headers.iter().filter_map(field).collect();
    if let Ok(id) = HeaderValue::from_str(&id.to_string()) {
        headers.insert(IDEMPOTENCY_KEY, id);
    }
    outbound(route, &target, headers, message.body.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Graph, Handshake, PathRule};

    fn route() -> Route {
        Route {
            name: "graph".to_owned(),
            host: None,
            path: PathRule::Exact("/graph".to_owned()),
            upstream: 0,
            upstream_path: Some("/behind".to_owned()),
            body_bytes: 1 << 20,
            keep_credentials: false,
            silent_after: None,
            kind: RouteKind::Graph(Graph {
                handshake: Handshake::Local,
                client_state_file: None,
                tenants: vec![],
                subscriptions: vec![],
                tokens: None,
            }),
        }
    }

    fn headers(fields: &[(&str, &str)]) -> HeaderMap {
        let field = |(name, value): &(&str, &str)| {
            (name.parse::<HeaderName>().unwrap(), value.parse().unwrap())
        };
        fields.iter().map(field).collect()
    }

    #[test]
    fn nobody_but_the_relay_says_who_sent_it() {
        let mut given = headers(&[
            ("host", "notify.example.com"),
            ("authorization", "Basic AAAA"),
            ("cookie", "PegaRULES=x"),
            ("x-forwarded-for", "192.0.2.1"),
            ("x-forwarded-client-cert", "x"),
            ("x-real-ip", "192.0.2.1"),
            ("forwarded", "for=192.0.2.1"),
            ("via", "1.1 somebody"),
            ("idempotency-key", "mine"),
            ("content-type", "application/json"),
            ("x-ms-client", "kept"),
        ]);
        let source = "::ffff:40.96.1.2".parse().unwrap();
        clean(&mut given, &route(), "notify.example.com", source);
        let expected = headers(&[
            ("content-type", "application/json"),
            ("x-ms-client", "kept"),
            ("x-forwarded-for", "40.96.1.2"),
            ("x-forwarded-host", "notify.example.com"),
            ("x-forwarded-proto", "https"),
        ]);
        assert_eq!(given, expected);
    }

    #[test]
    fn nobody_is_taken_for_who_was_there_before_him() {
        let route = Route { keep_credentials: true, ..route() };
        for (given, kept) in [("Negotiate YII=", false), ("NTLM TlRM", false), ("Basic AA", true)] {
            let mut given = headers(&[("authorization", given)]);
            clean(&mut given, &route, "notify.example.com", IpAddr::from([192, 0, 2, 1]));
            assert_eq!(given.contains_key(AUTHORIZATION), kept);
        }
    }

    #[test]
    fn an_answer_that_is_read_here_is_not_compressed() {
        let given = headers(&[("accept-encoding", "gzip"), ("accept", "*/*")]);
        let target = PathAndQuery::from_static("/graph");
        let outbound = outbound(&route(), &target, given, Bytes::new()).unwrap();
        assert_eq!(outbound.headers, headers(&[("accept", "*/*")]));
    }

    #[test]
    fn a_sender_cannot_have_the_relay_drop_what_it_says() {
        let mut given = headers(&[
            ("connection", "close, X-Forwarded-For, Idempotency-Key"),
            ("connection", "x-forwarded-host"),
        ]);
        clean(&mut given, &route(), "notify.example.com", IpAddr::from([192, 0, 2, 1]));
        let message = Message {
            route: "graph".to_owned(),
            target: "/graph".to_owned(),
            headers: stored(&given),
            source: None,
            body: Bytes::new(),
        };
        let mut sent = delivery(&route(), &message, RecordId::new()).unwrap().headers;
        remove_hop_by_hop(&mut sent);
        for name in [IDEMPOTENCY_KEY, X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PROTO] {
            assert!(sent.contains_key(&name), "{name}");
        }
    }

    #[test]
    fn credentials_go_on_where_the_route_keeps_them() {
        let mut given = headers(&[("authorization", "Basic AAAA")]);
        let route = Route { keep_credentials: true, ..route() };
        clean(&mut given, &route, "host", IpAddr::from([192, 0, 2, 1]));
        assert_eq!(given.get(AUTHORIZATION).unwrap(), "Basic AAAA");
    }

    #[test]
    fn a_stored_notification_is_delivered_as_it_came_and_with_its_identity() {
        let message = Message {
            route: "graph".to_owned(),
            target: "/graph?UserIdentifier=a&tenant=1".to_owned(),
            headers: stored(&headers(&[
                ("content-type", "application/json"),
                ("x-a", "1"),
                ("x-a", "2"),
            ])),
            source: None,
            body: Bytes::from_static(b"{}"),
        };
        let id = RecordId::new();
        let request = delivery(&route(), &message, id).unwrap();
        assert_eq!(request.path_and_query.as_str(), "/behind?tenant=1");
        assert_eq!(request.headers.get("idempotency-key").unwrap(), &id.to_string());
        assert_eq!(request.headers.get_all("x-a").iter().count(), 2);
        let gone = Route { path: PathRule::Exact("/other".to_owned()), ..route() };
        assert!(delivery(&gone, &message, id).is_none());
    }
}
