//! The ConfigMaps and Secrets that a container's variables come from: which ones it needs, and what they say. Only a pod
//! of an API server can refer to them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use k8s_openapi::api::core::v1::Container;

/// A kind of object that variables come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ObjectKind {
    /// `configmaps`.
    ConfigMap,
    /// `secrets`.
    Secret,
}

impl ObjectKind {
    /// The kind as Kubernetes writes it.
    pub(crate) fn kind(self) -> &'static str {
        match self {
            ObjectKind::ConfigMap => "ConfigMap",
            ObjectKind::Secret => "Secret",
        }
    }

    /// The resource, as rights name it.
    pub(crate) fn resource(self) -> &'static str {
        match self {
            ObjectKind::ConfigMap => "configmaps",
            ObjectKind::Secret => "secrets",
        }
    }
}

impl fmt::Display for ObjectKind {
    /// The kind within a sentence.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            ObjectKind::ConfigMap => "configmap",
            ObjectKind::Secret => "secret",
        })
    }
}

/// An object in the namespace of the pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ObjectReference {
    /// What it is.
    pub(crate) kind: ObjectKind,
    /// Its name.
    pub(crate) name: String,
}

/// What an object holds: `data`, as text. What is no UTF-8 has U+FFFD in it, as it would in the end in any case: a
/// container's variables pass through the JSON of the OCI runtime.
pub(crate) type Data = BTreeMap<String, String>;

/// Why a pod has no objects to refer to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoObjects {
    /// debuglet's own pod.
    #[error("debuglet runs this pod itself, and only pods of a kube-apiserver can refer to it")]
    Own,
    /// A kubelet's own pod; the API server refuses mirror pods that refer to objects for the same reason.
    #[error("a static pod can refer to no object of a kube-apiserver")]
    StaticPod,
    /// Some other client of the runtime made it.
    #[error("the pod was not made by a kubelet, and only pods of a kube-apiserver can refer to it")]
    Cri,
    /// Nobody to ask.
    #[error("this node has no connection to a kube-apiserver")]
    NoApiServer,
}

/// Why there is no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ObjectError {
    /// It could not be asked for.
    #[error("{kind} {namespace}/{name} cannot be read: {reason}")]
    NoObjects {
        /// What it is.
        kind: ObjectKind,
        /// The pod's namespace.
        namespace: String,
        /// The object's name.
        name: String,
        /// Why not.
        reason: NoObjects,
    },
    /// The API server has no such object. In Kubernetes' words: people search for them.
    #[error("{kind} {name:?} not found")]
    NotFound {
        /// What it is.
        kind: ObjectKind,
        /// The object's name.
        name: String,
    },
    /// The object has no such key. In Kubernetes' words.
    #[error("couldn't find key {key} in {} {namespace}/{name}", kind.kind())]
    NoKey {
        /// What it is.
        kind: ObjectKind,
        /// The pod's namespace.
        namespace: String,
        /// The object's name.
        name: String,
        /// The key.
        key: String,
    },
}

/// What is known of the objects in a pod's namespace. No derived Debug: it holds secrets.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Objects {
    /// By reference; `None` where the API server has none of that name. Or why none can be asked for.
    read: Result<BTreeMap<ObjectReference, Option<Data>>, NoObjects>,
}

impl fmt::Debug for Objects {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.read.as_ref().map(|read| read.keys().collect::<Vec<_>>());
        formatter.debug_struct("Objects").field("read", &names).finish()
    }
}

impl Objects {
    /// These were read.
    pub(crate) fn read(objects: BTreeMap<ObjectReference, Option<Data>>) -> Objects {
        Objects { read: Ok(objects) }
    }

    /// There are none for this pod.
    pub(crate) fn none(reason: NoObjects) -> Objects {
        Objects { read: Err(reason) }
    }

    /// What an object in `namespace` holds; `None` where it may be missing and is.
    pub(crate) fn object(
        &self,
        namespace: &str,
        kind: ObjectKind,
        name: &str,
        optional: Option<bool>,
    ) -> Result<Option<&Data>, ObjectError> {
        let optional = optional == Some(true);
        let named = name.to_owned();
        let found = match &self.read {
            Err(_) if optional => None,
            Err(reason) => {
                return Err(ObjectError::NoObjects {
                    kind,
                    namespace: namespace.to_owned(),
                    name: named,
                    reason: *reason,
                });
            }
            Ok(read) => {
                let reference = ObjectReference { kind, name: named };
                read.get(&reference).and_then(Option::as_ref)
            }
        };
        match found {
            Some(data) => Ok(Some(data)),
            None if optional => Ok(None),
            None => Err(ObjectError::NotFound {
                kind,
                name: name.to_owned(),
            }),
        }
    }

