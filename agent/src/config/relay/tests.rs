//! What a configuration of the relay may say.

use std::path::Path;

use super::*;
use crate::config::Config;

const WHOLE: &str = r#"
[[listener]]
address = "[::]:443"
certificates = [{ chain = "/chain.pem", key = "/key.pem" }]

[upstream.pega]
servers = ["https://pega1.example.com:8443", "http://192.0.2.1"]

[route.graph]
kind = "graph"
host = "Notify.Example.com"
path = "/graph/secret"
upstream = "pega"

[route.ews]
kind = "ews"
path_prefix = "/ews/"
upstream = "pega"
upstream_path = "/prweb/"
"#;

const PROXY: &str = r#"
[[listener]]
address = "[::]:443"
certificates = [{ chain = "/chain.pem", key = "/key.pem" }]
# of the listener

[upstream.exchange]
servers = ["https://exchange1.example.com"]
response_timeout = "5m"
# of the upstream

[route.exchange]
kind = "proxy"
path_prefix = "/EWS/"
upstream = "exchange"
# of the route
"#;

fn parse(text: &str) -> Result<Config, String> {
    Config::parse(Path::new("exogate.toml"), text).map_err(|error| error.to_string())
}

#[test]
fn names_are_resolved_and_defaults_are_those_of_the_field() {
    let relay = parse(WHOLE).unwrap().relay;
    assert!(relay.is_on() && relay.needs_spool());
    let [ews, graph] = relay.routes.as_slice() else { panic!("{:?}", relay.routes) };
    assert_eq!(graph.host.as_deref(), Some("notify.example.com"));
    assert_eq!(graph.path, PathRule::Exact("/graph/secret".to_owned()));
    assert_eq!(ews.path, PathRule::Prefix("/ews/".to_owned()));
    assert_eq!((graph.upstream, ews.upstream), (0, 0));
    assert_eq!(ews.silent_after, Some(Duration::from_secs(3600)), "twice what Pega advises");
    assert_eq!(graph.silent_after, None, "Graph may have nothing to say");
    assert!(graph.is_stored() && !ews.is_stored());
    let upstream = relay.upstreams.first().unwrap();
    assert_eq!(upstream.response_timeout, Duration::from_secs(25), "Exchange waits for 60 s");
    let spool = Path::new("/var/lib/exogate/spool").to_owned();
    assert_eq!(relay.spool.store, Store::Disk(spool));
}

#[test]
fn a_proxy_takes_what_exchange_takes_and_offers_no_http2() {
    let relay = parse(PROXY).unwrap().relay;
    let [route] = relay.routes.as_slice() else { panic!("{:?}", relay.routes) };
    assert_eq!((route.body_bytes, route.keep_credentials), (64 << 20, true));
    let proxy = Proxy {
        idle_timeout: Duration::from_secs(35 * 60),
        keep_host: true,
        maintenance: None,
        upgrades: Vec::new(),
    };
    assert_eq!(route.kind, RouteKind::Proxy(proxy));
    assert!(!route.is_stored() && !relay.listeners.first().unwrap().http2);
    assert!(parse(WHOLE).unwrap().relay.listeners.first().unwrap().http2);
}

const PASSTHROUGH: &str = r#"
[[listener]]
address = "[::]:443"

[upstream.exchange]
servers = ["https://exchange1.example.com"]
# of the upstream

[passthrough.mail]
server_names = ["Mail.Example.com"]
upstream = "exchange"
"#;

#[test]
fn a_stop_waits_long_only_for_clients_of_a_proxy_unless_it_is_told() {
    let drain = |text: &str| parse(text).unwrap().relay.drain();
    assert_eq!(drain(WHOLE), Duration::from_secs(1));
    assert_eq!(drain(PROXY), Duration::from_secs(30));
    assert_eq!(drain(&format!("{WHOLE}[relay]\ndrain = \"9s\"")), Duration::from_secs(9));
}

