//! What the agent says on stderr, in the form that suits the reader: colours for a person at a terminal, a priority
//! per line for systemd's journal, JSON for anything else.

mod repeats;

use std::fmt;
use std::io::{self, IsTerminal};
use std::os::linux::fs::MetadataExt;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::{FmtContext, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{EnvFilter, Layer, registry};

use repeats::Repeats;

/// Says how much is logged: a level (`error`, `warn`, `info`, `debug`, `trace`) or directives per module.
pub(crate) const LEVEL_VARIABLE: &str = "DEBUGLET_LOG";
/// What is logged when the variable says nothing.
const DEFAULT_LEVEL: &str = "info";
/// The client library says in warnings what it cannot read, whole: a secret may be in it. In errors it says that a request
/// failed, and not which: whoever made it says both.
const QUIET_LIBRARY: &str = "kube_client=off";
/// The target of lines that say that something stands otherwise than before, such as that the API server is away or
/// answers again. They are always written. After one at the level INFO, which says that something works, all lines count as
/// new.
pub(crate) const NEWS: &str = "debuglet::news";
/// Set by systemd to the device and inode of the stream that leads to the journal (systemd.exec(5)).
const JOURNAL_VARIABLE: &str = "JOURNAL_STREAM";

/// How an event is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// For a person at a terminal.
    Terminal,
    /// Lines that begin with their priority (sd-daemon(3)); the journal adds the time.
    Journal,
    /// One JSON object per line.
    Json,
}

/// Directs all events of this process to stderr. Does nothing when it is called again.
#[expect(
    clippy::disallowed_methods,
    reason = "the log is no output of a command; the subscriber escapes what controls a terminal"
)]
pub(crate) fn set_up() {
    let wanted = std::env::var(LEVEL_VARIABLE).unwrap_or_default();
    let (filter, problem) = filter(&wanted);
    let journal = std::env::var(JOURNAL_VARIABLE).ok();
    let form = form(io::stderr().is_terminal(), journal.as_deref(), stderr_identity());
    if tracing::subscriber::set_global_default(subscriber(form, filter, io::stderr)).is_ok()
        && let Some(problem) = problem
    {
        tracing::warn!("{problem}");
    }
}

/// The filter for what [`LEVEL_VARIABLE`] says, and what is wrong with that.
fn filter(wanted: &str) -> (EnvFilter, Option<String>) {
    let quiet = |level: &str| format!("{level},{QUIET_LIBRARY}");
    if wanted.is_empty() {
        return (EnvFilter::new(quiet(DEFAULT_LEVEL)), None);
    }
    match EnvFilter::try_new(quiet(wanted)) {
        Ok(filter) => (filter, None),
        Err(error) => {
            let problem =
                format!("{LEVEL_VARIABLE}={wanted:?} is not understood ({error}); logging {DEFAULT_LEVEL}");
            (EnvFilter::new(quiet(DEFAULT_LEVEL)), Some(problem))
        }
    }
}

/// The form for a stderr that is the file `stderr` (device and inode), where systemd named `journal`.
fn form(is_terminal: bool, journal: Option<&str>, stderr: Option<(u64, u64)>) -> Form {
    let journal = journal.and_then(|identity| {
        let (device, inode) = identity.split_once(':')?;
        Some((device.parse().ok()?, inode.parse().ok()?))
    });
    if is_terminal {
        Form::Terminal
    } else if journal.is_some() && journal == stderr {
        // Redirected elsewhere, stderr is no longer the journal's, though the variable is still there.
        Form::Journal
    } else {
        Form::Json
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "it is this process's own standard error"
)]
fn stderr_identity() -> Option<(u64, u64)> {
    let stderr = std::fs::metadata("/proc/self/fd/2").ok()?;
    Some((stderr.st_dev(), stderr.st_ino()))
}

fn subscriber<W>(form: Form, filter: EnvFilter, writer: W) -> Box<dyn Subscriber + Send + Sync>
where
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(writer)
        .with_target(false);
    let lines = match form {
        Form::Terminal => lines.with_ansi(true).compact().boxed(),
        Form::Journal => lines.with_ansi(false).event_format(WithPriority).boxed(),
        Form::Json => lines.json().flatten_event(true).boxed(),
    };
    Box::new(registry().with(filter).with(Repeats::default()).with(lines))
}

/// Writes an event for the journal.
struct WithPriority;

