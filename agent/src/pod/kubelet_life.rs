//! Whether this node's kubelet is surely down, so that somebody else may do what it was asked for. A kubelet cannot be
//! bound to a lock, so all that there is to go by are its signs of life: its process, its health port, its Lease.

use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;

/// What one look showed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Signs {
    /// Whether its process or its health port was there.
    pub(crate) here: bool,
    /// `spec.renewTime` of the node's Lease (namespace `kube-node-lease`), which a kubelet renews every 10 s; none where
    /// the API server did not say.
    pub(crate) renewed: Option<Timestamp>,
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
    /// The Lease as it was last seen.
    renewed: Option<Timestamp>,
}

impl KubeletLife {
    /// Nothing was seen yet; the kubelet is down once it has shown no sign of life for `down_after`.
    pub(crate) fn new(down_after: Duration) -> KubeletLife {
        KubeletLife {
            down_after,
            quiet_since: None,
            last_sign: None,
            renewed: None,
        }
    }

    /// Takes in what was seen `at` this moment, when the clock said `now`. Looks may come out of order: one that saw
    /// nothing never takes back one that saw a sign of life later.
    ///
    /// The Lease tells in two ways. That it changes between two looks is a sign of life, whatever its clock says; and
    /// while it was renewed less than `down_after` ago by the clock, which is the kubelet's too, nobody is down.
    pub(crate) fn see(&mut self, signs: &Signs, at: Instant, now: Timestamp) -> Life {
        let changed = matches!((signs.renewed, self.renewed), (Some(new), Some(old)) if new != old);
        self.renewed = signs.renewed.or(self.renewed);
        if signs.here || changed {
            self.last_sign = self.last_sign.max(Some(at));
            self.quiet_since = None;
            return Life::Alive;
        }
        let earliest = self.last_sign.map_or(at, |sign| sign.max(at));
        let quiet_since = *self.quiet_since.get_or_insert(earliest);
        let long_quiet = at.saturating_duration_since(quiet_since) >= self.down_after;
        if long_quiet && !self.lease_is_fresh(now) {
            Life::Down
        } else {
            Life::Quiet
        }
    }

    /// A Lease of the future is that of a clock that was set back: it says nothing.
    fn lease_is_fresh(&self, now: Timestamp) -> bool {
        self.renewed.is_some_and(|renewed| {
            Duration::try_from(now.duration_since(renewed)).is_ok_and(|age| age < self.down_after)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOWN_AFTER: u64 = 40;
    const NOTHING: Signs = Signs {
        here: false,
        renewed: None,
    };
    const HERE: Signs = Signs {
        here: true,
        renewed: None,
    };

    fn lease(renewed_at: i64) -> Signs {
        Signs {
            here: false,
            renewed: Some(clock(renewed_at)),
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
            last = life.see(signs, start + Duration::from_secs(*seconds), now);
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
            ("a look that comes late",              &[(0, NOTHING), (45, HERE), (44, NOTHING), (84, NOTHING)], Quiet),
        ];
        for (case, looks, expected) in table {
            assert_eq!(after(looks), *expected, "{case}");
        }
    }
}
