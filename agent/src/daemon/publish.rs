//! From a list to tables in force.

use std::{net::IpAddr, sync::Arc};

use exogate_ebpf::compile::{self, CompiledTable, Policy};

use crate::{
    allowlist::{AllowList, Publish},
    config::Config,
    daemon::Shared,
    gate,
};

/// Why a list could not be put in force.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It does not fit the layout of a table.
    #[error("the list cannot be compiled: {0}")]
    Compile(#[from] compile::Error),
    /// The kernel's side failed.
    #[error(transparent)]
    Gate(#[from] gate::Error),
}

/// The table of a list. It drops nothing from the deadline on, in nanoseconds since the boot.
pub(super) fn table(
    list: &AllowList,
    config: &Config,
    local: &[IpAddr],
    deadline: Option<u64>,
) -> Result<CompiledTable, Error> {
    Ok(compile::compile(&Policy { deadline, ..list.policy(config, local) })?)
}

/// Puts lists in force on all gates of the agent, and in its relay.
pub(super) struct GatePublisher(Shared);

impl GatePublisher {
    pub(super) fn new(shared: Shared) -> Self {
        Self(shared)
    }
}

impl Publish for GatePublisher {
    type Error = Error;

    fn publish(
        &mut self,
        list: &Arc<AllowList>,
        config: &Arc<Config>,
        deadline: Option<u64>,
    ) -> Result<(), Error> {
        let Self(shared) = self;
        let timer = shared.metrics.publish_seconds.start_timer();
        let result = table(list, config, &shared.local(), deadline).and_then(|table| {
            let table = Arc::new(table);
            shared.gates.publish(&table)?;
            shared.admission.replace(table);
            shared.set_config(Arc::clone(config));
            Ok(())
        });
        timer.observe_duration();
        let label = if result.is_ok() { "ok" } else { "failed" };
        shared.metrics.publishes.with_label_values(&[label]).inc();
        result
    }
}
