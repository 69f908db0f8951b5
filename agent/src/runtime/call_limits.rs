//! How long the runtime may take for each of its calls: one table over every method that is called. A method that is
//! missing in it fails a test, as does one that is called no more.

use std::time::Duration;

use crate::config::DEFAULT_REQUEST_TIMEOUT_SECONDS;

/// The longest wait for a question, which changes nothing and can be asked again.
const LONGEST_READ: Duration = Duration::from_secs(30);
/// When a call without a limit is reported as one that takes long.
const LONGEST_UNREPORTED: Duration = Duration::from_secs(30);
/// The longest wait for a question on behalf of an HTTP client, which gets an answer in 10 s. What a client has changed, such
/// as a leftover that is stopped with its grace, takes its time.
const LONGEST_FOR_CLIENTS: Duration = Duration::from_secs(8);

/// How long the runtime may take for one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Limit {
    /// A question. It is asked again later.
    Read,
    /// A change that can be asked for again.
    Change,
    /// The network of a sandbox is set up, which a kubelet gives twice the time too.
    Sandbox,
    /// A stop, which has the grace of its request on top.
    Stop,
    /// None: cut short it would kill, or leave behind, what it makes. It is never given up, also not at the shutdown.
    Never,
    /// None of its own: `pull_progress::stalled` gives it up when nothing arrives any more.
    Pull,
    /// None: a stream, which lasts as long as the agent.
    Stream,
}

/// What the request of a method says of its object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Names {
    /// Nothing: the call is about the node, or about what its pod's worker does not know yet.
    Nothing,
    /// The id of a container.
    Container,
    /// The id of a sandbox.
    Sandbox,
    /// An image.
    Image,
    /// The sandbox that is to be made (`RunPodSandboxRequest`).
    NewSandbox,
    /// The container that is to be made (`CreateContainerRequest`).
    NewContainer,
}

/// What is known of one method.
#[derive(Clone, Copy, Debug)]
pub(super) struct Method {
    /// Its path in HTTP.
    pub(super) path: &'static str,
    pub(super) limit: Limit,
    pub(super) names: Names,
}

impl Method {
    const fn new(path: &'static str, limit: Limit, names: Names) -> Method {
        Method { path, limit, names }
    }
}

/// Every method of CRI and of containerd's own services that is called.
pub(super) const METHODS: [Method; 30] = [
    Method::new("/runtime.v1.RuntimeService/Version", Limit::Read, Names::Nothing),
    Method::new("/runtime.v1.RuntimeService/Status", Limit::Read, Names::Nothing),
    Method::new(
        "/runtime.v1.RuntimeService/RuntimeConfig",
        Limit::Read,
        Names::Nothing,
    ),
    Method::new(
        "/runtime.v1.RuntimeService/ListPodSandbox",
        Limit::Read,
        Names::Nothing,
    ),
    Method::new(
        "/runtime.v1.RuntimeService/PodSandboxStatus",
        Limit::Read,
        Names::Sandbox,
    ),
    Method::new(
        "/runtime.v1.RuntimeService/RunPodSandbox",
        Limit::Sandbox,
        Names::NewSandbox,
    ),
    Method::new(
        "/runtime.v1.RuntimeService/StopPodSandbox",
        Limit::Change,
        Names::Sandbox,
    ),
    Method::new(
        "/runtime.v1.RuntimeService/RemovePodSandbox",
        Limit::Change,
        Names::Sandbox,
    ),
    Method::new(
        "/runtime.v1.RuntimeService/ListContainers",
        Limit::Read,
        Names::Nothing,
    ),
    Method::new(
        "/runtime.v1.RuntimeService/ContainerStatus",
        Limit::Read,
        Names::Container,
    ),
    Method::new(
        "/runtime.v1.RuntimeService/CreateContainer",
        Limit::Never,
        Names::NewContainer,
    ),
    Method::new(
        "/runtime.v1.RuntimeService/StartContainer",
        Limit::Never,
        Names::Container,
    ),
    Method::new(
        "/runtime.v1.RuntimeService/StopContainer",
        Limit::Stop,
        Names::Container,
    ),
    Method::new(
        "/runtime.v1.RuntimeService/RemoveContainer",
        Limit::Change,
        Names::Container,
    ),
    Method::new(
        "/runtime.v1.RuntimeService/ReopenContainerLog",
        Limit::Read,
        Names::Container,
    ),
    // These three only ask for a URL.
    Method::new("/runtime.v1.RuntimeService/Exec", Limit::Read, Names::Container),
    Method::new("/runtime.v1.RuntimeService/Attach", Limit::Read, Names::Container),
    Method::new(
        "/runtime.v1.RuntimeService/PortForward",
        Limit::Read,
        Names::Sandbox,
    ),
    Method::new(
        "/runtime.v1.RuntimeService/GetContainerEvents",
        Limit::Stream,
        Names::Nothing,
    ),
    Method::new("/runtime.v1.ImageService/ListImages", Limit::Read, Names::Nothing),
    Method::new("/runtime.v1.ImageService/ImageStatus", Limit::Read, Names::Image),
    Method::new("/runtime.v1.ImageService/PullImage", Limit::Pull, Names::Image),
    Method::new(
        "/runtime.v1.ImageService/RemoveImage",
        Limit::Change,
        Names::Image,
    ),
    Method::new(
        "/runtime.v1.ImageService/ImageFsInfo",
        Limit::Read,
        Names::Nothing,
    ),
    Method::new(
        "/containerd.services.events.v1.Events/Subscribe",
        Limit::Stream,
        Names::Nothing,
    ),
    Method::new(
        "/containerd.services.events.v1.Events/Publish",
        Limit::Read,
        Names::Nothing,
    ),
    Method::new(
        "/containerd.services.content.v1.Content/List",
        Limit::Read,
        Names::Nothing,
    ),
    Method::new(
        "/containerd.services.content.v1.Content/ListStatuses",
        Limit::Read,
        Names::Nothing,
    ),
    Method::new(
        "/containerd.services.content.v1.Content/Read",
        Limit::Read,
        Names::Nothing,
    ),
    Method::new(
        "/containerd.services.version.v1.Version/Version",
        Limit::Read,
        Names::Nothing,
    ),
];

