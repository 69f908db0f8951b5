//! The pods that tests run, and questions to ask of a served one.

use serde_json::{Value, json};

/// A manifest with one container, `main`, that sleeps, and one emptyDir, `scratch`: the reference's sample pod.
pub fn sleeping_pod(name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": name },
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{
                "name": "main",
                "image": "docker.io/library/busybox:latest",
                "imagePullPolicy": "IfNotPresent",
                "command": ["sleep", "86400"],
                "volumeMounts": [{ "name": "scratch", "mountPath": "/scratch" }],
            }],
            "volumes": [{ "name": "scratch", "emptyDir": {} }],
        },
    })
}

/// An ephemeral container that runs `command` in busybox.
pub fn debug_container(name: &str, command: &[&str]) -> Value {
    json!({
        "name": name,
        "image": "docker.io/library/busybox:latest",
        "imagePullPolicy": "IfNotPresent",
        "command": command,
    })
}

/// Whether a served pod is `Running` with every ordinary container running.
pub fn is_running(pod: &Value) -> bool {
    let statuses = pod["status"]["containerStatuses"].as_array();
    pod["status"]["phase"] == "Running"
        && statuses.is_some_and(|all| all.iter().all(|status| status["state"]["running"].is_object()))
}

/// The status of the ephemeral container `name`; null where the pod has none.
pub fn ephemeral_status<'a>(pod: &'a Value, name: &str) -> &'a Value {
    pod["status"]["ephemeralContainerStatuses"]
        .as_array()
        .and_then(|statuses| statuses.iter().find(|status| status["name"] == name))
        .unwrap_or(&Value::Null)
}

/// The state of an ephemeral container as the reference writes it: `running:`, `waiting:ErrImagePull`, ...
pub fn state_of(pod: &Value, name: &str) -> String {
    match ephemeral_status(pod, name)["state"]
        .as_object()
        .and_then(|state| state.iter().next())
    {
        Some((state, details)) => format!("{state}:{}", details["reason"].as_str().unwrap_or_default()),
        None => String::new(),
    }
}
