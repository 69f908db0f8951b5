//! The command line: one file per subcommand.

/// Parses the arguments and hands over to the subcommand.
pub(crate) fn main() -> std::process::ExitCode {
    std::process::ExitCode::SUCCESS
}
