//! Plain lists of prefixes, as files and web servers hold them.
//!
//! One prefix or address per line; what follows `#` or `;` is a comment. Lists of
//! unknown origin are read with the same suspicion as the web service: a line
//! that is no prefix refuses the whole list, because it says that the list is
//! something else, most often an HTML page with status 200. The JSON that
//! `exogate export` writes is understood too, so that an agent can follow
//! another one.

use std::{fmt, str};

use ipnet::IpNet;
use serde::{
    Deserialize, Deserializer,
    de::{Error as _, SeqAccess, Visitor},
};

use super::{
    microsoft365::{MAX_BYTES, MAX_PREFIXES, Malformed, TOO_MANY, excerpt},
    parse_prefix,
};

/// Longest line that is looked at.
const MAX_LINE: usize = 1000;

/// Reads a plain list. It may be empty; whether that is believed is for others
/// to say.
///
/// # Errors
///
/// See [`Malformed`].
pub fn parse_plain(body: &[u8]) -> Result<Vec<IpNet>, Malformed> {
    if body.len() > MAX_BYTES {
        return Err(Malformed::TooLarge(format!("{TOO_MANY} {MAX_BYTES} bytes")));
    }
    let text = str::from_utf8(body)
        .map_err(|error| Malformed::Shape(format!("the list is not UTF-8 text: {error}")))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut prefixes = Vec::new();
    for (line, number) in text.lines().zip(1u64..) {
        let content = line.split(['#', ';']).next().unwrap_or_default().trim();
        if content.is_empty() {
            continue;
        }
        let fault =
            |problem: &str| Malformed::Shape(format!("line {number}: {}", excerpt(problem)));
        if content.len() > MAX_LINE {
            return Err(fault("the line is too long"));
        }
        if prefixes.len() == MAX_PREFIXES {
            return Err(Malformed::TooLarge(format!("{TOO_MANY} {MAX_PREFIXES} prefixes")));
        }
        prefixes.push(parse_prefix(content).map_err(|problem| fault(&problem))?);
    }
    Ok(prefixes)
}

/// Reads a plain list, or the JSON of an export; of that, the sources that are
/// named, or all if none is.
///
/// # Errors
///
/// See [`Malformed`].
pub fn parse(body: &[u8], sources: &[String]) -> Result<Vec<IpNet>, Malformed> {
    let first = body.iter().find(|byte| !byte.is_ascii_whitespace());
    if first == Some(&b'{') {
        return parse_export(body, sources);
    }
    if let Some(name) = sources.first() {
        return Err(Malformed::Shape(format!(
            "a plain list has no source {name:?}; only the JSON of an export has sources"
        )));
    }
    parse_plain(body)
}

fn parse_export(body: &[u8], sources: &[String]) -> Result<Vec<IpNet>, Malformed> {
    if body.len() > MAX_BYTES {
        return Err(Malformed::TooLarge(format!("{TOO_MANY} {MAX_BYTES} bytes")));
    }
    let export: Export =
        serde_json::from_slice(body).map_err(|error| Malformed::of(&error, body))?;
    let Bounded(listed) = export.sources;
    if let Some(missing) =
        sources.iter().find(|name| !listed.iter().any(|source| source.name == **name))
    {
        return Err(Malformed::Shape(format!("the export has no source {missing:?}")));
    }
    let chosen =
        listed.into_iter().filter(|source| sources.is_empty() || sources.contains(&source.name));
    let mut prefixes = Vec::new();
    for source in chosen {
        let Bounded(entries) = source.prefixes;
        prefixes.extend(entries.into_iter().map(|entry| entry.prefix));
        if prefixes.len() > MAX_PREFIXES {
            return Err(Malformed::TooLarge(format!("{TOO_MANY} {MAX_PREFIXES} prefixes")));
        }
    }
    Ok(prefixes)
}

#[derive(Deserialize)]
struct Export {
    sources: Bounded<ExportedSource>,
}

#[derive(Deserialize)]
struct ExportedSource {
    name: String,
    prefixes: Bounded<ExportedPrefix>,
}

#[derive(Deserialize)]
struct ExportedPrefix {
    prefix: IpNet,
}

