//! The configuration: TOML to validated types.
//!
//! No file is needed; [`Config::default`] watches port 443 for the sources of
//! Exchange Online and Graph. What a file says is checked before anything is
//! opened or attached: values while they are read (`value`), and what concerns
//! several of them in [`Config::parse`]. An [`Error`] names file, line, key and
//! what is allowed. Unknown keys are errors, because a misspelt key that is
//! ignored is a filter that does something else than its operator thinks.

mod error;
mod interface;
mod relay;
mod section;
mod source;
mod value;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use exogate_ebpf::table::MAX_SOURCES;
use serde::Deserialize;
use toml::Spanned;

pub(crate) use self::source::{UNDECLARED, undeclared};
pub use self::{
    error::Error,
    interface::InterfacePattern,
    relay::{
        Balance, BasicCredentials, Breaker, Certificate, ClientCertificates, Delivery, Ews,
        General, Graph, Handshake, HealthCheck, Jetstream, Limits, Listener, ListenerAddress,
        Maintenance, Passthrough, PathRule, Proxy, QuerySecret, Relay, Route, RouteKind, Spool,
        Store, TlsVersion, Tokens, Upstream,
    },
    section::{Admin, Feed, Gate, Log, LogLevel, Mode, OnStop, Privileges, Protocol},
    source::{Source, TEMPORARY},
    value::{Destinations, parse_duration},
};
use self::{
    error::Fault,
    relay::{RawListener, RawPassthrough, RawRoute, RawSpool, RawUpstream},
    source::{RawSource, check_name},
    value::Port,
};
use crate::source::{feed::FeedId, microsoft365::Instance};

/// Sources that a configuration may use: one bit each in the kernel's tables,
/// less one for temporary entries.
pub const MAX_CONFIGURED_SOURCES: usize = MAX_SOURCES as usize - 1;

/// The bit of temporary entries in the masks of sources.
pub const TEMPORARY_SOURCE: u32 = 1 << (MAX_SOURCES - 1);

/// All that exogate can be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// What happens to refused packets.
    pub mode: Mode,
    /// The interfaces to filter on.
    pub interfaces: Vec<InterfacePattern>,
    /// What becomes of the right to attach once every interface is filtered.
    pub privileges: Privileges,
    /// What is remembered between runs.
    pub state_directory: PathBuf,
    /// The filter.
    pub gate: Gate,
    /// The guarded ports.
    pub guards: Vec<Guard>,
    /// The sources that the guards accept; the place of a source is its bit.
    pub sources: Vec<Source>,
    /// How the web service is followed.
    pub feed: Feed,
    /// For people, Prometheus and the command line.
    pub admin: Admin,
    /// What is logged.
    pub log: Log,
    /// What receives, stores and passes on.
    pub relay: Relay,
}

/// Guarded ports and the sources that they accept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guard {
    /// Destination ports.
    pub ports: Vec<u16>,
    /// Protocols.
    pub protocols: Vec<Protocol>,
    /// The accepted sources, as places in [`Config::sources`].
    pub sources: Vec<usize>,
}

impl Guard {
    /// The accepted sources, as the mask of the kernel's tables, without that of
    /// temporary entries.
    #[must_use]
    pub fn mask(&self) -> u32 {
        self.sources.iter().fold(0, |mask, index| {
            mask | u32::try_from(*index).ok().and_then(|bit| 1u32.checked_shl(bit)).unwrap_or(0)
        })
    }
}

