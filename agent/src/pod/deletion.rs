//! That a pod is to go, and how long its containers may take.

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::plan::grace;

/// That a pod is to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Removal {
    /// How long its containers may take to end by themselves, in seconds.
    pub(crate) grace_seconds: i64,
    /// Since when.
    pub(crate) since: Timestamp,
}

impl Removal {
    /// When the last container is killed: `metadata.deletionTimestamp`, in whole seconds.
    pub(crate) fn deadline(&self) -> Timestamp {
        let seconds = self.since.as_second().saturating_add(self.grace_seconds);
        Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX)
    }

    /// What is left of the grace, in whole seconds: all of it at first.
    pub(crate) fn remaining_seconds(&self, now: Timestamp) -> i64 {
        let passed = now.duration_since(self.since).as_secs().max(0);
        self.grace_seconds.saturating_sub(passed).max(0)
    }
}

/// The removal of a pod that is deleted with the grace that was `asked` for, or with its own. `current` says how it
/// is being removed already: that can be hastened and never slowed down. `None`: nothing changes.
pub(crate) fn deleted(
    pod: &Pod,
    current: Option<Removal>,
    asked: Option<i64>,
    now: Timestamp,
) -> Option<Removal> {
    // As in Kubernetes, a negative grace is the shortest that is one.
    let asked = asked.map(|seconds| if seconds < 0 { 1 } else { seconds });
    match (current, asked) {
        (None, asked) => Some(Removal {
            grace_seconds: if has_ended(pod) {
                0
            } else {
                asked.unwrap_or_else(|| grace(pod))
            },
            since: now,
        }),
        (Some(current), Some(asked)) if asked < current.grace_seconds => Some(Removal {
            grace_seconds: asked,
            ..current
        }),
        (Some(_), _) => None,
    }
}

/// Whether all its work is done, so that there is nothing to be patient with.
fn has_ended(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(phase: &str) -> Pod {
        let pod = json!({
            "spec": {"containers": [], "terminationGracePeriodSeconds": 20},
            "status": {"phase": phase},
        });
        serde_json::from_value(pod).unwrap()
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn the_first_delete_gives_the_grace_and_a_later_one_can_only_shorten_it() {
        let removal = |grace_seconds| Removal {
            grace_seconds,
            since: at(100),
        };
        for (phase, current, asked, expected) in [
            ("Running", None, None, Some(20)),
            ("Running", None, Some(5), Some(5)),
            ("Running", None, Some(0), Some(0)),
            ("Running", None, Some(-1), Some(1)),
            ("Succeeded", None, Some(5), Some(0)),
            ("Failed", None, None, Some(0)),
            ("Running", Some(20), Some(5), Some(5)),
            ("Running", Some(20), Some(0), Some(0)),
            ("Running", Some(20), Some(20), None),
            ("Running", Some(20), Some(30), None),
            ("Running", Some(20), None, None),
        ] {
            let decided = deleted(&pod(phase), current.map(removal), asked, at(100));
            assert_eq!(decided, expected.map(removal), "{phase} {current:?} {asked:?}");
        }
    }

    #[test]
    fn the_grace_runs_from_the_first_delete() {
        let removal = Removal {
            grace_seconds: 20,
            since: at(100),
        };
        assert_eq!(removal.deadline(), at(120));
        assert_eq!(removal.remaining_seconds(at(100)), 20);
        assert_eq!(removal.remaining_seconds(at(115)), 5);
        assert_eq!(removal.remaining_seconds(at(500)), 0);
        assert_eq!(removal.remaining_seconds(at(1)), 20, "a clock that went back");
    }
}
