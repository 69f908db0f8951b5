//! The containers of a description: init, ordinary and ephemeral ones alike.

use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStatus, EnvVar, EphemeralContainer, Pod, ResourceRequirements,
};

use super::last_lines::LastLines;
use super::moment;
use super::page::Page;
use crate::pod::asked_by;
use crate::pod::copied_mounts::{CopyMounts, Include, annotated};
use crate::pod::defaults::as_container;

/// One of the three lists of containers in a pod.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Section {
    Init,
    Ordinary,
    Ephemeral,
}

/// Writes one list of containers; init and ephemeral ones only where there are any.
pub(super) fn write(page: &mut Page, pod: &Pod, last_lines: &LastLines, section: Section) {
    let spec = pod.spec.clone().unwrap_or_default();
    let status = pod.status.clone().unwrap_or_default();
    let ephemeral: Vec<EphemeralContainer> = spec.ephemeral_containers.unwrap_or_default();
    let (title, containers, statuses) = match section {
        Section::Init => (
            "Init Containers:",
            spec.init_containers.unwrap_or_default(),
            status.init_container_statuses,
        ),
        Section::Ordinary => ("Containers:", spec.containers, status.container_statuses),
        Section::Ephemeral => (
            "Ephemeral Containers:",
            ephemeral.iter().map(as_container).collect(),
            status.ephemeral_container_statuses,
        ),
    };
    if containers.is_empty() && section != Section::Ordinary {
        return;
    }
    page.line(0, title);
    let statuses = statuses.unwrap_or_default();
    let (copying, asked) = (annotated(pod), asked_by::annotated(pod));
    for container in &containers {
        let status = statuses.iter().find(|status| status.name == container.name);
        let target = ephemeral
            .iter()
            .find(|entry| section == Section::Ephemeral && entry.name == container.name)
            .and_then(|entry| entry.target_container_name.as_ref());
        write_container(
            page,
            pod,
            container,
            status,
            target,
            last_lines.of(&container.name),
        );
        let copying = copying
            .get(&container.name)
            .filter(|_| section == Section::Ephemeral);
        page.optional(2, "Copied Mounts", copying.map(words).as_ref());
        let asked_by = asked
            .get(&container.name)
            .filter(|_| section == Section::Ephemeral);
        page.optional(2, "Requested By", asked_by.map(ToString::to_string).as_ref());
    }
}

fn words(copying: &CopyMounts) -> String {
    let what = match copying.include {
        Include::Volumes => "volumes",
        Include::All => "all",
    };
    format!("of {} ({what})", copying.from)
}

fn write_container(
    page: &mut Page,
    pod: &Pod,
    container: &Container,
    status: Option<&ContainerStatus>,
    target: Option<&String>,
    last_lines: Result<&[String], &str>,
) {
    page.line(1, &format!("{}:", container.name));
    if let Some(status) = status {
        page.field(
            2,
            "Container ID",
            status.container_id.as_deref().unwrap_or_default(),
        );
    }
    page.field(2, "Image", container.image.as_deref().unwrap_or_default());
    if let Some(status) = status {
        page.field(2, "Image ID", &status.image_id);
    }
    page.optional(2, "Target", target);
    write_ports(page, container);
    let seccomp = container
        .security_context
        .as_ref()
        .and_then(|context| context.seccomp_profile.as_ref());
    page.optional(2, "SeccompProfile", seccomp.map(|profile| &profile.type_));
    for (title, words) in [("Command:", &container.command), ("Args:", &container.args)] {
        let words = words.as_deref().unwrap_or_default();
        if words.is_empty() {
            continue;
        }
        page.line(2, title);
        for line in words.iter().flat_map(|word| word.split('\n')) {
            page.line(3, line);
        }
    }
    if let Some(status) = status {
        write_state(page, "State", status.state.as_ref());
        let last = status.last_state.as_ref();
        if last.is_some_and(|state| state.terminated.is_some()) {
            write_state(page, "Last State", last);
        }
        write_last_lines(page, last_lines);
        page.field(2, "Ready", if status.ready { "True" } else { "False" });
        page.field(2, "Restart Count", &status.restart_count.to_string());
    }
    write_resources(page, container.resources.as_ref());
    write_environment(page, pod, container.env.as_deref().unwrap_or_default());
    write_mounts(page, container);
}

/// The last lines of the log, or why they are not here; nothing where there are none.
fn write_last_lines(page: &mut Page, last_lines: Result<&[String], &str>) {
    let title = "Last Lines of Its Log:";
    match last_lines {
        Ok([]) => {}
        Ok(lines) => {
            page.line(2, title);
            for line in lines {
                page.line(3, line);
            }
        }
        Err(reason) => {
            page.line(2, title);
            page.line(3, &format!("<cannot be read: {reason}>"));
        }
    }
}

