//! `debuglet describe`: everything about a pod, in the layout of `kubectl describe pod`.

mod containers;
mod events;
mod last_lines;
mod page;

use std::collections::BTreeMap;

use clap::Args;
use jiff::Timestamp;
use k8s_openapi::List;
use k8s_openapi::api::core::v1::{Event, Pod, PodStatus, Toleration, Volume};
use serde::Deserialize;

use super::client::{Client, NODE_REPORT, with_query};
use super::failure::Failure;
use super::output::print;
use super::pod_lookup::find_pod;
use super::{PodArgument, age};
use crate::pod::discovered::enriched::SPEC_FROM_ANNOTATION;
use crate::pod::discovered::volumes::MADE_UP;
use crate::pod::status::RUN_BY_SOMEBODY_ELSE;
use containers::Section;
use last_lines::LastLines;
use page::Page;

/// An annotation that repeats the whole pod: kubectl leaves it out too.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// The longest annotation that is shown on the line of its name, and how much of a longer one is shown, in bytes.
const MAX_ANNOTATION: usize = 140;

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  debuglet describe etcd-node1 -n kube-system")]
pub(super) struct Arguments {
    #[command(flatten)]
    pod: PodArgument,
}

/// Prints the description.
pub(super) async fn run(client: &Client, arguments: Arguments) -> Result<(), Failure> {
    let (namespace, name) = arguments.pod.parse()?;
    let pod = find_pod(client, namespace, name).await?;
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    let path = with_query(
        &format!("/api/v1/namespaces/{namespace}/events"),
        [(
            "fieldSelector",
            format!("involvedObject.name={name},involvedObject.uid={uid}"),
        )],
    );
    let events: List<Event> = client.get(&path).await?;
    let report: NodeReport = client.get(NODE_REPORT).await?;
    let problems = report.of_pod(namespace, name);
    let last_lines = LastLines::read(client, namespace, name, &pod).await;
    print(&description(
        &pod,
        &last_lines,
        problems,
        events.items,
        Timestamp::now(),
    ))
}

/// What the agent reports of its node, as far as it concerns one pod.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct NodeReport {
    problems: Vec<Problem>,
}

/// Something that is wrong on the node at this moment.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Problem {
    pod: String,
    message: String,
}

impl NodeReport {
    fn of_pod(self, namespace: &str, name: &str) -> Vec<String> {
        let pod = format!("{namespace}/{name}");
        let concerned = self.problems.into_iter().filter(|problem| problem.pod == pod);
        concerned.map(|problem| problem.message).collect()
    }
}

/// The whole description.
fn description(
    pod: &Pod,
    last_lines: &LastLines,
    problems: Vec<String>,
    events: Vec<Event>,
    now: Timestamp,
) -> String {
    let mut page = Page::default();
    write_pod(&mut page, pod, last_lines, now);
    if !problems.is_empty() {
        page.list(0, "Problems", problems.into_iter());
    }
    let mut text = page.finish();
    // kubectl lines up the events by themselves.
    let mut page = Page::default();
    events::write(&mut page, events, now);
    text.push_str(&page.finish());
    text
}

/// `Sat, 21 Nov 2026 03:12:40 +0000` (RFC 1123 with a numeric zone), in UTC.
fn moment(timestamp: Timestamp) -> String {
    timestamp.strftime("%a, %d %b %Y %H:%M:%S +0000").to_string()
}

