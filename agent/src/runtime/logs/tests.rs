use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;

use tokio::sync::oneshot;

use super::*;

/// A log in a folder of its own, which a test writes as a runtime does.
struct Written {
    folder: tempfile::TempDir,
    file: File,
}

impl Written {
    fn new() -> Written {
        let folder = tempfile::tempdir().unwrap();
        let file = append_to(&folder.path().join("0.log"));
        Written { folder, file }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("0.log")
    }

    fn log(&self) -> LogFile {
        LogFile::new(Path::new("/var/log/pods"), &self.path())
    }

    fn line(&mut self, line: &str) {
        writeln!(self.file, "2026-11-21T03:12:40.5Z stdout F {line}").unwrap();
    }

    fn rename(&self, suffix: &str) {
        std::fs::rename(self.path(), self.folder.path().join(format!("0.log.{suffix}"))).unwrap();
    }

    fn reopen(&mut self) {
        self.file = append_to(&self.path());
    }
}

fn append_to(path: &Path) -> File {
    OpenOptions::new().append(true).create(true).open(path).unwrap()
}

async fn read(log: &Written, options: LogOptions) -> String {
    rest(LogReader::open(&log.log(), &options).await.unwrap()).await
}

async fn rest(mut reader: LogReader) -> String {
    let mut text = Vec::new();
    while let Some(piece) = reader.next().await.unwrap() {
        text.extend_from_slice(&piece);
    }
    String::from_utf8(text).unwrap()
}

/// Follows the log until the sender says that the container has ended.
async fn follow(log: &Written) -> (LogReader, oneshot::Sender<()>) {
    let (ended, container) = oneshot::channel();
    let container_ended = async { container.await.unwrap() };
    let place = LogFollowers::default().place().unwrap();
    let reader = LogReader::follow(&log.log(), &LogOptions::default(), place, container_ended).await;
    (reader.unwrap(), ended)
}

async fn next(reader: &mut LogReader) -> String {
    String::from_utf8(reader.next().await.unwrap().unwrap().to_vec()).unwrap()
}

#[tokio::test]
async fn tail_and_limit_cut_the_log_at_both_ends() {
    let mut log = Written::new();
    for line in ["one", "two", "three"] {
        log.line(line);
    }
    let whole = LogOptions::default();
    assert_eq!(read(&log, whole).await, "one\ntwo\nthree\n");
    let tail = LogOptions {
        tail_lines: Some(2),
        ..whole
    };
    assert_eq!(read(&log, tail).await, "two\nthree\n");
    let limited = LogOptions {
        limit_bytes: Some(6),
        ..tail
    };
    assert_eq!(read(&log, limited).await, "two\nth");
}

#[tokio::test]
async fn a_log_that_is_not_there_is_an_error_that_names_it() {
    let error = LogReader::open(
        &LogFile::new(Path::new("/"), Path::new("/no/such/0.log")),
        &LogOptions::default(),
    )
    .await
    .err()
    .unwrap();
    assert!(
        error
            .to_string()
            .starts_with("cannot read the log /no/such/0.log: "),
        "{error}"
    );
}

#[tokio::test]
async fn following_reads_on_as_the_container_writes_and_ends_with_it() {
    let mut log = Written::new();
    log.line("one");
    let (mut reader, ended) = follow(&log).await;
    assert_eq!(next(&mut reader).await, "one\n");
    log.line("two");
    assert_eq!(next(&mut reader).await, "two\n");
    log.line("last");
    ended.send(()).unwrap();
    assert_eq!(rest(reader).await, "last\n");
}

#[tokio::test]
async fn what_is_written_to_the_old_file_during_a_rotation_is_read() {
    let mut log = Written::new();
    let (mut reader, ended) = follow(&log).await;
    log.line("before");
    assert_eq!(next(&mut reader).await, "before\n");
    log.rename("20261121-031241");
    log.line("renamed");
    assert_eq!(next(&mut reader).await, "renamed\n");
    let mut old = log.file.try_clone().unwrap();
    log.reopen();
    log.line("new");
    assert_eq!(next(&mut reader).await, "new\n");
    writeln!(old, "2026-11-21T03:12:40.5Z stderr F late").unwrap();
    ended.send(()).unwrap();
    assert_eq!(rest(reader).await, "late\n");
}

