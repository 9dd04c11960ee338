//! Named sources: `[source.NAME]`, and those that need no declaration.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use serde::Deserialize;

use super::value::{self, Port, Prefix};
use crate::source::{
    Definition, Location, Url,
    feed::FeedId,
    microsoft365::{HostPattern, Instance, Selection},
};

/// A named source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Lower-case letters, digits and dashes; also a metric label.
    pub name: String,
    /// What it consists of.
    pub definition: Definition,
    /// Whether no feed can remove anything from it.
    pub protected: bool,
}

impl Source {
    /// The feed behind it, if there is one.
    #[must_use]
    pub fn feed(&self) -> Option<FeedId> {
        self.definition.feed(&self.name)
    }
}

/// What a source is. The first three are ready-made: their names are sources for
/// the Worldwide instance without being declared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Kind {
    /// The Exchange sets with TCP port 443: senders of EWS push notifications.
    ExchangeOnline,
    /// Of these, only the set that lists Outlook's host: no mail protection.
    ExchangeOnlineStrict,
    /// The senders of Graph change notifications.
    GraphNotifications,
    /// Endpoint sets chosen by criteria.
    Microsoft365,
    /// Fixed prefixes.
    Static,
    /// A plain list in a file.
    File,
    /// A plain list, or the export of another agent, over HTTPS.
    Url,
    /// Addresses of DNS names.
    Dns,
    /// Azure service tags, in a file or over HTTPS.
    ServiceTags,
}

/// `[source.NAME]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawSource {
    /// `exchange-online`, `exchange-online-strict`, `graph-notifications`,
    /// `microsoft365`, `static`, `file`, `url`, `dns` or `service-tags`.
    kind: Kind,
    /// No feed can remove anything from it.
    #[serde(default)]
    protected: bool,
    /// The cloud: `Worldwide`, `USGovDoD`, `USGovGCCHigh` or `China`.
    instance: Option<Instance>,
    /// Kind `microsoft365`: service areas, such as `Exchange`.
    #[serde(default)]
    service_areas: Vec<String>,
    /// Kind `microsoft365`: a TCP port that the sets name.
    tcp_port: Option<Port>,
    /// Kind `microsoft365`: hosts of which a set lists one.
    #[serde(default)]
    url_hosts: Vec<HostPattern>,
    /// Kind `microsoft365`: set numbers, to refine the above. They change over
    /// time and differ between instances.
    #[serde(default)]
    set_ids: Vec<u32>,
    /// Kind `static`: prefixes and addresses.
    #[serde(default)]
    prefixes: Vec<Prefix>,
    /// Kinds `file` and `service-tags`: an absolute path.
    path: Option<PathBuf>,
    /// Kind `file`: addresses of private networks are taken.
    #[serde(default)]
    allow_private: bool,
    /// Kinds `url` and `service-tags`: https only.
    url: Option<String>,
    /// With `url`: PEM file with the only certificates to trust for it.
    ca_file: Option<PathBuf>,
    /// With `url`: time between polls; `feed.interval` if not given.
    #[serde(default, deserialize_with = "value::some_duration")]
    interval: Option<Duration>,
    /// Kind `url`: of the JSON of another agent's export, the sources to take.
    #[serde(default)]
    exported: Vec<String>,
    /// Kind `dns`: names.
    #[serde(default)]
    names: Vec<String>,
    /// Kind `dns`: servers to ask instead of those of the system.
    #[serde(default)]
    servers: Vec<SocketAddr>,
    /// Kind `service-tags`: names of tags.
    #[serde(default)]
    tags: Vec<String>,
}

impl RawSource {
    /// The definition, or a sentence that says what is wrong.
    pub(super) fn define(&self) -> Result<Definition, String> {
        self.check_kinds()?;
        match self.kind {
            Kind::File => self.define_file(),
            Kind::Url => self.define_url(),
            Kind::Dns => self.define_dns(),
            Kind::ServiceTags => self.define_service_tags(),
            _ => self.define_fixed(),
        }
    }

    /// Whether no feed can remove anything from it.
    pub(super) const fn is_protected(&self) -> bool {
        self.protected
    }

