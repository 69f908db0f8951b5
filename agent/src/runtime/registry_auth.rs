//! The credentials for registries: a file in docker's config.json form, read afresh at each pull, or a Secret in the same
//! form.
//!
//! Which entry fits which image follows the kubelet: by registry host (`*` stands for anything within one part
//! of it), port, and a path in front of the image's; the longest path first.

use std::collections::HashMap;
use std::fmt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use debuglet_proto::v1::AuthConfig;
use serde::Deserialize;
use tokio::io::AsyncReadExt;

use crate::pod::image_reference::ImageReference;

/// docker writes the default registry's credentials under this host.
const DEFAULT_REGISTRY: &str = "docker.io";
const DEFAULT_REGISTRY_KEY: &str = "index.docker.io";

/// What is wrong with the credentials. The rest of it is used all the same: an image that needs no credentials, or
/// those of a sound entry, can be pulled. No variant carries a secret.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RegistryAuthProblem {
    /// It is there and cannot be read.
    #[error("the {place} cannot be read: {source}")]
    Read {
        /// Which file or Secret.
        place: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is no JSON, or not of this form.
    #[error("the {place} is not in docker's config.json form (line {line}, column {column})")]
    Form {
        /// Which file or Secret.
        place: String,
        /// Where reading stopped; serde's own message may quote what it found there.
        line: usize,
        /// Where in the line.
        column: usize,
    },
    /// It names a program that keeps the credentials.
    #[error("the {place} uses {field}, which debuglet does not run: put the credentials under \"auths\"")]
    Helper {
        /// Which file or Secret.
        place: String,
        /// `credsStore` or `credHelpers`.
        field: &'static str,
    },
    /// The `auth` of an entry is not `base64(user:password)`.
    #[error("the {place} has an entry \"{entry}\" whose \"auth\" is not base64 of user:password")]
    Entry {
        /// Which file or Secret.
        place: String,
        /// The entry's key.
        entry: String,
    },
    /// Other users of the node can read the secrets.
    #[error("the {place} can be read by every user of this node (mode {mode:04o}): chmod 600 it")]
    Exposed {
        /// Which file or Secret.
        place: String,
        /// Its permissions.
        mode: u32,
    },
}

impl RegistryAuthProblem {
    /// Whether it can be why a registry denied access.
    pub(crate) fn may_cost_credentials(&self) -> bool {
        !matches!(self, RegistryAuthProblem::Exposed { .. })
    }
}

/// docker's config.json, as far as it says how to log in.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    #[serde(default)]
    auths: HashMap<String, Entry>,
    #[serde(default)]
    creds_store: String,
    #[serde(default)]
    cred_helpers: HashMap<String, String>,
}

/// One entry of `auths`. No Debug: it holds secrets.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: String,
    username: String,
    password: String,
    identitytoken: String,
    registrytoken: String,
}

/// One way to log in at a registry.
pub(crate) struct Credential {
    /// The entry's key in the file, for messages.
    pub(crate) entry: String,
    /// What the runtime is given; its Debug shows no secret.
    pub(crate) auth: AuthConfig,
}

impl fmt::Debug for Credential {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Credential")
            .field("entry", &self.entry)
            .finish_non_exhaustive()
    }
}

/// The credentials of one reading of the file.
#[derive(Debug, Default)]
pub(crate) struct RegistryAuth {
    /// With what their keys fit, the longest path first.
    credentials: Vec<(Key, Credential)>,
    /// What was wrong with the file.
    pub(crate) problems: Vec<RegistryAuthProblem>,
}

/// What an entry's key fits: `HOST[:PORT][/PATH]`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Key {
    host: String,
    port: Option<String>,
    /// Without slashes around it; empty for the whole registry.
    path: String,
}

