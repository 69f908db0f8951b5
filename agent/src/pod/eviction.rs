//! A pod that uses more of the disk than it may is evicted: all of it is ended, and it stays as Failed. Which volumes have
//! a limit, and what is said of one that exceeds it, is the kubelet's (its eviction manager's `emptyDirLimitEviction`).

use k8s_openapi::api::core::v1::{Pod, Volume};
use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::deletion::Removal;
use super::quantity::Amount;

/// The reason in the pod's status, and of the event.
pub(crate) const REASON: &str = "Evicted";
/// How long the containers of an evicted pod may take to end, in seconds (the kubelet's
/// `immediateEvictionGracePeriodSeconds`).
const GRACE_SECONDS: i64 = 1;

/// That a pod was evicted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Eviction {
    /// Why, in one sentence: `status.message`.
    pub(crate) message: String,
    /// Since when.
    pub(crate) since: Timestamp,
}

impl Eviction {
    /// How its containers are ended.
    pub(crate) fn removal(&self) -> Removal {
        Removal {
            grace_seconds: GRACE_SECONDS,
            since: self.since,
        }
    }
}

/// A volume of the pod on the disk of the node that may not grow without limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LimitedVolume {
    /// Its name.
    pub(crate) name: String,
    /// How many bytes it may have.
    pub(crate) bytes: u64,
    /// The same as the pod says it.
    limit: String,
}

impl LimitedVolume {
    /// What is said of the pod where this volume has more.
    pub(crate) fn exceeded(&self) -> String {
        format!(
            "Usage of EmptyDir volume {:?} exceeds the limit {:?}.",
            self.name, self.limit
        )
    }

    /// What is said of the pod where this volume cannot be measured, which is for its containers to avoid.
    pub(crate) fn unmeasurable(&self, why: &str) -> String {
        format!(
            "Usage of EmptyDir volume {:?} cannot be compared with the limit {:?}: {why}.",
            self.name, self.limit
        )
    }
}

/// The volumes of a pod that have a size limit and lie on the disk. (One in memory cannot exceed its own.)
pub(crate) fn limited_volumes(pod: &Pod) -> Vec<LimitedVolume> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes.filter_map(limited).collect()
}

fn limited(volume: &Volume) -> Option<LimitedVolume> {
    let empty_dir = volume.empty_dir.as_ref()?;
    if !empty_dir.medium.as_deref().unwrap_or_default().is_empty() {
        return None;
    }
    let limit = &empty_dir.size_limit.as_ref()?.0;
    let bytes = u64::try_from(Amount::parse(limit).ok()?.value()).ok()?;
    (bytes > 0).then(|| LimitedVolume {
        name: volume.name.clone(),
        bytes,
        limit: limit.clone(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_lies_on_the_disk_and_has_a_positive_limit_is_limited() {
        let volumes = json!([
            {"name": "scratch", "emptyDir": {"sizeLimit": "1Mi"}},
            {"name": "small", "emptyDir": {"medium": "", "sizeLimit": "500m"}},
            {"name": "free", "emptyDir": {}},
            {"name": "none", "emptyDir": {"sizeLimit": "0"}},
            {"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
            {"name": "host", "hostPath": {"path": "/"}},
        ]);
        let pod = json!({"spec": {"containers": [], "volumes": volumes}});
        let limited = limited_volumes(&serde_json::from_value(pod).unwrap());
        let found: Vec<_> = limited
            .iter()
            .map(|volume| (volume.name.as_str(), volume.bytes))
            .collect();
        assert_eq!(found, [("scratch", 1 << 20), ("small", 1)]);
        assert_eq!(
            limited[0].exceeded(),
            r#"Usage of EmptyDir volume "scratch" exceeds the limit "1Mi"."#
        );
        assert_eq!(
            limited[1].unmeasurable("it has too many files"),
            r#"Usage of EmptyDir volume "small" cannot be compared with the limit "500m": it has too many files."#
        );
    }
}
