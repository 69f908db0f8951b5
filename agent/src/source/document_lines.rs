//! In which line of a text a field stands: for messages that a person can act on.

use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

/// The lines of all fields of all documents of a text.
pub(super) struct Lines(Vec<Spanned<Fields>>);

/// What is below a node: fields by name, or entries by number (`[0]`).
#[derive(Default)]
struct Fields(Vec<Field>);

struct Field {
    name: String,
    line: u64,
    below: Fields,
}

impl Lines {
    /// Reads the lines of a text, if it is YAML (as JSON is).
    pub(super) fn of(text: &str) -> Option<Lines> {
        let options = serde_saphyr::options! { with_snippet: false };
        serde_saphyr::from_multiple_with_options(text, options)
            .ok()
            .map(Lines)
    }

    /// The line of a field such as `spec.containers[0].image`, or of the innermost one around it.
    pub(super) fn of_field(&self, document: usize, field: &str) -> Option<u64> {
        let root = self.0.get(document)?;
        let (mut line, mut fields, mut rest) = (root.defined.line(), &root.value, field);
        while let Some((next, after)) = step(fields, rest) {
            (line, fields, rest) = (next.line, &next.below, after);
        }
        (line > 0).then_some(line)
    }
}

/// One step down the path. A key may hold dots itself, so the longest that fits is taken.
fn step<'a, 'b>(fields: &'a Fields, path: &'b str) -> Option<(&'a Field, &'b str)> {
    let fitting = fields.0.iter().filter_map(|field| {
        let after = path.strip_prefix(field.name.as_str())?;
        match after.strip_prefix('.') {
            Some(after) => Some((field, after)),
            None if after.is_empty() || after.starts_with('[') => Some((field, after)),
            None => None,
        }
    });
    fitting.max_by_key(|(field, _)| field.name.len())
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Fields, D::Error> {
        deserializer.deserialize_any(FieldsVisitor)
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("anything")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
        let mut fields = Vec::new();
        while let Some((name, below)) = map.next_entry::<Spanned<String>, Fields>()? {
            fields.push(Field {
                name: name.value,
                line: name.defined.line(),
                below,
            });
        }
        Ok(Fields(fields))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Fields, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = sequence.next_element::<Spanned<Fields>>()? {
            let name = format!("[{}]", entries.len());
            entries.push(Field {
                name,
                line: entry.defined.line(),
                below: entry.value,
            });
        }
        Ok(Fields(entries))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Fields, E> {
        Ok(Fields::default())
    }

    fn visit_i64<E>(self, _: i64) -> Result<Fields, E> {
        Ok(Fields::default())
    }

    fn visit_u64<E>(self, _: u64) -> Result<Fields, E> {
        Ok(Fields::default())
    }

    fn visit_f64<E>(self, _: f64) -> Result<Fields, E> {
        Ok(Fields::default())
    }

    fn visit_str<E>(self, _: &str) -> Result<Fields, E> {
        Ok(Fields::default())
    }

    fn visit_unit<E>(self) -> Result<Fields, E> {
        Ok(Fields::default())
    }

    fn visit_none<E>(self) -> Result<Fields, E> {
        Ok(Fields::default())
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Fields, D::Error> {
        IgnoredAny::deserialize(deserializer).map(|_| Fields::default())
    }
}
