use debuglet_proto::v1::MountPropagation;
use serde_json::json;

use super::*;

const ROOT: &str = "/var/lib/kubelet/pods/u1";

fn pod() -> Pod {
    serde_json::from_value(json!({
        "metadata": {"uid": "u1"},
        "spec": {
            "initContainers": [{"name": "setup"}],
            "containers": [{"name": "main"}, {"name": "proxy"}],
            "volumes": [
                {"name": "data", "emptyDir": {}},
                {"name": "vault", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}},
                {"name": "settings", "projected": {"sources": [{"configMap": {"name": "settings"}}]}},
            ],
        },
    }))
    .expect("a pod")
}

fn mount(container_path: &str, host_path: &str) -> Mount {
    Mount {
        container_path: container_path.to_owned(),
        host_path: host_path.to_owned(),
        ..Mount::default()
    }
}

/// Every kind of mount that a kubelet gives a container.
fn of_kubelet() -> Vec<Mount> {
    [
        ("/data", "volumes/kubernetes.io~empty-dir/data"),
        ("/etc/app.conf", "volume-subpaths/settings/main/0"),
        ("/settings", "volumes/kubernetes.io~projected/settings"),
        ("/vault", "volumes/kubernetes.io~projected/vault"),
        ("/vault-token", "volume-subpaths/vault/main/1"),
        (
            "/var/run/secrets/kubernetes.io/serviceaccount",
            "volumes/kubernetes.io~projected/kube-api-access-x2lqp",
        ),
        ("/etc/hosts", "etc-hosts"),
        ("/dev/termination-log", "containers/main/f0843af7"),
    ]
    .map(|(container, host)| mount(container, &format!("{ROOT}/{host}")))
    .into_iter()
    .chain([mount("/srv", "/srv/of-the-host")])
    .collect()
}

fn places(mounts: &[Mount]) -> Vec<&str> {
    mounts.iter().map(|mount| mount.container_path.as_str()).collect()
}

#[test]
fn volumes_and_parts_of_them_are_copied_tokens_and_the_containers_own_files_are_not() {
    let copied = copied(&pod(), &of_kubelet(), &[], Include::Volumes);
    assert_eq!(places(&copied), ["/data", "/etc/app.conf", "/settings", "/srv"]);
    assert_eq!(
        copied[1].host_path,
        format!("{ROOT}/volume-subpaths/settings/main/0")
    );
}

#[test]
fn everything_is_copied_where_it_is_asked_for() {
    let all = of_kubelet();
    assert_eq!(copied(&pod(), &all, &[], Include::All), all);
}

#[test]
fn the_debug_containers_own_mounts_win() {
    let own = [
        mount("/etc/hosts", "/var/lib/kubelet/pods/u1/etc-hosts"),
        mount(
            "/dev/termination-log",
            "/var/lib/debuglet/pods/u1/containers/debugger/0",
        ),
        mount("/data/", "/elsewhere"),
    ];
    let copied = copied(&pod(), &of_kubelet(), &own, Include::All);
    assert!(
        !places(&copied)
            .iter()
            .any(|path| ["/data", "/etc/hosts", "/dev/termination-log"].contains(path))
    );
    assert_eq!(copied.len(), of_kubelet().len() - 3);
}

#[test]
fn a_mount_stays_as_it_was_asked_for_but_nothing_is_labelled_anew() {
    let asked = Mount {
        readonly: true,
        recursive_read_only: true,
        selinux_relabel: true,
        propagation: MountPropagation::PropagationHostToContainer.into(),
        ..mount("/srv", "/srv/of-the-host")
    };
    let expected = Mount {
        selinux_relabel: false,
        ..asked.clone()
    };
    assert_eq!(copied(&pod(), &[asked], &[], Include::Volumes), [expected]);
}

#[test]
fn a_container_that_the_pod_does_not_have_is_answered_with_those_it_has() {
    let check = |from: &str| {
        let copy = CopyMounts {
            from: from.to_owned(),
            include: Include::Volumes,
        };
        check(&pod(), &copy)
    };
    assert_eq!(check("main"), None);
    assert_eq!(check("setup"), None);
    let error = check("mian").expect("refused");
    assert_eq!(
        (error.field.as_str(), error.cause),
        ("copyMounts.from", Cause::NotFound)
    );
    assert_eq!(
        error.message,
        "the pod has no container \"mian\" to copy mounts from; it has: main, proxy, setup"
    );
}

#[test]
fn what_is_written_is_read_back_and_volumes_need_not_be_said() {
    let copy: CopyMounts = serde_json::from_value(json!({"from": "main"})).expect("read");
    assert_eq!(copy.include, Include::Volumes);
    let written = serde_json::to_value(&copy).expect("written");
    assert_eq!(written, json!({"from": "main", "include": "Volumes"}));
    assert!(serde_json::from_value::<CopyMounts>(json!({"from": "main", "only": "x"})).is_err());
}
