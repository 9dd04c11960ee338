//! A spool in memory that keeps its promises, unless a test breaks one.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use jiff::Timestamp;
use tokio::{sync::Notify, time::timeout};

use crate::relay::spool::{
    Appended, DeadLetter, Death, Depth, Entry, Error, Message, NewRecord, Pending, RecordId,
    Selection, Spool,
};

#[derive(Default)]
pub(super) struct Memory {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
pub(super) struct State {
    sequence: u64,
    /// Not handed over yet.
    queue: VecDeque<Entry>,
    /// Waiting, in the order of acceptance.
    pub(super) waiting: Vec<(Entry, Message)>,
    pub(super) dead: Vec<DeadLetter>,
    pub(super) delivered: Vec<RecordId>,
    pub(super) facts: Vec<String>,
    pub(super) reads: HashMap<RecordId, usize>,
    pub(super) handed_over: usize,
    // What is broken.
    pub(super) unreadable: HashSet<RecordId>,
    pub(super) failing_reads: usize,
    pub(super) failing_ends: usize,
    pub(super) failing_facts: usize,
    pub(super) failing_next: usize,
    pub(super) elsewhere: bool,
    /// How old records are said to be.
    pub(super) age: Duration,
}

impl State {
    fn fails(count: fn(&mut Self) -> &mut usize, state: &mut Self) -> Result<(), Error> {
        let count = count(state);
        if *count == 0 {
            return Ok(());
        }
        *count = count.saturating_sub(1);
        Err(Error::Failed("the disk is broken".to_owned()))
    }

    fn take(&mut self, id: RecordId) -> Result<(Entry, Message), Error> {
        let place = self.waiting.iter().position(|(entry, _)| entry.id == id);
        place.map(|place| self.waiting.remove(place)).ok_or(Error::Unknown(id))
    }
}

impl Memory {
    pub(super) fn new() -> Arc<Self> {
        Arc::default()
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// What a new process finds.
    pub(super) fn restarted(&self) -> Arc<Self> {
        let mut old = self.state();
        let queue = old.waiting.iter().map(|(entry, _)| entry.clone()).collect();
        let new = State {
            sequence: old.sequence,
            queue,
            waiting: std::mem::take(&mut old.waiting),
            dead: std::mem::take(&mut old.dead),
            delivered: old.delivered.clone(),
            ..State::default()
        };
        Arc::new(Self { state: Mutex::new(new), changed: Notify::new() })
    }

    /// Accepts a record.
    pub(super) fn accept(&self, route: &str, lanes: &[&str], body: &str) -> RecordId {
        let mut state = self.state();
        let id = RecordId::new();
        state.sequence = state.sequence.saturating_add(1);
        let message = Message {
            route: route.to_owned(),
            target: "/in".to_owned(),
            headers: Vec::new(),
            source: None,
            body: body.to_owned().into(),
        };
        let entry = Entry {
            id,
            sequence: state.sequence,
            route: route.into(),
            lanes: lanes.iter().map(|lane| Arc::from(*lane)).collect(),
            accepted: Timestamp::now().checked_sub(state.age).unwrap(),
            size: body.len() as u64,
        };
        state.queue.push_back(entry.clone());
        state.waiting.push((entry, message));
        drop(state);
        self.changed.notify_waiters();
        id
    }

    /// Waits until nothing waits for delivery.
    pub(super) async fn emptied(&self) {
        self.until(|state| state.waiting.is_empty()).await;
    }

    /// Waits for a state, but not for ever.
    pub(super) async fn until(&self, is_so: impl FnMut(&State) -> bool) {
        let waited = timeout(Duration::from_secs(3 * 24 * 3600), self.is(is_so)).await;
        waited.expect("it does not come to that");
    }

    async fn is(&self, mut is_so: impl FnMut(&State) -> bool) {
        loop {
            let changed = self.changed.notified();
            let mut changed = std::pin::pin!(changed);
            changed.as_mut().enable();
            if is_so(&self.state()) {
                return;
            }
            changed.await;
        }
    }

    fn end(
        &self,
        id: RecordId,
        end: impl FnOnce(&mut State, Entry) + Send + 'static,
    ) -> Pending<'_, ()> {
        Box::pin(async move {
            // Stores take their time.
            tokio::task::yield_now().await;
            let mut state = self.state();
            let works = State::fails(|state| &mut state.failing_ends, &mut state);
            if works.is_err() {
                self.changed.notify_waiters();
            }
            works?;
            let (entry, _) = state.take(id)?;
            end(&mut state, entry);
            drop(state);
            self.changed.notify_waiters();
            Ok(())
        })
    }
}

impl Spool for Memory {
    fn append(&self, record: NewRecord) -> Pending<'_, Appended> {
        let lanes: Vec<_> = record.lanes.iter().map(String::as_str).collect();
        let body = String::from_utf8(record.message.body.to_vec()).unwrap();
        let id = self.accept(&record.message.route, &lanes, &body);
        Box::pin(async move { Ok(Appended::Stored(id)) })
    }

