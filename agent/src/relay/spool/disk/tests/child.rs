//! A process that works with a spool until it is killed: this test binary, started
//! again for one test.

use std::{
    io::{BufRead, BufReader, Write},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
};

use aws_lc_rs::digest;
use uuid::Uuid;

use super::*;
use crate::relay::spool::RecordId;

/// The spool's directory. Without it the test below has nothing to do.
const DIRECTORY: &str = "EXOGATE_SPOOL_CHILD";
/// After how many appends beyond the last failure it ends by itself.
const GOAL: &str = "EXOGATE_SPOOL_CHILD_GOAL";
/// After how many it ends although nothing failed.
const ENOUGH: usize = 10_000;

/// What a child said that it did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// This was stored, and the body has this digest.
    Stored(RecordId, String),
    /// This is about to be delivered.
    Delivering(RecordId),
    /// This was delivered.
    Delivered(RecordId),
    /// Something failed.
    Failed(String),
}

/// A child at work.
pub(super) struct Worker {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Worker {
    /// Starts one. `before` is put before its command, such as a tracer.
    pub(super) fn start(directory: &Path, before: &[&str], goal: Option<usize>) -> Self {
        let binary = std::env::current_exe().unwrap();
        let mut words = before.iter().map(PathBuf::from).chain([binary]);
        let mut command = Command::new(words.next().unwrap());
        command.args(words).args(["--exact", "--nocapture", "--test-threads=1"]);
        command.arg("relay::spool::disk::tests::child::works_until_it_is_killed");
        command.env(DIRECTORY, directory).stdout(Stdio::piped());
        if let Some(goal) = goal {
            command.env(GOAL, goal.to_string());
        }
        let mut child = command.spawn().expect("the child starts");
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// Kills it, without any warning.
    pub(super) fn kill(&mut self) {
        self.child.kill().unwrap();
    }

    /// Waits until it has ended by itself; whether it was content.
    pub(super) fn wait(mut self) -> bool {
        self.child.wait().unwrap().success()
    }
}

impl Iterator for Worker {
    type Item = Said;

    /// What it says next, until it has ended. What it did not say to the end does
    /// not count.
    fn next(&mut self) -> Option<Said> {
        loop {
            let line = self.lines.next()?.unwrap();
            let Some(line) = line.strip_prefix("said ").and_then(|line| line.strip_suffix('.'))
            else {
                continue;
            };
            let (word, rest) = line.split_once(' ').unwrap();
            return Some(match word {
                "stored" => {
                    let (id, digest) = rest.split_once(' ').unwrap();
                    Said::Stored(id.parse().unwrap(), digest.to_owned())
                }
                "delivering" => Said::Delivering(rest.parse().unwrap()),
                "delivered" => Said::Delivered(rest.parse().unwrap()),
                "failed" => Said::Failed(rest.to_owned()),
                other => panic!("the child said {other:?}"),
            });
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A digest of a body, to compare.
pub(super) fn digest_of(body: &[u8]) -> String {
    let digest = digest::digest(&digest::SHA256, body);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A body that nobody else has, of up to 8 KiB.
pub(super) fn some_body() -> Vec<u8> {
    let seed = Uuid::new_v4();
    let length = usize::from(seed.as_bytes()[0]) * usize::from(seed.as_bytes()[1] % 32);
    seed.as_bytes().iter().copied().cycle().take(16 + length).collect()
}

fn say(line: &str) {
    // Written at once, so that a kill leaves no half of a line that looks whole.
    std::io::stdout().write_all(format!("\nsaid {line}.\n").as_bytes()).unwrap();
}

/// Sixteen threads append, and one delivers half of it. In a run of its own it has
/// nothing to do: the tests of crashes start it.
#[test]
fn works_until_it_is_killed() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    let goal: Option<usize> = std::env::var(GOAL).ok().map(|goal| goal.parse().unwrap());
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let spool = open(&config(), Path::new(&directory)).unwrap();
    // Appends since the last failure.
    let well = AtomicUsize::new(0);
    let failed = AtomicUsize::new(0);
    let reached = || {
        let (well, failed) = (well.load(Ordering::SeqCst), failed.load(Ordering::SeqCst));
        goal.is_some_and(|goal| well >= if failed == 0 { ENOUGH } else { goal })
    };
    let fail = |error: &Error| {
        say(&format!("failed {}", error.name()));
        failed.fetch_add(1, Ordering::SeqCst);
        well.store(0, Ordering::SeqCst);
    };
    std::thread::scope(|threads| {
        for _ in 0..16 {
            threads.spawn(|| {
                while !reached() {
                    let body = some_body();
                    let digest = digest_of(&body);
                    match runtime.block_on(spool.append(record(body))) {
                        Ok(Appended::Stored(id)) => {
                            say(&format!("stored {id} {digest}"));
                            well.fetch_add(1, Ordering::SeqCst);
                        }
                        Err(error) => fail(&error),
                        other => panic!("{other:?}"),
                    }
                }
            });
        }
        threads.spawn(|| {
            while !reached() {
                let entry = match runtime.block_on(spool.next()) {
                    Ok(entry) if entry.sequence % 2 == 0 => entry,
                    Ok(_) => continue,
                    Err(error) => {
                        fail(&error);
                        continue;
                    }
                };
                say(&format!("delivering {}", entry.id));
                match runtime.block_on(spool.delivered(&entry)) {
                    Ok(()) => say(&format!("delivered {}", entry.id)),
                    Err(error) => fail(&error),
                }
            }
        });
    });
    // As after a kill, nothing is put in order.
    std::process::exit(0);
}
