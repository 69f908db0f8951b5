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
fn a_patch_may_name_an_entry_twice_where_its_order_does() {
    let pod = json!({"spec": {"ephemeralContainers": [{"name": "one"}, {"name": "two", "image": "a"}]}});
    let patch = json!({"spec": {
        "$setElementOrder/ephemeralContainers": [{"name": "one"}, {"name": "two"}, {"name": "two"}],
        "ephemeralContainers": [{"name": "two", "image": "b"}, {"name": "two", "image": "b"}],
    }});
    let expected = json!({"spec": {"ephemeralContainers": [{"name": "one"}, {"name": "two", "image": "b"}]}});
    assert_eq!(apply(PatchForm::Strategic, &pod, &patch).unwrap(), expected);
}

#[test]
fn a_strategic_patch_adds_an_entry_before_the_others_and_keeps_these() {
    let two = json!({"name": "two", "image": "busybox"});
    assert_eq!(strategic(&json!([two])), Ok(json!([two, one()])));
    assert_eq!(strategic(&json!([{"name": "one"}, two])), Ok(json!([one(), two])));
}

#[test]
fn a_strategic_patch_of_the_same_name_merges_field_by_field() {
    let mut expected = one();
    expected["image"] = json!("other");
    expected["command"] = json!(["sleep", "1"]);
    expected["env"] = json!([{"name": "A", "value": "2"}, {"name": "B", "value": "3"}]);
    let patch = json!([{
        "name": "one", "image": "other", "command": ["sleep", "1"],
        "env": [{"name": "A", "value": "2"}, {"name": "B", "value": "3"}],
        "$setElementOrder/env": [{"name": "A"}, {"name": "B"}],
    }]);
    assert_eq!(strategic(&patch), Ok(json!([expected])));
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
    // The entry that carries the directive is no entry of the list.
    assert_eq!(
        strategic(&json!([{"name": "one", "image": "new", "$patch": "replace"}, {"name": "two"}])),
        Ok(json!([{"name": "two"}]))
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
    let expected = json!({"spec": {"containers": [{"name": "other"}, {"name": "b"}, {"name": "a"}]}});
    assert_eq!(patched(&object, &order), expected);
    let same = json!({"spec": {"$setElementOrder/containers": [{"name": "a"}, {"name": "b"}]}});
    assert_eq!(patched(&object, &same), object);
}

#[test]
fn finalizers_are_merged_and_plain_values_deleted_by_what_they_are() {
    let object = json!({"metadata": {"finalizers": ["a/1", "b/2", "c/3"]}});
    for (patch, expected) in [
        (
            json!({"finalizers": ["d/4", "b/2"]}),
            json!(["d/4", "a/1", "b/2", "c/3"]),
        ),
        (json!({"finalizers": ["c/3"]}), json!(["a/1", "b/2", "c/3"])),
        (
            json!({"$setElementOrder/finalizers": ["c/3", "a/1", "b/2"]}),
            json!(["c/3", "a/1", "b/2"]),
        ),
        (
            json!({"$deleteFromPrimitiveList/finalizers": ["b/2", "x/9"]}),
            json!(["a/1", "c/3"]),
        ),
    ] {
        let merged = patched(&object, &json!({"metadata": patch}));
        assert_eq!(merged["metadata"]["finalizers"], expected, "{patch}");
    }
    let none = json!({"metadata": {"name": "web"}});
    let patch = json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["b/2"]}});
    assert_eq!(patched(&none, &patch), none);
    let shell = json!([{"name": "one", "$deleteFromPrimitiveList/command": ["sh"]}]);
    let mut without = one();
    without["command"] = json!([]);
    assert_eq!(strategic(&shell), Ok(json!([without])));
}

#[test]
fn what_has_nothing_to_be_merged_with_loses_its_directives() {
    let patch = json!({"spec": {"securityContext": {
        "a": null, "b": {"$patch": "delete"}, "c": [{"$patch": "replace"}, {"d": null, "e": 1}],
    }}});
    let expected = json!({"spec": {"securityContext": {"c": [{"e": 1}]}}});
    assert_eq!(patched(&json!({}), &patch), expected);
    // A new entry of a list is taken as it is: nobody knows the fields that its directives are then.
    let added = json!({"name": "two", "env": [{"name": "A", "$patch": "delete"}], "$explode": 1});
    assert_eq!(strategic(&json!([added])), Ok(json!([added, one()])));
}

