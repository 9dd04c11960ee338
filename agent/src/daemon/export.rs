//! The list in the forms that others read.
//!
//! Temporary entries are left out: they are an exception of this host, and a
//! reader would not know when they end.

use std::{collections::BTreeSet, fmt::Write as _};

use ipnet::IpNet;

use crate::{
    admin::api::{Export, ExportFormat, ExportedPrefix, ExportedSource},
    allowlist::{AllowList, Listed},
};

/// Elements that a set of ipset may have, as many as the filter's tables. It is the same for
/// every list: a set that is there is only taken as it is if it was made alike.
const IPSET_ROOM: u32 = 4_000_000;

/// Longest name of a set in the kernel (`IPSET_MAXNAMELEN`, less one).
const LONGEST_IPSET_NAME: usize = 31;

/// Writes the list, or only the sources that are named.
///
/// # Errors
///
/// If there is no such source.
pub fn export(list: &AllowList, format: ExportFormat, names: &[String]) -> Result<String, String> {
    if let Some(unknown) =
        names.iter().find(|name| !list.sources().iter().any(|source| source.name == **name))
    {
        let known: Vec<_> = list.sources().iter().map(|source| source.name.as_str()).collect();
        return Err(format!("there is no source {unknown:?}; there are {}", known.join(", ")));
    }
    let sources: Vec<_> = list
        .sources()
        .iter()
        .filter(|source| names.is_empty() || names.contains(&source.name))
        .collect();
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = match format {
        ExportFormat::Plain => plain(&mut text, &sources),
        ExportFormat::Nft => nft(&mut text, &sources, list.hash()),
        ExportFormat::Ipset => ipset(&mut text, &sources),
        ExportFormat::Json => return json(&sources, list.hash()),
    };
    Ok(text)
}

fn plain(text: &mut String, sources: &[&Listed]) -> std::fmt::Result {
    let prefixes: BTreeSet<IpNet> =
        sources.iter().flat_map(|source| source.entries.iter().map(|entry| entry.prefix)).collect();
    prefixes.iter().try_for_each(|prefix| writeln!(text, "{prefix}"))
}

/// The prefixes of one family.
fn of_family(source: &Listed, v4: bool) -> Vec<String> {
    let prefixes = source.entries.iter().map(|entry| entry.prefix);
    prefixes.filter(|prefix| prefix.addr().is_ipv4() == v4).map(|p| p.to_string()).collect()
}

fn nft(text: &mut String, sources: &[&Listed], hash: &str) -> std::fmt::Result {
    writeln!(text, "# exogate allow-list {hash}")?;
    // Declared before it is deleted, so that it need not exist.
    writeln!(text, "table inet exogate\ndelete table inet exogate\ntable inet exogate {{")?;
    for source in sources {
        for (family, kind, v4) in [("v4", "ipv4_addr", true), ("v6", "ipv6_addr", false)] {
            writeln!(text, "  set {}_{family} {{", identifier(&source.name))?;
            writeln!(text, "    type {kind}; flags interval; auto-merge")?;
            let prefixes = of_family(source, v4);
            if !prefixes.is_empty() {
                writeln!(text, "    elements = {{ {} }}", prefixes.join(",\n      "))?;
            }
            writeln!(text, "  }}")?;
        }
    }
    writeln!(text, "}}")
}

/// A source's name as nft takes it: it begins with a letter and holds no dash.
fn identifier(name: &str) -> String {
    let name = name.replace('-', "_");
    if name.starts_with(|first: char| first.is_ascii_alphabetic()) {
        name
    } else {
        format!("source_{name}")
    }
}

fn ipset(text: &mut String, sources: &[&Listed]) -> std::fmt::Result {
    for (place, source) in sources.iter().enumerate() {
        for (family, kind, v4) in [("v4", "inet", true), ("v6", "inet6", false)] {
            let mut name = format!("exogate-{}-{family}", source.name);
            if name.len() > LONGEST_IPSET_NAME {
                name = format!("exogate-{place}-{family}");
            }
            let prefixes = of_family(source, v4);
            // Filled beside the set in use, and put in its place in one step.
            writeln!(text, "create {name} hash:net family {kind} maxelem {IPSET_ROOM} -exist")?;
            writeln!(
                text,
                "create {place}-{family}-new hash:net family {kind} maxelem {IPSET_ROOM}"
            )?;
            for prefix in prefixes {
                writeln!(text, "add {place}-{family}-new {prefix}")?;
            }
            writeln!(text, "swap {place}-{family}-new {name}\ndestroy {place}-{family}-new")?;
        }
    }
    Ok(())
}

fn json(sources: &[&Listed], hash: &str) -> Result<String, String> {
    let sources = sources
        .iter()
        .map(|source| ExportedSource {
            name: source.name.clone(),
            prefixes: source
                .entries
                .iter()
                .map(|entry| ExportedPrefix {
                    prefix: entry.prefix,
                    origin: entry.origin.clone().brief().to_string(),
                })
                .collect(),
        })
        .collect();
    let export = Export { hash: hash.to_owned(), sources };
    let mut text = serde_json::to_string_pretty(&export).map_err(|error| error.to_string())?;
    text.push('\n');
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        allowlist::{Known, embedded},
        config::Config,
        source::{feed::FeedId, list, microsoft365::Instance},
    };

    fn example() -> AllowList {
        let id = FeedId::Instance(Instance::Worldwide);
        let held = embedded(&id);
        let known = Known { held: [(id, held)].into(), ..Known::default() };
        AllowList::build(&Config::default().sources, &known)
    }

    fn all(format: ExportFormat) -> String {
        export(&example(), format, &[]).unwrap()
    }

    #[test]
    fn another_agent_reads_plain_and_json() {
        assert_eq!(list::parse(all(ExportFormat::Plain).as_bytes(), &[]).unwrap().len(), 34 + 106);
        let json = all(ExportFormat::Json);
        assert_eq!(list::parse(json.as_bytes(), &[]).unwrap().len(), 34 + 106);
        let one = list::parse(json.as_bytes(), &["exchange-online".to_owned()]).unwrap();
        assert_eq!(one.len(), 34);
    }

    #[test]
    fn firewalls_get_a_set_for_each_source_and_family() {
        let nft = all(ExportFormat::Nft);
        assert!(nft.contains("set exchange_online_v4 {") && nft.contains("40.96.0.0/13"), "{nft}");
        assert!(nft.contains("set graph_notifications_v6 {"), "{nft}");
        let ipset = all(ExportFormat::Ipset);
        assert_eq!(ipset.lines().filter(|line| line.starts_with("add ")).count(), 34 + 106);
        let names = ipset.lines().filter_map(|line| line.strip_prefix("create "));
        assert!(names.clone().all(|rest| rest.split(' ').next().unwrap().len() <= 31), "{ipset}");
    }

    #[test]
    fn an_unknown_source_is_named() {
        let error = export(&example(), ExportFormat::Plain, &["no".to_owned()]).unwrap_err();
        assert!(error.contains("\"no\"") && error.contains("exchange-online"), "{error}");
    }
}
