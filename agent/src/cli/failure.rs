//! How a command ends when it could not do what it was asked: one line that says so, perhaps a second that says
//! what to do, and the exit code.

use std::io;

use super::client::ClientError;
use crate::visible::visible;

/// The exit code of a command that failed.
const FAILED: u8 = 1;

/// Why a command ends without having done what it was asked.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// What could not be done, to which object, and why: no capital, no full stop. Empty: nothing is printed.
    pub(crate) message: String,
    /// What the user can do about it: a sentence; empty if nothing.
    pub(crate) hint: String,
    /// The exit code of the command.
    pub(crate) exit_code: u8,
}

impl Failure {
    /// A failure with exit code 1.
    pub(crate) fn new(message: impl Into<String>) -> Failure {
        Failure {
            message: message.into(),
            hint: String::new(),
            exit_code: FAILED,
        }
    }

    /// Adds the line that says what can be done about it.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Failure {
        self.hint = hint.into();
        self
    }

    /// An end that has nothing more to say: the exit code says it all.
    pub(crate) fn silent(exit_code: u8) -> Failure {
        Failure {
            message: String::new(),
            hint: String::new(),
            exit_code,
        }
    }

    /// The lines for stderr, each with its end.
    pub(crate) fn lines(&self) -> String {
        let mut lines = String::new();
        if !self.message.is_empty() {
            lines.push_str(&format!("debuglet: {}\n", visible(&self.message)));
        }
        if !self.hint.is_empty() {
            lines.push_str(&format!("  {}\n", visible(&self.hint)));
        }
        lines
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Failure {
        let hint = error.hint();
        Failure::new(error.to_string()).hint(hint)
    }
}

impl From<io::Error> for Failure {
    /// An output that cannot be written to. One whose reader has gone (`| head`) is no news to anybody.
    fn from(error: io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::silent(FAILED),
            _ => Failure::new(format!("cannot write the output: {error}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_one_line_and_what_to_do_is_a_second() {
        let failure = Failure::new("cannot do it").hint("Do it otherwise.");
        assert_eq!(failure.lines(), "debuglet: cannot do it\n  Do it otherwise.\n");
        assert_eq!(Failure::new("cannot do it").lines(), "debuglet: cannot do it\n");
    }

    #[test]
    fn what_comes_from_outside_adds_no_line() {
        let failure = Failure::new("the registry said: no\r\ndebuglet: all is well\x1b[2J").hint("a\nb");
        assert_eq!(
            failure.lines(),
            "debuglet: the registry said: no\\r\\ndebuglet: all is well\\x1b[2J\n  a\\nb\n"
        );
    }

    #[test]
    fn a_reader_that_has_gone_is_not_reported() {
        let failure = Failure::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!(failure.lines(), "");
    }
}
