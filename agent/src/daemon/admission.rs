//! The list in force, asked by the relay.
//!
//! The same table that the kernel reads answers here too, so that filter and
//! relay cannot disagree; it is replaced when the list is published.

use std::{
    net::IpAddr,
    sync::{Arc, PoisonError, RwLock},
};

use exogate_ebpf::{
    compile::CompiledTable,
    packet::{Address, TCP},
    verdict::{Action, Reason, Verdict},
};

use crate::{boot, relay::listen::Admission};

/// The table in force.
pub(super) struct TableInForce(RwLock<Arc<CompiledTable>>);

impl TableInForce {
    pub(super) fn new(table: Arc<CompiledTable>) -> Self {
        Self(RwLock::new(table))
    }

    pub(super) fn replace(&self, table: Arc<CompiledTable>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = table;
    }
}

impl Admission for TableInForce {
    fn judge(&self, source: IpAddr, port: u16) -> (Action, Reason) {
        let table = Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner));
        let table = table.table();
        let Some(accepted) = table.guard(TCP, port) else {
            return (Action::Pass, Reason::NotGuarded);
        };
        // A socket for both families shows IPv4 in its mapped form.
        let source = Address::from(source.to_canonical());
        if table.sources(&source) & accepted != 0 {
            return (Action::Pass, Reason::Allowed);
        }
        let refused = Verdict::new(table.refusal(), Reason::Unlisted, source.family());
        (table.by_now(refused, boot::now).action(), Reason::Unlisted)
    }
}
