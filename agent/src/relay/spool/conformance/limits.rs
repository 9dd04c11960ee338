//! Room, and the counting of what waits.

use super::*;

const SMALL: u64 = 256 << 10;

fn small() -> config::Spool {
    config::Spool { max_bytes: SMALL, ..config() }
}

/// Appends records of 4 KiB until one is refused; the bytes of their bodies.
async fn fill(spool: &dyn Spool) -> u64 {
    let mut bytes = 0;
    while bytes <= SMALL {
        match within(spool.append(record(vec![1; 4096]))).await {
            Ok(Appended::Stored(_)) => bytes += 4096,
            Err(Error::Full(problem)) => {
                assert!(problem.contains("spool.max_size"), "{problem:?} names no option");
                return bytes;
            }
            other => panic!("{other:?}"),
        }
    }
    panic!("{bytes} bytes were taken where {SMALL} are allowed");
}

pub(crate) async fn a_full_spool_refuses_and_says_what_to_raise(place: &impl Place) {
    let spool = open(place, &small()).await;
    let bytes = fill(&*spool).await;
    assert!(bytes >= SMALL / 2, "{bytes} of {SMALL} bytes were taken");
    assert_eq!(depth(&*spool, "graph").bytes, bytes, "nothing of a refused record is kept");
    // What was accepted is kept, and room that is made can be used again.
    for _ in 0..4 {
        let entry = next(&*spool).await;
        within(spool.delivered(&entry)).await.unwrap();
    }
    let spool = reopen_with(place, spool, &small()).await;
    let bytes = fill(&*spool).await;
    assert!(bytes >= 4096, "no room was made");
    within(spool.close()).await.unwrap();
}

pub(crate) async fn dead_letters_take_room_and_purge_gives_it_back(place: &impl Place) {
    let spool = open(place, &small()).await;
    for _ in 0..fill(&*spool).await / 4096 {
        bury_next(&*spool).await;
    }
    assert!(matches!(within(spool.append(record(vec![1; 4096]))).await, Err(Error::Full(_))));
    assert!(within(spool.purge(Selection::All)).await.unwrap() > 0);
    append(&*spool, record(vec![1; 4096])).await;
    within(spool.close()).await.unwrap();
}

pub(crate) async fn a_refused_append_does_not_take_its_once_key(place: &impl Place) {
    let spool = open(place, &small()).await;
    fill(&*spool).await;
    let mut new = once("a");
    new.message.body = vec![1; 8192].into();
    assert!(matches!(within(spool.append(new.clone())).await, Err(Error::Full(_))));
    for _ in 0..8 {
        let entry = next(&*spool).await;
        within(spool.delivered(&entry)).await.unwrap();
    }
    append(&*spool, new).await;
    within(spool.close()).await.unwrap();
}

pub(crate) async fn what_was_stored_is_counted_after_a_restart_too(place: &impl Place) {
    let spool = open(place, &config()).await;
    let mut entries = Vec::new();
    for size in 1..=4_usize {
        append(&*spool, record(vec![0; size])).await;
        entries.push(next(&*spool).await);
    }
    let counts = |spool: &dyn Spool| {
        let depth = depth(spool, "graph");
        (depth.records, depth.bytes, depth.oldest, depth.dead)
    };
    assert_eq!(counts(&*spool), (4, 10, Some(entries[0].accepted), 0));
    within(spool.delivered(&entries[0])).await.unwrap();
    within(spool.bury(&entries[2], Death::NoRoute)).await.unwrap();
    let expected = (2, 6, Some(entries[1].accepted), 1);
    assert_eq!(counts(&*spool), expected);
    assert!(spool.taken() >= 9, "the dead letter of three bytes takes room: {}", spool.taken());
    let spool = reopen(place, spool).await;
    assert_eq!(counts(&*spool), expected, "after a restart");
    assert_eq!(within(spool.replay(Selection::All)).await.unwrap(), 1);
    assert_eq!(counts(&*spool), (3, 9, Some(entries[1].accepted), 0), "after a replay");
    for _ in 0..3 {
        let entry = next(&*spool).await;
        within(spool.delivered(&entry)).await.unwrap();
    }
    assert_eq!(counts(&*spool), (0, 0, None, 0), "when all is delivered");
    within(spool.close()).await.unwrap();
}

pub(crate) async fn depth_tells_routes_apart(place: &impl Place) {
    let spool = open(place, &config()).await;
    append(&*spool, on_route("a", "123")).await;
    append(&*spool, on_route("b", "12345")).await;
    append(&*spool, on_route("b", "12345")).await;
    let a = depth(&*spool, "a");
    let b = depth(&*spool, "b");
    assert_eq!((a.records, a.bytes, b.records, b.bytes), (1, 3, 2, 10));
    assert!(a.oldest <= b.oldest);
    within(spool.close()).await.unwrap();
}
