//! Runs a command on a machine that has other work to do: what `integration/busy-machine` runs.

#![allow(clippy::unwrap_used)]

use std::process::{Command, ExitCode};

use integration::BusyMachine;

#[tokio::main]
async fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1);
    let Some(program) = words.next() else {
        eprintln!("usage: integration/busy-machine COMMAND [ARGUMENT]...");
        return ExitCode::from(64);
    };
    let mut command = Command::new(program);
    command.args(words);
    let machine = BusyMachine::start().await;
    let code = machine.run(command).await;
    drop(machine);
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}