    /// Whether every key that is given means something for the kind.
    fn check_kinds(&self) -> Result<(), String> {
        use Kind::{Dns, File, ServiceTags};
        let fetched = self.url.is_some();
        for (given, key, kinds) in [
            (self.path.is_some(), "path", &[File, ServiceTags][..]),
            (self.allow_private, "allow_private", &[File]),
            (self.url.is_some(), "url", &[Kind::Url, ServiceTags]),
            (!self.exported.is_empty(), "exported", &[Kind::Url]),
            (!self.names.is_empty(), "names", &[Dns]),
            (!self.servers.is_empty(), "servers", &[Dns]),
            (!self.tags.is_empty(), "tags", &[ServiceTags]),
        ] {
            if given && !kinds.contains(&self.kind) {
                let kinds: Vec<_> =
                    kinds.iter().map(|kind| format!("\"{}\"", kind.name())).collect();
                return Err(format!("{key} is for sources of kind {}", kinds.join(" or ")));
            }
        }
        if !fetched && (self.ca_file.is_some() || self.interval.is_some()) {
            return Err("ca_file and interval are for sources with a url".to_owned());
        }
        if matches!(self.kind, File | Kind::Url | Dns | ServiceTags) && self.instance.is_some() {
            return Err(format!("a source of kind \"{}\" has no instance", self.kind.name()));
        }
        if self.interval.is_some_and(|interval| !(MIN_INTERVAL..=MAX_INTERVAL).contains(&interval))
        {
            return Err("interval must be 1s to 7d".to_owned());
        }
        Ok(())
    }

    fn define_file(&self) -> Result<Definition, String> {
        let path = self.absolute_path()?.ok_or("a source of kind \"file\" needs a path")?;
        Ok(Definition::File { path, allow_private: self.allow_private })
    }

    fn define_url(&self) -> Result<Definition, String> {
        Ok(Definition::Url {
            url: self.https_url()?.ok_or("a source of kind \"url\" needs a url")?,
            ca_file: self.ca_file.clone(),
            sources: self.exported.clone(),
            interval: self.interval,
        })
    }

    fn define_dns(&self) -> Result<Definition, String> {
        if self.names.is_empty() || self.names.len() > MAX_NAMES {
            return Err(format!("a source of kind \"dns\" needs 1 to {MAX_NAMES} names"));
        }
        for name in &self.names {
            if name.starts_with("*.") || name.parse::<HostPattern>().is_err() || name.len() > 253 {
                return Err(format!("{name:?} is not a DNS name such as probe.example.com"));
            }
        }
        Ok(Definition::Dns { names: self.names.clone(), servers: self.servers.clone() })
    }

    fn define_service_tags(&self) -> Result<Definition, String> {
        if self.tags.is_empty() {
            return Err("a source of kind \"service-tags\" needs tags".to_owned());
        }
        let location = match (self.absolute_path()?, self.https_url()?) {
            (Some(path), None) => Location::File(path),
            (None, Some(url)) => Location::Url(url),
            _ => {
                let message = "a source of kind \"service-tags\" needs either a path or a url";
                return Err(message.to_owned());
            }
        };
        let tags = self.tags.clone();
        let (ca_file, interval) = (self.ca_file.clone(), self.interval);
        Ok(Definition::ServiceTags { tags, location, ca_file, interval })
    }

    fn absolute_path(&self) -> Result<Option<PathBuf>, String> {
        match &self.path {
            Some(path) if !path.is_absolute() => {
                Err(format!("path {} must be absolute", path.display()))
            }
            path => Ok(path.clone()),
        }
    }

    fn https_url(&self) -> Result<Option<Url>, String> {
        self.url.as_deref().map(Url::try_from).transpose()
    }

