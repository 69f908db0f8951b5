use super::*;
use crate::visible::hostile::{TEXTS, assert_visible, spoiled};
use serde_json::{Value, json};

fn describe(pod: Value, events: Value) -> String {
    description(
        &serde_json::from_value(pod).unwrap(),
        &LastLines::default(),
        Vec::new(),
        serde_json::from_value(events).unwrap(),
        "2026-11-21T03:20:40Z".parse().unwrap(),
    )
}

fn etcd() -> Value {
    json!({
        "metadata": {"name": "etcd-node1", "namespace": "kube-system", "uid": "u1",
                     "labels": {"tier": "control-plane", "component": "etcd"},
                     "annotations": {"debuglet.io/source": "manifest"}},
        "spec": {
            "nodeName": "node1",
            "containers": [{
                "name": "etcd", "image": "etcd:3.4", "command": ["etcd", "--name=a"],
                "resources": {"limits": {"memory": "1Gi"}},
                "env": [{"name": "A", "value": "1"},
                        {"name": "NAME", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}}],
                "volumeMounts": [{"name": "data", "mountPath": "/var/lib/etcd"},
                                 {"name": "certs", "mountPath": "/etc/etcd", "readOnly": true}],
            }],
            "ephemeralContainers": [{"name": "debugger-8f2lq", "image": "busybox:1.37", "stdin": true,
                                     "targetContainerName": "etcd"}],
            "volumes": [{"name": "data", "hostPath": {"path": "/var/lib/etcd", "type": "Directory"}},
                        {"name": "certs", "emptyDir": {"medium": "Memory"}},
                        {"name": "token", "secret": {"secretName": "s"}}],
            "tolerations": [{"operator": "Exists", "effect": "NoExecute"}],
        },
        "status": {
            "phase": "Running", "hostIP": "10.0.0.1", "podIP": "10.0.0.7", "podIPs": [{"ip": "10.0.0.7"}],
            "startTime": "2026-11-21T03:00:00Z", "qosClass": "Burstable",
            "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [{
                "name": "etcd", "image": "etcd:3.4", "imageID": "etcd@sha256:1", "containerID": "containerd://c1",
                "ready": true, "restartCount": 1, "state": {"running": {"startedAt": "2026-11-21T03:00:05Z"}},
                "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled",
                    "startedAt": "2026-11-21T02:00:00Z", "finishedAt": "2026-11-21T03:00:00Z"}},
            }],
            "ephemeralContainerStatuses": [{
                "name": "debugger-8f2lq", "image": "busybox:1.37", "imageID": "busybox@sha256:2",
                "containerID": "containerd://6d0c", "ready": false, "restartCount": 0,
                "state": {"terminated": {"exitCode": 0, "reason": "Completed", "message": "one\ntwo\n",
                    "startedAt": "2026-11-21T03:12:40Z", "finishedAt": "2026-11-21T03:19:02Z"}},
            }],
        },
    })
}

