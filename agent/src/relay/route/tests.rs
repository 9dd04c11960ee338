use hyper::Request;
use proptest::prelude::*;

use super::{path::normalise, *};
use crate::config::{Graph, Handshake, RouteKind};

fn parse(uri: &str, hosts: &[&str]) -> Result<Target, BadTarget> {
    let mut request = Request::builder().uri(uri);
    for host in hosts {
        request = request.header("host", *host);
    }
    Target::parse(&request.body(()).unwrap().into_parts().0)
}

fn target(uri: &str) -> Target {
    parse(uri, &["example.com"]).unwrap()
}

fn route(name: &str, host: Option<&str>, path: PathRule, upstream_path: Option<&str>) -> Route {
    Route {
        name: name.to_owned(),
        host: host.map(str::to_owned),
        path,
        upstream: 0,
        upstream_path: upstream_path.map(str::to_owned),
        body_bytes: 1 << 20,
        keep_credentials: false,
        silent_after: None,
        kind: RouteKind::Graph(Graph {
            handshake: Handshake::Local,
            client_state_file: None,
            tenants: Vec::new(),
            subscriptions: Vec::new(),
            tokens: None,
        }),
    }
}

fn exact(path: &str) -> PathRule {
    PathRule::Exact(path.to_owned())
}

fn prefix(path: &str) -> PathRule {
    PathRule::Prefix(path.to_owned())
}

fn routes(routes: Vec<Route>) -> Routes {
    Routes::new(&Relay { routes, ..Relay::default() })
}

#[test]
fn a_path_has_one_form() {
    for (path, normal) in [
        ("/", "/"),
        ("/a/b/", "/a/b/"),
        ("/%61%2d%2E%7ex", "/a-.~x"),
        ("/a%3fb%20c", "/a%3Fb%20c"),
        ("/...", "/..."),
        ("/a@b:c,d=e", "/a@b:c,d=e"),
    ] {
        assert_eq!(normalise(path).as_deref(), Ok(normal), "{path}");
    }
}

#[test]
fn what_could_be_read_in_two_ways_is_refused() {
    for (path, reason) in [
        ("/a/../b", BadTarget::DotSegment),
        ("/a/.", BadTarget::DotSegment),
        ("/%2e%2E/b", BadTarget::DotSegment),
        ("/.%2e", BadTarget::DotSegment),
        ("//a", BadTarget::EmptySegment),
        ("/a//b", BadTarget::EmptySegment),
        ("/a%2fb", BadTarget::Encoded),
        ("/a%5Cb", BadTarget::Encoded),
        ("/a%252e", BadTarget::Encoded),
        ("/a%3bb", BadTarget::Encoded),
        ("/a\\b", BadTarget::Backslash),
        ("/a;jsessionid=1", BadTarget::PathParameter),
        ("/a%00", BadTarget::Byte),
        ("/a%0d%0ab", BadTarget::Byte),
        ("/a%7f", BadTarget::Byte),
        ("/%c0%af", BadTarget::Byte),
        ("/é", BadTarget::Byte),
        ("/a b", BadTarget::Byte),
        ("/a%", BadTarget::Escape),
        ("/a%4", BadTarget::Escape),
        ("/a%4g", BadTarget::Escape),
        ("/a%+1", BadTarget::Escape),
        ("*", BadTarget::Form),
        ("a", BadTarget::Form),
        ("", BadTarget::Form),
    ] {
        assert_eq!(normalise(path), Err(reason), "{path}");
    }
}

#[test]
fn only_a_path_is_a_target() {
    assert_eq!(parse("*", &["a"]), Err(BadTarget::Form));
    assert_eq!(parse("a.example:443", &["a.example:443"]), Err(BadTarget::Form));
    let long = format!("/{}", "a".repeat(8192));
    assert_eq!(parse(&long, &["a"]), Err(BadTarget::TooLong));
}

