//! How much of an image has arrived, read from containerd's content store: what CRI has no call for.
//!
//! Only while somebody watches a pull. The manifest that the pull brought names the layers; a layer is then
//! either an ingest that grows, or a blob that is there.

use std::collections::HashMap;
use std::time::Duration;

use containerd_client::services::v1::content_client::ContentClient;
use containerd_client::services::v1::{Info, ListContentRequest, ListStatusesRequest, ReadContentRequest};
use prost_types::Timestamp;
use serde::Deserialize;
use tonic::metadata::MetadataValue;
use tonic::{Request, Status};

use super::bounded_channel::BoundedChannel;
use super::client::Runtime;
use super::error::is_silence;
use crate::pod::image_reference::ImageReference;
use crate::pod::launch::{LayerProgress, PullProgress};

/// containerd's namespace of CRI's images, and the header that names it.
const NAMESPACE: &str = "k8s.io";
const NAMESPACE_HEADER: &str = "containerd-namespace";
/// A blob's label with the repositories it was fetched from, comma-separated; the host follows, without port.
const SOURCE_LABEL: &str = "containerd.io/distribution.source.";
/// Labels that only a manifest has: what it refers to must not be collected before it.
const CONFIG_LABEL: &str = "containerd.io/gc.ref.content.config";
/// What containerd calls the ingest of a layer, before its digest.
const LAYER_INGEST: &str = "layer-";
/// No manifest is larger than this in any registry; more is not read.
const MAX_MANIFEST_BYTES: usize = 4 * 1024 * 1024;