impl<S, N> FormatEvent<S, N> for WithPriority
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    N: for<'writer> FormatFields<'writer> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut text = String::new();
        tracing_subscriber::fmt::format()
            .compact()
            .without_time()
            .with_level(false)
            .with_target(false)
            .with_ansi(false)
            .format_event(context, Writer::new(&mut text), event)?;
        let priority = priority(*event.metadata().level());
        // The journal takes each line for an entry of its own.
        text.lines()
            .try_for_each(|line| writeln!(writer, "<{priority}>{line}"))
    }
}

/// The priority of syslog(3) for a level.
fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        _ => 7,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("not poisoned").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn written(form: Form, level: &str, log: impl FnOnce()) -> String {
        let kept = Kept::default();
        let writer = kept.clone();
        let subscriber = subscriber(form, filter(level).0, move || writer.clone());
        tracing::subscriber::with_default(subscriber, log);
        let bytes = kept.0.lock().expect("not poisoned").clone();
        String::from_utf8(bytes).expect("text")
    }

    #[test]
    fn the_form_follows_where_stderr_leads() {
        assert_eq!(form(true, Some("8:7"), Some((8, 7))), Form::Terminal);
        assert_eq!(form(false, Some("8:7"), Some((8, 7))), Form::Journal);
        assert_eq!(form(false, Some("8:7"), Some((8, 9))), Form::Json, "redirected");
        assert_eq!(form(false, Some("nonsense"), None), Form::Json);
        assert_eq!(form(false, None, None), Form::Json);
    }

    #[test]
    fn a_line_for_the_journal_begins_with_its_priority_and_has_no_time() {
        let text = written(Form::Journal, "trace", || {
            tracing::error!(pod = "default/a", "it broke\nin two lines");
            tracing::warn!("beware");
            tracing::info!(container = "c", "it runs");
            tracing::debug!("detail");
        });
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 5, "{text}");
        assert!(
            lines[0].starts_with("<3>") && lines[1].starts_with("<3>"),
            "{text}"
        );
        assert!(text.contains("pod=\"default/a\""), "{text}");
        assert_eq!(lines[2], "<4>beware");
        assert!(
            lines[3].starts_with("<6>it runs") && lines[3].contains("container=\"c\""),
            "{text}"
        );
        assert_eq!(lines[4], "<7>detail");
    }

    #[test]
    fn json_is_one_object_per_line_with_the_fields_beside_the_message() {
        let text = written(Form::Json, "", || {
            tracing::info!(pod = "default/a", "it\nruns");
            tracing::debug!("not at this level");
        });
        assert_eq!(text.lines().count(), 1, "{text}");
        let event: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(event["message"], "it\nruns");
        assert_eq!(event["pod"], "default/a");
        assert_eq!(event["level"], "INFO");
    }

    #[test]
    fn what_the_client_library_cannot_read_is_not_logged_at_any_level() {
        for level in [
            "",
            "debug",
            "trace",
            "kube_client=trace",
            "info,debuglet=debug",
            "loud,=,",
        ] {
            let text = written(Form::Json, level, || {
                tracing::warn!(target: "kube_client::client", "SECRET");
                tracing::error!(target: "kube_client::client::builder", "failed with error SECRET");
                tracing::error!("it broke");
            });
            assert!(!text.contains("SECRET"), "{level:?}: {text}");
            let of_others = level != "kube_client=trace";
            assert_eq!(text.contains("it broke"), of_others, "{level:?}: {text}");
        }
    }

    #[test]
    fn a_warning_is_written_once_while_nothing_else_is_said_and_anew_after_news() {
        let warn = |pod: &str| tracing::warn!(pod, "the runtime does not answer");
        let text = written(Form::Json, "", || {
            for _ in 0..3 {
                warn("a");
                warn("b");
                tracing::info!("as often as it is said");
            }
            tracing::warn!(target: NEWS, "it is away");
            tracing::warn!(target: NEWS, "it is away");
            warn("a");
            tracing::info!(target: NEWS, "it answers again");
            warn("a");
        });
        let count = |words: &str| text.lines().filter(|line| line.contains(words)).count();
        assert_eq!(count("\"pod\":\"a\""), 2, "{text}");
        assert_eq!(count("\"pod\":\"b\""), 1, "{text}");
        assert_eq!((count("as often"), count("it is away")), (3, 2), "{text}");
    }

    #[test]
    fn a_level_that_is_not_understood_is_named_and_the_default_is_used() {
        let (_, problem) = filter("debuglet=loud");
        assert!(problem.expect("a problem").contains("\"debuglet=loud\""));
        assert!(filter("debug").1.is_none());
    }
}
