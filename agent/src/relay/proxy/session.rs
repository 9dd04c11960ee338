//! The connections to servers that a client's connection owns.
//!
//! One for each pool that its requests went to. A connection is either here, free, or
//! with the one request that it is used for; HTTP/1.1 answers one after the other. If
//! a request ends in any other way than with a whole answer, its connection does not
//! come back.

use std::{
    sync::{Arc, Mutex, PoisonError},
    task::Context,
};

use super::super::{
    listen::{Attachment, Closer, Peer},
    upstream::{Client, OnEnd, Pinned},
};

/// What belongs to a client's connection. It ends with it.
#[derive(Default)]
pub(in crate::relay) struct Session {
    free: Mutex<Vec<(usize, Pinned)>>,
}

impl Session {
    /// That of a client's connection.
    pub(in crate::relay) fn of(peer: &Peer) -> Option<Arc<Self>> {
        peer.attached.get_or_init(Arc::<Self>::default).map(Arc::clone)
    }

    /// Takes the connection to a pool, the one of this place in the configuration.
    pub(in crate::relay) fn take(&self, pool: usize) -> Option<Pinned> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let place = free.iter().position(|(of, _)| *of == pool)?;
        Some(free.swap_remove(place).1)
    }

    /// Gives it back, for the next request.
    pub(super) fn give_back(&self, pool: usize, pinned: Pinned) {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        free.push((pool, pinned));
    }

    /// Ends those that are free.
    pub(in crate::relay) fn clear(&self) {
        self.free.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl Attachment for Arc<Session> {
    /// Drives what is free, so that the end of a server's connection is noticed. One that
    /// somebody is authenticated on takes the client's along.
    fn poll(&self, cx: &mut Context<'_>) {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        free.retain_mut(|(_, pinned)| pinned.drive(cx));
    }
}

/// Whom a connection to a server is for.
pub(in crate::relay) fn client(peer: &Peer) -> Client {
    let closer: Closer = peer.attached.closer();
    let on_end: OnEnd = Arc::new(move || closer.close());
    Client { source: peer.source.ip(), on_end }
}