fn write_pod(page: &mut Page, pod: &Pod, last_lines: &LastLines, now: Timestamp) {
    let metadata = &pod.metadata;
    let spec = pod.spec.clone().unwrap_or_default();
    let status = pod.status.clone().unwrap_or_default();
    let text = |value: &Option<String>| value.clone().unwrap_or_default();

    page.field(0, "Name", &text(&metadata.name));
    page.field(0, "Namespace", &text(&metadata.namespace));
    page.optional(0, "Priority", spec.priority.as_ref());
    page.optional(0, "Priority Class Name", spec.priority_class_name.as_ref());
    page.optional(0, "Runtime Class Name", spec.runtime_class_name.as_ref());
    page.optional(0, "Service Account", spec.service_account_name.as_ref());
    match &spec.node_name {
        Some(node) => page.field(0, "Node", &format!("{node}/{}", text(&status.host_ip))),
        None => page.field(0, "Node", "<none>"),
    }
    page.optional(
        0,
        "Start Time",
        status.start_time.as_ref().map(|time| moment(time.0)).as_ref(),
    );
    write_labels(page, metadata.labels.as_ref());
    write_annotations(page, metadata.annotations.as_ref());
    let phase = text(&status.phase);
    let over = phase == "Failed" || phase == "Succeeded";
    match &metadata.deletion_timestamp {
        Some(time) if !over => {
            let lasts = age::since(Some(time.0), now);
            page.field(0, "Status", &format!("Terminating (lasts {lasts})"));
            let grace = metadata
                .deletion_grace_period_seconds
                .map(|seconds| format!("{seconds}s"));
            page.optional(0, "Termination Grace Period", grace.as_ref());
        }
        _ => page.field(0, "Status", &phase),
    }
    page.optional(0, "Reason", status.reason.as_ref());
    page.optional(0, "Message", status.message.as_ref());
    let seccomp = spec
        .security_context
        .as_ref()
        .and_then(|context| context.seccomp_profile.as_ref());
    page.optional(0, "SeccompProfile", seccomp.map(|profile| &profile.type_));
    page.optional(
        0,
        "LocalhostProfile",
        seccomp.and_then(|profile| profile.localhost_profile.as_ref()),
    );
    write_addresses(page, &status);
    let owner = metadata
        .owner_references
        .iter()
        .flatten()
        .find(|owner| owner.controller == Some(true));
    page.optional(
        0,
        "Controlled By",
        owner
            .map(|owner| format!("{}/{}", owner.kind, owner.name))
            .as_ref(),
    );
    write_known_from(page, pod);
    containers::write(page, pod, last_lines, Section::Init);
    containers::write(page, pod, last_lines, Section::Ordinary);
    containers::write(page, pod, last_lines, Section::Ephemeral);
    let conditions = status.conditions.unwrap_or_default();
    if !conditions.is_empty() {
        page.line(0, "Conditions:");
        page.cells(1, &["Type", "Status"]);
        for condition in conditions {
            page.cells(1, &[&condition.type_, &condition.status]);
        }
    }
    write_volumes(page, spec.volumes.as_deref().unwrap_or_default());
    page.optional(0, "QoS Class", status.qos_class.as_ref());
    let selectors = spec.node_selector.unwrap_or_default();
    page.list(
        0,
        "Node-Selectors",
        selectors.iter().map(|(key, value)| format!("{key}={value}")),
    );
    let mut tolerations = spec.tolerations.unwrap_or_default();
    tolerations.sort_by(|one, other| one.key.cmp(&other.key));
    page.list(0, "Tolerations", tolerations.iter().map(toleration));
}

/// Of a pod that somebody else runs, where what is shown comes from.
fn write_known_from(page: &mut Page, pod: &Pod) {
    let annotations = pod.metadata.annotations.as_ref();
    let Some(spec_from) = annotations.and_then(|annotations| annotations.get(SPEC_FROM_ANNOTATION)) else {
        return;
    };
    let status = pod.status.as_ref();
    let mut conditions = status
        .and_then(|status| status.conditions.as_ref())
        .into_iter()
        .flatten();
    let is_told = !conditions.any(|condition| condition.reason.as_deref() == Some(RUN_BY_SOMEBODY_ELSE));
    let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_ref());
    let mut volumes = volumes.into_iter().flatten();
    page.line(0, "Known From:");
    page.field(1, "State", "runtime");
    page.field(1, "Spec", spec_from);
    page.field(1, "Readiness", if is_told { "API server" } else { "not known" });
    if volumes.any(|volume| volume.name.starts_with(MADE_UP)) {
        let note = format!("runtime; names that begin with {MADE_UP} are made up");
        page.field(1, "Volumes", &note);
    }
}

