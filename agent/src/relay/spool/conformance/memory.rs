//! What is remembered beside records, and encryption.

use std::{path::Path, sync::Arc};

use super::*;

/// The same, encrypted with a key of one repeated digit.
fn with_key(directory: &Path, digit: char) -> config::Spool {
    let path = directory.join(format!("key-{digit}"));
    std::fs::write(&path, String::from(digit).repeat(64)).unwrap();
    config::Spool { key_file: Some(path), ..config() }
}

pub(crate) async fn a_once_key_is_taken_once(place: &impl Place) {
    let spool = open(place, &config()).await;
    append(&*spool, once("a")).await;
    append(&*spool, once("b")).await;
    assert_eq!(within(spool.append(once("a"))).await.unwrap(), Appended::Duplicate);
    assert_eq!(depth(&*spool, "graph").records, 2);
    next_ids(&*spool, 2).await;
    assert_drained(&*spool).await;
    within(spool.close()).await.unwrap();
}

pub(crate) async fn a_once_key_outlives_its_record_and_a_restart(place: &impl Place) {
    let spool = open(place, &config()).await;
    append(&*spool, once("a")).await;
    let entry = next(&*spool).await;
    within(spool.delivered(&entry)).await.unwrap();
    assert_eq!(within(spool.append(once("a"))).await.unwrap(), Appended::Duplicate);
    let spool = reopen(place, spool).await;
    assert_eq!(within(spool.append(once("a"))).await.unwrap(), Appended::Duplicate);
    within(spool.close()).await.unwrap();
}

pub(crate) async fn of_appends_at_once_with_one_key_one_is_stored(place: &impl Place) {
    let spool = open(place, &config()).await;
    let mut tasks = Vec::new();
    for _ in 0..16 {
        let spool = Arc::clone(&spool);
        tasks.push(tokio::spawn(async move { within(spool.append(once("a"))).await.unwrap() }));
    }
    let mut stored = Vec::new();
    for task in tasks {
        if let Appended::Stored(id) = within(task).await.unwrap() {
            stored.push(id);
        }
    }
    assert_eq!(stored.len(), 1);
    assert_eq!(next_ids(&*spool, 1).await, stored);
    assert_drained(&*spool).await;
    within(spool.close()).await.unwrap();
}

pub(crate) async fn a_fact_is_remembered_over_a_restart(place: &impl Place) {
    let spool = open(place, &config()).await;
    let fact = || "ews/unsubscribe/HgBleGNo.==".to_owned();
    assert!(!within(spool.remembers(fact())).await.unwrap());
    within(spool.remember(fact())).await.unwrap();
    within(spool.remember(fact())).await.unwrap();
    // A fact is no key of a record, though its text be the same.
    append(&*spool, once(&fact())).await;
    assert!(!within(spool.remembers("a".to_owned())).await.unwrap());
    append(&*spool, once("a")).await;
    assert!(!within(spool.remembers("a".to_owned())).await.unwrap());
    let spool = reopen(place, spool).await;
    assert!(within(spool.remembers(fact())).await.unwrap());
    within(spool.close()).await.unwrap();
}

pub(crate) async fn a_record_under_another_key_is_unreadable_and_can_be_buried(place: &impl Place) {
    let directory = tempfile::tempdir().unwrap();
    let other = with_key(directory.path(), '2');
    let spool = open(place, &with_key(directory.path(), '1')).await;
    let lanes = vec!["subscription".to_owned()];
    let id = append(&*spool, NewRecord { lanes, ..record("secret") }).await;
    for config in [config(), other.clone()] {
        within(spool.close()).await.unwrap();
        let spool = open(place, &config).await;
        assert_eq!(next(&*spool).await.id, id);
        let read = within(spool.read(id)).await;
        assert!(matches!(read, Err(Error::Unreadable { id: other, .. }) if other == id));
        within(spool.close()).await.unwrap();
    }
    drop(spool);
    let spool = open(place, &other).await;
    let readable = append(&*spool, record("readable")).await;
    let entry = next(&*spool).await;
    let death = Death::Unreadable { problem: "another key".to_owned() };
    within(spool.bury(&entry, death.clone())).await.unwrap();
    let letters = dead(&*spool, Selection::All).await;
    assert_eq!(letters.iter().map(|letter| letter.id).collect::<Vec<_>>(), [id]);
    assert_eq!(letters[0].death, death);
    assert_eq!(next_ids(&*spool, 1).await, [readable]);
    // With the right key it is whole again.
    let spool = reopen_with(place, spool, &with_key(directory.path(), '1')).await;
    assert!(within(spool.read(id)).await.unwrap() == record("secret").message);
    assert_eq!(dead(&*spool, Selection::All).await[0].lanes, ["subscription"]);
    within(spool.close()).await.unwrap();
}

pub(crate) async fn with_a_key_everything_is_kept_as_without(place: &impl Place) {
    let directory = tempfile::tempdir().unwrap();
    let config = with_key(directory.path(), 'a');
    let spool = open(place, &config).await;
    let lanes = vec!["subscription".to_owned()];
    let id = append(&*spool, NewRecord { lanes, ..once("key") }).await;
    within(spool.remember("fact".to_owned())).await.unwrap();
    let spool = reopen_with(place, spool, &config).await;
    assert_eq!(within(spool.append(once("key"))).await.unwrap(), Appended::Duplicate);
    assert!(within(spool.remembers("fact".to_owned())).await.unwrap());
    let entry = next(&*spool).await;
    assert_eq!((entry.id, entry.size), (id, 4));
    assert_eq!(entry.lanes, ["subscription".into()]);
    assert!(within(spool.read(id)).await.unwrap() == once("key").message);
    within(spool.bury(&entry, Death::NoRoute)).await.unwrap();
    assert_eq!(dead(&*spool, Selection::All).await[0].lanes, ["subscription"]);
    within(spool.close()).await.unwrap();
}
