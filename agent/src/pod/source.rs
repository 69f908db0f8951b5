//! Where a pod came from, and how a served pod says so.

use std::path::{Path, PathBuf};

use super::copied_mounts;
use super::discovered::Owner;
use super::discovered::enriched::SPEC_FROM_ANNOTATION;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};

/// Says on a served pod where it came from.
pub(crate) const SOURCE_ANNOTATION: &str = "debuglet.io/source";
/// Says on a served pod of the manifests folder which file it stands in.
pub(crate) const MANIFEST_ANNOTATION: &str = "debuglet.io/manifest";

/// Says on a served pod of an API server that only the runtime tells what it is.
pub(crate) const SPEC_ANNOTATION: &str = "debuglet.io/spec";
/// The value of [`SPEC_ANNOTATION`].
const OF_RUNTIME: &str = "runtime";

/// Who says what a pod is, and that it is to go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Source {
    /// This file of the manifests folder.
    Manifest(PathBuf),
    /// A client of the node-local API.
    Api,
    /// Somebody else, who runs it: it was found in the runtime.
    Discovered(Owner),
}

impl Source {
    /// The manifest that the pod came from, if it came from one.
    pub(crate) fn manifest(&self) -> Option<&Path> {
        match self {
            Source::Manifest(path) => Some(path),
            Source::Api | Source::Discovered(_) => None,
        }
    }

    /// Writes the source into the annotations of a pod that is served.
    pub(crate) fn annotate(&self, metadata: &mut ObjectMeta) {
        let annotations = metadata.annotations.get_or_insert_default();
        let mut annotate = |key: &str, value: String| annotations.insert(key.to_owned(), value);
        match self {
            Source::Manifest(path) => {
                annotate(SOURCE_ANNOTATION, "manifest".to_owned());
                annotate(MANIFEST_ANNOTATION, path.display().to_string());
            }
            Source::Api => {
                annotate(SOURCE_ANNOTATION, "api".to_owned());
            }
            Source::Discovered(owner) => {
                annotate(SOURCE_ANNOTATION, owner.as_str().to_owned());
            }
        }
    }
}

/// Says on a served pod of a kubelet's that its spec is what the runtime shows: the kubelet has put values from Secrets into
/// its variables, and into arguments that refer to them.
pub(crate) fn annotate_as_of_runtime(metadata: &mut ObjectMeta) {
    let annotations = metadata.annotations.get_or_insert_default();
    annotations.insert(SPEC_ANNOTATION.to_owned(), OF_RUNTIME.to_owned());
}

/// Whether a served pod may have values in it that come from Secrets, for all that is known.
pub(crate) fn may_show_secrets(served: &Pod) -> bool {
    let annotations = served.metadata.annotations.as_ref();
    annotations.is_some_and(|annotations| annotations.contains_key(SPEC_ANNOTATION))
}

/// Takes out of `metadata` the annotations that are written when a pod is served: they are not the client's to say.
pub(crate) fn strip(metadata: &mut ObjectMeta) {
    if let Some(annotations) = &mut metadata.annotations {
        annotations.remove(SOURCE_ANNOTATION);
        annotations.remove(MANIFEST_ANNOTATION);
        annotations.remove(SPEC_FROM_ANNOTATION);
        annotations.remove(copied_mounts::ANNOTATION);
    }
    metadata.annotations.take_if(|annotations| annotations.is_empty());
}
