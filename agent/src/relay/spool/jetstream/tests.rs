//! The promises of a spool, on three servers.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use exogate_tests::nats::Cluster;

use super::{JetstreamSpool, Metrics};
use crate::{
    config,
    relay::spool::{
        Error, Pending, Spool,
        conformance::{Place, conforms},
    },
};

/// How long servers may need to agree, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Names of its own on the servers that all tests share.
struct Prefix {
    config: config::Jetstream,
}

impl Prefix {
    fn new() -> Self {
        // Starting servers blocks, and each test would have to wait for it.
        static CLUSTER: OnceLock<Cluster> = OnceLock::new();
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let cluster = CLUSTER.get_or_init(|| Cluster::start(3).unwrap());
        let config = config::Jetstream {
            servers: cluster.urls(),
            prefix: format!("p{}", NUMBER.fetch_add(1, Ordering::Relaxed)),
            replicas: 3,
            credentials_file: None,
            ca_file: None,
            client_certificate: None,
        };
        Self { config }
    }
}

impl Place for Prefix {
    fn open<'a>(&'a self, config: &'a config::Spool) -> Pending<'a, Arc<dyn Spool>> {
        Box::pin(async {
            let metrics = Metrics::register(&prometheus::Registry::new()).unwrap();
            // Servers that have just found each other refuse for a moment; the relay tries
            // again then, too.
            let begin = Instant::now();
            let spool = loop {
                match JetstreamSpool::open(config, &self.config, metrics.clone()).await {
                    Err(Error::Open(_)) if begin.elapsed() < PATIENCE => {}
                    opened => break opened?,
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            };
            Ok(Arc::new(spool) as Arc<dyn Spool>)
        })
    }
}

conforms! { Prefix::new() }
