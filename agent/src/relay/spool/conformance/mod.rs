//! The promises of a [`Spool`], as tests that every store has to pass.
//!
//! A store implements [`Place`] and calls [`conforms!`] in a test module of its
//! own; that gives it one test for each promise here. What only one store can
//! get wrong is tested beside it.

#![allow(clippy::arithmetic_side_effects, reason = "an overflow here fails a test")]

mod dead;
mod limits;
mod memory;
mod records;

use std::{sync::Arc, time::Duration};

use hyper::body::Bytes;

pub(crate) use self::{dead::*, limits::*, memory::*, records::*};
use super::{
    Appended, DeadLetter, Death, Depth, Entry, Error, Message, NewRecord, Pending, RecordId,
    Selection, Spool,
};
use crate::config;

/// Where a store keeps its records: what is left there by one value is found by
/// the next.
pub(crate) trait Place: Send + Sync {
    /// Opens the store there. The value before is closed or dropped. Of `config`
    /// all but `store` counts.
    fn open<'a>(&'a self, config: &'a config::Spool) -> Pending<'a, Arc<dyn Spool>>;
}

/// Makes a test of each promise. `$place` is evaluated anew in each, and must give
/// an empty [`Place`].
macro_rules! conforms {
    ($place:expr) => {
        $crate::relay::spool::conformance::conforms! { @each $place;
            a_message_is_read_back_as_it_was_appended
            an_entry_says_what_is_needed_to_deliver_it
            records_are_handed_over_in_order_of_acceptance
            a_waiting_next_is_woken_by_an_append
            a_cancelled_next_loses_nothing
            a_backlog_is_handed_over_whole_and_in_order_while_more_comes
            concurrent_appends_are_all_stored_and_told_apart
            what_is_not_delivered_comes_back_after_a_restart
            what_is_accepted_survives_a_value_that_was_never_closed
            what_is_delivered_is_gone
            delivery_out_of_order_leaves_the_others
            a_once_key_is_taken_once
            a_once_key_outlives_its_record_and_a_restart
            of_appends_at_once_with_one_key_one_is_stored
            a_dead_letter_keeps_its_record_and_its_reason
            dead_letters_are_listed_page_by_page
            a_dead_letter_is_not_handed_over_again
            replay_puts_dead_letters_to_the_end_under_their_old_identity
            a_replayed_record_can_die_again
            replay_of_a_route_leaves_the_others
            a_replay_survives_a_restart
            purge_removes_dead_letters_for_good
            purge_leaves_what_waits
            a_fact_is_remembered_over_a_restart
            a_full_spool_refuses_and_says_what_to_raise
            dead_letters_take_room_and_purge_gives_it_back
            a_refused_append_does_not_take_its_once_key
            what_was_stored_is_counted_after_a_restart_too
            depth_tells_routes_apart
            a_record_under_another_key_is_unreadable_and_can_be_buried
            with_a_key_everything_is_kept_as_without
            a_record_that_is_not_there_is_unknown
            a_closed_spool_refuses
        }
    };
    (@each $place:expr; $($name:ident)+) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                $crate::relay::spool::conformance::$name(&$place).await;
            }
        )+
    };
}
pub(crate) use conforms;

/// The longest that anything may take here. Nothing is expected to come near it.
const PATIENCE: Duration = Duration::from_secs(60);

/// Limits that no test meets by accident.
pub(crate) fn config() -> config::Spool {
    config::Spool { max_bytes: 64 << 20, ..config::Spool::default() }
}

/// A record without lanes on the route `graph`.
pub(crate) fn record(body: impl Into<Bytes>) -> NewRecord {
    NewRecord {
        message: Message {
            route: "graph".to_owned(),
            target: "/notify?tenant=a%20b".to_owned(),
            headers: vec![("content-type".to_owned(), "application/json".to_owned())],
            source: Some("2603:1000::1".parse().unwrap()),
            body: body.into(),
        },
        lanes: Vec::new(),
        once: None,
    }
}

fn on_route(route: &str, body: impl Into<Bytes>) -> NewRecord {
    let mut record = record(body);
    route.clone_into(&mut record.message.route);
    record
}

fn once(key: &str) -> NewRecord {
    NewRecord { once: Some(key.to_owned()), ..record("once") }
}

/// What the future gives, or a test that ends.
pub(crate) async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("the store did not answer in time")
}

async fn open(place: &impl Place, config: &config::Spool) -> Arc<dyn Spool> {
    within(place.open(config)).await.expect("the store opens")
}

async fn reopen(place: &impl Place, spool: Arc<dyn Spool>) -> Arc<dyn Spool> {
    reopen_with(place, spool, &config()).await
}

async fn reopen_with(
    place: &impl Place,
    spool: Arc<dyn Spool>,
    config: &config::Spool,
) -> Arc<dyn Spool> {
    within(spool.close()).await.expect("the store closes");
    drop(spool);
    open(place, config).await
}

pub(crate) async fn append(spool: &dyn Spool, record: NewRecord) -> RecordId {
    match within(spool.append(record)).await.expect("the record is stored") {
        Appended::Stored(id) => id,
        Appended::Duplicate => panic!("a new record was called a duplicate"),
    }
}

async fn append_all(spool: &dyn Spool, count: usize) -> Vec<RecordId> {
    let mut ids = Vec::new();
    for number in 0..count {
        ids.push(append(spool, record(format!("body {number}"))).await);
    }
    ids
}

pub(crate) async fn next(spool: &dyn Spool) -> Entry {
    within(spool.next()).await.expect("a record is handed over")
}

async fn next_ids(spool: &dyn Spool, count: usize) -> Vec<RecordId> {
    let mut ids = Vec::new();
    for _ in 0..count {
        ids.push(next(spool).await.id);
    }
    ids
}

/// Asserts that nothing more waits to be handed over: what comes next is what is
/// appended now.
async fn assert_drained(spool: &dyn Spool) {
    let last = append(spool, on_route("last", "last")).await;
    let entry = next(spool).await;
    assert_eq!(entry.id, last, "a record of route {} was left", entry.route);
    within(spool.delivered(&entry)).await.unwrap();
}

async fn bury_next(spool: &dyn Spool) -> Entry {
    let entry = next(spool).await;
    within(spool.bury(&entry, Death::Refused { status: 410 })).await.unwrap();
    entry
}

async fn dead(spool: &dyn Spool, selection: Selection) -> Vec<DeadLetter> {
    within(spool.dead(selection, None, 1_000)).await.unwrap()
}

fn depth(spool: &dyn Spool, route: &str) -> Depth {
    let depths = spool.depth();
    depths.into_iter().find(|(name, _)| name == route).map(|(_, depth)| depth).unwrap_or_default()
}
