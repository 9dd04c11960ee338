//! Reading the answers of the service, within limits.
//!
//! Records and prefixes are counted while they are read, so that a hostile
//! answer of many tiny records cannot take more memory than an honest one.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{Error as _, SeqAccess, Visitor},
};

use super::{EndpointSet, Instance, Version};

/// Largest body that is read. Captured answers have 28 to 82 KB.
pub const MAX_BYTES: usize = 5 << 20;
/// Most endpoint sets. Captured answers have 63 to 121.
pub const MAX_RECORDS: usize = 10_000;
/// Most prefixes of all sets together. Captured answers have 129 to 1,774.
pub const MAX_PREFIXES: usize = 100_000;

/// Longest host (RFC 1035) and service area.
const MAX_TEXT: usize = 253;

pub(crate) const TOO_MANY: &str = "more than";

/// Why an answer cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The body is beyond [`MAX_BYTES`], or its content beyond [`MAX_RECORDS`]
    /// or [`MAX_PREFIXES`].
    #[error("the answer is too large: {0}")]
    TooLarge(String),
    /// Not JSON at all, such as an HTML page or a truncated body.
    #[error("the answer is not JSON, or cut off: {0}")]
    NotJson(String),
    /// JSON of another shape.
    #[error("the answer is not what the service documents: {0}")]
    Shape(String),
    /// A version for another cloud.
    #[error("the answer is about another instance: {0}")]
    OtherInstance(String),
}

impl Malformed {
    /// The reason as a metric label.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::TooLarge(_) => "too_large",
            Self::NotJson(_) => "not_json",
            Self::Shape(_) => "malformed",
            Self::OtherInstance(_) => "other_instance",
        }
    }

    pub(crate) fn of(error: &serde_json::Error, body: &[u8]) -> Self {
        let text = excerpt(&error.to_string());
        if text.starts_with(TOO_MANY) {
            Self::TooLarge(text)
        } else if error.is_data() {
            Self::Shape(text)
        } else {
            let start: Vec<u8> = body.iter().copied().take(40).collect();
            let start = String::from_utf8_lossy(&start);
            Self::NotJson(format!("{text}; it has {} bytes and begins {start:?}", body.len()))
        }
    }
}

/// The beginning of a text that may quote an answer: it goes into logs.
pub(crate) fn excerpt(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(160).collect()
}

/// Endpoint sets that were read within the limits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndpointSets(Vec<EndpointSet>);

impl EndpointSets {
    /// The sets.
    #[must_use]
    pub fn into_sets(self) -> Vec<EndpointSet> {
        self.0
    }
}

impl<'de> Deserialize<'de> for EndpointSets {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Sets;

        impl<'de> Visitor<'de> for Sets {
            type Value = EndpointSets;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of endpoint sets")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<EndpointSets, A::Error> {
                let mut sets: Vec<EndpointSet> = Vec::new();
                let mut prefixes = 0usize;
                while let Some(set) = seq.next_element::<EndpointSet>()? {
                    prefixes = prefixes.saturating_add(set.ips.len());
                    if prefixes > MAX_PREFIXES {
                        return Err(A::Error::custom(format_args!(
                            "{TOO_MANY} {MAX_PREFIXES} prefixes"
                        )));
                    }
                    if sets.len() == MAX_RECORDS {
                        return Err(A::Error::custom(format_args!(
                            "{TOO_MANY} {MAX_RECORDS} endpoint sets"
                        )));
                    }
                    // Each goes with every prefix of the set.
                    let texts = set.urls.iter().chain([&set.service_area]);
                    if texts.into_iter().any(|text| text.len() > MAX_TEXT) {
                        return Err(A::Error::custom(format_args!(
                            "{TOO_MANY} {MAX_TEXT} characters in a host or service area"
                        )));
                    }
                    sets.push(set);
                }
                Ok(EndpointSets(sets))
            }
        }

        deserializer.deserialize_seq(Sets)
    }
}

