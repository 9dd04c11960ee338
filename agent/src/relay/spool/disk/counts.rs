//! What waits, by route, in memory: exact, and cheap to read.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;

use super::super::{Depth, Entry};

/// What a committed task changed.
#[derive(Debug)]
pub(super) enum Change {
    /// A new record waits.
    Stored(Entry),
    /// A record no longer waits.
    Delivered(Size),
    /// A record has become a dead letter.
    Buried(Size),
    /// A dead letter waits again.
    Replayed(Entry),
    /// A dead letter is gone.
    Purged(Size),
}

/// What counts of a record.
#[derive(Debug)]
pub(super) struct Size {
    pub(super) route: Arc<str>,
    pub(super) accepted: Timestamp,
    pub(super) bytes: u64,
}

/// The counts of all routes.
#[derive(Default)]
pub(super) struct Counts(Mutex<Totals>);

#[derive(Clone, Debug, Default)]
pub(super) struct Totals {
    pub(super) routes: BTreeMap<Arc<str>, Depth>,
    /// Bytes of all bodies, dead letters included.
    pub(super) bytes: u64,
}

impl Totals {
    /// Counts what was found in the database.
    pub(super) fn found(&mut self, route: &str) -> &mut Depth {
        self.routes.entry(route.into()).or_default()
    }

    fn route(&mut self, route: &Arc<str>) -> &mut Depth {
        self.routes.entry(Arc::clone(route)).or_default()
    }
}

impl Counts {
    /// Begins anew, with what was found in the database.
    pub(super) fn replace(&self, totals: Totals) {
        *self.lock() = totals;
    }

    /// What waits, by route.
    pub(super) fn depth(&self) -> Vec<(String, Depth)> {
        let totals = self.lock();
        totals.routes.iter().map(|(route, depth)| (route.to_string(), depth.clone())).collect()
    }

    /// Bytes of all bodies.
    pub(super) fn bytes(&self) -> u64 {
        self.lock().bytes
    }

    /// Counts what a commit changed; the routes whose oldest record is no longer
    /// known.
    pub(super) fn apply(&self, changes: &[Change]) -> Vec<Arc<str>> {
        let mut stale = Vec::new();
        let mut totals = self.lock();
        for change in changes {
            match change {
                Change::Stored(entry) => {
                    totals.bytes = totals.bytes.saturating_add(entry.size);
                    totals.route(&entry.route).add(entry.accepted, entry.size);
                }
                Change::Replayed(entry) => {
                    let depth = totals.route(&entry.route);
                    depth.add(entry.accepted, entry.size);
                    depth.dead = depth.dead.saturating_sub(1);
                }
                Change::Delivered(size) => {
                    totals.bytes = totals.bytes.saturating_sub(size.bytes);
                    if totals.route(&size.route).remove(size) {
                        stale.push(Arc::clone(&size.route));
                    }
                }
                Change::Buried(size) => {
                    let depth = totals.route(&size.route);
                    depth.dead = depth.dead.saturating_add(1);
                    if depth.remove(size) {
                        stale.push(Arc::clone(&size.route));
                    }
                }
                Change::Purged(size) => {
                    totals.bytes = totals.bytes.saturating_sub(size.bytes);
                    let depth = totals.route(&size.route);
                    depth.dead = depth.dead.saturating_sub(1);
                }
            }
        }
        stale.sort_unstable();
        stale.dedup();
        // Where nothing is left there is no oldest, and nobody needs to look.
        stale.retain(|route| totals.route(route).records != 0);
        stale
    }

    /// The oldest record of a route is from then.
    pub(super) fn set_oldest(&self, route: &Arc<str>, oldest: Option<Timestamp>) {
        self.lock().route(route).oldest = oldest;
    }

    fn lock(&self) -> MutexGuard<'_, Totals> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Depth {
    fn add(&mut self, accepted: Timestamp, bytes: u64) {
        self.records = self.records.saturating_add(1);
        self.bytes = self.bytes.saturating_add(bytes);
        self.oldest = Some(self.oldest.map_or(accepted, |oldest| oldest.min(accepted)));
    }

    /// Whether the oldest record may have gone.
    fn remove(&mut self, size: &Size) -> bool {
        self.records = self.records.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(size.bytes);
        if self.records == 0 {
            self.oldest = None;
        }
        self.oldest.is_none_or(|oldest| size.accepted <= oldest)
    }
}
