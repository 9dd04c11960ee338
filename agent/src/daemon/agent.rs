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
    admin::{Audit, Health, Part, Server},
    allowlist::{self, Command, Keeper},
    config::{Config, Destinations, OnStop, Privileges},
    daemon::{
        Attacher, Error, Load, Shared, announce, attend_gate, check, epoch,
        explain::Explainer,
        follow::{self, Changes, Order, Signals},
        open_gate,
        publish::{GatePublisher, table},
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
    /// One for each configured interface, in order.
    pub(super) interfaces: Vec<Part>,
    pub(super) relay: Option<Running>,
    pub(super) attacher: Attacher,
    pub(super) supervisor: Supervisor,
}

/// A started agent.
pub(super) struct Agent {
    shared: Shared,
    health: Health,
    /// One for each configured interface, in order.
    parts: Vec<Part>,
    commands: mpsc::Sender<Command>,
    keeper: JoinHandle<()>,
    stop_keeper: oneshot::Sender<()>,
    server: JoinHandle<()>,
    relay: Option<Arc<Running>>,
    attacher: Attacher,
    supervisor: Supervisor,
    list: watch::Receiver<allowlist::Status>,
    load: Load,
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
        let parts = interfaces;
        Self {
            shared,
            health,
            parts,
            commands,
            keeper,
            stop_keeper,
            server,
            relay,
            attacher,
            supervisor,
            list,
            load,
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
        loop {
            select! {
                _ = second.tick() => {
                    self.health.beat();
                    self.shared.gates.tick(epoch());
                    if self.verify().await {
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

    /// Notices a filter that somebody else removed, and says whether all are there. It
    /// is not put back: whoever removes pins by hand means it. Under a service manager
    /// the watchdog is not fed then, and the next start puts it back.
    async fn verify(&self) -> bool {
        let answers = match self.shared.gates.verify().await {
            Ok(answers) => answers,
            Err(error) => {
                tracing::warn!(%error, "cannot see whether the filter is still attached");
                return false;
            }
        };
        let all = answers.iter().all(|(_, attached)| *attached);
        let config = self.shared.config();
        for (name, attached) in answers {
            let place = config.interfaces.iter().position(|configured| *configured == name);
            let Some(part) = place.and_then(|place| self.parts.get(place)) else { continue };
            if part.is_ready() && !attached {
                tracing::error!(
                    interface = name,
                    "the filter was removed by somebody else; restart the agent to put it back"
                );
            }
            part.set(attached);
        }
        all
    }

    /// Interfaces or addresses have changed.
    async fn follow_changes(&mut self) -> Result<(), Error> {
        let config = self.shared.config();
        let local = follow::local_addresses();
        if local != self.shared.local() {
            self.shared.set_local(local);
            if matches!(config.gate.destinations, Some(Destinations::Local)) {
                self.put_in_force(Arc::clone(&config)).await;
            }
        }
        let mut appeared = false;
        for (name, part) in config.interfaces.iter().zip(&self.parts) {
            match self.follow_interface(name, part, &config).await {
                Ok(opened) => appeared |= opened,
                Err(error @ Error::GaveUp(_)) if self.supervisor.is_present() => return Err(error),
                Err(error) => {
                    part.set(false);
                    tracing::error!(interface = name, %error, "the filter is not in force");
                }
            }
        }
        if appeared {
            settle(&mut self.attacher, &config, &self.parts);
        }
        self.supervisor.status(self.status());
        Ok(())
    }

    /// Puts the filter on an interface that appeared or came back; says whether it did.
    async fn follow_interface(
        &self,
        name: &str,
        part: &Part,
        config: &Config,
    ) -> Result<bool, Error> {
        let index = match gate::interface::find(name).await {
            Ok(interface) => Some(interface.index),
            Err(gate::Error::UnknownInterface { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        let held =
            self.shared.gates.map(|gate| (gate.interface().name.clone(), gate.interface().index));
        let held = held.into_iter().find(|(held, _)| held == name).map(|(_, index)| index);
        if held == index {
            return Ok(false);
        }
        if let (Some(old), None) = (held, index)
            && gate::interface::find_index(old).await?.is_some()
        {
            // Only its name has changed, and the filter goes with it.
            tracing::warn!(
                interface = name,
                index = old,
                "the interface was renamed; it stays filtered"
            );
            return Ok(false);
        }
        if let Some(old) = held {
            tracing::warn!(interface = name, "the interface is gone");
            part.set(false);
            self.shared.gates.forget(old);
        }
        if index.is_none() {
            return Ok(false);
        }
        let list = Arc::clone(&self.list.borrow().list);
        let table = Arc::new(table(&list, config, &self.shared.local())?);
        attend_gate(&self.shared, open_gate(&self.attacher, name, config, &table).await?);
        part.set(true);
        Ok(true)
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
            ..config
        };
        if self.put_in_force(Arc::new(config)).await {
            let config = self.shared.config();
            announce(&config, &self.shared);
            if config.privileges != old.privileges {
                settle(&mut self.attacher, &config, &self.parts);
            }
        }
    }

    /// Has the keeper publish with a configuration, and keeps it if that worked.
    async fn put_in_force(&self, config: Arc<Config>) -> bool {
        let (done, outcome) = oneshot::channel();
        let command = Command::Reload { config: Arc::clone(&config), done };
        let result = match self.commands.send(command).await {
            Ok(()) => outcome.await.unwrap_or_else(|_| Err("the keeper is gone".to_owned())),
            Err(_) => Err("the keeper is gone".to_owned()),
        };
        match result {
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
