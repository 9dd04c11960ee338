//! The running agent: starts the parts, keeps them, and stops them in order.
//!
//! Start: the configuration is valid before anything is opened; the filter stands, from
//! the last known good list or the built-in one, before anything is bound, before the
//! first poll and before the relay takes its first connection. It waits for nobody else:
//! the spool is opened beside it. A filter that cannot be put on an interface that is
//! there fails the start, and leaves no new one behind; what fails after that, an address
//! in use or a group that nobody knows, leaves the filter in force. An interface that is
//! not there yet is no failure: it is filtered when it appears. Attaching is the work of
//! one thread, and no other may do it ([`privilege`]).
//!
//! Then four things go on side by side: the [`Keeper`] owns the list, the
//! [`Relay`] takes and delivers notifications, the [`admin`](crate::admin) server
//! answers, and the main loop gives the gates their clock, follows interfaces and
//! addresses, and obeys signals.
//!
//! Stop: the relay first, which answers what it has begun; then the keeper, so
//! that nothing is published any more; then the gates, which keep filtering
//! unless `gate.on_stop` is `detach`.

mod admission;
mod agent;
mod drops;
mod explain;
mod export;
mod follow;
mod interfaces;
mod left_out;
mod orders;
mod privilege;
mod publish;
mod relay;
mod retry;
mod supervisor;

use std::{
    net::IpAddr,
    sync::{Arc, PoisonError, RwLock},
};

use jiff::Timestamp;

pub use self::privilege::Attacher;
use self::{
    admission::TableInForce,
    agent::{Agent, Parts},
    drops::Drops,
    follow::{Changes, Signals},
    interfaces::Interfaces,
    publish::table,
    supervisor::Supervisor,
};
pub use self::{explain::explain, export::export};
pub(crate) use self::{follow::is_forwarding, orders::feed};
use crate::{
    admin::{Audit, BindError, Health, Server},
    allowlist::{self, Keeper},
    config::{self, Config, Mode, Privileges},
    gate::{self, Gates},
    relay::{self as relaying, Relay},
    telemetry,
};

/// Reads the configuration, at the start and again at every reload.
pub type Load = Box<dyn Fn() -> Result<Config, config::Error> + Send>;

