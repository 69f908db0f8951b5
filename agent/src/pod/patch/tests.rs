use serde_json::json;

use super::*;

fn pod() -> Value {
    json!({
        "metadata": {"name": "web", "resourceVersion": "7"},
        "spec": {
            "containers": [{"name": "main", "image": "busybox"}],
            "ephemeralContainers": [
                {"name": "one", "image": "busybox", "env": [{"name": "A", "value": "1"}], "command": ["sh"]},
            ],
        },
    })
}

/// The ephemeral containers after the patch.
fn after(form: PatchForm, patch: &Value) -> Result<Value, PatchError> {
    apply(form, &pod(), patch).map(|mut pod| pod["spec"]["ephemeralContainers"].take())
}

fn strategic(containers: &Value) -> Result<Value, PatchError> {
    after(
        PatchForm::Strategic,
        &json!({"spec": {"ephemeralContainers": containers}}),
    )
}

fn one() -> Value {
    pod()["spec"]["ephemeralContainers"][0].take()
}

#[test]
fn a_strategic_patch_adds_an_entry_and_keeps_the_others() {
    let two = json!({"name": "two", "image": "busybox"});
    assert_eq!(strategic(&json!([two])), Ok(json!([one(), two])));
}

#[test]
fn a_strategic_patch_of_the_same_name_merges_field_by_field() {
    let mut expected = one();
    expected["image"] = json!("other");
    expected["command"] = json!(["sleep", "1"]);
    expected["env"] = json!([{"name": "A", "value": "2"}, {"name": "B", "value": "3"}]);
    let patch = json!([{
        "name": "one", "image": "other", "command": ["sleep", "1"],
        "env": [{"name": "B", "value": "3"}, {"name": "A", "value": "2"}],
        "$setElementOrder/env": [{"name": "A"}, {"name": "B"}],
    }]);
    let mut merged = strategic(&patch).expect("merged");
    merged[0]["env"]
        .as_array_mut()
        .expect("list")
        .sort_by_key(|entry| entry["name"].to_string());
    assert_eq!(merged, json!([expected]));
}

#[test]
fn an_equal_entry_changes_nothing() {
    assert_eq!(strategic(&json!([one()])), Ok(json!([one()])));
}

#[test]
fn the_element_order_that_kubectl_sends_is_no_change() {
    let patch = json!({"spec": {
        "$setElementOrder/ephemeralContainers": [{"name": "one"}, {"name": "two"}],
        "ephemeralContainers": [{"name": "two"}],
    }});
    assert_eq!(
        after(PatchForm::Strategic, &patch),
        Ok(json!([one(), {"name": "two"}]))
    );
}

#[test]
fn directives_of_a_strategic_patch_delete_and_replace() {
    assert_eq!(
        strategic(&json!([{"name": "one", "$patch": "delete"}])),
        Ok(json!([]))
    );
    assert_eq!(
        strategic(&json!([{"name": "none", "$patch": "delete"}])),
        Ok(json!([one()]))
    );
    assert_eq!(
        strategic(&json!([{"name": "one", "image": "new", "$patch": "replace"}])),
        Ok(json!([{"name": "one", "image": "new"}]))
    );
    assert_eq!(
        strategic(&json!([{"$patch": "replace"}, {"name": "two"}])),
        Ok(json!([{"name": "two"}]))
    );
}

#[test]
fn null_removes_a_field() {
    let mut expected = one();
    expected.as_object_mut().expect("object").shift_remove("env");
    assert_eq!(
        strategic(&json!([{"name": "one", "env": null}])),
        Ok(json!([expected]))
    );
    assert_eq!(strategic(&Value::Null), Ok(Value::Null));
}

/// The whole object after a strategic patch.
fn patched(object: &Value, patch: &Value) -> Value {
    apply(PatchForm::Strategic, object, patch).expect("applied")
}

