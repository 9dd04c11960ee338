//! The relay: what the gate lets through is received, checked, made durable and
//! passed on.
//!
//! Microsoft deletes, delays or drops when a listener is slow or away; the
//! server behind it restarts, upgrades and stalls. The relay stands between
//! them. It knows nothing of BPF and nothing of address lists: whether a source
//! may speak is asked of the [`listen::Admission`] that it is given.
//!
//! - [`listen`]: TCP, PROXY protocol, TLS, HTTP/1.1 and HTTP/2, with limits; and
//!   the draining of all of it.
//! - [`route`]: host and path to a route; what is checked is what is forwarded.
//! - [`graph`], [`ews`]: what a request of each kind has to be, and its answer.
//! - `proxy`: requests of clients, streamed, each with a connection of its own.
//! - [`secret`]: values that senders have to know.
//! - `receive`: from a request to its answer.
//! - [`silence`], `slow`: what Microsoft does not say: who has gone silent, and
//!   whether our answers are slow.
//! - [`spool`]: durable, bounded, in order; `store` opens it.
//! - [`deliver`]: from the spool to the upstream, again and again.
//! - [`upstream`]: pools of servers: health, fail-over, credentials.
//!
//! # When things fail
//!
//! What cannot be made durable is not accepted: 503, and Microsoft repeats it.
//! What was accepted is delivered at least once, or becomes a dead letter that
//! an operator can see and replay. An upstream that is away costs nothing but
//! time and room in the spool.

mod access;
pub mod deliver;
pub mod ews;
mod forward;
#[cfg(fuzzing)]
pub mod fuzzing;
pub mod graph;
pub mod listen;
mod proxy;
mod receive;
pub mod route;
mod running;
pub mod secret;
pub mod silence;
mod slow;
pub mod spool;
mod store;
pub mod upstream;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use http_body_util::combinators::BoxBody;
use hyper::body::Bytes;
use prometheus::Registry;
use tokio::{
    sync::{Mutex, oneshot},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

pub use self::running::{RouteStatus, Running, Status};
use self::{
    deliver::{Answered, DeliveryRoute, Prepare},
    listen::{Admission, Inherited, Listener},
    proxy::passthrough::Passthroughs,
    receive::{Clocked, Kind, Receiver, Room, Watched},
    route::Routes,
    silence::Silence,
    slow::SlowAnswers,
    store::{OpenSpool, Storage},
    upstream::Pool,
};
use crate::config::{self, Config, RouteKind};

/// How long connections wait for the spool at the start. Then they are answered, if
/// only with 503.
const SPOOL_FIRST: Duration = Duration::from_secs(2);

/// An error of whatever brings a body.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A body, wherever it comes from.
pub type Body = BoxBody<Bytes, BoxError>;

/// Why the relay was not opened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A listener has no address or no certificate.
    #[error(transparent)]
    Listen(#[from] listen::Error),
    /// A listener stands on a port that nobody guards.
    #[error(
        "listener {listener}: no guard stands on TCP port {port}, so nothing says who may speak to \
         it; add the port to a [[guard]], or name another one with guard = PORT"
    )]
    Unguarded {
        /// The listener.
        listener: String,
        /// Its port.
        port: u16,
    },
    /// A file of a route cannot be used.
    #[error("route {route}: {problem}")]
    Route {
        /// The route.
        route: String,
        /// What is wrong, with the option and the file.
        problem: String,
    },
    /// An upstream cannot be reached as configured.
    #[error(transparent)]
    Upstream(#[from] upstream::Error),
    /// A metric could not be registered.
    #[error("registering metrics failed: {0}")]
    Metrics(#[from] prometheus::Error),
}

impl Error {
    /// Whether the configuration, or a file that it names, is wrong.
    #[must_use]
    pub const fn is_usage(&self) -> bool {
        match self {
            Self::Listen(error) => !matches!(error, listen::Error::Bind { .. }),
            Self::Unguarded { .. } | Self::Route { .. } | Self::Upstream(_) => true,
            Self::Metrics(_) => false,
        }
    }
}

/// A relay that has its addresses and files, and takes nothing yet.
pub struct Relay {
    listeners: Vec<Listener>,
    receiver: Receiver,
    pools: Vec<Arc<Pool>>,
    spool: OpenSpool,
    /// None if no route stores anything.
    storage: Option<Storage>,
    drain: Duration,
}

impl Relay {
    /// Binds the listeners and reads the files, which blocks for a moment; needs
    /// tokio.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub fn open(config: &Config, registry: &Registry) -> Result<Self, Error> {
        let relay = &config.relay;
        let listeners = bind(config, registry)?;
        let metrics = upstream::Metrics::register(registry)?;
        let pools = relay.upstreams.iter().map(|upstream| Pool::new(upstream, &metrics));
        let pools = pools.collect::<Result<Vec<_>, _>>()?;
        let spool = OpenSpool::default();
        let metrics = receive::Metrics::register(registry)?;
        let memory = receive::Memory::new(relay.general.body_memory, registry)?;
        let mut endpoints: BTreeMap<String, Arc<SlowAnswers>> = BTreeMap::new();
        let mut rooms = Vec::new();
        for route in &relay.routes {
            let Some(pool) = pools.get(route.upstream) else { continue };
            let kind = kind(route, config)?;
            let endpoint = matches!(kind, Kind::Graph { .. }).then(|| {
                let host = route.host.clone().unwrap_or_else(|| "any".to_owned());
                Arc::clone(endpoints.entry(host).or_default())
            });
            rooms.push(Room {
                kind,
                pool: Arc::clone(pool),
                spool: spool.clone(),
                memory: memory.clone(),
                metrics: metrics.of(&route.name),
                silence: Arc::new(Silence::new(route.silent_after)),
                endpoint,
                route: route.clone(),
            });
        }
        // Clients of a proxy are silent as long as they like.
        let notified = rooms.iter().filter(|room| !matches!(room.kind, Kind::Proxy(..)));
        let watched = notified.map(|room| Watched {
            route: room.route.name.clone(),
            silence: Arc::clone(&room.silence),
        });
        let clocked = Clocked::new(watched.collect(), endpoints, config.only_cloud_ews())?;
        registry.register(Box::new(clocked))?;
        let storage = match relay.needs_spool() {
            true => Some(Storage::new(relay, registry, deliveries(&rooms), spool.clone())?),
            false => None,
        };
        let routes = Routes::new(relay);
        let passthroughs = Some(Passthroughs::new(relay, &pools)).filter(|all| !all.is_empty());
        let passthroughs = passthroughs.map(Arc::new);
        let unrouted = metrics.unrouted;
        let access_log = relay.general.access_log;
        let receiver = Receiver { routes, rooms, unrouted, passthroughs, access_log };
        let drain = relay.drain();
        Ok(Self { listeners, receiver, pools, spool, storage, drain })
    }

    /// Begins to take and to deliver. `opened` is called when the spool is open, if
    /// there is one; it is waited for, but not for long.
    pub async fn start(
        self,
        admission: Arc<dyn Admission>,
        opened: impl FnOnce() + Send + 'static,
    ) -> Running {
        let stop = CancellationToken::new();
        let mut tasks = Vec::new();
        for room in &self.receiver.rooms {
            if let Kind::Graph { checks, .. } = &room.kind
                && let Some(keys) = checks.keys()
            {
                let (keys, stop) = (Arc::clone(keys), stop.clone());
                tasks.push(tokio::spawn(async move {
                    stop.run_until_cancelled(keys.run()).await;
                }));
            }
        }
        if let Some(storage) = self.storage {
            let (open, is_open) = oneshot::channel();
            let opened = move || {
                opened();
                // Nobody may be waiting any more.
                let _ = open.send(());
            };
            tasks.push(tokio::spawn(storage.run(opened, stop.clone())));
            let _ = timeout(SPOOL_FIRST, is_open).await;
        }
        let receiver = Arc::new(self.receiver);
        let mut addresses = Vec::new();
        let mut listeners = Vec::new();
        for listener in self.listeners {
            for address in listener.addresses() {
                tracing::info!(%address, "the relay listens");
                addresses.push(address.to_string());
            }
            listeners.push(listener.serve(Arc::clone(&admission), Arc::clone(&receiver)));
        }
        Running {
            addresses,
            receiver,
            pools: self.pools,
            spool: self.spool,
            drain: self.drain,
            stop,
            state: Mutex::new(running::State { listeners, tasks }),
        }
    }
}

