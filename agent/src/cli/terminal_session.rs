//! A container's terminal in ours: everything it wrote, from the first byte, once and in order, whether it comes
//! from the log or from the attach; and on across restarts of the agent.

use std::time::Duration;

use nix::sys::termios::{FlushArg, tcflush};
use serde_json::Value;
use tokio::io::{AsyncReadExt, DuplexStream, Stdin};
use tokio::time::{Instant, timeout_at};

use super::client::{Client, ClientError, launch_path, pod_path, with_query};
use super::failure::Failure;
use super::lost_agent::LostAgent;
use super::output::{tell_in_raw_terminal, write_container_bytes};
use super::printed::{Printed, overlap};
use super::pump::{Streams, keep_size, stream_failure, stream_path};
use super::raw_terminal::RawTerminal;
use super::stream_client::{StreamError, StreamSession, open};

/// How much of a stream is read at once, in bytes.
const BUFFER_BYTES: usize = 32 * 1024;

/// How much of the end of a log is compared with what an attach brings, in bytes.
const OVERLAP_BYTES: usize = 256 * 1024;

/// What was written to the log has come through the attach too when this long nothing more has come, or at the
/// latest after the second while: both are written at the same time.
const QUIET: Duration = Duration::from_millis(30);
const SETTLED: Duration = Duration::from_millis(200);

/// How much of what the container wrote before is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum History {
    /// All of it.
    All,
    /// Its last line: a prompt.
    LastLine,
}

/// How one attach ended.
enum End {
    /// The container has ended.
    Container,
    /// The connection was lost while the container went on.
    Lost(Failure),
    /// The agent is there and does not attach.
    Refused(Failure),
}

/// A container's terminal in ours.
pub(crate) struct TerminalSession<'a> {
    client: &'a Client,
    namespace: &'a str,
    pod: &'a str,
    container: &'a str,
    history: History,
    printed: Printed,
    keys: Stdin,
}

