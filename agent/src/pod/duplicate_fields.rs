//! Fields that stand twice in a JSON text: the last one counts, which is seldom what was meant.

use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// How many fields are named: whoever sends more learns enough from the first.
const MAX_NAMED: usize = 16;

/// How many bytes of a path are shown.
const MAX_PATH_BYTES: usize = 256;

/// The paths of the first fields that stand in an object more than once, in their order; none where the text is not
/// JSON.
pub(crate) fn duplicate_fields(json: &[u8]) -> Vec<String> {
    let mut search = Search {
        way: Vec::new(),
        found: Vec::new(),
    };
    let mut json = serde_json::Deserializer::from_slice(json);
    match search.deserialize(&mut json) {
        Ok(()) => search.found,
        // Not a fault of the text: the search breaks off so.
        Err(_) if search.is_over() => search.found,
        Err(_) => Vec::new(),
    }
}

/// A step from an object or a list to one of its values.
enum Step {
    Field(String),
    Entry(usize),
}

/// The search through a text. The way to where it is is kept once, and written out only for what is found: a path for
/// each value would take the square of the text.
struct Search {
    way: Vec<Step>,
    found: Vec<String>,
}

impl Search {
    fn is_over(&self) -> bool {
        self.found.len() >= MAX_NAMED
    }

    /// The way as a path: `spec.containers[0].name`, cut where it is too long.
    fn path(&self) -> String {
        let mut path = String::new();
        for step in &self.way {
            match step {
                Step::Field(name) => {
                    if !path.is_empty() {
                        path.push('.');
                    }
                    // A little more than is shown, so that it is cut like the others.
                    path.push_str(&name[..name.floor_char_boundary(MAX_PATH_BYTES + 4)]);
                }
                Step::Entry(index) => path.push_str(&format!("[{index}]")),
            }
            if path.len() > MAX_PATH_BYTES {
                path.truncate(path.floor_char_boundary(MAX_PATH_BYTES));
                path.push_str("...");
                break;
            }
        }
        path
    }
}

impl<'de> DeserializeSeed<'de> for &mut Search {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for &mut Search {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen = HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            let is_new = seen.insert(key.clone());
            self.way.push(Step::Field(key));
            if !is_new {
                self.found.push(self.path());
                if self.is_over() {
                    return Err(A::Error::custom("enough is found"));
                }
            }
            map.next_value_seed(&mut *self)?;
            self.way.pop();
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        for index in 0.. {
            self.way.push(Step::Entry(index));
            let entry = list.next_element_seed(&mut *self)?;
            self.way.pop();
            if entry.is_none() {
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

    #[test]
    fn of_many_duplicates_the_first_are_named_and_long_paths_are_cut() {
        let key = "k".repeat(1_000_000);
        let found =
            duplicate_fields(format!(r#"{{"{key}": {{{}"a": 0}}}}"#, r#""a":0,"#.repeat(10_000)).as_bytes());
        let cut = format!("{}...", &key[..MAX_PATH_BYTES]);
        assert_eq!(found, vec![cut; MAX_NAMED]);
    }

    #[test]
    fn a_path_is_cut_between_characters() {
        let key = "\u{e4}".repeat(200);
        let found = duplicate_fields(format!(r#"{{"x{key}": [[{{"a": 1, "a": 2}}]]}}"#).as_bytes());
        assert_eq!(found, [format!("x{}...", "\u{e4}".repeat(127))]);
    }
}
