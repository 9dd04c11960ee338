//! Dead letters: burying, listing, replaying, purging.

use super::*;

pub(crate) async fn a_dead_letter_keeps_its_record_and_its_reason(place: &impl Place) {
    let spool = open(place, &config()).await;
    let deaths = [
        Death::Refused { status: 410 },
        Death::Expired { last: "connection refused".to_owned() },
        Death::NoRoute,
        Death::Unreadable { problem: "damaged".to_owned() },
    ];
    let mut buried = Vec::new();
    for death in deaths {
        let lanes = vec![format!("lane of {}", death.name())];
        append(&*spool, NewRecord { lanes, ..record(death.name()) }).await;
        let entry = next(&*spool).await;
        within(spool.bury(&entry, death.clone())).await.unwrap();
        buried.push((entry, death));
    }
    let spool = reopen(place, spool).await;
    let letters = dead(&*spool, Selection::All).await;
    assert_eq!(letters.len(), buried.len());
    for (letter, (entry, death)) in letters.iter().zip(&buried) {
        assert_eq!((letter.id, &*letter.route), (entry.id, "graph"));
        assert_eq!(letter.lanes, [format!("lane of {}", death.name())]);
        assert_eq!((letter.accepted, letter.size), (entry.accepted, entry.size));
        assert!(letter.buried >= letter.accepted, "{letter:?}");
        assert_eq!(&letter.death, death);
        let message = within(spool.read(letter.id)).await.unwrap();
        assert!(message == record(death.name()).message, "not the message that was buried");
    }
    within(spool.close()).await.unwrap();
}

pub(crate) async fn dead_letters_are_listed_page_by_page(place: &impl Place) {
    let spool = open(place, &config()).await;
    let mut all = Vec::new();
    for number in 0..7 {
        let route = if number % 2 == 0 { "even" } else { "odd" };
        append(&*spool, on_route(route, "x")).await;
        all.push(bury_next(&*spool).await.id);
    }
    let mut listed = Vec::new();
    loop {
        let after = listed.last().copied();
        let page = within(spool.dead(Selection::All, after, 3)).await.unwrap();
        assert!(page.len() <= 3);
        if page.is_empty() {
            break;
        }
        listed.extend(page.iter().map(|letter| letter.id));
    }
    assert_eq!(listed, all);
    let odd = dead(&*spool, Selection::Route("odd".to_owned())).await;
    assert_eq!(odd.iter().map(|letter| letter.id).collect::<Vec<_>>(), [all[1], all[3], all[5]]);
    let one = dead(&*spool, Selection::One(all[4])).await;
    assert_eq!(one.iter().map(|letter| letter.id).collect::<Vec<_>>(), [all[4]]);
    assert_eq!(dead(&*spool, Selection::Route("none".to_owned())).await, []);
    assert_eq!(dead(&*spool, Selection::One(RecordId::new())).await, []);
    within(spool.close()).await.unwrap();
}

pub(crate) async fn a_dead_letter_is_not_handed_over_again(place: &impl Place) {
    let spool = open(place, &config()).await;
    let ids = append_all(&*spool, 2).await;
    bury_next(&*spool).await;
    let spool = reopen(place, spool).await;
    assert_eq!(next_ids(&*spool, 1).await, ids[1..]);
    assert_drained(&*spool).await;
    within(spool.close()).await.unwrap();
}

pub(crate) async fn replay_puts_dead_letters_to_the_end_under_their_old_identity(
    place: &impl Place,
) {
    let spool = open(place, &config()).await;
    let lanes = vec!["subscription".to_owned()];
    append(&*spool, NewRecord { lanes, ..record("first") }).await;
    append(&*spool, record("second")).await;
    let buried = [bury_next(&*spool).await, bury_next(&*spool).await];
    let waiting = append(&*spool, record("third")).await;
    assert_eq!(within(spool.replay(Selection::All)).await.unwrap(), 2);
    let third = next(&*spool).await;
    assert_eq!(third.id, waiting);
    for old in buried {
        let entry = next(&*spool).await;
        assert!(entry.sequence > third.sequence);
        assert_eq!(entry, Entry { sequence: entry.sequence, ..old });
    }
    assert_drained(&*spool).await;
    assert_eq!(dead(&*spool, Selection::All).await, []);
    assert_eq!(within(spool.replay(Selection::All)).await.unwrap(), 0);
    assert_eq!(within(spool.read(third.id)).await.unwrap().body, "third");
    within(spool.close()).await.unwrap();
}

