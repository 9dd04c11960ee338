//! The way out: Exchange on the premises notifies Pega in a cloud, through the company's
//! HTTP proxy.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::mpsc::{Receiver, channel},
    thread,
};

use exogate_tests::{
    agent::relay::{EWS, EWS_BEHIND},
    lab::{Lab, Peer},
    notification::Notification,
    pega::Pega,
};

use super::{SOON, Setting};

/// The name of Pega's host, which only the proxy can resolve.
pub(super) const CLOUD: &str = "company.pegacloud.example.com";

/// A proxy on the edge host's loopback, that leads all tunnels to one port there. What it
/// is asked comes out of the channel.
pub(super) fn proxy(lab: &Lab, to: u16) -> (u16, Receiver<String>) {
    let listener = lab.edge().run(|| Ok(TcpListener::bind("127.0.0.1:0")?)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let (asked, heads) = channel();
    let lab = lab.clone();
    thread::spawn(move || {
        while let Ok((mut client, _)) = listener.accept() {
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && client.read_exact(&mut byte).is_ok() {
                head.push(byte[0]);
            }
            if asked.send(String::from_utf8(head).unwrap()).is_err() {
                return;
            }
            let connect = || Ok(TcpStream::connect(("127.0.0.1", to))?);
            let server = lab.edge().run(connect).unwrap();
            client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").unwrap();
            for (mut from, mut to) in
                [(client.try_clone().unwrap(), server.try_clone().unwrap()), (server, client)]
            {
                thread::spawn(move || {
                    let _ = std::io::copy(&mut from, &mut to);
                    let _ = to.shutdown(std::net::Shutdown::Write);
                });
            }
        }
    });
    (port, heads)
}

#[test]
fn notifications_of_exchange_go_out_through_a_proxy() {
    let mut setting = Setting::new();
    let tls = setting.lab.authority().server(&[CLOUD], false).unwrap();
    let cloud = Pega::start_tls(&setting.lab, 8443, tls).unwrap();
    let (port, asked) = proxy(&setting.lab, 8443);
    let authority = setting.lab.ca_file().to_str().unwrap().to_owned();
    let agent = &mut setting.agent;
    agent.set("upstream.cloud.servers", vec![format!("https://{CLOUD}")]).unwrap();
    agent.set("upstream.cloud.proxy", format!("http://user:hunter2@127.0.0.1:{port}")).unwrap();
    agent.set("upstream.cloud.ca_file", authority).unwrap();
    agent.set("route.ews.upstream", "cloud").unwrap();
    agent.set("route.ews.delivery", "store-and-forward").unwrap();
    agent.set("log.level", "debug").unwrap();
    agent.start().unwrap();
    let sent = Notification::ews(EWS, "c3Vic2NyaXB0aW9u", 4).unwrap();
    assert_eq!(sent.answer(&setting.lab, Peer::Exchange).unwrap().status, 200);
    let received = cloud.wait_for(1, SOON).unwrap();
    assert_eq!(received[0].target, EWS_BEHIND);
    let head = asked.recv_timeout(SOON).unwrap();
    assert!(head.starts_with(&format!("CONNECT {CLOUD}:443 HTTP/1.1\r\n")), "{head}");
    let credentials = head.to_ascii_lowercase().contains("proxy-authorization: basic ");
    assert!(credentials, "{head}");
    let log = setting.agent.log();
    assert!(!log.contains("hunter2") && !log.contains("dXNlcjpodW50ZXIy"), "{log}");
}
