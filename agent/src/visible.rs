//! Text from pods, images, registries and the API, made safe for a terminal: a character that would move the cursor,
//! send the terminal a command, turn the reading direction or leave no trace is written as its escape sequence in
//! Go's notation (`\x1b`, `\u202e`). kubectl had to learn this as CVE-2021-25743.

use std::borrow::Cow;
use std::fmt::Write as _;

use unicode_width::UnicodeWidthStr;

/// The text as one line, in which everything can be seen. Line ends and tabs are escaped too.
pub(crate) fn visible(text: &str) -> Cow<'_, str> {
    escaped(text, is_unseen, push_escape)
}

/// The text with its lines and tabs, in which everything else can be seen. For text whose lines the program has made:
/// what comes from outside goes through [`visible`] first, so that it cannot add lines of its own.
pub(crate) fn visible_lines(text: &str) -> Cow<'_, str> {
    escaped(
        text,
        |character| !matches!(character, '\n' | '\t') && is_unseen(character),
        push_escape,
    )
}

/// JSON with every unseen character as JSON's own escape, so that its value is the same. Such a character can stand
/// within the quotes of a string only, so nothing of the grammar is touched.
pub(crate) fn visible_json(json: &str) -> Cow<'_, str> {
    escaped(
        json,
        |character| !matches!(character, '\n' | '\t') && is_unseen(character),
        |text, character| {
            for unit in character.encode_utf16(&mut [0; 2]) {
                // Writing to a String cannot fail.
                let _ = write!(text, "\\u{unit:04x}");
            }
        },
    )
}

/// How many columns of a terminal a visible text takes.
pub(crate) fn width(text: &str) -> usize {
    text.width()
}

/// Whether a character controls a terminal, or changes what is read without being seen itself.
pub(crate) fn is_unseen(character: char) -> bool {
    // C0, DEL and C1.
    character.is_control()
        || matches!(
            character,
            // The soft hyphen, and letters without a shape.
            '\u{ad}' | '\u{34f}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{3164}' | '\u{ffa0}'
            // Marks, embeddings, overrides and isolates of the reading direction.
            | '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{206f}'
            // Spaces without width and joiners: names that differ would look alike.
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200d}' | '\u{2060}'..='\u{2065}' | '\u{feff}'
            // The separators of lines and paragraphs.
            | '\u{2028}' | '\u{2029}'
            // Annotations, shorthand and music, tags. (Variation selectors, U+FE00-F, choose the form of the
            // character before them, which is seen.)
            | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}'
        )
}

/// The text with the characters that `is_escaped` chooses written by `push`.
fn escaped(text: &str, is_escaped: impl Fn(char) -> bool, push: impl Fn(&mut String, char)) -> Cow<'_, str> {
    let Some(first) = text.find(&is_escaped) else {
        return Cow::Borrowed(text);
    };
    let mut shown = String::with_capacity(text.len() + 16);
    shown.push_str(&text[..first]);
    for character in text[first..].chars() {
        match is_escaped(character) {
            true => push(&mut shown, character),
            false => shown.push(character),
        }
    }
    Cow::Owned(shown)
}

/// Adds a character in Go's notation, which is YAML's within double quotes, too.
fn push_escape(text: &mut String, character: char) {
    // Writing to a String cannot fail.
    let _ = match character {
        '\n' => text.write_str("\\n"),
        '\r' => text.write_str("\\r"),
        '\t' => text.write_str("\\t"),
        '\0'..='\x7f' => write!(text, "\\x{:02x}", character as u32),
        '\u{80}'..='\u{ffff}' => write!(text, "\\u{:04x}", character as u32),
        _ => write!(text, "\\U{:08x}", character as u32),
    };
}

/// What the tests of all that prints put into names, messages and logs.
#[cfg(test)]
pub(crate) mod hostile {
    use jiff::Timestamp;
    use serde_json::Value;

    use super::is_unseen;

