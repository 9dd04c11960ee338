//! A relay at work: what it does, what it is told, and how it ends.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures_util::future::join_all;
use jiff::Timestamp;
use tokio::{sync::Mutex, task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{
    listen,
    receive::Receiver,
    silence::Heard,
    spool::{Depth, Spool},
    store::OpenSpool,
    upstream::{Pool, ServerStatus},
};

/// A relay at work. Dropped, it cuts what is under way.
pub struct Running {
    pub(super) addresses: Vec<String>,
    pub(super) receiver: Arc<Receiver>,
    pub(super) pools: Vec<Arc<Pool>>,
    pub(super) spool: OpenSpool,
    pub(super) drain: Duration,
    pub(super) stop: CancellationToken,
    pub(super) state: Mutex<State>,
}

/// What a stop takes away.
#[derive(Default)]
pub(super) struct State {
    pub(super) listeners: Vec<listen::Running>,
    pub(super) tasks: Vec<JoinHandle<()>>,
}

/// What the relay does.
#[derive(Clone, Debug)]
pub struct Status {
    /// Where it listens.
    pub listeners: Vec<String>,
    /// Its routes.
    pub routes: Vec<RouteStatus>,
    /// Its upstreams and their servers.
    pub upstreams: Vec<(String, Vec<ServerStatus>)>,
}

/// What a route does.
#[derive(Clone, Debug)]
pub struct RouteStatus {
    /// Its name.
    pub name: String,
    /// `graph`, `ews` or `proxy`.
    pub kind: &'static str,
    /// Where it goes.
    pub upstream: String,
    /// What waits.
    pub depth: Depth,
    /// The last notification.
    pub last: Option<Timestamp>,
    /// Subscriptions that were heard.
    pub subscriptions: usize,
    /// Those that have been silent for too long.
    pub silent: Vec<Heard>,
}

impl Running {
    /// What waits and was given up, if anything is stored here and the spool is open.
    #[must_use]
    pub fn spool(&self) -> Option<Arc<dyn Spool>> {
        self.spool.get().cloned()
    }

    /// What the relay does.
    #[must_use]
    pub fn status(&self) -> Status {
        let depths: HashMap<String, Depth> =
            self.spool.get().into_iter().flat_map(|spool| spool.depth()).collect();
        let now = Timestamp::now();
        let routes = self.receiver.rooms.iter().map(|room| RouteStatus {
            name: room.route.name.clone(),
            kind: room.route.kind.name(),
            upstream: room.pool.name().to_owned(),
            depth: depths.get(&room.route.name).cloned().unwrap_or_default(),
            last: room.silence.last(),
            subscriptions: room.silence.known(),
            silent: room.silence.silent(now),
        });
        Status {
            listeners: self.addresses.clone(),
            routes: routes.collect(),
            upstreams: self
                .pools
                .iter()
                .map(|pool| (pool.name().to_owned(), pool.status()))
                .collect(),
        }
    }

    /// Takes a server of an upstream, or all of them, out of service or back. What is known
    /// of its servers then.
    ///
    /// # Errors
    ///
    /// If there is no such upstream or server, in a sentence.
    pub fn drain_server(
        &self,
        upstream: &str,
        server: Option<&str>,
        drained: bool,
    ) -> Result<Vec<ServerStatus>, String> {
        let pool = self.pools.iter().find(|pool| pool.name() == upstream).ok_or_else(|| {
            let names: Vec<_> = self.pools.iter().map(|pool| pool.name()).collect();
            format!("there is no upstream {upstream:?}; there are {}", names.join(", "))
        })?;
        pool.set_drained(server, drained)?;
        Ok(pool.status())
    }

    /// Reads the files of certificates again; those that are of no use leave the
    /// ones before in force.
    pub async fn reload_certificates(&self) {
        for listener in &self.state.lock().await.listeners {
            if let Err(error) = listener.reload().await {
                tracing::error!(%error, "certificates not renewed, going on with those before");
            }
        }
    }

    /// Stops taking, answers what is under way, and delivers no more. What is
    /// stored is delivered by the next start.
    pub async fn drain(&self) {
        let State { listeners, tasks } = std::mem::take(&mut *self.state.lock().await);
        self.stop.cancel();
        let drained = join_all(listeners.into_iter().map(|one| one.drain(self.drain))).await;
        let cut = drained.iter().fold(0u64, |cut, one| cut.saturating_add(one.cut));
        if cut > 0 {
            tracing::warn!(cut, "connections were cut at the end of relay.drain");
        }
        let rest = async {
            join_all(tasks).await;
            join_all(self.pools.iter().map(|pool| pool.drain())).await;
        };
        if timeout(self.drain, rest).await.is_err() {
            tracing::warn!("deliveries were broken off; they are repeated by the next start");
        }
        if let Some(spool) = self.spool.get()
            && let Err(error) = spool.close().await
        {
            tracing::error!(%error, "the spool did not close well");
        }
    }
}