impl Default for Config {
    fn default() -> Self {
        let file = File::default();
        // The defaults name ready-made sources only; a test holds them to it.
        let (guards, sources) = resolve(&file).unwrap_or_default();
        let relay = file.relay(&guards).unwrap_or_default();
        Self::new(file, guards, sources, relay)
    }
}

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub fn load(path: &Path) -> Result<Self, Error> {
        let text = fs::read_to_string(path)
            .map_err(|source| Error::Read { path: path.to_owned(), source })?;
        Self::parse(path, &text)
    }

    /// Reads the text of a file; `path` is for messages only.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub fn parse(path: &Path, text: &str) -> Result<Self, Error> {
        let file: File =
            toml::from_str(text).map_err(|error| Fault::of(&error).within(path, text))?;
        file.check(text).map_err(|fault| fault.within(path, text))?;
        let (guards, sources) = resolve(&file).map_err(|fault| fault.within(path, text))?;
        let relay = file.relay(&guards).map_err(|fault| fault.within(path, text))?;
        Ok(Self::new(file, guards, sources, relay))
    }

    fn new(file: File, guards: Vec<Guard>, sources: Vec<Source>, relay: Relay) -> Self {
        Self {
            mode: file.mode,
            interfaces: file.interfaces,
            privileges: file.privileges,
            state_directory: file.state_directory,
            gate: file.gate,
            guards,
            sources,
            feed: file.feed,
            admin: file.admin,
            log: file.log,
            relay,
        }
    }

    /// The instances of the web service that the sources follow, each once.
    #[must_use]
    pub fn instances(&self) -> Vec<Instance> {
        let mut instances: Vec<_> =
            self.sources.iter().filter_map(|source| source.definition.instance()).collect();
        instances.sort();
        instances.dedup();
        instances
    }

    /// The feeds behind the sources, each once.
    #[must_use]
    pub fn feeds(&self) -> Vec<FeedId> {
        let mut feeds: Vec<_> =
            self.sources.iter().filter_map(|source| source.definition.feed(&source.name)).collect();
        feeds.sort();
        feeds.dedup();
        feeds
    }

    /// Whether a guard stands on a TCP port.
    #[must_use]
    pub fn guards_tcp(&self, port: u16) -> bool {
        let mut guards = self.guards.iter();
        guards.any(|guard| guard.protocols.contains(&Protocol::Tcp) && guard.ports.contains(&port))
    }

    /// Whether all that the relay takes are EWS notifications, and Exchange Online is
    /// who sends them. There, EWS ends on 2027-04-01.
    #[must_use]
    pub fn only_cloud_ews(&self) -> bool {
        let is_cloud = |source: &Source| source.definition.instance().is_some();
        let relay = &self.relay;
        relay.is_on()
            && !relay.routes.is_empty()
            && relay.routes.iter().all(|route| matches!(route.kind, RouteKind::Ews(_)))
            && self
                .guards
                .iter()
                .flat_map(|guard| &guard.sources)
                .filter_map(|&place| self.sources.get(place))
                .all(is_cloud)
    }

    /// The source that a feed belongs to alone, if it does.
    #[must_use]
    pub fn source_of(&self, feed: &FeedId) -> Option<&Source> {
        match feed {
            FeedId::Instance(_) => None,
            FeedId::Source(name) => self.sources.iter().find(|source| source.name == *name),
        }
    }
}

/// A configuration file as it is written.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct File {
    /// `monitor`: refused packets are counted and pass; `enforce`: they are
    /// dropped.
    mode: Mode,
    /// The interfaces to filter on; `--interface` adds to them.
    #[serde(deserialize_with = "interface::each_once")]
    interfaces: Vec<InterfacePattern>,
    /// `drop` or `keep`, when every interface is filtered.
    privileges: Privileges,
    /// The list last known to be good, and the identifier of this installation.
    state_directory: PathBuf,
    gate: Gate,
    guard: Vec<Spanned<RawGuard>>,
    source: BTreeMap<Spanned<String>, Spanned<RawSource>>,
    feed: Feed,
    admin: Admin,
    log: Log,
    listener: Vec<Spanned<RawListener>>,
    route: BTreeMap<Spanned<String>, Spanned<RawRoute>>,
    passthrough: BTreeMap<Spanned<String>, Spanned<RawPassthrough>>,
    upstream: BTreeMap<Spanned<String>, Spanned<RawUpstream>>,
    spool: Spanned<RawSpool>,
    relay: General,
}

/// `[[guard]]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawGuard {
    /// A destination port.
    port: Option<Port>,
    /// Or several.
    #[serde(default)]
    ports: Vec<Port>,
    /// `tcp`, `udp` or both.
    #[serde(default = "both_protocols")]
    protocols: Vec<Protocol>,
    /// Names of the accepted sources.
    sources: Vec<Spanned<String>>,
}

fn both_protocols() -> Vec<Protocol> {
    vec![Protocol::Tcp, Protocol::Udp]
}

impl Default for File {
    fn default() -> Self {
        let source = |name: &str| Spanned::new(0..0, name.to_owned());
        let guard = RawGuard {
            port: Some(Port(443)),
            ports: Vec::new(),
            protocols: both_protocols(),
            sources: vec![source("exchange-online"), source("graph-notifications")],
        };
        Self {
            mode: Mode::default(),
            interfaces: Vec::new(),
            privileges: Privileges::default(),
            state_directory: "/var/lib/exogate".into(),
            gate: Gate::default(),
            guard: vec![Spanned::new(0..0, guard)],
            source: BTreeMap::new(),
            feed: Feed::default(),
            admin: Admin::default(),
            log: Log::default(),
            listener: Vec::new(),
            route: BTreeMap::new(),
            passthrough: BTreeMap::new(),
            upstream: BTreeMap::new(),
            spool: Spanned::new(0..0, RawSpool::default()),
            relay: General::default(),
        }
    }
}

