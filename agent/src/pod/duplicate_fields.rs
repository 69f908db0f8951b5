//! Fields that stand twice in a JSON text: the last one counts, which is seldom what was meant.

use std::collections::BTreeSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// The paths of the fields that stand in an object more than once, in their order; none where the text is not JSON.
pub(crate) fn duplicate_fields(json: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    let search = Search {
        path: String::new(),
        found: &mut found,
    };
    let mut json = serde_json::Deserializer::from_slice(json);
    match search.deserialize(&mut json) {
        Ok(()) => found,
        Err(_) => Vec::new(),
    }
}

/// The search in the value at one path.
struct Search<'a> {
    path: String,
    found: &'a mut Vec<String>,
}

impl<'de> DeserializeSeed<'de> for Search<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Search<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen = BTreeSet::new();
        while let Some(key) = map.next_key::<String>()? {
            let path = match self.path.as_str() {
                "" => key.clone(),
                parent => format!("{parent}.{key}"),
            };
            if !seen.insert(key) {
                self.found.push(path.clone());
            }
            map.next_value_seed(Search {
                path,
                found: self.found,
            })?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        for index in 0.. {
            let search = Search {
                path: format!("{}[{index}]", self.path),
                found: self.found,
            };
            if list.next_element_seed(search)?.is_none() {
                break;
            }
        }
        Ok(())
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_that_stands_twice_is_named_by_its_path() {
        for (text, expected) in [
            (
                r#"{"a": 1, "b": [{"c": null, "c": true}], "a": {"a": "x"}}"#,
                &["b[0].c", "a"][..],
            ),
            (r#"{"a": {"x": 1}, "b": {"x": 1.5}}"#, &[]),
            ("[]", &[]),
            ("{ torn", &[]),
        ] {
            assert_eq!(duplicate_fields(text.as_bytes()), expected, "{text}");
        }
    }
}
