//! The terminal that the command runs in: raw while a container's terminal is shown, put back however the
//! command ends, and its size.

use std::io;
use std::sync::{Mutex, Once, PoisonError};

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::task::AbortOnDropHandle;

use crate::pod::streaming::TerminalSize;

/// How the terminal was before it was made raw; `None` while it is not raw.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

/// The signals that end the command, with the terminal put back first.
const ENDING: [SignalKind; 4] = [
    SignalKind::hangup(),
    SignalKind::interrupt(),
    SignalKind::quit(),
    SignalKind::terminate(),
];

/// Standard input's terminal in raw mode: keys go to the container as they are, Ctrl-C too. Dropping it puts the
/// terminal back, and so does a panic, and a signal that ends the command (which then exits with 128 + signal).
pub(crate) struct RawTerminal {
    _signals: Vec<AbortOnDropHandle<()>>,
}

impl RawTerminal {
    /// Makes standard input's terminal raw; fails where standard input is not a terminal. Needs a tokio runtime.
    pub(crate) fn enter() -> io::Result<RawTerminal> {
        let before = tcgetattr(io::stdin())?;
        let signals = ENDING.map(restore_and_exit_on);
        restore_on_panic();
        let mut raw = before.clone();
        raw.make_raw();
        *BEFORE.lock().unwrap_or_else(PoisonError::into_inner) = Some(before);
        // The guard exists before the change, so that the terminal is put back if the change fails half-way.
        let guard = RawTerminal {
            _signals: signals.into_iter().collect::<io::Result<_>>()?,
        };
        tcsetattr(io::stdin(), OptionalActions::Now, &raw)?;
        Ok(guard)
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        restore();
    }
}

/// Puts the terminal back if it is raw. What was typed and not read stays for the shell.
fn restore() {
    let before = BEFORE.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(before) = before {
        // There is nothing to do about a terminal that is gone.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &before);
    }
}

fn restore_and_exit_on(kind: SignalKind) -> io::Result<AbortOnDropHandle<()>> {
    let mut signals = signal(kind)?;
    Ok(AbortOnDropHandle::new(tokio::spawn(async move {
        if signals.recv().await.is_some() {
            restore();
            std::process::exit(128 + kind.as_raw_value());
        }
    })))
}

/// Puts the terminal back before a panic's message is printed: in raw mode its lines would run askew.
fn restore_on_panic() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let print = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            restore();
            print(panic);
        }));
    });
}

/// The size of standard output's terminal, else of standard input's; `None` where neither is a terminal.
pub(crate) fn terminal_size() -> Option<TerminalSize> {
    #[expect(clippy::disallowed_methods, reason = "writes nothing")]
    let size = tcgetwinsize(io::stdout())
        .or_else(|_| tcgetwinsize(io::stdin()))
        .ok()?;
    Some(TerminalSize {
        width: size.ws_col,
        height: size.ws_row,
    })
}

/// The terminal's sizes as its window changes.
pub(crate) struct TerminalSizes(Signal);

impl TerminalSizes {
    /// Starts to look for changes.
    pub(crate) fn watch() -> io::Result<TerminalSizes> {
        signal(SignalKind::window_change()).map(TerminalSizes)
    }

    /// Waits for the next change and gives the new size. Can be dropped and called again without losing one.
    pub(crate) async fn changed(&mut self) -> Option<TerminalSize> {
        self.0.recv().await?;
        terminal_size()
    }
}