#[test]
fn a_description_has_the_layout_of_kubectl() {
    let events = json!([
        {"metadata": {}, "involvedObject": {"fieldPath": "spec.ephemeralContainers{debugger-8f2lq}"},
         "type": "Normal", "reason": "Started", "message": "Started it\n", "source": {"component": "debuglet"},
         "firstTimestamp": "2026-11-21T03:12:40Z", "lastTimestamp": "2026-11-21T03:12:40Z", "count": 1},
        {"metadata": {}, "involvedObject": {}, "type": "Warning", "reason": "BackOff", "message": "again",
         "source": {"component": "debuglet"},
         "firstTimestamp": "2026-11-21T03:00:40Z", "lastTimestamp": "2026-11-21T03:10:40Z", "count": 4},
    ]);
    assert_eq!(
        describe(etcd(), events),
        "\
Name:         etcd-node1
Namespace:    kube-system
Node:         node1/10.0.0.1
Start Time:   Sat, 21 Nov 2026 03:00:00 +0000
Labels:       component=etcd
              tier=control-plane
Annotations:  debuglet.io/source: manifest
Status:       Running
IP:           10.0.0.7
IPs:
  IP:  10.0.0.7
Containers:
  etcd:
    Container ID:  containerd://c1
    Image:         etcd:3.4
    Image ID:      etcd@sha256:1
    Port:          <none>
    Host Port:     <none>
    Command:
      etcd
      --name=a
    State:          Running
      Started:      Sat, 21 Nov 2026 03:00:05 +0000
    Last State:     Terminated
      Reason:       OOMKilled
      Exit Code:    137
      Started:      Sat, 21 Nov 2026 02:00:00 +0000
      Finished:     Sat, 21 Nov 2026 03:00:00 +0000
    Ready:          True
    Restart Count:  1
    Limits:
      memory:  1Gi
    Environment:
      A:     1
      NAME:  etcd-node1 (v1:metadata.name)
    Mounts:
      /etc/etcd from certs (ro)
      /var/lib/etcd from data (rw)
Ephemeral Containers:
  debugger-8f2lq:
    Container ID:   containerd://6d0c
    Image:          busybox:1.37
    Image ID:       busybox@sha256:2
    Target:         etcd
    Port:           <none>
    Host Port:      <none>
    State:          Terminated
      Reason:       Completed
      Message:      one
                    two
      Exit Code:    0
      Started:      Sat, 21 Nov 2026 03:12:40 +0000
      Finished:     Sat, 21 Nov 2026 03:19:02 +0000
    Ready:          False
    Restart Count:  0
    Environment:    <none>
    Mounts:         <none>
Conditions:
  Type   Status
  Ready  True
Volumes:
  data:
    Type:          HostPath
    Path:          /var/lib/etcd
    HostPathType:  Directory
  certs:
    Type:       EmptyDir
    Medium:     Memory
    SizeLimit:  <unset>
  token:
    Type:        secret
QoS Class:       Burstable
Node-Selectors:  <none>
Tolerations:     :NoExecute op=Exists
Events:
  Type     Reason   Age                From      Message
  ----     ------   ----               ----      -------
  Warning  BackOff  10m (x4 over 20m)  debuglet  again
  Normal   Started  8m                 debuglet  spec.ephemeralContainers{debugger-8f2lq}: Started it
"
    );
}

#[test]
fn a_waiting_debug_container_says_what_it_waits_for() {
    let mut pod = etcd();
    pod["status"]["ephemeralContainerStatuses"][0]["state"] =
        json!({"waiting": {"reason": "ErrImagePull", "message": "no such image"}});
    let text = describe(pod, json!([]));
    assert!(
        text.contains(
            "    State:          Waiting\n      Reason:       ErrImagePull\n      Message:      no such image\n"
        ),
        "{text}"
    );
    assert!(
        text.ends_with("Events:          <none>\n") || text.ends_with("Events:  <none>\n"),
        "{text}"
    );
}

#[test]
fn a_pod_that_is_being_removed_says_since_when() {
    let mut pod = etcd();
    pod["metadata"]["deletionTimestamp"] = json!("2026-11-21T03:20:10Z");
    pod["metadata"]["deletionGracePeriodSeconds"] = json!(30);
    let text = describe(pod, json!([]));
    assert!(text.contains("Terminating (lasts 30s)\n"), "{text}");
    assert!(text.contains("Termination Grace Period:  30s\n"), "{text}");
}

#[test]
fn a_refused_pod_says_why() {
    let pod = json!({
        "metadata": {"name": "a", "namespace": "b"},
        "spec": {"containers": []},
        "status": {"phase": "Failed", "reason": "NotSupported", "message": "spec.containers[0].livenessProbe: x"},
    });
    let text = describe(pod, json!([]));
    assert!(text.contains("Reason:       NotSupported\n"), "{text}");
    assert!(
        text.contains("Message:      spec.containers[0].livenessProbe: x\n"),
        "{text}"
    );
    assert!(text.contains("Node:         <none>\n"), "{text}");
}

#[test]
fn long_annotations_are_shortened_and_the_last_applied_one_is_left_out() {
    let pod = json!({
        "metadata": {"name": "a", "annotations": {"long": "x".repeat(300), "two": "1\n2", LAST_APPLIED: "{}"}},
        "spec": {"containers": []},
    });
    let text = describe(pod, json!([]));
    assert!(
        text.contains(&format!("  {}...\n", "x".repeat(MAX_ANNOTATION))),
        "{text}"
    );
    assert!(!text.contains("last-applied"), "{text}");
}