    /// Sources of the web service and fixed ones.
    fn define_fixed(&self) -> Result<Definition, String> {
        let criteria = !self.service_areas.is_empty()
            || self.tcp_port.is_some()
            || !self.url_hosts.is_empty()
            || !self.set_ids.is_empty();
        if criteria && self.kind != Kind::Microsoft365 {
            return Err("service_areas, tcp_port, url_hosts and set_ids are for sources of kind \
                        \"microsoft365\""
                .to_owned());
        }
        if self.kind == Kind::Static {
            if self.instance.is_some() {
                return Err("a source of kind \"static\" has no instance".to_owned());
            }
            if self.prefixes.is_empty() {
                return Err("a source of kind \"static\" needs prefixes".to_owned());
            }
            let prefixes = self.prefixes.iter().map(|Prefix(prefix)| *prefix).collect();
            return Ok(Definition::Static { prefixes });
        }
        if !self.prefixes.is_empty() {
            return Err("prefixes are for sources of kind \"static\"; a guard can name several \
                        sources"
                .to_owned());
        }
        let instance = self.instance.unwrap_or(Instance::Worldwide);
        if let Some(definition) = ready_made(self.kind, instance) {
            return Ok(definition);
        }
        if self.service_areas.is_empty() && self.url_hosts.is_empty() {
            return Err("a source of kind \"microsoft365\" needs service_areas or url_hosts; \
                        set_ids and tcp_port only refine them"
                .to_owned());
        }
        Ok(Definition::Microsoft365 {
            instance,
            selection: Selection {
                service_areas: self.service_areas.clone(),
                tcp_port: Some(self.tcp_port.map_or(443, |Port(port)| port)),
                url_hosts: self.url_hosts.clone(),
                set_ids: self.set_ids.clone(),
            },
        })
    }
}

/// Most names of a source of kind `dns`.
const MAX_NAMES: usize = 100;
const MIN_INTERVAL: Duration = Duration::from_secs(1);
const MAX_INTERVAL: Duration = Duration::from_secs(7 * 86_400);

impl Kind {
    /// The name in the configuration.
    const fn name(self) -> &'static str {
        match self {
            Self::ExchangeOnline => "exchange-online",
            Self::ExchangeOnlineStrict => "exchange-online-strict",
            Self::GraphNotifications => "graph-notifications",
            Self::Microsoft365 => "microsoft365",
            Self::Static => "static",
            Self::File => "file",
            Self::Url => "url",
            Self::Dns => "dns",
            Self::ServiceTags => "service-tags",
        }
    }
}

/// A ready-made source of the Worldwide instance.
pub(crate) fn undeclared(name: &str) -> Option<Definition> {
    let kind = match name {
        "exchange-online" => Kind::ExchangeOnline,
        "exchange-online-strict" => Kind::ExchangeOnlineStrict,
        "graph-notifications" => Kind::GraphNotifications,
        _ => return None,
    };
    ready_made(kind, Instance::Worldwide)
}

/// Names that [`undeclared`] knows.
pub(crate) const UNDECLARED: [&str; 3] =
    ["exchange-online", "exchange-online-strict", "graph-notifications"];

fn ready_made(kind: Kind, instance: Instance) -> Option<Definition> {
    let exchange = Selection {
        service_areas: vec!["Exchange".to_owned()],
        tcp_port: Some(443),
        ..Selection::default()
    };
    match kind {
        Kind::ExchangeOnline => Some(Definition::Microsoft365 { instance, selection: exchange }),
        Kind::ExchangeOnlineStrict => {
            // Several spellings, where captures of one cloud differ.
            let hosts: &[&str] = match instance {
                Instance::Worldwide => &["outlook.office365.com"],
                Instance::UsGovDod => &["outlook-dod.office365.us", "webmail.apps.mil"],
                Instance::UsGovGccHigh => &["outlook.office365.us"],
                Instance::China => &["partner.outlook.cn"],
            };
            let url_hosts = hosts.iter().map(|host| HostPattern::exact(host)).collect();
            let selection = Selection { url_hosts, ..exchange };
            Some(Definition::Microsoft365 { instance, selection })
        }
        Kind::GraphNotifications => Some(Definition::Graph { instance }),
        _ => None,
    }
}

/// The name of the source of temporary entries.
pub const TEMPORARY: &str = "temporary";

/// Whether a name can be that of a source.
pub(super) fn check_name(name: &str) -> Result<(), String> {
    if name == TEMPORARY {
        return Err(format!("{TEMPORARY:?} is the name of what `exogate allow` lets pass"));
    }
    let valid = (1..=40).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    if valid {
        Ok(())
    } else {
        Err(format!(
            "{name:?} cannot be the name of a source; use up to 40 lower-case letters, digits and \
             dashes"
        ))
    }
}
