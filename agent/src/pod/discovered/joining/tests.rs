use debuglet_proto::v1::{
    LinuxContainerConfig, LinuxContainerResources, LinuxContainerSecurityContext, LinuxPodSandboxConfig,
    LinuxSandboxSecurityContext, NamespaceMode, NamespaceOption, SecurityProfile, UserNamespace,
};

use super::*;
use crate::pod::discovered::discover;
use crate::pod::discovered::tests::{recorded_containers, recorded_sandbox};

const OURS: &str = "/var/lib/debuglet/pods/u1/etc-hosts";
const THEIRS: &str = "/var/lib/kubelet/pods/u1/etc-hosts";

fn config() -> ContainerConfig {
    let mount = |container: &str, host: &str| Mount {
        container_path: container.to_owned(),
        host_path: host.to_owned(),
        ..Mount::default()
    };
    ContainerConfig {
        log_path: "debugger/0.log".to_owned(),
        mounts: vec![mount("/data", "/srv/data"), mount("/etc/hosts", OURS)],
        linux: Some(LinuxContainerConfig {
            security_context: Some(LinuxContainerSecurityContext::default()),
            ..LinuxContainerConfig::default()
        }),
        ..ContainerConfig::default()
    }
}

fn fitted(sandbox: &ForeignSandbox, theirs: Option<&str>) -> ContainerConfig {
    let mut pod = discover(sandbox, &[], "node1");
    pod.etc_hosts = theirs.map(str::to_owned);
    let mut config = config();
    fit_into(&mut config, sandbox, &[], &pod);
    config
}

fn fit_into(
    config: &mut ContainerConfig,
    sandbox: &ForeignSandbox,
    containers: &[ForeignContainer],
    pod: &DiscoveredPod,
) {
    let host = Host {
        sandbox,
        containers,
        pod,
        our_hosts: Path::new(OURS),
    };
    fit(config, &host);
}

fn hosts_file(config: &ContainerConfig) -> Option<&str> {
    let mut mounts = config.mounts.iter();
    let hosts = mounts.find(|mount| mount.container_path == "/etc/hosts")?;
    Some(&hosts.host_path)
}

#[test]
fn in_a_kubelets_pod_the_log_is_no_attempt_of_its_own() {
    assert_eq!(
        fitted(&recorded_sandbox(), None).log_path,
        "debugger/debuglet.log"
    );
    let mut of_crictl = recorded_sandbox();
    of_crictl.annotations.clear();
    assert_eq!(fitted(&of_crictl, None).log_path, "debugger/0.log");
}

#[test]
fn the_hosts_file_is_the_pods_or_the_runtimes() {
    let sandbox = recorded_sandbox();
    assert_eq!(hosts_file(&fitted(&sandbox, Some(THEIRS))), Some(THEIRS));
    let without = fitted(&sandbox, None);
    assert_eq!(hosts_file(&without), None);
    assert_eq!(without.mounts.len(), 1, "other mounts stay");
}

#[test]
fn the_user_namespace_is_the_sandboxs() {
    let users = UserNamespace {
        mode: NamespaceMode::Pod as i32,
        ..UserNamespace::default()
    };
    let mut sandbox = recorded_sandbox();
    sandbox.config = Some(PodSandboxConfig {
        linux: Some(LinuxPodSandboxConfig {
            security_context: Some(LinuxSandboxSecurityContext {
                namespace_options: Some(NamespaceOption {
                    userns_options: Some(users.clone()),
                    ..NamespaceOption::default()
                }),
                ..LinuxSandboxSecurityContext::default()
            }),
            ..LinuxPodSandboxConfig::default()
        }),
        ..PodSandboxConfig::default()
    });
    let options = fitted(&sandbox, None)
        .linux
        .and_then(|linux| linux.security_context?.namespace_options)
        .expect("options");
    assert_eq!(options.userns_options, Some(users));
}

#[test]
fn where_the_sandbox_says_nothing_of_a_user_namespace_neither_does_the_container() {
    let mut sandbox = recorded_sandbox();
    sandbox.config = Some(PodSandboxConfig::default());
    let mut config = config();
    let security = config
        .linux
        .as_mut()
        .and_then(|linux| linux.security_context.as_mut());
    security.expect("a context").namespace_options = Some(NamespaceOption {
        userns_options: Some(UserNamespace::default()),
        ..NamespaceOption::default()
    });
    fit_into(&mut config, &sandbox, &[], &discover(&sandbox, &[], "node1"));
    let security = config
        .linux
        .and_then(|linux| linux.security_context)
        .expect("a context");
    assert_eq!(security.namespace_options.expect("options").userns_options, None);
}

