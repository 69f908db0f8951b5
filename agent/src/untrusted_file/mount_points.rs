//! Which mount a path lies on, from the kernel's table of mounts: reading the table touches no file system that is mounted.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// The mount point that `path`, an absolute path, lies at or below. Links in the path are not followed: what a link leads
/// to counts as lying where the link is.
pub(super) async fn mount_point_of(path: &Path) -> PathBuf {
    #[expect(
        clippy::disallowed_methods,
        reason = "the file is the kernel's, and this is a blocking thread"
    )]
    let read = tokio::task::spawn_blocking(|| std::fs::read("/proc/self/mountinfo"));
    // Without the table every path counts as one on the mount of the root folder.
    let table = read
        .await
        .unwrap_or_else(|error| Err(error.into()))
        .unwrap_or_default();
    innermost(mount_points(&table), path)
}

/// The mount point that is the nearest to `path` on the way up.
fn innermost(points: Vec<PathBuf>, path: &Path) -> PathBuf {
    let above = points.into_iter().filter(|point| path.starts_with(point));
    above
        .max_by_key(|point| point.as_os_str().len())
        .unwrap_or_else(|| PathBuf::from("/"))
}

/// The mount points in a mountinfo (proc(5)), in the order of mounting.
pub(crate) fn mount_points(table: &[u8]) -> Vec<PathBuf> {
    let lines = table.split(|byte| *byte == b'\n');
    lines
        .filter_map(|line| line.split(|byte| *byte == b' ').nth(4))
        .map(|path| PathBuf::from(OsString::from_vec(unescaped(path))))
        .collect()
}

/// Blanks and backslashes are written as a backslash and three octal digits.
fn unescaped(path: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((first, after)) = rest.split_first() {
        let code = after
            .get(..3)
            .filter(|_| *first == b'\\')
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        plain.push(code.unwrap_or(*first));
        rest = if code.is_some() { &after[3..] } else { after };
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_read_with_their_blanks() {
        let table = b"22 1 8:1 / / rw - ext4 /dev/a rw\n\
                      30 22 0:40 / /a\\040b\\134c/d rw,relatime shared:3 - tmpfs tmpfs rw\n";
        let expected: Vec<PathBuf> = vec!["/".into(), "/a b\\c/d".into()];
        assert_eq!(mount_points(table), expected);
    }

    #[test]
    fn a_path_lies_on_the_nearest_mount_above_it() {
        let points = ["/", "/srv", "/srv/dead", "/srv/dead", "/var"];
        for (path, expected) in [
            ("/", "/"),
            ("/srv/dead", "/srv/dead"),
            ("/srv/dead/volume/file", "/srv/dead"),
            ("/srv/deadly", "/srv"),
            ("/etc/hosts", "/"),
        ] {
            let points = points.iter().map(PathBuf::from).collect();
            assert_eq!(innermost(points, Path::new(path)), Path::new(expected), "{path}");
        }
        assert_eq!(innermost(Vec::new(), Path::new("/srv")), Path::new("/"));
    }
}
