//! What the agent says on stderr, in the form that suits the reader: colours for a person at a terminal, a priority
//! per line for systemd's journal, JSON for anything else. Each event is one line, in which everything can be seen: what
//! pods, images, registries and API servers say comes into it, and it is read on terminals.

mod repeats;

use std::fmt;
use std::io::{self, IsTerminal};
use std::os::linux::fs::MetadataExt;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer, debug_fn};
use tracing_subscriber::fmt::{FmtContext, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{EnvFilter, Layer, registry};

use crate::visible::{visible, visible_json};
use repeats::Repeats;

/// Says how much is logged: a level (`error`, `warn`, `info`, `debug`, `trace`) or directives per module.
pub(crate) const LEVEL_VARIABLE: &str = "DEBUGLET_LOG";
/// What is logged when the variable says nothing.
const DEFAULT_LEVEL: &str = "info";
/// The client library says in warnings what it cannot read, whole: a secret may be in it. In errors it says that a request
/// failed, and not which: whoever made it says both.
const QUIET_LIBRARY: &str = "kube_client=off";
/// The target of lines that say that something stands otherwise than before, such as that the API server is away or
/// answers again. One at the level INFO says that something works: what is said of failures a minute later, or after that,
/// counts as new.
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
    let fields = debug_fn(|writer, field, value| {
        let value = format!("{value:?}");
        match field.name() {
            "message" => writer.write_str(&visible(&value)),
            name => write!(writer, "{name}={}", visible(&value)),
        }
    })
    .delimited(" ");
    let lines = match form {
        Form::Terminal => lines.with_ansi(true).compact().fmt_fields(fields).boxed(),
        Form::Journal => lines
            .with_ansi(false)
            .event_format(WithPriority)
            .fmt_fields(fields)
            .boxed(),
        Form::Json => lines
            .json()
            .flatten_event(true)
            .map_event_format(VisibleJson)
            .boxed(),
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
        writeln!(writer, "<{priority}>{}", text.trim_end())
    }
}

/// Writes an event as another format does, which writes JSON, with every unseen character as JSON's escape.
struct VisibleJson<F>(F);

impl<S, N, F> FormatEvent<S, N> for VisibleJson<F>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    N: for<'writer> FormatFields<'writer> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut json = String::new();
        self.0.format_event(context, Writer::new(&mut json), event)?;
        writer.write_str(&visible_json(&json))
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
pub(crate) mod tests {
    use super::*;
    use crate::visible::hostile::{TEXTS, assert_visible};
    use std::sync::{Arc, Mutex};

    use tracing::subscriber::DefaultGuard;

    /// What was written to a log.
    #[derive(Clone, Default)]
    pub(crate) struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Kept {
        /// All of it so far.
        pub(crate) fn text(&self) -> String {
            String::from_utf8(self.0.lock().expect("not poisoned").clone()).expect("text")
        }
    }

    /// Keeps what this thread logs, as JSON, until the guard is dropped.
    pub(crate) fn kept_log() -> (Kept, DefaultGuard) {
        let kept = Kept::default();
        let writer = kept.clone();
        let subscriber = subscriber(Form::Json, filter("").0, move || writer.clone());
        (kept, tracing::subscriber::set_default(subscriber))
    }

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
        kept.text()
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
        assert_eq!(
            lines,
            [
                r#"<3>it broke\nin two lines pod="default/a""#,
                "<4>beware",
                r#"<6>it runs container="c""#,
                "<7>detail",
            ]
        );
    }

    #[test]
    fn what_others_wrote_is_one_line_in_which_everything_can_be_seen() {
        /// The colours that the log itself has for a terminal: nobody else can write them.
        fn without_colours(line: &str) -> String {
            let mut plain = String::new();
            let mut parts = line.split("\x1b[");
            plain.push_str(parts.next().unwrap_or_default());
            for part in parts {
                let (numbers, rest) = part.split_once('m').unwrap_or_default();
                assert!(numbers.parse::<u8>().is_ok(), "{line:?}");
                plain.push_str(rest);
            }
            plain
        }
        for (hostile, shown) in TEXTS {
            for form in [Form::Terminal, Form::Journal, Form::Json] {
                let error = io::Error::other(format!("registry: {hostile}"));
                let text = written(form, "", || {
                    tracing::warn!(pod = hostile, reason = %error, "pull: {hostile}");
                });
                let text = without_colours(&text);
                assert_visible(&text);
                assert_eq!(text.lines().count(), 1, "{form:?}: {text}");
                if form == Form::Json {
                    let event: serde_json::Value = serde_json::from_str(&text).expect("JSON");
                    assert_eq!(event["message"], format!("pull: {hostile}"));
                    assert_eq!(event["pod"], hostile);
                } else {
                    assert!(text.contains(&format!("pull: {shown}")), "{form:?}: {text}");
                    assert!(
                        text.contains(&format!("reason=registry: {shown}")),
                        "{form:?}: {text}"
                    );
                }
            }
        }
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
    fn a_warning_is_written_once_while_it_is_repeated_and_so_are_news() {
        let warn = |pod: &str| tracing::warn!(pod, "the runtime does not answer");
        let text = written(Form::Json, "", || {
            for _ in 0..3 {
                warn("a");
                warn("b");
                tracing::info!("as often as it is said");
            }
            for _ in 0..2 {
                tracing::warn!(target: NEWS, "it is away");
            }
            warn("a");
            tracing::info!(target: NEWS, "it answers again");
            warn("a");
        });
        let count = |words: &str| text.lines().filter(|line| line.contains(words)).count();
        assert_eq!(count("\"pod\":\"a\""), 1, "{text}");
        assert_eq!(count("\"pod\":\"b\""), 1, "{text}");
        assert_eq!((count("as often"), count("it is away")), (3, 1), "{text}");
        assert_eq!(count("it answers again"), 1, "{text}");
    }

    #[test]
    fn a_level_that_is_not_understood_is_named_and_the_default_is_used() {
        let (_, problem) = filter("debuglet=loud");
        assert!(problem.expect("a problem").contains("\"debuglet=loud\""));
        assert!(filter("debug").1.is_none());
    }
}
