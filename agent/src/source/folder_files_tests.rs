use std::fs;

use tempfile::TempDir;

use super::*;

/// A folder that is looked at, at times of the test's choice.
struct Looks {
    folder: TempDir,
    files: FolderFiles,
    now: Instant,
}

fn pod(name: &str) -> String {
    format!("apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n")
}

impl Looks {
    /// An empty folder that was looked at.
    fn begin() -> Looks {
        let folder = tempfile::tempdir().unwrap();
        let files = FolderFiles::new(folder.path().to_path_buf());
        let mut looks = Looks {
            folder,
            files,
            now: Instant::now(),
        };
        assert_eq!(looks.look(), Some(vec![]));
        looks
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    fn look(&mut self) -> Option<Vec<String>> {
        self.look_while(&Activity::default())
    }

    /// One word per file of the snapshot: the names of its pods, or that it is bad.
    fn look_while(&mut self, activity: &Activity) -> Option<Vec<String>> {
        let snapshot = self.files.look(activity, self.now).snapshot?;
        let word = |(path, file): (PathBuf, ManifestFile)| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            match file {
                Ok(pods) => {
                    let pods: Vec<String> = pods
                        .into_iter()
                        .filter_map(|entry| entry.pod.metadata.name)
                        .collect();
                    format!("{name}={}", pods.join(","))
                }
                Err(_) => format!("{name}!"),
            }
        };
        Some(snapshot.into_iter().map(word).collect())
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
    }
}

fn words(words: &[&str]) -> Option<Vec<String>> {
    Some(words.iter().map(|word| (*word).to_owned()).collect())
}

#[test]
fn a_good_file_counts_at_once() {
    let mut looks = Looks::begin();
    looks.write("a.yaml", &pod("a"));
    assert_eq!(looks.look(), words(&["a.yaml=a"]));
    assert_eq!(looks.look(), None, "nothing has changed");
    looks.write("a.yaml", &pod("other"));
    assert_eq!(looks.look(), words(&["a.yaml=other"]));
}

#[test]
fn a_bad_or_empty_file_counts_once_it_has_settled() {
    for (text, word) in [("kind: [", "a.yaml!"), ("", "a.yaml=")] {
        let mut looks = Looks::begin();
        looks.write("a.yaml", &pod("a"));
        looks.look();
        looks.write("a.yaml", text);
        assert_eq!(looks.look(), None);
        looks.pass(SETTLE / 2);
        assert_eq!(looks.look(), None);
        looks.pass(SETTLE);
        assert_eq!(looks.look(), words(&[word]));
    }
}

#[test]
fn a_half_written_file_is_never_seen() {
    let mut looks = Looks::begin();
    let being_written = Activity {
        written_to: [looks.path("a.yaml")].into(),
        ..Activity::default()
    };
    looks.write("a.yaml", &pod("half"));
    assert_eq!(looks.look_while(&being_written), None);
    looks.write("a.yaml", &pod("whole"));
    assert_eq!(looks.look(), words(&["a.yaml=whole"]), "its writer has closed it");
}

#[test]
fn a_file_that_is_written_without_end_is_read_after_a_while() {
    let mut looks = Looks::begin();
    let being_written = Activity {
        written_to: [looks.path("a.yaml")].into(),
        ..Activity::default()
    };
    let mut seen = None;
    for round in 0..30 {
        looks.write("a.yaml", &pod(&"a".repeat(round + 1)));
        seen = looks.look_while(&being_written);
        if seen.is_some() {
            break;
        }
        looks.pass(SETTLE / 2);
    }
    assert!(seen.is_some());
}

#[test]
fn an_editors_rename_removes_nothing() {
    let mut looks = Looks::begin();
    looks.write("a.yaml", &pod("a"));
    looks.look();
    fs::rename(looks.path("a.yaml"), looks.path("a.yaml~")).unwrap();
    assert_eq!(looks.look(), None);
    looks.write("a.yaml", &pod("edited"));
    assert_eq!(looks.look(), words(&["a.yaml=edited"]));
}

