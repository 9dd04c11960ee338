//! Two servers behind the proxy, one of which fails under load.
//!
//! What may be made twice does not fail. What may not reaches a server once at most, over
//! both of them, whatever its client was told. When a probe has found a server unwell, it
//! gets nothing more.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use exogate_tests::{
    lab::{Family, Lab, Peer, edge},
    notification::RELAY_NAME,
    peer::{HTTPS, PATIENCE, reach},
    pega::{Mood, Pega},
};
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Method, Request,
    body::Bytes,
    client::conn::http1::{SendRequest, handshake},
    header::HOST,
};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio_rustls::TlsConnector;

use super::{SOON, Setting, identities::add_proxy};

const CLIENTS: usize = 16;
/// What a server does with each request, so that some are always under way.
const BUSY: Mood = Mood::Slow(Duration::from_millis(10));
const HEALTH: &str = "/ews/healthcheck.htm";
/// The server that fails.
const FIRST: [(&str, &str); 1] = [("server", "127.0.0.1:8091")];

/// What clients ask, and what they were told: a status, or nothing.
#[derive(Default)]
struct Clients {
    stop: AtomicBool,
    next: AtomicUsize,
    told: Mutex<BTreeMap<String, Option<u16>>>,
}

impl Clients {
    /// Each has a connection, and asks by GET and POST in turn until it is told to stop.
    async fn run(&self, lab: &Lab) -> anyhow::Result<()> {
        let connector = TlsConnector::from(lab.authority().client()?);
        let all = (0..CLIENTS).map(|_| async {
            let mut connection = None;
            while !self.stop.load(SeqCst) {
                let number = self.next.fetch_add(1, SeqCst);
                let (method, target) = match number % 2 {
                    0 => (Method::GET, format!("/EWS/get/{number}")),
                    _ => (Method::POST, format!("/EWS/post/{number}")),
                };
                if connection.as_ref().is_none_or(SendRequest::is_closed) {
                    connection = connect(&connector).await;
                }
                let status = match &mut connection {
                    Some(connection) => ask(connection, method, &target).await,
                    None => None,
                };
                if status.is_none() {
                    connection = None;
                }
                self.told.lock().unwrap().insert(target, status);
            }
        });
        futures_util::future::join_all(all).await;
        Ok(())
    }

    /// Waits until they were told that much more.
    fn wait_for(&self, more: usize) {
        let (begin, count) = (Instant::now(), || self.told.lock().unwrap().len());
        let wanted = count() + more;
        while count() < wanted {
            assert!(begin.elapsed() < SOON, "{} of {wanted} answers", count());
            thread::sleep(Duration::from_millis(10));
        }
    }
}

async fn connect(connector: &TlsConnector) -> Option<SendRequest<Full<Bytes>>> {
    let target = SocketAddr::new(edge(Family::V4), HTTPS);
    let stream = reach(Peer::Exchange.address(Family::V4), target, PATIENCE).await.ok()?;
    let name = ServerName::try_from(RELAY_NAME).ok()?;
    let stream = connector.connect(name, stream.answer()?).await.ok()?;
    let (sender, connection) = handshake(TokioIo::new(stream)).await.ok()?;
    tokio::spawn(connection);
    Some(sender)
}

async fn ask(
    connection: &mut SendRequest<Full<Bytes>>,
    method: Method,
    target: &str,
) -> Option<u16> {
    let body = if method == Method::POST { target.to_owned() } else { String::new() };
    let request = Request::builder().method(method).uri(target).header(HOST, RELAY_NAME);
    connection.ready().await.ok()?;
    let answer = connection.send_request(request.body(Full::from(body)).ok()?).await.ok()?;
    let status = answer.status().as_u16();
    answer.into_body().collect().await.ok()?;
    Some(status)
}

