//! How long a container that keeps ending, or a sandbox that keeps dying, waits before the next one is started: the kubelet's
//! rule for containers.

use std::collections::BTreeMap;

use super::observed::{Nanoseconds, ObservedContainer, ObservedSandbox};

const SECOND: Nanoseconds = 1_000_000_000;
/// The first delay (the kubelet's `--container-restart...` base).
const INITIAL: Nanoseconds = 10 * SECOND;
/// The longest delay (the kubelet's `MaxContainerBackOff`).
const LONGEST: Nanoseconds = 300 * SECOND;
/// A delay that was not renewed for this long is forgotten: the container ran well in between.
const FORGOTTEN_AFTER: Nanoseconds = 2 * LONGEST;

#[derive(Clone, Copy, Debug)]
struct Delay {
    nanoseconds: Nanoseconds,
    renewed_at: Nanoseconds,
}

/// The delay of a pod's sandbox.
#[derive(Clone, Debug)]
struct SandboxDelay {
    nanoseconds: Nanoseconds,
    /// The dead sandbox after which it was counted.
    after: String,
}

/// The delays of one pod's containers, by name, and of its sandbox.
#[derive(Clone, Debug, Default)]
pub(crate) struct CrashBackOff {
    delays: BTreeMap<String, Delay>,
    sandbox: Option<SandboxDelay>,
}

impl CrashBackOff {
    /// When `container`, which has ended, may be started again; `None`: at once.
    pub(crate) fn until(&self, container: &ObservedContainer) -> Option<Nanoseconds> {
        let delay = self.delays.get(&container.name)?;
        if container.finished_at - delay.renewed_at > FORGOTTEN_AFTER {
            return None;
        }
        Some(container.finished_at + delay.nanoseconds)
    }

    /// The delay in force for a container, in seconds, for its waiting message.
    pub(crate) fn seconds(&self, name: &str) -> i64 {
        self.delays
            .get(name)
            .map_or(0, |delay| delay.nanoseconds / SECOND)
    }

    /// Notes that `container`, which has ended, is started again at `now`.
    pub(crate) fn restarted(&mut self, container: &ObservedContainer, now: Nanoseconds) {
        let nanoseconds = match self.delays.get(&container.name) {
            Some(delay) if container.finished_at - delay.renewed_at <= FORGOTTEN_AFTER => {
                (delay.nanoseconds * 2).min(LONGEST)
            }
            _ => INITIAL,
        };
        self.delays.insert(
            container.name.clone(),
            Delay {
                nanoseconds,
                renewed_at: now,
            },
        );
    }

    /// When the sandbox that follows `dead` may be made; `None`: at once. CRI does not tell when a sandbox died, so the
    /// delay is counted from its creation: one that lived for longer than the delay is followed at once. The delay that was
    /// counted when `dead` was followed is for the sandbox after the next one: while that is made, nothing holds it back.
    pub(crate) fn sandbox_until(&self, dead: &ObservedSandbox) -> Option<Nanoseconds> {
        let delay = self.sandbox.as_ref().filter(|delay| delay.after != dead.id)?;
        Some(dead.created_at + delay.nanoseconds)
    }

    /// The delay in force for the sandbox, in seconds, for messages.
    pub(crate) fn sandbox_seconds(&self) -> i64 {
        self.sandbox
            .as_ref()
            .map_or(0, |delay| delay.nanoseconds / SECOND)
    }

    /// Notes that a sandbox is made at `now` that follows `dead`. What is tried again after the same one counts once.
    pub(crate) fn sandbox_made(&mut self, dead: &ObservedSandbox, now: Nanoseconds) {
        let nanoseconds = match &self.sandbox {
            Some(delay) if delay.after == dead.id => return,
            Some(delay) if now - dead.created_at <= FORGOTTEN_AFTER => (delay.nanoseconds * 2).min(LONGEST),
            _ => INITIAL,
        };
        self.sandbox = Some(SandboxDelay {
            nanoseconds,
            after: dead.id.clone(),
        });
    }

    /// Makes up the delay of a container that was restarted before this process began, from its attempt,
    /// so that an agent that is restarted does not hammer a crashing container.
    pub(crate) fn adopt(&mut self, container: &ObservedContainer) {
        if container.attempt == 0 || self.delays.contains_key(&container.name) {
            return;
        }
        self.delays.insert(
            container.name.clone(),
            Delay {
                nanoseconds: of_attempt(container.attempt),
                renewed_at: container.created_at,
            },
        );
    }