/// Binds the listeners, of which each must be guarded.
fn bind(config: &Config, registry: &Registry) -> Result<Vec<Listener>, Error> {
    let metrics = listen::Metrics::register(registry)?;
    let mut inherited = Inherited::from_environment();
    let mut listeners = Vec::new();
    for listener in &config.relay.listeners {
        let bound = Listener::bind(listener, &mut inherited, &metrics)?;
        for port in bound.guarded_ports() {
            if !config.guards_tcp(port) {
                let listener = listener.address.to_string();
                return Err(Error::Unguarded { listener, port });
            }
        }
        listeners.push(bound);
    }
    Ok(listeners)
}

/// How what is stored is delivered, by route.
fn deliveries(rooms: &[Room]) -> HashMap<Arc<str>, DeliveryRoute> {
    let stored = rooms.iter().filter(|room| room.route.is_stored());
    let delivery = |room: &Room| {
        let route = room.route.clone();
        let prepare: Arc<Prepare> = Arc::new(move |message, id| {
            forward::delivery(&route, message, *id)
                .ok_or_else(|| "the route does not take its path any more".to_owned())
        });
        let answered: Option<Arc<Answered>> = match room.kind {
            Kind::Graph { .. } | Kind::Proxy(..) => None,
            Kind::Ews { .. } => Some(Arc::new(receive::answered)),
        };
        DeliveryRoute { pool: Arc::clone(&room.pool), prepare, answered }
    };
    stored.map(|room| (room.route.name.as_str().into(), delivery(room))).collect()
}

/// What the requests of a route have to be.
fn kind(route: &config::Route, config: &Config) -> Result<Kind, Error> {
    let failed = |problem: String| Error::Route { route: route.name.clone(), problem };
    Ok(match &route.kind {
        RouteKind::Graph(graph) => Kind::Graph {
            checks: graph::Checks::load(graph, &config.feed)
                .map_err(|error| failed(error.to_string()))?,
            handshake: graph.handshake,
        },
        RouteKind::Ews(ews) => Kind::Ews {
            checks: ews::Checks::load(ews).map_err(|error| failed(error.to_string()))?,
            delivery: ews.delivery,
        },
        RouteKind::Proxy(proxy) => {
            let maintenance = receive::Maintenance::load(proxy.maintenance.as_ref());
            Kind::Proxy(proxy.clone(), maintenance.map_err(failed)?)
        }
    })
}