fn write_ports(page: &mut Page, container: &Container) {
    let ports = container.ports.as_deref().unwrap_or_default();
    let protocol = |protocol: &Option<String>| protocol.clone().unwrap_or_else(|| "TCP".into());
    let inner: Vec<String> = ports
        .iter()
        .map(|port| {
            let name = port
                .name
                .as_ref()
                .map(|name| format!(" ({name})"))
                .unwrap_or_default();
            format!("{}/{}{name}", port.container_port, protocol(&port.protocol))
        })
        .collect();
    let outer: Vec<String> = ports
        .iter()
        .map(|port| format!("{}/{}", port.host_port.unwrap_or(0), protocol(&port.protocol)))
        .collect();
    let (inner_title, outer_title) = match ports.len() {
        0 | 1 => ("Port", "Host Port"),
        _ => ("Ports", "Host Ports"),
    };
    for (title, shown) in [(inner_title, inner), (outer_title, outer)] {
        match shown.is_empty() {
            true => page.field(2, title, "<none>"),
            false => page.field(2, title, &shown.join(", ")),
        }
    }
}

fn write_state(page: &mut Page, title: &str, state: Option<&ContainerState>) {
    let state = state.cloned().unwrap_or_default();
    let time =
        |time: Option<k8s_openapi::apimachinery::pkg::apis::meta::v1::Time>| time.map(|time| moment(time.0));
    if let Some(running) = state.running {
        page.field(2, title, "Running");
        page.optional(3, "Started", time(running.started_at).as_ref());
    } else if let Some(terminated) = state.terminated {
        page.field(2, title, "Terminated");
        page.optional(3, "Reason", terminated.reason.as_ref());
        page.optional(3, "Message", terminated.message.as_ref());
        page.field(3, "Exit Code", &terminated.exit_code.to_string());
        page.optional(
            3,
            "Signal",
            terminated.signal.filter(|signal| *signal > 0).as_ref(),
        );
        page.optional(3, "Started", time(terminated.started_at).as_ref());
        page.optional(3, "Finished", time(terminated.finished_at).as_ref());
    } else {
        let waiting = state.waiting.unwrap_or_default();
        page.field(2, title, "Waiting");
        page.optional(3, "Reason", waiting.reason.as_ref());
        // kubectl leaves it to the events, which may be gone by now.
        page.optional(3, "Message", waiting.message.as_ref());
    }
}

fn write_resources(page: &mut Page, resources: Option<&ResourceRequirements>) {
    let Some(resources) = resources else { return };
    for (title, quantities) in [("Limits:", &resources.limits), ("Requests:", &resources.requests)] {
        let quantities = quantities.iter().flatten();
        for (index, (name, quantity)) in quantities.enumerate() {
            if index == 0 {
                page.line(2, title);
            }
            page.field(3, name, &quantity.0);
        }
    }
}

fn write_environment(page: &mut Page, pod: &Pod, variables: &[EnvVar]) {
    if variables.is_empty() {
        page.field(2, "Environment", "<none>");
        return;
    }
    page.line(2, "Environment:");
    for variable in variables {
        let source = variable.value_from.as_ref();
        let value = match source.map(|source| (&source.field_ref, &source.resource_field_ref)) {
            None => variable.value.clone().unwrap_or_default(),
            Some((Some(field), _)) => {
                let version = field.api_version.as_deref().unwrap_or("v1");
                let value = field_value(pod, &field.field_path);
                format!("{value} ({version}:{})", field.field_path)
            }
            Some((None, Some(resource))) => format!("({})", resource.resource),
            Some((None, None)) => "<from a source that debuglet does not read>".into(),
        };
        page.field(3, &variable.name, &value);
    }
}

/// A field of the pod that an environment variable can refer to; empty where it is not a plain one.
fn field_value(pod: &Pod, path: &str) -> String {
    let (metadata, spec, status) = (&pod.metadata, pod.spec.as_ref(), pod.status.as_ref());
    let value = match path {
        "metadata.name" => metadata.name.clone(),
        "metadata.namespace" => metadata.namespace.clone(),
        "metadata.uid" => metadata.uid.clone(),
        "spec.nodeName" => spec.and_then(|spec| spec.node_name.clone()),
        "spec.serviceAccountName" => spec.and_then(|spec| spec.service_account_name.clone()),
        "status.hostIP" => status.and_then(|status| status.host_ip.clone()),
        "status.podIP" => status.and_then(|status| status.pod_ip.clone()),
        _ => None,
    };
    value.unwrap_or_default()
}

fn write_mounts(page: &mut Page, container: &Container) {
    let mut mounts = container.volume_mounts.clone().unwrap_or_default();
    if mounts.is_empty() {
        page.field(2, "Mounts", "<none>");
        return;
    }
    page.line(2, "Mounts:");
    mounts.sort_by(|one, other| one.mount_path.cmp(&other.mount_path));
    for mount in mounts {
        let mode = if mount.read_only == Some(true) { "ro" } else { "rw" };
        let part = match mount.sub_path.as_deref().unwrap_or_default() {
            "" => String::new(),
            path => format!(",path={path:?}"),
        };
        page.line(
            3,
            &format!("{} from {} ({mode}{part})", mount.mount_path, mount.name),
        );
    }
}
