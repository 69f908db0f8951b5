//! The signals that ask a command to end: an interrupt, an end, a terminal that is closed.

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::failure::Failure;

/// What shells add to a signal's number for the exit code of a command that ended by it.
const BY_SIGNAL: i32 = 128;

/// Waits for a signal; from when it is made on, none ends the process by itself.
#[derive(Debug)]
pub(crate) struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Interrupts {
    /// Begins to catch the signals.
    pub(crate) fn catch() -> Result<Interrupts, Failure> {
        let catch =
            |kind| signal(kind).map_err(|error| Failure::new(format!("cannot catch signals: {error}")));
        Ok(Interrupts {
            interrupt: catch(SignalKind::interrupt())?,
            terminate: catch(SignalKind::terminate())?,
            hangup: catch(SignalKind::hangup())?,
        })
    }

    /// The exit code that the next signal asks for. May be dropped and called again.
    pub(crate) async fn next(&mut self) -> u8 {
        let kind = tokio::select! {
            _ = self.interrupt.recv() => SignalKind::interrupt(),
            _ = self.terminate.recv() => SignalKind::terminate(),
            _ = self.hangup.recv() => SignalKind::hangup(),
        };
        u8::try_from(BY_SIGNAL + kind.as_raw_value()).unwrap_or(u8::MAX)
    }
}
