//! The two forms of `pods/ephemeralcontainers`: the Pod, as since v1.22, and the kind `EphemeralContainers` of
//! v1.16 to v1.21. Both stand for the same list; which one a client speaks is decided here.

use std::collections::BTreeMap;

use axum::http::HeaderMap;
use axum::http::header::USER_AGENT;
use k8s_openapi::api::core::v1::{EphemeralContainer, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::api::writes::decode_pod;
use crate::pod::copied_mounts::CopyMounts;
use crate::pod::decode::{DecodeError, decode};

/// How the list is read and written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// In `spec.ephemeralContainers` of the pod.
    Pod,
    /// In `ephemeralContainers` of an object of that kind, which is the whole list and nothing else.
    EphemeralContainers,
}

/// What a client wants.
pub(super) struct Wish {
    /// What it says of the pod.
    pub(super) metadata: ObjectMeta,
    /// The whole list.
    pub(super) list: Vec<EphemeralContainer>,
    /// Whose mounts new ones of it are to have, by name: neither form has a place for that.
    pub(super) copy_mounts: BTreeMap<String, CopyMounts>,
    /// The fields that the kind does not have.
    pub(super) unknown: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct EphemeralContainers {
    #[serde(rename = "apiVersion")]
    _api_version: Option<String>,
    #[serde(rename = "kind")]
    _kind: Option<String>,
    metadata: ObjectMeta,
    ephemeral_containers: Option<Vec<EphemeralContainer>>,
}

impl Form {
    /// The form of a client of which only the request's headers are known.
    ///
    /// kubectl 1.16 to 1.21 reads the older form and no other, and cannot say so: it asks for JSON like everybody. So
    /// its `User-Agent` decides: `kubectl/v1.20.2 (linux/amd64) kubernetes/faecb19`, where the first word is the name
    /// of the program's file.
    pub(super) fn of_client(headers: &HeaderMap) -> Form {
        let agent = headers
            .get(USER_AGENT)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        let product = agent.split(' ').next().unwrap_or_default();
        let minor = product
            .split_once("/v1.")
            .filter(|(program, _)| program.starts_with("kubectl"))
            .and_then(|(_, version)| {
                version
                    .split(|character: char| !character.is_ascii_digit())
                    .next()
            })
            .and_then(|minor| minor.parse::<u32>().ok());
        match minor {
            Some(16..=21) => Form::EphemeralContainers,
            _ => Form::Pod,
        }
    }

    /// The form of an object that was sent whole: it says so itself.
    pub(super) fn of_object(object: &Value) -> Form {
        if object["kind"] == "EphemeralContainers" {
            Form::EphemeralContainers
        } else {
            Form::Pod
        }
    }

    /// The form of a patch: that of the object which it fits; where it fits both, the `client`'s.
    pub(super) fn of_patch(patch: &Value, client: Form) -> Form {
        let paths = || {
            let operations = patch.as_array().into_iter().flatten();
            operations.filter_map(|operation| operation["path"].as_str())
        };
        let of_path = |path: &str, field: &str| path.split('/').nth(1) == Some(field);
        let touches = |field: &str| patch.get(field).is_some() || paths().any(|path| of_path(path, field));
        if touches("spec") {
            Form::Pod
        } else if touches("ephemeralContainers") {
            Form::EphemeralContainers
        } else {
            client
        }
    }

    /// The name of the object's kind.
    pub(super) fn kind(self) -> &'static str {
        match self {
            Form::Pod => "Pod",
            Form::EphemeralContainers => "EphemeralContainers",
        }
    }

