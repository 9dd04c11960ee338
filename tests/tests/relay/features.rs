//! What can be configured beside what everybody needs.

use std::{
    fs,
    os::{fd::AsRawFd as _, unix::fs::PermissionsExt as _},
    thread,
    time::Duration,
};

use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der},
    rsa::{KeyPair, KeySize},
};
use exogate_tests::{
    agent::relay::GRAPH,
    lab::{Family, Peer, edge},
    load::Load,
    notification::Notification,
    peer::Reached,
    pega::{Mood, Pega},
    process::agent_binary,
    raw::Caller,
    tls::Validity,
};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode, get_current_timestamp, jwk::Jwk};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use serde_json::json;
use toml::{Table, Value};

use super::{SOON, Setting, write_private};

fn notification(number: u64) -> Notification {
    Notification::graph(GRAPH, &["the-one"], number, "state")
}

/// The status of the answer that a caller gets; `None` if it gets none.
fn status(setting: &Setting, caller: &Caller, number: u64) -> Option<u16> {
    let ended = caller.call(&setting.lab, &notification(number).bytes()).unwrap()?;
    ended.statuses().first().copied()
}

/// A certificate of the lab's authority, as a value of the configuration.
fn certificate(setting: &Setting, name: &str) -> Value {
    let (chain, key) = setting.lab.authority().issue_pem(&[name], Validity::Now).unwrap();
    let mut table = Table::new();
    table.insert("chain".to_owned(), setting.secret(&format!("{name}.pem"), &chain).into());
    table.insert("key".to_owned(), setting.secret(&format!("{name}.key"), &key).into());
    table.into()
}

#[test]
fn whoever_has_only_ews_of_the_cloud_is_told_at_the_start_that_it_ends() {
    const WARNING: &str = "where EWS ends on 2027-04-01";
    let mut setting = Setting::new();
    setting.agent.settings()["route"].as_table_mut().unwrap().remove("graph").unwrap();
    setting.agent.start().unwrap();
    assert_eq!(setting.metric("exogate_relay_only_cloud_ews", &[]), 1.0);
    let log = setting.agent.log();
    let told = log.lines().filter(|line| line.contains("WARN") && line.contains(WARNING));
    assert_eq!(told.count(), 1, "{log}");

    let setting = Setting::started();
    assert_eq!(setting.metric("exogate_relay_only_cloud_ews", &[]), 0.0);
    assert!(!setting.agent.log().contains(WARNING), "with Graph there is nothing to say");
}

#[test]
fn the_certificate_is_that_of_the_name_that_is_asked_for() {
    let mut setting = Setting::new();
    let other = certificate(&setting, "other.example.com");
    let listener = setting.agent.listener().unwrap();
    listener["certificates"].as_array_mut().unwrap().push(other);
    setting.agent.start().unwrap();
    let usual = Caller::graph(&setting.lab).unwrap();
    for (name, expected) in [
        ("notify.example.com", Some(202)),
        ("other.example.com", Some(202)),
        ("unknown.example.com", None),
    ] {
        let caller = Caller { name, ..usual.clone() };
        assert_eq!(status(&setting, &caller, 1), expected, "{name}");
    }
}

#[test]
fn only_a_trusted_proxy_says_who_its_client_is() {
    let mut setting = Setting::new();
    let balancer = Peer::Exchange.address(Family::V4).to_string();
    let listener = setting.agent.listener().unwrap();
    listener.insert("trusted_proxies".to_owned(), vec![balancer].into());
    setting.agent.start().unwrap();
    let header = |client: Peer| {
        let [client, edge] = [client.address(Family::V4), edge(Family::V4)].map(|address| {
            let std::net::IpAddr::V4(address) = address else { unreachable!() };
            address.octets()
        });
        let fixed = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c";
        [&fixed[..], &client, &edge, &[0x30, 0x39, 1, 0xbb]].concat()
    };
    let usual = Caller::graph(&setting.lab).unwrap();
    for (number, (peer, before, expected)) in [
        (Peer::Exchange, header(Peer::Graph), Some(202)),
        // Of the balancer itself nobody knows who it speaks for.
        (Peer::Exchange, vec![], None),
        (Peer::Exchange, header(Peer::Stranger), None),
        (Peer::Exchange, b"PROXY TCP4 192.0.2.7 192.0.2.8 1 443\r\n".to_vec(), None),
        (Peer::Graph, header(Peer::Graph), None),
        (Peer::Graph, vec![], Some(202)),
    ]
    .into_iter()
    .enumerate()
    {
        let caller = Caller { peer, before, ..usual.clone() };
        assert_eq!(status(&setting, &caller, number as u64), expected, "{number}");
    }
    let source = Peer::Graph.address(Family::V4).to_string();
    for request in setting.pega.wait_for(2, SOON).unwrap() {
        assert_eq!(request.headers["x-forwarded-for"], source.as_str());
    }
}

