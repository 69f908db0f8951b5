//! `debuglet debug`: runs a debug container in a pod, shows how it comes up, and attaches to it.

mod arguments;

use std::io::IsTerminal;

use k8s_openapi::api::core::v1::{EphemeralContainer, Pod};
use serde_json::{Value, json};

use super::client::{Client, launch_path, pod_path};
use super::client_error::ClientError;
use super::failure::Failure;
use super::follow::Follower;
use super::interrupts::Interrupts;
use super::launch_display::LaunchDisplay;
use super::launch_watch::LaunchWatch;
use super::output::{print_line, tell};
use super::pod_lookup::{
    all_names, container_names, explain_missing, find_pod, full_name, init_container_names,
};
use super::pump::send_stdin;
use super::terminal_session::{History, TerminalSession};
use crate::pod::container_names::it_has;
use crate::pod::copied_mounts::CopyMounts;
use crate::pod::launch::{Launch, Stage};
use crate::pod::profile::{DebugRequest, Profile, debug_container, generated_name, powerless};
pub(super) use arguments::Arguments;

/// The reasons of a container that ended although it never ran.
const NEVER_RAN: [&str; 3] = ["StartError", "Stopped", "PodRemoved"];
/// The reason of a container of which nobody can tell whether it ran, or how it ended.
const NOT_KNOWN: &str = "ContainerStatusUnknown";

/// Runs the container; the exit code is the container's where the command was attached to it.
pub(super) async fn run(client: &Client, arguments: Arguments) -> Result<u8, Failure> {
    arguments.check()?;
    let custom = arguments.custom()?;
    let (namespace, name) = arguments.pod.parse()?;
    // From here on a signal is answered with an orderly end.
    let mut interrupts = Interrupts::catch()?;
    let pod = find_pod(client, namespace, name).await?;
    check_target(&pod, arguments.target.as_deref())?;
    let copy_mounts = copy_mounts(&pod, &arguments)?;
    let attach = arguments.attach.unwrap_or(arguments.stdin);
    let terminal = arguments.tty && std::io::stdin().is_terminal();
    if attach && arguments.tty && !terminal && !arguments.quiet {
        tell("Going on without -t: standard input is not a terminal.");
    }
    let request = DebugRequest {
        name: container_name(&pod, arguments.container.as_deref())?,
        image: arguments.image().to_owned(),
        image_pull_policy: arguments.image_pull_policy.clone(),
        command: arguments.command.clone(),
        arguments_only: arguments.arguments_only,
        environment: arguments.environment()?,
        target: arguments.target.clone(),
        stdin: arguments.stdin,
        stdin_once: attach && arguments.stdin && !terminal,
        tty: arguments.tty && (terminal || !attach),
        profile: arguments.profile,
    };
    let container =
        debug_container(&request, custom.as_ref()).map_err(|error| arguments.custom_failure(&error))?;
    warn(&arguments, &container, &pod);
    let run = DebugRun {
        client,
        namespace,
        pod: name,
        container: &request.name,
        arguments: &arguments,
    };
    run.accept(&pod, &container, copy_mounts.as_ref()).await?;
    let launch = run.wait_for_start(&mut interrupts).await?;
    if !attach {
        print_line(&request.name)?;
        return Ok(0);
    }
    run.tell_where(&launch);
    if terminal {
        run.in_terminal(launch.stage == Stage::Terminated).await
    } else {
        run.follow(&mut interrupts).await
    }
}

/// The target must be one of the pod's containers.
fn check_target(pod: &Pod, target: Option<&str>) -> Result<(), Failure> {
    let Some(target) = target else { return Ok(()) };
    let mut names = container_names(pod);
    names.extend(init_container_names(pod));
    if names.iter().any(|name| name == target) {
        return Ok(());
    }
    Err(Failure::new(format!(
        "{} has no container {target:?} to target; {}",
        full_name(pod),
        it_has(&names)
    )))
}

