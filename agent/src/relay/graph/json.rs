//! JSON of which the bytes are kept: fields and elements as they stand there.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

/// A string, or `null`.
pub(super) fn string(value: &RawValue) -> serde_json::Result<Option<Cow<'_, str>>> {
    #[derive(Deserialize)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

    Ok(serde_json::from_str::<Option<Text<'_>>>(value.get())?.map(|text| text.0))
}

/// The fields of these names in an object; `None` if it has one of them twice,
/// other capitals included.
pub(super) fn fields<'a, const N: usize>(
    object: &'a str,
    names: [&str; N],
) -> serde_json::Result<Option<[Option<&'a RawValue>; N]>> {
    let mut json = serde_json::Deserializer::from_str(object);
    let found = json.deserialize_map(Fields(names))?;
    json.end()?;
    Ok(found)
}

struct Fields<'n, const N: usize>([&'n str; N]);

impl<'de, const N: usize> Visitor<'de> for Fields<'_, N> {
    type Value = Option<[Option<&'de RawValue>; N]>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = [None; N];
        let mut ambiguous = false;
        while let Some(place) = map.next_key_seed(Name(&self.0))? {
            match place.map(|place| found.get_mut(place)) {
                // Other capitals.
                Some(None) => {
                    ambiguous = true;
                    map.next_value::<IgnoredAny>()?;
                }
                Some(Some(field)) => ambiguous |= field.replace(map.next_value()?).is_some(),
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok((!ambiguous).then_some(found))
    }
}

/// The place of a name among others; one beyond them if only its capitals differ.
struct Name<'n>(&'n [&'n str]);

impl<'de> DeserializeSeed<'de> for Name<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_identifier(self)
    }
}

impl Visitor<'_> for Name<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a field")
    }

    fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<Self::Value, E> {
        if let Some(place) = self.0.iter().position(|known| *known == name) {
            return Ok(Some(place));
        }
        let is_alike = self.0.iter().any(|known| known.eq_ignore_ascii_case(name));
        Ok(is_alike.then_some(self.0.len()))
    }
}

/// The first elements of an array, and whether there are more.
pub(super) struct AtMost<'a, const N: usize> {
    pub(super) list: Vec<&'a RawValue>,
    pub(super) more: bool,
}

impl<'de: 'a, 'a, const N: usize> Deserialize<'de> for AtMost<'a, N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Elements<const N: usize>;

        impl<'de, const N: usize> Visitor<'de> for Elements<N> {
            type Value = AtMost<'de, N>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut list = Vec::new();
                while let Some(element) = seq.next_element()? {
                    if list.len() == N {
                        while seq.next_element::<IgnoredAny>()?.is_some() {}
                        return Ok(AtMost { list, more: true });
                    }
                    list.push(element);
                }
                Ok(AtMost { list, more: false })
            }
        }

        deserializer.deserialize_seq(Elements::<N>)
    }
}
