//! The senders: raw bytes over TLS, as cheap as can be, on one core together with the
//! upstream.
//!
//! - [`saturate`]: each connection sends again as soon as it has its answer.
//!   Meanwhile the core never sleeps: to wake another core costs much in a virtual
//!   machine, and more for those whose requests come apart, which would make the
//!   slower contender slower still.
//! - [`pace`]: requests are due at even intervals, whether or not those before are
//!   answered, and their time counts from when they were due. A server that stalls is
//!   thus charged for all that it kept waiting. The pacer looks at the clock without a
//!   pause, since the timers of the runtime are in milliseconds.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use exogate_tests::notification::RELAY_NAME;
use rustls::{
    ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    sync::Notify,
    task::{JoinHandle, spawn_local, yield_now},
    time::{sleep, timeout},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::http::{Request, length, status};

/// How long an answer may take before the benchmark is given up.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where requests go.
#[derive(Clone)]
pub struct Target {
    pub address: SocketAddr,
    pub tls: Option<TlsConnector>,
}

/// What each sender sends, and how.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Traffic {
    /// EWS notifications on connections that stay open.
    Ews,
    /// EWS notifications, each on a new connection.
    EwsOnce,
    /// Graph notifications on connections that stay open.
    Graph,
    /// Requests of clients that are authenticated on their connections.
    Pinned,
}

impl Traffic {
    fn request(self, sender: usize) -> Result<Request> {
        match self {
            Self::Ews => Request::ews(sender, false),
            Self::EwsOnce => Request::ews(sender, true),
            Self::Graph => Request::graph(sender),
            Self::Pinned => Request::exchange(sender),
        }
    }

    fn status(self) -> u16 {
        if self == Self::Graph { 202 } else { 200 }
    }
}

/// A connection.
pub struct Connection {
    stream: Box<dyn Stream>,
    buffer: Vec<u8>,
}

trait Stream: AsyncRead + AsyncWrite + Unpin {}
impl<S: AsyncRead + AsyncWrite + Unpin> Stream for S {}

impl Connection {
    /// Connects, with a full handshake.
    pub async fn open(target: &Target) -> Result<Self> {
        let stream = TcpStream::connect(target.address).await?;
        stream.set_nodelay(true)?;
        let stream: Box<dyn Stream> = match &target.tls {
            Some(tls) => Box::new(handshake(tls, stream).await?),
            None => Box::new(stream),
        };
        Ok(Self { stream, buffer: vec![0; 4096] })
    }

    /// Sends a request and reads the whole answer.
    pub async fn exchange(&mut self, request: &[u8], expected: u16) -> Result<()> {
        self.stream.write_all(request).await?;
        self.stream.flush().await?;
        let mut filled = 0;
        loop {
            let read = self.stream.read(&mut self.buffer[filled..]).await?;
            ensure!(read > 0, "the connection ends after {filled} bytes of an answer");
            filled += read;
            if length(&self.buffer[..filled])?.is_some_and(|length| length <= filled) {
                let answer = &self.buffer[..filled];
                let found = status(answer)?;
                ensure!(found == expected, "answered: {}", String::from_utf8_lossy(answer));
                return Ok(());
            }
        }
    }

    /// Sends a part of a request.
    pub async fn write(&mut self, part: &[u8]) -> Result<()> {
        Ok(self.stream.write_all(part).await?)
    }

    /// Sends all that was written.
    pub async fn flush(&mut self) -> Result<()> {
        Ok(self.stream.flush().await?)
    }

    /// Reads a part of an answer.
    pub async fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        Ok(self.stream.read(buffer).await?)
    }

    /// Waits for the other side to end the connection, and does the same.
    async fn close(mut self) -> Result<()> {
        let read = self.stream.read(&mut self.buffer).await?;
        ensure!(read == 0, "{read} bytes behind the last answer");
        Ok(())
    }
}

async fn handshake(tls: &TlsConnector, stream: TcpStream) -> Result<TlsStream<TcpStream>> {
    Ok(tls.connect(ServerName::try_from(RELAY_NAME)?, stream).await?)
}