impl File {
    fn relay(&self, guards: &[Guard]) -> Result<Relay, Fault> {
        let tcp = guards.iter().filter(|guard| guard.protocols.contains(&Protocol::Tcp));
        let guarded: Vec<_> = tcp.flat_map(|guard| guard.ports.iter().copied()).collect();
        relay::resolve(&relay::Raw {
            listeners: &self.listener,
            routes: &self.route,
            passthroughs: &self.passthrough,
            upstreams: &self.upstream,
            spool: &self.spool,
            general: &self.relay,
            state_directory: &self.state_directory,
            guarded: &guarded,
        })
    }

    fn check(&self, text: &str) -> Result<(), Fault> {
        let at = |section: &str, key: &str| key_in(text, section, key);
        if !self.state_directory.is_absolute() {
            let message = "state_directory must be an absolute path";
            return Err(Fault::new(at("", "state_directory"), message));
        }
        if !(1..=4_000_000).contains(&self.gate.capacity) {
            return Err(Fault::new(at("gate", "capacity"), "capacity must be 1 to 4000000"));
        }
        if let Some((key, message)) = self.feed.fault() {
            return Err(Fault::new(at("feed", key), message));
        }
        Ok(())
    }
}

/// Where a key of a section stands, for a message about a value that was read.
fn key_in(text: &str, section: &str, key: &str) -> std::ops::Range<usize> {
    let find = || {
        let document = toml::de::DeTable::parse(text).ok()?;
        let key_of = |table: &toml::de::DeTable<'_>| {
            table.iter().find(|(name, _)| name.get_ref() == key).map(|(name, _)| name.span())
        };
        if section.is_empty() {
            return key_of(document.get_ref());
        }
        let (_, value) = document.get_ref().iter().find(|(name, _)| name.get_ref() == section)?;
        value.get_ref().as_table().and_then(key_of)
    };
    find().unwrap_or(0..0)
}

/// Turns names into places.
fn resolve(file: &File) -> Result<(Vec<Guard>, Vec<Source>), Fault> {
    for (name, source) in &file.source {
        check_name(name.get_ref()).map_err(|message| Fault::new(name.span(), message))?;
        source.get_ref().define().map_err(|message| Fault::new(name.span(), message))?;
    }
    let mut sources: Vec<Source> = Vec::new();
    let mut guards = Vec::new();
    let mut guarded = Vec::new();
    for raw in &file.guard {
        let span = raw.span();
        let raw = raw.get_ref();
        let ports: Vec<_> = raw.port.iter().chain(&raw.ports).map(|Port(port)| *port).collect();
        if ports.is_empty() || raw.protocols.is_empty() || raw.sources.is_empty() {
            let message = "a guard needs a port, a protocol and a source";
            return Err(Fault::new(span, message));
        }
        for port in &ports {
            for protocol in &raw.protocols {
                if guarded.contains(&(*port, *protocol)) {
                    let message = format!("port {port} is guarded twice for {protocol:?}");
                    return Err(Fault::new(span, message));
                }
                guarded.push((*port, *protocol));
            }
        }
        let mut places = Vec::new();
        for name in &raw.sources {
            places.push(place(name, file, &mut sources)?);
        }
        guards.push(Guard { ports, protocols: raw.protocols.clone(), sources: places });
    }
    Ok((guards, sources))
}

/// The place of a source, which is added if it is new.
fn place(name: &Spanned<String>, file: &File, sources: &mut Vec<Source>) -> Result<usize, Fault> {
    let fault = |message: String| Fault::new(name.span(), message);
    if let Some(place) = sources.iter().position(|source| source.name == *name.get_ref()) {
        return Ok(place);
    }
    let declared = file.source.iter().find(|(declared, _)| declared.get_ref() == name.get_ref());
    let (definition, protected) = match declared {
        Some((_, raw)) => (raw.get_ref().define().map_err(fault)?, raw.get_ref().is_protected()),
        None => {
            undeclared(name.get_ref()).map(|definition| (definition, false)).ok_or_else(|| {
                let declared = file.source.keys().map(|name| name.get_ref().as_str());
                let known: Vec<_> = UNDECLARED.into_iter().chain(declared).collect();
                fault(format!(
                    "there is no source {:?}; there are {}",
                    name.get_ref(),
                    known.join(", ")
                ))
            })?
        }
    };
    if sources.len() == MAX_CONFIGURED_SOURCES {
        return Err(fault(format!("guards use more than {MAX_CONFIGURED_SOURCES} sources")));
    }
    sources.push(Source { name: name.get_ref().clone(), definition, protected });
    Ok(sources.len().saturating_sub(1))
}

#[cfg(test)]
mod tests;
