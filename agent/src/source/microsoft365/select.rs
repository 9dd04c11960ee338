//! Which endpoint sets a source takes.
//!
//! A set has to pass every criterion that is given. The service returns the
//! `Common` sets whatever is asked for, so all criteria are applied here, to the
//! answer.

use std::{fmt, ops::RangeInclusive, str::FromStr};

use serde::{Deserialize, Serialize};

use super::EndpointSet;

/// Criteria for endpoint sets. An empty criterion accepts every set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Service areas, in any case.
    pub service_areas: Vec<String>,
    /// A TCP port that the set must name. A set without TCP ports does not.
    pub tcp_port: Option<u16>,
    /// Hosts of which the set must list one.
    pub url_hosts: Vec<HostPattern>,
    /// Set numbers, to refine the other criteria.
    pub set_ids: Vec<u32>,
}

impl Selection {
    /// Whether a set passes every criterion.
    #[must_use]
    pub fn matches(&self, set: &EndpointSet) -> bool {
        (self.service_areas.is_empty()
            || self.service_areas.iter().any(|area| area.eq_ignore_ascii_case(&set.service_area)))
            && self.tcp_port.is_none_or(|port| set.tcp_ports.contains(port))
            && (self.url_hosts.is_empty()
                || set.urls.iter().any(|url| self.url_hosts.iter().any(|host| host.matches(url))))
            && (self.set_ids.is_empty() || self.set_ids.contains(&set.id))
    }
}

impl fmt::Display for Selection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut criteria = Vec::new();
        if !self.service_areas.is_empty() {
            criteria.push(format!("service area {}", self.service_areas.join(" or ")));
        }
        if let Some(port) = self.tcp_port {
            criteria.push(format!("TCP port {port}"));
        }
        if !self.url_hosts.is_empty() {
            let hosts: Vec<_> = self.url_hosts.iter().map(HostPattern::to_string).collect();
            criteria.push(format!("host {}", hosts.join(" or ")));
        }
        if !self.set_ids.is_empty() {
            criteria.push(format!("set {:?}", self.set_ids));
        }
        if criteria.is_empty() {
            criteria.push("any set".to_owned());
        }
        f.write_str(&criteria.join(", "))
    }
}

/// A host as a set lists it (`graph.microsoft.com`), or a pattern that every
/// listed host below a domain meets (`*.office365.com`). A listed wildcard meets
/// an exact host only if it is spelled the same: the list grows by what was
/// named, not by what a wildcard of Microsoft's happens to cover.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct HostPattern(String);

impl HostPattern {
    /// The pattern that only this host meets.
    #[must_use]
    pub fn exact(host: &str) -> Self {
        Self(host.to_ascii_lowercase())
    }

    fn matches(&self, listed: &str) -> bool {
        let listed = listed.to_ascii_lowercase();
        if listed == self.0 {
            return true;
        }
        // "*.office365.com" leaves ".office365.com".
        self.0.strip_prefix('*').is_some_and(|suffix| listed.ends_with(suffix))
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for HostPattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let name = text.strip_prefix("*.").unwrap_or(text);
        let label = |label: &str| {
            !label.is_empty()
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        };
        if name.split('.').all(label) {
            Ok(Self::exact(text))
        } else {
            Err(format!(
                "{text:?} is not a host such as graph.microsoft.com or a pattern such as \
                 *.office365.com"
            ))
        }
    }
}

impl TryFrom<String> for HostPattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// Ports, published as a comma list with ranges: `25, 443`, `50000-59999`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Ports(Vec<RangeInclusive<u16>>);

impl Ports {
    /// Whether the port is in the list.
    #[must_use]
    pub fn contains(&self, port: u16) -> bool {
        self.0.iter().any(|range| range.contains(&port))
    }

    /// Whether the list has no port.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromStr for Ports {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .map(|part| {
                let (first, last) = part.split_once('-').unwrap_or((part, part));
                match (first.trim().parse(), last.trim().parse()) {
                    (Ok(first), Ok(last)) if first <= last => Ok(first..=last),
                    _ => {
                        let shown: String = part.chars().take(20).collect();
                        Err(format!("{shown:?} is not a port or a range of ports"))
                    }
                }
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

impl TryFrom<String> for Ports {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Ports> for String {
    fn from(ports: Ports) -> Self {
        let parts: Vec<_> = ports
            .0
            .iter()
            .map(|range| match (range.start(), range.end()) {
                (first, last) if first == last => first.to_string(),
                (first, last) => format!("{first}-{last}"),
            })
            .collect();
        parts.join(",")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_a_trimmed_list_with_ranges_and_no_substring() {
        for (text, contains) in [
            ("80,443", true),
            ("443,80", true),
            ("25, 443, 53, 80", true),
            ("443", true),
            ("400-500", true),
            (" 443 ,", true),
            ("143, 587, 993, 995", false),
            ("4430", false),
            ("50000-59999", false),
            ("1443", false),
            ("", false),
        ] {
            assert_eq!(text.parse::<Ports>().unwrap().contains(443), contains, "{text:?}");
        }
        for text in ["443-", "-443", "500-400", "65536", "https", "4 43"] {
            assert!(text.parse::<Ports>().is_err(), "{text:?}");
        }
        let ports: Ports = "25, 50000-59999".parse().unwrap();
        assert_eq!(String::from(ports), "25,50000-59999");
    }

    #[test]
    fn hosts_match_exactly_or_below_a_domain() {
        for (pattern, listed, matches) in [
            ("graph.microsoft.com", "graph.microsoft.com", true),
            ("Graph.Microsoft.com", "graph.microsoft.COM", true),
            ("graph.microsoft.com", "dod-graph.microsoft.com", false),
            ("graph.microsoft.com", "*.microsoft.com", false),
            ("*.office365.com", "outlook.office365.com", true),
            ("*.office365.com", "*.office365.com", true),
            ("*.office365.com", "office365.com", false),
            ("*.office365.com", "outlook.notoffice365.com", false),
        ] {
            let pattern: HostPattern = pattern.parse().unwrap();
            assert_eq!(pattern.matches(listed), matches, "{pattern} {listed}");
        }
        for text in ["", "*", "https://graph.microsoft.com", "a..b", "*.*.com", "a b"] {
            assert!(text.parse::<HostPattern>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_set_has_to_pass_every_criterion() {
        let set = |area: &str, ports: &str, urls: &[&str]| EndpointSet {
            id: 9,
            service_area: area.to_owned(),
            urls: urls.iter().map(|url| (*url).to_owned()).collect(),
            ips: vec![],
            tcp_ports: ports.parse().unwrap(),
            udp_ports: "443".parse().unwrap(),
        };
        let selection = Selection {
            service_areas: vec!["exchange".to_owned()],
            tcp_port: Some(443),
            url_hosts: vec![HostPattern::exact("outlook.office365.com")],
            set_ids: vec![1, 9],
        };
        let host = ["smtp.office365.com", "outlook.office365.com"];
        for (set, matches) in [
            (set("Exchange", "80, 443", &host), true),
            (set("Exchange", "400-500", &host), true),
            (set("Common", "443", &host), false),
            (set("Exchange", "4430", &host), false),
            (set("Exchange", "50000-59999", &host), false),
            (set("Exchange", "", &host), false),
            (set("Exchange", "443", &["smtp.office365.com"]), false),
            (set("Exchange", "443", &[]), false),
            (EndpointSet { id: 2, ..set("Exchange", "443", &host) }, false),
        ] {
            assert_eq!(selection.matches(&set), matches, "{set:?}");
        }
        assert!(Selection::default().matches(&set("Common", "", &[])));
    }
}
