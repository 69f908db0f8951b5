//! The one place where the command line writes to its standard streams. clippy refuses every other
//! (`disallowed-methods` in `clippy.toml`, `print_stdout` and `print_stderr` in `main.rs`).
//!
//! What is printed is made visible here ([`visible_lines`]), so nothing that a pod, an image, a registry or the API
//! has in it reaches a terminal as a command. Two things pass as they are: our own colours, and the bytes of a
//! container, which are a log's, an attach's or an exec's.
#![expect(clippy::disallowed_methods, reason = "the one place where they are allowed")]

use std::io::{IsTerminal, Write};

use super::failure::Failure;
use crate::visible::{visible, visible_lines};

/// A colour of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Colour {
    Green,
    Yellow,
    Red,
}

impl Colour {
    /// Its SGR code (ECMA-48).
    fn code(self) -> u8 {
        match self {
            Colour::Green => 32,
            Colour::Yellow => 33,
            Colour::Red => 31,
        }
    }
}

/// A stretch of text in one colour, or in the terminal's own.
pub(crate) type Span<'a> = (Option<Colour>, &'a str);

/// Writes lines to stdout, at once. A line end in the text ends a line: what comes from outside is made
/// [`visible`] where it is put into a line.
pub(crate) fn print(lines: &str) -> Result<(), Failure> {
    print_spans(&[(None, lines)])
}

/// Writes one line to stdout, at once.
pub(crate) fn print_line(line: &str) -> Result<(), Failure> {
    print(&format!("{}\n", visible(line)))
}

/// [`print`], with colours where [`stdout_is_coloured`].
pub(crate) fn print_spans(spans: &[Span]) -> Result<(), Failure> {
    write_container_bytes(rendered(spans, stdout_is_coloured()).as_bytes())
}

/// Writes what a container wrote to stdout as it is, at once.
pub(crate) fn write_container_bytes(bytes: &[u8]) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(bytes)?;
    Ok(stdout.flush()?)
}

/// Where a container's standard output goes as it is.
pub(crate) fn container_stdout() -> tokio::io::Stdout {
    tokio::io::stdout()
}

/// Where a container's standard error goes as it is.
pub(crate) fn container_stderr() -> tokio::io::Stderr {
    tokio::io::stderr()
}

/// Tells the user something on stderr, in one line.
pub(crate) fn tell(line: &str) {
    tell_lines(&format!("{}\n", visible(line)));
}

/// Writes lines to stderr; see [`print`].
pub(crate) fn tell_lines(lines: &str) {
    // Nobody is left to tell when that fails.
    let _ = std::io::stderr()
        .lock()
        .write_all(visible_lines(lines).as_bytes());
}

/// [`tell`], while a container's terminal is shown: on a line of its own, from the left.
pub(crate) fn tell_in_raw_terminal(line: &str) {
    let line = format!("\r\n{}\r\n", visible(line));
    let _ = std::io::stderr().lock().write_all(line.as_bytes());
}

/// Prints clap's help or version, which hold nothing but our own words and colours.
pub(crate) fn print_help(help: &clap::Error) {
    // Nobody is left to tell when it cannot be printed.
    let _ = help.print();
}

/// Whether a person watches stderr.
pub(crate) fn stderr_is_terminal() -> bool {
    std::io::stderr().is_terminal()
}

/// Whether a person who wants colours (https://no-color.org) watches stdout.
fn stdout_is_coloured() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}

fn rendered(spans: &[Span], coloured: bool) -> String {
    let rendered = spans.iter().map(|(colour, text)| {
        let text = visible_lines(text);
        match colour.filter(|_| coloured) {
            Some(colour) => format!("\x1b[{}m{text}\x1b[0m", colour.code()),
            None => text.into_owned(),
        }
    });
    rendered.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_pass_and_what_is_coloured_is_made_visible() {
        let spans = [(Some(Colour::Red), "FAIL\x1b[0m"), (None, "  logs\r\tx\n")];
        assert_eq!(
            rendered(&spans, true),
            "\x1b[31mFAIL\\x1b[0m\x1b[0m  logs\\r\tx\n"
        );
        assert_eq!(rendered(&spans, false), "FAIL\\x1b[0m  logs\\r\tx\n");
    }
}
