//! What only a spool on disk can get wrong.

#![allow(clippy::arithmetic_side_effects, reason = "an overflow here fails a test")]

mod child;
mod faults;
mod files;

use std::{path::Path, sync::Arc, time::Duration};

use jiff::Timestamp;
use prometheus::Registry;

use super::{
    super::{
        Appended, Death, Entry, Error, NewRecord, Pending, Selection, Spool,
        conformance::{Place, append, config, conforms, next, record, within},
        metrics::{Metrics, register_depth},
    },
    DiskSpool,
    queue::{Next, Queue, WINDOW},
    writer::Task,
};
use crate::config;

struct Temporary(tempfile::TempDir);

impl Temporary {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn spool(&self) -> std::path::PathBuf {
        self.0.path().join("spool")
    }
}

fn open(config: &config::Spool, directory: &Path) -> Result<DiskSpool, Error> {
    DiskSpool::open(config, directory, Metrics::register(&Registry::new()).unwrap())
}

impl Place for Temporary {
    fn open<'a>(&'a self, config: &'a config::Spool) -> Pending<'a, Arc<dyn Spool>> {
        Box::pin(async move {
            tokio::task::block_in_place(|| open(config, &self.spool()))
                .map(|spool| -> Arc<dyn Spool> { Arc::new(spool) })
        })
    }
}

conforms!(Temporary::new());

/// Has what is older than `keep_for` removed, as happens every minute.
async fn expire(spool: &DiskSpool) {
    let before = Timestamp::now() - spool.shared.keep_for;
    spool.write(Task::Expire(before), None).await.unwrap();
}

#[tokio::test]
async fn what_is_older_than_it_is_kept_is_removed() {
    let place = Temporary::new();
    let short = config::Spool { keep_for: Duration::ZERO, ..config() };
    let spool = open(&short, &place.spool()).unwrap();
    // More than one commit may remove.
    for _ in 0..300 {
        append(&spool, record("dead")).await;
        within(spool.bury(&next(&spool).await, Death::NoRoute)).await.unwrap();
    }
    let waiting = append(&spool, NewRecord { once: Some("key".to_owned()), ..record("x") }).await;
    within(spool.remember("fact".to_owned())).await.unwrap();
    expire(&spool).await;
    assert_eq!(within(spool.dead(Selection::All, None, 10)).await.unwrap(), []);
    assert!(!within(spool.remembers("fact".to_owned())).await.unwrap());
    let again = NewRecord { once: Some("key".to_owned()), ..record("x") };
    assert!(matches!(within(spool.append(again)).await.unwrap(), Appended::Stored(_)));
    let (_, depth) = spool.depth().pop().unwrap();
    assert_eq!((depth.records, depth.bytes, depth.dead), (2, 2, 0));
    assert_eq!(next(&spool).await.id, waiting, "what waits is never too old");
    within(spool.close()).await.unwrap();
}

#[tokio::test]
async fn what_is_not_yet_too_old_is_kept() {
    let place = Temporary::new();
    let spool = open(&config(), &place.spool()).unwrap();
    append(&spool, NewRecord { once: Some("key".to_owned()), ..record("x") }).await;
    within(spool.bury(&next(&spool).await, Death::NoRoute)).await.unwrap();
    within(spool.remember("fact".to_owned())).await.unwrap();
    expire(&spool).await;
    assert_eq!(within(spool.dead(Selection::All, None, 10)).await.unwrap().len(), 1);
    assert!(within(spool.remembers("fact".to_owned())).await.unwrap());
    let again = NewRecord { once: Some("key".to_owned()), ..record("x") };
    assert_eq!(within(spool.append(again)).await.unwrap(), Appended::Duplicate);
    within(spool.close()).await.unwrap();
}

#[tokio::test]
async fn a_replay_or_purge_of_many_is_whole() {
    let place = Temporary::new();
    let spool = Arc::new(open(&config(), &place.spool()).unwrap());
    let mut ids = Vec::new();
    for _ in 0..600 {
        ids.push(append(&*spool, record("x")).await);
        within(spool.bury(&next(&*spool).await, Death::NoRoute)).await.unwrap();
    }
    assert_eq!(within(spool.replay(Selection::All)).await.unwrap(), 600);
    for id in ids {
        let entry = next(&*spool).await;
        assert_eq!(entry.id, id);
        within(spool.bury(&entry, Death::NoRoute)).await.unwrap();
    }
    assert_eq!(within(spool.purge(Selection::All)).await.unwrap(), 600);
    let (_, depth) = spool.depth().pop().unwrap();
    assert_eq!((depth.records, depth.bytes, depth.dead), (0, 0, 0));
    within(spool.close()).await.unwrap();
}

#[tokio::test]
async fn what_was_queued_before_a_close_is_stored() {
    let place = Temporary::new();
    let spool = Arc::new(open(&config(), &place.spool()).unwrap());
    let mut appends = tokio::task::JoinSet::new();
    for _ in 0..200 {
        let spool = Arc::clone(&spool);
        appends.spawn(async move { spool.append(record("x")).await });
    }
    tokio::task::yield_now().await;
    within(spool.close()).await.unwrap();
    let mut stored = 0;
    for result in within(appends.join_all()).await {
        match result {
            Ok(Appended::Stored(_)) => stored += 1,
            Err(Error::Closed) => {}
            other => panic!("{other:?}"),
        }
    }
    let spool = open(&config(), &place.spool()).unwrap();
    let found = spool.depth().first().map_or(0, |(_, depth)| depth.records);
    assert_eq!(found, stored, "what was refused was stored, or what was stored was lost");
    within(spool.close()).await.unwrap();
}