#[test]
fn a_client_has_to_show_its_certificate_where_one_is_required() {
    let mut setting = Setting::new();
    let authority = setting.lab.ca_file().to_str().unwrap().to_owned();
    let listener = setting.agent.listener().unwrap();
    listener.insert("client_ca_file".to_owned(), authority.into());
    listener.insert("client_certificate_required".to_owned(), true.into());
    setting.agent.start().unwrap();
    let without = Caller::graph(&setting.lab).unwrap();
    assert_eq!(status(&setting, &without, 1), None);
    let tls = setting.lab.authority().client_with_certificate().unwrap();
    assert_eq!(status(&setting, &Caller { tls, ..without.clone() }, 2), Some(202));
    let stranger = exogate_tests::tls::Authority::new().unwrap();
    // It trusts another authority, too, and gets no further than the relay's certificate.
    let tls = stranger.client_with_certificate().unwrap();
    assert_eq!(status(&setting, &Caller { tls, ..without }, 3), None);
    assert_eq!(setting.pega.wait_for(1, SOON).unwrap().len(), 1);
}

/// Hands a socket over as systemd does, to the process that it becomes.
const ACTIVATE: &str = "#!/usr/bin/python3
import os, sys
os.dup2(SOCKET, 3)
os.environ.update(LISTEN_FDS='1', LISTEN_FDNAMES='https', LISTEN_PID=str(os.getpid()))
os.execv('BINARY', ['BINARY'] + sys.argv[1:])
";

#[test]
fn a_restart_refuses_no_connection_where_systemd_holds_the_socket() {
    let mut setting = Setting::new();
    let address = std::net::SocketAddr::new(edge(Family::V4), 443);
    let socket = setting.lab.edge().run(|| Ok(std::net::TcpListener::bind(address)?)).unwrap();
    // It outlives the agents, which inherit it.
    fcntl(&socket, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
    let program = setting.lab.directory().join("activate");
    let text = ACTIVATE
        .replace("SOCKET", &socket.as_raw_fd().to_string())
        .replace("BINARY", agent_binary().unwrap().to_str().unwrap());
    write_private(&program, &text);
    fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).unwrap();
    setting.agent.use_binary(program);
    let listener = setting.agent.listener().unwrap();
    listener.remove("address");
    listener.insert("systemd_socket".to_owned(), "https".into());
    listener.insert("guard".to_owned(), 443.into());
    setting.agent.start().unwrap();
    assert_eq!(notification(1).answer(&setting.lab, Peer::Graph).unwrap().status, 202);

    setting.agent.terminate().unwrap();
    let connected = setting.lab.connect(Peer::Graph, Family::V4, 443).unwrap();
    assert_eq!(connected, Reached::Answered(()), "nobody is refused in between");
    thread::scope(|scope| {
        // Asked while nobody is there, answered by the next one.
        let waiting = scope.spawn(|| notification(2).answer(&setting.lab, Peer::Graph));
        setting.agent.start().unwrap();
        assert_eq!(waiting.join().unwrap().unwrap().status, 202);
    });
    setting.pega.wait_for(2, SOON).unwrap();
}