/// Why the agent did not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration cannot be read.
    #[error(transparent)]
    Config(#[from] config::Error),
    /// It can be read, but not run.
    #[error("{0}")]
    Usage(String),
    /// The filter could not be put on an interface.
    #[error(transparent)]
    Gate(#[from] gate::Error),
    /// The list could not be opened.
    #[error(transparent)]
    Open(#[from] allowlist::OpenError),
    /// A table could not be made of the list.
    #[error(transparent)]
    Publish(#[from] publish::Error),
    /// An interface is there again that the agent may no longer filter on.
    #[error(
        "interface {0} is there and not filtered: the right to attach was given up when all \
         interfaces were filtered; restart the agent, and set privileges = \"keep\" where \
         interfaces come and go"
    )]
    GaveUp(String),
    /// A listener could not be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The relay could not be opened.
    #[error(transparent)]
    Relay(#[from] relaying::Error),
    /// A metric could not be registered.
    #[error("registering metrics failed: {0}")]
    Metrics(#[from] prometheus::Error),
    /// Signals or network changes could not be watched.
    #[error("watching {what} failed: {source}")]
    Watch {
        /// What was to be watched.
        what: &'static str,
        /// What came back.
        source: std::io::Error,
    },
}

impl Error {
    /// Whether the command or its configuration was wrong (exit status 64).
    #[must_use]
    pub const fn is_usage(&self) -> bool {
        matches!(
            self,
            Self::Config(_) | Self::Usage(_) | Self::Gate(gate::Error::UnsupportedInterface { .. })
        ) || matches!(self, Self::Relay(error) if error.is_usage())
    }
}

/// What the parts of the agent share.
#[derive(Clone)]
struct Shared {
    config: Arc<RwLock<Arc<Config>>>,
    gates: Gates,
    /// The list in force, for the relay.
    admission: Arc<TableInForce>,
    /// Addresses of this host, for `destinations = "local"`.
    local: Arc<RwLock<Vec<IpAddr>>>,
    metrics: gate::Metrics,
    drops: Drops,
    started: Timestamp,
}

impl Shared {
    fn config(&self) -> Arc<Config> {
        Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn set_config(&self, config: Arc<Config>) {
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = config;
    }

    fn local(&self) -> Vec<IpAddr> {
        self.local.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_local(&self, addresses: Vec<IpAddr>) {
        *self.local.write().unwrap_or_else(PoisonError::into_inner) = addresses;
    }
}

/// Runs the agent until a signal ends it.
///
/// # Errors
///
/// If it could not start, or has to be started anew to filter an interface.
pub async fn run(load: Load, mut attacher: Attacher) -> Result<(), Error> {
    let config = Arc::new(load()?);
    let mut signals = Signals::new()?;
    let registry = telemetry::registry()?;
    let keeper = Keeper::open(config, &registry)?;
    // In the mode that an operator may have ordered.
    let config = keeper.config();
    check_start(&config).await?;
    // Before anything is asked: what comes after the answer is told then.
    let changes = Changes::subscribe()
        .map_err(|source| Error::Watch { what: "network interfaces", source })?;
    let local = follow::local_addresses()?;
    let table = Arc::new(table(&keeper.list(), &config, &local, keeper.deadline())?);
    let gates = Gates::new(Arc::clone(&table));
    let shared = Shared {
        metrics: gate::Metrics::register(&registry, &gates)?,
        config: Arc::new(RwLock::new(Arc::clone(&config))),
        gates,
        admission: Arc::new(TableInForce::new(table)),
        local: Arc::new(RwLock::new(local)),
        drops: Drops::default(),
        started: Timestamp::now(),
    };
    let audit = Audit::open(&config.state_directory, &registry)?;
    let health = Health::default();
    let interfaces = open_gates(&shared, &attacher, &health).await?;
    // After the filter, which stays whatever is wrong with an address, a group or the relay.
    let server = Server::bind(&config.admin).await?;
    let relay = match config.relay.is_on() {
        true => Some(Relay::open(&config, &registry)?),
        false => None,
    };
    announce(&config);
    settle(&mut attacher, &config, &interfaces);
    let relay = match relay {
        Some(relay) => {
            let spool = config.relay.needs_spool().then(|| health.expect("the spool"));
            let opened = move || spool.iter().for_each(|part| part.set(true));
            Some(relay.start(Arc::clone(&shared.admission) as _, opened).await)
        }
        None => None,
    };

    let supervisor = Supervisor::of_this_process();
    let parts =
        Parts { keeper, server, registry, health, audit, interfaces, relay, attacher, supervisor };
    Agent::start(shared, parts, load).attend(&mut signals, changes).await
}

/// What can be known to be wrong before anything is opened.
fn check(config: &Config) -> Result<(), Error> {
    if config.mode == Mode::Enforce && config.gate.destinations.is_none() && is_forwarding() {
        return Err(Error::Usage(
            "IP forwarding is on, so packets that are only passing through would be dropped too; \
             say what is guarded: gate.destinations = \"local\" for this host's own addresses, \
             \"any\" for everything, or a list of prefixes"
                .to_owned(),
        ));
    }
    Ok(())
}

/// As [`check`]. But where a filter drops transit traffic already it goes on doing so without an
/// agent too, and nothing would come of refusing but a list that grows old and no relay.
async fn check_start(config: &Config) -> Result<(), Error> {
    let Err(error) = check(config) else { return Ok(()) };
    let enforced = gate::survey::enforced_everywhere(&config.gate.pin_directory)?;
    let present = gate::interface::list().await?;
    let goes_on = present.iter().any(|found| {
        enforced.contains(&found.index)
            && config.interfaces.iter().any(|pattern| interfaces::means(pattern, found))
    });
    if goes_on { Ok(()) } else { Err(error) }
}

/// Opens a gate on every interface that is there, or none.
async fn open_gates(
    shared: &Shared,
    attacher: &Attacher,
    health: &Health,
) -> Result<Interfaces, Error> {
    let mut interfaces = Interfaces::new(&shared.config().interfaces, health);
    let failure = match interfaces.follow(shared, attacher).await {
        Ok(outcome) => outcome.failures.into_iter().next().map(|(_, error)| error),
        Err(error) => Some(error),
    };
    let Some(error) = failure else {
        interfaces.warn_of_missing();
        return Ok(interfaces);
    };
    for gate in shared.gates.take().into_iter().filter(|gate| !gate.adopted()) {
        if let Err(error) = gate.detach() {
            tracing::error!(%error, "cannot undo the attachment");
        }
    }
    Err(error)
}

/// Gives up the right to attach when there is nothing left to do with it, or prepares
/// for the next interface.
fn settle(attacher: &mut Attacher, config: &Config, interfaces: &Interfaces) {
    if !attacher.may_attach() {
        return;
    }
    match config.privileges {
        Privileges::Drop if interfaces.all_ready() => {
            attacher.retire();
            tracing::info!("no interface is left to filter: the right to attach is given up");
        }
        Privileges::Drop => {
            tracing::info!("the right to attach is kept until all interfaces are filtered");
        }
        Privileges::Keep => {
            if !config.interfaces.is_empty() {
                attacher.prepare(interfaces::options(config));
            }
            tracing::info!("one thread keeps the right to attach");
        }
    }
}

/// Says what the filter does, loudly where it does less than one may think.
fn announce(config: &Config) {
    let guards: Vec<_> = config
        .guards
        .iter()
        .flat_map(|guard| guard.ports.iter().map(ToString::to_string))
        .collect();
    if config.interfaces.is_empty() && !config.relay.is_on() {
        tracing::warn!(
            "nothing to do yet: no interface is named; name one in the configuration, interfaces = [\"eth0\"], and restart the agent, or start it with --interface eth0; `ip link` lists them"
        );
    } else if config.interfaces.is_empty() {
        tracing::warn!(
            "no interface is filtered: only the relay checks who speaks to it; name an interface to drop strangers before they reach this host"
        );
    }
    if config.only_cloud_ews() {
        tracing::warn!(
            "every route takes EWS notifications from Exchange Online, where EWS ends on 2027-04-01; move the calendar to Graph notifications, and add a route of kind \"graph\""
        );
    }
    match config.mode {
        Mode::Enforce => {
            tracing::info!(
                ports = guards.join(","),
                "enforcing: packets from unlisted sources are dropped"
            );
        }
        Mode::Monitor => tracing::warn!(
            ports = guards.join(","),
            "MONITOR MODE: nothing is dropped; see what would be with `exogate status`, then set mode = \"enforce\""
        ),
    }
    if is_forwarding() && config.gate.destinations.is_none() {
        match config.mode {
            Mode::Monitor => tracing::warn!(
                "IP forwarding is on: set gate.destinations before enforcing, or transit traffic to the guarded ports is dropped"
            ),
            Mode::Enforce => tracing::warn!(
                "TRANSIT TRAFFIC IS DROPPED: IP forwarding is on, and the filter that was in force enforces on all destinations; set gate.destinations = \"local\" to guard this host alone, or \"any\" if this is meant"
            ),
        }
    }
}

/// The time that the kernel program dates its records by.
fn epoch() -> u32 {
    u32::try_from(Timestamp::now().as_second()).unwrap_or(0)
}
