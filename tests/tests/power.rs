//! The power fails while records are stored, on a machine of its own. What was
//! acknowledged before is found again, whole.
//!
//! Needs root, qemu, and the kernel that `cargo xtask setup` unpacks. Twice, or a
//! hundred times if `EXOGATE_SOAK` is set.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{BuildHasher, RandomState},
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use exogate::{
    config,
    relay::spool::{RecordId, Spool, disk::DiskSpool, metrics::Metrics},
};
use exogate_tests::{
    guest::{Disk, Guest, Kernel, MOUNT_POINT},
    spooled,
};

/// A guest without acceleration on a busy machine takes its time.
const PATIENCE: Duration = Duration::from_secs(180);
/// A disk is used for so many cuts.
const CUTS_PER_DISK: usize = 10;

/// What has to be found.
#[derive(Default)]
struct Ledger {
    stored: BTreeMap<RecordId, String>,
    delivering: BTreeSet<RecordId>,
    delivered: BTreeSet<RecordId>,
}

impl Ledger {
    fn note(&mut self, line: &str) -> Result<()> {
        let id = |text: &str| text.parse::<RecordId>().map_err(anyhow::Error::msg);
        let words: Vec<_> = line.split(' ').collect();
        match words.as_slice() {
            ["ack", record, digest, "."] => {
                self.stored.insert(id(record)?, (*digest).to_owned());
            }
            ["delivering", record, "."] => {
                self.delivering.insert(id(record)?);
            }
            ["delivered", record, "."] => {
                self.delivered.insert(id(record)?);
            }
            // The kernel's lines, and halves of lines.
            _ => {}
        }
        Ok(())
    }

    /// Opens the spool and holds it to what was said.
    async fn verify(&self, directory: &Path) -> Result<()> {
        let metrics = Metrics::register(&prometheus::Registry::new())?;
        let spool = DiskSpool::open(&config::Spool::default(), directory, metrics)?;
        for file in std::fs::read_dir(directory)? {
            let name = file?.file_name();
            ensure!(!name.to_string_lossy().contains("damaged"), "the database was damaged");
        }
        let count: u64 = spool.depth().iter().map(|(_, depth)| depth.records).sum();
        let mut found = BTreeSet::new();
        for _ in 0..count {
            let entry = spool.next().await?;
            let message = spool.read(entry.id).await.context("a torn record")?;
            ensure!(!self.delivered.contains(&entry.id), "{} was delivered", entry.id);
            if let Some(digest) = self.stored.get(&entry.id) {
                ensure!(spooled::digest(&message.body) == *digest, "{} is another", entry.id);
            }
            ensure!(found.insert(entry.id), "{} came twice", entry.id);
        }
        let is_lost = |id: &&RecordId| !found.contains(id) && !self.delivering.contains(id);
        let lost: Vec<_> = self.stored.keys().filter(is_lost).collect();
        ensure!(lost.is_empty(), "{} of {} are lost", lost.len(), self.stored.len());
        spool.close().await?;
        Ok(())
    }
}

#[tokio::test]
async fn what_was_acknowledged_survives_power_cuts() -> Result<()> {
    let cuts = if std::env::var_os("EXOGATE_SOAK").is_some() { 100 } else { 2 };
    let kernel = Kernel::of_package("linux-image-amd64")?;
    let program = Path::new(env!("CARGO_BIN_EXE_exogate-spool-guest"));
    let directory = format!("{MOUNT_POINT}/spool");
    let scratch = tempfile::tempdir()?;
    let image = scratch.path().join("disk");
    let (mut disk, mut ledger, mut acknowledged) = (None, Ledger::default(), 0);
    for cut in 0..cuts {
        if cut % CUTS_PER_DISK == 0 {
            disk = Some(Disk::make(&image, 512)?);
            acknowledged += ledger.stored.len();
            ledger = Ledger::default();
        }
        let Some(disk) = &disk else { unreachable!("it was just made") };
        let mut guest = Guest::start(&kernel, disk, program, &[&directory, "8"], scratch.path())?;
        guest.wait_for("ready", PATIENCE)?;
        let random = RandomState::new().hash_one(cut);
        for _ in 0..200 + random % 800 {
            let line = guest.line(PATIENCE)?.context("the guest ended by itself")?;
            ledger.note(&line)?;
        }
        // Not at the end of a line either.
        tokio::time::sleep(Duration::from_micros(random % 20_000)).await;
        guest.cut()?;
        while let Some(line) = guest.line(PATIENCE)? {
            ledger.note(&line)?;
        }
        let mounted = disk.mount(&scratch.path().join("mounted"))?;
        let verified = ledger.verify(&scratch.path().join("mounted/spool")).await;
        drop(mounted);
        verified.with_context(|| format!("after cut {}", cut + 1))?;
    }
    acknowledged += ledger.stored.len();
    ensure!(acknowledged > 100, "only {acknowledged} were acknowledged");
    println!("{acknowledged} acknowledged before {cuts} cuts, none lost");
    Ok(())
}