#[test]
fn the_server_behind_is_verified_and_the_relay_shows_who_it_is() {
    let mut setting = Setting::new();
    let tls = setting.lab.authority().server(&["127.0.0.1"], true).unwrap();
    let pega = Pega::start_tls(&setting.lab, 8443, tls).unwrap();
    setting.agent.set("upstream.pega.servers", vec![pega.url()]).unwrap();
    setting.agent.set("upstream.pega.breaker.failures", 1).unwrap();
    let password = setting.secret("password", "the password\n");
    let mut credentials = Table::new();
    credentials.insert("username".to_owned(), "relay".into());
    credentials.insert("password_file".to_owned(), password.into());
    setting.agent.set("upstream.pega.credentials", credentials).unwrap();
    let authority = setting.lab.ca_file().to_str().unwrap().to_owned();
    let identity = certificate(&setting, "relay.example.com");
    // First nobody vouches for the server, then the relay shows nothing, then all is well.
    for (option, value) in [
        (None, Value::from("")),
        (Some("ca_file"), Value::from(authority)),
        (Some("client_certificate"), identity),
    ] {
        if let Some(option) = option {
            setting.agent.set(&format!("upstream.pega.{option}"), value).unwrap();
        }
        let is_whole = option == Some("client_certificate");
        setting.agent.start().unwrap();
        let number = option.map_or(1, |option| option.len() as u64);
        assert_eq!(notification(number).answer(&setting.lab, Peer::Graph).unwrap().status, 202);
        if is_whole {
            break;
        }
        let down = |metrics: &exogate_tests::agent::Metrics| {
            metrics.sum("exogate_upstream_up", &[]) == Some(0.0)
        };
        setting.agent.wait_until("the server is down", SOON, down).unwrap();
        assert!(pega.received().is_empty(), "{option:?}");
        setting.agent.terminate().unwrap();
    }
    let encoded = "cmVsYXk6dGhlIHBhc3N3b3Jk";
    for request in pega.wait_for(3, SOON).unwrap() {
        assert_eq!(request.headers["authorization"], format!("Basic {encoded}"));
    }
    let log = setting.agent.log();
    assert!(!log.contains("the password") && !log.contains(encoded), "{log}");
}

#[test]
fn rich_notifications_need_a_token_of_graphs_own() {
    const TENANT: &str = "84bd8158-6d4d-4958-8b9f-9d6445542f95";
    const AUDIENCE: &str = "8e460676-ae3f-4b1e-8790-ee0fb5d6148f";
    const PUBLISHER: &str = "0bf30f3b-4a52-48df-9a82-234910c4a086";
    let pair = KeyPair::generate(KeySize::Rsa2048).unwrap();
    let der: Pkcs8V1Der<'_> = pair.as_der().unwrap();
    // The RSAPrivateKey follows 26 bytes that say that it is one.
    let signer = EncodingKey::from_rsa_der(&der.as_ref()[26..]);
    let mut key = Jwk::from_encoding_key(&signer, Algorithm::RS256).unwrap();
    key.common.key_id = Some("key".to_owned());
    let token = |publisher: &str| {
        let now = get_current_timestamp();
        let header = Header { kid: Some("key".to_owned()), ..Header::new(Algorithm::RS256) };
        let claims = json!({
            "aud": AUDIENCE, "iss": format!("https://sts.windows.net/{TENANT}/"), "tid": TENANT,
            "iat": now, "nbf": now, "exp": now + 3600, "appid": publisher,
        });
        encode(&header, &claims, &signer).unwrap()
    };

    let mut setting = Setting::new();
    let tls = setting.lab.authority().server(&["127.0.0.1"], false).unwrap();
    let mut keys = Pega::start_tls(&setting.lab, 8090, tls).unwrap();
    keys.feel(Mood::Json(json!({ "keys": [key] }).to_string()));
    keys.stop();
    let mut tokens = Table::new();
    tokens.insert("audiences".to_owned(), vec![AUDIENCE].into());
    tokens.insert("keys_url".to_owned(), format!("{}/keys", keys.url()).into());
    tokens.insert("ca_file".to_owned(), setting.lab.ca_file().to_str().unwrap().into());
    setting.agent.set("route.graph.tokens", tokens).unwrap();
    setting.agent.start().unwrap();
    let rich = |number: u64, tokens: &[String]| {
        let mut sent = notification(number);
        let mut body: serde_json::Value = serde_json::from_slice(&sent.body).unwrap();
        body["value"][0]["encryptedContent"] = json!({ "data": "c2VjcmV0" });
        body["validationTokens"] = json!(tokens);
        sent.body = body.to_string().into();
        sent.answer(&setting.lab, Peer::Graph).unwrap().status
    };
    assert_eq!(rich(1, &[token(PUBLISHER)]), 503, "nobody knows the keys yet");
    keys.resume().unwrap();
    let begin = std::time::Instant::now();
    while rich(2, &[token(PUBLISHER)]) != 202 {
        assert!(begin.elapsed() < SOON, "{}", setting.agent.log());
    }
    let good = token(PUBLISHER);
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let signature: String = signature.chars().rev().collect();
    let forged = format!("{signed}.{signature}");
    for (number, tokens) in
        [(3, vec![]), (4, vec![token(AUDIENCE)]), (5, vec![forged]), (6, vec!["x".to_owned()])]
    {
        assert_eq!(rich(number, &tokens), 202, "nobody learns what is checked");
    }
    assert_eq!(rich(7, &[token(AUDIENCE), good]), 202);
    let received = setting.pega.wait_for(2, SOON).unwrap();
    let arrived = |number| {
        let text = format!("Events/{number}\"");
        received.iter().any(|one| String::from_utf8_lossy(&one.body).contains(&text))
    };
    assert_eq!((1..=7).filter(|number| arrived(*number)).collect::<Vec<_>>(), [2, 7]);
    let discarded = [("route", "graph"), ("reason", "token")];
    assert_eq!(setting.metric("exogate_relay_discarded_total", &discarded), 4.0);
}

