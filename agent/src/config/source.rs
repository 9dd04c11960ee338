//! Named sources: `[source.NAME]`, and those that need no declaration.

use serde::Deserialize;

use super::value::{Port, Prefix};
use crate::source::{
    Definition,
    microsoft365::{HostPattern, Instance, Selection},
};

/// A named source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Lower-case letters, digits and dashes; also a metric label.
    pub name: String,
    /// What it consists of.
    pub definition: Definition,
}

/// What a source is. All but the last two are ready-made: their names are
/// sources for the Worldwide instance without being declared.
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
}

/// `[source.NAME]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawSource {
    /// `exchange-online`, `exchange-online-strict`, `graph-notifications`,
    /// `microsoft365` or `static`.
    kind: Kind,
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
}

impl RawSource {
    /// The definition, or a sentence that says what is wrong.
    pub(super) fn define(&self) -> Result<Definition, String> {
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

/// A ready-made source of the Worldwide instance.
pub(super) fn undeclared(name: &str) -> Option<Definition> {
    let kind = match name {
        "exchange-online" => Kind::ExchangeOnline,
        "exchange-online-strict" => Kind::ExchangeOnlineStrict,
        "graph-notifications" => Kind::GraphNotifications,
        _ => return None,
    };
    ready_made(kind, Instance::Worldwide)
}

/// Names that [`undeclared`] knows.
pub(super) const UNDECLARED: [&str; 3] =
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
        Kind::Microsoft365 | Kind::Static => None,
    }
}

/// Whether a name can be that of a source.
pub(super) fn check_name(name: &str) -> Result<(), String> {
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
