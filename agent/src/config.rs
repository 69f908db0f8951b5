//! The configuration file: its keys, their defaults, and what is refused.
//!
//! The file is TOML and every key is optional. The first thing in it that cannot be taken ends the start, named by
//! file and line: a misspelt key that is silently ignored is a node that does something else than its owner thinks.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use nix::unistd::{Gid, Group};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Where the configuration is looked for when nobody names a file.
pub(crate) const DEFAULT_FILE: &str = "/etc/debuglet/config.toml";
/// Default of `runtime_endpoint`: where containerd's packages put its socket.
pub(crate) const DEFAULT_RUNTIME_ENDPOINT: &str = "/run/containerd/containerd.sock";
/// Default of `runtime_request_timeout_seconds`: a kubelet's `runtimeRequestTimeout`.
pub(crate) const DEFAULT_REQUEST_TIMEOUT_SECONDS: u64 = 120;
/// Default of `state_dir`.
pub(crate) const DEFAULT_STATE_DIR: &str = "/var/lib/debuglet";
/// Default of `run_dir`.
pub(crate) const DEFAULT_RUN_DIR: &str = "/run/debuglet";
/// Default of `log_dir`: the folder that a kubelet writes to and log shippers read from.
pub(crate) const DEFAULT_LOG_DIR: &str = "/var/log/pods";
/// Default of `manifests.path`.
pub(crate) const DEFAULT_MANIFESTS_PATH: &str = "/etc/debuglet/manifests";
/// Default of `registry.auth_file`.
pub(crate) const DEFAULT_AUTH_FILE: &str = "/etc/debuglet/registry-auth.json";
/// Default of `api.listen`: reached from this node only. (10250 is a kubelet's.)
pub(crate) const DEFAULT_LISTEN: &str = "127.0.0.1:10260";

/// Default of `kubernetes.kubeconfig`, where it exists: the kubelet's own, so that the API server lets debuglet see what
/// this node may see, and nothing else (Node authorizer).
pub(crate) const KUBELET_KUBECONFIG: &str = "/etc/kubernetes/kubelet.conf";
/// Default of `kubernetes.kubelet_down_seconds`: as long as a node's Lease is valid (KubeletConfiguration,
/// `nodeLeaseDurationSeconds`).
pub(crate) const DEFAULT_KUBELET_DOWN_SECONDS: u64 = 40;

/// The socket of the agent's API inside `run_dir`.
const SOCKET_NAME: &str = "debuglet.sock";

/// Folders that kubelets read static pods from or keep their own state in: kubeadm's, the kubelet's default root, and
/// those of k3s and RKE2. A kubelet would run what lies there a second time.
const KUBELET_FOLDERS: [&str; 3] = ["/etc/kubernetes", "/var/lib/kubelet", "/var/lib/rancher"];

/// The longest DNS subdomain (RFC 1123), in bytes.
const MAX_NODE_NAME_LENGTH: usize = 253;

const TOP_KEYS: [&str; 12] = [
    "node_name",
    "runtime_endpoint",
    "runtime_request_timeout_seconds",
    "cgroup_driver",
    "state_dir",
    "run_dir",
    "log_dir",
    "api",
    "manifests",
    "registry",
    "discovery",
    "kubernetes",
];
const API_KEYS: [&str; 3] = ["listen", "group", "cluster_users"];
const MANIFESTS_KEYS: [&str; 1] = ["path"];
const REGISTRY_KEYS: [&str; 1] = ["auth_file"];
const DISCOVERY_KEYS: [&str; 2] = ["enabled", "static_manifests"];
const KUBERNETES_KEYS: [&str; 3] = ["kubeconfig", "take_over", "kubelet_down_seconds"];

/// How like a known key an unknown one must be to be taken for a slip of it, from 0 to 1 (Jaro-Winkler).
const SIMILAR_ENOUGH: f64 = 0.8;

