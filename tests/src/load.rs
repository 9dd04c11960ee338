//! Graph at work: many subscriptions that notify without a pause.
//!
//! Each subscription has a connection of its own and numbers its notifications.
//! One that is not accepted is not repeated: what Graph would send again is then a
//! notification of its own, and a repetition at the far end is the relay's doing.
//! [`Report`] knows what was acknowledged, and holds it against what arrived.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    ops::Range,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use http_body_util::{BodyExt, Full};
use hyper::{
    Request, StatusCode,
    body::Bytes,
    client::conn::http1::{self, SendRequest},
    header::{CONTENT_TYPE, HOST},
};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;

use crate::{
    lab::{Background, Family, Lab, Peer, edge},
    lock,
    notification::{Notification, RELAY_NAME},
    peer::{HTTPS, PATIENCE, Reached, reach},
    pega::Received,
};

/// How long an answer is waited for. Graph gives up after 10 s.
const ANSWER: Duration = Duration::from_secs(10);
/// How long a sender waits before it connects again.
const PAUSE: Duration = Duration::from_millis(5);

/// The `clientState` of the notifications.
pub const CLIENT_STATE: &str = "the state of the client";

/// The running senders.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    thread: Option<Background>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    report: Mutex<Report>,
}

/// What was sent, and how it was answered.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The numbers of each subscription's notifications that were acknowledged.
    pub acknowledged: BTreeMap<String, BTreeSet<u64>>,
    /// Answers other than 202, by status.
    pub refused: BTreeMap<u16, u64>,
    /// Requests that got no answer.
    pub broken: u64,
    /// How long each acknowledgement took.
    pub took: Vec<Duration>,
}

impl Report {
    fn record(
        &mut self,
        subscription: &str,
        number: u64,
        status: Option<StatusCode>,
        took: Duration,
    ) {
        match status {
            Some(StatusCode::ACCEPTED) => {
                self.took.push(took);
                self.acknowledged.entry(subscription.to_owned()).or_default().insert(number);
            }
            Some(status) => {
                let count = self.refused.entry(status.as_u16()).or_default();
                *count = count.saturating_add(1);
            }
            None => self.broken = self.broken.saturating_add(1),
        }
    }

    /// How many notifications were acknowledged.
    #[must_use]
    pub fn count(&self) -> usize {
        self.acknowledged.values().map(BTreeSet::len).sum()
    }

    /// Holds what arrived at the far end against what was acknowledged: nothing
    /// acknowledged is missing, everything is whole, the notifications of each
    /// subscription first arrive in the order in which they were accepted, and what
    /// arrives twice has the same identity.
    ///
    /// # Errors
    ///
    /// What is wrong.
    pub fn hold_against(&self, received: &[Received], target: &str) -> Result<()> {
        let mut arrived: BTreeMap<&str, BTreeMap<u64, &str>> = BTreeMap::new();
        let mut last: BTreeMap<&str, u64> = BTreeMap::new();
        let expected: BTreeMap<String, &str> =
            self.acknowledged.keys().map(|name| (name.clone(), name.as_str())).collect();
        for request in received.iter().filter(|request| request.is_taken()) {
            let (name, number) = identify(&request.body)?;
            let whole = notification(target, &name, number).body;
            ensure!(request.body == whole, "{name} {number} arrived damaged");
            let id = request.id().unwrap_or_default();
            ensure!(!id.is_empty(), "{name} {number} arrived without an identity");
            let Some(name) = expected.get(&name).copied() else { continue };
            match arrived.entry(name).or_default().insert(number, id) {
                Some(earlier) => {
                    ensure!(earlier == id, "{name} {number} arrived as {earlier} and as {id}");
                }
                None => {
                    let before = last.insert(name, number);
                    ensure!(
                        before.is_none_or(|before| before < number),
                        "{name}: {number} arrived after {before:?}"
                    );
                }
            }
        }
        for (name, numbers) in &self.acknowledged {
            let got = arrived.get(name.as_str());
            let lost: Vec<_> = numbers
                .iter()
                .filter(|number| !got.is_some_and(|got| got.contains_key(number)))
                .collect();
            ensure!(lost.is_empty(), "{name}: acknowledged and lost: {lost:?}");
        }
        Ok(())
    }
}

impl Report {
    /// What arrived at the far end although its sender was not told that it was accepted:
    /// it was taken, and broken off before the answer.
    ///
    /// # Errors
    ///
    /// If something else arrived.
    pub fn unacknowledged(&self, received: &[Received]) -> Result<BTreeSet<(String, u64)>> {
        let mut unacknowledged = BTreeSet::new();
        for request in received {
            let (name, number) = identify(&request.body)?;
            let numbers = self.acknowledged.get(&name);
            if !numbers.is_some_and(|numbers| numbers.contains(&number)) {
                unacknowledged.insert((name, number));
            }
        }
        Ok(unacknowledged)
    }
}

impl Load {
    /// Lets so many subscriptions notify from the sender of Graph notifications, one
    /// after the other or with a pause between.
    ///
    /// # Errors
    ///
    /// If the sender's host cannot be entered.
    pub fn start(lab: &Lab, target: &str, subscriptions: usize, pause: Duration) -> Result<Self> {
        Self::start_at(lab, target, 0..subscriptions, pause)
    }

