//! A folder whose own path is trusted, and whose content is not.

use std::ffi::{CStr, OsStr, OsString};
use std::fs::{File, Metadata, OpenOptions, Permissions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat, openat2, readlinkat, renameat};
use nix::libc;
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{UnlinkatFlags, symlinkat, unlinkat};

/// How many names a listing gives at most: more are an error, so that a folder full of files takes no memory to speak of.
const MAX_NAMES: usize = 10_000;
/// Who may change what is in a folder, beside its owner.
const GROUP_OR_OTHERS_WRITE: u32 = 0o022;
/// In a folder with this bit only a name's owner can change it.
const STICKY: u32 = 0o1000;

/// An open folder. Below it no link is followed, and no path leads out of it. All of its methods block.
#[derive(Debug)]
pub(crate) struct Folder {
    folder: OwnedFd,
    resolution: Resolution,
}

/// How a path below the folder is followed. Both ways give the same answers; a test compares them.
#[derive(Clone, Copy, Debug)]
enum Resolution {
    /// By the kernel in one call; where that is not known (before Linux 5.6) or not allowed (a filter of system calls),
    /// step by step.
    InOneCall,
    /// One `openat` for each name.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "the tests begin with it; others come to it")
    )]
    StepByStep,
}

impl Folder {
    /// Opens the folder at `path`, which is the node's owner's or the runtime's word: links in it are followed.
    #[expect(
        clippy::disallowed_methods,
        reason = "this module is how such files are opened"
    )]
    pub(crate) fn open(path: &Path) -> io::Result<Folder> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        Ok(Folder {
            folder: nix::fcntl::open(path, flags, Mode::empty())?,
            resolution: Resolution::InOneCall,
        })
    }

    /// Opens a folder below this one.
    pub(crate) fn folder(&self, path: &Path) -> io::Result<Folder> {
        let folder = self.handle_of(path)?;
        let found = File::from(folder.try_clone()?).metadata()?;
        if found.is_symlink() {
            return Err(is_a_link());
        }
        if !found.is_dir() {
            return Err(Errno::ENOTDIR.into());
        }
        Ok(Folder {
            folder,
            resolution: self.resolution,
        })
    }

    /// Opens a regular file below this folder, to read it.
    pub(crate) fn file(&self, path: &Path) -> io::Result<File> {
        reopen(self.handle_of(path)?, OpenOptions::new().read(true))
    }

    /// Opens a regular file below this folder, to change what is in it. A container that has the file can refuse that for as
    /// long as it likes: by a lease, or by running it as a program.
    pub(crate) fn file_to_change(&self, path: &Path) -> io::Result<File> {
        reopen(self.handle_of(path)?, OpenOptions::new().read(true).write(true))
    }

    /// Makes a file in this folder that is not there yet.
    pub(crate) fn new_file(&self, name: &OsStr, mode: u32) -> io::Result<File> {
        let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_RDWR | OFlag::O_CLOEXEC;
        let file = openat(
            &self.folder,
            one_name(name)?,
            flags,
            Mode::from_bits_truncate(mode),
        )?;
        Ok(File::from(file))
    }

    /// Puts a new file with this mode and content in the place of whatever file has this name. A process that has the old
    /// file open, or mounted, keeps that one. Callers see to it that nobody else replaces the same file meanwhile.
    pub(crate) fn replace_file(&self, name: &OsStr, mode: u32, content: &[u8]) -> io::Result<()> {
        let name = one_name(name)?;
        let mut draft = name.to_owned();
        draft.push(".new");
        match self.remove_file(&draft) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let file = self.new_file(&draft, mode)?;
        let written = file
            .write_all_at(content, 0)
            // The process's umask is not meant for it.
            .and_then(|()| file.set_permissions(Permissions::from_mode(mode)))
            .and_then(|()| {
                let renamed = renameat(&self.folder, draft.as_os_str(), &self.folder, name);
                Ok(renamed?)
            });
        if written.is_err() {
            let _ = self.remove_file(&draft);
        }
        written
    }

    /// What is at a path below this folder; a link is told as a link.
    pub(crate) fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        File::from(self.handle_of(path)?).metadata()
    }

    /// What this folder is.
    pub(crate) fn own_metadata(&self) -> io::Result<Metadata> {
        File::from(self.folder.try_clone()?).metadata()
    }

    /// Opens a folder in this one, and makes it with `mode` where there is none.
    pub(crate) fn make_folder(&self, name: &OsStr, mode: u32) -> io::Result<Folder> {
        match mkdirat(&self.folder, one_name(name)?, Mode::from_bits_truncate(mode)) {
            Ok(()) | Err(Errno::EEXIST) => self.folder(Path::new(name)),
            Err(error) => Err(error.into()),
        }
    }

    /// The names in this folder, in no order.
    ///
    /// # Errors
    /// Also where there are more than 10,000.
    pub(crate) fn names(&self) -> io::Result<Vec<OsString>> {
        let mut names = Vec::new();
        self.each_name(|name| {
            if names.len() == MAX_NAMES {
                return Err(io::Error::other(format!("it holds more than {MAX_NAMES} files")));
            }
            names.push(OsStr::from_bytes(name.to_bytes()).to_owned());
            Ok(true)
        })?;
        Ok(names)
    }

    /// Whether nothing is in this folder.
    pub(crate) fn is_empty(&self) -> io::Result<bool> {
        let mut empty = true;
        self.each_name(|_| {
            empty = false;
            Ok(false)
        })?;
        Ok(empty)
    }

    /// Removes a name in this folder that is no folder; a link, and not what it leads to.
    pub(crate) fn remove_file(&self, name: &OsStr) -> io::Result<()> {
        Ok(unlinkat(
            &self.folder,
            one_name(name)?,
            UnlinkatFlags::NoRemoveDir,
        )?)
    }

    /// Makes a link in this folder.
    pub(crate) fn make_link(&self, name: &OsStr, target: &Path) -> io::Result<()> {
        Ok(symlinkat(target, &self.folder, one_name(name)?)?)
    }

    /// What a link in this folder leads to.
    pub(crate) fn target_of(&self, name: &OsStr) -> io::Result<PathBuf> {
        Ok(PathBuf::from(readlinkat(&self.folder, one_name(name)?)?))
    }

    /// Removes an empty folder in this one.
    pub(crate) fn remove_folder(&self, name: &OsStr) -> io::Result<()> {
        Ok(unlinkat(&self.folder, one_name(name)?, UnlinkatFlags::RemoveDir)?)
    }

    /// Its handle.
    pub(super) fn handle(&self) -> &OwnedFd {
        &self.folder
    }

    fn each_name(&self, mut act: impl FnMut(&CStr) -> io::Result<bool>) -> io::Result<()> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let mut listing = Dir::from_fd(openat(&self.folder, ".", flags, Mode::empty())?)?;
        for entry in listing.iter() {
            let entry = entry?;
            let name = entry.file_name();
            if !matches!(name.to_bytes(), b"." | b"..") && !act(name)? {
                break;
            }
        }
        Ok(())
    }

    /// A handle (`O_PATH`) of what is at `path`, whatever it is: taking one has no effect on a device or a FIFO.
    fn handle_of(&self, path: &Path) -> io::Result<OwnedFd> {
        let names = names_of(path)?;
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        if let Resolution::InOneCall = self.resolution {
            let beneath = ResolveFlag::RESOLVE_BENEATH
                | ResolveFlag::RESOLVE_NO_SYMLINKS
                | ResolveFlag::RESOLVE_NO_MAGICLINKS;
            match openat2(&self.folder, path, OpenHow::new().flags(flags).resolve(beneath)) {
                Err(Errno::ENOSYS | Errno::EPERM) => {}
                Err(Errno::ELOOP) => return Err(is_a_link()),
                handle => return Ok(handle?),
            }
        }
        let mut handle = self.folder.try_clone()?;
        let last = names.len() - 1;
        for (index, name) in names.into_iter().enumerate() {
            handle = openat(&handle, name, flags, Mode::empty())?;
            // The last name may be one of a link: who opens it refuses it, and who looks at it is told.
            if index < last && File::from(handle.try_clone()?).metadata()?.is_symlink() {
                return Err(is_a_link());
            }
        }
        Ok(handle)
    }
}

