//! The log files of one container's attempts: `N.log` in its log folder, also where the runtime knows no container
//! any more.

use std::io;
use std::path::{Path, PathBuf};

/// The log files in `folder`, the newest attempt first; none where there is no such folder.
pub(crate) async fn attempts(folder: PathBuf) -> io::Result<Vec<PathBuf>> {
    super::off_the_runtime(move || read(&folder)).await
}

fn read(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut attempts = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let attempt = name.and_then(|name| name.strip_suffix(".log")?.parse::<u32>().ok());
        if let Some(attempt) = attempt {
            attempts.push((attempt, path));
        }
    }
    attempts.sort_by_key(|(attempt, _)| std::cmp::Reverse(*attempt));
    Ok(attempts.into_iter().map(|(_, path)| path).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn attempts_are_ordered_by_number_and_rotated_files_are_none() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["2.log", "10.log", "10.log.20261121-031241", "x.log", "9.log"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        let found = attempts(folder.path().to_path_buf()).await.unwrap();
        let names: Vec<_> = found.iter().map(|path| path.file_name().unwrap()).collect();
        assert_eq!(names, ["10.log", "9.log", "2.log"]);
        assert!(attempts(folder.path().join("none")).await.unwrap().is_empty());
    }
}