/// Reads the answer of `/endpoints`.
///
/// # Errors
///
/// See [`Malformed`].
pub fn parse_endpoints(body: &[u8]) -> Result<EndpointSets, Malformed> {
    if body.len() > MAX_BYTES {
        return Err(Malformed::TooLarge(format!("more than {MAX_BYTES} bytes")));
    }
    serde_json::from_slice(body).map_err(|error| Malformed::of(&error, body))
}

/// Reads the latest version out of an answer of `/version`: of one instance, or
/// the list of all of them.
///
/// # Errors
///
/// See [`Malformed`].
pub fn parse_version(body: &[u8], instance: Instance) -> Result<Version, Malformed> {
    #[derive(Deserialize)]
    struct One {
        instance: String,
        latest: Version,
    }
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Body {
        One(One),
        All(Vec<One>),
    }

    if body.len() > MAX_BYTES {
        return Err(Malformed::TooLarge(format!("more than {MAX_BYTES} bytes")));
    }
    let answer: Body = serde_json::from_slice(body).map_err(|error| Malformed::of(&error, body))?;
    let all = match answer {
        Body::One(one) => vec![one],
        Body::All(all) => all,
    };
    all.iter()
        .find(|one| one.instance.eq_ignore_ascii_case(instance.name()))
        .map(|one| one.latest)
        .ok_or_else(|| {
            let names: Vec<_> = all.iter().take(4).map(|one| excerpt(&one.instance)).collect();
            Malformed::OtherInstance(format!("{names:?} instead of {instance}"))
        })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn capture(name: &str) -> Vec<u8> {
        let path = format!("{}/../tests/data/{name}", env!("CARGO_MANIFEST_DIR"));
        std::fs::read(path).unwrap()
    }

    #[test]
    fn captures_are_read_whole() {
        for (file, sets, prefixes) in [
            ("worldwide/worldwide-captured-2020-12-23.json", 113, 398),
            ("worldwide/worldwide-captured-2024-04-24.json", 72, 133),
            ("worldwide/worldwide-captured-2025-07-05.json", 65, 129),
            ("worldwide/worldwide-captured-2026-05-29.json", 63, 129),
            ("history/china-2023062900-partial.json", 6, 68),
        ] {
            let read = parse_endpoints(&capture(file)).unwrap().into_sets();
            assert_eq!(read.len(), sets, "{file}");
            assert_eq!(read.iter().map(|set| set.ips.len()).sum::<usize>(), prefixes, "{file}");
        }
    }

    #[test]
    fn what_the_service_may_add_is_tolerated() {
        let body = br#"[{"id": 7, "serviceArea": "New area", "notes": "", "ips": null,
            "novelty": {"a": [1, 2]}, "urls": []},{"serviceArea":"Common","id":3}]"#;
        let sets = parse_endpoints(body).unwrap().into_sets();
        assert_eq!(sets.len(), 2);
        assert!(sets[0].ips.is_empty() && sets[1].tcp_ports.is_empty());
    }

    #[test]
    fn other_answers_are_named() {
        let html = b"<!DOCTYPE html><html><body>Service unavailable</body></html>";
        for (body, name) in [
            (&html[..], "not_json"),
            (b"", "not_json"),
            (br#"[{"id":1,"serviceArea":"Exchange","ips":["40.96."#, "not_json"),
            (br#"{"error":"no"}"#, "malformed"),
            (br#"[{"serviceArea":"Exchange"}]"#, "malformed"),
            (br#"[{"id":1,"serviceArea":"Exchange","ips":["40.96.0.0/33"]}]"#, "malformed"),
            (br#"[{"id":1,"serviceArea":"Exchange","ips":["everything"]}]"#, "malformed"),
            (br#"[{"id":1,"serviceArea":"Exchange","tcpPorts":"all"}]"#, "malformed"),
        ] {
            let error = parse_endpoints(body).unwrap_err();
            assert_eq!(error.name(), name, "{error}");
        }
        for file in ["worldwide/worldwide-captured-2026-05-29.json"] {
            let body = capture(file);
            for cut in [1, 100, body.len() / 2, body.len() - 3] {
                assert_eq!(parse_endpoints(&body[..cut]).unwrap_err().name(), "not_json");
            }
        }
    }

    #[test]
    fn what_an_answer_says_does_not_flood_the_log() {
        let long = "\u{1b}[31m".to_owned() + &"x".repeat(100_000);
        let body = serde_json::json!([{ "id": long, "serviceArea": "Exchange" }]).to_string();
        let error = parse_endpoints(body.as_bytes()).unwrap_err().to_string();
        assert!(error.len() < 300 && !error.contains('\u{1b}'), "{error:.400}");
        let body = serde_json::json!({ "instance": long, "latest": "2026112300" }).to_string();
        let error = parse_version(body.as_bytes(), Instance::Worldwide).unwrap_err().to_string();
        assert!(error.len() < 300 && !error.contains('\u{1b}'), "{error:.400}");
    }

    #[test]
    fn the_limits_hold() {
        let many = |count: usize, record: &str| {
            format!("[{}]", vec![record; count].join(",")).into_bytes()
        };
        let record = r#"{"id":1,"serviceArea":"A"}"#;
        assert_eq!(parse_endpoints(&many(MAX_RECORDS, record)).unwrap().0.len(), MAX_RECORDS);
        let error = parse_endpoints(&many(MAX_RECORDS + 1, record)).unwrap_err();
        assert_eq!(error.name(), "too_large");

        let ips = vec![r#""40.96.0.0/13""#; 1001].join(",");
        let record = format!(r#"{{"id":1,"serviceArea":"A","ips":[{ips}]}}"#);
        assert!(parse_endpoints(&many(99, &record)).is_ok());
        assert_eq!(parse_endpoints(&many(100, &record)).unwrap_err().name(), "too_large");

        for (key, length) in [("serviceArea", 253), ("serviceArea", 254), ("urls", 254)] {
            let text = "x".repeat(length);
            let mut set = serde_json::json!({ "id": 1, "serviceArea": "A" });
            set[key] = if key == "urls" { [text].into() } else { text.into() };
            let result = parse_endpoints(serde_json::json!([set]).to_string().as_bytes());
            assert_eq!(result.is_ok(), length == 253, "{key} {length}");
        }

        let blanks = vec![b' '; MAX_BYTES + 1];
        assert_eq!(parse_endpoints(&blanks).unwrap_err().name(), "too_large");
        assert_eq!(parse_version(&blanks, Instance::Worldwide).unwrap_err().name(), "too_large");
    }

    #[test]
    fn versions_of_the_documented_forms_are_read() {
        let expected: Version = "2018063000".parse().unwrap();
        for file in ["version-all.docs.json", "version-worldwide-allversions.docs.json"] {
            let body = capture(&format!("samples/{file}"));
            assert_eq!(parse_version(&body, Instance::Worldwide), Ok(expected), "{file}");
        }
        let body = br#"{"instance":"worldwide","latest":"2026112300"}"#;
        assert!(parse_version(body, Instance::Worldwide).is_ok());
        assert_eq!(parse_version(body, Instance::China).unwrap_err().name(), "other_instance");
        for latest in ["\"0\"", "2026112300", "\"20261123000\"", "\"+202611230\"", "null"] {
            let body = format!(r#"{{"instance":"Worldwide","latest":{latest}}}"#);
            let error = parse_version(body.as_bytes(), Instance::Worldwide).unwrap_err();
            assert_eq!(error.name(), "malformed", "{latest}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(body in proptest::collection::vec(any::<u8>(), 0..512)) {
            let _ = parse_endpoints(&body);
            let _ = parse_version(&body, Instance::Worldwide);
        }

        #[test]
        fn a_damaged_capture_is_read_or_refused(
            damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut body = capture("history/china-2023062900-partial.json");
            for (at, byte) in damage {
                let at = at.index(body.len());
                body[at] = byte;
            }
            let keep = cut.index(body.len().saturating_mul(2)).min(body.len());
            if let Ok(sets) = parse_endpoints(&body[..keep]) {
                prop_assert!(sets.0.len() <= MAX_RECORDS);
            }
        }
    }
}