/// What is at `path`, which the runtime or a pod names; links are followed, and nothing is opened. Blocks, for ever where
/// the path lies on a file system that does not answer.
#[expect(
    clippy::disallowed_methods,
    reason = "this module is how such files are opened"
)]
pub(crate) fn metadata(path: &Path) -> io::Result<Metadata> {
    std::fs::metadata(path)
}

/// Opens the regular file at `path`, to read it. Links are followed: this is for paths that the node's owner or the
/// runtime names, of files that others may have written.
#[expect(
    clippy::disallowed_methods,
    reason = "this module is how such files are opened"
)]
pub(crate) fn regular_file(path: &Path) -> io::Result<File> {
    let handle = nix::fcntl::open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
    reopen(handle, OpenOptions::new().read(true))
}

/// At most `most` bytes of a file from `start` on. Another may cut or extend it meanwhile: fewer come at its end only.
pub(crate) fn read_range(file: &File, start: u64, most: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; most];
    let mut length = 0;
    while length < most {
        match file.read_at(&mut bytes[length..], start + length as u64) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(length);
    Ok(bytes)
}

/// Whether nobody but root can change what is at `path`, now and later: each folder on the way is root's, and others
/// may not write to it. A link on the way counts as no. What is missing counts as what it would be made in.
pub(crate) fn only_root_can_change(path: &Path) -> io::Result<bool> {
    let names = path.strip_prefix("/").map(names_of);
    let Ok(Ok(names)) = names else {
        return Ok(false);
    };
    let mut names = names.into_iter();
    let mut folder = Folder::open(Path::new("/"))?;
    loop {
        let found = folder.own_metadata()?;
        let next = names.next();
        let others_may_write = found.mode() & GROUP_OR_OTHERS_WRITE != 0;
        // What is root's in such a folder stays root's.
        let keeps_names = found.mode() & STICKY != 0;
        if found.uid() != 0 || others_may_write && !(keeps_names && next.is_some()) {
            return Ok(false);
        }
        let Some(name) = next else { return Ok(true) };
        folder = match folder.folder(Path::new(name)) {
            Ok(folder) => folder,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(!others_may_write),
            Err(error) if is_link_error(&error) || error.kind() == io::ErrorKind::NotADirectory => {
                return Ok(false);
            }
            Err(error) => return Err(error),
        };
    }
}

