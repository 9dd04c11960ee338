//! Clients and servers that know nothing of the relay.

use std::{fs, process::Command, time::Duration};

use exogate_tests::{
    agent::relay::{EWS, GRAPH, GRAPH_BEHIND},
    lab::{Family, Peer, edge},
    notification::{Notification, RELAY_NAME},
    process, python,
};

use super::{SOON, Setting};

#[test]
fn exchangelib_reads_what_passes_and_exchange_gets_its_answer() {
    for (answer, delivery) in
        [("OK", "pass-through"), ("Unsubscribe", "pass-through"), ("OK", "store-and-forward")]
    {
        let mut setting = Setting::new();
        let mut server =
            python::Server::start(setting.lab.edge(), "listener.py", &[answer]).unwrap();
        let port = server.line().unwrap();
        let servers = vec![format!("http://127.0.0.1:{port}")];
        setting.agent.set("upstream.pega.servers", servers).unwrap();
        setting.agent.set("route.ews.delivery", delivery).unwrap();
        setting.agent.start().unwrap();
        let sent = Notification::ews(EWS, "c3Vic2NyaXB0aW9u", 4).unwrap();
        let got = sent.answer(&setting.lab, Peer::Exchange).unwrap();
        assert_eq!(got.status, 200);
        assert!(got.text().contains(&format!("SubscriptionStatus>{answer}<")), "{}", got.text());
        assert!(got.body.len() < 1024, "Exchange takes no longer answers");
        let seen: serde_json::Value = serde_json::from_str(&server.line().unwrap()).unwrap();
        assert_eq!(seen["subscription"], "c3Vic2NyaXB0aW9u");
        assert_eq!(seen["watermark"], "WATERMARK4=");
        assert_eq!(seen["events"].as_array().unwrap().len(), 2, "{seen}");
        assert_eq!(seen["source"], Peer::Exchange.address(Family::V4).to_string());
    }
}

#[test]
fn requests_is_a_sender_like_any_other() {
    let mut setting = Setting::new();
    setting.agent.set("route.graph.handshake", "local").unwrap();
    setting.agent.start().unwrap();
    let mut command = python::command(setting.lab.peer(Peer::Graph), "sender.py").unwrap();
    command
        .arg(format!("https://{RELAY_NAME}{GRAPH}"))
        .arg(edge(Family::V4).to_string())
        .arg(setting.lab.ca_file())
        .arg("25");
    let output = process::run(&mut command, Duration::from_secs(60)).unwrap();
    assert_eq!(output.code, 0, "{}", output.stderr);
    let printed: serde_json::Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!(printed["statuses"], serde_json::json!(vec![202; 25]));
    assert_eq!(printed["validation"], serde_json::json!([200, "a+b c/%"]));
    let received = setting.pega.wait_for(25, SOON).unwrap();
    assert!(received.iter().all(|request| request.target == GRAPH_BEHIND));
}

/// nginx in front of a directory: it answers a POST to what is not there by 404, and
/// one to `/taken` by 204.
const NGINX: &str = "
daemon off;
pid PLACE/pid;
error_log PLACE/error.log;
events {}
http {
    access_log PLACE/access.log;
    client_body_temp_path PLACE/body;
    proxy_temp_path PLACE/proxy;
    fastcgi_temp_path PLACE/fastcgi;
    uwsgi_temp_path PLACE/uwsgi;
    scgi_temp_path PLACE/scgi;
    server {
        listen 127.0.0.1:8081;
        location = /taken { return 204; }
    }
}";

#[test]
fn nginx_is_a_server_like_any_other() {
    let mut setting = Setting::new();
    let place = setting.lab.directory().join("nginx");
    fs::create_dir(&place).unwrap();
    let config = place.join("nginx.conf");
    fs::write(&config, NGINX.replace("PLACE", place.to_str().unwrap())).unwrap();
    let mut nginx: Command = setting.lab.edge().command("nginx");
    let mut nginx = nginx.arg("-c").arg(&config).spawn().unwrap();

    setting.agent.set("upstream.pega.servers", vec!["http://127.0.0.1:8081"]).unwrap();
    setting.agent.set("route.graph.upstream_path", "/taken").unwrap();
    setting.agent.start().unwrap();
    for number in 0..20 {
        let sent = Notification::graph(GRAPH, &["one"], number, "state");
        assert_eq!(sent.answer(&setting.lab, Peer::Graph).unwrap().status, 202);
    }
    let delivered = [("route", "graph")];
    let outcome = setting.agent.wait_until("nginx has taken them", SOON, |metrics| {
        metrics.sum("exogate_delivery_age_seconds_count", &delivered) == Some(20.0)
    });
    nginx.kill().unwrap();
    nginx.wait().unwrap();
    outcome.unwrap();
    let log = fs::read_to_string(place.join("access.log")).unwrap();
    assert_eq!(log.matches("\"POST /taken HTTP/1.1\" 204").count(), 20, "{log}");
}
