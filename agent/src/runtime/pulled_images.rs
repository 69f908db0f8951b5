//! Which images debuglet pulled itself, kept in `state_dir/pulled-images.json`: only those may it ever remove.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

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
    path: PathBuf,
    images: Mutex<BTreeMap<String, PulledImage>>,
}

impl PulledImages {
    /// Reads the list. One that cannot be read counts as empty: then nothing is removed that was pulled before.
    pub(crate) fn load(state_dir: &Path) -> PulledImages {
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
            path,
            images: Mutex::new(images),
        }
    }

    /// Notes a pull.
    pub(crate) async fn add(&self, name: &str, id: &str) {
        let pulled = PulledImage {
            id: id.to_owned(),
            pulled_at: jiff::Timestamp::now(),
        };
        let mut images = self.images.lock().await;
        images.insert(name.to_owned(), pulled);
        self.save(&images).await;
    }

    /// Every image of the list, by full name.
    pub(crate) async fn all(&self) -> BTreeMap<String, PulledImage> {
        self.images.lock().await.clone()
    }

    /// Forgets every image with one of these ids: it is gone.
    pub(crate) async fn forget(&self, ids: &[String]) {
        let mut images = self.images.lock().await;
        let before = images.len();
        images.retain(|_, image| !ids.contains(&image.id));
        if images.len() != before {
            self.save(&images).await;
        }
    }

    /// Writes the list under its lock. A failure costs no more than an image that is never removed.
    async fn save(&self, images: &BTreeMap<String, PulledImage>) {
        let (path, images) = (self.path.clone(), images.clone());
        let written = tokio::task::spawn_blocking(move || write(&path, &images)).await;
        if let Ok(Err(failed)) = written {
            tracing::warn!("{} cannot be written: {failed}", self.path.display());
        }
    }
}

/// Replaces the file in one step, so that it is whole at any time.
fn write(path: &Path, images: &BTreeMap<String, PulledImage>) -> std::io::Result<()> {
    let new = path.with_extension("json.new");
    let mut file = std::fs::File::create(&new)?;
    file.write_all(&serde_json::to_vec_pretty(images)?)?;
    file.sync_all()?;
    std::fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_list_outlives_the_process() {
        let folder = tempfile::tempdir().unwrap();
        let images = PulledImages::load(folder.path());
        images.add("docker.io/library/busybox:1", "sha256:a").await;
        images.add("docker.io/library/busybox:2", "sha256:b").await;
        images.forget(&["sha256:a".to_owned()]).await;
        let again = PulledImages::load(folder.path()).all().await;
        assert_eq!(again, images.all().await);
        assert_eq!(again.keys().collect::<Vec<_>>(), ["docker.io/library/busybox:2"]);
    }

    #[tokio::test]
    async fn a_torn_list_counts_as_empty() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(FILE), r#"{"docker.io/library/busy"#).unwrap();
        let images = PulledImages::load(folder.path());
        assert!(images.all().await.is_empty());
        images.add("a/b:1", "sha256:a").await;
        assert_eq!(PulledImages::load(folder.path()).all().await.len(), 1);
    }
}
