//! Which interfaces are filtered: names, and patterns of names.

use std::{borrow::Borrow, fmt, ops::Deref, str::FromStr};

use serde::{Deserialize, Deserializer, de::Error as _};

/// The longest name that the kernel takes, in bytes.
const LONGEST: usize = 15;

/// The name of an interface, or a pattern: `*` stands for any characters, `?` for one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct InterfacePattern(String);

impl InterfacePattern {
    /// Whether it stands for one name alone.
    #[must_use]
    pub fn is_name(&self) -> bool {
        !self.contains(['*', '?'])
    }

    /// Whether an interface of that name is meant. A pattern of several names means
    /// `ordinary` ones only: not the loopback interface, and not what the filter
    /// cannot judge.
    #[must_use]
    pub fn means(&self, name: &str, ordinary: bool) -> bool {
        matches(self.as_bytes(), name.as_bytes()) && (ordinary || self.is_name())
    }
}

/// Whether all of `name` is what `pattern` says. Both are short.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern, name) {
        ([], []) => true,
        ([b'*', rest @ ..], _) => {
            matches(rest, name)
                || name.split_first().is_some_and(|(_, name)| matches(pattern, name))
        }
        ([b'?', pattern @ ..], [_, name @ ..]) => matches(pattern, name),
        ([expected, pattern @ ..], [found, name @ ..]) => {
            expected == found && matches(pattern, name)
        }
        _ => false,
    }
}

impl FromStr for InterfacePattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // The kernel's rule (dev_valid_name).
        let valid = (1..=LONGEST).contains(&text.len())
            && text != "."
            && text != ".."
            && !text.contains(|c: char| c == '/' || c == ':' || c.is_whitespace());
        match valid {
            true => Ok(Self(text.to_owned())),
            false => {
                Err(format!("{text:?} is not the name of an interface, nor a pattern of names"))
            }
        }
    }
}

impl<'de> Deserialize<'de> for InterfacePattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// Names and patterns, each once.
pub(super) fn each_once<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<InterfacePattern>, D::Error> {
    let patterns = Vec::<InterfacePattern>::deserialize(deserializer)?;
    for (index, pattern) in patterns.iter().enumerate() {
        if patterns.iter().take(index).any(|other| other == pattern) {
            return Err(D::Error::custom(format_args!("interface {pattern} is named twice")));
        }
    }
    Ok(patterns)
}

impl fmt::Display for InterfacePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

impl Deref for InterfacePattern {
    type Target = str;

    fn deref(&self) -> &str {
        let Self(text) = self;
        text
    }
}

impl Borrow<str> for InterfacePattern {
    fn borrow(&self) -> &str {
        self
    }
}

impl serde::Serialize for InterfacePattern {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pattern(text: &str) -> InterfacePattern {
        text.parse().unwrap()
    }

    #[test]
    fn a_name_means_itself() {
        assert!(pattern("eth0").is_name());
        assert!(pattern("lo").means("lo", false), "who names it means it");
        assert!(!pattern("*").means("lo", false));
        assert!(pattern("eth0").means("eth0", true));
        for other in ["eth", "eth00", "Eth0", ""] {
            assert!(!pattern("eth0").means(other, true), "{other}");
        }
    }

    #[test]
    fn a_pattern_means_all_names_that_fit() {
        for (text, fit, others) in [
            ("eth*", vec!["eth", "eth0", "eth0.100"], vec!["et", "veth0"]),
            ("*", vec!["a", "wg0"], vec![]),
            ("en?s*", vec!["enps", "enps0"], vec!["ens", "enpp"]),
            ("*a*b", vec!["ab", "xaxb", "aabab"], vec!["a", "abc"]),
        ] {
            assert!(!pattern(text).is_name());
            fit.iter().for_each(|name| assert!(pattern(text).means(name, true), "{text} {name}"));
            others
                .iter()
                .for_each(|name| assert!(!pattern(text).means(name, true), "{text} {name}"));
        }
    }

    #[test]
    fn what_no_interface_can_be_called_is_refused() {
        for text in ["", ".", "..", "a/b", "a:b", "a b", "sixteen-letters-"] {
            assert!(text.parse::<InterfacePattern>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_star_stands_for_any_part(start in "[a-z]{0,4}", middle in "[a-z0-9.]{0,4}", end in "[a-z]{1,4}") {
            let star = pattern(&format!("{start}*{end}"));
            let name = format!("{start}{middle}{end}");
            prop_assert!(star.means(&name, true));
            let longer = name + "-";
            prop_assert!(!star.means(&longer, true));
        }
    }
}