/// Everything that can be configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Config {
    /// The name of this node in pods and events; a DNS subdomain.
    pub(crate) node_name: String,
    /// The absolute path of the runtime's Unix socket.
    pub(crate) runtime_endpoint: PathBuf,
    /// How long the runtime may take for a request (a kubelet's `runtimeRequestTimeout`); `CallLimits` says which requests
    /// have less, more or no limit.
    pub(crate) runtime_request_timeout: Duration,
    /// Who makes the pods' cgroups.
    pub(crate) cgroup_driver: CgroupDriverSetting,
    /// What must outlive the process; absolute.
    pub(crate) state_dir: PathBuf,
    /// What need not outlive the process: the API's socket; absolute.
    pub(crate) run_dir: PathBuf,
    /// Where the runtime writes the containers' logs; absolute.
    pub(crate) log_dir: PathBuf,
    /// The table `[api]`.
    pub(crate) api: Api,
    /// The table `[manifests]`.
    pub(crate) manifests: Manifests,
    /// The table `[registry]`.
    pub(crate) registry: Registry,
    /// The table `[discovery]`.
    pub(crate) discovery: Discovery,
    /// The table `[kubernetes]`.
    pub(crate) kubernetes: Kubernetes,
}

/// The table `[kubernetes]`: the API server of this node's cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kubernetes {
    /// How it is reached.
    pub(crate) kubeconfig: KubeconfigSetting,
    /// Whether what it asks for is started here.
    pub(crate) take_over: TakeOver,
    /// How long every sign of life of the kubelet must have been away before it counts as down, in seconds.
    pub(crate) kubelet_down_seconds: u64,
}

/// Where the credentials for the API server are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum KubeconfigSetting {
    /// Nowhere: there is no API server.
    Off,
    /// In [`KUBELET_KUBECONFIG`], if it exists.
    Kubelet,
    /// In this file; absolute.
    File(PathBuf),
    /// In what every pod of a cluster has mounted.
    InCluster,
}

/// When ephemeral containers that the API server asks for are started here, which is the kubelet's work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TakeOver {
    /// Never.
    Never,
    /// While this node's kubelet is surely down.
    WhenKubeletIsDown,
}

/// The table `[discovery]`: the pods that somebody else runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Discovery {
    /// Whether they are looked for.
    pub(crate) enabled: bool,
    /// The folder of the kubelet's static pods; without it, that is looked for. Absolute.
    pub(crate) static_manifests: Option<PathBuf>,
}

/// The table `[api]`: where the API is served, and to whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Api {
    /// Where it listens with TLS; `None` turns that off.
    pub(crate) listen: Option<SocketAddr>,
    /// Whose members may use the Unix socket beside root.
    pub(crate) group: Option<Gid>,
    /// Whether the users of the node's cluster are let in with their tokens, over TLS.
    pub(crate) cluster_users: bool,
}

/// The table `[manifests]`: pods from a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Manifests {
    /// The folder; absolute, and no kubelet's.
    pub(crate) path: PathBuf,
}

/// The table `[registry]`: how images are pulled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Registry {
    /// Credentials in the form of docker's `config.json`; absolute, and need not exist.
    pub(crate) auth_file: PathBuf,
}

/// Who makes the pods' cgroups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CgroupDriverSetting {
    /// Whoever the runtime says.
    Auto,
    /// systemd, as slices and scopes.
    Systemd,
    /// The runtime itself, as folders.
    Cgroupfs,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// The file is there, or was named, and cannot be read.
    #[error("cannot read the configuration {}: {source}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Something in the file is refused.
    #[error("{}:{line}: {reason}", file.display())]
    Refused {
        /// The file.
        file: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong, naming the key.
        reason: String,
    },
    /// `node_name` is not set and the host's name cannot stand in for it.
    #[error("the host's name {name:?} cannot name a node: {reason}; set node_name in {}", file.display())]
    HostName {
        /// The file that could set it.
        file: PathBuf,
        /// The host's name.
        name: String,
        /// Why it is refused.
        reason: String,
    },
}