#[test]
fn a_strategic_patch_merges_every_named_list_of_a_pod_by_its_key() {
    let object = json!({
        "metadata": {"labels": {"a": "1", "b": "2"}},
        "spec": {
            "containers": [{
                "name": "main", "image": "busybox",
                "ports": [{"containerPort": 80, "protocol": "TCP"}],
                "volumeMounts": [{"name": "data", "mountPath": "/data"}],
            }],
            "volumes": [{"name": "data", "emptyDir": {}}],
            "hostAliases": [{"ip": "10.0.0.1", "hostnames": ["a"]}],
            "tolerations": [{"key": "a"}],
        },
    });
    let patch = json!({
        "metadata": {"labels": {"a": null, "c": "3"}},
        "spec": {
            "containers": [{
                "name": "main",
                "ports": [{"containerPort": 80, "name": "http"}],
                "volumeMounts": [{"name": "data", "mountPath": "/data"}],
            }],
            "volumes": [{"name": "data", "emptyDir": {}}],
            "hostAliases": [{"ip": "10.0.0.1", "hostnames": ["b"]}],
            "tolerations": [{"key": "b"}],
        },
    });
    let mut expected = object.clone();
    expected["metadata"]["labels"] = json!({"b": "2", "c": "3"});
    expected["spec"]["containers"][0]["ports"][0]["name"] = json!("http");
    expected["spec"]["hostAliases"][0]["hostnames"] = json!(["b"]);
    expected["spec"]["tolerations"] = json!([{"key": "b"}]);
    assert_eq!(patched(&object, &patch), expected);
}

#[test]
fn the_element_order_moves_the_entries_that_it_names() {
    let object = json!({"spec": {"containers": [{"name": "a"}, {"name": "other"}, {"name": "b"}]}});
    let order = json!({"spec": {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}});
    let expected = json!({"spec": {"containers": [{"name": "b"}, {"name": "other"}, {"name": "a"}]}});
    assert_eq!(patched(&object, &order), expected);
    let same = json!({"spec": {"$setElementOrder/containers": [{"name": "a"}, {"name": "b"}]}});
    assert_eq!(patched(&object, &same), object);
}

#[test]
fn keys_that_are_not_retained_go() {
    let object = json!({"spec": {"volumes": [{"name": "data", "emptyDir": {}}]}});
    let volume = json!({"name": "data", "hostPath": {"path": "/data"}});
    let mut change = volume.clone();
    change["$retainKeys"] = json!(["name", "hostPath"]);
    let patch = json!({"spec": {"volumes": [change]}});
    assert_eq!(patched(&object, &patch), json!({"spec": {"volumes": [volume]}}));
}

#[test]
fn a_strategic_patch_that_cannot_be_read_is_malformed() {
    for containers in [
        json!([{"image": "busybox"}]),
        json!(["one"]),
        json!([{"name": "one", "$patch": "explode"}]),
        json!([{"name": "one", "$deleteFromPrimitiveList/command": ["sh"]}]),
    ] {
        let result = strategic(&containers);
        assert!(
            matches!(result, Err(PatchError::Malformed { .. })),
            "{containers}: {result:?}"
        );
    }
    for patch in [json!([]), json!("x")] {
        assert!(after(PatchForm::Strategic, &patch).is_err(), "{patch}");
    }
}

#[test]
fn a_merge_patch_replaces_the_whole_list() {
    let two = json!([{"name": "two", "image": "busybox"}]);
    let patch = json!({"spec": {"ephemeralContainers": two}});
    assert_eq!(after(PatchForm::Merge, &patch), Ok(two));
    assert!(after(PatchForm::Merge, &json!([])).is_err());
}

#[test]
fn a_json_patch_sets_the_list_or_appends_to_it() {
    let two = json!({"name": "two"});
    let set = json!([{"op": "add", "path": "/spec/ephemeralContainers", "value": [two]}]);
    assert_eq!(after(PatchForm::Json, &set), Ok(json!([two])));
    let append = json!([{"op": "add", "path": "/spec/ephemeralContainers/-", "value": two}]);
    assert_eq!(after(PatchForm::Json, &append), Ok(json!([one(), two])));
}

#[test]
fn a_json_patch_that_does_not_fit_says_which_operation() {
    let patch = json!([
        {"op": "test", "path": "/metadata/name", "value": "web"},
        {"op": "test", "path": "/metadata/name", "value": "other"},
    ]);
    let error = after(PatchForm::Json, &patch).expect_err("refused").to_string();
    assert!(error.contains("operation 1 at \"/metadata/name\""), "{error}");
    let nonsense = after(PatchForm::Json, &json!([{"op": "explode"}]));
    assert!(
        matches!(nonsense, Err(PatchError::Malformed { .. })),
        "{nonsense:?}"
    );
}

#[test]
fn a_json_patch_that_copies_the_pod_into_itself_is_bounded() {
    let copies = (0..30).map(|index| json!({"op": "copy", "from": "", "path": format!("/x{index}")}));
    let patch = Value::Array(copies.collect());
    assert_eq!(
        after(PatchForm::Json, &patch),
        Err(PatchError::TooLarge { limit: COPIED_BYTES })
    );
}
