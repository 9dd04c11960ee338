//! What waits, as far as this host knows: the line of those to hand over, and
//! what stands in it, by route.
//!
//! Only the host that delivers keeps one. It is filled in the order of the stream
//! by [`super::follow`]; what this host appends is counted at once and handed over
//! in its turn. When the host loses its turn to deliver, the line is dropped, but
//! not the memory of what was handed over: should the turn come back, that is not
//! handed over again.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;
use tokio::sync::Notify;

use super::super::{Depth, Entry, RecordId};

/// The line.
#[derive(Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    /// Something can be taken.
    pub(super) arrived: Notify,
}

#[derive(Default)]
struct State {
    /// Whether this host delivers.
    open: bool,
    /// What waits, by its place in the stream.
    slots: BTreeMap<u64, Slot>,
    /// Places of what is not handed over yet, in order.
    line: VecDeque<u64>,
    places: HashMap<RecordId, u64>,
    routes: HashMap<Arc<str>, Line>,
    /// The last place that the stream was read to.
    read_to: u64,
    /// What was handed over in an earlier turn and has not been seen in this one.
    before: BTreeMap<u64, Entry>,
}

struct Slot {
    entry: Entry,
    handed_over: bool,
}

/// What waits of a route.
#[derive(Default)]
struct Line {
    bytes: u64,
    accepted: BTreeSet<(Timestamp, u64)>,
}

impl Queue {
    /// The turn begins; the stream is about to be read from its beginning.
    pub(super) fn begin(&self) {
        let mut state = self.lock();
        state.clear();
        state.open = true;
    }

    /// The turn is over.
    pub(super) fn end(&self) {
        let mut state = self.lock();
        state.clear();
        state.open = false;
    }

    /// All that was in the stream when the turn began has been read.
    pub(super) fn is_complete(&self) {
        // What was handed over before and is not there any more is delivered.
        self.lock().before.clear();
    }

    /// The next record of the stream, or `None` for a message that is no record.
    pub(super) fn read(&self, sequence: u64, entry: Option<Entry>) {
        let mut state = self.lock();
        state.read_to = state.read_to.max(sequence);
        let Some(entry) = entry else { return };
        let handed_over = state.before.remove(&sequence).is_some();
        state.insert(entry, handed_over);
        if !handed_over {
            state.line.push_back(sequence);
            self.arrived.notify_one();
        }
    }

    /// This host has appended a record: it counts, but its turn comes when it is
    /// read.
    pub(super) fn appended(&self, entry: Entry) {
        let mut state = self.lock();
        // What was read already may even be delivered by now.
        if state.open && entry.sequence > state.read_to {
            state.insert(entry, false);
        }
    }

    /// The next to hand over.
    pub(super) fn take(&self) -> Option<Entry> {
        let mut state = self.lock();
        while let Some(sequence) = state.line.pop_front() {
            if let Some(slot) = state.slots.get_mut(&sequence) {
                slot.handed_over = true;
                return Some(slot.entry.clone());
            }
        }
        None
    }

    /// A record waits no longer.
    pub(super) fn remove(&self, sequence: u64) {
        let mut state = self.lock();
        state.before.remove(&sequence);
        let Some(Slot { entry, .. }) = state.slots.remove(&sequence) else { return };
        if state.places.get(&entry.id) == Some(&sequence) {
            state.places.remove(&entry.id);
        }
        if let Some(line) = state.routes.get_mut(&entry.route) {
            line.bytes = line.bytes.saturating_sub(entry.size);
            line.accepted.remove(&(entry.accepted, sequence));
        }
    }

    /// Where in the stream a record stands. One that was handed over in an earlier turn is
    /// where it was.
    pub(super) fn place(&self, id: RecordId) -> Option<u64> {
        let state = self.lock();
        let before = || state.before.iter().find(|(_, entry)| entry.id == id);
        state.places.get(&id).copied().or_else(|| before().map(|(place, _)| *place))
    }

