//! The order in which records are handed over.
//!
//! A window of entries is kept in memory, however many records wait. As long as
//! the window holds all that was not handed over yet, what is committed is put
//! there at once; otherwise it is read from the database when its turn comes.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use super::super::{Entry, Error};

/// Entries in memory.
pub(super) const WINDOW: usize = 1024;

/// The window, and what wakes the one who waits for it.
#[derive(Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    window: VecDeque<Entry>,
    /// All up to this sequence were put in the window, or are gone.
    loaded: u64,
    /// The last that was committed.
    newest: u64,
    /// Whether a page is being read.
    loading: bool,
    /// Why the last one was not read.
    failed: Option<Error>,
    closed: bool,
}

/// What is missing in the window: the records after one sequence, up to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gap {
    pub(super) after: u64,
    pub(super) up_to: u64,
}

/// What comes next.
pub(super) enum Next {
    /// This record.
    Entry(Entry),
    /// Nothing before this has been read, which is the caller's to ask for.
    Load(Gap),
    /// Nothing for now: wait.
    Wait,
}

impl Queue {
    /// What comes next, without waiting.
    pub(super) fn next(&self) -> Result<Next, Error> {
        let mut state = self.lock();
        if state.closed {
            return Err(Error::Closed);
        }
        if let Some(error) = state.failed.take() {
            return Err(error);
        }
        if let Some(entry) = state.window.pop_front() {
            return Ok(Next::Entry(entry));
        }
        if state.loading || state.loaded >= state.newest {
            return Ok(Next::Wait);
        }
        state.loading = true;
        Ok(Next::Load(Gap { after: state.loaded, up_to: state.newest }))
    }

    /// Waits until something may have changed since [`Self::next`] was asked.
    /// There is one caller, and a change that nobody waits for is kept for the
    /// next wait, so that none is missed.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Records were committed, in this order.
    pub(super) fn committed(&self, entries: Vec<Entry>) {
        let Some(newest) = entries.last().map(|entry| entry.sequence) else { return };
        let mut state = self.lock();
        let is_whole = state.loaded == state.newest;
        if is_whole && state.window.len().saturating_add(entries.len()) <= WINDOW {
            state.window.extend(entries);
            state.loaded = newest;
        }
        state.newest = newest;
        drop(state);
        self.changed.notify_one();
    }

    /// The last record in the database has this sequence.
    pub(super) fn found(&self, newest: u64) {
        let mut state = self.lock();
        state.newest = state.newest.max(newest);
        drop(state);
        self.changed.notify_one();
    }

    /// The first records of a gap, at most [`WINDOW`], were read, or not.
    pub(super) fn loaded(&self, gap: Gap, page: Result<Vec<Entry>, Error>) {
        let mut state = self.lock();
        state.loading = false;
        match page {
            Ok(page) => {
                state.loaded = match page.last() {
                    Some(last) if page.len() >= WINDOW => last.sequence,
                    _ => gap.up_to,
                };
                state.window.extend(page);
            }
            Err(error) => state.failed = Some(error),
        }
        drop(state);
        self.changed.notify_one();
    }

    /// Nothing is handed over any more.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
