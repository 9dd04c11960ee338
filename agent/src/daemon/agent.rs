//! The main loop of a started agent.

use std::{sync::Arc, time::Duration};

use prometheus::Registry;
use tokio::{
    select,
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
    time::{MissedTickBehavior, interval},
};

use crate::{
    admin::{Audit, Health, Server},
    allowlist::{self, Command, Keeper},
    config::{self, Config, Destinations, OnStop, Privileges},
    daemon::{
        Attacher, Error, Load, Shared, announce, check, epoch,
        explain::Explainer,
        follow::{self, Changes, Order, Signals},
        interfaces::Interfaces,
        publish::GatePublisher,
        retry::Retry,
        settle,
        supervisor::Supervisor,
    },
    gate,
    relay::Running,
};

/// What a started agent is made of.
pub(super) struct Parts {
    pub(super) keeper: Keeper,
    pub(super) server: Server,
    pub(super) registry: Registry,
    pub(super) health: Health,
    pub(super) audit: Audit,
    pub(super) interfaces: Interfaces,
    pub(super) relay: Option<Running>,
    pub(super) attacher: Attacher,
    pub(super) supervisor: Supervisor,
}

/// A started agent.
pub(super) struct Agent {
    shared: Shared,
    health: Health,
    interfaces: Interfaces,
    commands: mpsc::Sender<Command>,
    keeper: JoinHandle<()>,
    stop_keeper: oneshot::Sender<()>,
    server: JoinHandle<()>,
    relay: Option<Arc<Running>>,
    attacher: Attacher,
    supervisor: Supervisor,
    list: watch::Receiver<allowlist::Status>,
    load: Load,
    /// The addresses of this host may be others than those that are guarded.
    addresses_due: bool,
    /// An interface may be there without its filter.
    interfaces_due: Retry,
}

impl Agent {
    pub(super) fn start(shared: Shared, parts: Parts, load: Load) -> Self {
        let Parts {
            keeper,
            server,
            registry,
            health,
            audit,
            interfaces,
            relay,
            attacher,
            supervisor,
        } = parts;
        let relay = relay.map(Arc::new);
        let list = keeper.status();
        let (commands, orders) = mpsc::channel(8);
        let explainer = Explainer {
            shared: shared.clone(),
            list: list.clone(),
            health: health.clone(),
            commands: commands.clone(),
            relay: relay.clone(),
        };
        let server =
            tokio::spawn(server.serve(registry, health.clone(), audit, Arc::new(explainer)));
        let (stop_keeper, stopped) = oneshot::channel();
        let publisher = GatePublisher::new(shared.clone());
        let keeper = tokio::spawn(keeper.run(publisher, orders, async {
            // A dropped sender means the same.
            let _ = stopped.await;
        }));
        Self {
            shared,
            health,
            interfaces,
            commands,
            keeper,
            stop_keeper,
            server,
            relay,
            attacher,
            supervisor,
            list,
            load,
            addresses_due: false,
            interfaces_due: Retry::default(),
        }
    }

    /// The main loop.
    ///
    /// # Errors
    ///
    /// If the agent has to be started anew to filter an interface.
    pub(super) async fn attend(
        mut self,
        signals: &mut Signals,
        mut changes: Changes,
    ) -> Result<(), Error> {
        self.supervisor.status(self.status());
        self.supervisor.ready();
        let mut second = interval(Duration::from_secs(1));
        second.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut starting = true;
        loop {
            select! {
                _ = second.tick() => {
                    self.health.beat();
                    if starting && self.health.pending().is_empty() {
                        starting = false;
                        // Of what the start took, most is free by now.
                        gate::give_back();
                    }
                    self.shared.gates.tick(epoch());
                    if self.addresses_due {
                        self.follow_addresses().await;
                    }
                    if self.interfaces_due.is_due() {
                        self.follow_interfaces().await?;
                    }
                    if self.interfaces.verify(&self.shared).await {
                        self.supervisor.alive();
                    }
                    self.supervisor.status(self.status());
                }
                // At once and without an orderly stop: until the next start an interface is open.
                () = changes.next() => self.follow_changes().await?,
                order = signals.next() => match order {
                    Order::Reload => {
                        self.supervisor.reloading();
                        self.reload().await;
                        self.supervisor.ready();
                    }
                    Order::Stop(signal) => {
                        tracing::info!(signal, "stopping");
                        break;
                    }
                },
                _ = &mut self.keeper => {
                    tracing::error!("the allow-list's task ended; stopping, the filter stays in force");
                    break;
                }
            }
        }
        self.supervisor.stopping();
        self.stop().await;
        Ok(())
    }

    /// What the agent does, in a line.
    fn status(&self) -> String {
        let filtered = self.shared.gates.map(|gate| gate.interface().name.clone());
        let config = self.shared.config();
        let mut status = format!("{}: ", config.mode.name());
        match filtered.as_slice() {
            [] if config.interfaces.is_empty() => {
                status.push_str("no interface is named in the configuration");
            }
            [] => status.push_str("no interface is filtered"),
            names => status.push_str(&format!("filter on {}", names.join(", "))),
        }
        let pending = self.health.pending();
        if !pending.is_empty() {
            status.push_str(&format!("; waiting for {}", pending.join(", ")));
        }
        status
    }

    /// Interfaces or addresses have changed.
    async fn follow_changes(&mut self) -> Result<(), Error> {
        self.follow_addresses().await;
        self.follow_interfaces().await
    }

