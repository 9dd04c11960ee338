//! What the fuzz targets have in common.
//!
//! A target is one file in `src/bin`. It states what must hold whatever the bytes
//! are, and its header names the directories, from the root of the repository, whose
//! files it starts from (`Seeds:`). `cargo xtask fuzz TARGET` builds and runs it, and
//! `cargo xtask test` runs all of them for a few seconds each.
//!
//! "No panic" is what the fuzzer sees by itself. What else must hold is asserted here
//! and in the targets, independently of the code that is tested: limits hold,
//! messages are fit for a log, nothing gets onto the list that cannot be right, and
//! what is refused leaves the list as it was.

use std::{collections::BTreeMap, fs, net::IpAddr, path::Path, sync::Arc};

use exogate::{
    allowlist::{AllowList, Import, Keeper, Unpublished},
    config::Config,
    source::{feed::FeedId, microsoft365::MAX_PREFIXES},
};
use ipnet::{IpNet, Ipv6Net};
use prometheus::Registry;
use tempfile::TempDir;

/// Longest message that quotes what was read.
const LONGEST_MESSAGE: usize = 10_000;

/// An agent's list, of which one feed is given content by hand.
pub struct Fed {
    directory: TempDir,
    config: Arc<Config>,
    feed: FeedId,
    keeper: Keeper,
}

impl Fed {
    /// A list by this configuration, as on a host that starts for the first time.
    #[must_use]
    pub fn new(config: &str, feed: FeedId) -> Self {
        let directory = directory();
        let config = Config::parse("fuzz".as_ref(), config).unwrap();
        let config = Config { state_directory: directory.path().to_owned(), ..config };
        let config = Arc::new(config);
        let keeper = open(&config);
        Self { directory, config, feed, keeper }
    }

    /// Gives the feed this content, as an operator does who trusts it and as one who
    /// does not. Returns the list that came of it where it was taken.
    pub fn take(&mut self, body: &[u8]) -> Option<Arc<AllowList>> {
        let before = self.keeper.list();
        let mut taken = None;
        for accept in [false, true] {
            let import =
                Import { feed: self.feed.clone(), body: body.to_vec(), version: None, accept };
            let outcome = self.keeper.import(&import, &mut Unpublished);
            let after = self.keeper.list();
            match outcome {
                Err(message) => {
                    assert_eq!(before.hash(), after.hash(), "refused, and the list is another");
                    assert_message(&message);
                }
                Ok(()) => {
                    assert_believable(&before, &after);
                    taken = Some(after);
                    self.start_over();
                }
            }
        }
        taken
    }

    fn start_over(&mut self) {
        for file in ["state.json", "history.jsonl"] {
            drop(fs::remove_file(self.directory.path().join(file)));
        }
        self.keeper = open(&self.config);
    }
}

/// A directory in memory, where there is one: it is written to very often.
#[must_use]
pub fn directory() -> TempDir {
    let memory = Path::new("/dev/shm");
    tempfile::tempdir_in(memory).or_else(|_| tempfile::tempdir()).unwrap()
}

/// Opens a keeper, as the agent does when it starts.
#[must_use]
pub fn open(config: &Arc<Config>) -> Keeper {
    Keeper::open(Arc::clone(config), &Registry::new()).unwrap()
}

/// A message goes into a log and onto terminals: it is bounded, and it has no control
/// characters.
pub fn assert_message(message: &str) {
    assert!((1..=LONGEST_MESSAGE).contains(&message.len()), "{}", message.len());
    assert!(!message.chars().any(|c| c.is_control() && c != '\n'), "{message:?}");
}

/// One answer cannot bring what is not of the public internet, and, because of the grace
/// period, not take away anything that is in force.
fn assert_believable(before: &AllowList, after: &AllowList) {
    let held: BTreeMap<_, _> =
        before.sources().iter().map(|source| (source.name.as_str(), &source.entries)).collect();
    for source in after.sources() {
        assert!(source.entries.len() <= 2 * MAX_PREFIXES, "{}", source.entries.len());
        let prefixes: Vec<IpNet> = source.entries.iter().map(|entry| entry.prefix).collect();
        for prefix in &prefixes {
            assert!(is_believable(*prefix), "{prefix} got onto the list");
        }
        let covered = IpNet::aggregate(&prefixes);
        for entry in held.get(source.name.as_str()).into_iter().copied().flatten() {
            let prefix = entry.prefix;
            assert!(covered.iter().any(|net| net.contains(&prefix)), "{prefix} is gone at once");
        }
    }
}

/// Whether a prefix can be published, by the registries of IANA and by the widest ones
/// that ever were.
#[must_use]
pub fn is_believable(prefix: IpNet) -> bool {
    if prefix.trunc() != prefix {
        return false;
    }
    match (prefix.network(), prefix.broadcast()) {
        (IpAddr::V4(first), IpAddr::V4(last)) => {
            prefix.prefix_len() >= 11
                && [first, last].iter().all(|address| {
                    let [a, b, ..] = address.octets();
                    !(address.is_private()
                        || address.is_loopback()
                        || address.is_link_local()
                        || address.is_documentation()
                        || a == 0
                        || a >= 224
                        || (a, b & 0xc0) == (100, 64)
                        || (a, b & 0xfe) == (198, 18))
                })
        }
        _ => {
            let global: Ipv6Net = "2000::/3".parse().unwrap();
            let documentation: Ipv6Net = "2001:db8::/32".parse().unwrap();
            prefix.prefix_len() >= 28
                && IpNet::from(global).contains(&prefix)
                && !IpNet::from(documentation).contains(&prefix)
        }
    }
}