    /// A served pod in this form.
    pub(super) fn present(self, pod: &Pod) -> Result<Value, serde_json::Error> {
        match self {
            Form::Pod => serde_json::to_value(pod),
            Form::EphemeralContainers => {
                let metadata = ObjectMeta {
                    name: pod.metadata.name.clone(),
                    namespace: pod.metadata.namespace.clone(),
                    uid: pod.metadata.uid.clone(),
                    resource_version: pod.metadata.resource_version.clone(),
                    creation_timestamp: pod.metadata.creation_timestamp.clone(),
                    ..ObjectMeta::default()
                };
                let list = pod
                    .spec
                    .as_ref()
                    .and_then(|spec| spec.ephemeral_containers.as_deref());
                Ok(json!({
                    "kind": self.kind(),
                    "apiVersion": "v1",
                    "metadata": serde_json::to_value(metadata)?,
                    "ephemeralContainers": serde_json::to_value(list.unwrap_or_default())?,
                }))
            }
        }
    }

    /// What an object in this form asks for.
    pub(super) fn decode(self, object: Value) -> Result<Wish, DecodeError> {
        match self {
            Form::Pod => decode_pod(object).map(|(pod, unknown)| Wish {
                metadata: pod.metadata,
                list: pod
                    .spec
                    .and_then(|spec| spec.ephemeral_containers)
                    .unwrap_or_default(),
                copy_mounts: BTreeMap::new(),
                unknown,
            }),
            Form::EphemeralContainers => {
                decode::<EphemeralContainers>(object).map(|(object, unknown)| Wish {
                    metadata: object.metadata,
                    list: object.ephemeral_containers.unwrap_or_default(),
                    copy_mounts: BTreeMap::new(),
                    unknown,
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn client(agent: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(USER_AGENT, HeaderValue::from_static(agent))])
    }

    #[test]
    fn kubectl_of_the_releases_that_know_no_other_form_is_known_by_its_user_agent() {
        for (agent, expected) in [
            ("kubectl/v1.15.0 (linux/amd64) kubernetes/e8462b5", Form::Pod),
            (
                "kubectl/v1.16.0 (linux/amd64) kubernetes/2bd9643",
                Form::EphemeralContainers,
            ),
            (
                "kubectl/v1.20.2 (linux/amd64) kubernetes/faecb19",
                Form::EphemeralContainers,
            ),
            ("kubectl/v1.20.2", Form::EphemeralContainers),
            (
                "kubectl-1.20/v1.20.2 (linux/amd64) kubernetes/faecb19",
                Form::EphemeralContainers,
            ),
            (
                "kubectl.exe/v1.21.14+k3s1 (windows/amd64) kubernetes/0f77da5",
                Form::EphemeralContainers,
            ),
            ("kubectl/v1.22.0 (linux/amd64) kubernetes/c2b5237", Form::Pod),
            ("kubectl/v1.2.0", Form::Pod),
            ("kubectl/v1.36.3 (linux/amd64) kubernetes/0f77da5", Form::Pod),
            ("kubectl/v2.20.0", Form::Pod),
            ("manager/v1.20.2 (linux/amd64) kubernetes/faecb19", Form::Pod),
            ("curl/8.5.0 kubectl/v1.20.2", Form::Pod),
            ("", Form::Pod),
        ] {
            assert_eq!(Form::of_client(&client(agent)), expected, "{agent}");
        }
        assert_eq!(Form::of_client(&HeaderMap::new()), Form::Pod);
    }

    #[test]
    fn a_patch_is_of_the_form_that_it_fits() {
        for client in [Form::Pod, Form::EphemeralContainers] {
            for (patch, expected) in [
                (json!({"spec": {"ephemeralContainers": []}}), Form::Pod),
                (json!({"ephemeralContainers": []}), Form::EphemeralContainers),
                (
                    json!([{"op": "add", "path": "/spec/ephemeralContainers/-"}]),
                    Form::Pod,
                ),
                (
                    json!([{"op": "add", "path": "/ephemeralContainers/-"}]),
                    Form::EphemeralContainers,
                ),
                (json!([{"op": "test", "path": "/metadata/name"}]), client),
                (json!({}), client),
                (json!("x"), client),
            ] {
                assert_eq!(Form::of_patch(&patch, client), expected, "{patch}");
            }
        }
    }
}