impl Config {
    /// Reads the configuration: from `named` when the user names a file, which must then exist, else from
    /// [`DEFAULT_FILE`], which need not.
    #[expect(
        clippy::disallowed_methods,
        reason = "the configuration is its owner's, and is read before anything runs"
    )]
    pub(crate) fn load(named: Option<&Path>) -> Result<Config, ConfigError> {
        let file = named.unwrap_or(Path::new(DEFAULT_FILE));
        let text = match fs::read_to_string(file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && named.is_none() => String::new(),
            read => read.map_err(|source| ConfigError::Read {
                file: file.to_path_buf(),
                source,
            })?,
        };
        Config::parse(&text, file, &host_name())
    }

    /// Reads the configuration from `text`; `file` is its name in errors, `host` the name of this host.
    fn parse(text: &str, file: &Path, host: &str) -> Result<Config, ConfigError> {
        let mut draft = Draft::default();
        draft
            .read(text)
            .map_err(|Refusal { at, reason }| ConfigError::Refused {
                file: file.to_path_buf(),
                line: line_of(text, at),
                reason,
            })?;
        let node_name = match draft.node_name {
            Some(name) => name,
            None => node_name_of(host).map_err(|reason| ConfigError::HostName {
                file: file.to_path_buf(),
                name: host.to_owned(),
                reason,
            })?,
        };
        let or = |path: Option<PathBuf>, default: &str| path.unwrap_or_else(|| PathBuf::from(default));
        Ok(Config {
            node_name,
            runtime_endpoint: or(draft.runtime_endpoint, DEFAULT_RUNTIME_ENDPOINT),
            runtime_request_timeout: Duration::from_secs(
                draft
                    .runtime_request_timeout_seconds
                    .unwrap_or(DEFAULT_REQUEST_TIMEOUT_SECONDS),
            ),
            cgroup_driver: draft.cgroup_driver.unwrap_or(CgroupDriverSetting::Auto),
            state_dir: or(draft.state_dir, DEFAULT_STATE_DIR),
            run_dir: or(draft.run_dir, DEFAULT_RUN_DIR),
            log_dir: or(draft.log_dir, DEFAULT_LOG_DIR),
            api: Api {
                listen: draft.listen.unwrap_or_else(|| DEFAULT_LISTEN.parse().ok()),
                group: draft.group,
                // Who may get in is for this node's owner to widen, not for a credential that lies on it.
                cluster_users: draft.cluster_users.unwrap_or(false),
            },
            manifests: Manifests {
                path: or(draft.manifests_path, DEFAULT_MANIFESTS_PATH),
            },
            registry: Registry {
                auth_file: or(draft.auth_file, DEFAULT_AUTH_FILE),
            },
            discovery: Discovery {
                enabled: draft.discovery_enabled.unwrap_or(true),
                static_manifests: draft.static_manifests,
            },
            kubernetes: Kubernetes {
                kubeconfig: draft.kubeconfig.unwrap_or(KubeconfigSetting::Kubelet),
                take_over: draft.take_over.unwrap_or(TakeOver::WhenKubeletIsDown),
                kubelet_down_seconds: draft.kubelet_down_seconds.unwrap_or(DEFAULT_KUBELET_DOWN_SECONDS),
            },
        })
    }

    /// The socket of the agent's API.
    pub(crate) fn socket(&self) -> PathBuf {
        self.run_dir.join(SOCKET_NAME)
    }
}

/// What the file says; a key that it leaves out is `None`.
#[derive(Default)]
struct Draft {
    node_name: Option<String>,
    runtime_endpoint: Option<PathBuf>,
    runtime_request_timeout_seconds: Option<u64>,
    cgroup_driver: Option<CgroupDriverSetting>,
    state_dir: Option<PathBuf>,
    run_dir: Option<PathBuf>,
    log_dir: Option<PathBuf>,
    listen: Option<Option<SocketAddr>>,
    group: Option<Gid>,
    cluster_users: Option<bool>,
    manifests_path: Option<PathBuf>,
    auth_file: Option<PathBuf>,
    discovery_enabled: Option<bool>,
    static_manifests: Option<PathBuf>,
    kubeconfig: Option<KubeconfigSetting>,
    take_over: Option<TakeOver>,
    kubelet_down_seconds: Option<u64>,
}

/// The first thing in the file that cannot be taken.
struct Refusal {
    /// Where it is, in bytes from the file's start.
    at: usize,
    reason: String,
}

