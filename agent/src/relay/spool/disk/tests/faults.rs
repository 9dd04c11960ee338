//! Crashes and failing disks, with a real process on a real file system. What was
//! acknowledged is found again, whole, whatever happened.
//!
//! Counts are reduced unless `EXOGATE_SOAK` is set.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
};

use super::{
    child::{Said, Worker, digest_of},
    *,
};
use crate::relay::spool::{RecordId, disk::RESERVE};

/// What has to be found, by what the children said.
#[derive(Default)]
struct Ledger {
    stored: BTreeMap<RecordId, String>,
    delivering: BTreeSet<RecordId>,
    delivered: BTreeSet<RecordId>,
    failed: usize,
}

impl Ledger {
    fn note(&mut self, said: Said) {
        match said {
            Said::Stored(id, digest) => {
                self.stored.insert(id, digest);
            }
            Said::Delivering(id) => {
                self.delivering.insert(id);
            }
            Said::Delivered(id) => {
                self.delivered.insert(id);
            }
            Said::Failed(_) => self.failed += 1,
        }
    }

    /// Opens the spool and holds it to all that was said; how many records wait.
    async fn verify(&self, directory: &Path) -> usize {
        let spool = open(&config(), directory).unwrap();
        let count = spool.depth().iter().map(|(_, depth)| depth.records).sum::<u64>();
        let mut found = BTreeSet::new();
        let mut bytes = 0;
        for _ in 0..count {
            let entry = next(&spool).await;
            let message = within(spool.read(entry.id)).await.expect("no record is torn");
            assert!(found.insert(entry.id), "{} was handed over twice", entry.id);
            assert!(!self.delivered.contains(&entry.id), "{} was delivered before", entry.id);
            if let Some(digest) = self.stored.get(&entry.id) {
                assert_eq!(&digest_of(&message.body), digest, "{} is another", entry.id);
            }
            bytes += entry.size;
        }
        assert_eq!(spool.depth().iter().map(|(_, depth)| depth.bytes).sum::<u64>(), bytes);
        let lost: Vec<_> = self
            .stored
            .keys()
            .filter(|id| !found.contains(id) && !self.delivering.contains(id))
            .collect();
        assert!(lost.is_empty(), "{} of {} are lost: {lost:?}", lost.len(), self.stored.len());
        within(spool.close()).await.unwrap();
        found.len()
    }
}

