use super::*;

const SECRET: &str = "open-sesame";

fn parse(text: &str) -> RegistryAuth {
    RegistryAuth::parse("registry auth file /auth.json", text.as_bytes())
}

fn entries(auth: &RegistryAuth, image: &str) -> Vec<String> {
    let image = ImageReference::parse(image).unwrap();
    auth.credentials_for(&image)
        .map(|credential| credential.entry.clone())
        .collect()
}

#[test]
fn an_entry_fits_by_host_port_and_whole_path_parts() {
    for (key, image, fits) in [
        ("https://index.docker.io/v1/", "busybox", true),
        ("index.docker.io", "docker.io/bitnami/etcd", true),
        ("docker.io", "busybox", true),
        ("docker.io/bitnami", "busybox", false),
        ("https://index.docker.io/v1/", "quay.io/busybox", false),
        ("quay.io", "quay.io/team/image", true),
        ("https://quay.io", "quay.io/team/image", true),
        ("http://quay.io/v2/", "quay.io/team/image", true),
        ("QUAY.io", "quay.io/team/image", true),
        ("quay.io/team", "quay.io/team/image", true),
        ("quay.io/team/", "quay.io/team/image:1", true),
        ("quay.io/team/image", "quay.io/team/image", true),
        ("quay.io/team", "quay.io/team-b/image", false),
        ("quay.io/team", "quay.io/image", false),
        ("example.com:5000", "example.com:5000/a", true),
        ("example.com:5000", "example.com/a", false),
        ("example.com", "example.com:5000/a", false),
        ("[::1]:5000", "[::1]:5000/a", true),
        ("*.example.com", "registry.example.com/a", true),
        ("*.example.com", "example.com/a", false),
        ("*.example.com", "a.b.example.com/a", false),
        (
            "eu-*-east.example.com:5000/team",
            "eu-2-east.example.com:5000/team/a",
            true,
        ),
        ("*", "localhost/a", true),
        ("*.*.com", "registry.example.com/a", true),
        ("re*try.example.com", "registry.example.com/a", true),
    ] {
        let auth = parse(&format!(
            r#"{{"auths":{{"{key}":{{"username":"u","password":"p"}}}}}}"#
        ));
        assert_eq!(!entries(&auth, image).is_empty(), fits, "{key} for {image}");
    }
}

#[test]
fn the_entry_with_the_longest_path_comes_first() {
    let login = r#"{"username":"u","password":"p"}"#;
    let auth = parse(&format!(
        r#"{{"auths":{{"quay.io":{login},"quay.io/a":{login},"quay.io/a/b":{login},"*.io":{login},"quay.io/c":{login}}}}}"#
    ));
    assert_eq!(
        entries(&auth, "quay.io/a/b/c"),
        ["quay.io/a/b", "quay.io/a", "quay.io", "*.io"]
    );
}

#[test]
fn each_form_of_a_login_is_read() {
    let encoded = STANDARD.encode("alice:with:colon\0\0");
    for (entry, expected) in [
        (
            r#"{"username":"alice","password":"p"}"#.to_owned(),
            ("alice", "p", "", ""),
        ),
        (
            format!(r#"{{"auth":"{encoded}"}}"#),
            ("alice", "with:colon", "", ""),
        ),
        (
            format!(r#"{{"auth":"{encoded}","identitytoken":"t"}}"#),
            ("", "", "t", ""),
        ),
        (
            r#"{"registrytoken":"t","email":"a@b"}"#.to_owned(),
            ("", "", "", "t"),
        ),
    ] {
        let auth = parse(&format!(r#"{{"auths":{{"quay.io":{entry}}}}}"#));
        assert!(auth.problems.is_empty(), "{entry}");
        let login = &auth.credentials[0].1.auth;
        let read = (
            &*login.username,
            &*login.password,
            &*login.identity_token,
            &*login.registry_token,
        );
        assert_eq!(read, expected, "{entry}");
    }
}

#[test]
fn a_fault_costs_its_own_entry_and_nothing_else() {
    let auth = parse(
        r#"{"credHelpers":{"gcr.io":"gcloud"},"credsStore":"desktop","HttpHeaders":{},
            "auths":{"a.io":{"auth":"!"},"b.io":{},"c.io":{"username":"u","password":"p"}}}"#,
    );
    assert_eq!(entries(&auth, "c.io/x"), ["c.io"]);
    assert!(entries(&auth, "a.io/x").is_empty() && entries(&auth, "b.io/x").is_empty());
    let problems: Vec<String> = auth.problems.iter().map(ToString::to_string).collect();
    assert_eq!(problems.len(), 3, "{problems:?}");
    for word in ["credsStore", "credHelpers", "\"a.io\""] {
        assert!(
            problems.iter().any(|problem| problem.contains(word)),
            "{word} in {problems:?}"
        );
    }
}

#[test]
fn no_secret_reaches_a_debug_form_or_a_message() {
    let encoded = STANDARD.encode(format!("alice:{SECRET}"));
    let whole = format!(
        r#"{{"auths":{{"a.io":{{"username":"alice","password":"{SECRET}"}},"b.io":{{"auth":"{encoded}"}},
            "c.io":{{"identitytoken":"{SECRET}"}},"d.io":{{"registrytoken":"{SECRET}"}},"e.io":{{"auth":"{SECRET}!"}}}}}}"#
    );
    let broken = format!(r#"{{"auths":{{"a.io":{{"password":["{SECRET}"]}}}}}}"#);
    let torn = format!(r#"{{"auths":{{"a.io":{{"password":"{SECRET}"#);
    for text in [whole, broken, torn] {
        let auth = parse(&text);
        let mut shown = format!("{auth:?} {auth:#?}");
        for problem in &auth.problems {
            shown += &format!("{problem} {problem:?}");
        }
        for credential in auth.credentials.iter().map(|(_, credential)| credential) {
            shown += &format!("{credential:?} {:?}", credential.auth);
        }
        assert!(!shown.contains(SECRET) && !shown.contains(&encoded), "{shown}");
    }
}

#[tokio::test]
async fn the_file_may_be_absent_and_should_be_private() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("auth.json");
    assert!(RegistryAuth::read(&path).await.problems.is_empty());
    std::fs::write(&path, r#"{"auths":{"a.io":{"username":"u","password":"p"}}}"#).unwrap();
    for (mode, exposed) in [(0o600, false), (0o640, false), (0o644, true)] {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        let auth = RegistryAuth::read(&path).await;
        assert_eq!(entries(&auth, "a.io/x"), ["a.io"]);
        let found = matches!(auth.problems[..], [RegistryAuthProblem::Exposed { .. }]);
        assert_eq!(found, exposed, "{mode:o}");
    }
    std::fs::write(&path, "{").unwrap();
    assert!(
        RegistryAuth::read(&path)
            .await
            .problems
            .iter()
            .any(RegistryAuthProblem::may_cost_credentials)
    );
}
