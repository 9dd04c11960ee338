//! Azure service tags.
//!
//! Microsoft publishes them weekly as one JSON file of some megabytes, under a
//! dated name behind an HTML page. A source takes the prefixes of the tags that
//! it names, and only these are kept while the file is read. No tag covers the
//! senders of Graph or Exchange notifications; tags are for what else has to
//! reach a guarded port, such as `AzureActiveDirectory` or a region.

use std::sync::Arc;

use ipnet::IpNet;
use serde::Deserialize;

use super::{
    Entry, Origin,
    list::Bounded,
    microsoft365::{MAX_PREFIXES, Malformed, TOO_MANY},
};

/// Largest file that is read. Captured ones have 4 MB.
pub const MAX_BYTES: usize = 32 << 20;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    change_number: u64,
    values: Bounded<Tag>,
}

#[derive(Deserialize)]
struct Tag {
    name: String,
    properties: Properties,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Properties {
    #[serde(default)]
    address_prefixes: Vec<IpNet>,
}

/// Reads the prefixes of the named tags, in any case, and the number of the
/// publication.
///
/// # Errors
///
/// See [`Malformed`]; also if the file lacks one of the tags.
pub fn parse(body: &[u8], tags: &[String]) -> Result<(u64, Vec<Entry>), Malformed> {
    if body.len() > MAX_BYTES {
        return Err(Malformed::TooLarge(format!("{TOO_MANY} {MAX_BYTES} bytes")));
    }
    let file: File = serde_json::from_slice(body).map_err(|error| Malformed::of(&error, body))?;
    let Bounded(values) = file.values;
    let mut entries = Vec::new();
    for wanted in tags {
        let tag =
            values.iter().find(|tag| tag.name.eq_ignore_ascii_case(wanted)).ok_or_else(|| {
                Malformed::Shape(format!(
                    "there is no service tag {wanted:?} in publication {}",
                    file.change_number
                ))
            })?;
        let origin =
            Origin::ServiceTag { tag: Arc::from(wanted.as_str()), publication: file.change_number };
        let prefixes = &tag.properties.address_prefixes;
        entries.extend(
            prefixes.iter().map(|prefix| Entry { prefix: *prefix, origin: origin.clone() }),
        );
        if entries.len() > MAX_PREFIXES {
            return Err(Malformed::TooLarge(format!("{TOO_MANY} {MAX_PREFIXES} prefixes")));
        }
    }
    Ok((file.change_number, entries))
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use proptest::prelude::*;

    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn captured() -> Vec<u8> {
        let path = format!(
            "{}/../tests/data/servicetags/\
             ServiceTags_Public-changeNumber376-2025-11-10.json.gz",
            env!("CARGO_MANIFEST_DIR")
        );
        let mut body = Vec::new();
        flate2::read::GzDecoder::new(std::fs::File::open(path).unwrap())
            .read_to_end(&mut body)
            .unwrap();
        body
    }

    #[test]
    fn the_named_tags_of_a_captured_file_are_taken() {
        let body = captured();
        let (publication, entries) = parse(&body, &names(&["AzureActiveDirectory"])).unwrap();
        assert_eq!((publication, entries.len()), (376, 216));
        let both = names(&["azureactivedirectory", "M365ManagementActivityApiWebhook"]);
        assert_eq!(parse(&body, &both).unwrap().1.len(), 216 + 179);
        let error = parse(&body, &names(&["ExchangeOnline"])).unwrap_err();
        assert!(error.to_string().contains("no service tag \"ExchangeOnline\""), "{error}");
    }

    #[test]
    fn other_files_are_named() {
        for (body, name) in [
            (&b"<html>"[..], "not_json"),
            (b"", "not_json"),
            (b"[]", "malformed"),
            (br#"{"changeNumber": 1}"#, "malformed"),
            (
                br#"{"changeNumber":1,"values":[{"name":"A","properties":{"addressPrefixes":["x"]}}]}"#,
                "malformed",
            ),
        ] {
            assert_eq!(parse(body, &names(&["A"])).unwrap_err().name(), name);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(body in proptest::collection::vec(any::<u8>(), 0..512)) {
            let _ = parse(&body, &["A".to_owned()]);
        }

        #[test]
        fn a_damaged_file_is_read_or_refused(
            at in any::<prop::sample::Index>(), byte in any::<u8>(),
        ) {
            let mut body = br#"{"changeNumber":376,"cloud":"Public","values":[{"name":"A","id":"A",
                "properties":{"changeNumber":3,"addressPrefixes":["40.1.0.0/16"]}}]}"#.to_vec();
            let at = at.index(body.len());
            body[at] = byte;
            let _ = parse(&body, &["A".to_owned()]);
        }
    }
}
