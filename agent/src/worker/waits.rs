//! What ends the waits of a pod's steps, though never a create or a start: the agent stops, the pod goes, or it goes
//! sooner than it was told to.

use tokio_util::sync::CancellationToken;

use crate::pod::deletion::Removal;

/// The ends of the waits of one pod's steps.
#[derive(Debug)]
pub(super) struct Waits {
    /// The agent stops.
    shutdown: CancellationToken,
    /// Of the waits for images.
    images: CancellationToken,
    /// Of every other wait.
    others: CancellationToken,
    /// How the pod was being removed at the last turn.
    removal: Option<Removal>,
}

impl Waits {
    /// Those of a pod that stays; `shutdown` ends all.
    pub(super) fn new(shutdown: &CancellationToken) -> Waits {
        Waits {
            shutdown: shutdown.clone(),
            images: shutdown.child_token(),
            others: shutdown.child_token(),
            removal: None,
        }
    }

    /// What ends one more wait for an image.
    pub(super) fn for_image(&self) -> CancellationToken {
        self.images.child_token()
    }

    /// What ends any other wait.
    pub(super) fn for_others(&self) -> CancellationToken {
        self.others.clone()
    }

    /// Takes in whether and how the pod is to go. `own_grace` is what its containers are told while it is not, in seconds.
    ///
    /// No image is waited for any more in a pod that goes. What was told to end later than it is to end now is not
    /// waited for either, as it must be asked anew. A pod that somebody else runs can come back before it has gone:
    /// then its launches wait again.
    pub(super) fn follow(&mut self, removal: Option<Removal>, own_grace: i64) {
        match (removal, self.removal) {
            (Some(now), before) => {
                self.images.cancel();
                let told = before.map_or(own_grace, |before| before.grace_seconds);
                if now.grace_seconds < told {
                    self.others.cancel();
                    self.others = self.shutdown.child_token();
                }
            }
            (None, Some(_)) => self.images = self.shutdown.child_token(),
            (None, None) => {}
        }
        self.removal = removal;
    }

    /// Ends every wait: the pod is not here any more.
    pub(super) fn end(&self) {
        self.images.cancel();
        self.others.cancel();
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;

    use super::*;

    fn removal(grace_seconds: i64) -> Option<Removal> {
        Some(Removal {
            grace_seconds,
            since: Timestamp::UNIX_EPOCH,
        })
    }

    #[test]
    fn a_pod_that_goes_waits_for_no_image_until_it_is_back() {
        let shutdown = CancellationToken::new();
        let mut waits = Waits::new(&shutdown);
        waits.follow(None, 30);
        let before = waits.for_image();
        waits.follow(removal(0), 30);
        assert!(before.is_cancelled());
        assert!(waits.for_image().is_cancelled(), "nor for another one");
        waits.follow(None, 30);
        let after = waits.for_image();
        assert!(!after.is_cancelled(), "it is back");
        shutdown.cancel();
        assert!(after.is_cancelled());
    }

    #[test]
    fn stops_are_asked_anew_where_the_pod_is_to_go_sooner_than_they_were_told() {
        // What they were told, in seconds: by the pod's own grace, or by the removal before.
        let table = [
            ("as it would have been", None, removal(30), false),
            ("sooner than by itself", None, removal(5), true),
            ("as it was told before", removal(5), removal(5), false),
            ("sooner than it was told before", removal(5), removal(0), true),
            ("it stays after all", removal(5), None, false),
        ];
        for (case, before, now, anew) in table {
            let mut waits = Waits::new(&CancellationToken::new());
            waits.follow(before, 30);
            let stop = waits.for_others();
            waits.follow(now, 30);
            assert_eq!(stop.is_cancelled(), anew, "{case}");
            assert!(!waits.for_others().is_cancelled(), "{case}: the next one waits");
        }
    }
}
