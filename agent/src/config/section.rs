//! The sections of a configuration file that need no more than themselves.
//!
//! Each field is documented here and nowhere else; `deploy/exogate.example.toml`
//! shows them all, and a test keeps it in step.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use exogate_ebpf::compile;
use serde::{Deserialize, Serialize};

use super::value::{self, Destinations};
use crate::{
    gate::Attach,
    source::{fetch, microsoft365},
    telemetry::LogFormat,
};

/// What happens to refused packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// They are counted and reported, and pass.
    #[default]
    Monitor,
    /// They are dropped.
    Enforce,
}

impl Mode {
    /// The name in configuration, metrics, CLI and documentation.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Monitor => "monitor",
            Self::Enforce => "enforce",
        }
    }
}

/// What becomes of the right to attach once every interface is filtered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Privileges {
    /// It is given up.
    #[default]
    Drop,
    /// It stays with one thread, for interfaces that come and go.
    Keep,
}

/// What becomes of the filter when the agent stops.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnStop {
    /// It stays in force.
    #[default]
    Keep,
    /// It is removed.
    Detach,
}

/// A protocol with ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP, for QUIC.
    Udp,
}

impl Protocol {
    /// The name in configuration, metrics, CLI and documentation.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

impl From<Protocol> for compile::Protocol {
    fn from(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Tcp => Self::Tcp,
            Protocol::Udp => Self::Udp,
        }
    }
}

/// The filter: `[gate]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Gate {
    /// `auto`, `native` or `generic`.
    pub attach: Attach,
    /// `keep` or `detach`.
    pub on_stop: OnStop,
    /// Prefixes that the tables have room for. Within it no update needs a new
    /// map. At most 4,000,000; one prefix takes about 260 bytes of kernel
    /// memory on each interface.
    pub capacity: u32,
    /// `any`, `local`, or a list of prefixes. With IP forwarding on, enforcing
    /// needs one of them, because transit traffic may be meant, or not.
    pub destinations: Option<Destinations>,
    /// Directory on the BPF file system that holds program, link and maps.
    pub pin_directory: PathBuf,
}

impl Default for Gate {
    fn default() -> Self {
        Self {
            attach: Attach::default(),
            on_stop: OnStop::default(),
            capacity: 65_536,
            destinations: None,
            pin_directory: "/sys/fs/bpf/exogate".into(),
        }
    }
}

/// How the web service is followed: `[feed]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Feed {
    /// Where the service is. Only https.
    #[serde(deserialize_with = "value::base_url")]
    pub base_url: String,
    /// PEM file with the only certificates to trust for it, instead of the
    /// system's.
    pub ca_file: Option<PathBuf>,
    /// HTTP proxy to reach it through: `http://[user:password@]host:port`.
    pub proxy: Option<fetch::Proxy>,
    /// Time between polls, give or take 10 %. Microsoft asks for an hour at
    /// least; another `base_url` may be polled more often.
    #[serde(deserialize_with = "value::duration")]
    pub interval: Duration,
    /// Limit for one whole request, 1 s to 5 min.
    #[serde(deserialize_with = "value::duration")]
    pub timeout: Duration,
    /// The first poll comes at a random moment within this time, so that hosts
    /// that start together do not ask together. At most 1 h.
    #[serde(deserialize_with = "value::duration")]
    pub first_poll_within: Duration,
    /// How long a prefix stays that is no longer published. At most 30 d.
    #[serde(deserialize_with = "value::duration")]
    pub removal_grace: Duration,
    /// And how many successful polls it stays after the one that missed it.
    pub removal_polls: u32,
}

impl Default for Feed {
    fn default() -> Self {
        Self {
            base_url: microsoft365::BASE_URL.to_owned(),
            ca_file: None,
            proxy: None,
            interval: Duration::from_secs(3600),
            timeout: Duration::from_secs(20),
            first_poll_within: Duration::from_secs(60),
            removal_grace: Duration::from_secs(24 * 3600),
            removal_polls: 2,
        }
    }
}

impl Feed {
    /// How the service is reached.
    #[must_use]
    pub fn fetch_options(&self) -> fetch::Options {
        fetch::Options {
            ca_file: self.ca_file.clone(),
            proxy: self.proxy.clone(),
            timeout: self.timeout,
        }
    }

    /// The name of a field that is beyond its limits, and a sentence.
    pub(super) fn fault(&self) -> Option<(&'static str, String)> {
        let seconds = Duration::from_secs;
        let shortest = if self.base_url == microsoft365::BASE_URL { 3600 } else { 1 };
        if self.interval < seconds(shortest) {
            let message = if shortest == 1 {
                "interval must be at least 1s".to_owned()
            } else {
                format!("interval must be at least 1h for {}", microsoft365::BASE_URL)
            };
            return Some(("interval", message));
        }
        for (name, value, least, most, range) in [
            ("interval", self.interval, 1, 7 * 86_400, "at most 7d"),
            ("timeout", self.timeout, 1, 300, "1s to 5m"),
            ("first_poll_within", self.first_poll_within, 0, 3600, "0s to 1h"),
            ("removal_grace", self.removal_grace, 0, 30 * 86_400, "0s to 30d"),
        ] {
            if value < seconds(least) || value > seconds(most) {
                return Some((name, format!("{name} must be {range}")));
            }
        }
        (self.removal_polls > 1000)
            .then(|| ("removal_polls", "removal_polls must be 0 to 1000".to_owned()))
    }
}

/// For people, Prometheus and the command line: `[admin]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Admin {
    /// Address of the metrics and health endpoints. They have no access control.
    pub listen: SocketAddr,
    /// Control socket, for `exogate status` and its like.
    pub socket: PathBuf,
    /// Group whose members may use the control socket, beside root and the agent's
    /// user, which has to be in it.
    pub group: Option<String>,
    /// Whether `listen` also answers `/export`, for other agents and firewalls.
    pub export: bool,
}

impl Default for Admin {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 9469)),
            socket: "/run/exogate/control.sock".into(),
            group: None,
            export: false,
        }
    }
}

/// What is logged, to standard error: `[log]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// `text` or `json`.
    pub format: LogFormat,
    /// `error`, `warn`, `info`, `debug` or `trace`.
    pub level: LogLevel,
}

/// The least severe level that is logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// What needs an operator.
    Error,
    /// What may need one.
    Warn,
    /// Changes of state.
    #[default]
    Info,
    /// Every poll.
    Debug,
    /// Everything.
    Trace,
}

impl LogLevel {
    /// The name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}
