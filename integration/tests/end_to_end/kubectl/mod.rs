//! The real kubectl, each scenario on debuglet's API and on that of a real kube-apiserver and kubelet: there it was
//! seen what is expected here.

mod debugging;
mod of_2021;
mod reading;
mod streaming;
mod waiting;
mod writing;

use integration::kubernetes::Kubectl;
use serde_json::Value;

/// An image that every node has, under a name that no registry has to be asked about.
pub(crate) const IMAGE: &str = "--image=docker.io/library/busybox:latest";
/// Never asks a registry for what is present.
pub(crate) const IF_NOT_PRESENT: &str = "--image-pull-policy=IfNotPresent";

/// Creates a pod and waits until it is ready.
pub(crate) async fn create(kubectl: &Kubectl<'_>, pod: &Value) {
    let name = pod["metadata"]["name"].as_str().unwrap();
    let file = kubectl.file(&format!("{name}.json"), &pod.to_string());
    let created = kubectl.run(["create", "-f", &file]).await.succeeded();
    assert_eq!(created.stdout, format!("pod/{name} created\n"));
    kubectl
        .run([
            "wait",
            "--for=condition=Ready",
            &format!("pod/{name}"),
            "--timeout=60s",
        ])
        .await
        .succeeded();
}

/// A pod as it is served.
pub(crate) async fn served(kubectl: &Kubectl<'_>, name: &str) -> Value {
    let output = kubectl.run(["get", "pod", name, "-o", "json"]).await.succeeded();
    serde_json::from_str(&output.stdout).unwrap()
}

/// Waits until a pod is as told, and gives it back.
pub(crate) async fn served_until(kubectl: &Kubectl<'_>, name: &str, told: impl Fn(&Value) -> bool) -> Value {
    integration::eventually(&format!("{name} is as told"), async || {
        let pod = served(kubectl, name).await;
        if told(&pod) { Ok(pod) } else { Err(pod) }
    })
    .await
}