#[test]
fn where_tls_is_passed_on_a_listener_needs_no_certificate() {
    let relay = parse(PASSTHROUGH).unwrap().relay;
    let [mail] = relay.passthroughs.as_slice() else { panic!("{:?}", relay.passthroughs) };
    assert_eq!(mail.server_names, ["mail.example.com"], "names are compared in lower case");
    assert_eq!(mail.idle_timeout, Duration::from_secs(35 * 60));
    assert!(relay.listeners.first().unwrap().http2, "only proxies forbid it");
}

#[test]
fn a_mistake_about_passed_on_tls_is_named() {
    let route = "[route.mail]\nkind = \"proxy\"\nhost = \"mail.example.com\"\npath_prefix = \"/\"\nupstream = \"exchange\"";
    let other =
        "[passthrough.other]\nserver_names = [\"MAIL.example.com\"]\nupstream = \"exchange\"";
    for (text, part) in [
        (PASSTHROUGH.replace("[\"Mail.Example.com\"]", "[]"), "needs server_names"),
        (PASSTHROUGH.replace("Mail.Example.com", "*.example.com"), "no wildcard"),
        (PASSTHROUGH.replace("upstream = \"exchange\"", "upstream = \"x\""), "there are exchange"),
        (
            PASSTHROUGH.replace("# of the upstream", "proxy = \"http://proxy:3128\""),
            "an upstream without proxy",
        ),
        (format!("{PASSTHROUGH}idle_timeout = \"3h\""), "\"1s\" to \"2h\""),
        (format!("{PASSTHROUGH}{route}"), "the name of route mail too"),
        (format!("{PASSTHROUGH}{other}"), "the name of passthrough"),
    ] {
        let error = parse(&text).unwrap_err();
        assert!(error.contains(part), "{part}: {error}");
    }
}

#[test]
fn without_a_listener_there_is_no_relay() {
    let config = parse("").unwrap();
    assert!(!config.relay.is_on() && !config.relay.needs_spool());
    assert!(!config.only_cloud_ews());
}

#[test]
fn what_nothing_can_reach_is_a_mistake() {
    for (text, name) in [(WHOLE, "ews"), (PROXY, "exchange"), (PASSTHROUGH, "mail")] {
        let (_, rest) = text.split_once("[upstream").unwrap();
        let error = parse(&format!("[upstream{rest}")).unwrap_err();
        let expected = format!("nothing can reach {name}: there is no [[listener]]");
        assert!(error.contains(&expected), "{error}");
    }
    // A server that nobody uses is none.
    assert!(parse("[upstream.pega]\nservers = [\"http://192.0.2.1\"]").is_ok());
}

#[test]
fn that_all_comes_by_ews_from_the_cloud_is_noticed() {
    let only_ews = WHOLE.replace("kind = \"graph\"", "kind = \"ews\"");
    assert!(!parse(WHOLE).unwrap().only_cloud_ews());
    assert!(parse(&only_ews).unwrap().only_cloud_ews());
    // An Exchange server of one's own keeps EWS.
    let own = "[[guard]]\nport = 443\nsources = [\"exchange-online\", \"own\"]\n\
               [source.own]\nkind = \"static\"\nprefixes = [\"192.0.2.0/24\"]\n";
    assert!(!parse(&[own, &only_ews].concat()).unwrap().only_cloud_ews());
}

