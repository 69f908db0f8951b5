//! When certificates are made, kept, and made anew.

use std::collections::BTreeMap;

use tempfile::TempDir;

use super::*;

const DAY: time::Duration = time::Duration::DAY;

fn names() -> Vec<String> {
    ["localhost", "node1", "127.0.0.1", "::1"]
        .map(str::to_owned)
        .into()
}

/// Every file of the folder by name.
fn files(folder: &Path) -> BTreeMap<String, String> {
    let entries = fs::read_dir(folder).expect("a folder");
    let path = entries.map(|entry| entry.expect("an entry").path());
    path.map(|path| {
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        (name, fs::read_to_string(path).expect("a text"))
    })
    .collect()
}

/// The names of the files that differ.
fn changed(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) -> Vec<String> {
    let names = after.keys().filter(|name| before.get(*name) != after.get(*name));
    names.cloned().collect()
}

fn folder() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let pki = folder.path().join("pki");
    (folder, pki)
}

const AUTHORITY_FILES: [&str; 2] = ["ca.crt", "ca.key"];
const SERVER_FILES: [&str; 2] = ["server.crt", "server.key"];
const CLIENT_FILES: [&str; 2] = ["client.crt", "client.key"];

#[test]
fn certificates_are_made_once_and_are_their_owners_alone() {
    let (_guard, pki) = folder();
    let now = OffsetDateTime::now_utc();
    ensure(&pki, &names(), now).expect("made");
    let mode = |path: &Path| fs::metadata(path).expect("a file").permissions().mode() & 0o7777;
    assert_eq!(mode(&pki), 0o700);
    let made = files(&pki);
    assert_eq!(made.len(), 6);
    for name in made.keys() {
        assert_eq!(mode(&pki.join(name)), 0o600, "{name}");
    }
    ensure(&pki, &names(), now + DAY).expect("kept");
    assert_eq!(changed(&made, &files(&pki)), Vec::<String>::new());
}

#[test]
fn a_certificate_is_made_anew_when_less_than_a_third_of_its_life_is_left() {
    let now = OffsetDateTime::now_utc();
    let leaves = [CLIENT_FILES, SERVER_FILES].concat();
    let all = [AUTHORITY_FILES.to_vec(), leaves.clone()].concat();
    for (later, expected) in [
        (DAY * 240, vec![]),
        (DAY * 250, leaves),
        // Nothing below an authority outlives it.
        (DAY * 3650 * 3 / 4, all.clone()),
        (DAY * 5000, all),
        // A clock that was set back, also to where one without a battery begins.
        (-DAY, vec![]),
        (OffsetDateTime::UNIX_EPOCH - now, vec![]),
    ] {
        let (_guard, pki) = folder();
        ensure(&pki, &names(), now).expect("made");
        let before = files(&pki);
        ensure(&pki, &names(), now + later).expect("made anew");
        assert_eq!(changed(&before, &files(&pki)), expected, "after {later}");
    }
}

#[test]
fn an_authority_that_was_made_before_the_clock_was_set_outlives_that() {
    let (_guard, pki) = folder();
    let begin = OffsetDateTime::UNIX_EPOCH;
    ensure(&pki, &names(), begin).expect("made");
    let before = files(&pki);
    ensure(&pki, &names(), begin + DAY).expect("kept");
    assert_eq!(changed(&before, &files(&pki)), Vec::<String>::new());
    ensure(&pki, &names(), OffsetDateTime::now_utc()).expect("kept or made anew");
    let changed = changed(&before, &files(&pki));
    assert!(!changed.iter().any(|file| file.starts_with("ca.")), "{changed:?}");
}

#[test]
fn what_is_damaged_or_missing_is_made_anew_and_with_an_authority_all_below_it() {
    let now = OffsetDateTime::now_utc();
    let all = [AUTHORITY_FILES, CLIENT_FILES, SERVER_FILES].concat();
    for (file, expected) in [
        ("ca.crt", all.clone()),
        ("ca.key", all),
        ("server.crt", SERVER_FILES.to_vec()),
        ("server.key", SERVER_FILES.to_vec()),
        ("client.key", CLIENT_FILES.to_vec()),
    ] {
        for damage in [None, Some("torn"), Some("")] {
            let (_guard, pki) = folder();
            ensure(&pki, &names(), now).expect("made");
            let before = files(&pki);
            match damage {
                None => fs::remove_file(pki.join(file)).expect("removed"),
                Some(text) => fs::write(pki.join(file), text).expect("damaged"),
            }
            ensure(&pki, &names(), now).expect("made anew");
            assert_eq!(changed(&before, &files(&pki)), expected, "{file} {damage:?}");
        }
    }
}

#[test]
fn a_key_of_another_certificate_is_found_out() {
    let (_guard, pki) = folder();
    let now = OffsetDateTime::now_utc();
    ensure(&pki, &names(), now).expect("made");
    fs::copy(pki.join("client.key"), pki.join("server.key")).expect("copied");
    let before = files(&pki);
    ensure(&pki, &names(), now).expect("made anew");
    assert_eq!(changed(&before, &files(&pki)), SERVER_FILES);
}

#[test]
fn the_server_gets_a_new_certificate_when_it_gets_a_new_name() {
    let (_guard, pki) = folder();
    let now = OffsetDateTime::now_utc();
    ensure(&pki, &names(), now).expect("made");
    let before = files(&pki);
    let renamed = [
        names(),
        vec!["192.0.2.7".to_owned(), "edge-7.example.com".to_owned()],
    ]
    .concat();
    ensure(&pki, &renamed, now).expect("made anew");
    assert_eq!(changed(&before, &files(&pki)), SERVER_FILES);
}

#[test]
fn a_name_that_is_none_in_dns_is_left_out() {
    let (_guard, pki) = folder();
    let odd = vec!["localhost".to_owned(), "1.2.3".to_owned()];
    ensure(&pki, &odd, OffsetDateTime::now_utc()).expect("made");
}

#[test]
fn no_key_shows_in_the_debug_form() {
    let (_guard, pki) = folder();
    let certificates = ensure(&pki, &names(), OffsetDateTime::now_utc()).expect("made");
    assert_eq!(format!("{certificates:?}"), "Certificates { .. }");
}