pub(crate) async fn a_replayed_record_can_die_again(place: &impl Place) {
    let spool = open(place, &config()).await;
    let id = append(&*spool, record("x")).await;
    for _ in 0..3 {
        assert_eq!(bury_next(&*spool).await.id, id);
        assert_eq!(dead(&*spool, Selection::All).await.len(), 1);
        assert_eq!(within(spool.replay(Selection::One(id))).await.unwrap(), 1);
    }
    let entry = next(&*spool).await;
    within(spool.delivered(&entry)).await.unwrap();
    let spool = reopen(place, spool).await;
    assert_drained(&*spool).await;
    assert_eq!(dead(&*spool, Selection::All).await, []);
    within(spool.close()).await.unwrap();
}

pub(crate) async fn replay_of_a_route_leaves_the_others(place: &impl Place) {
    let spool = open(place, &config()).await;
    for route in ["a", "b", "a"] {
        append(&*spool, on_route(route, route.to_owned())).await;
        bury_next(&*spool).await;
    }
    assert_eq!(within(spool.replay(Selection::Route("a".to_owned()))).await.unwrap(), 2);
    assert_eq!(within(spool.replay(Selection::One(RecordId::new()))).await.unwrap(), 0);
    let left = dead(&*spool, Selection::All).await;
    assert_eq!(left.iter().map(|letter| &*letter.route).collect::<Vec<_>>(), ["b"]);
    within(spool.close()).await.unwrap();
}

pub(crate) async fn a_replay_survives_a_restart(place: &impl Place) {
    let spool = open(place, &config()).await;
    let id = append(&*spool, record("dead")).await;
    bury_next(&*spool).await;
    let waiting = append(&*spool, record("waiting")).await;
    assert_eq!(within(spool.replay(Selection::All)).await.unwrap(), 1);
    let spool = reopen(place, spool).await;
    assert_eq!(next_ids(&*spool, 2).await, [waiting, id]);
    assert_eq!(within(spool.read(id)).await.unwrap().body, "dead");
    assert_eq!(dead(&*spool, Selection::All).await, []);
    within(spool.close()).await.unwrap();
}

pub(crate) async fn purge_removes_dead_letters_for_good(place: &impl Place) {
    let spool = open(place, &config()).await;
    let mut ids = Vec::new();
    for route in ["a", "b", "b", "c"] {
        append(&*spool, on_route(route, route.to_owned())).await;
        ids.push(bury_next(&*spool).await.id);
    }
    assert_eq!(within(spool.purge(Selection::One(ids[0]))).await.unwrap(), 1);
    assert_eq!(within(spool.purge(Selection::Route("b".to_owned()))).await.unwrap(), 2);
    let spool = reopen(place, spool).await;
    assert_eq!(dead(&*spool, Selection::All).await.len(), 1);
    assert_eq!(within(spool.purge(Selection::All)).await.unwrap(), 1);
    assert_eq!(within(spool.purge(Selection::All)).await.unwrap(), 0);
    for id in ids {
        assert!(matches!(within(spool.read(id)).await, Err(Error::Unknown(_))));
    }
    assert_eq!(within(spool.replay(Selection::All)).await.unwrap(), 0);
    within(spool.close()).await.unwrap();
}

pub(crate) async fn purge_leaves_what_waits(place: &impl Place) {
    let spool = open(place, &config()).await;
    let id = append(&*spool, record("x")).await;
    assert_eq!(within(spool.purge(Selection::All)).await.unwrap(), 0);
    assert_eq!(within(spool.purge(Selection::One(id))).await.unwrap(), 0);
    assert_eq!(next_ids(&*spool, 1).await, [id]);
    within(spool.close()).await.unwrap();
}