/// Opens what a handle is of, if it is a regular file. `O_NONBLOCK`, since a lease of somebody's would hold up even that.
#[expect(
    clippy::disallowed_methods,
    reason = "this module is how such files are opened"
)]
fn reopen(handle: OwnedFd, options: &mut OpenOptions) -> io::Result<File> {
    let handle = File::from(handle);
    let kind = handle.metadata()?.file_type();
    if kind.is_symlink() {
        return Err(is_a_link());
    }
    if !kind.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    options
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(format!("/proc/self/fd/{}", handle.as_raw_fd()))
}

/// That something is a link where none is followed.
#[derive(Debug, thiserror::Error)]
#[error("it is a symbolic link, or lies behind one, and links are not followed here")]
struct IsALink;

fn is_a_link() -> io::Error {
    io::Error::other(IsALink)
}

fn is_link_error(error: &io::Error) -> bool {
    let source = error.get_ref();
    source.is_some_and(<dyn std::error::Error + Send + Sync>::is::<IsALink>)
}

/// The names of a relative path that only goes down.
fn names_of(path: &Path) -> io::Result<Vec<&OsStr>> {
    let names = path.components().map(|component| match component {
        Component::Normal(name) => Ok(name),
        _ => Err(leads_out()),
    });
    let names = names.collect::<io::Result<Vec<_>>>()?;
    if names.is_empty() {
        return Err(leads_out());
    }
    Ok(names)
}