impl Draft {
    fn read(&mut self, text: &str) -> Result<(), Refusal> {
        let document = DeTable::parse(text).map_err(|error| Refusal {
            at: error.span().map_or(0, |span| span.start),
            reason: error.message().replace('\n', ", "),
        })?;
        // Where to point when the manifests folder is refused: at its own line, else at the one that moved state_dir.
        let mut blamed = 0;
        for Entry { key, value, .. } in entries(document.get_ref(), &TOP_KEYS, "")? {
            match key {
                "node_name" => self.node_name = Some(checked(key, value, node_name)?),
                "runtime_endpoint" => self.runtime_endpoint = Some(checked(key, value, unix_endpoint)?),
                "runtime_request_timeout_seconds" => {
                    self.runtime_request_timeout_seconds = Some(seconds(key, value)?);
                }
                "cgroup_driver" => self.cgroup_driver = Some(checked(key, value, cgroup_driver)?),
                "state_dir" => {
                    self.state_dir = Some(checked(key, value, absolute_path)?);
                    if self.manifests_path.is_none() {
                        blamed = value.span().start;
                    }
                }
                "run_dir" => self.run_dir = Some(checked(key, value, absolute_path)?),
                "log_dir" => self.log_dir = Some(checked(key, value, absolute_path)?),
                "api" => {
                    for Entry { key, value, .. } in entries(table(key, value)?, &API_KEYS, "api.")? {
                        match key {
                            "listen" => self.listen = Some(checked("api.listen", value, listen)?),
                            "cluster_users" => {
                                self.cluster_users = Some(flag("api.cluster_users", value)?);
                            }
                            _ => self.group = Some(checked("api.group", value, group)?),
                        }
                    }
                }
                "manifests" => {
                    for Entry { value, .. } in entries(table(key, value)?, &MANIFESTS_KEYS, "manifests.")? {
                        self.manifests_path = Some(checked("manifests.path", value, absolute_path)?);
                        blamed = value.span().start;
                    }
                }
                "discovery" => {
                    for Entry { key, value, .. } in
                        entries(table(key, value)?, &DISCOVERY_KEYS, "discovery.")?
                    {
                        match key {
                            "enabled" => self.discovery_enabled = Some(flag("discovery.enabled", value)?),
                            _ => {
                                self.static_manifests =
                                    Some(checked("discovery.static_manifests", value, absolute_path)?);
                            }
                        }
                    }
                }
                "kubernetes" => {
                    for Entry { key, value, .. } in
                        entries(table(key, value)?, &KUBERNETES_KEYS, "kubernetes.")?
                    {
                        match key {
                            "kubeconfig" => {
                                self.kubeconfig = Some(checked("kubernetes.kubeconfig", value, kubeconfig)?);
                            }
                            "take_over" => {
                                self.take_over = Some(checked("kubernetes.take_over", value, take_over)?);
                            }
                            _ => {
                                self.kubelet_down_seconds =
                                    Some(seconds("kubernetes.kubelet_down_seconds", value)?);
                            }
                        }
                    }
                }
                _ => {
                    for Entry { value, .. } in entries(table(key, value)?, &REGISTRY_KEYS, "registry.")? {
                        self.auth_file = Some(checked("registry.auth_file", value, absolute_path)?);
                    }
                }
            }
        }
        self.check_manifests_folder(blamed)
    }

    /// The folder must be ours alone: a kubelet that reads it would run every pod a second time, and what the agent
    /// writes into its own state must not come back to it as manifests.
    fn check_manifests_folder(&self, at: usize) -> Result<(), Refusal> {
        let path = self
            .manifests_path
            .as_deref()
            .unwrap_or(Path::new(DEFAULT_MANIFESTS_PATH));
        let state_dir = self.state_dir.as_deref().unwrap_or(Path::new(DEFAULT_STATE_DIR));
        let is_in = |folder: &Path| path.starts_with(folder) || real(path).starts_with(real(folder));
        let reason = if let Some(folder) = KUBELET_FOLDERS.iter().find(|folder| is_in(Path::new(folder))) {
            format!("{} is in {folder}, which belongs to a kubelet", path.display())
        } else if is_in(state_dir) {
            format!("{} is in state_dir {}", path.display(), state_dir.display())
        } else {
            return Ok(());
        };
        Err(Refusal {
            at,
            reason: format!("manifests.path: {reason}"),
        })
    }
}