#[test]
fn the_host_is_named_once() {
    for host in ["Example.COM", "example.com:443", "example.com.", "example.com.:8443"] {
        assert_eq!(parse("/", &[host]).unwrap().host(), "example.com", "{host}");
    }
    assert_eq!(parse("/", &["[2001:DB8::1]:443"]).unwrap().host(), "[2001:db8::1]");
    let absolute = "https://Example.com/a?b";
    for hosts in [&[][..], &["example.com:443"]] {
        let target = parse(absolute, hosts).unwrap();
        assert_eq!(
            (target.host(), target.path(), target.query()),
            ("example.com", "/a", Some("b"))
        );
    }
    assert_eq!(parse(absolute, &["other.example"]), Err(BadTarget::SeveralHosts));
    assert_eq!(parse("/", &["a", "a"]), Err(BadTarget::SeveralHosts));
    assert_eq!(parse("/", &[]), Err(BadTarget::NoHost));
    for host in ["", ".", "a b", "user@a", "a/b", "a:b", "[::1", "[x]", "[::1]x", "a:1:2", "a,b"] {
        assert_eq!(parse("/", &[host]), Err(BadTarget::Host), "{host}");
    }
}

#[test]
fn an_empty_path_is_a_slash() {
    let target = parse("https://example.com?a=b", &[]).unwrap();
    assert_eq!(target.path_and_query().as_str(), "/?a=b");
}

#[test]
fn a_query_stays_as_it_is_unless_it_has_control_characters() {
    let query = "a=%2f%2E&b=+c;d&&=&%zz";
    assert_eq!(target(&format!("/x?{query}")).query(), Some(query));
    for query in ["a=%0d%0A", "a=%00", "%7f", "a=é"] {
        let uri = format!("/x?{query}");
        assert_eq!(parse(&uri, &["example.com"]), Err(BadTarget::Query), "{query}");
    }
}

#[test]
fn parameters_are_decoded_like_those_of_a_form() {
    let query = "validationToken=Validation%3a+a%2bb&flag&&x=1=2&%79=";
    let found: Vec<_> = parameters(query)
        .map(|(name, value)| {
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            (text(&name), text(&value))
        })
        .collect();
    let expected = [("validationToken", "Validation: a+b"), ("flag", ""), ("x", "1=2"), ("y", "")];
    assert!(found.iter().map(|(n, v)| (n.as_str(), v.as_str())).eq(expected), "{found:?}");
}

#[test]
fn credentials_are_taken_out_and_the_rest_stays() {
    for (query, rest) in [
        ("a=%7e&UserIdentifier=op&b=1&Password=eA==", "a=%7e&b=1"),
        ("useridentifier=op&PASSWORD", ""),
        ("%50assword=x&passwords=y", "passwords=y"),
        ("a=Password&&b", "a=Password&&b"),
    ] {
        assert_eq!(without_parameters(query, &CREDENTIALS), rest);
    }
}

#[test]
fn logs_show_no_values() {
    let target = target("/hook?key=s3cret&s3cret2&a=");
    assert_eq!(target.redacted(), "example.com/hook?key=...&...&a=...");
    assert!(!format!("{target:?}").contains("s3cret"));
}

#[test]
fn the_most_specific_route_is_asked_first() {
    let routes = routes(vec![
        route("any-prefix", None, prefix("/"), None),
        route("any-exact", None, exact("/a/b"), None),
        route("short", Some("Example.com."), prefix("/a/"), None),
        route("long", Some("example.com"), prefix("/a/b/"), None),
        route("exact", Some("example.com"), exact("/a/b/c"), None),
    ]);
    let find = |uri: &str, host: &str| {
        let target = parse(uri, &[host]).unwrap();
        let found = routes.find(&target).unwrap();
        (found.place, found.route.name.clone(), found.remainder.to_owned())
    };
    let expect = |place, name: &str, rest: &str| (place, name.to_owned(), rest.to_owned());
    assert_eq!(find("/a/b/c", "EXAMPLE.com:443"), expect(4, "exact", ""));
    assert_eq!(find("/a/b/c/", "example.com"), expect(3, "long", "c/"));
    assert_eq!(find("/a/b", "example.com"), expect(2, "short", "b"));
    assert_eq!(find("/a/b", "other.example"), expect(1, "any-exact", ""));
    assert_eq!(find("/a", "example.com"), expect(0, "any-prefix", "a"));
}

#[test]
fn what_no_route_takes_is_not_found() {
    let routes = routes(vec![
        route("exact", Some("example.com"), exact("/hook"), None),
        route("prefix", None, prefix("/hooks/"), None),
    ]);
    for (uri, host) in [
        ("/hook", "other.example"),
        ("/hook/", "example.com"),
        ("/Hook", "example.com"),
        ("/hook%20", "example.com"),
        ("/hooks", "example.com"),
    ] {
        assert_eq!(routes.find(&parse(uri, &[host]).unwrap()), None, "{host}{uri}");
    }
    assert!(routes.find(&target("/%68ook?x")).is_some());
}

