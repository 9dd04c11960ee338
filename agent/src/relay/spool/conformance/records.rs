//! Appending, handing over, delivering, closing.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use super::*;

pub(crate) async fn a_message_is_read_back_as_it_was_appended(place: &impl Place) {
    let spool = open(place, &config()).await;
    let mut odd = record(vec![0, 255, 10, 13, 0]);
    odd.message.headers.push(("x-caller".to_owned(), "grüße \"\\ \u{1f600}".to_owned()));
    odd.message.source = None;
    for new in [record(""), record(vec![7; 300_000]), odd] {
        let id = append(&*spool, new.clone()).await;
        // The first may not come from where it is kept.
        for reading in ["first", "second"] {
            assert!(within(spool.read(id)).await.unwrap() == new.message, "{reading}");
        }
    }
    within(spool.close()).await.unwrap();
}

pub(crate) async fn an_entry_says_what_is_needed_to_deliver_it(place: &impl Place) {
    let spool = open(place, &config()).await;
    let before = jiff::Timestamp::now();
    let lanes = vec!["subscription-1".to_owned(), "subscription-2".to_owned()];
    let new = NewRecord { lanes: lanes.clone(), ..on_route("ews", "12345") };
    let id = append(&*spool, new).await;
    let entry = next(&*spool).await;
    let after = jiff::Timestamp::now();
    assert_eq!(entry.id, id);
    assert_eq!(&*entry.route, "ews");
    assert_eq!(entry.lanes.iter().map(|lane| lane.to_string()).collect::<Vec<_>>(), lanes);
    assert_eq!(entry.size, 5);
    // Stores may round to milliseconds.
    let slack = Duration::from_millis(1);
    assert!(entry.accepted >= before - slack && entry.accepted <= after + slack, "{entry:?}");

    let spool = reopen(place, spool).await;
    assert_eq!(next(&*spool).await, entry, "after a restart");
    within(spool.close()).await.unwrap();
}

pub(crate) async fn records_are_handed_over_in_order_of_acceptance(place: &impl Place) {
    let spool = open(place, &config()).await;
    let ids = append_all(&*spool, 50).await;
    let mut sequence = 0;
    for id in ids {
        let entry = next(&*spool).await;
        assert_eq!(entry.id, id);
        assert!(entry.sequence > sequence, "{} after {sequence}", entry.sequence);
        sequence = entry.sequence;
    }
    assert_drained(&*spool).await;
    within(spool.close()).await.unwrap();
}

pub(crate) async fn a_waiting_next_is_woken_by_an_append(place: &impl Place) {
    let spool = open(place, &config()).await;
    for _ in 0..20 {
        let waiting = tokio::spawn({
            let spool = Arc::clone(&spool);
            async move { next(&*spool).await }
        });
        tokio::task::yield_now().await;
        let id = append(&*spool, record("x")).await;
        assert_eq!(within(waiting).await.unwrap().id, id);
    }
    within(spool.close()).await.unwrap();
}

pub(crate) async fn a_cancelled_next_loses_nothing(place: &impl Place) {
    let spool = open(place, &config()).await;
    append_all(&*spool, 100).await;
    // What an earlier run left has to be loaded first, and that is cancelled too.
    let spool = reopen(place, spool).await;
    let appending = tokio::spawn({
        let spool = Arc::clone(&spool);
        async move { append_all(&*spool, 300).await }
    });
    let mut seen = Vec::new();
    let mut cancelled = 0_u32;
    while seen.len() < 400 {
        tokio::select! {
            biased;
            // Polled once, then given up if it has nothing yet.
            entry = spool.next() => seen.push(entry.unwrap().sequence),
            () = tokio::task::yield_now() => {
                cancelled += 1;
                // The store's own tasks need their turn.
                tokio::time::sleep(Duration::from_micros(200)).await;
                assert!(cancelled < 1_000_000, "the rest never came: {} of 400", seen.len());
            }
        }
    }
    within(appending).await.unwrap();
    assert!(cancelled > 0, "nothing was cancelled, so nothing was tested");
    assert!(seen.is_sorted());
    assert_eq!(seen.iter().collect::<BTreeSet<_>>().len(), 400);
    assert_drained(&*spool).await;
    within(spool.close()).await.unwrap();
}

pub(crate) async fn a_backlog_is_handed_over_whole_and_in_order_while_more_comes(
    place: &impl Place,
) {
    const BACKLOG: usize = 3_000;
    const MORE: usize = 1_000;
    let spool = open(place, &config()).await;
    let mut tasks = Vec::new();
    for writer in 0..30 {
        let spool = Arc::clone(&spool);
        tasks.push(tokio::spawn(async move {
            for number in 0..BACKLOG / 30 {
                append(&*spool, record(format!("{writer} {number}"))).await;
            }
        }));
    }
    for task in tasks.drain(..) {
        within(task).await.unwrap();
    }
    let spool = reopen(place, spool).await;
    let more = tokio::spawn({
        let spool = Arc::clone(&spool);
        async move { append_all(&*spool, MORE).await }
    });
    let mut entries = Vec::new();
    for _ in 0..BACKLOG + MORE {
        entries.push(next(&*spool).await);
    }
    let later: Vec<_> = entries[BACKLOG..].iter().map(|entry| entry.id).collect();
    assert!(later == within(more).await.unwrap(), "what came later is not last or not in order");
    assert!(entries.is_sorted_by_key(|entry| entry.sequence));
    assert_eq!(entries.iter().map(|entry| entry.id).collect::<BTreeSet<_>>().len(), entries.len());
    assert_drained(&*spool).await;
    within(spool.close()).await.unwrap();
}

