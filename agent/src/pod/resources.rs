//! A pod's QoS class, and the limits of a container as a kubelet computes them from its requests and limits.

use std::collections::BTreeMap;

use debuglet_proto::v1::{HugepageLimit, LinuxContainerResources};
use k8s_openapi::api::core::v1::{Container, PodSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::node::Node;
use super::quantity::{Amount, QuantityError};

/// The `resources.requests` or `resources.limits` of a container.
type ResourceList = BTreeMap<String, Quantity>;

/// The period of the CPU quota in microseconds: the kubelet's default `cpuCFSQuotaPeriod`.
const CPU_PERIOD: i64 = 100_000;
/// The kernel takes no smaller quota, in microseconds.
const MIN_CPU_QUOTA: i64 = 1_000;
/// The kernel's bounds for CPU shares.
const CPU_SHARES: std::ops::RangeInclusive<i64> = 2..=262_144;

/// How a pod ranks when the node runs out of memory (`status.qosClass`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum QosClass {
    /// Every container has limits for CPU and memory, and requests as much.
    Guaranteed,
    /// Something is requested or limited.
    Burstable,
    /// Nothing is.
    BestEffort,
}

impl QosClass {
    /// The name in `status.qosClass`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            QosClass::Guaranteed => "Guaranteed",
            QosClass::Burstable => "Burstable",
            QosClass::BestEffort => "BestEffort",
        }
    }
}

/// The pod's QoS class. Ephemeral containers have no resources and do not count.
pub(crate) fn qos_class(spec: &PodSpec) -> Result<QosClass, QuantityError> {
    let mut requests = BTreeMap::new();
    let mut limits = BTreeMap::new();
    let mut all_limited = true;
    for container in spec
        .containers
        .iter()
        .chain(spec.init_containers.iter().flatten())
    {
        let resources = container.resources.as_ref();
        add_counting(
            &mut requests,
            resources.and_then(|resources| resources.requests.as_ref()),
        )?;
        let limited = add_counting(
            &mut limits,
            resources.and_then(|resources| resources.limits.as_ref()),
        )?;
        all_limited &= limited == 2;
    }
    if requests.is_empty() && limits.is_empty() {
        Ok(QosClass::BestEffort)
    } else if all_limited && requests == limits {
        Ok(QosClass::Guaranteed)
    } else {
        Ok(QosClass::Burstable)
    }
}

/// Adds what counts for the QoS class (CPU and memory, if more than nothing) to `sums`; says how many of the
/// two there were.
fn add_counting<'a>(
    sums: &mut BTreeMap<&'a str, Amount>,
    list: Option<&'a ResourceList>,
) -> Result<usize, QuantityError> {
    let mut counted = 0;
    for name in ["cpu", "memory"] {
        let amount = amount(list, name)?;
        if amount > Amount::ZERO {
            let sum = sums.entry(name).or_default();
            *sum = *sum + amount;
            counted += 1;
        }
    }
    Ok(counted)
}

/// What a list says of one resource; nothing, where it says nothing.
pub(crate) fn amount(list: Option<&ResourceList>, name: &str) -> Result<Amount, QuantityError> {
    list.and_then(|list| list.get(name))
        .map_or(Ok(Amount::ZERO), Amount::try_from)
}

/// The limits of a container of the pod. An ephemeral container has no resources of its own: it gets the least
/// CPU shares, no limit, and the OOM score of the pod's QoS class.
pub(crate) fn container_resources(
    spec: &PodSpec,
    container: &Container,
    node: &Node,
) -> Result<LinuxContainerResources, QuantityError> {
    let requests = container
        .resources
        .as_ref()
        .and_then(|resources| resources.requests.as_ref());
    let limits = container
        .resources
        .as_ref()
        .and_then(|resources| resources.limits.as_ref());

    let cpu_request = requests.and_then(|requests| requests.get("cpu"));
    let mut resources = linux_resources(
        cpu_request.map(Amount::try_from).transpose()?,
        amount(limits, "cpu")?,
        amount(limits, "memory")?,
        node,
    );
    resources.oom_score_adj = oom_score_adjustment(
        spec,
        qos_class(spec)?,
        amount(requests, "memory")?.value(),
        node.memory_bytes,
    );
    resources.hugepage_limits = hugepage_limits(limits, node)?;
    Ok(resources)
}

