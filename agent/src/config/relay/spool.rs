//! `[spool]`.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;

use super::{
    super::value::{self, Size},
    Certificate,
};

/// Where notifications wait, and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spool {
    /// What keeps them.
    pub store: Store,
    /// Bytes of bodies that may wait, dead letters included; beyond that nothing
    /// is accepted.
    pub max_bytes: u64,
    /// How long delivery is tried.
    pub retry_for: Duration,
    /// How long dead letters are kept, and what duplicates are known by.
    pub keep_for: Duration,
    /// File with the key that what is stored is encrypted with.
    pub key_file: Option<PathBuf>,
}

impl Default for Spool {
    fn default() -> Self {
        Self {
            store: Store::Disk(PathBuf::from("/var/lib/exogate/spool")),
            max_bytes: 1 << 30,
            retry_for: Duration::from_secs(24 * 3600),
            keep_for: Duration::from_secs(72 * 3600),
            key_file: None,
        }
    }
}

/// What keeps notifications.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Store {
    /// A database in this directory.
    Disk(PathBuf),
    /// Servers that several edge hosts share.
    Jetstream(Jetstream),
}

/// A NATS JetStream cluster.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Jetstream {
    /// `nats://host:port` or `tls://host:port`.
    pub servers: Vec<String>,
    /// Prefix of the streams and buckets.
    #[serde(default = "prefix")]
    pub prefix: String,
    /// Servers that keep a copy of each record.
    #[serde(default = "replicas")]
    pub replicas: usize,
    /// File with NATS credentials.
    pub credentials_file: Option<PathBuf>,
    /// PEM file with the only certificates to trust.
    pub ca_file: Option<PathBuf>,
    /// What is shown to the servers.
    pub client_certificate: Option<Certificate>,
}

fn prefix() -> String {
    "exogate".to_owned()
}

const fn replicas() -> usize {
    3
}

/// `[spool]` as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct RawSpool {
    /// Directory of the database; `spool` in the state directory if not given.
    directory: Option<PathBuf>,
    /// A NATS JetStream cluster instead.
    jetstream: Option<Jetstream>,
    /// Bytes that may wait.
    max_size: Option<Size>,
    /// How long delivery is tried.
    #[serde(deserialize_with = "value::some_duration")]
    retry_for: Option<Duration>,
    /// How long dead letters are kept.
    #[serde(deserialize_with = "value::some_duration")]
    keep_for: Option<Duration>,
    /// File with the key of what is stored: 64 hexadecimal digits.
    key_file: Option<PathBuf>,
}

impl RawSpool {
    pub(super) fn define(&self, state_directory: &Path) -> Result<Spool, String> {
        let defaults = Spool::default();
        let store = match (&self.directory, &self.jetstream) {
            (Some(_), Some(_)) => {
                return Err("a spool has either a directory or jetstream".to_owned());
            }
            (Some(directory), None) if !directory.is_absolute() => {
                return Err("the directory of the spool must be an absolute path".to_owned());
            }
            (Some(directory), None) => Store::Disk(directory.clone()),
            (None, Some(jetstream)) => Store::Jetstream(check(jetstream)?),
            (None, None) => Store::Disk(state_directory.join("spool")),
        };
        let max_bytes = match self.max_size {
            None => defaults.max_bytes,
            Some(Size(size)) if size >= 1 << 20 => u64::try_from(size).unwrap_or(u64::MAX),
            Some(_) => return Err("max_size must be at least \"1MiB\"".to_owned()),
        };
        let span = |given: Option<Duration>, default: Duration, name: &str| match given {
            None => Ok(default),
            Some(given) if (60..=30 * 86_400).contains(&given.as_secs()) => Ok(given),
            Some(_) => Err(format!("{name} must be \"1m\" to \"30d\"")),
        };
        Ok(Spool {
            store,
            max_bytes,
            retry_for: span(self.retry_for, defaults.retry_for, "retry_for")?,
            keep_for: span(self.keep_for, defaults.keep_for, "keep_for")?,
            key_file: self.key_file.clone(),
        })
    }
}

fn check(jetstream: &Jetstream) -> Result<Jetstream, String> {
    let is_server = |text: &String| text.starts_with("nats://") || text.starts_with("tls://");
    if jetstream.servers.is_empty() || !jetstream.servers.iter().all(is_server) {
        return Err("jetstream needs servers = [\"nats://host:4222\"] or tls://".to_owned());
    }
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if jetstream.prefix.is_empty() || !jetstream.prefix.chars().all(is_word) {
        return Err("the prefix of jetstream has letters, digits, - and _ only".to_owned());
    }
    if !(1..=5).contains(&jetstream.replicas) {
        return Err("replicas must be 1 to 5; 3 survive the loss of one server".to_owned());
    }
    Ok(jetstream.clone())
}