#[tokio::test]
async fn a_follower_that_falls_behind_several_rotations_loses_no_line() {
    let mut log = Written::new();
    log.line("0");
    let (mut reader, ended) = follow(&log).await;
    assert_eq!(next(&mut reader).await, "0\n");
    for rotation in 1..=3 {
        log.line(&format!("{rotation}a"));
        log.rename(&format!("20261121-03124{rotation}"));
        log.line(&format!("{rotation}b"));
        log.reopen();
    }
    log.line("4");
    ended.send(()).unwrap();
    assert_eq!(rest(reader).await, "1a\n1b\n2a\n2b\n3a\n3b\n4\n");
}

#[tokio::test]
async fn a_log_that_was_cut_is_read_from_its_start_again() {
    let mut log = Written::new();
    log.line("a long line before the cut");
    let (mut reader, ended) = follow(&log).await;
    assert_eq!(next(&mut reader).await, "a long line before the cut\n");
    log.file.set_len(0).unwrap();
    log.line("after");
    ended.send(()).unwrap();
    assert_eq!(rest(reader).await, "after\n");
}

#[tokio::test]
async fn a_termination_message_is_the_last_80_lines_and_of_those_the_last_2048_bytes() {
    let mut log = Written::new();
    for number in 0..100 {
        log.line(&format!("{number:02}"));
    }
    let message = termination_message(&log.log()).await.unwrap();
    assert_eq!(
        (message.lines().next(), message.lines().count()),
        (Some("20"), 80)
    );

    log.line(&"x".repeat(3000));
    log.line("end");
    let message = termination_message(&log.log()).await.unwrap();
    assert_eq!(message.len(), 2048);
    assert!(message.ends_with("x\nend\n"));
}

/// A log of three files with two lines each.
fn rotated_twice() -> Written {
    let mut log = Written::new();
    for rotation in 1..=2 {
        log.line(&format!("{rotation}a"));
        log.line(&format!("{rotation}b"));
        log.rename(&format!("20261121-03124{rotation}"));
        log.reopen();
    }
    log.line("3a");
    log.line("3b");
    log
}

#[tokio::test]
async fn a_log_is_read_with_what_was_rotated_away_from_it() {
    let log = rotated_twice();
    let whole = LogOptions::default();
    assert_eq!(read(&log, whole).await, "1a\n1b\n2a\n2b\n3a\n3b\n");
    for (lines, expected) in [
        (0, ""),
        (1, "3b\n"),
        (2, "3a\n3b\n"),
        (3, "2b\n3a\n3b\n"),
        (5, "1b\n2a\n2b\n3a\n3b\n"),
        (99, "1a\n1b\n2a\n2b\n3a\n3b\n"),
    ] {
        let tail = LogOptions {
            tail_lines: Some(lines),
            ..whole
        };
        assert_eq!(read(&log, tail).await, expected, "{lines}");
    }
}

#[tokio::test]
async fn a_log_that_is_being_rotated_is_read() {
    let log = rotated_twice();
    log.rename("20261121-031243");
    assert_eq!(
        read(&log, LogOptions::default()).await,
        "1a\n1b\n2a\n2b\n3a\n3b\n"
    );
}

#[tokio::test]
async fn files_whose_last_line_is_too_old_are_not_read() {
    let log = rotated_twice();
    // Older than what is asked for, by its file's time; its lines say otherwise, which shows that nobody read them.
    let oldest = log.folder.path().join("0.log.20261121-031241");
    let before = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1);
    File::options()
        .append(true)
        .open(oldest)
        .unwrap()
        .set_modified(before)
        .unwrap();
    let since = LogOptions {
        since: Some("2026-11-21T03:12:40Z".parse().unwrap()),
        ..LogOptions::default()
    };
    assert_eq!(read(&log, since).await, "2a\n2b\n3a\n3b\n");
}