    /// When a kubelet that runs `container`, which has ended, starts it again; `None`: at once. It looks every few
    /// seconds only, and may have forgotten a delay that is counted here.
    pub(crate) fn of_a_kubelet(container: &ObservedContainer) -> Option<Nanoseconds> {
        let ran_well = container.finished_at - container.started_at > FORGOTTEN_AFTER;
        if container.attempt == 0 || ran_well {
            return None;
        }
        Some(container.finished_at + of_attempt(container.attempt))
    }
}

/// The delay after the end of this attempt, which is not the first.
fn of_attempt(attempt: u32) -> Nanoseconds {
    let doublings = attempt.saturating_sub(1).min(5);
    (INITIAL << doublings).min(LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::observed::ContainerState;

    fn ended(attempt: u32, created_at: Nanoseconds, finished_at: Nanoseconds) -> ObservedContainer {
        ObservedContainer {
            id: "c".to_owned(),
            name: "main".to_owned(),
            attempt,
            sandbox_id: "s".to_owned(),
            ours: true,
            state: ContainerState::Exited,
            created_at,
            started_at: created_at,
            finished_at,
            exit_code: 1,
            reason: "Error".to_owned(),
            message: String::new(),
            image: String::new(),
            image_id: String::new(),
            log_path: String::new(),
        }
    }

    #[test]
    fn the_first_restart_is_immediate_and_later_ones_wait_10_s_doubling_to_5_min() {
        let mut back_off = CrashBackOff::default();
        let mut now = 1_000 * SECOND;
        let mut waits = Vec::new();
        for attempt in 0..8 {
            let container = ended(attempt, now, now + SECOND);
            let until = back_off.until(&container).unwrap_or(container.finished_at);
            waits.push((until - container.finished_at) / SECOND);
            now = until;
            back_off.restarted(&container, now);
        }
        assert_eq!(waits, [0, 10, 20, 40, 80, 160, 300, 300]);
    }

    #[test]
    fn a_container_that_ran_for_over_10_min_starts_over() {
        let mut back_off = CrashBackOff::default();
        back_off.restarted(&ended(0, 0, SECOND), SECOND);
        let later = ended(1, SECOND, SECOND + FORGOTTEN_AFTER + SECOND);
        assert_eq!(back_off.until(&later), None);
    }

    fn dead(attempt: u32, created_at: Nanoseconds) -> ObservedSandbox {
        ObservedSandbox {
            id: format!("s{attempt}"),
            attempt,
            ours: true,
            ready: false,
            created_at,
            ips: Vec::new(),
            runtime_handler: String::new(),
        }
    }

    #[test]
    fn a_sandbox_that_dies_at_once_is_followed_at_once_and_then_after_10_s_doubling_to_5_min() {
        let mut back_off = CrashBackOff::default();
        let mut now = 1_000 * SECOND;
        let mut waits = Vec::new();
        for attempt in 0..8 {
            let dead = dead(attempt, now);
            let until = back_off.sandbox_until(&dead).unwrap_or(now);
            waits.push((until - now) / SECOND);
            now = until;
            // The runtime refuses it, and it is tried again.
            back_off.sandbox_made(&dead, now);
            back_off.sandbox_made(&dead, now + SECOND);
            assert_eq!(
                back_off.sandbox_until(&dead),
                None,
                "while the one after {attempt} is made, nothing holds it back"
            );
        }
        assert_eq!(waits, [0, 10, 20, 40, 80, 160, 300, 300]);
        let lived = dead(8, now);
        now += FORGOTTEN_AFTER + SECOND;
        assert!(back_off.sandbox_until(&lived).is_some_and(|until| until < now));
        back_off.sandbox_made(&lived, now);
        assert_eq!(back_off.sandbox_seconds(), 10, "it starts over");
    }

    #[test]
    fn an_adopted_container_waits_as_its_attempt_says() {
        let mut back_off = CrashBackOff::default();
        let container = ended(3, 100 * SECOND, 101 * SECOND);
        back_off.adopt(&container);
        assert_eq!(back_off.until(&container), Some(141 * SECOND));
    }
    #[test]
    fn a_kubelets_delay_follows_from_the_attempt() {
        for (attempt, ran_for, wait) in [
            (0, SECOND, None),
            (1, SECOND, Some(10)),
            (2, SECOND, Some(20)),
            (9, SECOND, Some(300)),
            (9, FORGOTTEN_AFTER + SECOND, None),
        ] {
            let container = ended(attempt, 0, ran_for);
            let until = CrashBackOff::of_a_kubelet(&container);
            assert_eq!(until.map(|until| (until - ran_for) / SECOND), wait, "{attempt}");
        }
    }
}