pub(crate) async fn concurrent_appends_are_all_stored_and_told_apart(place: &impl Place) {
    let spool = open(place, &config()).await;
    let mut tasks = Vec::new();
    for writer in 0..16 {
        let spool = Arc::clone(&spool);
        tasks.push(tokio::spawn(async move {
            let mut stored = Vec::new();
            for number in 0..25 {
                let body = format!("writer {writer}, record {number}");
                stored.push((append(&*spool, record(body.clone())).await, body));
            }
            stored
        }));
    }
    let mut order = BTreeMap::new();
    let mut stored = Vec::new();
    for task in tasks {
        stored.push(within(task).await.unwrap());
    }
    for _ in 0..400 {
        let entry = next(&*spool).await;
        assert!(order.insert(entry.id, entry.sequence).is_none(), "handed over twice");
    }
    for writer in stored {
        assert!(writer.is_sorted_by_key(|(id, _)| order[id]), "a writer's order was changed");
        for (id, body) in writer {
            assert_eq!(within(spool.read(id)).await.unwrap().body, body);
        }
    }
    within(spool.close()).await.unwrap();
}

pub(crate) async fn what_is_not_delivered_comes_back_after_a_restart(place: &impl Place) {
    let spool = open(place, &config()).await;
    let ids = append_all(&*spool, 6).await;
    // Handed over is not delivered.
    next_ids(&*spool, 3).await;
    let spool = reopen(place, spool).await;
    assert_eq!(next_ids(&*spool, 6).await, ids);
    assert_drained(&*spool).await;
    within(spool.close()).await.unwrap();
}

pub(crate) async fn what_is_accepted_survives_a_value_that_was_never_closed(place: &impl Place) {
    let spool = open(place, &config()).await;
    let ids = append_all(&*spool, 6).await;
    drop(spool);
    let spool = open(place, &config()).await;
    assert_eq!(next_ids(&*spool, 6).await, ids);
    assert_eq!(within(spool.read(ids[5])).await.unwrap().body, "body 5");
    within(spool.close()).await.unwrap();
}

pub(crate) async fn what_is_delivered_is_gone(place: &impl Place) {
    let spool = open(place, &config()).await;
    let ids = append_all(&*spool, 2).await;
    let entry = next(&*spool).await;
    within(spool.delivered(&entry)).await.unwrap();
    let read = within(spool.read(ids[0])).await;
    assert!(matches!(read, Err(Error::Unknown(id)) if id == ids[0]), "{read:?}");
    let spool = reopen(place, spool).await;
    assert_eq!(next_ids(&*spool, 1).await, ids[1..]);
    assert_drained(&*spool).await;
    within(spool.close()).await.unwrap();
}

pub(crate) async fn delivery_out_of_order_leaves_the_others(place: &impl Place) {
    let spool = open(place, &config()).await;
    let ids = append_all(&*spool, 5).await;
    let mut entries = Vec::new();
    for _ in 0..5 {
        entries.push(next(&*spool).await);
    }
    for entry in [&entries[3], &entries[1]] {
        within(spool.delivered(entry)).await.unwrap();
    }
    let spool = reopen(place, spool).await;
    assert_eq!(next_ids(&*spool, 3).await, [ids[0], ids[2], ids[4]]);
    assert_drained(&*spool).await;
    within(spool.close()).await.unwrap();
}

pub(crate) async fn a_record_that_is_not_there_is_unknown(place: &impl Place) {
    let spool = open(place, &config()).await;
    let id = RecordId::new();
    let read = within(spool.read(id)).await;
    assert!(matches!(read, Err(Error::Unknown(unknown)) if unknown == id), "{read:?}");
    within(spool.close()).await.unwrap();
}

pub(crate) async fn a_closed_spool_refuses(place: &impl Place) {
    let spool = open(place, &config()).await;
    let id = append(&*spool, record("x")).await;
    let entry = next(&*spool).await;
    let waiting = tokio::spawn({
        let spool = Arc::clone(&spool);
        async move { within(spool.next()).await }
    });
    tokio::task::yield_now().await;
    within(spool.close()).await.unwrap();
    assert!(matches!(within(waiting).await.unwrap(), Err(Error::Closed)), "a next that waits");
    assert!(matches!(within(spool.append(record("y"))).await, Err(Error::Closed)));
    assert!(matches!(within(spool.next()).await, Err(Error::Closed)));
    assert!(matches!(within(spool.read(id)).await, Err(Error::Closed)));
    assert!(matches!(within(spool.delivered(&entry)).await, Err(Error::Closed)));
    within(spool.close()).await.expect("closing twice is no error");
    drop(spool);
    let spool = open(place, &config()).await;
    assert_eq!(next_ids(&*spool, 1).await, [id], "and kept what it had");
    within(spool.close()).await.unwrap();
}