/// The limits of a pod as a whole, which CRI wants to know with the sandbox (runtimes that run pods in virtual
/// machines size them by it): what all containers use together, or one of the init containers before them.
pub(crate) fn pod_resources(spec: &PodSpec, node: &Node) -> Result<LinuxContainerResources, QuantityError> {
    let requests = |container: &Container, name| {
        let resources = container.resources.as_ref();
        amount(resources.and_then(|resources| resources.requests.as_ref()), name)
    };
    let limits = |container: &Container, name| {
        let resources = container.resources.as_ref();
        amount(resources.and_then(|resources| resources.limits.as_ref()), name)
    };
    let cpu_request = most_at_once(spec, |container| requests(container, "cpu"))?;
    Ok(linux_resources(
        Some(cpu_request).filter(|request| *request > Amount::ZERO),
        most_at_once(spec, |container| limits(container, "cpu"))?,
        most_at_once(spec, |container| limits(container, "memory"))?,
        node,
    ))
}

/// The most that a pod's containers have of something at one time: init containers run one after the other,
/// those that are restarted (sidecars) go on beside all that come after.
fn most_at_once(
    spec: &PodSpec,
    of: impl Fn(&Container) -> Result<Amount, QuantityError>,
) -> Result<Amount, QuantityError> {
    let mut sidecars = Amount::ZERO;
    let mut most = Amount::ZERO;
    for container in spec.init_containers.iter().flatten() {
        let together = sidecars + of(container)?;
        most = most.max(together);
        if container.restart_policy.as_deref() == Some("Always") {
            sidecars = together;
        }
    }
    let mut together = sidecars;
    for container in &spec.containers {
        together = together + of(container)?;
    }
    Ok(most.max(together))
}

/// CPU and memory in CRI's terms. Where only a limit for CPU is given, as much is requested.
fn linux_resources(
    cpu_request: Option<Amount>,
    cpu_limit: Amount,
    memory_limit: Amount,
    node: &Node,
) -> LinuxContainerResources {
    let unified = if node.cgroup_v2 {
        // Out of memory, the container ends as a whole instead of losing single processes.
        [("memory.oom.group".to_owned(), "1".to_owned())].into()
    } else {
        Default::default()
    };
    LinuxContainerResources {
        cpu_shares: cpu_shares(cpu_request.unwrap_or(cpu_limit).milli()),
        cpu_quota: cpu_quota(cpu_limit.milli()),
        cpu_period: CPU_PERIOD,
        memory_limit_in_bytes: memory_limit.value(),
        unified,
        ..Default::default()
    }
}

/// CPU shares for a request in thousandths: 1024 for a processor.
fn cpu_shares(milli: i64) -> i64 {
    (milli.saturating_mul(1024) / 1000).clamp(*CPU_SHARES.start(), *CPU_SHARES.end())
}

/// The CPU quota for a limit in thousandths, in microseconds per [`CPU_PERIOD`]; 0 without a limit.
fn cpu_quota(milli: i64) -> i64 {
    match milli {
        0 => 0,
        milli => (milli.saturating_mul(CPU_PERIOD) / 1000).max(MIN_CPU_QUOTA),
    }
}

/// How much more readily the kernel kills the container's processes when memory runs out. Inside the burstable
/// class, who requested much of the node's memory is spared the longest.
fn oom_score_adjustment(spec: &PodSpec, class: QosClass, memory_request: i64, node_memory: i64) -> i64 {
    if spec.priority_class_name.as_deref() == Some("system-node-critical") {
        return SPARED;
    }
    match class {
        QosClass::Guaranteed | QosClass::BestEffort => oom_score_of(class),
        QosClass::Burstable => {
            let share = i128::from(memory_request) * 1000 / i128::from(node_memory.max(1));
            let score = 1000 - i64::try_from(share).unwrap_or(1000);
            // Between the two other classes, whatever was requested.
            score.clamp(1000 + SPARED, FIRST_TO_GO - 1)
        }
    }
}

/// The OOM score of what is ended last when memory runs out, and first.
const SPARED: i64 = -997;
const FIRST_TO_GO: i64 = 1000;

/// The OOM score of a container that requests no memory, in a pod of this class.
pub(crate) fn oom_score_of(class: QosClass) -> i64 {
    match class {
        QosClass::Guaranteed => SPARED,
        QosClass::Burstable => FIRST_TO_GO - 1,
        QosClass::BestEffort => FIRST_TO_GO,
    }
}

/// A limit for every size of huge pages that the node has: none of them, unless the container says otherwise.
fn hugepage_limits(limits: Option<&ResourceList>, node: &Node) -> Result<Vec<HugepageLimit>, QuantityError> {
    let mut wanted = BTreeMap::new();
    for (name, quantity) in limits.into_iter().flatten() {
        if let Some(size) = name.strip_prefix("hugepages-") {
            let limit = Amount::try_from(quantity)?.value();
            wanted.insert(page_size_name(Amount::parse(size)?.value()), limit.unsigned_abs());
        }
    }
    Ok(node
        .hugepage_sizes
        .iter()
        .map(|page_size| HugepageLimit {
            page_size: page_size.clone(),
            limit: wanted.get(page_size).copied().unwrap_or(0),
        })
        .collect())
}

