//! The sandbox, the init containers and the ordinary containers of a pod that is to run: as a kubelet plans.

use k8s_openapi::api::core::v1::{Container, Pod};

use super::{Action, Plan, SANDBOX, Situation};
use crate::pod::observed::{ContainerState, Nanoseconds, ObservedContainer, ObservedSandbox};
use crate::pod::record::Phase;

/// Whether the container, which has ended, is started again by the pod's `restartPolicy`. Init containers are
/// tried again unless the policy is `Never`; one that succeeded is done.
pub(super) fn restarts(pod: &Pod, container: &ObservedContainer) -> bool {
    let spec = pod.spec.as_ref();
    let policy = spec
        .and_then(|spec| spec.restart_policy.as_deref())
        .unwrap_or("Always");
    let is_init = init_containers(pod).any(|init| init.name == container.name);
    match policy {
        "Never" => false,
        "OnFailure" => container.exit_code != 0,
        _ => !is_init || container.exit_code != 0,
    }
}

/// Whether every ordinary container has ended for good, or an init container has failed for good.
pub(super) fn finished(situation: &Situation<'_>) -> bool {
    let ended_for_good = |container: &ObservedContainer| {
        container.state == ContainerState::Exited && !restarts(situation.pod, container)
    };
    let failed_init = init_containers(situation.pod).any(|init| {
        situation
            .observed
            .newest(&init.name)
            .is_some_and(|found| ended_for_good(found) && found.exit_code != 0)
    });
    let mut containers = containers(situation.pod).peekable();
    failed_init
        || (containers.peek().is_some()
            && containers.all(|container| {
                situation
                    .observed
                    .newest(&container.name)
                    .is_some_and(ended_for_good)
            }))
}

pub(super) fn plan(situation: &Situation<'_>, plan: &mut Plan) {
    match situation.observed.ready_sandbox() {
        None => without_sandbox(situation, plan),
        Some(sandbox) => {
            remove_dead_sandboxes(situation, sandbox, plan);
            if finished(situation) {
                stop_when_nobody_debugs(situation, sandbox, plan);
            } else if init_is_done(situation, sandbox, plan) {
                for container in containers(situation.pod) {
                    plan_container(situation, sandbox, &container.name, plan);
                }
            } else {
                for container in containers(situation.pod) {
                    plan.wait(&container.name, "PodInitializing", "");
                }
            }
        }
    }
}

fn without_sandbox(situation: &Situation<'_>, plan: &mut Plan) {
    if finished(situation) {
        return;
    }
    let waiting = if init_containers(situation.pod).next().is_some() {
        "PodInitializing"
    } else {
        "ContainerCreating"
    };
    let newest_dead = newest_dead_sandbox(situation);
    if let Some(newest) = newest_dead {
        remove_dead_sandboxes(situation, newest, plan);
    }
    let paced = sandbox_is_paced(situation);
    let why = match (situation.forbidden, &paced) {
        (Some(why), _) => why,
        (None, Some((_, why))) => why,
        (None, None) => "",
    };
    for container in containers(situation.pod).chain(init_containers(situation.pod)) {
        plan.wait(&container.name, waiting, why);
    }
    if situation.forbidden.is_some() || situation.busy.contains(SANDBOX) || plan.held(situation, SANDBOX) {
        return;
    }
    if let Some((until, _)) = paced {
        plan.wake_by(until);
        // Meanwhile nothing of the pod runs on without it, as with a kubelet.
        let runs_on = |dead: &&ObservedSandbox| {
            let mut containers = situation.observed.containers.iter();
            containers.any(|one| one.sandbox_id == dead.id && one.state == ContainerState::Running)
        };
        if let Some(dead) = newest_dead.filter(runs_on) {
            plan.actions.push(Action::StopSandbox { id: dead.id.clone() });
        }
        return;
    }
    // A sandbox that died may leave processes behind, and its name and addresses: end it first.
    let died = situation
        .observed
        .sandboxes
        .iter()
        .max_by_key(|sandbox| sandbox.attempt);
    let attempt = died.map_or(0, |sandbox| sandbox.attempt + 1);
    plan.actions.push(Action::RunSandbox {
        attempt,
        after: newest_dead.cloned().map(Box::new),
    });
}

/// The newest sandbox of ours where none is ready.
fn newest_dead_sandbox<'a>(situation: &Situation<'a>) -> Option<&'a ObservedSandbox> {
    let sandboxes = situation.observed.sandboxes.iter();
    let dead = sandboxes.filter(|sandbox| sandbox.ours && !sandbox.ready);
    dead.max_by_key(|sandbox| sandbox.attempt)
}

/// When a pod whose sandbox keeps dying gets the next one, and why not now; `None` if nothing holds it back.
pub(super) fn sandbox_is_paced(situation: &Situation<'_>) -> Option<(Nanoseconds, String)> {
    let until = situation.crashes.sandbox_until(newest_dead_sandbox(situation)?)?;
    // A clock that was set back must not hold it for long.
    let holds = until > situation.now && until - situation.now <= super::LONGEST_HOLD;
    holds.then(|| {
        let seconds = situation.crashes.sandbox_seconds();
        let message = format!("back-off {seconds}s making the pod's sandbox again, which keeps dying");
        (until, message)
    })
}