    fn next(&self) -> Pending<'_, Entry> {
        Box::pin(async {
            loop {
                let changed = self.changed.notified();
                let mut changed = std::pin::pin!(changed);
                changed.as_mut().enable();
                {
                    let mut state = self.state();
                    State::fails(|state| &mut state.failing_next, &mut state)?;
                    if let Some(entry) = state.queue.pop_front() {
                        state.handed_over = state.handed_over.saturating_add(1);
                        drop(state);
                        self.changed.notify_waiters();
                        return Ok(entry);
                    }
                }
                changed.await;
            }
        })
    }

    fn read(&self, id: RecordId) -> Pending<'_, Message> {
        Box::pin(async move {
            let mut state = self.state();
            State::fails(|state| &mut state.failing_reads, &mut state)?;
            let reads = state.reads.entry(id).or_default();
            *reads = reads.saturating_add(1);
            if state.unreadable.contains(&id) {
                return Err(Error::Unreadable { id, problem: "torn".to_owned() });
            }
            let found = state.waiting.iter().find(|(entry, _)| entry.id == id);
            found.map(|(_, message)| message.clone()).ok_or(Error::Unknown(id))
        })
    }

    fn delivered(&self, entry: &Entry) -> Pending<'_, ()> {
        self.end(entry.id, |state, entry| state.delivered.push(entry.id))
    }

    fn bury(&self, entry: &Entry, death: Death) -> Pending<'_, ()> {
        self.end(entry.id, |state, entry| {
            state.dead.push(DeadLetter {
                id: entry.id,
                route: entry.route.to_string(),
                lanes: entry.lanes.iter().map(ToString::to_string).collect(),
                accepted: entry.accepted,
                buried: Timestamp::now(),
                size: entry.size,
                death,
            });
        })
    }

    fn remember(&self, fact: String) -> Pending<'_, ()> {
        Box::pin(async move {
            let mut state = self.state();
            State::fails(|state| &mut state.failing_facts, &mut state)?;
            state.facts.push(fact);
            Ok(())
        })
    }

    fn remembers(&self, fact: String) -> Pending<'_, bool> {
        Box::pin(async move { Ok(self.state().facts.contains(&fact)) })
    }

    fn dead(&self, _: Selection, _: Option<RecordId>, most: usize) -> Pending<'_, Vec<DeadLetter>> {
        Box::pin(async move { Ok(self.state().dead.iter().take(most).cloned().collect()) })
    }

    fn replay(&self, _: Selection) -> Pending<'_, u64> {
        Box::pin(async { Err(Error::Failed("not part of these tests".to_owned())) })
    }

    fn purge(&self, _: Selection) -> Pending<'_, u64> {
        Box::pin(async { Err(Error::Failed("not part of these tests".to_owned())) })
    }

    fn depth(&self) -> Vec<(String, Depth)> {
        Vec::new()
    }

    fn taken(&self) -> u64 {
        0
    }

    fn delivers(&self) -> bool {
        !self.state().elsewhere
    }

    fn close(&self) -> Pending<'_, ()> {
        Box::pin(async { Ok(()) })
    }
}