    /// Filters what is there and is not. What fails is tried again: the kernel says nothing
    /// when whatever was in the way is gone.
    async fn follow_interfaces(&mut self) -> Result<(), Error> {
        let config = self.shared.config();
        let outcome = match self.interfaces.follow(&self.shared, &self.attacher).await {
            Ok(outcome) => outcome,
            Err(error) => {
                self.interfaces_due.failed();
                tracing::error!(%error, "interfaces cannot be followed");
                return Ok(());
            }
        };
        if outcome.failures.is_empty() || !self.attacher.may_attach() {
            self.interfaces_due.settle();
        } else {
            self.interfaces_due.failed();
        }
        // Each attempt may have taken a program that waited.
        let refill = outcome.opened || !outcome.failures.is_empty();
        for (interface, error) in outcome.failures {
            if matches!(error, Error::GaveUp(_)) && self.supervisor.is_present() {
                return Err(error);
            }
            tracing::error!(interface, %error, "the filter is not in force");
        }
        if refill {
            settle(&mut self.attacher, &config, &self.interfaces);
        }
        self.supervisor.status(self.status());
        Ok(())
    }

    /// Guards the addresses that this host has now, if those are what is guarded. What fails is
    /// tried again with the next second; until then the addresses of before are guarded.
    async fn follow_addresses(&mut self) {
        let before = self.shared.local();
        let local = match follow::local_addresses() {
            Ok(local) => local,
            Err(error) => {
                self.addresses_due = true;
                tracing::error!(%error, "the addresses of before stay guarded");
                return;
            }
        };
        self.addresses_due = false;
        if local == before {
            return;
        }
        self.shared.set_local(local);
        if !matches!(self.shared.config().gate.destinations, Some(Destinations::Local)) {
            return;
        }
        match self.command(|done| Command::Republish { done }).await {
            Ok(()) => tracing::info!("the addresses that this host has now are guarded"),
            Err(error) => {
                self.addresses_due = true;
                self.shared.set_local(before);
                tracing::error!(error, "the addresses of before stay guarded");
            }
        }
    }

    /// Reads the configuration again.
    async fn reload(&mut self) {
        let config = match (self.load)().map_err(Error::from).and_then(|config| {
            let order = self.list.borrow().mode_order();
            check(&Config { mode: order.unwrap_or(config.mode), ..config.clone() })?;
            Ok(config)
        }) {
            Ok(config) => config,
            Err(error) => {
                tracing::error!(%error, "reload refused, going on as before");
                return;
            }
        };
        if let Some(relay) = &self.relay {
            relay.reload_certificates().await;
        }
        let old = self.shared.config();
        let mut restart = Vec::new();
        if config.interfaces != old.interfaces {
            restart.push("interfaces");
        }
        if config.relay != old.relay {
            restart.push("listener, route, upstream, spool or relay");
        }
        if config.admin != old.admin {
            restart.push("admin");
        }
        if config.log != old.log {
            restart.push("log");
        }
        if config.state_directory != old.state_directory {
            restart.push("state_directory");
        }
        if (config.gate.attach, config.gate.capacity, &config.gate.pin_directory)
            != (old.gate.attach, old.gate.capacity, &old.gate.pin_directory)
        {
            restart.push("gate.attach, gate.capacity or gate.pin_directory");
        }
        if config.privileges == Privileges::Keep && !self.attacher.may_attach() {
            restart.push("privileges");
        }
        if !restart.is_empty() {
            tracing::warn!(changed = restart.join(", "), "takes effect at the next restart only");
        }
        let config = Config {
            interfaces: old.interfaces.clone(),
            relay: old.relay.clone(),
            admin: old.admin.clone(),
            log: old.log.clone(),
            state_directory: old.state_directory.clone(),
            gate: config::Gate {
                attach: old.gate.attach,
                capacity: old.gate.capacity,
                pin_directory: old.gate.pin_directory.clone(),
                ..config.gate
            },
            ..config
        };
        if self.put_in_force(Arc::new(config)).await {
            let config = self.shared.config();
            announce(&config);
            if config.privileges != old.privileges {
                settle(&mut self.attacher, &config, &self.interfaces);
            }
        }
    }

    /// Has the keeper publish with a configuration, and keeps it if that worked.
    async fn put_in_force(&self, config: Arc<Config>) -> bool {
        match self.command(|done| Command::Reload { config, done }).await {
            // The publisher has taken it, in the mode that an operator may have ordered.
            Ok(()) => {
                tracing::info!("configuration in force");
                true
            }
            Err(error) => {
                tracing::error!(error, "reload failed, going on as before");
                false
            }
        }
    }

    /// Tells the keeper something and waits for the outcome.
    async fn command(
        &self,
        command: impl FnOnce(oneshot::Sender<allowlist::Outcome>) -> Command,
    ) -> allowlist::Outcome {
        let (done, outcome) = oneshot::channel();
        let gone = || Err("the keeper is gone".to_owned());
        match self.commands.send(command(done)).await {
            Ok(()) => outcome.await.unwrap_or_else(|_| gone()),
            Err(_) => gone(),
        }
    }

    async fn stop(self) {
        // It answers what it has begun, by the list as it is.
        if let Some(relay) = &self.relay {
            relay.drain().await;
        }
        // The keeper finishes what it is doing: a publish and its persisting.
        let _ = self.stop_keeper.send(());
        if !self.keeper.is_finished() {
            let _ = self.keeper.await;
        }
        self.server.abort();
        let _ = self.server.await;
        let on_stop = self.shared.config().gate.on_stop;
        for gate in self.shared.gates.take() {
            let interface = gate.interface().name.clone();
            match on_stop {
                OnStop::Keep => tracing::info!(interface, "the filter stays in force"),
                OnStop::Detach => match gate.detach() {
                    Ok(()) => tracing::info!(interface, "filter removed"),
                    Err(error) => tracing::error!(interface, %error, "cannot remove the filter"),
                },
            }
        }
    }
}