/// Kubernetes stops a pod that has finished; here the sandbox stays while a debug container runs in it.
fn stop_when_nobody_debugs(situation: &Situation<'_>, sandbox: &ObservedSandbox, plan: &mut Plan) {
    let debugged = situation.records.iter().any(|record| {
        !matches!(record.phase, Phase::Ended { .. }) || situation.busy.contains(&record.spec.name)
    });
    if !debugged
        && sandbox.ours
        && !situation.busy.contains(SANDBOX)
        && !plan.held_at_the_end(situation, SANDBOX)
    {
        plan.actions.push(Action::StopSandbox {
            id: sandbox.id.clone(),
        });
    }
}

/// Removes the sandboxes of ours that are empty, but for the one that is ready or died last: `newest`.
fn remove_dead_sandboxes(situation: &Situation<'_>, newest: &ObservedSandbox, plan: &mut Plan) {
    if situation.busy.contains(SANDBOX) {
        return;
    }
    for sandbox in &situation.observed.sandboxes {
        let empty = !situation
            .observed
            .containers
            .iter()
            .any(|container| container.sandbox_id == sandbox.id);
        if sandbox.ours
            && sandbox.id != newest.id
            && empty
            && !situation.busy.contains(&sandbox.id)
            && !plan.held(situation, &sandbox.id)
        {
            plan.actions.push(Action::RemoveDeadSandbox {
                id: sandbox.id.clone(),
            });
        }
    }
}

/// Runs the init containers one after the other; true once all have succeeded in this sandbox.
fn init_is_done(situation: &Situation<'_>, sandbox: &ObservedSandbox, plan: &mut Plan) -> bool {
    let here = |name: &str| {
        situation
            .observed
            .newest(name)
            .filter(|container| container.sandbox_id == sandbox.id)
    };
    // Once an ordinary container was made, the init containers had succeeded, even if they were cleaned up.
    if containers(situation.pod).any(|container| here(&container.name).is_some()) {
        return true;
    }
    let mut done = true;
    for init in init_containers(situation.pod) {
        if !done {
            plan.wait(&init.name, "PodInitializing", "");
            continue;
        }
        let succeeded = here(&init.name)
            .is_some_and(|found| found.state == ContainerState::Exited && found.exit_code == 0);
        if !succeeded {
            plan_container(situation, sandbox, &init.name, plan);
            done = false;
        }
    }
    done
}

fn plan_container(situation: &Situation<'_>, sandbox: &ObservedSandbox, name: &str, plan: &mut Plan) {
    let newest = situation.observed.newest(name);
    let running =
        newest.is_some_and(|found| found.state == ContainerState::Running && found.sandbox_id == sandbox.id);
    if running {
        return;
    }
    if newest.is_none_or(|found| found.state != ContainerState::Exited || found.sandbox_id != sandbox.id) {
        plan.wait(name, "ContainerCreating", "");
    }
    if newest.is_some_and(|found| !found.ours) {
        let message = "a container of this name exists already, and debuglet did not make it";
        plan.wait(name, "CreateContainerError", message);
        return;
    }
    if situation.busy.contains(name) {
        return;
    }
    let Some(found) = newest else {
        launch(situation, name, 0, None, plan);
        return;
    };
    match found.state {
        // Made and never started, or made in a sandbox that died: another attempt takes its place.
        ContainerState::Created => {
            if plan.held(situation, name) {
                return;
            }
            plan.actions.push(Action::Remove {
                name: name.to_owned(),
                id: found.id.clone(),
            });
        }
        ContainerState::Running | ContainerState::Unknown => {
            if plan.held(situation, name) {
                return;
            }
            let grace_seconds = super::removal::grace(situation.pod);
            plan.actions.push(Action::Stop {
                name: name.to_owned(),
                id: found.id.clone(),
                grace_seconds,
            });
        }
        ContainerState::Exited if found.sandbox_id != sandbox.id => {
            launch(situation, name, found.attempt + 1, None, plan);
        }
        ContainerState::Exited if restarts(situation.pod, found) => restart(situation, found, plan),
        ContainerState::Exited => {}
    }
}

fn restart(situation: &Situation<'_>, found: &ObservedContainer, plan: &mut Plan) {
    if let Some(until) = situation
        .crashes
        .until(found)
        .filter(|until| *until > situation.now)
    {
        let metadata = &situation.pod.metadata;
        let message = format!(
            "back-off {}s restarting failed container={} pod={}_{}({})",
            situation.crashes.seconds(&found.name),
            found.name,
            metadata.name.as_deref().unwrap_or_default(),
            metadata.namespace.as_deref().unwrap_or_default(),
            metadata.uid.as_deref().unwrap_or_default(),
        );
        plan.wait(&found.name, "CrashLoopBackOff", message);
        plan.wake_by(until);
        return;
    }
    launch(
        situation,
        &found.name,
        found.attempt + 1,
        Some(Box::new(found.clone())),
        plan,
    );
}

fn launch(
    situation: &Situation<'_>,
    name: &str,
    attempt: u32,
    after: Option<Box<ObservedContainer>>,
    plan: &mut Plan,
) {
    if let Some(why) = situation.forbidden {
        plan.wait(name, "ContainerCreating", why);
        return;
    }
    if !plan.held(situation, name) {
        plan.actions.push(Action::Launch {
            name: name.to_owned(),
            attempt,
            after,
        });
    }
}

fn containers(pod: &Pod) -> impl Iterator<Item = &Container> {
    pod.spec.iter().flat_map(|spec| &spec.containers)
}

fn init_containers(pod: &Pod) -> impl Iterator<Item = &Container> {
    pod.spec
        .iter()
        .flat_map(|spec| spec.init_containers.iter().flatten())
}