/// TLS 1.3 with one suite and one group, without resumption. What the server shows is
/// not verified: that is the sender's work and would only slow the sender down.
pub fn tls() -> Result<TlsConnector> {
    let provider = CryptoProvider {
        cipher_suites: vec![aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384],
        kx_groups: vec![aws_lc_rs::kx_group::X25519],
        ..aws_lc_rs::default_provider()
    };
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Trusting))
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

/// What was agreed on with a server, to see that it is the same with all.
pub async fn agreement(target: &Target) -> Result<String> {
    let tls = target.tls.as_ref().context("the target speaks TLS")?;
    let mut stream = handshake(tls, TcpStream::connect(target.address).await?).await?;
    let mut request = Request::ews(0, false)?;
    stream.write_all(request.numbered(0)).await?;
    let mut buffer = [0; 4096];
    let read = stream.read(&mut buffer).await?;
    ensure!(status(&buffer[..read])? == 200, "{}", String::from_utf8_lossy(&buffer[..read]));
    let (_, session) = stream.get_ref();
    let suite = session.negotiated_cipher_suite().context("a suite is agreed on")?;
    let group = session.negotiated_key_exchange_group().context("a group is agreed on")?;
    Ok(format!(
        "{:?}, {:?}, {} session tickets",
        suite.suite(),
        group.name(),
        session.tls13_tickets_received()
    ))
}

/// Keeps so many senders busy for a while, and counts the answers in the interval that
/// `measure` brackets.
pub async fn saturate<M>(
    target: &Target,
    traffic: Traffic,
    senders: usize,
    warm_up: Duration,
    time: Duration,
    mut measure: impl FnMut() -> Result<M>,
) -> Result<Interval<M>> {
    let answers = Rc::new(Cell::new(0u64));
    let stop = Rc::new(Cell::new(false));
    let tasks: Vec<_> = (0..senders)
        .map(|sender| {
            let (answers, stop, target) = (Rc::clone(&answers), Rc::clone(&stop), target.clone());
            spawn_local(async move { repeat(&target, traffic, sender, &answers, &stop).await })
        })
        .collect();
    let idle = Rc::new(Cell::new(Duration::ZERO));
    let awake = spawn_local(stay_awake(Rc::clone(&idle), Rc::clone(&stop)));
    let before = pause(&tasks, warm_up).await.and_then(|()| measure());
    let (begin, first, idle_before) = (Instant::now(), answers.get(), idle.get());
    let waited = pause(&tasks, time).await;
    let (time, count, idle) = (begin.elapsed(), answers.get() - first, idle.get() - idle_before);
    let after = waited.and_then(|()| measure());
    stop.set(true);
    awake.await?;
    join(tasks).await?;
    Ok(Interval { answers: count, time, idle, before: before?, after: after? })
}

/// What happened between two measurements.
pub struct Interval<M> {
    pub answers: u64,
    pub time: Duration,
    /// How long generator and upstream had nothing to do.
    pub idle: Duration,
    pub before: M,
    pub after: M,
}

/// Keeps the core from sleeping, and adds up the time in which nothing else ran.
async fn stay_awake(idle: Rc<Cell<Duration>>, stop: Rc<Cell<bool>>) {
    /// To look for what has come, in vain, takes less.
    const IN_VAIN: Duration = Duration::from_micros(3);
    let mut before = Instant::now();
    while !stop.get() {
        yield_now().await;
        let now = Instant::now();
        let took = now - before;
        if took < IN_VAIN {
            idle.set(idle.get() + took);
        }
        before = now;
    }
}

/// Waits, unless a sender ends before its time.
async fn pause(tasks: &[JoinHandle<Result<()>>], time: Duration) -> Result<()> {
    sleep(time).await;
    ensure!(!tasks.iter().any(JoinHandle::is_finished), "a sender gave up");
    Ok(())
}

async fn join(tasks: Vec<JoinHandle<Result<()>>>) -> Result<()> {
    for task in tasks {
        timeout(PATIENCE, task).await.context("an answer is never given")???;
    }
    Ok(())
}