#[test]
fn a_mistake_is_named_with_what_is_allowed() {
    let change = |from: &str, to: &str| {
        assert!(WHOLE.contains(from), "{from}");
        WHOLE.replace(from, to)
    };
    for (text, part) in [
        (change("address = \"[::]:443\"", ""), "either an address or a systemd_socket"),
        (change("[::]:443", "[::]:444"), "no guard stands on TCP port 444"),
        (change("\"[::]:443\"", "\"[::]:444\"\nguard = 445"), "no guard stands on TCP port 445"),
        (change("[{ chain = \"/chain.pem\", key = \"/key.pem\" }]", "[]"), "needs certificates"),
        (
            change("certificates =", "client_certificate_required = true\ncertificates ="),
            "client_ca_file",
        ),
        (
            change("certificates =", "header_size = \"4KiB\"\ncertificates ="),
            "\"8KiB\" to \"1MiB\"",
        ),
        (change("certificates =", "idle_timeout = \"2h\"\ncertificates ="), "\"1s\" to \"1h\""),
        (change("https://pega1.example.com:8443", "https://pega1/prweb"), "is not a server"),
        (change("https://pega1.example.com:8443", "https://user:secret@pega1"), "is not a server"),
        (change("https://pega1.example.com:8443", "ftp://pega1"), "is not a server"),
        (change("upstream = \"pega\"\n\n", "upstream = \"peg\"\n\n"), "there are pega"),
        (change("path = \"/graph/secret\"", ""), "either a path or a path_prefix"),
        (change("path = \"/graph/secret\"", "path = \"/graph/../secret\""), "dot segment"),
        (change("path = \"/graph/secret\"", "path = \"/graph%2fsecret\""), "no escape"),
        (change("path_prefix = \"/ews/\"", "path_prefix = \"/ews\""), "ends with a slash"),
        (change("upstream_path = \"/prweb/\"", "upstream_path = \"/prweb\""), "ends with a slash"),
        (change("host = \"Notify.Example.com\"", "host = \"*.example.com\""), "no wildcard"),
        (
            change("kind = \"graph\"", "kind = \"graph\"\ncaller_data_file = \"/x\""),
            "of kind \"ews\"",
        ),
        (
            change("kind = \"ews\"", "kind = \"ews\"\ntenants = []\nhandshake = \"local\""),
            "of kind \"graph\"",
        ),
        (change("kind = \"graph\"", "kind = \"graph\"\ntokens = { audiences = [] }"), "audiences"),
        (
            change(
                "path_prefix = \"/ews/\"\nupstream = \"pega\"\nupstream_path = \"/prweb/\"",
                "host = \"notify.example.com\"\npath = \"/graph/secret\"\nupstream = \"pega\"",
            ),
            "same host and path",
        ),
        (
            change("[upstream.pega]", "[upstream.pega]\nresponse_timeout = \"56s\""),
            "at most \"55s\"",
        ),
        (change("path = \"/graph/secret\"", "path = \"/g\"\nidle_timeout = \"1m\""), "\"proxy\""),
        (PROXY.replace("# of the listener", "http2 = true"), "authenticate a connection"),
        (PROXY.replace("# of the route", "keep_credentials = true"), "not for a proxy"),
        (PROXY.replace("# of the route", "idle_timeout = \"3h\""), "\"1s\" to \"2h\""),
        (format!("{WHOLE}\n[relay]\nbody_memory = \"1KiB\""), "at least body_size"),
        (PROXY.replace("# of the route", "upgrades = [\"web socket\"]"), "no name of a protocol"),
        (PROXY.replace("# of the route", "upgrades = [\"H2C\"]"), "never let through"),
        (change("path = \"/graph/secret\"", "path = \"/g\"\nupgrades = [\"a\"]"), "\"proxy\""),
        (
            PROXY.replace(
                "# of the upstream",
                "credentials = { username = \"a\", password_file = \"/p\" }",
            ),
            "upstream without",
        ),
        (format!("{WHOLE}[spool]\nmax_size = \"1KiB\""), "at least \"1MiB\""),
        (format!("{WHOLE}[spool]\nretry_for = \"5s\""), "\"1m\" to \"30d\""),
        (format!("{WHOLE}[spool]\ndirectory = \"spool\""), "absolute"),
        (format!("{WHOLE}[spool.jetstream]\nservers = [\"nats1\"]"), "nats://host:4222"),
    ] {
        let error = parse(&text).unwrap_err();
        assert!(error.contains(part), "{part}: {error}");
        assert!(!error.contains("secret@"), "{error}");
    }
}