/// Where links lead: a link to a kubelet's folder is that folder. What does not exist leads nowhere yet.
#[expect(
    clippy::disallowed_methods,
    reason = "the configuration is its owner's, and is read before anything runs"
)]
fn real(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf())
}

/// One key of a table with its value.
struct Entry<'a> {
    key: &'a str,
    at: usize,
    value: &'a Spanned<DeValue<'a>>,
}

/// The table's entries in the order of the file; a key that is not `known` is refused. `prefix` goes before a key's
/// name in the refusal.
fn entries<'a>(table: &'a DeTable<'a>, known: &[&str], prefix: &str) -> Result<Vec<Entry<'a>>, Refusal> {
    let mut entries: Vec<Entry<'a>> = table
        .iter()
        .map(|(key, value)| Entry {
            key: key.get_ref(),
            at: key.span().start,
            value,
        })
        .collect();
    entries.sort_by_key(|entry| entry.at);
    match entries.iter().find(|entry| !known.contains(&entry.key)) {
        None => Ok(entries),
        Some(Entry { key, at, .. }) => Err(Refusal {
            at: *at,
            reason: match similar(key, known) {
                Some(meant) => {
                    format!("unknown key \"{prefix}{key}\"; did you mean \"{prefix}{meant}\"?")
                }
                None => format!(
                    "unknown key \"{prefix}{key}\"; there are: {prefix}{}",
                    known.join(&format!(", {prefix}"))
                ),
            },
        }),
    }
}

/// The known key that `key` is most likely a slip of.
fn similar<'a>(key: &str, known: &[&'a str]) -> Option<&'a str> {
    let key = key.to_lowercase().replace('-', "_");
    known
        .iter()
        .map(|known| (strsim::jaro_winkler(&key, known), *known))
        .filter(|(likeness, _)| *likeness >= SIMILAR_ENOUGH)
        .max_by(|(left, _), (right, _)| left.total_cmp(right))
        .map(|(_, known)| known)
}

fn table<'a>(key: &str, value: &'a Spanned<DeValue<'a>>) -> Result<&'a DeTable<'a>, Refusal> {
    value.get_ref().as_table().ok_or_else(|| Refusal {
        at: value.span().start,
        reason: format!("{key} must be a table, not {}", kind_of(value.get_ref())),
    })
}

/// The string `value`, read by `rule`, whose refusal is completed with the key and the place.
fn checked<T>(
    key: &str,
    value: &Spanned<DeValue<'_>>,
    rule: fn(&str) -> Result<T, String>,
) -> Result<T, Refusal> {
    let read = match value.get_ref().as_str() {
        Some(text) => rule(text).map_err(|reason| format!("{key}: {reason}")),
        None => Err(format!(
            "{key} must be a string, not {}",
            kind_of(value.get_ref())
        )),
    };
    read.map_err(|reason| Refusal {
        at: value.span().start,
        reason,
    })
}

fn flag(key: &str, value: &Spanned<DeValue<'_>>) -> Result<bool, Refusal> {
    value.get_ref().as_bool().ok_or_else(|| Refusal {
        at: value.span().start,
        reason: format!("{key} must be true or false, not {}", kind_of(value.get_ref())),
    })
}

/// A whole number of seconds, at least one.
fn seconds(key: &str, value: &Spanned<DeValue<'_>>) -> Result<u64, Refusal> {
    let number = value.get_ref().as_integer().map(|number| number.as_str().parse());
    let reason = match number {
        Some(Ok(seconds)) if seconds > 0 => return Ok(seconds),
        Some(_) => format!("{key} must be a number of seconds, 1 or more"),
        None => format!("{key} must be an integer, not {}", kind_of(value.get_ref())),
    };
    Err(Refusal {
        at: value.span().start,
        reason,
    })
}

/// The kind of a TOML value with its article.
fn kind_of(value: &DeValue<'_>) -> String {
    let kind = value.type_str();
    let article = if kind.starts_with(['a', 'i']) { "an" } else { "a" };
    format!("{article} {kind}")
}

