//! The spool's way into the relay.
//!
//! Whether a spool can be opened may depend on others: a cluster that has no
//! leader yet, a disk that is repaired. The filter must not wait for them, nor
//! those routes that store nothing. So the relay starts without its spool, opens it
//! beside everything else, again and again, and until then answers 503 where
//! something would have to be stored.

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock},
    time::Duration,
};

use prometheus::Registry;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{
    deliver::{self, Deliverer, DeliveryRoute},
    spool::{self, Error, Spool, disk::DiskSpool, jetstream::JetstreamSpool},
};
use crate::config::{self, Store};

/// Time between attempts to open a spool.
const PAUSE: Duration = Duration::from_secs(3);

/// The spool, once it is open. Cloning shares it.
#[derive(Clone, Default)]
pub(super) struct OpenSpool(Arc<OnceLock<Arc<dyn Spool>>>);

impl OpenSpool {
    /// One that is open.
    #[cfg(test)]
    pub(super) fn opened(spool: Arc<dyn Spool>) -> Self {
        Self(Arc::new(spool.into()))
    }

    /// The spool, if it is open.
    pub(super) fn get(&self) -> Option<&Arc<dyn Spool>> {
        self.0.get()
    }
}

/// All that it takes to open the spool and to deliver from it.
pub(super) struct Storage {
    config: config::Spool,
    metrics: Metrics,
    registry: Registry,
    deliveries: HashMap<Arc<str>, DeliveryRoute>,
    options: deliver::Options,
    delivery_metrics: deliver::Metrics,
    spool: OpenSpool,
}

/// The metrics of the store that is configured.
enum Metrics {
    Disk(spool::metrics::Metrics),
    Jetstream(spool::jetstream::Metrics),
}

impl Storage {
    pub(super) fn new(
        config: &config::Relay,
        registry: &Registry,
        deliveries: HashMap<Arc<str>, DeliveryRoute>,
        spool: OpenSpool,
    ) -> prometheus::Result<Self> {
        let metrics = match &config.spool.store {
            Store::Disk(_) => Metrics::Disk(spool::metrics::Metrics::register(registry)?),
            Store::Jetstream(_) => {
                Metrics::Jetstream(spool::jetstream::Metrics::register(registry)?)
            }
        };
        Ok(Self {
            config: config.spool.clone(),
            metrics,
            registry: registry.clone(),
            deliveries,
            options: deliver::Options { retry_for: config.spool.retry_for, drain: config.drain() },
            delivery_metrics: deliver::Metrics::register(registry)?,
            spool,
        })
    }

    /// Opens the spool, however long it takes, says so, and delivers until it is told to
    /// stop.
    pub(super) async fn run(self, opened: impl FnOnce() + Send, stop: CancellationToken) {
        let Some(Some(spool)) = stop.run_until_cancelled(self.open_at_last()).await else { return };
        opened();
        Deliverer::new(spool, self.deliveries, self.options, self.delivery_metrics).run(stop).await;
    }

    async fn open_at_last(&self) -> Option<Arc<dyn Spool>> {
        loop {
            match self.open().await {
                Ok(spool) => {
                    let max_bytes = self.config.max_bytes;
                    let depth = Arc::clone(&spool);
                    if let Err(error) =
                        spool::metrics::register_depth(&self.registry, depth, max_bytes)
                    {
                        tracing::error!(%error, "the depth of the spool cannot be told");
                    }
                    return Some(Arc::clone(self.spool.0.get_or_init(|| spool)));
                }
                Err(error) => {
                    tracing::error!(
                        %error,
                        "nothing can be stored, so notifications are answered 503; trying again"
                    );
                    sleep(PAUSE).await;
                }
            }
        }
    }

    async fn open(&self) -> Result<Arc<dyn Spool>, Error> {
        Ok(match (&self.config.store, &self.metrics) {
            (Store::Disk(directory), Metrics::Disk(metrics)) => {
                let (config, directory) = (self.config.clone(), directory.clone());
                let metrics = metrics.clone();
                let open = move || DiskSpool::open(&config, &directory, metrics);
                let opened = tokio::task::spawn_blocking(open).await;
                Arc::new(opened.map_err(|error| Error::Open(error.to_string()))??)
            }
            (Store::Jetstream(jetstream), Metrics::Jetstream(metrics)) => {
                Arc::new(JetstreamSpool::open(&self.config, jetstream, metrics.clone()).await?)
            }
            // They are made for each other in `new`.
            _ => return Err(Error::Open("the store is another one".to_owned())),
        })
    }
}