#[test]
fn a_subscription_that_falls_silent_is_counted_until_it_is_heard_again() {
    let mut setting = Setting::new();
    setting.agent.set("route.graph.silent_after", "1s").unwrap();
    setting.agent.start().unwrap();
    let silent = |count: f64| {
        move |metrics: &exogate_tests::agent::Metrics| {
            let route = [("route", "graph")];
            metrics.sum("exogate_relay_silent_subscriptions", &route) == Some(count)
        }
    };
    for number in 1..=2 {
        assert_eq!(notification(number).answer(&setting.lab, Peer::Graph).unwrap().status, 202);
        setting.agent.wait_until("it is not silent", SOON, silent(0.0)).unwrap();
        setting.agent.wait_until("it is silent", SOON, silent(1.0)).unwrap();
    }
    let status = setting.agent.status_json().unwrap();
    let routes = status["relay"]["routes"].as_array().unwrap();
    let graph = routes.iter().find(|route| route["name"] == "graph").unwrap();
    assert_eq!(graph["silent"][0]["subscription"], "the-one");
    let told = setting.agent.print(&["status"]).unwrap();
    assert!(told.contains("1 of 1 subscriptions silent"), "{told}");
    assert!(told.contains("server 127.0.0.1:8080 of pega: up"), "{told}");
}

#[test]
fn another_server_takes_over_under_load() {
    let mut setting = Setting::new();
    let second = Pega::start(&setting.lab, 8081).unwrap();
    let servers = vec![setting.pega.url(), second.url()];
    setting.agent.set("upstream.pega.servers", servers).unwrap();
    setting.agent.start().unwrap();
    let load = Load::start(&setting.lab, GRAPH, 8, Duration::from_millis(20)).unwrap();
    load.wait_for(100, SOON).unwrap();
    setting.pega.stop();
    load.wait_for(load.count() + 100, SOON).unwrap();
    let report = load.stop().unwrap();
    assert_eq!((report.broken, &report.refused), (0, &Default::default()));
    let arrived = || [setting.pega.received(), second.received()].concat();
    second
        .wait_until("all of it arrives", SOON, |_| report.hold_against(&arrived(), GRAPH).is_ok())
        .unwrap_or_else(|_| panic!("{:?}", report.hold_against(&arrived(), GRAPH)));
    assert!(!second.received().is_empty());
}