#[tokio::test]
async fn what_lies_in_compressed_files_is_left_out_and_said_so() {
    let log = rotated_twice();
    let whole = LogOptions::default();
    let left_out = async |options| LogReader::open(&log.log(), &options).await.unwrap().left_out();
    assert!(!left_out(whole).await);
    std::fs::write(log.folder.path().join("0.log.20261121-031240.gz"), "").unwrap();
    assert_eq!(read(&log, whole).await, "1a\n1b\n2a\n2b\n3a\n3b\n");
    assert!(left_out(whole).await);
    let tail = LogOptions {
        tail_lines: Some(5),
        ..whole
    };
    assert!(!left_out(tail).await, "there are so many lines");
    let since = LogOptions {
        since: Some("2999-01-01T00:00:00Z".parse().unwrap()),
        ..whole
    };
    assert!(!left_out(since).await, "they are older");
}

#[tokio::test]
async fn clients_that_look_for_last_lines_wait_for_each_other_and_nobody_else_waits_for_them() {
    let mut log = Written::new();
    log.line("one");
    let tail = LogOptions {
        tail_lines: Some(5),
        ..LogOptions::default()
    };
    let others = SCANNING.acquire_many(SCANS as u32).await.unwrap();
    assert_eq!(read(&log, LogOptions::default()).await, "one\n");
    assert_eq!(termination_message(&log.log()).await.unwrap(), "one\n");
    let waiting = tokio::time::timeout(std::time::Duration::from_millis(100), read(&log, tail)).await;
    assert!(waiting.is_err());
    drop(others);
    assert_eq!(read(&log, tail).await, "one\n");
}

#[tokio::test]
async fn what_is_no_regular_file_is_an_error_at_once_and_takes_no_thread() {
    let log = Written::new();
    let tail = LogOptions {
        tail_lines: Some(1),
        ..LogOptions::default()
    };
    let put = |make: &dyn Fn(&Path)| {
        std::fs::remove_file(log.path()).unwrap();
        make(&log.path());
    };
    let fifo: &dyn Fn(&Path) = &|path| nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let link: &dyn Fn(&Path) = &|path| symlink("/etc/passwd", path).unwrap();
    for (make, expected) in [
        (fifo, "it is not a regular file"),
        (
            link,
            "it is a symbolic link, or lies behind one, and links are not followed here",
        ),
    ] {
        put(make);
        // More often than there are threads.
        for options in [LogOptions::default(), tail].repeat(20) {
            let error = LogReader::open(&log.log(), &options).await.err().unwrap();
            assert_eq!(error.source.to_string(), expected);
            let error = termination_message(&log.log()).await.unwrap_err();
            assert_eq!(error.source.to_string(), expected);
        }
    }
}

#[tokio::test]
async fn a_log_that_somebody_makes_endless_is_read_no_further_than_a_log_has_lines() {
    let mut log = Written::new();
    log.line("one");
    log.file.set_len(1 << 43).unwrap();
    let tail = LogOptions {
        tail_lines: Some(1),
        ..LogOptions::default()
    };
    let error = LogReader::open(&log.log(), &tail).await.err().unwrap();
    assert_eq!(
        error.source.to_string(),
        "it is not a log: no line begins in 64 MiB of it"
    );
    let mut whole = LogReader::open(&log.log(), &LogOptions::default()).await.unwrap();
    assert_eq!(next(&mut whole).await, "one\n");
    let error = whole.next().await.unwrap_err();
    assert_eq!(
        error.source.to_string(),
        "it is not a log: no line begins in 64 MiB of it"
    );
    // Here an end is better than an error, and its search is shorter.
    assert_eq!(termination_message(&log.log()).await.unwrap(), "");

    // Nor does one entry go on without end.
    let mut log = Written::new();
    log.line("one");
    write!(log.file, "2026-11-21T03:12:40.5Z stdout F two").unwrap();
    log.file.set_len(1 << 43).unwrap();
    let mut whole = LogReader::open(&log.log(), &LogOptions::default()).await.unwrap();
    let mut read = 0;
    let error = loop {
        match whole.next().await {
            Ok(piece) => read += piece.expect("no end").len() as u64,
            Err(error) => break error,
        }
        assert!(read < 2 * MAX_WITHOUT_ENTRY, "it goes on");
    };
    assert_eq!(
        error.source.to_string(),
        "it is not a log: no line begins in 64 MiB of it"
    );
}
