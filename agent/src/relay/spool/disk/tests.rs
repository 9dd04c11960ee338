//! What only a spool on disk can get wrong.

use std::{path::Path, sync::Arc};

use super::{
    super::{
        Error, Pending, Spool,
        conformance::{Place, conforms},
        metrics::Metrics,
    },
    DiskSpool,
};
use crate::config;

struct Temporary(tempfile::TempDir);

impl Temporary {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }
}

fn open(config: &config::Spool, directory: &Path) -> Result<DiskSpool, Error> {
    let metrics = Metrics::register(&prometheus::Registry::new()).unwrap();
    DiskSpool::open(config, directory, metrics)
}

impl Place for Temporary {
    fn open<'a>(&'a self, config: &'a config::Spool) -> Pending<'a, Arc<dyn Spool>> {
        Box::pin(async move {
            tokio::task::block_in_place(|| open(config, &self.0.path().join("spool")))
                .map(|spool| -> Arc<dyn Spool> { Arc::new(spool) })
        })
    }
}

conforms!(Temporary::new());
