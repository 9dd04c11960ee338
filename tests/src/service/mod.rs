//! A stand-in of Microsoft's endpoint service.
//!
//! It serves real captures over real HTTPS, by the documented protocol: the methods
//! `/version`, `/version/{instance}` and `/endpoints/{instance}`, instance names in
//! any case, a `ClientRequestId` that must be a GUID. Like the real service it sends
//! no version along with the sets. What it serves changes while it runs
//! ([`EndpointService::publish`]), and so does what is wrong with it
//! ([`EndpointService::fail`], [`EndpointService::present`]).
//!
//! The service listens on [`SERVICE`] and [`SERVICE_V6`], port 443. Its certificate
//! has these addresses and the name of the real service, so that an agent reaches it
//! directly by address or, by way of [`crate::proxy::Proxy`], under the real name.

mod answer;
mod fault;
mod publication;

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use anyhow::Result;
use hyper::{body::Bytes, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use rustls::{
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use socket2::SockRef;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tokio_rustls::TlsAcceptor;

pub use self::{
    fault::{Certificate, Fault, On},
    publication::{Instance, Publication},
};
use crate::{
    lab::{Background, Family, Lab, SERVICE, SERVICE_V6},
    lock, tls,
    tls::Validity,
};

/// The name of the real service.
pub const SERVICE_NAME: &str = "endpoints.office.com";

/// A request that the service was asked, whatever it answered.
#[derive(Clone, Debug)]
pub struct Asked {
    /// When.
    pub at: Instant,
    /// From where.
    pub client: IpAddr,
    /// What: `/version/Worldwide`, as the client spelt it.
    pub path: String,
    /// The query's parameters.
    pub query: BTreeMap<String, String>,
    /// The status of the answer; none if it was never given.
    pub status: Option<u16>,
}

impl Asked {
    /// The method that was asked for.
    #[must_use]
    pub fn method(&self) -> Option<On> {
        On::of(&self.path)
    }
}

/// The running service.
#[derive(Debug)]
pub struct EndpointService {
    state: Arc<State>,
    _threads: Vec<Background>,
    _lab: Lab,
}

/// What threads share.
#[derive(Debug)]
pub(crate) struct State {
    content: Mutex<Content>,
    certificates: [(Certificate, Arc<CertifiedKey>); 3],
    /// Changes when open connections must end.
    epoch: watch::Sender<u64>,
}

/// What the service serves now, and what it was asked.
#[derive(Debug)]
pub(crate) struct Content {
    published: BTreeMap<Instance, Vec<Publication>>,
    fault: Option<(On, Fault)>,
    moving: Option<(Moment, Publication)>,
    list: Bytes,
    certificate: Certificate,
    asked: Vec<Asked>,
}

/// When a publication happens, seen from a client that reads the sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Between the client's reading of the version and of the sets: it gets new sets
    /// and knows them by the old version.
    BeforeSets,
    /// After the client has read the sets: it gets old sets, and the version has
    /// moved when it looks again.
    AfterSets,
}

impl EndpointService {
    /// Starts the service, with the latest capture of every instance.
    ///
    /// # Errors
    ///
    /// If a capture is not there, or another service runs in this lab.
    pub fn start(lab: &Lab) -> Result<Self> {
        let (v4, v6) = (SERVICE.to_string(), SERVICE_V6.to_string());
        let issue = |name: &str, validity| lab.authority().issue(&[name, &v4, &v6], validity);
        let wrong = lab.authority().issue(&["endpoints.example.com"], Validity::Now)?;
        let certificates = [
            (Certificate::Valid, issue(SERVICE_NAME, Validity::Now)?),
            (Certificate::Expired, issue(SERVICE_NAME, Validity::Expired)?),
            (Certificate::WrongName, wrong),
        ];
        let content = Content {
            published: BTreeMap::new(),
            fault: None,
            moving: None,
            list: Bytes::new(),
            certificate: Certificate::Valid,
            asked: Vec::new(),
        };
        let state = Arc::new(State {
            content: Mutex::new(content),
            certificates,
            epoch: watch::Sender::new(0),
        });
        for instance in Instance::ALL {
            lock(&state.content).publish(Publication::latest(instance)?);
        }
        let threads = [SERVICE, SERVICE_V6].into_iter().map(|address| {
            let listener = lab.wan().listen(SocketAddr::new(address, 443))?;
            let shared = Arc::clone(&state);
            lab.wan().serve(move || serve(listener, shared))
        });
        let threads = threads.collect::<Result<_>>()?;
        Ok(Self { state, _threads: threads, _lab: lab.clone() })
    }

    /// The URL by which the agent reaches it, for `feed.base_url`.
    #[must_use]
    pub fn base_url() -> String {
        format!("https://{SERVICE}")
    }

    /// The URL by which an agent with only one family reaches it.
    #[must_use]
    pub fn base_url_over(family: Family) -> String {
        let address = match family {
            Family::V4 => SERVICE,
            Family::V6 => SERVICE_V6,
        };
        format!("https://{}", SocketAddr::new(address, 443))
    }

    /// Publishes a version; from now on it is the latest.
    pub fn publish(&self, publication: Publication) {
        lock(&self.state.content).publish(publication);
    }

    /// The URL of the list that [`EndpointService::serve_list`] sets.
    #[must_use]
    pub fn list_url() -> String {
        format!("{}/list", Self::base_url())
    }

    /// Serves a list beside what the real service has.
    pub fn serve_list(&self, list: impl Into<Bytes>) {
        lock(&self.state.content).list = list.into();
    }

    /// Publishes a version while a client reads the sets of its instance.
    pub fn publish_during(&self, moment: Moment, publication: Publication) {
        lock(&self.state.content).moving = Some((moment, publication));
    }

    /// Fails every request for `method`, until [`EndpointService::heal`].
    pub fn fail(&self, method: On, fault: Fault) {
        lock(&self.state.content).fault = Some((method, fault));
    }

    /// Shows another certificate. Open connections end.
    pub fn present(&self, certificate: Certificate) {
        lock(&self.state.content).certificate = certificate;
        self.end_connections();
    }

    /// Sets right what [`EndpointService::fail`] and [`EndpointService::present`]
    /// made wrong. Open connections end, and with them the answers that hang.
    pub fn heal(&self) {
        lock(&self.state.content).fault = None;
        self.present(Certificate::Valid);
    }

    /// Every request so far, in the order of arrival.
    #[must_use]
    pub fn asked(&self) -> Vec<Asked> {
        lock(&self.state.content).asked.clone()
    }

    /// How many requests there were for `method`.
    #[must_use]
    pub fn count(&self, method: On) -> usize {
        let content = lock(&self.state.content);
        content.asked.iter().filter(|asked| method.covers(asked.method())).count()
    }

    /// Waits until there were `count` requests for `method`.
    ///
    /// # Errors
    ///
    /// If there are not in time.
    pub fn wait_for(&self, method: On, count: usize, patience: Duration) -> Result<()> {
        let begin = Instant::now();
        while self.count(method) < count {
            anyhow::ensure!(
                begin.elapsed() < patience,
                "{} requests for {method:?} instead of {count} after {patience:?}: {:#?}",
                self.count(method),
                self.asked()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    fn end_connections(&self) {
        self.state.epoch.send_modify(|epoch| *epoch = epoch.wrapping_add(1));
    }
}

impl Content {
    fn publish(&mut self, publication: Publication) {
        self.published.entry(publication.instance()).or_default().push(publication);
    }

    fn latest(&self, instance: Instance) -> Option<&Publication> {
        self.published.get(&instance)?.last()
    }
}

impl ResolvesServerCert for State {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let wanted = lock(&self.content).certificate;
        let found = self.certificates.iter().find(|(kind, _)| *kind == wanted)?;
        Some(Arc::clone(&found.1))
    }
}

/// Where the captures of the service are.
#[must_use]
pub fn captures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("data")
}

async fn serve(listener: std::net::TcpListener, state: Arc<State>) -> Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let acceptor = TlsAcceptor::from(tls::server_with(Arc::clone(&state) as _)?);
    loop {
        // A client may be gone before it is accepted.
        let Ok((stream, client)) = listener.accept().await else { continue };
        let (acceptor, state) = (acceptor.clone(), Arc::clone(&state));
        tokio::spawn(async move {
            let mut epoch = state.epoch.subscribe();
            tokio::select! {
                // How a client fails is for its own test to see.
                _ = converse(stream, client.ip(), acceptor, Arc::clone(&state)) => {}
                _ = epoch.changed() => {}
            }
        });
    }
}

async fn converse(
    stream: TcpStream,
    client: IpAddr,
    acceptor: TlsAcceptor,
    state: Arc<State>,
) -> Result<()> {
    // A second handle, by which a reset reaches the socket below TLS and HTTP.
    let socket = Arc::new(Mutex::new(Some(stream.as_fd().try_clone_to_owned()?)));
    let stream = acceptor.accept(stream).await?;
    let service = service_fn(|request| {
        let (state, socket) = (Arc::clone(&state), Arc::clone(&socket));
        async move {
            let answer = answer::answer(&state, client, &request).await;
            if answer.is_err() {
                reset(lock(&socket).take())?;
            }
            answer
        }
    });
    http1::Builder::new().serve_connection(TokioIo::new(stream), service).await?;
    Ok(())
}

/// Makes closing the socket a reset.
fn reset(socket: Option<OwnedFd>) -> std::io::Result<()> {
    let Some(socket) = socket else { return Ok(()) };
    SockRef::from(&socket).set_linger(Some(Duration::ZERO))
}