/// Lets the first of two servers fail under load, and come back.
fn fails_and_comes_back(
    fail: impl FnOnce(&mut Pega),
    saw: impl FnOnce(&Setting, &Pega),
    mend: impl FnOnce(&mut Pega),
) {
    let mut setting = Setting::new();
    let mut servers = [8091, 8092].map(|port| Pega::start(&setting.lab, port).unwrap());
    add_proxy(&mut setting.agent, &servers.each_ref().map(Pega::url));
    for (option, value) in [
        ("balance", "round-robin"),
        ("response_timeout", "5s"),
        ("health.path", HEALTH),
        ("health.interval", "1s"),
        ("health.timeout", "5s"),
    ] {
        setting.agent.set(&format!("upstream.exchange.{option}"), value).unwrap();
    }
    // Only probes decide.
    setting.agent.set("upstream.exchange.breaker.failures", 1_000_000).unwrap();
    setting.agent.start().unwrap();
    servers.iter().for_each(|server| server.feel(BUSY));
    let clients = Clients::default();
    thread::scope(|scope| {
        let load = scope.spawn(|| {
            let run = || clients.run(&setting.lab);
            setting.lab.peer(Peer::Exchange).run_async(Duration::from_secs(300), run)
        });
        // They end whatever fails here.
        let _stop = Stop(&clients.stop);
        clients.wait_for(100);
        fail(&mut servers[0]);
        setting.until("exogate_upstream_up", &FIRST, 0.0);
        saw(&setting, &servers[0]);
        clients.wait_for(100);
        mend(&mut servers[0]);
        setting.until("exogate_upstream_up", &FIRST, 1.0);
        clients.wait_for(100);
        clients.stop.store(true, SeqCst);
        load.join().unwrap().unwrap();
    });
    let told = clients.told.into_inner().unwrap();
    let mut arrived: BTreeMap<String, usize> = BTreeMap::new();
    for target in servers.iter().flat_map(Pega::arrived) {
        *arrived.entry(target).or_default() += 1;
    }
    let mut unanswered = 0;
    for (target, status) in &told {
        let times = arrived.get(target).copied().unwrap_or(0);
        let is_fine = *status == Some(200);
        if target.starts_with("/EWS/get/") {
            assert!(is_fine && times >= 1, "{target}: {status:?}, arrived {times} times");
        } else {
            assert!(times <= 1, "{target}: {status:?}, arrived {times} times");
            assert!(!is_fine || times == 1, "{target} was answered and did not arrive");
            unanswered += usize::from(!is_fine);
        }
    }
    // Of each client, what was under way when the server failed.
    assert!(unanswered <= 2 * CLIENTS, "{unanswered} of {} failed", told.len());
}

/// Tells clients to stop, also when a test fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

/// Since the first probe that failed, whose answer the relay has had when the next one
/// came, the server was asked nothing but how it feels.
fn only_probes_come(server: &Pega, before: usize) {
    let begin = Instant::now();
    let probes = |arrived: &[String]| arrived.iter().filter(|target| *target == HEALTH).count();
    let mut arrived = server.arrived();
    while probes(&arrived[before..]) < 4 {
        assert!(begin.elapsed() < SOON, "it is not probed: {:?}", &arrived[before..]);
        thread::sleep(Duration::from_millis(50));
        arrived = server.arrived();
    }
    let second = arrived[before..].iter().enumerate().filter(|(_, target)| *target == HEALTH);
    let second = before + second.map(|(place, _)| place).nth(1).unwrap();
    let asked: Vec<_> = arrived[second..].iter().filter(|target| *target != HEALTH).collect();
    assert!(asked.is_empty(), "after the second probe it was asked {asked:?}");
}

#[test]
fn nothing_that_may_be_made_twice_fails_with_a_server_that_is_killed() {
    let metric = |setting: &Setting| setting.metric("exogate_upstream_requests_total", &FIRST);
    let probes = |setting: &Setting| setting.metric("exogate_upstream_probes_failed_total", &FIRST);
    fails_and_comes_back(
        Pega::stop,
        |setting, _| {
            // What was under way has ended with its connections: nothing more is tried.
            let (asked, probed) = (metric(setting), probes(setting));
            let begin = Instant::now();
            while probes(setting) < probed + 2.0 {
                assert!(begin.elapsed() < SOON, "it is not probed");
                thread::sleep(Duration::from_millis(50));
            }
            assert_eq!(metric(setting), asked, "between probes that fail it is asked nothing");
        },
        |server| server.resume().unwrap(),
    );
}

#[test]
fn nothing_that_may_be_made_twice_fails_with_a_server_that_hangs() {
    let before = AtomicUsize::new(0);
    fails_and_comes_back(
        |server| {
            server.feel(Mood::Hangs);
            before.store(server.arrived().len(), SeqCst);
        },
        |_, server| only_probes_come(server, before.load(SeqCst)),
        |server| server.feel(BUSY),
    );
}

#[test]
fn nothing_fails_with_a_server_that_says_on_its_health_page_that_it_is_unwell() {
    let before = AtomicUsize::new(0);
    fails_and_comes_back(
        |server| {
            server.feel_about(HEALTH, Mood::Answers(503, None));
            before.store(server.arrived().len(), SeqCst);
        },
        |_, server| only_probes_come(server, before.load(SeqCst)),
        |server| server.feel_about(HEALTH, Mood::Well),
    );
}