    /// The same with a new connection for each notification, as Exchange has it.
    ///
    /// # Errors
    ///
    /// See [`Load::start`].
    pub fn start_anew(lab: &Lab, target: &str, subscriptions: usize) -> Result<Self> {
        Self::start_with(lab, target, 0..subscriptions, Duration::ZERO, true)
    }

    /// The same with the subscriptions of these numbers, beside those of others.
    ///
    /// # Errors
    ///
    /// See [`Load::start`].
    pub fn start_at(
        lab: &Lab,
        target: &str,
        subscriptions: Range<usize>,
        pause: Duration,
    ) -> Result<Self> {
        Self::start_with(lab, target, subscriptions, pause, false)
    }

    fn start_with(
        lab: &Lab,
        target: &str,
        subscriptions: Range<usize>,
        pause: Duration,
        anew: bool,
    ) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let connector = TlsConnector::from(lab.authority().client()?);
        let target: Arc<str> = target.into();
        let all = Arc::clone(&shared);
        let work = move || async move {
            let senders = subscriptions.map(|number| {
                let (shared, connector) = (Arc::clone(&all), connector.clone());
                let target = Arc::clone(&target);
                tokio::spawn(async move {
                    notify(&shared, &connector, &target, &name(number), pause, anew).await;
                })
            });
            futures_util::future::join_all(senders).await;
            Ok(())
        };
        let thread = lab.peer(Peer::Graph).serve(work)?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// What happened so far.
    #[must_use]
    pub fn report(&self) -> Report {
        lock(&self.shared.report).clone()
    }

    /// How many notifications were acknowledged so far.
    #[must_use]
    pub fn count(&self) -> usize {
        lock(&self.shared.report).count()
    }

    /// Waits until so many notifications were acknowledged.
    ///
    /// # Errors
    ///
    /// If they were not in time.
    pub fn wait_for(&self, count: usize, patience: Duration) -> Result<()> {
        let begin = Instant::now();
        while self.count() < count {
            ensure!(
                begin.elapsed() < patience,
                "{} of {count} are acknowledged after {patience:?}",
                self.count()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Lets the senders finish what they are at, and tells what happened.
    ///
    /// # Errors
    ///
    /// If a sender failed.
    pub fn stop(mut self) -> Result<Report> {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join()?;
        }
        Ok(self.report())
    }
}

fn name(number: usize) -> String {
    format!("subscription-{number:04}")
}

fn notification(target: &str, subscription: &str, number: u64) -> Notification {
    Notification::graph(target, &[subscription], number, CLIENT_STATE)
}

/// The subscription and number of a notification that arrived.
fn identify(body: &[u8]) -> Result<(String, u64)> {
    let json: serde_json::Value = serde_json::from_slice(body)?;
    let text = |pointer| json.pointer(pointer).and_then(serde_json::Value::as_str);
    let name = text("/value/0/subscriptionId").unwrap_or_default().to_owned();
    let number = text("/value/0/resource").and_then(|path| path.rsplit('/').next()?.parse().ok());
    Ok((name, number.unwrap_or_default()))
}

async fn notify(
    shared: &Shared,
    connector: &TlsConnector,
    target: &str,
    subscription: &str,
    pause: Duration,
    anew: bool,
) {
    let mut connection = None;
    let mut number = 0u64;
    while !shared.stop.load(Ordering::Relaxed) {
        let sender = match &mut connection {
            Some(sender) => sender,
            None => match connect(connector).await {
                Some(sender) => connection.insert(sender),
                None => {
                    sleep(PAUSE).await;
                    continue;
                }
            },
        };
        number = number.saturating_add(1);
        let begin = Instant::now();
        let status = send(sender, notification(target, subscription, number)).await;
        if status.is_none() {
            connection = None;
        }
        lock(&shared.report).record(subscription, number, status, begin.elapsed());
        if anew || connection.as_ref().is_some_and(SendRequest::is_closed) {
            connection = None;
        }
        if !pause.is_zero() {
            sleep(pause).await;
        }
    }
}

async fn connect(connector: &TlsConnector) -> Option<SendRequest<Full<Bytes>>> {
    let source = Peer::Graph.address(Family::V4);
    let target = SocketAddr::new(edge(Family::V4), HTTPS);
    let Ok(Reached::Answered(stream)) = reach(source, target, PATIENCE).await else { return None };
    let name = ServerName::try_from(RELAY_NAME).ok()?;
    let stream = timeout(ANSWER, connector.connect(name, stream)).await.ok()?.ok()?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.ok()?;
    tokio::spawn(connection);
    Some(sender)
}

async fn send(
    sender: &mut SendRequest<Full<Bytes>>,
    notification: Notification,
) -> Option<StatusCode> {
    let request = Request::post(&notification.target)
        .header(HOST, RELAY_NAME)
        .header(CONTENT_TYPE, "application/json")
        .body(Full::new(notification.body))
        .ok()?;
    let exchange = async {
        sender.ready().await.ok()?;
        let response = sender.send_request(request).await.ok()?;
        let status = response.status();
        response.into_body().collect().await.ok()?;
        Some(status)
    };
    timeout(ANSWER, exchange).await.ok()?
}