#[test]
fn the_last_lines_of_a_failed_container_stand_below_its_state_and_problems_of_the_pod_at_the_end() {
    let mut pod = etcd();
    pod["status"]["containerStatuses"][0]["state"] =
        json!({"terminated": {"exitCode": 1, "reason": "Error"}});
    let mut last_lines = LastLines::default();
    last_lines.insert("etcd", Ok("no space left\non\tdevice\n"));
    let pod = serde_json::from_value(pod).unwrap();
    let problems = vec!["The runtime does not answer StopContainer.".to_owned()];
    let text = description(&pod, &last_lines, problems, Vec::new(), Timestamp::UNIX_EPOCH);
    assert!(
        text.contains("\nProblems:") && text.contains("The runtime does not answer StopContainer.\n"),
        "{text}"
    );
    let shown = "    Last Lines of Its Log:\n      no space left\n      on    device\n    Ready:";
    assert!(text.contains(shown), "{text}");

    last_lines.insert("etcd", Err("the runtime does not answer"));
    let text = description(&pod, &last_lines, Vec::new(), Vec::new(), Timestamp::UNIX_EPOCH);
    let shown = "    Last Lines of Its Log:\n      <cannot be read: the runtime does not answer>\n    Ready:";
    assert!(text.contains(shown), "{text}");
}

#[test]
fn a_container_with_mounts_of_another_says_whose() {
    let mut pod = etcd();
    let annotations = &mut pod["metadata"]["annotations"];
    annotations["debuglet.io/copied-mounts"] =
        json!(r#"{"debugger-8f2lq":{"from":"etcd","include":"Volumes"}}"#);
    let text = describe(pod, json!([]));
    assert!(
        text.contains("    Mounts:         <none>\n    Copied Mounts:  of etcd (volumes)\n"),
        "{text}"
    );
}

#[test]
fn a_debug_container_says_who_asked_for_it() {
    let mut pod = etcd();
    pod["metadata"]["annotations"]["debuglet.io/asked-by"] =
        json!(r#"{"debugger-8f2lq":{"user":"jane","wayIn":"cluster"}}"#);
    let text = describe(pod, json!([]));
    assert!(
        text.contains("    Requested By:   jane, as a user of the cluster\n"),
        "{text}"
    );
}

#[test]
fn what_a_pod_its_events_and_its_logs_hold_is_shown_as_text() {
    let mut pod = etcd();
    pod["metadata"]["annotations"]["note"] = json!("of the owner");
    pod["spec"]["containers"][0]["args"] = json!(["--verbose"]);
    pod["status"]["message"] = json!("why");
    pod["status"]["containerStatuses"][0]["state"] =
        json!({"terminated": {"exitCode": 1, "reason": "Error", "message": "its last words"}});
    pod["status"]["ephemeralContainerStatuses"][0]["state"] =
        json!({"waiting": {"reason": "ErrImagePull", "message": "the registry said"}});
    let events = json!([
        {"metadata": {}, "involvedObject": {"fieldPath": "spec.containers{etcd}"}, "type": "Warning",
         "reason": "BackOff", "message": "again and again", "source": {"component": "debuglet"}},
    ]);
    for (text, shown) in TEXTS {
        // A line end is meant in some fields; a test of the page's has it.
        if text.contains('\n') {
            continue;
        }
        // Blanks at the end of some fields are left out.
        let (text, shown) = (&format!("{text}."), format!("{shown}."));
        let pod: Pod = serde_json::from_value(spoiled(&pod, text)).unwrap();
        let events = serde_json::from_value(spoiled(&events, text)).unwrap();
        let mut last_lines = LastLines::default();
        last_lines.insert(&format!("etcd{text}"), Ok(&format!("no space left{text}")));
        let unread = format!("the disk does not answer{text}");
        last_lines.insert(&format!("debugger-8f2lq{text}"), Err(&unread));
        let problems = vec![format!("It does not answer{text}")];
        let described = description(&pod, &last_lines, problems, events, Timestamp::UNIX_EPOCH);
        assert_visible(&described);
        let compact = |text: &str| text.split_whitespace().collect::<String>();
        let found = compact(&described);
        for words in [
            "Name: etcd-node1",
            "note: of the owner",
            "Message: why",
            "--verbose",
            ": 1",
            "Message: its last words",
            "no space left",
            "the disk does not answer",
            "Message: the registry said",
            "It does not answer",
            "again and again",
        ] {
            let words = compact(&format!("{words}{shown}"));
            assert!(found.contains(&words), "{words}: {described}");
        }
    }
}
