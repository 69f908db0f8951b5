//! Why the agent did not answer as hoped, in the user's words, and what to do about it.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use nix::unistd::{Gid, Group, Uid, geteuid};

use super::client::ANSWER_TIMEOUT;

/// Why a request was not answered as hoped.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// Nothing listens.
    #[error("the agent is not running: nothing listens on {}", socket.display())]
    NotRunning {
        /// The socket.
        socket: PathBuf,
    },
    /// The socket may not be opened.
    #[error("may not open the agent's socket {}: it is for {}", socket.display(), audience(group.as_deref()))]
    NotRoot {
        /// The socket.
        socket: PathBuf,
        /// The group whose members may open it, if there is one.
        group: Option<String>,
    },
    /// Some other trouble with the socket.
    #[error("cannot open the agent's socket {}: {source}", socket.display())]
    Socket {
        /// The socket.
        socket: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The connection ended too early: the agent was stopped or restarted.
    #[error("the connection to the agent broke while it was asked for {path}: {source}")]
    Broken {
        /// What was asked for.
        path: String,
        /// What happened to the connection.
        source: hyper::Error,
    },
    /// No answer.
    #[error("the agent has not answered a request for {path} within {} s", ANSWER_TIMEOUT.as_secs())]
    Silent {
        /// What was asked for.
        path: String,
    },
    /// The agent refused, and said why.
    #[error("{}", status_message(.0))]
    Refused(Box<Status>),
    /// An answer that this command cannot read.
    #[error("the agent's answer to a request for {path} cannot be read: {reason}")]
    Unreadable {
        /// What was asked for.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The agent is of another version, which is why it did not understand, or was not understood.
    #[error("the agent is version {agent} and this command is version {}: {trouble}", env!("CARGO_PKG_VERSION"))]
    OtherVersion {
        /// The agent's version.
        agent: String,
        /// What went wrong.
        trouble: String,
    },
}

impl ClientError {
    /// What it means that a socket cannot be opened.
    pub(crate) fn connecting(socket: PathBuf, source: io::Error) -> ClientError {
        match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => ClientError::NotRunning { socket },
            io::ErrorKind::PermissionDenied => {
                let group = group_of(&socket);
                ClientError::NotRoot { socket, group }
            }
            _ => ClientError::Socket { socket, source },
        }
    }

    /// What the user of this process can do about it; empty if there is nothing to say.
    pub(crate) fn hint(&self) -> String {
        self.hint_for(geteuid())
    }

    /// What `user` can do about it. root is not told to be root: the reason for a refusal is another then, such as a policy
    /// of the cluster.
    pub(crate) fn hint_for(&self, user: Uid) -> String {
        match self {
            ClientError::NotRunning { .. } => {
                "Start it with \"systemctl start debuglet\" (or \"debuglet agent\"), or name its configuration with \
                 --config."
                    .into()
            }
            ClientError::Refused(_) | ClientError::NotRoot { .. } if user.is_root() => String::new(),
            ClientError::Refused(status) if status.code == Some(403) => {
                "Run the command as root, for example with sudo.".into()
            }
            ClientError::NotRoot { group: None, .. } => {
                "Run the command as root, for example with sudo.".into()
            }
            ClientError::NotRoot {
                group: Some(group), ..
            } => format!("Run the command as root, for example with sudo, or as a member of the group {group}."),
            ClientError::Silent { .. } | ClientError::Broken { .. } => {
                "\"journalctl -u debuglet\" shows what the agent has to say.".into()
            }
            ClientError::OtherVersion { .. } => {
                "Restart the agent (\"systemctl restart debuglet\"); no container is stopped by it.".into()
            }
            _ => String::new(),
        }
    }

    /// The HTTP code of a refusal.
    pub(crate) fn code(&self) -> Option<i32> {
        match self {
            ClientError::Refused(status) => status.code,
            _ => None,
        }
    }

    /// Whether the agent is not there, or went away in the middle: it may come back.
    pub(crate) fn is_lost_agent(&self) -> bool {
        matches!(
            self,
            ClientError::NotRunning { .. } | ClientError::Broken { .. } | ClientError::Socket { .. }
        )
    }
}

fn audience(group: Option<&str>) -> String {
    match group {
        None => "root only".to_owned(),
        Some(group) => format!("root and the group {group}"),
    }
}

/// The group whose members may open a socket, where its mode lets it in.
#[expect(
    clippy::disallowed_methods,
    reason = "a command reads what its user may read, and holds up nobody else"
)]
fn group_of(socket: &Path) -> Option<String> {
    let metadata = socket.metadata().ok()?;
    let may_open = metadata.mode() & 0o060 == 0o060;
    let gid = Gid::from_raw(metadata.gid());
    let name = || Group::from_gid(gid).ok().flatten().map(|group| group.name);
    may_open.then(|| name().unwrap_or_else(|| gid.to_string()))
}

/// The sentence of a refusal, without the full stop that a line of ours does not end with.
fn status_message(status: &Status) -> String {
    let message = status.message.as_deref().unwrap_or_default().trim();
    if message.is_empty() {
        let reason = status.reason.as_deref().unwrap_or("for no reason given");
        return format!("the agent refused: {reason}");
    }
    message.trim_end_matches('.').to_owned()
}