/// An array of at most [`MAX_PREFIXES`] elements, counted while it is read.
pub(super) struct Bounded<T>(pub(super) Vec<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Bounded<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Elements<T>(std::marker::PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Elements<T> {
            type Value = Bounded<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Bounded<T>, A::Error> {
                let mut all = Vec::new();
                while let Some(element) = seq.next_element()? {
                    if all.len() == MAX_PREFIXES {
                        return Err(A::Error::custom(format_args!(
                            "{TOO_MANY} {MAX_PREFIXES} elements"
                        )));
                    }
                    all.push(element);
                }
                Ok(Bounded(all))
            }
        }

        deserializer.deserialize_seq(Elements(std::marker::PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn texts(prefixes: &[IpNet]) -> Vec<String> {
        prefixes.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn comments_blank_lines_and_line_ends_of_windows_are_skipped() {
        let body = "\u{feff}# probes\r\n40.1.0.0/16\r\n\r\n 40.2.0.7 # one\n2603:1006::/40;two\n";
        let prefixes = parse(body.as_bytes(), &[]).unwrap();
        assert_eq!(texts(&prefixes), ["40.1.0.0/16", "40.2.0.7/32", "2603:1006::/40"]);
        assert_eq!(parse(b"", &[]).unwrap(), []);
    }

    #[test]
    fn a_line_that_is_no_prefix_refuses_the_list_and_is_named() {
        for (body, part) in [
            ("40.1.0.0/16\n<html>", "line 2"),
            ("40.1.0.0/16 40.2.0.0/16", "line 1"),
            ("40.1.0.1/16", "did you mean 40.1.0.0/16?"),
            ("40.1.0.0/33", "line 1"),
            ("graph.microsoft.com", "line 1"),
        ] {
            let error = parse(body.as_bytes(), &[]).unwrap_err();
            assert_eq!(error.name(), "malformed");
            assert!(error.to_string().contains(part), "{error}");
        }
        assert_eq!(parse(b"\xff\xfe4\x000", &[]).unwrap_err().name(), "malformed");
        let long = "x".repeat(100_000);
        assert!(parse(long.as_bytes(), &[]).unwrap_err().to_string().len() < 300);
    }

    #[test]
    fn the_limits_hold() {
        let many = "40.1.0.1\n".repeat(MAX_PREFIXES);
        assert_eq!(parse(many.as_bytes(), &[]).unwrap().len(), MAX_PREFIXES);
        let more = many + "40.1.0.1\n";
        assert_eq!(parse(more.as_bytes(), &[]).unwrap_err().name(), "too_large");
        let blanks = vec![b'\n'; MAX_BYTES + 1];
        assert_eq!(parse(&blanks, &[]).unwrap_err().name(), "too_large");
    }

    #[test]
    fn of_an_export_the_named_sources_are_taken() {
        let body = br#" {"hash": "x", "sources": [
            {"name": "a", "prefixes": [{"prefix": "40.1.0.0/16", "origin": "?"}]},
            {"name": "b", "prefixes": [{"prefix": "40.2.0.0/16"}]}]}"#;
        assert_eq!(parse(body, &[]).unwrap().len(), 2);
        assert_eq!(texts(&parse(body, &["b".to_owned()]).unwrap()), ["40.2.0.0/16"]);
        assert!(parse(body, &["c".to_owned()]).is_err());
        assert!(parse(b"40.1.0.0/16", &["b".to_owned()]).is_err());
        assert_eq!(parse(b"{", &[]).unwrap_err().name(), "not_json");
        assert_eq!(parse(b"{}", &[]).unwrap_err().name(), "malformed");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(body in proptest::collection::vec(any::<u8>(), 0..512)) {
            let _ = parse(&body, &[]);
        }

        #[test]
        fn what_is_read_is_what_was_written(
            addresses in proptest::collection::vec((any::<u32>(), 0u8..=32), 0..50),
        ) {
            let prefixes: Vec<IpNet> = addresses
                .iter()
                .map(|(bits, length)| {
                    let address = std::net::Ipv4Addr::from(*bits);
                    IpNet::new(address.into(), *length).unwrap().trunc()
                })
                .collect();
            let body: String = prefixes.iter().map(|prefix| format!("{prefix} # x\n")).collect();
            prop_assert_eq!(parse(body.as_bytes(), &[]).unwrap(), prefixes);
        }
    }
}