#[tokio::test]
async fn an_append_that_was_given_up_before_its_turn_is_not_stored() {
    let place = Temporary::new();
    let spool = Arc::new(open(&config(), &place.spool()).unwrap());
    let append_one = || {
        let spool = Arc::clone(&spool);
        tokio::spawn(async move { spool.append(record("x")).await })
    };
    // While somebody else holds the database, the writer waits.
    let other = rusqlite::Connection::open(place.spool().join("spool.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let room = || spool.shared.room.available_permits();
    let all = room();
    let first = append_one();
    while room() == all {
        tokio::task::yield_now().await;
    }
    let one_less = room();
    let second = append_one();
    while room() == one_less {
        tokio::task::yield_now().await;
    }
    second.abort();
    assert!(second.await.unwrap_err().is_cancelled());
    other.execute_batch("ROLLBACK").unwrap();
    let Ok(Appended::Stored(first)) = within(first).await.unwrap() else { panic!("not stored") };
    let third = within(append_one()).await.unwrap();
    assert_eq!(next(&*spool).await.id, first);
    let id = next(&*spool).await.id;
    assert!(matches!(third, Ok(Appended::Stored(third)) if third == id), "another was stored");
    within(spool.close()).await.unwrap();
}

#[tokio::test]
async fn a_failed_statement_fails_only_the_task_that_asked_for_it() {
    let place = Temporary::new();
    let spool = Arc::new(open(&config(), &place.spool()).unwrap());
    let other = rusqlite::Connection::open(place.spool().join("spool.db")).unwrap();
    other
        .execute_batch(
            "CREATE TRIGGER fault BEFORE INSERT ON record WHEN new.size = 13
             BEGIN SELECT raise(ABORT, 'no thirteen'); END",
        )
        .unwrap();
    let mut appends = tokio::task::JoinSet::new();
    for number in 0..200_usize {
        let spool = Arc::clone(&spool);
        let size = if number % 50 == 0 { 13 } else { 12 };
        appends.spawn(async move { (size, spool.append(record(vec![0; size])).await) });
    }
    for (size, result) in within(appends.join_all()).await {
        match (size, result) {
            (12, Ok(Appended::Stored(_))) => {}
            (13, Err(Error::Failed(problem))) => assert!(problem.contains("no thirteen")),
            other => panic!("{other:?}"),
        }
    }
    let (_, depth) = spool.depth().pop().unwrap();
    assert_eq!((depth.records, depth.bytes), (196, 196 * 12));
    within(spool.close()).await.unwrap();
}

#[tokio::test]
async fn the_window_is_bounded_however_many_are_committed() {
    let queue = Queue::default();
    let entry = |sequence| Entry {
        id: super::RecordId::new(),
        sequence,
        route: "graph".into(),
        lanes: Vec::new(),
        accepted: Timestamp::now(),
        size: 0,
    };
    let all = u64::try_from(WINDOW).unwrap() + 3;
    for sequence in 1..=all {
        queue.committed(vec![entry(sequence)]);
    }
    let mut sequences = Vec::new();
    let gap = loop {
        match queue.next().unwrap() {
            Next::Entry(entry) => sequences.push(entry.sequence),
            Next::Load(gap) => break gap,
            Next::Wait => panic!("three are missing"),
        }
    };
    assert_eq!(sequences.len(), WINDOW);
    assert_eq!((gap.after, gap.up_to), (all - 3, all));
    // What is committed while the page is read comes after it.
    queue.committed(vec![entry(all + 1)]);
    assert!(matches!(queue.next().unwrap(), Next::Wait));
    queue.loaded(gap, Ok((all - 2..=all).map(entry).collect()));
    for expected in all - 2..=all {
        assert!(matches!(queue.next().unwrap(), Next::Entry(entry) if entry.sequence == expected));
    }
    let Next::Load(gap) = queue.next().unwrap() else { panic!("one is missing") };
    queue.loaded(gap, Err(Error::Failed("a fault".to_owned())));
    assert!(matches!(queue.next(), Err(Error::Failed(_))), "a page that failed is told");
    assert!(matches!(queue.next().unwrap(), Next::Load(again) if again == gap), "and asked again");
}

#[tokio::test]
async fn metrics_say_what_was_appended_and_what_waits() {
    let place = Temporary::new();
    let registry = Registry::new();
    let metrics = Metrics::register(&registry).unwrap();
    let small = config::Spool { max_bytes: 100, ..config() };
    let spool = Arc::new(DiskSpool::open(&small, &place.spool(), metrics).unwrap());
    register_depth(&registry, spool.clone(), small.max_bytes).unwrap();
    append(&*spool, record("123")).await;
    append(&*spool, NewRecord { once: Some("a".to_owned()), ..record("12345") }).await;
    let again = NewRecord { once: Some("a".to_owned()), ..record("12345") };
    within(spool.append(again)).await.unwrap();
    within(spool.append(record(vec![0; 100]))).await.unwrap_err();
    within(spool.bury(&next(&*spool).await, Death::NoRoute)).await.unwrap();
    let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
    for line in [
        "exogate_spool_appends_total{result=\"stored\"} 2",
        "exogate_spool_appends_total{result=\"duplicate\"} 1",
        "exogate_spool_appends_total{result=\"full\"} 1",
        "exogate_spool_append_duration_seconds_count 4",
        "exogate_spool_records{route=\"graph\"} 1",
        "exogate_spool_bytes{route=\"graph\"} 5",
        "exogate_spool_dead_letters{route=\"graph\"} 1",
        "exogate_spool_oldest_timestamp_seconds{route=\"graph\"} 1",
        "exogate_spool_max_bytes 100",
        "exogate_spool_commits_total",
    ] {
        assert!(text.lines().any(|found| found.starts_with(line)), "{line} is not in\n{text}");
    }
    within(spool.close()).await.unwrap();
}
