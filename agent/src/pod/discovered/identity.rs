//! Which external pod a sandbox is of, and which of its sandboxes counts.
//!
//! Namespace, name and UID of a sandbox's metadata say which pod it is of. Everything that is kept about a pod goes by
//! its UID alone, but the runtime lets two pods have the same one: crictl's own samples do. So of the pods that share a
//! UID only one bears it here, and each other gets one that follows from all three.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use crate::pod::identity::{PodKey, derived_uid};

/// The longest UID that is taken as it is, in bytes; Kubernetes' have 36 or 32.
const MAX_UID_LENGTH: usize = 128;

/// A sandbox as the runtime lists it (CRI `PodSandbox`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ListedSandbox {
    /// The runtime's id.
    pub(crate) id: String,
    /// Namespace, name and UID of its metadata; the UID as the runtime has it, whatever it holds.
    pub(crate) said: PodKey,
    /// `metadata.attempt`.
    pub(crate) attempt: u32,
    /// When it was created, in nanoseconds since the Unix epoch.
    pub(crate) created_at: i64,
    /// Whether it is ready.
    pub(crate) ready: bool,
    /// Whether a kubelet made it.
    pub(crate) of_kubelet: bool,
}

/// Who bears a UID in the store, or bore it when the pod went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bearer {
    /// The pod's namespace.
    pub(crate) namespace: String,
    /// The pod's name.
    pub(crate) name: String,
    /// Whether somebody else runs it.
    pub(crate) external: bool,
}

impl Bearer {
    fn is_of(&self, said: &PodKey) -> bool {
        self.external && self.namespace == said.namespace && self.name == said.name
    }
}

/// The UID that a sandbox says its pod has, or, where that is empty or could not name a folder, one that follows from the
/// sandbox's id.
pub(crate) fn sound_uid(uid: &str, sandbox_id: &str) -> String {
    let sound = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if uid.is_empty() || uid.len() > MAX_UID_LENGTH || !uid.bytes().all(sound) {
        return derived_uid(&["sandbox", sandbox_id]);
    }
    uid.to_owned()
}

/// The UID of a pod whose own is borne by another. It outlives the sandbox, as the pod does.
fn uid_beside_another(said: &PodKey) -> String {
    derived_uid(&["external pod", &said.namespace, &said.name, &said.uid])
}

impl ListedSandbox {
    /// The UID that it says its pod has, made sound.
    pub(crate) fn said_uid(&self) -> String {
        sound_uid(&self.said.uid, &self.id)
    }

    /// Whether it is of the external pod `pod`, whichever of the two UIDs that has.
    pub(crate) fn is_of(&self, pod: &PodKey) -> bool {
        self.said.namespace == pod.namespace
            && self.said.name == pod.name
            && (self.said_uid() == pod.uid || uid_beside_another(&self.said) == pod.uid)
    }

    /// By what the newest of a pod's sandboxes is found: no two have the same.
    pub(crate) fn rank(&self) -> (u32, i64, &str) {
        (self.attempt, self.created_at, &self.id)
    }
}

