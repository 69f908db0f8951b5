//! What ARCHITECTURE.md says of the modules, read from their text: which of them use which, and what the rules are free of.

use std::path::Path;

/// The files below a folder of the sources that are no tests, with their text.
fn files(folder: &str) -> Vec<(String, String)> {
    let sources = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src"));
    let mut folders = vec![sources.join(folder)];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if !path.to_string_lossy().contains("tests") {
                files.push((path.display().to_string(), std::fs::read_to_string(path).unwrap()));
            }
        }
    }
    assert!(!files.is_empty(), "{folder} has files");
    files
}

/// The text without comments, and without the tests that stand at its end.
fn code(text: &str) -> String {
    let text = text
        .split("\n#[cfg(test)]\nmod tests {")
        .next()
        .unwrap_or_default();
    let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.collect::<Vec<_>>().join("\n")
}

/// The parts that the rule is about.
const PARTS: [&str; 10] = [
    "pod",
    "kubernetes",
    "runtime",
    "store",
    "source",
    "worker",
    "api",
    "report",
    "agent",
    "cli",
];

#[test]
fn dependencies_point_one_way() {
    let rules = &["pod"][..];
    let below = &["pod", "kubernetes", "runtime", "store"][..];
    for (folder, used) in [
        ("pod", &[][..]),
        ("kubernetes", rules),
        ("runtime", rules),
        ("store", rules),
        ("source", below),
        ("worker", below),
        ("api", below),
        ("report", below),
    ] {
        let others = PARTS
            .iter()
            .filter(|part| **part != folder && !used.contains(*part));
        for (path, text) in files(folder) {
            let code = code(&text);
            for other in others.clone() {
                assert!(
                    !code.contains(&format!("crate::{other}::")),
                    "{path} uses {other}"
                );
            }
        }
    }
}

#[test]
fn only_check_asks_the_runtime_itself() {
    for (path, text) in files("cli") {
        let is_check = path.contains("/cli/check/");
        assert!(is_check || !code(&text).contains("crate::runtime::"), "{path}");
    }
}

#[test]
fn the_rules_have_no_io_no_async_and_no_clock() {
    for (path, text) in files("pod") {
        let code = code(&text);
        for foreign in [
            "std::fs",
            "tokio",
            "async ",
            "Timestamp::now",
            "Instant::now",
            "SystemTime::now",
        ] {
            assert!(!code.contains(foreign), "{path} uses {foreign}");
        }
    }
}
