//! Edge hosts that share a spool.

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

use super::*;

/// Makes [`an_edge_host`] one, with these servers.
const HOST: &str = "EXOGATE_TEST_EDGE_HOST";

/// Not a test by itself: run as a process of its own by the one below, it accepts
/// and delivers until it is killed, and says so line by line.
#[tokio::test(flavor = "multi_thread")]
async fn an_edge_host() {
    let Ok(servers) = std::env::var(HOST) else { return };
    let config = config::Jetstream {
        servers: servers.split(',').map(str::to_owned).collect(),
        prefix: "exogate".to_owned(),
        replicas: 3,
        credentials_file: None,
        ca_file: None,
        client_certificate: None,
    };
    let spool = open_at_last(&config).await;
    let delivering = tokio::spawn({
        let spool = Arc::clone(&spool);
        async move {
            loop {
                let entry = spool.next().await.unwrap();
                tokio::time::sleep(Duration::from_millis(5)).await;
                println!("\nsent {}", entry.id);
                spool.delivered(&entry).await.unwrap();
            }
        }
    });
    for number in 0.. {
        if let Ok(id) = append(&*spool, number).await {
            println!("\nstored {id}");
        }
        if delivering.is_finished() {
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_host_had_accepted_is_delivered_by_another() {
    let cluster = Cluster::start(3).unwrap();
    let mut killed = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "hosts::an_edge_host", "--nocapture"])
        .env(HOST, cluster.urls().join(","))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(killed.stdout.take().unwrap()).lines().map(Result::unwrap);
    let (mut stored, mut sent) = (BTreeSet::new(), BTreeSet::new());
    let mut take = |line: String, stored: &mut BTreeSet<RecordId>| {
        if let Some(id) = line.strip_prefix("stored ") {
            stored.insert(id.parse().unwrap());
        } else if let Some(id) = line.strip_prefix("sent ") {
            sent.insert(id.parse().unwrap());
        }
    };
    while stored.len() < 300 {
        take(lines.next().expect("the host ended by itself"), &mut stored);
    }
    // It has the turn to deliver, and this one waits beside it.
    let other = open(&cluster).await;
    assert!(!other.delivers());
    killed.kill().unwrap();
    killed.wait().unwrap();
    // The last line may be torn.
    let rest: Vec<_> = lines.filter(|line| line.len() > 40).collect();
    rest.into_iter().for_each(|line| take(line, &mut stored));
    let left = stored.difference(&sent).copied().collect();
    let delivered: BTreeSet<_> =
        deliver_all(&*other, &left).await.into_iter().map(|entry| entry.id).collect();
    eprintln!("{} stored, {} sent before, {} after", stored.len(), sent.len(), delivered.len());
    assert!(sent.intersection(&delivered).count() <= 1, "only the one under way may come twice");
    within(other.close()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn no_two_hosts_deliver_a_record_and_none_is_delivered_twice_while_all_are_well() {
    let cluster = Cluster::start(3).unwrap();
    let hosts = [open(&cluster).await, open(&cluster).await, open(&cluster).await];
    let delivered: Arc<Mutex<Vec<RecordId>>> = Arc::default();
    let stop = Arc::new(AtomicBool::new(false));
    let deliver = |host: Arc<JetstreamSpool>| {
        let (delivered, stop) = (Arc::clone(&delivered), Arc::clone(&stop));
        tokio::spawn(async move {
            let mut count = 0;
            while !stop.load(Ordering::Relaxed) {
                let Ok(entry) = timeout(Duration::from_millis(100), host.next()).await else {
                    continue;
                };
                let Ok(entry) = entry else { break };
                // Seen before it is removed: two who had it at once would show.
                delivered.lock().unwrap().push(entry.id);
                tokio::time::sleep(Duration::from_millis(3)).await;
                host.delivered(&entry).await.unwrap();
                count += 1;
                // The host that delivers leaves in good order and the next one
                // takes over.
                if count == 40 {
                    host.close().await.unwrap();
                    break;
                }
            }
            count
        })
    };
    let senders = Senders::start(&hosts[2..]);
    let delivering: Vec<_> = hosts[..2].iter().map(|host| deliver(Arc::clone(host))).collect();
    let mut counts = Vec::new();
    for task in delivering {
        counts.push(within(task).await.unwrap());
    }
    assert_eq!(counts, [40, 40], "each of them had its turn");
    let stored = senders.stop().await;
    let before: BTreeSet<_> = delivered.lock().unwrap().iter().copied().collect();
    assert_eq!(before.len(), delivered.lock().unwrap().len(), "a record was delivered twice");
    let left = stored.difference(&before).copied().collect();
    let after = deliver_all(&*hosts[2], &left).await;
    assert!(after.iter().all(|entry| !before.contains(&entry.id)), "a record came again");
    within(hosts[2].close()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_lost_its_turn_hands_nothing_over() {
    let cluster = Cluster::start(3).unwrap();
    let first = open(&cluster).await;
    let id = append(&*first, 1).await.unwrap();
    let entry = within(first.next()).await.unwrap();
    assert_eq!(entry.id, id);
    let second = open(&cluster).await;
    assert!(first.delivers() && !second.delivers());
    append(&*second, 2).await.unwrap();
    let waiting = timeout(Duration::from_millis(500), second.next()).await;
    assert!(waiting.is_err(), "{waiting:?}");
    // It tells what waits nevertheless, as the other one says.
    until("the depth of the other host", || {
        second.depth().iter().any(|(route, depth)| route == "graph" && depth.records == 2)
    })
    .await;
    within(first.close()).await.unwrap();
    let again = within(second.next()).await.unwrap();
    assert_eq!(again, entry, "what was handed over but not delivered comes again");
    within(second.delivered(&again)).await.unwrap();
    within(second.close()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_taken_once_among_all_hosts() {
    let cluster = Cluster::start(3).unwrap();
    let hosts = [open(&cluster).await, open(&cluster).await];
    for key in 0..20 {
        let new =
            || NewRecord { once: Some(format!("key {key}")), ..record("lane", "body".into()) };
        let (one, other) =
            tokio::join!(within(hosts[0].append(new())), within(hosts[1].append(new())));
        let stored = [one.unwrap(), other.unwrap()];
        let duplicates = stored.iter().filter(|stored| **stored == Appended::Duplicate).count();
        assert_eq!(duplicates, 1, "{stored:?}");
    }
    for host in hosts {
        within(host.close()).await.unwrap();
    }
}
