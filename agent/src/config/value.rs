//! Values that are checked while they are read.

use std::{fmt, time::Duration};

use ipnet::IpNet;
use serde::{
    Deserialize, Deserializer,
    de::{Error, SeqAccess, Visitor},
};

use crate::source::{concealed, parse_prefix};

/// A span of time as text: `20s`, `5m`, `1h`, `30d`.
pub(super) fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_duration(&text).ok_or_else(|| {
        D::Error::custom(format_args!(
            "{text:?} is not a time such as \"20s\", \"5m\", \"1h\" or \"30d\""
        ))
    })
}

/// A span of time as text, if the field is there.
pub(super) fn some_duration<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Duration>, D::Error> {
    duration(deserializer).map(Some)
}

/// Reads a span of time such as `20s`, `5m`, `1h` or `30d`.
#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match text.strip_prefix(digits)? {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return None,
    };
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    // Beyond this, adding to a time could overflow somewhere.
    const LONGEST: u64 = 366 * 86_400;
    let seconds = digits.parse::<u64>().ok()?.checked_mul(unit)?;
    (seconds <= LONGEST).then(|| Duration::from_secs(seconds))
}

/// A number of bytes as text: `8KiB`, `1MiB`, `2GiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Size(pub(super) usize);

impl TryFrom<String> for Size {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let unit = match text.strip_prefix(digits) {
            Some("KiB") => Some(1usize << 10),
            Some("MiB") => Some(1 << 20),
            Some("GiB") => Some(1 << 30),
            _ => None,
        };
        let number = digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok());
        unit.zip(number.flatten())
            .and_then(|(unit, number): (_, usize)| number.checked_mul(unit))
            .map(Self)
            .ok_or_else(|| format!("{text:?} is not a size such as \"8KiB\", \"1MiB\" or \"2GiB\""))
    }
}

/// A [`Size`], as bytes.
pub(super) fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    Size::deserialize(deserializer).map(|Size(bytes)| bytes)
}

/// Where the web service is.
pub(super) fn base_url<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    let url: Option<hyper::Uri> = text.parse().ok();
    match url {
        Some(url)
            if url.scheme_str() == Some("https")
                && url.host().is_some()
                && url.query().is_none() =>
        {
            Ok(text.trim_end_matches('/').to_owned())
        }
        _ => Err(D::Error::custom(format_args!(
            "{:?} is not allowed; it must be https://host[:port][/path], because the list decides \
             who may pass",
            concealed(&text)
        ))),
    }
}

/// A destination port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "i64")]
pub(super) struct Port(pub(super) u16);

impl TryFrom<i64> for Port {
    type Error = String;

    fn try_from(number: i64) -> Result<Self, String> {
        u16::try_from(number)
            .ok()
            .filter(|port| *port != 0)
            .map(Self)
            .ok_or_else(|| format!("{number} is not a port; ports are 1 to 65535"))
    }
}

/// A prefix in a static source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Prefix(pub(super) IpNet);

impl TryFrom<String> for Prefix {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        parse_prefix(&text).map(Self)
    }
}

/// Which destination addresses the guards protect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destinations {
    /// All, also those of traffic that the host forwards.
    Any,
    /// The addresses of the host, as they come and go.
    Local,
    /// These.
    Prefixes(Vec<IpNet>),
}

impl<'de> Deserialize<'de> for Destinations {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Words;

        impl<'de> Visitor<'de> for Words {
            type Value = Destinations;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"any\", \"local\" or a list of prefixes")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Destinations, E> {
                match text {
                    "any" => Ok(Destinations::Any),
                    "local" => Ok(Destinations::Local),
                    _ => Err(E::custom(format_args!(
                        "{text:?} is not allowed; it must be \"any\", \"local\" or a list of \
                         prefixes"
                    ))),
                }
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Destinations, A::Error> {
                let mut prefixes = Vec::new();
                while let Some(Prefix(prefix)) = seq.next_element()? {
                    prefixes.push(prefix);
                }
                if prefixes.is_empty() {
                    return Err(A::Error::custom("an empty list would guard nothing"));
                }
                Ok(Destinations::Prefixes(prefixes))
            }
        }

        deserializer.deserialize_any(Words)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_have_a_unit() {
        for (text, seconds) in
            [("20s", 20), ("5m", 300), ("1h", 3600), ("30d", 2_592_000), ("0s", 0)]
        {
            assert_eq!(parse_duration(text), Some(Duration::from_secs(seconds)), "{text}");
        }
        for (text, bytes) in [("8KiB", 8192), ("1MiB", 1 << 20), ("2GiB", 2 << 30)] {
            assert_eq!(Size::try_from(text.to_owned()), Ok(Size(bytes)));
        }
        for text in ["", "1", "MiB", "-1MiB", "1.5MiB", "1MB", "99999999999999999999GiB"] {
            assert!(Size::try_from(text.to_owned()).is_err(), "{text}");
        }
        for text in
            ["", "20", "s", "-1s", "1.5h", "1 h", "1w", "+1s", "400d", "99999999999999999999d"]
        {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }
}
