//! JSON and YAML for the terminal: what a program reads from them is what the API holds, and what a person sees of
//! them controls no terminal, because unseen characters stand there as escapes of JSON's and YAML's own.

use serde::{Serialize, Serializer};
use serde_json::Value;
use serde_saphyr::DoubleQuoted;

use super::failure::Failure;
use crate::visible::{is_unseen, visible_json, visible_lines};

/// A value as indented JSON, with a line end.
pub(crate) fn json(value: &impl Serialize) -> Result<String, Failure> {
    let json = serde_json::to_string_pretty(value)
        .map_err(|error| Failure::new(format!("cannot write JSON: {error}")))?;
    Ok(visible_json(&json).into_owned() + "\n")
}

/// A value as YAML.
pub(crate) fn yaml(value: &Value) -> Result<String, Failure> {
    if has_unseen_key(value) {
        // The serializer cannot be told to quote a key. All JSON is YAML.
        return json(value);
    }
    let yaml = serde_saphyr::to_string(&Quoted(value))
        .map_err(|error| Failure::new(format!("cannot write YAML: {error}")))?;
    // What is escaped here stands in double quotes, where YAML knows these escapes.
    Ok(visible_lines(&yaml).into_owned())
}

/// Serializes a value with those strings in double quotes that hold an unseen character.
struct Quoted<'a>(&'a Value);

impl Serialize for Quoted<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::String(text) if has_unseen(text) => DoubleQuoted(text).serialize(serializer),
            Value::Array(items) => serializer.collect_seq(items.iter().map(Quoted)),
            Value::Object(fields) => {
                serializer.collect_map(fields.iter().map(|(name, value)| (name, Quoted(value))))
            }
            other => other.serialize(serializer),
        }
    }
}

fn has_unseen_key(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.iter().any(has_unseen_key),
        Value::Object(fields) => fields
            .iter()
            .any(|(name, value)| has_unseen(name) || has_unseen_key(value)),
        _ => false,
    }
}

/// Whether a text holds an unseen character; line ends and tabs do not count, so that scripts stay legible.
fn has_unseen(text: &str) -> bool {
    text.chars()
        .any(|character| !matches!(character, '\n' | '\t') && is_unseen(character))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Strings that YAML readers could take for something else, and those that a terminal must not see.
    const TRICKY: &[&str] = &[
        "yes",
        "no",
        "on",
        "null",
        "~",
        "0x10",
        "1e3",
        "08",
        "1_000",
        "12:30",
        "2026-11-21",
        "- a",
        "a: b",
        "#x",
        "",
        " lead",
        "trail ",
        "two\nlines\n",
        "tab\tin",
        "a\\b",
        "\"q\"",
        "'",
        "*x",
        "&y",
        "!t",
        "%d",
        "@at",
        "`b",
        "{a}",
        "[b]",
        "|",
        ">",
        "é",
        "\u{1b}[0m",
        "\u{1b}]52;c;eA==\u{7}",
        "over\rwritten",
        "\u{9b}2J",
        "\u{7f}",
        "\u{202e}drow",
        "\u{2066}x\u{2069}",
        "a\u{2028}b",
        "a\nb\u{202e}c\n",
        "a\tb\nc\td\n",
        "\u{feff}x",
        "\u{e0041}",
        "#!/bin/sh\nset -e\n\n  indented: yes\n",
    ];

    #[test]
    fn json_and_yaml_read_back_as_what_was_printed_and_control_no_terminal() {
        let long = format!("{}\u{202e}{}", "word ".repeat(40), "word ".repeat(40));
        let value = json!({
            "kind": "PodList",
            "items": [{"strings": TRICKY, "long": long, "numbers": [1, -5, 1.5], "empty": {}, "none": [],
                       "nothing": null, "flag": true}],
        });
        let mut with_keys = value.clone();
        with_keys["items"][0]["annotations"] = TRICKY
            .iter()
            .map(|text| ((*text).to_owned(), json!(text)))
            .collect();
        for value in [value, with_keys] {
            let (json, yaml) = (json(&value).unwrap(), yaml(&value).unwrap());
            for text in [&json, &yaml] {
                assert!(!has_unseen(text), "{text:?}");
            }
            assert_eq!(serde_json::from_str::<Value>(&json).unwrap(), value, "{json}");
            assert_eq!(serde_saphyr::from_str::<Value>(&yaml).unwrap(), value, "{yaml}");
        }
    }

    #[test]
    fn one_string_with_an_unseen_character_leaves_the_others_as_they_are() {
        let value = json!({"name": "web", "message": "a\u{202e}b"});
        assert_eq!(yaml(&value), Ok("name: web\nmessage: \"a\\u202eb\"\n".into()));
    }
}
