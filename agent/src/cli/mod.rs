//! The command line: one file per subcommand.

pub(crate) mod raw_terminal;
pub(crate) mod stream_client;

/// Parses the arguments and hands over to the subcommand.
pub(crate) fn main() -> std::process::ExitCode {
    std::process::ExitCode::SUCCESS
}