impl<'a> TerminalSession<'a> {
    /// Nothing is shown yet.
    pub(crate) fn new(
        client: &'a Client,
        namespace: &'a str,
        pod: &'a str,
        container: &'a str,
        history: History,
    ) -> TerminalSession<'a> {
        TerminalSession {
            client,
            namespace,
            pod,
            container,
            history,
            printed: Printed::default(),
            keys: tokio::io::stdin(),
        }
    }

    /// Attaches, and again when the agent comes back, until the container has ended.
    pub(crate) async fn run(&mut self, stdin: bool) -> Result<(), Failure> {
        let _raw = RawTerminal::enter()
            .map_err(|error| Failure::new(format!("cannot use the terminal: {error}")))?;
        let mut agent = LostAgent::default();
        loop {
            let end = match self.attach(stdin).await {
                Ok(session) => {
                    if agent.is_away() {
                        agent.is_back();
                        self.drop_keys().await;
                        tell_in_raw_terminal("The agent is back. What was typed in between was lost.");
                    }
                    self.show(session, stdin).await?
                }
                Err(end) => end,
            };
            let failure = match end {
                End::Container => return Ok(()),
                End::Lost(failure) => failure,
                // An agent that has just come back may not know its pods yet.
                End::Refused(failure) if agent.is_away() => failure,
                End::Refused(failure) => return Err(failure),
            };
            if !agent.is_away() {
                tell_in_raw_terminal("The agent went away; waiting up to 30 s for it to come back.");
            }
            agent.wait(failure).await?;
        }
    }

    /// Opens the attach; a refusal because the container has ended is its end.
    async fn attach(&self, stdin: bool) -> Result<StreamSession, End> {
        let streams = Streams {
            stdin,
            output: true,
            tty: true,
        };
        let path = stream_path(self.namespace, self.pod, "attach", self.container, &[], streams);
        match open(self.client.socket(), &path).await {
            Ok(session) => Ok(session),
            Err(StreamError::Refused(status)) => match self.has_ended().await {
                Ok(true) => Err(End::Container),
                _ => Err(End::Refused(ClientError::Refused(status).into())),
            },
            Err(error) => Err(End::Lost(stream_failure(error))),
        }
    }

    /// Shows what the log has and the attach did not bring, then the attach, until that ends.
    async fn show(&mut self, session: StreamSession, stdin: bool) -> Result<End, Failure> {
        let StreamSession {
            stdin: mut to_container,
            mut stdout,
            stderr: _stderr,
            resize,
            outcome,
        } = session;
        if let Some(size) = super::raw_terminal::terminal_size() {
            resize.set(size);
        }
        self.catch_up(&mut stdout).await?;
        let TerminalSession { printed, keys, .. } = self;
        let typing = async {
            if stdin {
                // The terminal's end is not the container's: only the process itself ends.
                let _ = tokio::io::copy(keys, &mut to_container).await;
            }
            std::future::pending::<()>().await;
        };
        let sizing = async {
            keep_size(|size| resize.set(size)).await;
            std::future::pending::<()>().await;
        };
        tokio::select! {
            shown = copy_output(&mut stdout, printed) => shown?,
            () = typing => {}
            () = sizing => {}
        }
        match outcome.wait().await {
            Ok(_) => Ok(End::Container),
            Err(error) => match self.has_ended().await {
                Ok(true) => Ok(End::Container),
                _ => Ok(End::Lost(stream_failure(error))),
            },
        }
    }

    /// Prints what the log has beyond what is printed, then what the attach has brought since and the log has not.
    async fn catch_up(&mut self, stdout: &mut DuplexStream) -> Result<(), Failure> {
        // Without a flush the log has whole lines only; the next ones come through the attach all the same.
        let _ = self.client.post::<Value>(&self.launch("flushlog")).await;
        let log_end = match self.print_log().await {
            Ok(log_end) => log_end,
            Err(LogFailure::Reading(error)) => {
                tell_in_raw_terminal(&format!(
                    "What the container wrote before cannot be read: {error}"
                ));
                Vec::new()
            }
            Err(LogFailure::Printing(failure)) => return Err(failure),
        };
        let mut attached = Vec::new();
        let latest = Instant::now() + SETTLED;
        while attached.len() < OVERLAP_BYTES {
            let until = latest.min(Instant::now() + QUIET);
            match timeout_at(until, stdout.read_buf(&mut attached)).await {
                Ok(Ok(count)) if count > 0 => {}
                _ => break,
            }
        }
        let new = &attached[overlap(&log_end, &attached)..];
        self.printed.add(new);
        write_container_bytes(new)
    }

    /// Prints what of the log is not printed yet, the first time perhaps only its last line, as it is read. Returns the
    /// log's end.
    async fn print_log(&mut self) -> Result<Vec<u8>, LogFailure> {
        // All of it, also where only its last line is shown: counting is what finds the place again after a pause.
        let path = with_query(
            &pod_path(self.namespace, self.pod, "log"),
            [("container", self.container.to_owned())],
        );
        let mut log = self.client.bytes(&path).await.map_err(LogFailure::Reading)?;
        let only_prompt = std::mem::replace(&mut self.history, History::All) == History::LastLine;
        let (mut end, mut rest, mut text) = (Vec::new(), self.printed.rest(), ForRawTerminal::default());
        let mut prompt = Vec::new();
        while let Some(piece) = log.next().await.map_err(LogFailure::Reading)? {
            keep_end(&mut end, &piece);
            let new = rest.next(&piece);
            self.printed.add(new);
            if only_prompt {
                keep_end(&mut prompt, new);
            } else {
                write_container_bytes(&text.convert(new)).map_err(LogFailure::Printing)?;
            }
        }
        let new = rest.end();
        self.printed.add(&new);
        let line = prompt.iter().rposition(|byte| *byte == b'\n');
        let prompt = &prompt[line.map_or(0, |end| end + 1)..];
        write_container_bytes(&text.convert(prompt)).map_err(LogFailure::Printing)?;
        write_container_bytes(&text.convert(&new)).map_err(LogFailure::Printing)?;
        Ok(end)
    }

    /// Prints what the log still has once the container has ended.
    pub(crate) async fn print_rest(&mut self) -> Result<(), Failure> {
        self.print_log().await.map(drop).map_err(|failure| match failure {
            LogFailure::Reading(error) => error.into(),
            LogFailure::Printing(failure) => failure,
        })
    }

    /// Whether the container has ended, as far as the agent can be asked.
    async fn has_ended(&self) -> Result<bool, ClientError> {
        let pod = match self.client.get(&pod_path(self.namespace, self.pod, "")).await {
            Ok(pod) => pod,
            Err(error) if error.code() == Some(404) => return Ok(true),
            Err(error) => return Err(error),
        };
        let status = super::pod_lookup::container_status(&pod, self.container);
        let state = status.and_then(|status| status.state.as_ref());
        Ok(state.is_some_and(|state| state.terminated.is_some()))
    }

    /// Forgets the keys that nobody could take.
    async fn drop_keys(&mut self) {
        // There is nothing to do about a terminal that is gone.
        let _ = tcflush(std::io::stdin(), FlushArg::TCIFLUSH);
        let mut keys = [0; 4096];
        // A read that was under way may hold some already.
        let _ = tokio::time::timeout(Duration::ZERO, self.keys.read(&mut keys)).await;
    }

    fn launch(&self, verb: &str) -> String {
        launch_path(self.namespace, self.pod, self.container, verb)
    }
}

/// Copies a terminal's output to ours as it is.
async fn copy_output(stdout: &mut DuplexStream, printed: &mut Printed) -> Result<(), Failure> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        match stdout.read(&mut buffer).await {
            Ok(0) | Err(_) => return Ok(()),
            Ok(count) => {
                printed.add(&buffer[..count]);
                write_container_bytes(&buffer[..count])?;
            }
        }
    }
}

/// Why a log is not shown whole.
enum LogFailure {
    Reading(ClientError),
    Printing(Failure),
}

/// Adds a piece of a log to what is kept of its end.
fn keep_end(end: &mut Vec<u8>, piece: &[u8]) {
    end.extend_from_slice(piece);
    if end.len() > 2 * OVERLAP_BYTES {
        end.drain(..end.len() - OVERLAP_BYTES);
    }
}

/// A log as a raw terminal shows it, piece by piece: that goes to the next line, and not to its beginning, at a bare
/// "\n", which is what a log has.
#[derive(Default)]
struct ForRawTerminal {
    last: u8,
}

impl ForRawTerminal {
    fn convert(&mut self, log: &[u8]) -> Vec<u8> {
        let mut shown = Vec::with_capacity(log.len());
        for byte in log {
            if *byte == b'\n' && self.last != b'\r' {
                shown.push(b'\r');
            }
            shown.push(*byte);
            self.last = *byte;
        }
        shown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_in_a_raw_terminal_begins_each_line_at_its_left() {
        let log = b"a\nb\r\n\n/ # ";
        for length in [1, 2, log.len()] {
            let mut text = ForRawTerminal::default();
            let shown: Vec<u8> = log.chunks(length).flat_map(|piece| text.convert(piece)).collect();
            assert_eq!(shown, b"a\r\nb\r\n\r\n/ # ", "{length}");
        }
    }
}
