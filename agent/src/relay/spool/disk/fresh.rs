//! Messages that were just stored, for whoever delivers them at once.
//!
//! Most records are delivered in the moment in which they become durable. Without
//! this, each would be read back from the database, through another thread. It is a
//! shortcut and nothing more: what is not here is read from there.
//!
//! Bounded: while a server is away, what comes does not gather here.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::super::{Message, RecordId};

/// Bytes of messages.
const MOST: usize = 4 << 20;
/// What a message takes besides its body, about.
const EACH: usize = 1 << 10;

/// Messages that nobody has read since they were stored.
#[derive(Default)]
pub(super) struct Fresh(Mutex<State>);

#[derive(Default)]
struct State {
    bytes: usize,
    messages: HashMap<RecordId, Message>,
}

impl Fresh {
    /// Keeps a message that is about to be stored, if there is room. It goes with
    /// what is returned, unless that is kept.
    pub(super) fn offer(&self, id: RecordId, message: Message) -> Offer<'_> {
        let mut state = self.lock();
        let bytes = state.bytes.saturating_add(size(&message));
        if bytes <= MOST {
            state.bytes = bytes;
            state.messages.insert(id, message);
        }
        Offer { fresh: self, id, is_stored: false }
    }

    /// Takes a message out.
    pub(super) fn take(&self, id: RecordId) -> Option<Message> {
        let mut state = self.lock();
        let message = state.messages.remove(&id)?;
        state.bytes = state.bytes.saturating_sub(size(&message));
        if state.messages.is_empty() {
            // After a flood it does not keep the room that it took.
            state.messages.shrink_to(64);
        }
        Some(message)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A message of which it is not known yet whether it becomes durable.
pub(super) struct Offer<'a> {
    fresh: &'a Fresh,
    id: RecordId,
    is_stored: bool,
}

impl Offer<'_> {
    /// It is durable, and waits to be delivered.
    pub(super) fn stored(mut self) {
        self.is_stored = true;
    }
}

impl Drop for Offer<'_> {
    fn drop(&mut self) {
        if !self.is_stored {
            self.fresh.take(self.id);
        }
    }
}

fn size(message: &Message) -> usize {
    message.body.len().saturating_add(EACH)
}

#[cfg(test)]
mod tests {
    use hyper::body::Bytes;

    use super::*;

    fn message(body: Vec<u8>) -> Message {
        Message {
            route: "graph".to_owned(),
            target: "/".to_owned(),
            headers: vec![],
            source: None,
            body: Bytes::from(body),
        }
    }

    #[test]
    fn what_was_stored_is_handed_out_once() {
        let (fresh, id) = (Fresh::default(), RecordId::new());
        fresh.offer(id, message(vec![1])).stored();
        assert_eq!(fresh.take(id).unwrap().body, [1].as_slice());
        assert!(fresh.take(id).is_none());
        assert_eq!(fresh.lock().bytes, 0);
    }

    #[test]
    fn what_did_not_become_durable_is_not_handed_out() {
        let (fresh, id) = (Fresh::default(), RecordId::new());
        drop(fresh.offer(id, message(vec![1])));
        assert!(fresh.take(id).is_none());
    }

    #[test]
    fn what_nobody_reads_does_not_fill_the_memory() {
        let fresh = Fresh::default();
        for _ in 0..8 {
            fresh.offer(RecordId::new(), message(vec![0; 1 << 20])).stored();
        }
        assert_eq!(fresh.lock().messages.len(), 3);
        assert!(fresh.lock().bytes <= MOST);
    }
}