/// A method that is not in the table, which the tests below rule out.
const UNKNOWN: Method = Method::new("", Limit::Change, Names::Nothing);

/// The entry of the method that is called at `path`.
pub(super) fn method(path: &str) -> Method {
    let mut known = METHODS.iter().copied();
    known.find(|method| method.path == path).unwrap_or(UNKNOWN)
}

/// How long one runtime is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CallLimits {
    request_timeout: Duration,
}

impl Default for CallLimits {
    fn default() -> CallLimits {
        CallLimits::new(Duration::from_secs(DEFAULT_REQUEST_TIMEOUT_SECONDS))
    }
}

impl CallLimits {
    /// The limits where a request is waited for as long as this.
    pub(crate) fn new(request_timeout: Duration) -> CallLimits {
        CallLimits { request_timeout }
    }

    /// How long a call is waited for; `None` for one that goes on. `grace` is that of a stop; `for_client` says that
    /// an HTTP client waits for the answer.
    pub(super) fn of(self, limit: Limit, grace: Duration, for_client: bool) -> Option<Duration> {
        Some(match limit {
            Limit::Read if for_client => self.request_timeout.min(LONGEST_FOR_CLIENTS),
            Limit::Read => self.request_timeout.min(LONGEST_READ),
            Limit::Change => self.request_timeout,
            Limit::Sandbox => self.request_timeout.saturating_mul(2),
            Limit::Stop => self.request_timeout.saturating_add(grace),
            Limit::Never | Limit::Pull | Limit::Stream => return None,
        })
    }

    /// When a call without a limit is reported as one that takes long.
    pub(super) fn takes_long(self) -> Duration {
        self.request_timeout.min(LONGEST_UNREPORTED)
    }

    /// How long an event stream may take to begin.
    pub(super) fn stream_begins(self) -> Duration {
        self.request_timeout.min(LONGEST_READ)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Every method of the two CRI services that this program can call.
    fn cri_methods() -> BTreeSet<String> {
        let mut service = "";
        let mut methods = BTreeSet::new();
        for line in include_str!("../../../proto/cri.proto").lines() {
            let words: Vec<&str> = line
                .split([' ', '(', '{'])
                .filter(|word| !word.is_empty())
                .collect();
            match words.as_slice() {
                ["service", name, ..] => service = name,
                ["rpc", name, ..] => drop(methods.insert(format!("/runtime.v1.{service}/{name}"))),
                _ => {}
            }
        }
        methods
    }

    #[test]
    fn every_cri_method_is_in_the_table_and_no_other() {
        let in_table = METHODS.map(|method| method.path.to_owned());
        let of_cri: BTreeSet<String> = in_table
            .into_iter()
            .filter(|path| path.starts_with("/runtime.v1."))
            .collect();
        assert_eq!(of_cri, cri_methods());
        let paths: BTreeSet<&str> = METHODS.iter().map(|method| method.path).collect();
        assert_eq!(paths.len(), METHODS.len(), "each once");
    }

    #[test]
    fn only_what_must_not_be_cut_short_and_streams_have_no_limit() {
        let unlimited: BTreeSet<&str> = METHODS
            .iter()
            .filter(|method| {
                CallLimits::default()
                    .of(method.limit, Duration::ZERO, true)
                    .is_none()
            })
            .filter_map(|method| method.path.rsplit('/').next())
            .collect();
        let expected = [
            "CreateContainer",
            "GetContainerEvents",
            "PullImage",
            "StartContainer",
            "Subscribe",
        ];
        assert_eq!(unlimited, BTreeSet::from(expected));
    }

    #[test]
    fn a_call_is_waited_for_by_its_class() {
        let seconds = Duration::from_secs;
        let table = [
            (120, Limit::Read, 0, false, 30),
            (120, Limit::Read, 0, true, 8),
            (120, Limit::Change, 0, false, 120),
            (120, Limit::Stop, 30, true, 150),
            (120, Limit::Sandbox, 0, false, 240),
            (120, Limit::Stop, 30, false, 150),
            (3, Limit::Read, 0, false, 3),
            (3, Limit::Read, 0, true, 3),
            (3, Limit::Change, 0, false, 3),
            (3, Limit::Stop, 30, false, 33),
        ];
        for (timeout, limit, grace, for_client, expected) in table {
            assert_eq!(
                CallLimits::new(seconds(timeout)).of(limit, seconds(grace), for_client),
                Some(seconds(expected)),
                "{timeout} {limit:?} {grace} {for_client}"
            );
        }
        let longest = CallLimits::new(seconds(u64::MAX)).of(Limit::Stop, seconds(u64::MAX), false);
        assert_eq!(
            longest,
            Some(Duration::MAX).min(longest),
            "a grace of ages does not overflow"
        );
    }
}
