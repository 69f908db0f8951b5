//! Whether a kubelet is on this node, and whether it is surely down, so that somebody else may do what it was asked for. A
//! kubelet cannot be bound to a lock, so all that there is to go by are its signs of life: its process, its health port,
//! its Lease. What each of them counts for is decided here and nowhere else.

use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;

/// What one look showed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Signs {
    /// A process named kubelet.
    pub(crate) process: Process,
    /// The health port.
    pub(crate) port: HealthPort,
    /// The node's Lease.
    pub(crate) lease: Lease,
}

/// Whether there is a process named kubelet that can be this node's kubelet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Process {
    /// There is none.
    #[default]
    Absent,
    /// There is one.
    Seen,
    /// There may be one: /proc is mounted so that it hides such a process from us (`hidepid`, proc(5)).
    Hidden,
}

/// Who answers `/healthz` on the kubelet's health port. The port is on loopback, where any local user and any container on
/// the host's network can listen while no kubelet does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum HealthPort {
    /// Nobody answers as a kubelet does.
    #[default]
    Silent,
    /// A socket that root has made: a kubelet's, or that of root in a container on the host's network.
    OfRoot,
    /// A socket that this user has made, or of which nobody can tell whose it is: no kubelet's.
    OfOther(Option<u32>),
}

/// What the API server says of the node's Lease (namespace `kube-node-lease`), which a kubelet renews every 10 s.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Lease {
    /// Nothing: it was not asked, does not answer, or does not let debuglet's own credential read Leases.
    #[default]
    Silent,
    /// It answers, and there is none of this node's name that a node's credential may read. The kubelet may have another
    /// name, so nothing is known of it.
    Unknown,
    /// There is one, renewed at this time (`spec.renewTime`).
    Renewed(Timestamp),
}

/// What a look comes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Judgement {
    /// How the kubelet stands.
    pub(crate) life: Life,
    /// Whether a kubelet is certainly on this node, so that no pods of our own are started.
    pub(crate) here: bool,
    /// Whether the Lease is being renewed.
    pub(crate) renewed: bool,
    /// Whether the API server has said anything of the Lease since the start.
    pub(crate) lease_told: bool,
}

/// How the kubelet stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Life {
    /// It showed a sign of life at the last look, or was not looked for yet.
    #[default]
    Alive,
    /// It shows none, and has not been away for long enough to be sure.
    Quiet,
    /// It has shown none for as long as the configuration asks for.
    Down,
}

/// What was seen of the kubelet so far.
#[derive(Debug)]
pub(crate) struct KubeletLife {
    down_after: Duration,
    /// Since when every look has shown no sign of life.
    quiet_since: Option<Instant>,
    /// When the last sign of life was seen.
    last_sign: Option<Instant>,
    /// What the API server said of the Lease when it last said anything.
    lease: Lease,
}

impl KubeletLife {
    /// Nothing was seen yet; the kubelet is down once it has shown no sign of life for `down_after`.
    pub(crate) fn new(down_after: Duration) -> KubeletLife {
        KubeletLife {
            down_after,
            quiet_since: None,
            last_sign: None,
            lease: Lease::Silent,
        }
    }

    /// Takes in what was seen `at` this moment, when the clock said `now`. Looks may come out of order: one that saw
    /// nothing never takes back one that saw a sign of life later.
    ///
    /// The Lease tells in two ways. That it changes between two looks is a sign of life, whatever its clock says; and
    /// while it was renewed less than `down_after` ago by the clock, which is the kubelet's too, nobody is down.
    ///
    /// To be down is to be so for sure: where a process may be hidden, or the Lease is not known, nobody is down. The health
    /// port never counts alone, even where it is root's: root of a container on the host's network can open it, and would
    /// stop all pods of ours and hold up every take over for as long as it likes. But where the API server has never said
    /// anything of the Lease, nobody knows that the port is alone: a kubelet may be in a process of another name (k3s).
    pub(crate) fn see(&mut self, signs: &Signs, at: Instant, now: Timestamp) -> Judgement {
        let changed = matches!(
            (signs.lease, self.lease),
            (Lease::Renewed(new), Lease::Renewed(old)) if new != old
        );
        if signs.lease != Lease::Silent {
            self.lease = signs.lease;
        }
        let renewed = changed || self.lease_is_fresh(now);
        let answers = signs.port == HealthPort::OfRoot && renewed;
        let here = signs.process == Process::Seen || answers;
        Judgement {
            life: self.life(signs, here || changed, at, now),
            here,
            renewed,
            lease_told: self.lease != Lease::Silent,
        }
    }