fn write_labels(page: &mut Page, labels: Option<&BTreeMap<String, String>>) {
    let labels = labels.into_iter().flatten();
    page.list(0, "Labels", labels.map(|(key, value)| format!("{key}={value}")));
}

fn write_annotations(page: &mut Page, annotations: Option<&BTreeMap<String, String>>) {
    let mut lines = Vec::new();
    for (key, value) in annotations
        .into_iter()
        .flatten()
        .filter(|(key, _)| *key != LAST_APPLIED)
    {
        let value = value.trim_end_matches('\n');
        if key.len() + value.len() + 2 > MAX_ANNOTATION || value.contains('\n') {
            lines.push(format!("{key}:"));
            lines.extend(value.split('\n').map(|line| format!("  {}", shortened(line))));
        } else {
            lines.push(format!("{key}: {value}"));
        }
    }
    page.list(0, "Annotations", lines.into_iter());
}

/// A line's start where it is too long.
fn shortened(line: &str) -> String {
    if line.len() <= MAX_ANNOTATION {
        return line.to_owned();
    }
    let end = line.floor_char_boundary(MAX_ANNOTATION);
    format!("{}...", &line[..end])
}

fn write_addresses(page: &mut Page, status: &PodStatus) {
    page.field(0, "IP", status.pod_ip.as_deref().unwrap_or_default());
    match status.pod_ips.as_deref().unwrap_or_default() {
        [] => page.field(0, "IPs", "<none>"),
        addresses => {
            page.line(0, "IPs:");
            for address in addresses {
                page.field(1, "IP", &address.ip);
            }
        }
    }
}

fn write_volumes(page: &mut Page, volumes: &[Volume]) {
    if volumes.is_empty() {
        page.field(0, "Volumes", "<none>");
        return;
    }
    page.line(0, "Volumes:");
    for volume in volumes {
        page.line(1, &format!("{}:", volume.name));
        if let Some(host_path) = &volume.host_path {
            page.field(2, "Type", "HostPath");
            page.field(2, "Path", &host_path.path);
            page.field(2, "HostPathType", host_path.type_.as_deref().unwrap_or_default());
        } else if let Some(empty_dir) = &volume.empty_dir {
            page.field(2, "Type", "EmptyDir");
            page.field(2, "Medium", empty_dir.medium.as_deref().unwrap_or_default());
            let limit = empty_dir.size_limit.as_ref().map(|quantity| quantity.0.as_str());
            page.field(2, "SizeLimit", limit.unwrap_or("<unset>"));
        } else {
            page.field(2, "Type", &source_name(volume));
        }
    }
}

/// The name of a volume's source, from the field that is set: `secret`, `persistentVolumeClaim`, ...
fn source_name(volume: &Volume) -> String {
    let fields = serde_json::to_value(volume).unwrap_or_default();
    let source = fields
        .as_object()
        .and_then(|fields| fields.keys().find(|field| *field != "name"));
    source.cloned().unwrap_or_else(|| "<unknown>".into())
}

fn toleration(toleration: &Toleration) -> String {
    let key = toleration.key.as_deref().unwrap_or_default();
    let value = toleration.value.as_deref().unwrap_or_default();
    let effect = toleration.effect.as_deref().unwrap_or_default();
    let mut text = key.to_owned();
    if !value.is_empty() {
        text.push_str(&format!("={value}"));
    }
    if !effect.is_empty() {
        text.push_str(&format!(":{effect}"));
    }
    if toleration.operator.as_deref() == Some("Exists") && value.is_empty() {
        text.push_str(if text.is_empty() {
            "op=Exists"
        } else {
            " op=Exists"
        });
    }
    if let Some(seconds) = toleration.toleration_seconds {
        text.push_str(&format!(" for {seconds}s"));
    }
    text
}

#[cfg(test)]
#[path = "describe/tests.rs"]
mod tests;