/// A node's name must be a DNS subdomain: it goes into `spec.nodeName` (Kubernetes, `metadata.name` of a Node).
fn node_name(name: &str) -> Result<String, String> {
    let label_is_good = |label: &str| {
        let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        !label.is_empty() && label.bytes().all(inner) && !label.starts_with('-') && !label.ends_with('-')
    };
    if name.len() > MAX_NODE_NAME_LENGTH {
        Err(format!("it is longer than {MAX_NODE_NAME_LENGTH} characters"))
    } else if name.split('.').all(label_is_good) {
        Ok(name.to_owned())
    } else {
        Err(format!(
            "{name:?} is not a DNS subdomain: lower case letters, digits, '-' and '.', each part beginning and ending \
             with a letter or digit"
        ))
    }
}

/// The node's name where none is configured: the host's, in lower case as a kubelet registers it.
fn node_name_of(host: &str) -> Result<String, String> {
    node_name(&host.trim().to_lowercase())
}

fn host_name() -> String {
    nix::unistd::gethostname()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
}

/// `unix:///run/x.sock`, or the path alone: the runtime is on this node, so other schemes have no use.
fn unix_endpoint(endpoint: &str) -> Result<PathBuf, String> {
    let path = endpoint.strip_prefix("unix://").unwrap_or(endpoint);
    if endpoint.contains("://") && path == endpoint {
        return Err(format!("{endpoint:?} is not a Unix socket; write unix:///PATH"));
    }
    absolute_path(path)
        .map_err(|_| format!("{endpoint:?} does not name an absolute path; write unix:///PATH"))
}

fn cgroup_driver(driver: &str) -> Result<CgroupDriverSetting, String> {
    match driver {
        "auto" => Ok(CgroupDriverSetting::Auto),
        "systemd" => Ok(CgroupDriverSetting::Systemd),
        "cgroupfs" => Ok(CgroupDriverSetting::Cgroupfs),
        _ => Err(format!("{driver:?} is none of auto, systemd, cgroupfs")),
    }
}

/// A file, or one of the two words that stand for none.
fn kubeconfig(setting: &str) -> Result<KubeconfigSetting, String> {
    match setting {
        "" => Ok(KubeconfigSetting::Off),
        "in-cluster" => Ok(KubeconfigSetting::InCluster),
        path => absolute_path(path)
            .map(KubeconfigSetting::File)
            .map_err(|reason| format!("{reason}, nor \"in-cluster\"; \"\" turns it off")),
    }
}

fn take_over(when: &str) -> Result<TakeOver, String> {
    match when {
        "never" => Ok(TakeOver::Never),
        "when-kubelet-is-down" => Ok(TakeOver::WhenKubeletIsDown),
        _ => Err(format!("{when:?} is none of never, when-kubelet-is-down")),
    }
}

/// An address and a port; nothing where the API is not to be served with TLS.
fn listen(address: &str) -> Result<Option<SocketAddr>, String> {
    if address.is_empty() {
        return Ok(None);
    }
    let named = |_| {
        format!(
            "{address:?} is not an address and a port, such as {DEFAULT_LISTEN} or [::1]:10260; \"\" turns it off"
        )
    };
    address.parse().map(Some).map_err(named)
}

/// A group of this node, by name or number. It must exist by name, so that a slip lets nobody else in.
fn group(group: &str) -> Result<Gid, String> {
    if let Ok(number) = group.parse() {
        return Ok(Gid::from_raw(number));
    }
    match Group::from_name(group) {
        Ok(Some(found)) => Ok(found.gid),
        Ok(None) => Err(format!("there is no group {group:?} on this node")),
        Err(errno) => Err(format!("cannot look up group {group:?}: {}", errno.desc())),
    }
}

/// An absolute path without `..`, which would make two names of one folder look like two folders.
fn absolute_path(path: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(path);
    if !path.is_absolute() {
        Err(format!(
            "{:?} is not an absolute path",
            path.display().to_string()
        ))
    } else if path.components().any(|part| part == Component::ParentDir) {
        Err(format!(
            "{:?} must not contain \"..\"",
            path.display().to_string()
        ))
    } else {
        Ok(path)
    }
}

/// The line, from 1, of the byte `at`.
fn line_of(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests;