#[test]
fn the_matched_part_is_replaced() {
    let rewritten = |route: &Route, uri: &str| {
        let target = target(uri);
        rewrite(route, target.path_and_query()).map(|target| target.as_str().to_owned())
    };
    let whole = route("a", None, exact("/hook"), Some("/prweb/n"));
    assert_eq!(rewritten(&whole, "/hook?a=%2f"), Some("/prweb/n?a=%2f".to_owned()));
    assert_eq!(rewritten(&whole, "/hook?Password=x"), Some("/prweb/n".to_owned()));
    assert_eq!(rewritten(&whole, "/hook2"), None);
    let part = route("a", None, prefix("/hooks/"), Some("/n/"));
    assert_eq!(rewritten(&part, "/hooks/%62?"), Some("/n/b".to_owned()));
    let same = route("a", None, prefix("/hooks/"), None);
    assert_eq!(rewritten(&same, "/hooks/b?a&password=1"), Some("/hooks/b?a".to_owned()));
    let keeping = Route { keep_credentials: true, ..same };
    assert_eq!(rewritten(&keeping, "/hooks/b?Password=1"), Some("/hooks/b?Password=1".to_owned()));
}

/// Paths that are made of what matters.
fn paths() -> impl Strategy<Value = String> {
    let pieces = prop::sample::select(vec![
        "/", "//", ".", "..", "%2e", "%2E", "%2f", "%5c", "%25", "%", "%4", "%41", "%3f", "%00",
        "%80", "\\", ";", "?", "a", "hook", "~", "é", "\u{7f}", " ",
    ]);
    prop_oneof![
        prop::collection::vec(pieces, 0..8).prop_map(|pieces| format!("/{}", pieces.concat())),
        any::<String>(),
    ]
}

proptest! {
    #[test]
    fn normalising_twice_is_normalising_once(path in paths()) {
        if let Ok(once) = normalise(&path) {
            let twice = normalise(&once);
            prop_assert_eq!(twice.as_deref(), Ok(&*once));
        }
    }

    #[test]
    fn what_was_refused_is_never_forwarded(path in paths(), query in "[ -~]{0,20}") {
        let Ok(uri) = format!("{path}?{query}").parse::<hyper::Uri>() else { return Ok(()) };
        let request = Request::builder().uri(uri).header("host", "a").body(()).unwrap();
        let Ok(target) = Target::parse(&request.into_parts().0) else { return Ok(()) };
        let routes = routes(vec![route("all", None, prefix("/"), Some("/up/"))]);
        let found = routes.find(&target).unwrap();
        let forwarded = rewrite(found.route, target.path_and_query()).unwrap();
        let path = forwarded.path();
        let decoded = percent_encoding::percent_decode_str(path).decode_utf8().unwrap();
        prop_assert!(path.starts_with("/up/"));
        prop_assert!(decoded.bytes().all(|b| matches!(b, b' '..=b'~')), "{path}");
        prop_assert!(!decoded.contains(['\\', ';', '%']), "{path}");
        prop_assert!(!decoded.contains("//"), "{path}");
        prop_assert_eq!(decoded.matches('/').count(), path.matches('/').count());
        prop_assert!(!decoded.split('/').any(|s| s == "." || s == ".."), "{path}");
    }

    #[test]
    fn an_exact_route_takes_its_path_alone(path in paths()) {
        let routes = routes(vec![route("one", None, exact("/a/hook"), None)]);
        let Ok(uri) = path.parse::<hyper::Uri>() else { return Ok(()) };
        let request = Request::builder().uri(uri).header("host", "a").body(()).unwrap();
        if let Ok(target) = Target::parse(&request.into_parts().0) {
            prop_assert_eq!(routes.find(&target).is_some(), target.path() == "/a/hook");
        }
    }

    #[test]
    fn any_query_is_read(query in any::<String>()) {
        let _ = parameters(&query).count();
        let rest = without_parameters(&query, &CREDENTIALS);
        prop_assert_eq!(without_parameters(&rest, &CREDENTIALS), rest.as_ref());
    }
}
