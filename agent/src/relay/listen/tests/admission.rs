//! Who may speak, directly and through a load balancer.

use std::{net::IpAddr, sync::Arc};

use proxy_header::{ProxiedAddress, ProxyHeader};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::lab::*;

const LOOPBACK: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
const CLIENT: &str = "192.0.2.7:4711";

fn header() -> Vec<u8> {
    let addresses =
        ProxiedAddress::stream(CLIENT.parse().unwrap(), "198.51.100.1:443".parse().unwrap());
    let mut bytes = Vec::new();
    ProxyHeader::with_address(addresses).encode_v2(&mut bytes).unwrap();
    bytes
}

fn client_address() -> IpAddr {
    CLIENT.parse::<std::net::SocketAddr>().unwrap().ip()
}

fn behind_balancer() -> Lab {
    let mut lab = Lab::new();
    lab.config.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    lab
}

#[tokio::test]
async fn the_source_is_judged_for_the_guarded_port_and_told_to_the_handler() {
    let mut lab = Lab::new();
    lab.config.guard = Some(8443);
    let _running = lab.start();
    let options = Options { name: "EDGE.example.COM", ..Options::default() };
    lab.connect_as(&options).await.unwrap().ask("/").await;
    assert_eq!(*lab.list.asked.lock().unwrap(), [(LOOPBACK, 8443)]);
    let peer = lab.server.asked.lock().unwrap()[0].1.clone();
    assert_eq!(peer.source.ip(), LOOPBACK);
    assert_eq!(peer.proxy, None);
    assert_eq!(peer.server_name.as_deref(), Some("edge.example.com"));
    assert_eq!(&*peer.listener, "127.0.0.1:0");
}

#[tokio::test]
async fn without_a_configured_guard_the_own_port_is_judged() {
    let mut lab = Lab::new();
    lab.config.guard = None;
    let _running = lab.start();
    lab.connect().await.ask("/").await;
    assert_eq!(lab.list.asked.lock().unwrap()[0].1, lab.address.port());
}

#[tokio::test]
async fn a_stranger_is_turned_away_before_tls() {
    let mut lab = Lab::new();
    lab.list = Arc::new(List { dropped: vec![LOOPBACK], ..List::default() });
    let _running = lab.start();
    let mut stream = lab.tcp().await;
    let mut byte = [0];
    let read = wait("the end", stream.read(&mut byte)).await;
    assert!(matches!(read, Err(_) | Ok(0)), "{read:?}");
    lab.ended("unlisted", 1.0).await;
    assert!((lab.metric("exogate_relay_admissions_total", "drop") - 1.0).abs() < 0.1);
}

#[tokio::test]
async fn in_monitor_mode_a_stranger_is_served_and_counted() {
    let mut lab = Lab::new();
    lab.list = Arc::new(List { would_drop: vec![LOOPBACK], ..List::default() });
    let _running = lab.start();
    assert!(lab.connect().await.ask("/").await.starts_with("HTTP/1.1 200"));
    lab.until("exogate_relay_admissions_total", "action=\"would_drop\"", 1.0).await;
    lab.ended("served", 1.0).await;
}

#[tokio::test]
async fn behind_a_balancer_its_client_is_judged_and_told() {
    let mut lab = behind_balancer();
    let _running = lab.start();
    let header = header();
    let options = Options { before: &header, ..Options::default() };
    lab.connect_as(&options).await.unwrap().ask("/").await;
    assert_eq!(*lab.list.asked.lock().unwrap(), [(client_address(), 443)]);
    let peer = lab.server.asked.lock().unwrap()[0].1.clone();
    assert_eq!(peer.source, CLIENT.parse().unwrap());
    assert_eq!(peer.proxy, Some(LOOPBACK));
}

#[tokio::test]
async fn behind_a_balancer_a_stranger_is_turned_away() {
    let mut lab = behind_balancer();
    lab.list = Arc::new(List { dropped: vec![client_address()], ..List::default() });
    let _running = lab.start();
    let header = header();
    let options = Options { before: &header, ..Options::default() };
    lab.connect_as(&options).await.unwrap_err();
    lab.ended("unlisted", 1.0).await;
}

#[tokio::test]
async fn a_balancer_without_a_header_is_turned_away() {
    let mut lab = behind_balancer();
    let _running = lab.start();
    lab.connect_as(&Options::default()).await.unwrap_err();
    lab.ended("no_proxy_header", 1.0).await;
}

#[tokio::test]
async fn version_1_is_turned_away() {
    let mut lab = behind_balancer();
    let _running = lab.start();
    let before = b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\r\n";
    let options = Options { before, ..Options::default() };
    lab.connect_as(&options).await.unwrap_err();
    lab.ended("no_proxy_header", 1.0).await;
}

#[tokio::test]
async fn a_header_of_a_stranger_is_no_tls() {
    let mut lab = Lab::new();
    let _running = lab.start();
    let header = header();
    let options = Options { before: &header, ..Options::default() };
    lab.connect_as(&options).await.unwrap_err();
    lab.ended("tls_failed", 1.0).await;
}

#[tokio::test]
async fn a_truncated_header_ends_with_the_handshake_timeout() {
    let mut lab = behind_balancer();
    lab.config.limits.handshake_timeout = std::time::Duration::from_millis(200);
    let _running = lab.start();
    let mut stream = lab.tcp().await;
    stream.write_all(&header()[..20]).await.unwrap();
    lab.ended("handshake_timeout", 1.0).await;
}

#[tokio::test]
async fn a_malformed_header_is_turned_away() {
    let mut lab = behind_balancer();
    let _running = lab.start();
    let mut header = header();
    header[13] = 0x77;
    let options = Options { before: &header, ..Options::default() };
    lab.connect_as(&options).await.unwrap_err();
    lab.ended("bad_proxy_header", 1.0).await;
}

#[tokio::test]
async fn a_health_check_gets_a_handshake_and_no_answer() {
    let mut lab = behind_balancer();
    let _running = lab.start();
    let mut header = Vec::new();
    ProxyHeader::with_local().encode_v2(&mut header).unwrap();
    let options = Options { before: &header, ..Options::default() };
    let mut client = lab.connect_as(&options).await.unwrap();
    client.send(post("/", "hello")).await;
    assert_eq!(client.rest().await, "");
    lab.ended("health_check", 1.0).await;
    assert!(lab.asked().is_empty());
}
