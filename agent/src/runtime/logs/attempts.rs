//! The log files of one container's attempts: `N.log` in its log folder, also where the runtime knows no container
//! any more.

use std::io;
use std::path::Path;

use super::log_file::LogFile;
use crate::untrusted_file::LOGS;

/// The log files in `folder`, a container's below the folder of all pods' logs, the newest attempt first; none where there
/// is no such folder.
pub(crate) async fn attempts(log_dir: &Path, folder: &Path) -> io::Result<Vec<LogFile>> {
    let any = LogFile::new(log_dir, &folder.join("0.log"));
    LOGS.run_io(folder, {
        let log_dir = log_dir.to_path_buf();
        move || read(&log_dir, &any)
    })
    .await
}

fn read(log_dir: &Path, any: &LogFile) -> io::Result<Vec<LogFile>> {
    let names = match any.folder().and_then(|folder| folder.names()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        names => names?,
    };
    let mut attempts = Vec::new();
    for name in names {
        let attempt = name
            .to_str()
            .and_then(|name| name.strip_suffix(".log")?.parse::<u32>().ok());
        if let Some(attempt) = attempt {
            attempts.push((attempt, LogFile::new(log_dir, &any.folder_path().join(name))));
        }
    }
    attempts.sort_by_key(|(attempt, _)| std::cmp::Reverse(*attempt));
    Ok(attempts.into_iter().map(|(_, log)| log).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn attempts_are_ordered_by_number_and_rotated_files_are_none() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("shop_web_1/app");
        std::fs::create_dir_all(&folder).unwrap();
        for name in ["2.log", "10.log", "10.log.20261121-031241", "x.log", "9.log"] {
            std::fs::write(folder.join(name), "").unwrap();
        }
        let found = attempts(root.path(), &folder).await.unwrap();
        let names: Vec<_> = found.iter().map(LogFile::name).collect();
        assert_eq!(names, ["10.log", "9.log", "2.log"]);
        let none = attempts(root.path(), &folder.join("none")).await;
        assert!(none.unwrap().is_empty());
    }
}
