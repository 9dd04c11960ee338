//! Servers that go away, and come back.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn no_acknowledged_record_is_lost_when_any_one_server_is_killed() {
    let mut cluster = Cluster::start(3).unwrap();
    let spool = open(&cluster).await;
    let senders = Senders::start(&[Arc::clone(&spool)]);
    senders.more(50).await;
    let leader = cluster.wait_until_current(WAITING).unwrap();
    // The leader first, then all of them in turn.
    for node in [leader, 0, 1, 2] {
        cluster.kill(node).unwrap();
        senders.more(50).await;
        cluster.restart(node).unwrap();
        cluster.wait_until_current(WAITING).unwrap();
        senders.more(20).await;
    }
    let stored = senders.stop().await;
    deliver_all(&*spool, &stored).await;
    within(spool.close()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_the_end_of_all_servers() {
    let mut cluster = Cluster::start(3).unwrap();
    let spool = open(&cluster).await;
    let senders = Senders::start(&[Arc::clone(&spool)]);
    senders.more(100).await;
    for node in 0..3 {
        cluster.kill(node).unwrap();
    }
    for node in 0..3 {
        cluster.restart(node).unwrap();
    }
    cluster.wait_until_ready().unwrap();
    senders.more(20).await;
    let stored = senders.stop().await;
    deliver_all(&*spool, &stored).await;
    within(spool.close()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_quorum_appends_fail_in_time_and_work_again_when_it_is_back() {
    let mut cluster = Cluster::start(3).unwrap();
    let spool = open(&cluster).await;
    let first = append(&*spool, 1).await.unwrap();
    assert!(spool.delivers());
    cluster.kill(0).unwrap();
    cluster.kill(1).unwrap();
    for number in 2..6 {
        // Bounded in time by `append` itself.
        let failed = append(&*spool, number).await;
        assert!(matches!(failed, Err(Error::Failed(_))), "{failed:?}");
    }
    until("the end of the turn", || !spool.delivers()).await;
    cluster.restart(0).unwrap();
    cluster.restart(1).unwrap();
    cluster.wait_until_ready().unwrap();
    let second = within(async {
        loop {
            if let Ok(id) = append(&*spool, 6).await {
                return id;
            }
        }
    })
    .await;
    deliver_all(&*spool, &[first, second].into()).await;
    within(spool.close()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_hangs_is_left_for_another_one() {
    // Servers may disagree for good after pauses: see "What an acknowledged record
    // survives" at the spool. Then nothing is to be learned about the spool.
    for attempt in 0..3 {
        let cluster = Cluster::start(3).unwrap();
        let spool = open(&cluster).await;
        let senders = Senders::start(&[Arc::clone(&spool)]);
        senders.more(20).await;
        // Not the leader, with whom that is frequent.
        let leader = cluster.wait_until_current(WAITING).unwrap();
        for node in (0..3).filter(|node| *node != leader) {
            cluster.pause(node).unwrap();
            senders.more(20).await;
            cluster.resume(node).unwrap();
            cluster.wait_until_current(WAITING).unwrap();
        }
        let stored = senders.stop().await;
        if cluster.agrees(WAITING) {
            deliver_all(&*spool, &stored).await;
            return within(spool.close()).await.unwrap();
        }
        eprintln!("attempt {attempt}: the servers disagree");
    }
    panic!("the servers disagree again and again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_close_without_servers_ends() {
    let mut cluster = Cluster::start(3).unwrap();
    let spool = open(&cluster).await;
    for node in 0..3 {
        cluster.kill(node).unwrap();
    }
    assert!(append(&*spool, 1).await.is_err());
    within(spool.close()).await.unwrap();
    assert!(matches!(
        within(spool.append(record("lane", String::new()))).await,
        Err(Error::Closed)
    ));
}