    /// The value of a key of an object in `namespace`; `None` where it may be missing and is.
    pub(crate) fn value(
        &self,
        namespace: &str,
        kind: ObjectKind,
        (name, key): (&str, &str),
        optional: Option<bool>,
    ) -> Result<Option<&str>, ObjectError> {
        let Some(data) = self.object(namespace, kind, name, optional)? else {
            return Ok(None);
        };
        match data.get(key) {
            Some(value) => Ok(Some(value)),
            None if optional == Some(true) => Ok(None),
            None => Err(ObjectError::NoKey {
                kind,
                namespace: namespace.to_owned(),
                name: name.to_owned(),
                key: key.to_owned(),
            }),
        }
    }
}

/// The objects that a container's variables come from (`env[].valueFrom`, `envFrom`), each once.
pub(crate) fn needed(container: &Container) -> BTreeSet<ObjectReference> {
    let config_map = |name: &String| ObjectReference {
        kind: ObjectKind::ConfigMap,
        name: name.clone(),
    };
    let secret = |name: &String| ObjectReference {
        kind: ObjectKind::Secret,
        name: name.clone(),
    };
    let whole = container.env_from.iter().flatten().flat_map(|source| {
        let of_config_map = source.config_map_ref.as_ref().map(|one| config_map(&one.name));
        let of_secret = source.secret_ref.as_ref().map(|one| secret(&one.name));
        of_config_map.into_iter().chain(of_secret)
    });
    let variables = container.env.iter().flatten();
    let single = variables
        .filter_map(|variable| variable.value_from.as_ref())
        .flat_map(|source| {
            let of_config_map = source
                .config_map_key_ref
                .as_ref()
                .map(|one| config_map(&one.name));
            let of_secret = source.secret_key_ref.as_ref().map(|one| secret(&one.name));
            of_config_map.into_iter().chain(of_secret)
        });
    whole.chain(single).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "open-sesame";

    fn read() -> Objects {
        let data = |key: &str, value: &str| Some(Data::from([(key.to_owned(), value.to_owned())]));
        let reference = |kind, name: &str| ObjectReference {
            kind,
            name: name.to_owned(),
        };
        Objects::read(BTreeMap::from([
            (
                reference(ObjectKind::ConfigMap, "settings"),
                data("color", "blue"),
            ),
            (reference(ObjectKind::Secret, "keys"), data("door", SECRET)),
            (reference(ObjectKind::Secret, "gone"), None),
        ]))
    }

    #[test]
    fn each_object_that_a_variable_names_is_needed_once() {
        let container: Container = serde_json::from_value(serde_json::json!({
            "name": "debugger",
            "envFrom": [{"secretRef": {"name": "keys"}}, {"configMapRef": {"name": "settings"}}],
            "env": [
                {"name": "A", "value": "1"},
                {"name": "B", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "k"}}},
                {"name": "C", "valueFrom": {"configMapKeyRef": {"name": "more", "key": "k"}}},
                {"name": "D", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            ],
        }))
        .expect("a container");
        let needed: Vec<_> = needed(&container)
            .into_iter()
            .map(|one| format!("{} {}", one.kind, one.name))
            .collect();
        assert_eq!(needed, ["configmap more", "configmap settings", "secret keys"]);
    }

    #[test]
    fn what_is_missing_is_said_in_kubernetes_words_unless_it_may_be_missing() {
        let objects = read();
        let secret = |of, optional| objects.value("shop", ObjectKind::Secret, of, optional);
        assert_eq!(secret(("keys", "door"), None), Ok(Some(SECRET)));
        for (of, message) in [
            (("gone", "door"), "secret \"gone\" not found"),
            (("keys", "gate"), "couldn't find key gate in Secret shop/keys"),
        ] {
            let error = secret(of, None).expect_err("missing").to_string();
            assert_eq!(error, message);
            assert_eq!(secret(of, Some(true)), Ok(None), "{of:?}");
        }
    }

    #[test]
    fn a_pod_of_no_api_server_is_told_why_there_is_no_object() {
        for reason in [
            NoObjects::Own,
            NoObjects::StaticPod,
            NoObjects::Cri,
            NoObjects::NoApiServer,
        ] {
            let objects = Objects::none(reason);
            let whole = |optional| objects.object("shop", ObjectKind::ConfigMap, "settings", optional);
            let message = whole(None).expect_err("none").to_string();
            assert_eq!(
                message,
                format!("configmap shop/settings cannot be read: {reason}")
            );
            assert_eq!(whole(Some(true)), Ok(None));
        }
    }

    #[test]
    fn no_value_reaches_a_debug_form() {
        let shown = format!("{:?}", read());
        assert!(shown.contains("keys") && !shown.contains(SECRET), "{shown}");
    }
}
