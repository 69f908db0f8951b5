//! A discovered pod without what its kubelet has put values into.

use k8s_openapi::api::core::v1::Pod;

/// The pod without the variables of its containers, and without command and arguments, in which a kubelet has expanded
/// them: some of the values come from Secrets, and none of those is written to the disk.
pub(crate) fn without_resolved(found: &Pod) -> Pod {
    let mut pod = found.clone();
    for container in pod.spec.iter_mut().flat_map(|spec| &mut spec.containers) {
        container.env = None;
        container.command = None;
        container.args = None;
    }
    pod
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_kubelet_has_put_a_value_into_is_left() {
        let found: Pod = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "web", "uid": "u1"},
            "spec": {"containers": [{
                "name": "main", "image": "app", "command": ["app"], "args": ["--password=SECRET"],
                "env": [{"name": "PASSWORD", "value": "SECRET"}],
            }]},
        }))
        .expect("a pod");
        let kept = serde_json::to_value(without_resolved(&found)).expect("JSON");
        assert_eq!(
            kept["spec"]["containers"][0],
            serde_json::json!({"name": "main", "image": "app"})
        );
        assert!(!kept.to_string().contains("SECRET"));
    }
}
