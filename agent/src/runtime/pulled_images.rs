//! Which images debuglet pulled itself, kept in `state_dir/pulled-images.json`: only those may it ever remove.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::durable_file;
use crate::write_threads::WriteThreads;

/// The file's name in the state folder.
const FILE: &str = "pulled-images.json";

/// One image that debuglet pulled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PulledImage {
    /// The runtime's id of what the name meant then.
    pub(crate) id: String,
    /// When it was last pulled.
    pub(crate) pulled_at: jiff::Timestamp,
}

/// The images that debuglet pulled, by full name.
#[derive(Debug)]
pub(crate) struct PulledImages {
    folder: PathBuf,
    threads: Arc<WriteThreads>,
    kept: Arc<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    images: Mutex<BTreeMap<String, PulledImage>>,
    /// Held while the file is written, so that the newest list is written last.
    writing: Mutex<()>,
}

impl PulledImages {
    /// Reads the list. One that cannot be read counts as empty: then nothing is removed that was pulled before. It is
    /// written on `threads`.
    #[expect(
        clippy::disallowed_methods,
        reason = "the state folder is root's alone; callers are on threads that may block"
    )]
    pub(crate) fn load(state_dir: &Path, threads: Arc<WriteThreads>) -> PulledImages {
        let path = state_dir.join(FILE);
        let images = match std::fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).unwrap_or_else(|invalid| {
                tracing::warn!(
                    "{} cannot be read ({invalid}); the images in it stay",
                    path.display()
                );
                BTreeMap::new()
            }),
            Err(missing) if missing.kind() == std::io::ErrorKind::NotFound => BTreeMap::new(),
            Err(unreadable) => {
                tracing::warn!(
                    "{} cannot be read ({unreadable}); the images in it stay",
                    path.display()
                );
                BTreeMap::new()
            }
        };
        PulledImages {
            folder: state_dir.to_path_buf(),
            threads,
            kept: Arc::new(Kept {
                images: Mutex::new(images),
                writing: Mutex::default(),
            }),
        }
    }

    /// Notes a pull.
    pub(crate) async fn add(&self, name: &str, id: &str) {
        let pulled = PulledImage {
            id: id.to_owned(),
            pulled_at: jiff::Timestamp::now(),
        };
        self.kept.images().insert(name.to_owned(), pulled);
        self.save().await;
    }

    /// Every image of the list, by full name.
    pub(crate) fn all(&self) -> BTreeMap<String, PulledImage> {
        self.kept.images().clone()
    }

    /// Forgets every image with one of these ids: it is gone.
    pub(crate) async fn forget(&self, ids: &BTreeSet<String>) {
        let changed = {
            let mut images = self.kept.images();
            let before = images.len();
            images.retain(|_, image| !ids.contains(&image.id));
            images.len() != before
        };
        if changed {
            self.save().await;
        }
    }

    /// Writes the list as it is by then. A failure costs no more than an image that is never removed.
    async fn save(&self) {
        let (folder, kept) = (self.folder.clone(), Arc::clone(&self.kept));
        let _ = self.threads.run(move || kept.write(&folder)).await;
    }
}

impl Kept {
    fn images(&self) -> MutexGuard<'_, BTreeMap<String, PulledImage>> {
        self.images.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, folder: &Path) {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let images = self.images().clone();
        let written = serde_json::to_vec_pretty(&images)
            .map_err(std::io::Error::from)
            .and_then(|bytes| Ok(durable_file::write(folder, FILE, &bytes)?));
        if let Err(failed) = written {
            tracing::warn!("{} cannot be written: {failed}", folder.join(FILE).display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(folder: &Path) -> PulledImages {
        PulledImages::load(folder, Arc::new(WriteThreads::new().unwrap()))
    }

    #[tokio::test]
    async fn the_list_outlives_the_process() {
        let folder = tempfile::tempdir().unwrap();
        let images = load(folder.path());
        images.add("docker.io/library/busybox:1", "sha256:a").await;
        images.add("docker.io/library/busybox:2", "sha256:b").await;
        images.forget(&BTreeSet::from(["sha256:a".to_owned()])).await;
        let again = load(folder.path()).all();
        assert_eq!(again, images.all());
        assert_eq!(again.keys().collect::<Vec<_>>(), ["docker.io/library/busybox:2"]);
    }

    #[tokio::test]
    async fn a_torn_list_counts_as_empty() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(FILE), r#"{"docker.io/library/busy"#).unwrap();
        let images = load(folder.path());
        assert!(images.all().is_empty());
        images.add("a/b:1", "sha256:a").await;
        assert_eq!(load(folder.path()).all().len(), 1);
    }
}