fn rounds(reduced: usize, soak: usize) -> usize {
    if std::env::var_os("EXOGATE_SOAK").is_some() { soak } else { reduced }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_kills_at_any_moment() {
    let mut acknowledged = 0;
    let mut place = Temporary::new();
    let mut ledger = Ledger::default();
    for round in 0..rounds(25, 1_000) {
        let mut worker = Worker::start(&place.spool(), &[], None);
        // Sometimes in its first steps, sometimes in the middle of its work.
        let random = uuid::Uuid::new_v4().as_u128();
        let after = usize::try_from(random % 400).unwrap();
        if random.is_multiple_of(10) {
            std::thread::sleep(Duration::from_micros(u64::try_from(random % 30_000).unwrap()));
        } else {
            worker.by_ref().take(after).for_each(|said| ledger.note(said));
        }
        worker.kill();
        worker.by_ref().for_each(|said| ledger.note(said));
        drop(worker);
        let found = ledger.verify(&place.spool()).await;
        // A spool that grows for ever would test its own size.
        if found > 5_000 || round % 50 == 49 {
            acknowledged += ledger.stored.len();
            (place, ledger) = (Temporary::new(), Ledger::default());
        }
    }
    acknowledged += ledger.stored.len();
    assert!(acknowledged > 500, "only {acknowledged} were acknowledged");
    println!("{acknowledged} acknowledged, none lost");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_syncs_that_fail() {
    let mut failed = 0;
    for round in 0..rounds(3, 60) {
        let place = Temporary::new();
        // strace counts in each thread. The first round fails while the database is
        // made, the others in the thread that writes, and with pauses.
        let first = if round == 0 { 1 } else { 25 + round * 7 };
        let (last, step) = (first + 40, 1 + round % 3);
        let faults = format!("inject=fdatasync,fsync:error=EIO:when={first}..{last}+{step}");
        let trace = place.0.path().join("trace");
        let strace =
            ["strace", "-f", "-qq", "-o", trace.to_str().unwrap(), "-e", "trace=fdatasync,fsync"];
        let strace: Vec<&str> = strace.into_iter().chain(["-e", &faults]).collect();
        let mut ledger = Ledger::default();
        let mut worker = Worker::start(&place.spool(), &strace, Some(200));
        worker.by_ref().for_each(|said| ledger.note(said));
        let went_on = worker.wait();
        let trace = std::fs::read_to_string(trace).expect("strace is installed and may trace");
        assert!(trace.contains("(INJECTED)"), "no fault was injected:\n{trace}");
        if round == 0 {
            assert!(!went_on && ledger.stored.is_empty(), "it works on a disk that does not");
        } else {
            assert!(went_on, "it did not go on when the fault was over");
            assert!(ledger.stored.len() >= 200);
        }
        failed += ledger.failed;
        ledger.verify(&place.spool()).await;
    }
    // Those that hit no commit but the carrying over of the log fail nobody.
    assert!(failed > 0, "nobody noticed");
}

const DISK: &str = "EXOGATE_SPOOL_SMALL_DISK";

#[test]
fn a_full_disk_refuses_delivers_and_recovers() {
    let place = Temporary::new();
    let binary = std::env::current_exe().unwrap();
    let output = Command::new("unshare")
        .args(["--mount", "--map-root-user", "sh", "-c"])
        .arg("mount -t tmpfs -o size=160m tmpfs \"$0\" && exec \"$@\"")
        .arg(place.0.path())
        .arg(binary)
        .args(["--exact", "--nocapture", "relay::spool::disk::tests::faults::on_a_small_disk"])
        .env(DISK, place.0.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("was full"), "{said}");
}

/// Appends until there is no room on the disk; what was stored.
async fn fill(spool: &DiskSpool) -> Vec<RecordId> {
    let mut stored = Vec::new();
    loop {
        match within(spool.append(record(vec![7; 200_000]))).await {
            Ok(Appended::Stored(id)) => stored.push(id),
            Err(Error::Full(problem)) => {
                assert!(problem.contains("disk"), "{problem}");
                return stored;
            }
            other => panic!("{other:?}"),
        }
    }
}

async fn deliver_all(spool: &DiskSpool, ids: &[RecordId]) {
    for id in ids {
        let entry = next(spool).await;
        assert_eq!(entry.id, *id);
        assert_eq!(within(spool.read(*id)).await.unwrap().body.len(), 200_000);
        within(spool.delivered(&entry)).await.unwrap();
    }
}

/// In a run of its own it has nothing to do: the test above starts it.
#[tokio::test]
async fn on_a_small_disk() {
    let Some(disk) = std::env::var_os(DISK) else { return };
    let disk = Path::new(&disk);
    let open = |reserve, name: &str| {
        let metrics = Metrics::register(&Registry::new()).unwrap();
        let config = config::Spool::default();
        DiskSpool::open_leaving(reserve, &config, &disk.join(name), metrics).unwrap()
    };
    // With a reserve there is room to deliver all of it, and then to accept again.
    let spool = open(RESERVE, "reserved");
    for _ in 0..2 {
        let stored = fill(&spool).await;
        assert!(stored.len() > 50, "only {} were stored", stored.len());
        deliver_all(&spool, &stored).await;
    }
    within(spool.close()).await.unwrap();
    std::fs::remove_dir_all(disk.join("reserved")).unwrap();

    // Without one, and with somebody else's file on the same disk.
    let foreign = disk.join("foreign");
    std::fs::write(&foreign, vec![0; 100 << 20]).unwrap();
    let spool = open(0, "bare");
    let mut stored = fill(&spool).await;
    assert!(stored.len() > 50, "only {} were stored", stored.len());
    let (_, depth) = spool.depth().pop().unwrap();
    assert_eq!(depth.records, u64::try_from(stored.len()).unwrap());
    println!("{} was full after {} records", disk.display(), stored.len());
    std::fs::remove_file(foreign).unwrap();
    for _ in 0..20 {
        stored.push(append(&spool, record(vec![7; 200_000])).await);
    }
    drop(spool);
    let spool = open(0, "bare");
    deliver_all(&spool, &stored).await;
    within(spool.close()).await.unwrap();
}