/// A size in bytes as the hugetlb cgroup names it: `2MB`.
fn page_size_name(mut bytes: i64) -> String {
    let mut units = ["B", "KB", "MB", "GB", "TB", "PB"].iter();
    let mut unit = units.next();
    while bytes != 0 && bytes % 1024 == 0 && units.len() > 0 {
        bytes /= 1024;
        unit = units.next();
    }
    format!("{bytes}{}", unit.unwrap_or(&""))
}

#[cfg(test)]
#[allow(clippy::needless_pass_by_value)] // `json!` literals read better without a `&`
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn spec(containers: Value) -> PodSpec {
        serde_json::from_value(json!({ "containers": containers })).expect("a pod's spec")
    }

    fn container(requests: Value, limits: Value) -> Value {
        json!({ "name": "c", "resources": { "requests": requests, "limits": limits } })
    }

    fn node() -> Node {
        Node {
            memory_bytes: 16 << 30,
            hugepage_sizes: vec!["2MB".into(), "1GB".into()],
            ..Node::default()
        }
    }

    #[test]
    fn the_qos_class_follows_from_requests_and_limits() {
        let both = json!({"cpu": "1", "memory": "1Gi"});
        let table = [
            (json!([{"name": "c"}]), QosClass::BestEffort),
            (
                json!([container(json!({"cpu": "0"}), json!({}))]),
                QosClass::BestEffort,
            ),
            (
                json!([container(
                    json!({"nvidia.com/gpu": "1"}),
                    json!({"nvidia.com/gpu": "1"})
                )]),
                QosClass::BestEffort,
            ),
            (
                json!([container(json!({"cpu": "1"}), json!({}))]),
                QosClass::Burstable,
            ),
            (
                json!([container(json!({}), json!({"memory": "1Gi"}))]),
                QosClass::Burstable,
            ),
            (
                json!([container(both.clone(), both.clone())]),
                QosClass::Guaranteed,
            ),
            (
                json!([container(
                    json!({"cpu": "1000m", "memory": "1024Mi"}),
                    both.clone()
                )]),
                QosClass::Guaranteed,
            ),
            (
                json!([container(json!({"cpu": "500m", "memory": "1Gi"}), both.clone())]),
                QosClass::Burstable,
            ),
            (
                json!([container(both.clone(), both.clone()), {"name": "d"}]),
                QosClass::Burstable,
            ),
        ];
        for (containers, class) in table {
            assert_eq!(qos_class(&spec(containers.clone())), Ok(class), "{containers}");
        }
    }

    #[test]
    fn init_containers_count_for_the_qos_class_and_ephemeral_ones_do_not() {
        let spec: PodSpec = serde_json::from_value(json!({
            "containers": [{"name": "c"}],
            "ephemeralContainers": [{"name": "e", "resources": {"requests": {"cpu": "1"}}}],
        }))
        .expect("a spec");
        assert_eq!(qos_class(&spec), Ok(QosClass::BestEffort));
        let mut with_init = spec;
        with_init.init_containers = Some(vec![
            serde_json::from_value(container(json!({"cpu": "1"}), json!({}))).expect("a container"),
        ]);
        assert_eq!(qos_class(&with_init), Ok(QosClass::Burstable));
    }

    #[test]
    fn cpu_and_memory_become_shares_quota_and_limit() {
        for (requests, limits, shares, quota, memory) in [
            (json!({}), json!({}), 2, 0, 0),
            (json!({"cpu": "100m"}), json!({}), 102, 0, 0),
            (json!({"cpu": "1"}), json!({"cpu": "2"}), 1024, 200_000, 0),
            (json!({}), json!({"cpu": "500m"}), 512, 50_000, 0),
            (json!({"cpu": "1m"}), json!({"cpu": "1m"}), 2, 1000, 0),
            (json!({"cpu": "1000"}), json!({}), 262_144, 0, 0),
            (
                json!({"memory": "1Mi"}),
                json!({"memory": "64Mi"}),
                2,
                0,
                64 << 20,
            ),
        ] {
            let spec = spec(json!([container(requests.clone(), limits.clone())]));
            let resources = container_resources(&spec, &spec.containers[0], &node()).expect("resources");
            assert_eq!(
                (
                    resources.cpu_shares,
                    resources.cpu_quota,
                    resources.memory_limit_in_bytes
                ),
                (shares, quota, memory),
                "{requests} {limits}"
            );
            assert_eq!(resources.cpu_period, 100_000);
            assert!(resources.unified.is_empty());
        }
    }

    #[test]
    fn the_oom_score_follows_the_qos_class_and_the_share_of_memory() {
        let both = json!({"cpu": "1", "memory": "1Gi"});
        for (requests, limits, score) in [
            (json!({}), json!({}), 1000),
            (both.clone(), both.clone(), -997),
            (json!({"memory": "4Gi"}), json!({}), 750),
            (json!({"memory": "1"}), json!({}), 999),
            (json!({"memory": "16Gi"}), json!({}), 3),
            (json!({"memory": "1000Gi"}), json!({}), 3),
            (json!({"cpu": "1"}), json!({}), 999),
        ] {
            let spec = spec(json!([container(requests.clone(), limits)]));
            let resources = container_resources(&spec, &spec.containers[0], &node()).expect("resources");
            assert_eq!(resources.oom_score_adj, score, "{requests}");
        }
        let mut critical = spec(json!([{"name": "c"}]));
        critical.priority_class_name = Some("system-node-critical".into());
        let resources = container_resources(&critical, &critical.containers[0], &node()).expect("resources");
        assert_eq!(resources.oom_score_adj, -997);
    }

    #[test]
    fn an_ephemeral_container_gets_the_oom_score_of_its_pods_class() {
        let both = json!({"cpu": "1", "memory": "1Gi"});
        for (containers, score) in [
            (json!([{"name": "c"}]), 1000),
            (json!([container(both.clone(), both.clone())]), -997),
            (json!([container(json!({"memory": "8Gi"}), json!({}))]), 999),
        ] {
            let resources = container_resources(&spec(containers.clone()), &Container::default(), &node());
            let resources = resources.expect("resources");
            assert_eq!(
                (resources.oom_score_adj, resources.cpu_shares),
                (score, 2),
                "{containers}"
            );
        }
    }

    #[test]
    fn every_size_of_huge_pages_is_limited_to_none_unless_asked_for() {
        let spec = spec(json!([container(json!({}), json!({"hugepages-2Mi": "100Mi"}))]));
        let resources = container_resources(&spec, &spec.containers[0], &node()).expect("resources");
        let limits: Vec<_> = resources
            .hugepage_limits
            .iter()
            .map(|limit| (limit.page_size.as_str(), limit.limit))
            .collect();
        assert_eq!(limits, [("2MB", 100 << 20), ("1GB", 0)]);
    }

    #[test]
    fn a_pod_as_a_whole_has_what_its_containers_have_at_one_time() {
        let spec: PodSpec = serde_json::from_value(json!({
            "initContainers": [
                {"name": "big", "resources": {"limits": {"memory": "1Gi"}}},
                {"name": "side", "restartPolicy": "Always", "resources": {"limits": {"cpu": "500m", "memory": "64Mi"}}},
                {"name": "after", "resources": {"limits": {"cpu": "2", "memory": "1Mi"}}},
            ],
            "containers": [container(json!({"cpu": "1"}), json!({"cpu": "1", "memory": "100Mi"})), {"name": "none"}],
        }))
        .expect("a spec");
        let resources = pod_resources(&spec, &node()).expect("resources");
        assert_eq!(resources.memory_limit_in_bytes, 1 << 30);
        assert_eq!(resources.cpu_quota, 250_000);
        assert_eq!(resources.cpu_shares, 1024);
        assert_eq!(resources.oom_score_adj, 0);
    }

    #[test]
    fn limits_whose_sum_cannot_be_said_are_as_much_as_can_be_said() {
        let much = container(json!({}), json!({"cpu": "9P", "memory": "8Pi"}));
        let spec = spec(json!(vec![much; 1100]));
        let resources = pod_resources(&spec, &node()).expect("resources");
        assert_eq!(resources.memory_limit_in_bytes, i64::MAX);
        assert!(resources.cpu_quota > 0, "{}", resources.cpu_quota);
    }

    #[test]
    fn on_cgroup_v2_a_container_out_of_memory_ends_as_a_whole() {
        let spec = spec(json!([{"name": "c"}]));
        let node = Node {
            cgroup_v2: true,
            ..node()
        };
        let resources = container_resources(&spec, &spec.containers[0], &node).expect("resources");
        assert_eq!(
            resources.unified.get("memory.oom.group").map(String::as_str),
            Some("1")
        );
    }

    #[test]
    fn a_quantity_that_cannot_be_read_is_an_error() {
        let spec = spec(json!([container(json!({"cpu": "much"}), json!({}))]));
        assert_eq!(qos_class(&spec), Err(QuantityError::Malformed("much".into())));
        assert!(container_resources(&spec, &spec.containers[0], &node()).is_err());
    }
}