/// Whose mounts are to be copied: the target's, or the only container's.
fn copy_mounts(pod: &Pod, arguments: &Arguments) -> Result<Option<CopyMounts>, Failure> {
    let Some(include) = arguments.include() else {
        return Ok(None);
    };
    let names = container_names(pod);
    let from = match (&arguments.target, names.as_slice()) {
        (Some(target), _) => target.clone(),
        (None, [only]) => only.clone(),
        (None, []) => {
            let message = format!("{} has no container whose mounts could be copied", full_name(pod));
            return Err(Failure::new(message));
        }
        (None, several) => {
            let message = format!(
                "{} has several containers, and --copy-mounts is told none; {}",
                full_name(pod),
                it_has(several)
            );
            return Err(
                Failure::new(message).hint("Name the one whose mounts are to be copied with --target.")
            );
        }
    };
    Ok(Some(CopyMounts { from, include }))
}

/// The container's name: the one asked for, or one that the pod does not have yet.
fn container_name(pod: &Pod, asked: Option<&str>) -> Result<String, Failure> {
    let names = all_names(pod);
    let Some(asked) = asked else {
        loop {
            let name = generated_name(rand::random());
            if !names.contains(&name) {
                return Ok(name);
            }
        }
    };
    if names.iter().any(|name| name == asked) {
        return Err(
            Failure::new(format!("{} has a container {asked:?} already", full_name(pod)))
                .hint("A debug container runs once: choose another name, or leave -c out."),
        );
    }
    Ok(asked.to_owned())
}

/// The patch that adds the container behind those that the pod has.
fn addition(pod: &Pod, container: &EphemeralContainer) -> Value {
    let spec = pod.spec.as_ref();
    let there = spec.and_then(|spec| spec.ephemeral_containers.as_deref());
    let all = there.unwrap_or_default().iter().chain([container]);
    let order: Vec<Value> = all.map(|container| json!({"name": container.name})).collect();
    json!({"spec": {"ephemeralContainers": [container], "$setElementOrder/ephemeralContainers": order}})
}

/// Says what may surprise about the container.
fn warn(arguments: &Arguments, container: &EphemeralContainer, pod: &Pod) {
    if arguments.profile == Profile::Legacy {
        tell("The profile legacy is deprecated, here as in kubectl: general is what to use instead.");
    }
    if let Some(spec) = &pod.spec
        && powerless(container, spec)
    {
        tell(
            "The pod runs as another user than root, so what the profile allows may not work; a --custom file with \
             securityContext.runAsUser: 0 changes that.",
        );
    }
}

/// A debug container on its way.
struct DebugRun<'a> {
    client: &'a Client,
    namespace: &'a str,
    pod: &'a str,
    container: &'a str,
    arguments: &'a Arguments,
}