#[test]
fn a_strategic_patch_does_not_change_what_an_object_is() {
    let object = json!({"apiVersion": "v1", "kind": "Pod"});
    for patch in [
        json!({"apiVersion": "v2", "kind": ""}),
        json!({"apiVersion": null, "kind": "Node"}),
    ] {
        assert_eq!(patched(&object, &patch), object);
    }
    assert_eq!(
        patched(&object, &json!({"kind": 1}))["kind"],
        1,
        "which is then refused"
    );
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
        json!([{"name": "one", "$patch": "merge"}]),
        json!([{"name": "one", "$deleteFromPrimitiveList/env": [{"name": "A"}]}]),
        json!([{"name": "one", "$setElementOrder/env": "A"}]),
        json!([{"name": "one", "$setElementOrder/env": [{"name": "B"}], "env": [{"name": "A"}]}]),
        json!([{"name": "one", "$setElementOrder/env": [{"name": "A"}, {"name": "B"}], "env": [{"name": "B"}, {"name": "A"}]}]),
        json!([{"name": "one", "$retainKeys": ["name"], "image": "busybox"}]),
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
        Err(PatchError::CopiesTooMuch {
            limit: operations::COPIED_BYTES
        })
    );
}

/// Objects that stand in each other, `levels` deep.
fn nested(levels: usize) -> Value {
    (0..levels).fold(json!(0), |inner, _| json!({ "a": inner }))
}

#[test]
fn a_json_patch_makes_nothing_deeper_than_what_can_be_read() {
    let inwards = |levels: usize| format!("/spec/x{}", "/a".repeat(levels));
    let add = |levels: usize, path: String| json!({"op": "add", "path": path, "value": nested(levels)});
    let mut copies = vec![add(100, inwards(0))];
    copies.extend(
        (0..10).map(|doubling| json!({"op": "copy", "from": "/spec/x", "path": inwards(100 << doubling)})),
    );
    let adds = (0..150).map(|times| add(125, inwards(125 * times)));
    let moves = [
        add(100, inwards(0)),
        json!({"op": "add", "path": "/spec/y", "value": nested(100)}),
        json!({"op": "move", "from": "/spec/y", "path": inwards(100)}),
    ];
    for patch in [copies, adds.collect(), moves.to_vec()] {
        let error = after(PatchForm::Json, &Value::Array(patch)).expect_err("refused");
        assert!(error.to_string().contains("deeper than 128 levels"), "{error}");
    }
    let deepest = json!([add(126, inwards(0))]);
    assert!(after(PatchForm::Json, &deepest).is_ok());
}

#[test]
fn a_json_patch_has_as_many_operations_as_kubernetes_allows() {
    let test = json!({"op": "test", "path": "/metadata/name", "value": "web"});
    let most = vec![test.clone(); operations::OPERATIONS];
    assert!(after(PatchForm::Json, &Value::Array(most)).is_ok());
    let more = vec![test; operations::OPERATIONS + 1];
    let error = after(PatchForm::Json, &Value::Array(more)).expect_err("refused");
    assert_eq!(
        error.to_string(),
        "the patch has 10001 operations: it may have 10000"
    );
}

#[test]
fn a_patch_that_goes_through_long_lists_again_and_again_is_refused() {
    let list: Vec<Value> = (0..100_000).map(|index| json!(index)).collect();
    let mut moves = vec![json!({"op": "add", "path": "/spec/x", "value": list})];
    moves.extend((0..9_000).map(|_| json!({"op": "move", "from": "/spec/x/0", "path": "/spec/x/1"})));
    assert_eq!(
        after(PatchForm::Json, &Value::Array(moves)),
        Err(PatchError::TooLaborious)
    );
    let variables = |range: std::ops::Range<usize>| -> Vec<Value> {
        range.map(|index| json!({"name": format!("A{index}")})).collect()
    };
    let mut same = vec![json!({"name": "one", "env": variables(0..10_000)})];
    same.extend((0..9_000).map(|index| json!({"name": "one", "env": variables(index..index + 1)})));
    assert_eq!(strategic(&Value::Array(same)), Err(PatchError::TooLaborious));
}

#[test]
fn a_long_list_in_another_order_is_merged_and_put_into_it() {
    let named = |index: usize| json!({"name": format!("n{index}")});
    let count = 50_000;
    let patch = json!({"spec": {
        "$setElementOrder/containers": (0..count).map(named).collect::<Vec<_>>(),
        "containers": (0..count).map(named).collect::<Vec<_>>(),
    }});
    let object = json!({"spec": {"containers": (0..count).rev().map(named).collect::<Vec<_>>()}});
    let merged = apply(PatchForm::Strategic, &object, &patch).expect("applied");
    assert_eq!(
        merged,
        json!({"spec": {"containers": (0..count).map(named).collect::<Vec<_>>()}})
    );
}

#[test]
fn an_entry_that_is_deleted_and_named_again_is_a_new_one() {
    let patch =
        json!([{"name": "one", "$patch": "delete"}, {"name": "two"}, {"name": "one", "image": "new"}]);
    let expected = json!([{"name": "two"}, {"name": "one", "image": "new"}]);
    assert_eq!(strategic(&patch), Ok(expected));
}