    fn life(&mut self, signs: &Signs, alive: bool, at: Instant, now: Timestamp) -> Life {
        if alive {
            self.last_sign = self.last_sign.max(Some(at));
            self.quiet_since = None;
            return Life::Alive;
        }
        let earliest = self.last_sign.map_or(at, |sign| sign.max(at));
        let quiet_since = *self.quiet_since.get_or_insert(earliest);
        let long_quiet = at.saturating_duration_since(quiet_since) >= self.down_after;
        let may_be_of_another_name = signs.port == HealthPort::OfRoot && self.lease == Lease::Silent;
        let unknown =
            signs.process == Process::Hidden || self.lease == Lease::Unknown || may_be_of_another_name;
        if long_quiet && !unknown && !self.lease_is_fresh(now) {
            Life::Down
        } else {
            Life::Quiet
        }
    }

    /// A Lease of the future is that of a clock that was set back: it says nothing.
    fn lease_is_fresh(&self, now: Timestamp) -> bool {
        let Lease::Renewed(renewed) = self.lease else {
            return false;
        };
        Duration::try_from(now.duration_since(renewed)).is_ok_and(|age| age < self.down_after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOWN_AFTER: u64 = 40;
    const NOTHING: Signs = Signs {
        process: Process::Absent,
        port: HealthPort::Silent,
        lease: Lease::Silent,
    };
    const HERE: Signs = Signs {
        process: Process::Seen,
        ..NOTHING
    };
    const HIDDEN: Signs = Signs {
        process: Process::Hidden,
        ..NOTHING
    };
    const NO_LEASE: Signs = Signs {
        lease: Lease::Unknown,
        ..NOTHING
    };

    fn lease(renewed_at: i64) -> Signs {
        Signs {
            lease: Lease::Renewed(clock(renewed_at)),
            ..NOTHING
        }
    }

    fn clock(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).expect("a time")
    }

    /// What the case is, the looks, what the kubelet is after them.
    type Row<'a> = (&'a str, &'a [(u64, Signs)], Life);

    /// What the kubelet is after all these looks, each so many seconds after the start.
    fn after(looks: &[(u64, Signs)]) -> Life {
        let start = Instant::now();
        let mut life = KubeletLife::new(Duration::from_secs(DOWN_AFTER));
        let mut last = Life::default();
        for (seconds, signs) in looks {
            let now = clock(i64::try_from(*seconds).expect("small"));
            last = life.see(signs, start + Duration::from_secs(*seconds), now).life;
        }
        last
    }

    #[test]
    fn a_kubelet_is_down_only_when_every_sign_has_been_away_for_long_enough() {
        use Life::{Alive, Down, Quiet};
        #[rustfmt::skip]
        let table: &[Row<'_>] = &[
            ("here",                                &[(0, HERE)], Alive),
            ("the first look sees nothing",         &[(0, NOTHING)], Quiet),
            ("not long enough",                     &[(0, NOTHING), (39, NOTHING)], Quiet),
            ("long enough",                         &[(0, NOTHING), (40, NOTHING)], Down),
            ("it came in between",                  &[(0, NOTHING), (39, HERE), (50, NOTHING)], Quiet),
            ("it came and went again for long",     &[(0, NOTHING), (39, HERE), (50, NOTHING), (90, NOTHING)], Down),
            ("it is back",                          &[(0, NOTHING), (40, NOTHING), (41, HERE)], Alive),
            ("an old Lease",                        &[(0, lease(-60)), (40, lease(-60))], Down),
            ("its Lease is renewed elsewhere",      &[(0, lease(-5)), (30, lease(25)), (40, lease(35))], Alive),
            ("it renewed its Lease last at 25 s",   &[(0, lease(-5)), (30, lease(25)), (64, lease(25))], Quiet),
            ("and that is long ago",                &[(0, lease(-5)), (30, lease(25)), (64, lease(25)), (104, lease(25))], Down),
            ("its Lease is still valid",            &[(20, NOTHING), (60, lease(21))], Quiet),
            ("the API server is away meanwhile",    &[(0, lease(-60)), (20, NOTHING), (40, NOTHING)], Down),
            ("the API server answers late",         &[(0, NOTHING), (40, lease(10))], Quiet),
            ("a Lease of the future says nothing",  &[(0, lease(900)), (40, lease(900))], Down),
            ("of the future, and renewed",          &[(0, lease(900)), (40, lease(910))], Alive),
            ("its Lease is not there",              &[(0, NO_LEASE), (400, NO_LEASE)], Quiet),
            ("and then the API server is away",     &[(0, NO_LEASE), (40, NOTHING), (400, NOTHING)], Quiet),
            ("its Lease is there in the end",       &[(0, NO_LEASE), (40, NO_LEASE), (41, lease(-60))], Down),
            ("its process may be hidden",           &[(0, HIDDEN), (400, HIDDEN)], Quiet),
            ("a look that comes late",              &[(0, NOTHING), (45, HERE), (44, NOTHING), (84, NOTHING)], Quiet),
        ];
        for (case, looks, expected) in table {
            assert_eq!(after(looks), *expected, "{case}");
        }
    }

    #[test]
    fn a_health_port_counts_only_if_it_is_roots_and_never_alone() {
        use HealthPort::{OfOther, OfRoot, Silent};
        use Process::{Absent, Hidden, Seen};
        /// How the Lease is at each look.
        #[derive(Clone, Copy, Debug)]
        enum At {
            Silent,
            Unknown,
            /// Renewed long ago.
            Stale,
            /// Renewed right before.
            Fresh,
        }
        use At::{Fresh, Stale, Unknown};
        let (other, nobody) = (OfOther(Some(1000)), OfOther(None));
        // Process, port and Lease; whether pods of ours are held back; whether it may count as down in the end.
        #[rustfmt::skip]
        let table = [
            (Absent, Silent, At::Silent, false, true),
            (Absent, Silent, Unknown,    false, false),
            (Absent, Silent, Stale,      false, true),
            (Absent, Silent, Fresh,      false, false),
            (Absent, OfRoot, At::Silent, false, false),
            (Absent, OfRoot, Unknown,    false, false),
            (Absent, OfRoot, Stale,      false, true),
            (Absent, OfRoot, Fresh,      true,  false),
            (Absent, other,  At::Silent, false, true),
            (Absent, other,  Unknown,    false, false),
            (Absent, other,  Stale,      false, true),
            (Absent, other,  Fresh,      false, false),
            (Absent, nobody, At::Silent, false, true),
            (Absent, nobody, Stale,      false, true),
            (Absent, nobody, Fresh,      false, false),
            (Hidden, Silent, At::Silent, false, false),
            (Hidden, Silent, Fresh,      false, false),
            (Hidden, OfRoot, At::Silent, false, false),
            (Hidden, OfRoot, Fresh,      true,  false),
            (Hidden, other,  Stale,      false, false),
            (Seen,   Silent, At::Silent, true,  false),
            (Seen,   Silent, Stale,      true,  false),
            (Seen,   OfRoot, At::Silent, true,  false),
            (Seen,   OfRoot, Fresh,      true,  false),
            (Seen,   other,  Unknown,    true,  false),
            (Seen,   other,  Fresh,      true,  false),
        ];
        for (process, port, lease, here, down) in table {
            let signs = |second: i64| Signs {
                process,
                port,
                lease: match lease {
                    At::Silent => Lease::Silent,
                    Unknown => Lease::Unknown,
                    Stale => Lease::Renewed(clock(-1000)),
                    Fresh => Lease::Renewed(clock(second)),
                },
            };
            let (start, mut life) = (Instant::now(), KubeletLife::new(Duration::from_secs(DOWN_AFTER)));
            let mut last = Judgement::default();
            for second in [0, 40, 80] {
                let at = start + Duration::from_secs(second);
                let second = i64::try_from(second).expect("small");
                last = life.see(&signs(second), at, clock(second));
            }
            let case = format!("{process:?} {port:?} {lease:?}");
            assert_eq!(last.here, here, "{case}");
            assert_eq!(last.life == Life::Down, down, "{case}: {last:?}");
        }
    }
}