/// A pull of which nothing arrives for this long is given up, and looked at this often until then.
const STALLED_AFTER: Duration = Duration::from_secs(600);
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// An image's manifest (OCI and docker's own alike), as far as progress goes.
#[derive(Deserialize)]
struct Manifest {
    layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Descriptor {
    digest: String,
    size: u64,
}

/// How far the pull of an image has come that began at `since`. Without layers while the manifest is on its way,
/// and on a runtime that is not containerd.
pub(crate) async fn progress(
    runtime: &Runtime,
    image: &ImageReference,
    since: jiff::Timestamp,
) -> PullProgress {
    let layers = layers(runtime.channel(), image, since)
        .await
        .unwrap_or_else(|status| {
            tracing::debug!("no pull progress: {status}");
            Vec::new()
        });
    PullProgress {
        image: image.to_string(),
        registry: image.registry().to_owned(),
        layers,
    }
}

/// Ends when nothing of the image has arrived for [`STALLED_AFTER`]. containerd 1.6 waits for ever on a registry that
/// takes a request and says nothing. Unpacking is no stall, and neither is a runtime that has no content store.
pub(crate) async fn stalled(runtime: &Runtime, image: &ImageReference, since: jiff::Timestamp) {
    let mut last = Vec::new();
    let mut still_for = Duration::ZERO;
    while still_for < STALLED_AFTER {
        tokio::time::sleep(LOOK_EVERY).await;
        still_for += LOOK_EVERY;
        let layers = match layers(runtime.channel(), image, since).await {
            Ok(layers) => layers,
            // A runtime that is silent moves nothing either.
            Err(status) if is_silence(&status) => continue,
            Err(_) => {
                still_for = Duration::ZERO;
                continue;
            }
        };
        let all_there = !layers.is_empty() && layers.iter().all(|layer| layer.offset == layer.total);
        if all_there || layers != last {
            still_for = Duration::ZERO;
        }
        last = layers;
    }
}

async fn layers(
    channel: BoundedChannel,
    image: &ImageReference,
    since: jiff::Timestamp,
) -> Result<Vec<LayerProgress>, Status> {
    let mut content = ContentClient::new(channel);
    let manifests = list(&mut content, vec![manifest_filter(image)]).await?;
    if manifests.is_empty() {
        return Ok(Vec::new());
    }
    let question = in_namespace(ListStatusesRequest {
        filters: vec![format!("ref~=\"^{LAYER_INGEST}\"")],
    });
    let ingests = content.list_statuses(question).await?.into_inner().statuses;
    let arriving: HashMap<&str, i64> = ingests
        .iter()
        .filter_map(|ingest| Some((ingest.r#ref.strip_prefix(LAYER_INGEST)?, ingest.offset)))
        .collect();
    // The one that this pull fetched; or one of an earlier pull, whose layers are arriving now.
    let current = manifests
        .iter()
        .filter(|manifest| {
            touched_at(manifest) >= since.as_nanosecond()
                || manifest
                    .labels
                    .values()
                    .any(|digest| arriving.contains_key(digest.as_str()))
        })
        .max_by_key(|manifest| touched_at(manifest));
    let Some(current) = current else {
        return Ok(Vec::new());
    };
    let Some(manifest) = read_manifest(&mut content, &current.digest).await? else {
        return Ok(Vec::new());
    };
    // After the ingests: what ends in between is then among the blobs. No filter at all would fit every blob.
    let filters: Vec<String> = manifest
        .layers
        .iter()
        .map(|layer| format!("digest==\"{}\"", layer.digest))
        .collect();
    let blobs = match filters.is_empty() {
        true => Vec::new(),
        false => list(&mut content, filters).await?,
    };
    let progress = manifest.layers.into_iter().map(|layer| {
        let is_there = blobs.iter().any(|blob| blob.digest == layer.digest);
        let offset = match arriving.get(layer.digest.as_str()) {
            _ if is_there => layer.size,
            Some(offset) => u64::try_from(*offset).unwrap_or(0),
            None => 0,
        };
        LayerProgress {
            digest: layer.digest,
            offset,
            total: layer.size,
        }
    });
    Ok(progress.collect())
}

/// The blobs that one of the filters fits.
async fn list(
    content: &mut ContentClient<BoundedChannel>,
    filters: Vec<String>,
) -> Result<Vec<Info>, Status> {
    let question = in_namespace(ListContentRequest { filters });
    let mut answers = content.list(question).await?.into_inner();
    let mut blobs = Vec::new();
    while let Some(answer) = answers.message().await? {
        blobs.extend(answer.info);
    }
    Ok(blobs)
}

/// containerd's filter for the manifests that came from the image's repository. Of what a repository's name may
/// hold only the dot means something else in a regular expression.
fn manifest_filter(image: &ImageReference) -> String {
    let repository = image.repository();
    let (host, path) = repository.split_once('/').unwrap_or((&repository, ""));
    let host = match host.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => host,
        _ => host,
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let path = path.replace('.', "[.]");
    format!("labels.\"{SOURCE_LABEL}{host}\"~=\"(^|,){path}(,|$)\",labels.\"{CONFIG_LABEL}\"")
}

/// Reads a blob that should be a manifest; `None` if it is none.
async fn read_manifest(
    content: &mut ContentClient<BoundedChannel>,
    digest: &str,
) -> Result<Option<Manifest>, Status> {
    let request = in_namespace(ReadContentRequest {
        digest: digest.to_owned(),
        // One byte more than is read, so that a blob that is too long shows.
        size: i64::try_from(MAX_MANIFEST_BYTES + 1).unwrap_or(i64::MAX),
        ..ReadContentRequest::default()
    });
    let mut answers = content.read(request).await?.into_inner();
    let mut text = Vec::new();
    while let Some(answer) = answers.message().await? {
        text.extend(answer.data);
        if text.len() > MAX_MANIFEST_BYTES {
            return Ok(None);
        }
    }
    Ok(serde_json::from_slice(&text).ok())
}

/// When a blob was last fetched or found, in nanoseconds since the epoch: either labels it anew. containerd 1.6
/// dates no update.
fn touched_at(blob: &Info) -> i128 {
    let nanoseconds = |at: &Timestamp| i128::from(at.seconds) * 1_000_000_000 + i128::from(at.nanos);
    let dates = [&blob.created_at, &blob.updated_at];
    dates.into_iter().flatten().map(nanoseconds).max().unwrap_or(0)
}

fn in_namespace<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request
        .metadata_mut()
        .insert(NAMESPACE_HEADER, MetadataValue::from_static(NAMESPACE));
    request
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filter_names_the_host_without_port_and_the_whole_path() {
        for (image, filter) in [
            (
                "busybox",
                r#"labels."containerd.io/distribution.source.docker.io"~="(^|,)library/busybox(,|$)",labels."containerd.io/gc.ref.content.config""#,
            ),
            (
                "127.0.0.1:5000/a.b/c-d:1",
                r#"labels."containerd.io/distribution.source.127.0.0.1"~="(^|,)a[.]b/c-d(,|$)",labels."containerd.io/gc.ref.content.config""#,
            ),
            (
                "[::1]:5000/a:1",
                r#"labels."containerd.io/distribution.source.::1"~="(^|,)a(,|$)",labels."containerd.io/gc.ref.content.config""#,
            ),
        ] {
            assert_eq!(manifest_filter(&ImageReference::parse(image).unwrap()), filter);
        }
    }
}