#[test]
fn the_request_says_what_the_sandbox_says_and_that_the_container_is_privileged() {
    let sandbox = recorded_sandbox();
    let own = sandbox.config.clone().expect("recorded");
    let logs = PathBuf::from(&own.log_directory);
    assert_eq!(sandbox_of_request(&sandbox, &logs, false), own);
    let privileged = sandbox_of_request(&sandbox, &logs, true);
    assert_eq!(privileged.log_directory, own.log_directory);
    let linux = privileged.linux.expect("linux");
    assert_eq!(linux.cgroup_parent, own.linux.expect("linux").cgroup_parent);
    assert!(linux.security_context.expect("a context").privileged);
}

#[test]
fn a_sandbox_without_a_log_folder_gets_one() {
    let mut sandbox = recorded_sandbox();
    sandbox.config = None;
    let request = sandbox_of_request(&sandbox, Path::new("/var/log/pods/n_p_u"), false);
    assert_eq!(request.log_directory, "/var/log/pods/n_p_u");
    assert_eq!(request.metadata, Some(sandbox.metadata));
}

#[test]
fn a_filter_of_the_node_is_read_where_the_pods_own_kubelet_has_it() {
    let filter = |name: &str| SecurityProfile {
        profile_type: ProfileType::Localhost.into(),
        localhost_ref: name.to_owned(),
    };
    let sandbox = recorded_sandbox();
    let mut pod = discover(&sandbox, &[], "node1");
    for (root, asked, expected) in [
        (
            None,
            "/var/lib/kubelet/seccomp/a/b.json",
            "/var/lib/kubelet/seccomp/a/b.json",
        ),
        (
            Some("/data/kubelet"),
            "/var/lib/kubelet/seccomp/a/b.json",
            "/data/kubelet/seccomp/a/b.json",
        ),
    ] {
        pod.kubelet_root = root.map(PathBuf::from);
        let mut config = config();
        let linux = config.linux.as_mut().expect("linux");
        linux.security_context.as_mut().expect("a context").seccomp = Some(filter(asked));
        fit_into(&mut config, &sandbox, &[], &pod);
        let security = config
            .linux
            .and_then(|linux| linux.security_context)
            .expect("a context");
        assert_eq!(security.seccomp, Some(filter(expected)), "{root:?}");
    }
}

#[test]
fn the_oom_score_is_that_of_the_pods_class_or_of_a_critical_pod() {
    const OF_OURS: i64 = 1000;
    for (cgroup_parent, of_containers, expected) in [
        ("/kubepods/besteffort/podu1", 1000, 1000),
        ("/kubepods/burstable/podu1", 980, 999),
        ("/kubepods/podu1", -997, -997),
        ("/kubepods/burstable/podu1", -997, -997),
        ("kubepods-besteffort-podu1.slice", 1000, 1000),
        (
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podu1.slice",
            980,
            999,
        ),
        ("kubelet-kubepods-podu1.slice", -997, -997),
        ("/crictl", -997, OF_OURS),
        ("", -997, OF_OURS),
    ] {
        let mut sandbox = recorded_sandbox();
        let linux = sandbox.config.as_mut().and_then(|config| config.linux.as_mut());
        cgroup_parent.clone_into(&mut linux.expect("linux").cgroup_parent);
        let mut containers = recorded_containers();
        for container in &mut containers {
            let linux = container.config.as_mut().and_then(|config| config.linux.as_mut());
            linux
                .expect("linux")
                .resources
                .get_or_insert_default()
                .oom_score_adj = of_containers;
        }
        let mut config = config();
        config.linux.as_mut().expect("linux").resources = Some(LinuxContainerResources {
            oom_score_adj: OF_OURS,
            ..LinuxContainerResources::default()
        });
        fit_into(
            &mut config,
            &sandbox,
            &containers,
            &discover(&sandbox, &[], "node1"),
        );
        let resources = config.linux.and_then(|linux| linux.resources).expect("resources");
        assert_eq!(resources.oom_score_adj, expected, "{cgroup_parent}");
    }
}

#[test]
fn what_a_kubelet_fills_itself_is_only_read() {
    let sandbox = recorded_sandbox();
    let pod = discover(&sandbox, &[], "node1");
    let uid = pod.pod.metadata.uid.clone().expect("a UID");
    for (plugin, expected) in [
        ("configmap", true),
        ("downward-api", true),
        ("projected", true),
        ("secret", true),
        ("empty-dir", false),
        ("csi", false),
    ] {
        let mut config = config();
        config.mounts[0].host_path = format!("/k/pods/{uid}/volumes/kubernetes.io~{plugin}/data");
        fit_into(&mut config, &sandbox, &[], &pod);
        assert_eq!(config.mounts[0].readonly, expected, "{plugin}");
    }
}
