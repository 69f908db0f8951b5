use serde_json::json;

use super::*;

const POD: &str = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: web\nspec:\n  containers:\n  - name: main\n    image: busybox\n";

fn yaml_file(text: &str) -> ManifestFile {
    parse(text, false)
}

fn names(file: &ManifestFile) -> Vec<&str> {
    file.as_ref()
        .unwrap()
        .iter()
        .map(|entry| entry.pod.metadata.name.as_deref().unwrap_or_default())
        .collect()
}

#[test]
fn a_file_holds_several_documents_and_lists() {
    let list = "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Pod, metadata: {name: a}}\n- {apiVersion: v1, kind: Pod, metadata: {name: b}}\n";
    let pod_list = "apiVersion: v1\nkind: PodList\nitems:\n- metadata: {name: c}\n";
    let text = format!("# comment\n---\n{POD}---\n---\n{list}---\n{pod_list}");
    assert_eq!(names(&yaml_file(&text)), ["web", "a", "b", "c"]);
    assert_eq!(names(&yaml_file("")), [""; 0]);
    assert_eq!(names(&yaml_file("# nothing\n---\n")), [""; 0]);
}

#[test]
fn json_is_read_from_files_of_either_name() {
    let text = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"}}).to_string();
    assert_eq!(names(&parse(&text, true)), ["web"]);
    assert_eq!(names(&yaml_file(&text)), ["web"]);
    assert_eq!(names(&parse(&format!("{text}\n{text}"), true)), ["web", "web"]);
    assert_eq!(
        names(&parse(
            "{\n\t\"apiVersion\": \"v1\",\n\t\"kind\": \"Pod\",\n\t\"metadata\": {\"name\": \"web\"}\n}",
            true
        )),
        ["web"]
    );
}

#[test]
fn what_is_wrong_is_said_in_one_line_with_its_line() {
    for (text, expected) in [
        ("a: [1\nb: 2\n", "line 2: is not YAML: "),
        (
            "spec:\n\tcontainers: []\n",
            "line 2: is not YAML: a tab cannot indent; use spaces",
        ),
        (
            &POD.replace("    image", "\timage"),
            "line 8: is not YAML: a tab cannot indent; use spaces",
        ),
        (&format!("{POD}  containers: []\n"), "line 9: is not YAML: "),
        (
            &POD.replace("image:", "imagge:"),
            "line 8: spec.containers[0].imagge: a pod has no such field",
        ),
        (
            &POD.replace("image: busybox", "command: sleep"),
            "line 8: spec.containers[0].command: expected a sequence, found string \"sleep\"",
        ),
        (
            &format!(
                "{POD}---\n{}",
                POD.replace("  name: web", "  name: web\n  uid: abc")
            ),
            "line 14: metadata.uid: cannot be set",
        ),
        (
            &POD.replace("Pod", "Deployment"),
            "line 2: kind: Deployment of v1 is not taken here; it can be Pod or List of v1",
        ),
        (&POD.replace("kind: Pod\n", ""), "kind: must be set"),
        (&POD.replace("apiVersion: v1\n", ""), "apiVersion: must be set"),
        ("hello", "line 1: is not a pod"),
        (
            "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Pod\n  spec:\n    containers:\n    - nam: a\n",
            "line 8: items[0].spec.containers[0].nam: a pod has no such field",
        ),
        (
            "apiVersion: v1\nkind: List\nitems: {}\n",
            "line 3: items: must be a list",
        ),
    ] {
        let problem = yaml_file(text).unwrap_err();
        assert!(problem.contains(expected), "{text}\n{problem}");
        assert!(!problem.contains('\n'), "{problem}");
    }
    let problem = parse("{\n\"kind\": }", true).unwrap_err();
    assert!(
        problem.starts_with("line 2: is not JSON: expected value"),
        "{problem}"
    );
}

#[test]
fn a_file_that_is_too_large_or_no_text_is_refused_unread() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.yaml");
    std::fs::write(&path, "#".repeat(10 * 1024 * 1024)).unwrap();
    assert_eq!(
        read(&path).unwrap_err(),
        "is too large: it has 10.0 MiB, and a manifest may have 3 MiB at most"
    );
    std::fs::write(&path, b"a: 1\nb: \xff\n").unwrap();
    assert_eq!(read(&path).unwrap_err(), "line 2: is not UTF-8 text");
    std::fs::write(&path, POD).unwrap();
    assert_eq!(names(&read(&path)), ["web"]);
}

#[test]
fn what_a_server_wrote_into_a_copy_does_not_count_as_a_wish() {
    let text = POD.replace(
        "  name: web",
        "  name: web\n  resourceVersion: \"5\"\n  creationTimestamp: null\n  generation: 3",
    );
    let file = yaml_file(&format!("{text}status: {{phase: Running}}\n")).unwrap();
    assert_eq!(file[0].pod, yaml_file(POD).unwrap()[0].pod);
}

#[test]
fn the_document_is_kept_as_it_is_written() {
    let text = POD.replace(
        "image: busybox",
        "image: busybox\n    resources: {limits: {cpu: 1}}",
    );
    let file = yaml_file(&text).unwrap();
    assert_eq!(
        file[0].document["spec"]["containers"][0]["resources"]["limits"]["cpu"],
        json!(1)
    );
    let container = &file[0].pod.spec.as_ref().unwrap().containers[0];
    assert_eq!(
        serde_json::to_value(&container.resources).unwrap(),
        json!({"limits": {"cpu": "1"}})
    );
}