    /// What a container or a registry might write, and what is shown of it.
    pub(crate) const TEXTS: [(&str, &str); 15] = [
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("\x1b]52;c;cm0gLXJm\x1b\\", r"\x1b]52;c;cm0gLXJm\x1b\"),
        ("\x1b[2J\x1b[H", r"\x1b[2J\x1b[H"),
        ("failed\rready", r"failed\rready"),
        ("a\u{8}b\u{b}c\u{c}d\0", r"a\x08b\x0bc\x0cd\x00"),
        ("\u{7f}", r"\x7f"),
        ("\u{9b}2J\u{9d}0;x\u{9c}", r"\u009b2J\u009d0;x\u009c"),
        ("\u{85}", r"\u0085"),
        ("\u{202e}drow\u{202c}", r"\u202edrow\u202c"),
        (
            "\u{2066}a\u{2069}\u{200e}\u{200f}\u{61c}",
            r"\u2066a\u2069\u200e\u200f\u061c",
        ),
        ("a\u{2028}b\u{2029}c", r"a\u2028b\u2029c"),
        ("web\u{200b}\u{200d}\u{feff}", r"web\u200b\u200d\ufeff"),
        ("\u{e0041}", r"\U000e0041"),
        ("two\nlines\tand a tab", r"two\nlines\tand a tab"),
        (
            "schön 世界 \\x1b ❤\u{fe0f} e\u{301}",
            "schön 世界 \\x1b ❤\u{fe0f} e\u{301}",
        ),
    ];

    /// An object with `text` at the end of all its strings but what has to be read: its kind, and times.
    pub(crate) fn spoiled(value: &Value, text: &str) -> Value {
        match value {
            Value::String(string) if string.parse::<Timestamp>().is_err() => format!("{string}{text}").into(),
            Value::Array(items) => items.iter().map(|item| spoiled(item, text)).collect(),
            Value::Object(fields) => fields
                .iter()
                .map(|(name, value)| match name.as_str() {
                    "apiVersion" | "kind" => (name.clone(), value.clone()),
                    _ => (name.clone(), spoiled(value, text)),
                })
                .collect(),
            other => other.clone(),
        }
    }

    /// That nothing but line ends in `printed` is unseen.
    #[track_caller]
    pub(crate) fn assert_visible(printed: &str) {
        let unseen = printed.chars().find(|one| *one != '\n' && is_unseen(*one));
        assert_eq!(unseen, None, "{printed}");
    }
}

#[cfg(test)]
mod tests {
    use super::hostile::{TEXTS, assert_visible};
    use super::*;

    #[test]
    fn what_controls_a_terminal_or_is_not_seen_is_written_out() {
        for (text, shown) in TEXTS {
            assert_eq!(visible(text), shown);
            assert_eq!(visible(shown), shown, "what is visible stays as it is");
            assert_eq!(
                visible_lines(text),
                shown.replace(r"\n", "\n").replace(r"\t", "\t")
            );
        }
    }

    #[test]
    fn every_control_character_is_escaped() {
        for character in ('\0'..='\u{10ffff}').filter(|character| character.is_control()) {
            let shown = visible(&character.to_string()).into_owned();
            assert!(
                shown.starts_with('\\') && shown.is_ascii() && shown.len() >= 2,
                "{shown:?}"
            );
        }
    }

    #[test]
    fn json_keeps_its_value() {
        for (text, _) in TEXTS {
            let json = serde_json::to_string_pretty(&serde_json::json!({text: [text]})).unwrap();
            let shown = visible_json(&json);
            assert_visible(&shown);
            let back: serde_json::Value = serde_json::from_str(&shown).unwrap();
            assert_eq!(back, serde_json::json!({text: [text]}));
        }
    }

    #[test]
    fn a_wide_character_takes_two_columns_and_a_combining_one_none() {
        assert_eq!((width("web"), width("世界"), width("e\u{301}")), (3, 4, 1));
    }
}
