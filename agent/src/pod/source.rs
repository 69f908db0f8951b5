//! Where a pod came from, and how a served pod says so.

use std::path::{Path, PathBuf};

use super::discovered::Owner;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};

/// Says on a served pod where it came from.
const SOURCE_ANNOTATION: &str = "debuglet.io/source";
/// The value of [`SOURCE_ANNOTATION`] of a pod that was created over the API here.
const OF_API: &str = "api";
/// The same of a pod of the manifests folder.
const OF_MANIFEST: &str = "manifest";
/// Says on a served pod of the manifests folder which file it stands in.
const MANIFEST_ANNOTATION: &str = "debuglet.io/manifest";

/// What the keys of all annotations begin with that are written when a pod is served. No client writes one.
const OWN_ANNOTATIONS: &str = "debuglet.io/";

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
                annotate(SOURCE_ANNOTATION, OF_MANIFEST.to_owned());
                annotate(MANIFEST_ANNOTATION, path.display().to_string());
            }
            Source::Api => {
                annotate(SOURCE_ANNOTATION, OF_API.to_owned());
            }
            Source::Discovered(owner) => {
                annotate(SOURCE_ANNOTATION, owner.as_str().to_owned());
            }
        }
    }
}

/// Whether the annotation with this key is one that is written when a pod is served.
pub(crate) fn is_own_annotation(key: &str) -> bool {
    key.starts_with(OWN_ANNOTATIONS)
}

/// Takes out of `metadata` the annotations that are written when a pod is served: they are not the client's to say.
pub(crate) fn strip(metadata: &mut ObjectMeta) {
    if let Some(annotations) = &mut metadata.annotations {
        annotations.retain(|key, _| !is_own_annotation(key));
    }
    metadata.annotations.take_if(|annotations| annotations.is_empty());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::discovered::enriched::SPEC_FROM_ANNOTATION;
    use crate::pod::{asked_by, copied_mounts};

    #[test]
    fn the_annotations_that_are_written_when_a_pod_is_served_are_known_as_such() {
        for key in [
            SOURCE_ANNOTATION,
            MANIFEST_ANNOTATION,
            SPEC_FROM_ANNOTATION,
            copied_mounts::ANNOTATION,
            asked_by::ANNOTATION,
        ] {
            assert!(is_own_annotation(key), "{key}");
            let annotations = [key, "example.com/mine"].map(|key| (key.to_owned(), "x".to_owned()));
            let mut metadata = ObjectMeta {
                annotations: Some(annotations.into()),
                ..ObjectMeta::default()
            };
            strip(&mut metadata);
            let left: Vec<String> = metadata.annotations.unwrap_or_default().into_keys().collect();
            assert_eq!(left, ["example.com/mine"], "{key}");
        }
        assert!(!is_own_annotation("example.com/debuglet.io"));
    }
}
