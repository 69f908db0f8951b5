//! The message that a container leaves behind when it ends (`terminationMessagePath`), and its bounds.

/// The most that is read of one container's file, in bytes.
pub(crate) const MAX_BYTES: usize = 4096;
/// The most that a pod's status holds of all its containers' messages, in bytes.
const MAX_POD_BYTES: usize = 12 * 1024;
/// The most that is taken from a log instead of a file, in bytes
pub(crate) const MAX_LOG_BYTES: usize = 2048;
/// and in lines.
pub(crate) const MAX_LOG_LINES: u64 = 80;

/// How many bytes of its message one container of a pod with so many containers (of all kinds) may show.
pub(crate) fn share(containers: usize) -> usize {
    (MAX_POD_BYTES / containers.max(1)).min(MAX_BYTES)
}

/// Cuts a message to so many bytes from its start, as a kubelet does with what exceeds the [`share`].
pub(crate) fn cut(message: &mut String, bytes: usize) {
    message.truncate(message.floor_char_boundary(bytes));
}

/// The message in a container's file: its last [`MAX_BYTES`].
pub(crate) fn from_file(content: &[u8]) -> String {
    last_bytes(content, MAX_BYTES)
}

/// Whether the message is to be taken from the log: only if the container asked for that
/// (`terminationMessagePolicy: FallbackToLogsOnError`), failed, did run at all, and its file is empty.
pub(crate) fn falls_back_to_log(policy: &str, exit_code: i32, reason: &str, file_is_empty: bool) -> bool {
    let never_ran = matches!(reason, "ContainerCannotRun" | "StartError");
    policy == "FallbackToLogsOnError" && exit_code != 0 && !never_ran && file_is_empty
}

/// The runtime's own words for how a container ended, and the message it left, as one.
pub(crate) fn joined(of_runtime: &str, left: &str) -> String {
    match (of_runtime, left) {
        ("", left) => left.to_owned(),
        (of_runtime, "") => of_runtime.to_owned(),
        (of_runtime, left) => format!("{of_runtime}: {left}"),
    }
}

/// The last bytes as text; what is no text is replaced by a mark.
fn last_bytes(content: &[u8], bytes: usize) -> String {
    let mut start = content.len().saturating_sub(bytes);
    // No letter is cut in half: its remaining bytes go as well.
    if start > 0 {
        let continues = |at: usize| content.get(at).is_some_and(|byte| byte & 0xC0 == 0x80);
        start += (0..4).take_while(|offset| continues(start + offset)).count();
    }
    String::from_utf8_lossy(&content[start..]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_file_its_last_4096_bytes_count() {
        assert_eq!(from_file(b"bye"), "bye");
        let mut content = vec![b'a'; 10];
        content.extend([b'b'; 4096]);
        assert_eq!(from_file(&content), "b".repeat(4096));
    }

    #[test]
    fn a_letter_is_not_cut_in_half() {
        let content = "é".repeat(3000);
        assert_eq!(from_file(&content.as_bytes()[1..]), "é".repeat(2048));
        assert_eq!(
            from_file(format!("{content}x").as_bytes()),
            format!("{}x", "é".repeat(2047))
        );
        let mut message = "éé".to_owned();
        cut(&mut message, 3);
        assert_eq!(message, "é");
    }

    #[test]
    fn bytes_that_are_no_text_are_marked() {
        assert_eq!(from_file(b"a\xFFb"), "a\u{FFFD}b");
    }

    #[test]
    fn the_log_stands_in_only_for_a_container_that_ran_failed_and_left_nothing() {
        for (policy, exit_code, reason, empty, falls_back) in [
            ("FallbackToLogsOnError", 4, "Error", true, true),
            ("FallbackToLogsOnError", 137, "OOMKilled", true, true),
            ("FallbackToLogsOnError", 4, "Error", false, false),
            ("FallbackToLogsOnError", 0, "Completed", true, false),
            ("FallbackToLogsOnError", 128, "StartError", true, false),
            ("FallbackToLogsOnError", 128, "ContainerCannotRun", true, false),
            ("File", 4, "Error", true, false),
        ] {
            assert_eq!(
                falls_back_to_log(policy, exit_code, reason, empty),
                falls_back,
                "{policy} {exit_code} {reason}"
            );
        }
    }

    #[test]
    fn the_containers_of_a_pod_share_12_kib_equally() {
        for (containers, bytes) in [(0, 4096), (1, 4096), (3, 4096), (4, 3072), (12, 1024)] {
            assert_eq!(share(containers), bytes, "{containers}");
        }
    }

    #[test]
    fn the_runtimes_words_come_first() {
        assert_eq!(joined("", "bye"), "bye");
        assert_eq!(joined("exec failed", ""), "exec failed");
        assert_eq!(joined("exec failed", "bye"), "exec failed: bye");
    }
}