async fn repeat(
    target: &Target,
    traffic: Traffic,
    sender: usize,
    answers: &Cell<u64>,
    stop: &Cell<bool>,
) -> Result<()> {
    let mut request = traffic.request(sender)?;
    let mut connection = None;
    for number in 0.. {
        if stop.get() {
            break;
        }
        let open = match &mut connection {
            Some(open) => open,
            None => connection.insert(Connection::open(target).await.context("no connection")?),
        };
        open.exchange(request.numbered(number), traffic.status()).await?;
        if traffic == Traffic::EwsOnce
            && let Some(open) = connection.take()
        {
            open.close().await?;
        }
        answers.set(answers.get() + 1);
    }
    Ok(())
}

/// Sends at a rate, over so many connections, and tells how long each answer took since
/// its request was due. Those of the warm-up are left out.
pub async fn pace(
    target: &Target,
    traffic: Traffic,
    senders: usize,
    rate: f64,
    warm_up: Duration,
    time: Duration,
) -> Result<Vec<Duration>> {
    let queue = Rc::new(Queue::default());
    let begin = Instant::now() + Duration::from_millis(500);
    let measured = begin + warm_up;
    let tasks: Vec<_> = (0..senders)
        .map(|sender| {
            let (queue, target) = (Rc::clone(&queue), target.clone());
            spawn_local(async move { work(&target, traffic, sender, &queue, measured).await })
        })
        .collect();
    let interval = Duration::from_secs_f64(1.0 / rate);
    let mut due = begin;
    while due < measured + time {
        while Instant::now() < due {
            yield_now().await;
        }
        queue.put(due);
        due += interval;
        if tasks.iter().any(JoinHandle::is_finished) {
            break;
        }
    }
    queue.end();
    join(tasks).await?;
    Ok(queue.took.take())
}

async fn work(
    target: &Target,
    traffic: Traffic,
    sender: usize,
    queue: &Queue,
    measured: Instant,
) -> Result<()> {
    let mut request = traffic.request(sender)?;
    let mut connection = Connection::open(target).await?;
    let mut number = 0;
    while let Some(due) = queue.take().await {
        connection.exchange(request.numbered(number), traffic.status()).await?;
        number += 1;
        if due >= measured {
            queue.took.borrow_mut().push(due.elapsed());
        }
    }
    Ok(())
}

/// Requests that are due, and senders that are free.
#[derive(Default)]
struct Queue {
    due: RefCell<VecDeque<Instant>>,
    free: Notify,
    is_over: Cell<bool>,
    took: RefCell<Vec<Duration>>,
}

impl Queue {
    fn put(&self, due: Instant) {
        self.due.borrow_mut().push_back(due);
        self.free.notify_one();
    }

    fn end(&self) {
        self.is_over.set(true);
        self.free.notify_waiters();
    }

    async fn take(&self) -> Option<Instant> {
        loop {
            let free = self.free.notified();
            if let Some(due) = self.due.borrow_mut().pop_front() {
                return Some(due);
            }
            if self.is_over.get() {
                return None;
            }
            free.await;
        }
    }
}

/// Opens so many connections, asks once on each and leaves them open.
pub async fn crowd(target: &Target, size: usize) -> Result<Vec<Connection>> {
    let mut crowd = Vec::with_capacity(size);
    let mut request = Request::ews(0, false)?;
    while crowd.len() < size {
        let connections =
            (crowd.len()..size.min(crowd.len() + 32)).map(|_| Connection::open(target));
        for connection in futures_util::future::join_all(connections).await {
            crowd.push(connection?);
        }
        for connection in crowd.iter_mut().rev().take(32) {
            connection.exchange(request.numbered(0), 200).await?;
        }
    }
    Ok(crowd)
}

/// Waits until a server answers as it should.
pub async fn wait_for(target: &Target, traffic: Traffic, patience: Duration) -> Result<()> {
    let begin = Instant::now();
    loop {
        match timeout(patience, ask(target, traffic)).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) if begin.elapsed() > patience => return Err(error),
            Err(_) => bail!("no answer within {patience:?}"),
            Ok(Err(_)) => sleep(Duration::from_millis(20)).await,
        }
    }
}

async fn ask(target: &Target, traffic: Traffic) -> Result<()> {
    let mut connection = Connection::open(target).await?;
    connection.exchange(traffic.request(0)?.numbered(0), traffic.status()).await
}

/// Takes every certificate and every signature.
#[derive(Debug)]
struct Trusting;

impl ServerCertVerifier for Trusting {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}
