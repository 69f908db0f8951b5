//! Images that are removed when the disk fills up: those that debuglet pulled itself and that nobody uses.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use debuglet_proto::v1::{
    Image, ImageFsInfoRequest, ImageSpec, ListContainersRequest, ListImagesRequest, RemoveImageRequest,
};
use nix::sys::statvfs::statvfs;
use tokio_util::sync::CancellationToken;

use crate::pod::image_reference::ImageReference;
use crate::runtime::client::Runtime;
use crate::runtime::error;
use crate::runtime::pulled_images::{PulledImage, PulledImages};
use crate::untrusted_file::IMAGES;

/// How often the images are looked at (the kubelet's image garbage collection has the same period).
const INTERVAL: Duration = Duration::from_secs(300);
/// Images are removed when more than this many percent of their disk are used (the kubelet's `imageGCHighThresholdPercent`) ...
const HIGH_THRESHOLD_PERCENT: u64 = 85;
/// ... until no more than this many are (`imageGCLowThresholdPercent`).
const LOW_THRESHOLD_PERCENT: u64 = 80;
/// An image is younger than this when its container may be about to be created (`imageMinimumGCAge`).
const MINIMUM_AGE: jiff::SignedDuration = jiff::SignedDuration::from_mins(2);

/// Why a look at the images ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ImageGarbageError {
    /// A question to the runtime failed.
    #[error("{call} failed: {}", error::message(status))]
    Runtime {
        /// The CRI call.
        call: &'static str,
        /// Its answer.
        #[source]
        status: Box<tonic::Status>,
    },
    /// The disk of the images cannot be looked at.
    #[error("the disk of {} cannot be looked at: {source}", folder.display())]
    Disk {
        /// A folder on it.
        folder: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl ImageGarbageError {
    /// Whether the log has this already, see [`error::is_logged`].
    pub(crate) fn is_logged(&self) -> bool {
        matches!(self, ImageGarbageError::Runtime { status, .. } if error::is_logged(status))
    }
}

/// Looks at the images now and then until `shutdown`.
pub(crate) async fn run(runtime: Runtime, pulled: Arc<PulledImages>, shutdown: CancellationToken) {
    let interval = interval();
    while shutdown
        .run_until_cancelled(tokio::time::sleep(interval))
        .await
        .is_some()
    {
        match remove_images(&runtime, &pulled).await {
            Ok(removed) if removed.is_empty() => {}
            Ok(removed) => tracing::info!(
                "removed {} images that nobody uses: the disk is filling up",
                removed.len()
            ),
            Err(error) if error.is_logged() => {}
            Err(error) => tracing::warn!("cannot clean up images: {error}"),
        }
    }
}

/// [`INTERVAL`], unless a test asks a debug build for a number of seconds in `DEBUGLET_TEST_CLEAN_UP_SECONDS`. A release build
/// does not read it.
fn interval() -> Duration {
    let asked = match cfg!(debug_assertions) {
        true => std::env::var("DEBUGLET_TEST_CLEAN_UP_SECONDS").ok(),
        false => None,
    };
    let seconds = asked.and_then(|seconds| seconds.parse().ok());
    seconds.map_or(INTERVAL, Duration::from_secs)
}

/// Removes images when their disk is filling up: those that debuglet pulled and that nobody uses, the one that was
/// pulled longest ago first. Returns the ids that are gone.
pub(crate) async fn remove_images(
    runtime: &Runtime,
    pulled: &PulledImages,
) -> Result<Vec<String>, ImageGarbageError> {
    let known = pulled.all();
    if known.is_empty() {
        return Ok(Vec::new());
    }
    let images = runtime
        .images()
        .list_images(ListImagesRequest::default())
        .await
        .map_err(failed("ListImages"))?
        .into_inner()
        .images;
    // Those that somebody else removed are none of our business any more. Before anything else: below the threshold too
    // the list does not grow with every image that was ever pulled.
    pulled.forget(&gone(&known, &images)).await;
    let excess = bytes_above_threshold(runtime).await?;
    if excess == 0 {
        return Ok(Vec::new());
    }
    let in_use = images_in_use(runtime).await?;
    let mut removed = Vec::new();
    for id in unused_images(&images, &known, &in_use, excess, jiff::Timestamp::now()) {
        let image = Some(ImageSpec {
            image: id.clone(),
            ..ImageSpec::default()
        });
        match runtime.images().remove_image(RemoveImageRequest { image }).await {
            Ok(_) => removed.push(id),
            Err(status) => tracing::warn!(image = id, "an unused image stays: {}", error::message(&status)),
        }
    }
    pulled.forget(&removed.iter().cloned().collect()).await;
    Ok(removed)
}

/// The ids of what was pulled and is not among the images any more.
fn gone(known: &BTreeMap<String, PulledImage>, images: &[Image]) -> BTreeSet<String> {
    let still_there: HashSet<&str> = images.iter().map(|image| image.id.as_str()).collect();
    let ids = known.values().map(|image| &image.id);
    ids.filter(|id| !still_there.contains(id.as_str()))
        .cloned()
        .collect()
}

/// How many bytes are to be freed on the disk of the images; 0 while it is below the high threshold.
#[expect(clippy::disallowed_methods, reason = "this is a thread of IMAGES")]
async fn bytes_above_threshold(runtime: &Runtime) -> Result<u64, ImageGarbageError> {
    let answer = runtime
        .images()
        .image_fs_info(ImageFsInfoRequest {})
        .await
        .map_err(failed("ImageFsInfo"))?
        .into_inner();
    let disk = answer.image_filesystems.into_iter().find_map(|usage| usage.fs_id);
    // A runtime that names no disk has none that could be watched.
    let Some(disk) = disk else {
        return Ok(0);
    };
    let folder = PathBuf::from(disk.mountpoint);
    let looked_at = folder.clone();
    let look = move || statvfs(&looked_at).map_err(std::io::Error::from);
    let space = IMAGES.run_io(&folder, look).await;
    let space = space.map_err(|source| ImageGarbageError::Disk { folder, source })?;
    // The widths of these fields differ between machines.
    #[allow(clippy::unnecessary_cast, clippy::useless_conversion)]
    let (block, blocks, available) = (
        space.fragment_size() as u64,
        u64::from(space.blocks()),
        u64::from(space.blocks_available()),
    );
    Ok(excess(
        blocks.saturating_mul(block),
        available.saturating_mul(block),
    ))
}

/// How many bytes are to be freed on a disk of this size with this much left.
fn excess(size: u64, available: u64) -> u64 {
    let used = size.saturating_sub(available);
    if used <= size / 100 * HIGH_THRESHOLD_PERCENT {
        return 0;
    }
    used - size / 100 * LOW_THRESHOLD_PERCENT
}

/// Every name and id of an image that a container, of whoever's, was made of.
async fn images_in_use(runtime: &Runtime) -> Result<HashSet<String>, ImageGarbageError> {
    let containers = runtime
        .runtime()
        .list_containers(ListContainersRequest::default())
        .await
        .map_err(failed("ListContainers"))?
        .into_inner()
        .containers;
    let names = containers.into_iter().flat_map(|container| {
        let image = container.image.unwrap_or_default();
        [
            image.image,
            image.user_specified_image,
            container.image_ref,
            container.image_id,
        ]
    });
    Ok(names.filter(|name| !name.is_empty()).collect())
}

/// The ids of the images to remove, which together free at least `excess` bytes if that can be had.
fn unused_images(
    images: &[Image],
    pulled: &BTreeMap<String, PulledImage>,
    in_use: &HashSet<String>,
    excess: u64,
    now: jiff::Timestamp,
) -> Vec<String> {
    let repositories: HashSet<String> = pulled
        .keys()
        .filter_map(|name| ImageReference::parse(name).ok())
        .map(|name| name.repository())
        .collect();
    // Removing an image takes all its names along, so all must be ours.
    let only_ours = |image: &Image| {
        image.repo_tags.iter().all(|tag| pulled.contains_key(tag))
            && image.repo_digests.iter().all(|digest| {
                digest
                    .split_once('@')
                    .is_some_and(|(name, _)| repositories.contains(name))
            })
    };
    let is_used = |image: &Image| {
        let mut names = image
            .repo_tags
            .iter()
            .chain(&image.repo_digests)
            .chain([&image.id]);
        names.any(|name| in_use.contains(name))
    };
    let last_pulled = |image: &Image| {
        pulled
            .values()
            .filter(|known| known.id == image.id)
            .map(|known| known.pulled_at)
            .max()
    };
    let mut candidates: Vec<(jiff::Timestamp, &Image)> = images
        .iter()
        .filter(|image| !image.pinned && only_ours(image) && !is_used(image))
        .filter_map(|image| Some((last_pulled(image)?, image)))
        .filter(|(pulled_at, _)| now.duration_since(*pulled_at) >= MINIMUM_AGE)
        .collect();
    candidates.sort_by_key(|(pulled_at, _)| *pulled_at);
    let mut freed = 0;
    let mut remove = Vec::new();
    for (_, image) in candidates {
        if freed >= excess {
            break;
        }
        freed += image.size;
        remove.push(image.id.clone());
    }
    remove
}

fn failed(call: &'static str) -> impl FnOnce(tonic::Status) -> ImageGarbageError {
    move |status| ImageGarbageError::Runtime {
        call,
        status: Box::new(status),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn image(id: &str, tags: &[&str], digests: &[&str]) -> Image {
        Image {
            id: id.to_owned(),
            repo_tags: tags.iter().map(ToString::to_string).collect(),
            repo_digests: digests.iter().map(ToString::to_string).collect(),
            size: GIB,
            ..Image::default()
        }
    }

    fn unused(images: &[Image], pulled: &[(&str, &str, i64)], in_use: &[&str], excess: u64) -> Vec<String> {
        let now = jiff::Timestamp::from_second(10_000).unwrap();
        let pulled = pulled.iter().map(|(name, id, seconds_ago)| {
            let pulled_at = now - jiff::SignedDuration::from_secs(*seconds_ago);
            let id = (*id).to_owned();
            ((*name).to_owned(), PulledImage { id, pulled_at })
        });
        let in_use = in_use.iter().map(ToString::to_string).collect();
        unused_images(images, &pulled.collect(), &in_use, excess, now)
    }

    #[test]
    fn nothing_is_removed_before_the_high_threshold_and_then_down_to_the_low_one() {
        for (size, available, expected) in [
            (100 * GIB, 15 * GIB, 0),
            (100 * GIB, 14 * GIB, 6 * GIB),
            (100 * GIB, 0, 20 * GIB),
            (0, 0, 0),
        ] {
            assert_eq!(
                excess(size, available) / GIB,
                expected / GIB,
                "{available} of {size}"
            );
        }
    }

    #[test]
    fn only_what_debuglet_pulled_under_every_name_it_has_is_removed() {
        let ours = image("sha256:1", &["r.io/a:1"], &["r.io/a@sha256:f"]);
        let shared = image("sha256:2", &["r.io/b:1", "r.io/other:1"], &[]);
        let other_repository = image(
            "sha256:3",
            &["r.io/c:1"],
            &["r.io/c@sha256:f", "r.io/else@sha256:f"],
        );
        let foreign = image("sha256:4", &["r.io/d:1"], &[]);
        let pinned = Image {
            pinned: true,
            ..image("sha256:5", &["r.io/e:1"], &[])
        };
        let replaced = image("sha256:6", &[], &["r.io/a@sha256:e"]);
        let images = [ours, shared, other_repository, foreign, pinned, replaced];
        let pulled = [
            ("r.io/a:1", "sha256:1", 1000),
            ("r.io/b:1", "sha256:2", 1000),
            ("r.io/c:1", "sha256:3", 1000),
            ("r.io/e:1", "sha256:5", 1000),
        ];
        assert_eq!(unused(&images, &pulled, &[], u64::MAX), ["sha256:1"]);
    }

    #[test]
    fn an_image_in_use_or_just_pulled_stays() {
        let images = [
            image("sha256:1", &["r.io/a:1"], &[]),
            image("sha256:2", &["r.io/b:1"], &[]),
            image("sha256:3", &["r.io/c:1"], &["r.io/c@sha256:f"]),
            image("sha256:4", &["r.io/d:1"], &[]),
        ];
        let pulled = [
            ("r.io/a:1", "sha256:1", 1000),
            ("r.io/b:1", "sha256:2", 1000),
            ("r.io/c:1", "sha256:3", 1000),
            ("r.io/d:1", "sha256:4", 60),
        ];
        let in_use = ["sha256:1", "r.io/c@sha256:f"];
        assert_eq!(unused(&images, &pulled, &in_use, u64::MAX), ["sha256:2"]);
    }

    #[test]
    fn what_was_pulled_longest_ago_goes_first_and_no_more_than_needed() {
        let images = [
            image("sha256:1", &["r.io/a:1"], &[]),
            image("sha256:2", &["r.io/b:1"], &[]),
            image("sha256:3", &["r.io/c:1"], &[]),
        ];
        let pulled = [
            ("r.io/a:1", "sha256:1", 1000),
            ("r.io/b:1", "sha256:2", 3000),
            ("r.io/c:1", "sha256:3", 2000),
        ];
        assert_eq!(unused(&images, &pulled, &[], GIB + 1), ["sha256:2", "sha256:3"]);
        assert_eq!(unused(&images, &pulled, &[], 1), ["sha256:2"]);
    }
}