#[test]
fn a_file_is_gone_once_that_has_settled() {
    let mut looks = Looks::begin();
    looks.write("a.yaml", &pod("a"));
    looks.look();
    fs::remove_file(looks.path("a.yaml")).unwrap();
    assert_eq!(looks.look(), None);
    looks.pass(SETTLE);
    assert_eq!(looks.look(), words(&[]));
}

#[test]
fn a_touched_file_is_read_again_and_an_equal_one_is_no_change() {
    let mut looks = Looks::begin();
    looks.write("a.yaml", &pod("a"));
    looks.look();
    let touched = Activity {
        touched: [looks.path("a.yaml")].into(),
        ..Activity::default()
    };
    assert_eq!(looks.look_while(&touched), None);
    looks.write("a.yaml", &format!("# comment\n{}", pod("a")));
    assert_eq!(looks.look(), None, "a comment is no change");
}

#[test]
fn the_first_snapshot_waits_until_every_file_has_settled() {
    let folder = tempfile::tempdir().unwrap();
    let files = FolderFiles::new(folder.path().to_path_buf());
    let mut looks = Looks {
        folder,
        files,
        now: Instant::now(),
    };
    looks.write("a.yaml", &pod("a"));
    looks.write("b.yaml", "");
    assert_eq!(looks.look(), None);
    looks.pass(SETTLE);
    assert_eq!(looks.look(), words(&["a.yaml=a", "b.yaml="]));
}

#[test]
fn files_of_editors_hidden_files_and_folders_are_left_alone() {
    let mut looks = Looks::begin();
    for name in [
        ".hidden.yaml",
        ".a.yaml.swp",
        "a.yaml~",
        "#a.yaml#",
        ".#a.yaml",
        "a.swp",
        "a.tmp",
    ] {
        looks.write(name, &pod("no"));
    }
    fs::create_dir(looks.path("folder.yaml")).unwrap();
    assert_eq!(looks.look(), None);
    looks.write("plain", &pod("a"));
    assert_eq!(looks.look(), words(&["plain=a"]));
}

#[test]
fn what_is_no_regular_file_is_reported_and_not_waited_on() {
    let mut looks = Looks::begin();
    nix::unistd::mkfifo(&looks.path("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    std::os::unix::fs::symlink("nowhere", looks.path("link")).unwrap();
    looks.look();
    looks.pass(SETTLE);
    assert_eq!(looks.look(), words(&["link!", "pipe!"]));
}

#[test]
fn a_link_is_followed_and_its_target_may_change() {
    let mut looks = Looks::begin();
    let elsewhere = tempfile::tempdir().unwrap();
    fs::write(elsewhere.path().join("x"), pod("a")).unwrap();
    std::os::unix::fs::symlink(elsewhere.path().join("x"), looks.path("link.yaml")).unwrap();
    assert_eq!(looks.look(), words(&["link.yaml=a"]));
    fs::write(elsewhere.path().join("x"), pod("other")).unwrap();
    assert_eq!(looks.look(), words(&["link.yaml=other"]));
}

#[test]
fn a_folder_that_cannot_be_read_keeps_what_was_in_it() {
    let mut looks = Looks::begin();
    looks.write("a.yaml", &pod("a"));
    looks.look();
    let path = looks.folder.path().to_path_buf();
    let aside = path.with_extension("aside");
    fs::rename(&path, &aside).unwrap();
    fs::write(&path, "").unwrap();
    let name = path.file_name().unwrap().to_string_lossy().into_owned();
    let seen = looks.look().unwrap();
    assert!(
        seen.contains(&format!("{name}!")) && seen.contains(&"a.yaml=a".to_owned()),
        "{seen:?}"
    );
    fs::remove_file(&path).unwrap();
    fs::rename(&aside, &path).unwrap();
    assert_eq!(looks.look(), words(&["a.yaml=a"]));
}