impl DebugRun<'_> {
    /// Has the agent accept the container, durably.
    async fn accept(
        &self,
        pod: &Pod,
        container: &EphemeralContainer,
        copy_mounts: Option<&CopyMounts>,
    ) -> Result<(), Failure> {
        let accepted = match copy_mounts {
            None => self.add(pod, container).await,
            Some(copy_mounts) => self.request_launch(container, copy_mounts).await,
        };
        match accepted {
            Ok(warnings) => {
                for warning in warnings.iter().filter(|_| !self.arguments.quiet) {
                    tell(warning);
                }
                Ok(())
            }
            Err(error) => Err(explain_missing(self.client, self.namespace, self.pod, error).await),
        }
    }

    /// As kubectl does; answers what the agent warns of.
    async fn add(&self, pod: &Pod, container: &EphemeralContainer) -> Result<Vec<String>, ClientError> {
        let patch = addition(pod, container);
        let path = pod_path(self.namespace, self.pod, "ephemeralcontainers");
        let (_, warnings) = self.client.patch::<Value>(&path, &patch).await?;
        Ok(warnings)
    }

    /// With what Kubernetes has no form for.
    async fn request_launch(
        &self,
        container: &EphemeralContainer,
        copy_mounts: &CopyMounts,
    ) -> Result<Vec<String>, ClientError> {
        let request = json!({
            "apiVersion": "debuglet.io/v1alpha1",
            "kind": "LaunchRequest",
            "container": container,
            "copyMounts": copy_mounts,
        });
        let path = launch_path(self.namespace, self.pod, self.container, "");
        self.client.create::<Launch>(&path, &request).await?;
        Ok(Vec::new())
    }

    /// Shows the launch until the process runs or has run. What cannot start, and what is interrupted before it
    /// has, is stopped.
    async fn wait_for_start(&self, interrupts: &mut Interrupts) -> Result<Launch, Failure> {
        let mut watch = LaunchWatch::new(self.client, self.namespace, self.pod, self.container);
        let mut display = LaunchDisplay::new(
            self.arguments.image(),
            self.arguments.target.as_deref(),
            self.arguments.quiet,
        );
        loop {
            let launch = tokio::select! {
                launch = watch.next() => launch,
                exit_code = interrupts.next() => {
                    display.clear();
                    return Err(self.interrupted(exit_code).await);
                }
            };
            let launch = launch.map_err(|failure| {
                let hint = format!(
                    "{} is accepted and starts when the agent is back; to prevent that: {}",
                    self.container,
                    self.stop_command()
                );
                failure.hint(hint)
            })?;
            display.show(&launch);
            match launch.stage {
                Stage::Running => return Ok(launch),
                Stage::Terminated => {
                    display.clear();
                    return self.ended_already(launch);
                }
                _ if launch.permanent => {
                    display.clear();
                    return Err(self.cannot_start(&launch).await);
                }
                _ => {}
            }
        }
    }

    /// A container that has ended before it was seen to run: it may have run all the same.
    fn ended_already(&self, launch: Launch) -> Result<Launch, Failure> {
        let mut failure = match launch.reason.as_str() {
            NOT_KNOWN => Failure::new(format!(
                "it is not known whether {} in {}/{} ran: {}",
                self.container,
                self.namespace,
                self.pod,
                why(&launch)
            ))
            .hint(format!(
                "It is not started again. What it wrote, if anything: debuglet logs {} -n {} -c {}",
                self.pod, self.namespace, self.container
            )),
            reason if reason.is_empty() || NEVER_RAN.contains(&reason) => Failure::new(self.refusal(&launch)),
            _ => return Ok(launch),
        };
        if self.arguments.attach.unwrap_or(self.arguments.stdin) {
            failure.exit_code = exit_code(&launch).max(1);
        }
        Err(failure)
    }

    /// `cannot start NAME in NS/POD: WHY (REASON)`.
    fn refusal(&self, launch: &Launch) -> String {
        format!(
            "cannot start {} in {}/{}: {}",
            self.container,
            self.namespace,
            self.pod,
            why(launch)
        )
    }

    /// The failure of a container that waiting cannot help.
    async fn cannot_start(&self, launch: &Launch) -> Failure {
        let failure = Failure::new(self.refusal(launch));
        if self.arguments.keep {
            return failure.hint(format!("It goes on trying; to end that: {}", self.stop_command()));
        }
        failure.hint(self.stop_for_good("it would go on trying").await)
    }

    /// The failure of a command that is told to end before the container has started.
    async fn interrupted(&self, exit_code: u8) -> Failure {
        let mut failure = Failure::new(format!(
            "interrupted before {} started in {}/{}",
            self.container, self.namespace, self.pod
        ));
        failure.exit_code = exit_code;
        if self.arguments.keep {
            return failure.hint(format!(
                "It starts when it can; to end that: {}",
                self.stop_command()
            ));
        }
        failure.hint(self.stop_for_good("it would").await)
    }

    /// Stops it, and says what came of that; `otherwise` says what it would do with `--keep`.
    async fn stop_for_good(&self, otherwise: &str) -> String {
        match self.stop().await {
            Ok(warnings) if warnings.is_empty() => {
                format!("It has been stopped and will not start later; with --keep {otherwise}.")
            }
            Ok(warnings) => format!("It has been stopped: {}", warnings.join("; ")),
            Err(trouble) => format!("It could not be stopped: {}", trouble.message),
        }
    }

    /// Stops it; answers what the agent warns of.
    async fn stop(&self) -> Result<Vec<String>, Failure> {
        let path = launch_path(self.namespace, self.pod, self.container, "stop");
        let (_, warnings) = self.client.post::<Launch>(&path).await?;
        Ok(warnings)
    }

    fn stop_command(&self) -> String {
        format!(
            "debuglet stop {} -n {} -c {}",
            self.pod, self.namespace, self.container
        )
    }

    /// Says what is being debugged, and where the target's files are.
    fn tell_where(&self, launch: &Launch) {
        if self.arguments.quiet || launch.stage != Stage::Running {
            return;
        }
        let (namespace, pod, container) = (self.namespace, self.pod, self.container);
        tell(&match (&self.arguments.target, &launch.files_at) {
            (Some(target), Some(files)) => {
                format!(
                    "Debugging {target} in {namespace}/{pod} as {container}. Its files are under {files}."
                )
            }
            (Some(target), None) => format!("Debugging {target} in {namespace}/{pod} as {container}."),
            (None, _) => format!("Debugging {namespace}/{pod} as {container}."),
        });
    }

    /// Shows the container's terminal in this one until the container has ended.
    async fn in_terminal(&self, ended: bool) -> Result<u8, Failure> {
        let mut session = TerminalSession::new(
            self.client,
            self.namespace,
            self.pod,
            self.container,
            History::All,
        );
        if !ended {
            session.run(self.arguments.stdin).await?;
        }
        let launch = self.end().await?;
        session.print_rest().await?;
        self.tell_end(&launch);
        Ok(exit_code(&launch))
    }

    /// Prints the container's log until it has ended, and sends it our standard input where it is to have it.
    async fn follow(&self, interrupts: &mut Interrupts) -> Result<u8, Failure> {
        let mut follower = Follower::new(self.client, self.namespace, self.pod, self.container);
        let following = async {
            follower.copy().await?;
            let launch = self.end().await?;
            follower.copy_rest().await?;
            Ok::<_, Failure>(launch)
        };
        let sending = async {
            if self.arguments.stdin {
                send_stdin(
                    self.client,
                    self.namespace,
                    self.pod,
                    self.container,
                    self.arguments.quiet,
                )
                .await;
            }
            // The container's end is what ends the command.
            std::future::pending::<()>().await;
        };
        tokio::select! {
            launch = following => {
                let launch = launch?;
                self.tell_end(&launch);
                Ok(exit_code(&launch))
            }
            () = sending => Ok(0),
            exit_code = interrupts.next() => {
                if !self.arguments.quiet {
                    tell(&format!("{} goes on; to end it: {}", self.container, self.stop_command()));
                }
                Ok(exit_code)
            }
        }
    }

    /// Says how the container ended where its exit code does not.
    fn tell_end(&self, launch: &Launch) {
        let words = end_words(launch);
        if !self.arguments.quiet && !words.is_empty() {
            tell(&format!("{} ended: {words}", self.container));
        }
    }

    /// Waits for the container's end.
    async fn end(&self) -> Result<Launch, Failure> {
        let mut watch = LaunchWatch::new(self.client, self.namespace, self.pod, self.container);
        loop {
            let launch = watch.next().await?;
            if launch.stage == Stage::Terminated {
                return Ok(launch);
            }
        }
    }
}

/// Why a container ended before it was seen to run: `MESSAGE (REASON)`.
fn why(launch: &Launch) -> String {
    let message = launch.message.trim().trim_end_matches('.');
    match (message, launch.reason.as_str()) {
        ("", "") => "it ended before it started".to_owned(),
        ("", reason) => reason.to_owned(),
        (message, "") => message.to_owned(),
        (message, reason) => format!("{message} ({reason})"),
    }
}

/// Why a container ended where it was not its own doing: its target took it along, it was out of memory.
fn end_words(launch: &Launch) -> String {
    let message = launch.message.trim();
    match launch.reason.as_str() {
        "" | "Completed" => String::new(),
        "Error" => message.to_owned(),
        reason if message.is_empty() => reason.to_owned(),
        reason => format!("{} ({reason})", message.trim_end_matches('.')),
    }
}

/// The exit code of a container that has ended, as a process can have it.
fn exit_code(launch: &Launch) -> u8 {
    match launch.exit_code {
        Some(code) => u8::try_from(code & 0xff).unwrap_or(1),
        None => 1,
    }
}

#[cfg(test)]
#[path = "debug/tests.rs"]
mod tests;