/// The UIDs of the external pods of `sandboxes`, in their order.
///
/// `bearer` says who bears a UID already: a pod keeps the one that it is known by, also over restarts of the agent where
/// something is kept of it. Of pods that are new, one with a ready sandbox bears the UID that it says, before that one of
/// a kubelet's, and before that the oldest.
pub(crate) fn uids(sandboxes: &[ListedSandbox], bearer: impl Fn(&str) -> Option<Bearer>) -> Vec<String> {
    let mut first: BTreeMap<String, &ListedSandbox> = BTreeMap::new();
    let precedence = |sandbox: &ListedSandbox| {
        let of_kubelet = Reverse(sandbox.of_kubelet);
        (
            Reverse(sandbox.ready),
            of_kubelet,
            sandbox.created_at,
            sandbox.id.clone(),
        )
    };
    for sandbox in sandboxes {
        let known = first.entry(sandbox.said_uid()).or_insert(sandbox);
        if precedence(sandbox) < precedence(known) {
            *known = sandbox;
        }
    }
    let uid = |sandbox: &ListedSandbox| {
        let (said, other) = (sandbox.said_uid(), uid_beside_another(&sandbox.said));
        let bears_it = match bearer(&said) {
            Some(bearer) => bearer.is_of(&sandbox.said),
            None => first.get(&said).is_none_or(|first| first.said == sandbox.said),
        };
        let is_known_by_other = bearer(&other).is_some_and(|bearer| bearer.is_of(&sandbox.said));
        if bears_it && !is_known_by_other {
            said
        } else {
            other
        }
    };
    sandboxes.iter().map(uid).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sandbox(id: &str, name: &str, uid: &str, created_at: i64) -> ListedSandbox {
        ListedSandbox {
            id: id.to_owned(),
            said: PodKey {
                namespace: "default".to_owned(),
                name: name.to_owned(),
                uid: uid.to_owned(),
            },
            attempt: 1,
            created_at,
            ready: true,
            of_kubelet: false,
        }
    }

    fn bearer(name: &str, external: bool) -> Option<Bearer> {
        Some(Bearer {
            namespace: "default".to_owned(),
            name: name.to_owned(),
            external,
        })
    }

    /// The names that the sandboxes of `sandboxes` go by: `said` or `other`.
    fn names(sandboxes: &[ListedSandbox], bearer: impl Fn(&str) -> Option<Bearer>) -> Vec<&'static str> {
        let uids = uids(sandboxes, bearer);
        let pairs = uids.iter().zip(sandboxes);
        pairs
            .map(|(uid, sandbox)| {
                if *uid == sandbox.said_uid() {
                    "said"
                } else {
                    "other"
                }
            })
            .collect()
    }

    #[test]
    fn of_pods_that_share_a_uid_one_bears_it_whatever_the_order_of_the_list() {
        let two = [
            sandbox("s2", "nginx-runsc", "u1", 2),
            sandbox("s1", "nginx", "u1", 1),
        ];
        assert_eq!(names(&two, |_| None), ["other", "said"]);
        let turned = [two[1].clone(), two[0].clone()];
        assert_eq!(names(&turned, |_| None), ["said", "other"]);
        assert_eq!(uids(&two, |_| None)[0], uids(&turned, |_| None)[1]);
        let [runsc, nginx] = &two;
        for (sandbox, uid) in two.iter().zip(uids(&two, |_| None)) {
            let pod = PodKey {
                uid,
                ..sandbox.said.clone()
            };
            assert!(sandbox.is_of(&pod));
            let other = if sandbox == runsc { nginx } else { runsc };
            assert!(!other.is_of(&pod), "{other:?} {pod:?}");
        }
    }

    #[test]
    fn attempts_of_one_pod_share_its_uid() {
        let mut second = sandbox("s2", "nginx", "u1", 2);
        second.attempt = 2;
        let both = [sandbox("s1", "nginx", "u1", 1), second];
        assert_eq!(names(&both, |_| None), ["said", "said"]);
        assert!(both[1].rank() > both[0].rank());
    }

    #[test]
    fn a_new_pod_that_is_ready_or_a_kubelets_comes_before_an_older_one() {
        let mut stopped = sandbox("s1", "a", "u1", 1);
        stopped.ready = false;
        assert_eq!(
            names(&[stopped, sandbox("s2", "b", "u1", 2)], |_| None),
            ["other", "said"]
        );
        let mut of_kubelet = sandbox("s2", "b", "u1", 2);
        of_kubelet.of_kubelet = true;
        assert_eq!(
            names(&[sandbox("s1", "a", "u1", 1), of_kubelet], |_| None),
            ["other", "said"]
        );
    }

    #[test]
    fn a_pod_keeps_the_uid_that_it_is_known_by() {
        let (older, newer) = (sandbox("s1", "a", "u1", 1), sandbox("s2", "b", "u1", 2));
        let both = [older, newer.clone()];
        let said_by =
            |uid: &'static str, bearer: Option<Bearer>| move |of: &str| bearer.clone().filter(|_| of == uid);
        assert_eq!(names(&both, said_by("u1", bearer("b", true))), ["other", "said"]);
        let alone = std::slice::from_ref(&newer);
        // The other pod is gone from the runtime, and something is kept of it.
        assert_eq!(names(alone, said_by("u1", bearer("a", true))), ["other"]);
        // The one that had to take another UID keeps that one when it is alone.
        let other = uid_beside_another(&newer.said);
        let known = |uid: &str| bearer("b", true).filter(|_| uid == other);
        assert_eq!(names(alone, known), ["other"]);
        assert_eq!(names(&[newer], |_| None), ["said"]);
    }

    #[test]
    fn the_uid_of_a_pod_of_ours_is_borne_by_no_external_pod() {
        let copy = [sandbox("s1", "web", "u1", 1)];
        assert_eq!(
            names(&copy, |uid| bearer("web", false).filter(|_| uid == "u1")),
            ["other"]
        );
    }

    #[test]
    fn a_uid_that_could_not_name_a_folder_follows_from_the_sandbox() {
        for unsound in ["", "..", "a/b", "a b", &"x".repeat(MAX_UID_LENGTH + 1)] {
            let one = sandbox("s1", "a", unsound, 1);
            let uid = one.said_uid();
            assert_eq!(uid.len(), 36, "{unsound:?}");
            assert_ne!(uid, sandbox("s2", "a", unsound, 1).said_uid(), "{unsound:?}");
            assert_eq!(uids(&[one], |_| None), [uid], "{unsound:?}");
        }
        assert_eq!(
            sandbox("s1", "a", "hdishd83djaidwnduwk28bcsb", 1).said_uid(),
            "hdishd83djaidwnduwk28bcsb"
        );
    }
}