    /// What waits, by route; `None` if this host does not know.
    pub(super) fn depth(&self) -> Option<BTreeMap<String, Depth>> {
        let state = self.lock();
        let depth = |(route, line): (&Arc<str>, &Line)| {
            let depth = Depth {
                records: u64::try_from(line.accepted.len()).unwrap_or(u64::MAX),
                bytes: line.bytes,
                oldest: line.accepted.first().map(|(accepted, _)| *accepted),
                dead: 0,
            };
            (route.to_string(), depth)
        };
        state.open.then(|| state.routes.iter().map(depth).collect())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn insert(&mut self, entry: Entry, handed_over: bool) {
        let sequence = entry.sequence;
        if self.slots.contains_key(&sequence) {
            return;
        }
        self.places.insert(entry.id, sequence);
        let line = self.routes.entry(Arc::clone(&entry.route)).or_default();
        line.bytes = line.bytes.saturating_add(entry.size);
        line.accepted.insert((entry.accepted, sequence));
        self.slots.insert(sequence, Slot { entry, handed_over });
    }

    fn clear(&mut self) {
        let slots = std::mem::take(&mut self.slots);
        let handed_over = slots.into_iter().filter(|(_, slot)| slot.handed_over);
        self.before.extend(handed_over.map(|(sequence, slot)| (sequence, slot.entry)));
        self.line.clear();
        self.places.clear();
        self.routes.clear();
        self.read_to = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(sequence: u64) -> Entry {
        Entry {
            id: RecordId::new(),
            sequence,
            route: "graph".into(),
            lanes: Vec::new(),
            accepted: Timestamp::now(),
            size: 10,
        }
    }

    fn open() -> Queue {
        let queue = Queue::default();
        queue.begin();
        queue
    }

    fn records(queue: &Queue) -> Option<u64> {
        Some(queue.depth()?.get("graph")?.records)
    }

    #[test]
    fn what_is_appended_counts_at_once_and_is_handed_over_when_it_is_read() {
        let queue = open();
        let [first, second] = [entry(1), entry(2)];
        queue.appended(second.clone());
        assert_eq!(records(&queue), Some(1));
        assert_eq!(queue.take(), None);
        queue.read(1, Some(first.clone()));
        queue.read(2, Some(second.clone()));
        assert_eq!(records(&queue), Some(2));
        assert_eq!(queue.take(), Some(first));
        assert_eq!(queue.take(), Some(second));
        assert_eq!(queue.take(), None);
    }

    #[test]
    fn an_append_that_is_told_late_does_not_bring_a_delivered_record_back() {
        let queue = open();
        let first = entry(1);
        queue.read(1, Some(first.clone()));
        assert_eq!(queue.take(), Some(first.clone()));
        queue.remove(1);
        queue.appended(first);
        assert_eq!(records(&queue), Some(0));
    }

    #[test]
    fn what_was_handed_over_is_not_handed_over_again_in_a_later_turn() {
        let queue = open();
        let [first, second] = [entry(1), entry(2)];
        queue.read(1, Some(first.clone()));
        queue.read(2, Some(second.clone()));
        assert_eq!(queue.take(), Some(first.clone()));
        queue.end();
        assert_eq!((queue.take(), queue.depth()), (None, None));
        assert_eq!(queue.place(first.id), Some(1), "whoever delivers it may ask");
        queue.begin();
        assert_eq!(queue.place(first.id), Some(1));
        queue.read(1, Some(first));
        queue.read(2, Some(second.clone()));
        queue.is_complete();
        assert_eq!(queue.take(), Some(second));
        assert_eq!(queue.take(), None);
        assert_eq!(records(&queue), Some(2), "both wait");
    }

    #[test]
    fn a_replayed_record_is_found_at_its_new_place() {
        let queue = open();
        let first = entry(1);
        queue.read(1, Some(first.clone()));
        queue.read(5, Some(Entry { sequence: 5, ..first.clone() }));
        queue.remove(1);
        assert_eq!(queue.place(first.id), Some(5));
    }

    #[test]
    fn nothing_is_known_out_of_turn() {
        let queue = Queue::default();
        queue.appended(entry(1));
        assert_eq!(queue.depth(), None);
    }
}
