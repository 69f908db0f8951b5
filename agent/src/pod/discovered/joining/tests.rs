use debuglet_proto::v1::{
    LinuxContainerConfig, LinuxContainerSecurityContext, LinuxPodSandboxConfig, LinuxSandboxSecurityContext,
    NamespaceMode, NamespaceOption, UserNamespace,
};

use super::*;
use crate::pod::discovered::tests::recorded_sandbox;

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
    let mut config = config();
    let ours = Path::new(OURS);
    fit(&mut config, sandbox, Hosts { ours, theirs });
    config
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
    let ours = Path::new(OURS);
    fit(&mut config, &sandbox, Hosts { ours, theirs: None });
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
    let logs = Path::new("/var/log/pods/of-ours");
    assert_eq!(sandbox_of_request(&sandbox, logs, false), own);
    let privileged = sandbox_of_request(&sandbox, logs, true);
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
