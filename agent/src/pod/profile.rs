//! What `debuglet debug` asks for: kubectl debug's container, its profiles, and a partial container of the user's
//! own on top of them. All of it as kubectl 1.36 does it for ephemeral containers.

mod custom;

use std::str::FromStr;

use k8s_openapi::api::core::v1::{
    Capabilities, EnvVar, EphemeralContainer, PodSpec, SeccompProfile, SecurityContext,
};

pub(crate) use custom::{CustomError, CustomProfile};

/// kubectl debug's profiles: what a debug container may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Profile {
    /// May trace processes; kubectl's default since 1.36 retired `legacy` from that place.
    #[default]
    General,
    /// Nothing that the baseline pod security standard forbids.
    Baseline,
    /// Nothing that the restricted pod security standard forbids: not root, no capabilities.
    Restricted,
    /// May configure the network.
    Netadmin,
    /// Privileged.
    Sysadmin,
    /// As kubectl 1.23 did it: nothing is added. Deprecated.
    Legacy,
}

impl Profile {
    /// The profiles' names, kubectl's default first.
    pub(crate) const NAMES: [&str; 6] = [
        "general",
        "baseline",
        "restricted",
        "netadmin",
        "sysadmin",
        "legacy",
    ];

    /// The security context that the profile gives a debug container.
    fn security_context(self) -> Option<SecurityContext> {
        let adding = |names: &[&str]| {
            Some(SecurityContext {
                capabilities: Some(Capabilities {
                    add: Some(names.iter().map(|name| (*name).to_owned()).collect()),
                    drop: None,
                }),
                ..SecurityContext::default()
            })
        };
        match self {
            Profile::Legacy | Profile::Baseline => None,
            Profile::General => adding(&["SYS_PTRACE"]),
            Profile::Netadmin => adding(&["NET_ADMIN", "NET_RAW"]),
            Profile::Sysadmin => Some(SecurityContext {
                privileged: Some(true),
                ..SecurityContext::default()
            }),
            Profile::Restricted => Some(SecurityContext {
                allow_privilege_escalation: Some(false),
                capabilities: Some(Capabilities {
                    add: None,
                    drop: Some(vec!["ALL".into()]),
                }),
                run_as_non_root: Some(true),
                seccomp_profile: Some(SeccompProfile {
                    type_: "RuntimeDefault".into(),
                    localhost_profile: None,
                }),
                ..SecurityContext::default()
            }),
        }
    }
}

impl FromStr for Profile {
    type Err = String;

    fn from_str(name: &str) -> Result<Profile, String> {
        Ok(match name {
            "general" => Profile::General,
            "baseline" => Profile::Baseline,
            "restricted" => Profile::Restricted,
            "netadmin" => Profile::Netadmin,
            "sysadmin" => Profile::Sysadmin,
            "legacy" => Profile::Legacy,
            _ => {
                return Err(format!(
                    "unknown profile {name:?}; there are: {}",
                    Profile::NAMES.join(", ")
                ));
            }
        })
    }
}

/// What the user asked of the debug container.
#[derive(Clone, Debug, Default)]
pub(crate) struct DebugRequest {
    /// The container's name: see [`generated_name`].
    pub(crate) name: String,
    /// The image.
    pub(crate) image: String,
    /// `Always`, `IfNotPresent` or `Never`; none: chosen by the image's tag, by the agent.
    pub(crate) image_pull_policy: Option<String>,
    /// The command; empty: the image's own.
    pub(crate) command: Vec<String>,
    /// Whether `command` is the arguments of the image's own command.
    pub(crate) arguments_only: bool,
    /// Environment variables, in the order of the command line.
    pub(crate) environment: Vec<(String, String)>,
    /// The container whose processes are to be seen.
    pub(crate) target: Option<String>,
    /// Whether the container gets a stdin.
    pub(crate) stdin: bool,
    /// Whether its stdin ends with the first client's: a pipe, not a terminal.
    pub(crate) stdin_once: bool,
    /// Whether it gets a terminal.
    pub(crate) tty: bool,
    /// What it may do.
    pub(crate) profile: Profile,
}

/// The debug container's spec, as kubectl debug would write it.
pub(crate) fn debug_container(
    request: &DebugRequest,
    custom: Option<&CustomProfile>,
) -> Result<EphemeralContainer, CustomError> {
    let command = (!request.command.is_empty()).then(|| request.command.clone());
    let (command, args) = match request.arguments_only {
        true => (None, command),
        false => (command, None),
    };
    let environment: Vec<EnvVar> = request
        .environment
        .iter()
        .map(|(name, value)| EnvVar {
            name: name.clone(),
            value: Some(value.clone()),
            value_from: None,
        })
        .collect();
    let set = |flag: bool| flag.then_some(true);
    let container = EphemeralContainer {
        name: request.name.clone(),
        image: Some(request.image.clone()),
        image_pull_policy: request.image_pull_policy.clone(),
        command,
        args,
        env: (!environment.is_empty()).then_some(environment),
        security_context: request.profile.security_context(),
        stdin: set(request.stdin),
        stdin_once: set(request.stdin_once),
        target_container_name: request.target.clone(),
        termination_message_policy: Some("File".into()),
        tty: set(request.tty),
        ..EphemeralContainer::default()
    };
    match custom {
        Some(custom) => custom.merge_onto(&container),
        None => Ok(container),
    }
}

/// `debugger-xxxxx`, kubectl's form, with five characters drawn from `random`.
pub(crate) fn generated_name(random: [u8; 5]) -> String {
    super::generated_name::with_suffix("debugger-", random)
}

/// What may surprise about the container in this pod; empty if nothing: capabilities mean little to a process that
/// the pod runs under another user than root.
pub(crate) fn powerless(container: &EphemeralContainer, pod: &PodSpec) -> bool {
    let pod_user = pod
        .security_context
        .as_ref()
        .and_then(|context| context.run_as_user);
    if pod_user.unwrap_or(0) == 0 {
        return false;
    }
    let Some(context) = &container.security_context else {
        return false;
    };
    let adds = context
        .capabilities
        .as_ref()
        .and_then(|capabilities| capabilities.add.as_ref());
    let asks = context.privileged == Some(true) || adds.is_some_and(|names| !names.is_empty());
    asks && context.run_as_user != Some(0)
}

#[cfg(test)]
#[path = "profile/tests.rs"]
mod tests;