pub(super) fn one_name(name: &OsStr) -> io::Result<&OsStr> {
    match names_of(Path::new(name))?.as_slice() {
        // A slash behind it would be lost otherwise.
        [only] if *only == name => Ok(name),
        _ => Err(leads_out()),
    }
}

fn leads_out() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "the path leads out of its folder")
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use super::*;

    /// A folder `in` with one of each kind, beside what a link could lead out to.
    fn hostile() -> (tempfile::TempDir, PathBuf) {
        let root = tempfile::tempdir().expect("a folder");
        let folder = root.path().join("in");
        fs::create_dir_all(folder.join("sub")).expect("folders");
        fs::write(root.path().join("secret"), "root's").expect("written");
        fs::write(folder.join("file"), "own").expect("written");
        fs::write(folder.join("sub/file"), "below").expect("written");
        symlink("../secret", folder.join("out")).expect("a link");
        symlink(root.path().join("secret"), folder.join("absolute")).expect("a link");
        symlink("file", folder.join("within")).expect("a link");
        symlink("sub", folder.join("to-sub")).expect("a link");
        symlink("loop", folder.join("loop")).expect("a link");
        nix::unistd::mkfifo(&folder.join("fifo"), Mode::S_IRWXU).expect("a FIFO");
        drop(UnixListener::bind(folder.join("socket")).expect("a socket"));
        let device = nix::sys::stat::makedev(1, 5);
        nix::sys::stat::mknod(
            &folder.join("device"),
            nix::sys::stat::SFlag::S_IFCHR,
            Mode::S_IRWXU,
            device,
        )
        .expect("a device, as root");
        (root, folder)
    }

    fn both_ways(folder: &Path) -> [Folder; 2] {
        [Resolution::InOneCall, Resolution::StepByStep].map(|resolution| Folder {
            resolution,
            ..Folder::open(folder).expect("the folder")
        })
    }

    #[test]
    fn only_regular_files_that_no_link_leads_to_are_opened_whichever_way_the_path_is_resolved() {
        let (_root, path) = hostile();
        const LINK: &str = "it is a symbolic link, or lies behind one, and links are not followed here";
        const LEADS_OUT: &str = "the path leads out of its folder";
        const NO_FILE: &str = "it is not a regular file";
        for folder in both_ways(&path) {
            for (name, expected) in [
                ("file", Ok("own")),
                ("sub/file", Ok("below")),
                ("sub/./file", Ok("below")),
                ("./file", Err(LEADS_OUT)),
                ("out", Err(LINK)),
                ("absolute", Err(LINK)),
                ("within", Err(LINK)),
                ("to-sub/file", Err(LINK)),
                ("loop", Err(LINK)),
                ("loop/file", Err(LINK)),
                ("../secret", Err(LEADS_OUT)),
                ("sub/../file", Err(LEADS_OUT)),
                ("/etc/passwd", Err(LEADS_OUT)),
                ("", Err(LEADS_OUT)),
                (".", Err(LEADS_OUT)),
                ("fifo", Err(NO_FILE)),
                ("socket", Err(NO_FILE)),
                ("device", Err(NO_FILE)),
                ("sub", Err(NO_FILE)),
                ("none", Err("No such file or directory (os error 2)")),
                ("file/below", Err("Not a directory (os error 20)")),
            ] {
                let read = folder
                    .file(Path::new(name))
                    .and_then(|file| read_range(&file, 0, 100))
                    .map(|bytes| String::from_utf8(bytes).expect("text"))
                    .map_err(|error| error.to_string());
                let read = read.as_ref().map(String::as_str).map_err(String::as_str);
                assert_eq!(read, expected, "{name:?} by {:?}", folder.resolution);
            }
            for link in ["out", "loop"] {
                assert!(folder.metadata(Path::new(link)).expect("a link").is_symlink());
            }
            let error = folder.folder(Path::new("to-sub")).expect_err("a link");
            assert!(is_link_error(&error), "{error}");
        }
    }

    #[test]
    fn a_folder_that_others_fill_is_listed_up_to_a_bound_and_changed_by_one_name_at_a_time() {
        let (root, path) = hostile();
        let folder = Folder::open(&path).expect("the folder");
        assert_eq!(folder.names().expect("listed").len(), 10);
        assert!(!folder.is_empty().expect("listed"));
        let made = folder.make_folder(OsStr::new("made"), 0o755).expect("made");
        assert!(made.is_empty().expect("listed"));
        assert!(folder.make_folder(OsStr::new("to-sub"), 0o755).is_err(), "a link");
        for name in ["a/b", "..", ".", "", "a/"] {
            let name = OsStr::new(name);
            assert!(folder.new_file(name, 0o600).is_err(), "{name:?}");
            assert!(folder.make_folder(name, 0o700).is_err(), "{name:?}");
            assert!(folder.remove_file(name).is_err(), "{name:?}");
        }
        assert!(folder.new_file(OsStr::new("out"), 0o600).is_err());
        folder.remove_file(OsStr::new("out")).expect("removed");
        assert_eq!(
            fs::read_to_string(root.path().join("secret")).expect("kept"),
            "root's"
        );
        for number in 0..=MAX_NAMES {
            fs::write(path.join("made").join(number.to_string()), "").expect("written");
        }
        let error = made.names().expect_err("too many");
        assert_eq!(error.to_string(), "it holds more than 10000 files");
        assert!(!made.is_empty().expect("listed"));
    }

    #[test]
    fn a_sparse_file_of_any_length_is_read_up_to_what_was_asked_for() {
        let (_root, path) = hostile();
        let file = File::options().write(true).open(path.join("file")).expect("open");
        file.set_len(1 << 40).expect("sparse");
        let read = Folder::open(&path).expect("the folder");
        let read = read.file(Path::new("file")).expect("a file");
        assert_eq!(read_range(&read, 0, 4).expect("read"), b"own\0");
        assert_eq!(read_range(&read, (1 << 40) - 2, 100).expect("read"), b"\0\0");
    }

    #[test]
    fn a_path_is_roots_alone_where_nobody_else_can_put_a_name_of_his_choice_on_it() {
        let root = tempfile::tempdir_in("/run").expect("a folder");
        let path = |name: &str| root.path().join(name);
        let make = |name: &str, mode: u32, owner: u32| {
            fs::create_dir(path(name)).expect("a folder");
            fs::set_permissions(path(name), Permissions::from_mode(mode)).expect("its mode");
            std::os::unix::fs::chown(path(name), Some(owner), None).expect("its owner");
        };
        make("own", 0o755, 0);
        make("sticky", 0o1777, 0);
        make("sticky/roots", 0o755, 0);
        make("sticky/users", 0o755, 1000);
        make("open", 0o777, 0);
        make("open/roots", 0o755, 0);
        make("group", 0o775, 0);
        make("users", 0o755, 1000);
        symlink("own", path("link")).expect("a link");
        fs::write(path("file"), "").expect("a file");
        for (name, expected) in [
            ("own", true),
            ("own/not/there", true),
            ("sticky", false),
            ("sticky/not-there", false),
            ("sticky/roots", true),
            ("sticky/roots/not-there", true),
            ("sticky/users", false),
            ("open", false),
            ("open/roots", false),
            ("group", false),
            ("users/not-there", false),
            ("link", false),
            ("file/below", false),
            ("own/../own", false),
        ] {
            let found = only_root_can_change(&path(name)).expect("looked at");
            assert_eq!(found, expected, "{name}");
        }
        assert!(!only_root_can_change(Path::new("relative")).expect("looked at"));
        assert!(!only_root_can_change(Path::new("/tmp")).expect("looked at"));
    }
}