impl RegistryAuth {
    /// Reads the file; one that is not there holds no credentials.
    #[expect(
        clippy::disallowed_methods,
        reason = "the configuration names this file of the node's owner"
    )]
    pub(crate) async fn read(path: &Path) -> RegistryAuth {
        let place = format!("registry auth file {}", path.display());
        let read = async {
            // The permissions are those of the very file that is read.
            let mut file = tokio::fs::File::open(path).await?;
            let mode = file.metadata().await?.permissions().mode() & 0o7777;
            let mut text = Vec::new();
            file.read_to_end(&mut text).await?;
            Ok::<_, std::io::Error>((mode, text))
        };
        match read.await {
            Ok((mode, text)) => {
                let mut auth = RegistryAuth::parse(&place, &text);
                if mode & 0o004 != 0 {
                    auth.problems.push(RegistryAuthProblem::Exposed { place, mode });
                }
                auth
            }
            Err(missing) if missing.kind() == std::io::ErrorKind::NotFound => RegistryAuth::default(),
            Err(source) => RegistryAuth::of_problem(RegistryAuthProblem::Read { place, source }),
        }
    }

    fn of_problem(problem: RegistryAuthProblem) -> RegistryAuth {
        RegistryAuth {
            credentials: Vec::new(),
            problems: vec![problem],
        }
    }

    fn not_of_this_form(place: &str, invalid: &serde_json::Error) -> RegistryAuth {
        RegistryAuth::of_problem(RegistryAuthProblem::Form {
            place: place.to_owned(),
            line: invalid.line(),
            column: invalid.column(),
        })
    }

    /// Reads docker's config.json; `place` names it in messages.
    pub(crate) fn parse(place: &str, text: &[u8]) -> RegistryAuth {
        let file: File = match serde_json::from_slice(text) {
            Ok(file) => file,
            Err(invalid) => return RegistryAuth::not_of_this_form(place, &invalid),
        };
        let mut auth = RegistryAuth::of_entries(place, file.auths);
        let helpers = [
            ("credsStore", !file.creds_store.is_empty()),
            ("credHelpers", !file.cred_helpers.is_empty()),
        ];
        for (field, _) in helpers.into_iter().filter(|(_, used)| *used) {
            let place = place.to_owned();
            auth.problems.push(RegistryAuthProblem::Helper { place, field });
        }
        auth
    }

    /// Reads the older form, `.dockercfg`: the entries alone.
    pub(crate) fn parse_entries(place: &str, text: &[u8]) -> RegistryAuth {
        match serde_json::from_slice(text) {
            Ok(entries) => RegistryAuth::of_entries(place, entries),
            Err(invalid) => RegistryAuth::not_of_this_form(place, &invalid),
        }
    }

    fn of_entries(place: &str, entries: HashMap<String, Entry>) -> RegistryAuth {
        let mut auth = RegistryAuth::default();
        for (name, entry) in entries {
            match entry.login() {
                Ok(Some(login)) => {
                    let key = Key::parse(&name);
                    let credential = Credential {
                        entry: name,
                        auth: login,
                    };
                    auth.credentials.push((key, credential));
                }
                // A credential helper's entry is empty.
                Ok(None) => {}
                Err(NotALogin) => auth.problems.push(RegistryAuthProblem::Entry {
                    place: place.to_owned(),
                    entry: name,
                }),
            }
        }
        auth.sort();
        auth
    }

    /// Adds another's.
    pub(crate) fn merge(&mut self, other: RegistryAuth) {
        self.credentials.extend(other.credentials);
        self.problems.extend(other.problems);
        self.sort();
    }

    /// The longest path is the most specific; what follows only makes the order the same at each reading.
    fn sort(&mut self) {
        self.credentials.sort_by(|(a, first), (b, second)| {
            let longest = (b.path.len(), b.host.len()).cmp(&(a.path.len(), a.host.len()));
            longest.then_with(|| first.entry.cmp(&second.entry))
        });
    }

    /// The credentials to try for an image, in this order.
    pub(crate) fn credentials_for(&self, image: &ImageReference) -> impl Iterator<Item = &Credential> {
        let repository = image.repository();
        self.credentials
            .iter()
            .filter(move |(key, _)| key.fits(&repository))
            .map(|(_, credential)| credential)
    }
}

impl Key {
    /// Reads the key of an entry: `https://index.docker.io/v1/`, `quay.io/team`, `*.example.com:5000`.
    fn parse(name: &str) -> Key {
        let name = name.trim_start_matches("https://").trim_start_matches("http://");
        let (registry, path) = name.split_once('/').unwrap_or((name, ""));
        // docker also wrote the address of the registry's API.
        let path = match path.split_once('/').unwrap_or((path, "")) {
            ("v1" | "v2", rest) => rest,
            _ => path,
        };
        let (host, port) = split_port(registry);
        Key {
            host: match host {
                DEFAULT_REGISTRY_KEY => DEFAULT_REGISTRY.to_owned(),
                host => host.to_owned(),
            },
            port: port.map(str::to_owned),
            path: path.trim_matches('/').to_owned(),
        }
    }

    /// Whether it is the key for a repository: `HOST[:PORT]/PATH`.
    fn fits(&self, repository: &str) -> bool {
        let (registry, path) = repository.split_once('/').unwrap_or((repository, ""));
        let (host, port) = split_port(registry);
        // Whole parts of the path only: credentials for `quay.io/team` are none of `quay.io/team-b`'s business.
        let path_fits = self.path.is_empty()
            || path
                .strip_prefix(&self.path)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        path_fits && self.port.as_deref() == port && host_fits(&self.host, host)
    }
}

/// Whether a host fits, part by part; a `*` stands for any characters of one part.
fn host_fits(pattern: &str, host: &str) -> bool {
    let mut parts = host.split('.');
    pattern
        .split('.')
        .all(|pattern| parts.next().is_some_and(|part| part_fits(pattern, part)))
        && parts.next().is_none()
}

fn part_fits(pattern: &str, part: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern.eq_ignore_ascii_case(part),
        Some((before, after)) => {
            let starts = part
                .get(..before.len())
                .is_some_and(|start| start.eq_ignore_ascii_case(before));
            starts
                && (0..=part.len()).rev().any(|end| {
                    end >= before.len() && part.get(end..).is_some_and(|rest| part_fits(after, rest))
                })
        }
    }
}

/// The host and the port of `HOST[:PORT]`; an IPv6 address stands in brackets.
fn split_port(registry: &str) -> (&str, Option<&str>) {
    match registry.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (registry, None),
    }
}

/// The `auth` of an entry cannot be read.
struct NotALogin;

impl Entry {
    /// What the runtime is given; `None` for an entry that says nothing.
    fn login(self) -> Result<Option<AuthConfig>, NotALogin> {
        let mut login = AuthConfig {
            username: self.username,
            password: self.password,
            identity_token: self.identitytoken,
            registry_token: self.registrytoken,
            ..AuthConfig::default()
        };
        if !self.auth.is_empty() {
            let decoded = STANDARD.decode(self.auth.trim()).map_err(|_| NotALogin)?;
            let decoded = String::from_utf8(decoded).map_err(|_| NotALogin)?;
            let (username, password) = decoded.split_once(':').ok_or(NotALogin)?;
            login.username = username.to_owned();
            // docker pads what it writes with NUL.
            login.password = password.trim_end_matches('\0').to_owned();
        }
        if !login.identity_token.is_empty() {
            // With a token docker keeps a user name that is none, and a runtime would take it for one.
            login.username.clear();
            login.password.clear();
        }
        let says_something = [&login.username, &login.identity_token, &login.registry_token]
            .iter()
            .any(|field| !field.is_empty());
        Ok(says_something.then_some(login))
    }
}

#[cfg(test)]
mod tests;
