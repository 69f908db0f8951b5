//! Who can open the socket.

use nix::unistd::{setfsgid, setfsuid};
use tempfile::TempDir;

use super::*;

/// A folder that everybody may enter.
fn open_folder() -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).expect("opened");
    folder
}

/// Connects as another user, with this primary group. Only the thread's rights to files change, which are what a
/// connection asks for; its supplementary groups stay root's.
fn connect_as(uid: u32, gid: u32, socket: &Path) -> io::Result<()> {
    let socket = socket.to_owned();
    let thread = std::thread::spawn(move || {
        setfsgid(Gid::from_raw(gid));
        setfsuid(Uid::from_raw(uid));
        std::os::unix::net::UnixStream::connect(socket).map(drop)
    });
    thread.join().expect("the thread ends")
}

#[tokio::test]
async fn the_socket_is_for_root_alone_and_a_stale_one_makes_room() {
    let folder = open_folder();
    let socket = folder.path().join(SOCKET);
    let listener = UnixListener::bind(folder.path(), None).expect("a socket");
    let metadata = std::fs::metadata(&socket).expect("a socket");
    assert_eq!(metadata.permissions().mode() & 0o7777, 0o600);
    assert_eq!(
        connect_as(1234, 0, &socket).expect_err("refused").kind(),
        io::ErrorKind::PermissionDenied
    );
    connect_as(0, 0, &socket).expect("root");
    let left: Vec<_> = std::fs::read_dir(folder.path())
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    assert_eq!(left, [SOCKET]);
    assert!(matches!(
        UnixListener::bind(folder.path(), None),
        Err(BindError::InUse { .. })
    ));

    drop(listener);
    assert!(UnixListener::bind(folder.path(), None).is_ok(), "a stale one");
    std::fs::remove_file(&socket).expect("removed");
    std::fs::write(&socket, "a file").expect("written");
    assert!(matches!(
        UnixListener::bind(folder.path(), None),
        Err(BindError::NotASocket { .. })
    ));
}

#[tokio::test]
async fn with_a_group_its_members_can_open_the_socket_and_others_cannot() {
    let folder = open_folder();
    let socket = folder.path().join(SOCKET);
    let group = Gid::from_raw(23456);
    let _listener = UnixListener::bind(folder.path(), Some(group)).expect("a socket");
    let metadata = std::fs::metadata(&socket).expect("a socket");
    assert_eq!(metadata.permissions().mode() & 0o7777, 0o660);
    connect_as(1234, 23456, &socket).expect("a member");
    assert_eq!(
        connect_as(1234, 1234, &socket).expect_err("refused").kind(),
        io::ErrorKind::PermissionDenied
    );
}

#[tokio::test]
async fn a_socket_that_a_crash_left_half_made_is_no_obstacle() {
    let folder = open_folder();
    let workshop = folder.path().join(WORKSHOP);
    std::fs::create_dir(&workshop).expect("a folder");
    drop(std::os::unix::net::UnixListener::bind(workshop.join("s")).expect("a socket"));
    UnixListener::bind(folder.path(), None).expect("a socket");
}
