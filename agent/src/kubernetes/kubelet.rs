//! This node's kubelet, for everyone who has to know whether it lives: looks for its signs, and keeps what they say over
//! time.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use tokio::sync::watch;

use super::api_server::ApiServer;
use super::back_off::{BackOff, Growth};
use super::failure::is_of_a_nodes_credential;
use super::kubelet_signs::{self, KubeletSigns, Place};
use crate::logging::NEWS;
use crate::pod::kubelet_life::{Judgement, KubeletLife, Lease, Life, Process, Signs};

/// The namespace of the nodes' Leases (KEP-589).
const LEASES: &str = "kube-node-lease";
/// An API server that takes longer than this says nothing of the Lease.
const LEASE_TIMEOUT: Duration = Duration::from_secs(2);

/// The kubelet of this node, whether there is one or not.
#[derive(Debug)]
pub(crate) struct Kubelet {
    node_name: String,
    api_server: Option<Arc<ApiServer>>,
    down_after: Duration,
    place: Place,
    seen: Mutex<KubeletLife>,
    refusals: Mutex<Refusals>,
    life: watch::Sender<Life>,
}

/// What a look showed, and what it comes to together with those before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Look {
    /// The signs on the node itself.
    pub(crate) signs: KubeletSigns,
    /// What the API server said of the Lease.
    pub(crate) lease: Lease,
    /// What that comes to.
    pub(crate) judgement: Judgement,
}

impl Kubelet {
    /// The kubelet of the node `node_name`, which counts as down once it has shown no sign of life for `down_after`.
    pub(crate) fn new(
        node_name: &str,
        api_server: Option<Arc<ApiServer>>,
        down_after: Duration,
    ) -> Arc<Kubelet> {
        Kubelet::at(Place::default(), node_name, api_server, down_after)
    }

    /// The same, looked for in this place.
    pub(crate) fn at(
        place: Place,
        node_name: &str,
        api_server: Option<Arc<ApiServer>>,
        down_after: Duration,
    ) -> Arc<Kubelet> {
        Arc::new(Kubelet {
            node_name: node_name.to_owned(),
            api_server,
            down_after,
            place,
            seen: Mutex::new(KubeletLife::new(down_after)),
            refusals: Mutex::default(),
            life: watch::Sender::default(),
        })
    }

    /// How long it must show no sign of life to count as down.
    pub(crate) fn down_after(&self) -> Duration {
        self.down_after
    }

    /// Looks now: at the process and the health port, and where there is no process, at the Lease. Takes some
    /// milliseconds, or [`LEASE_TIMEOUT`] where the API server does not answer.
    pub(crate) async fn look(&self) -> Look {
        let signs = kubelet_signs::look(&self.place).await;
        let lease = match signs.process() {
            Process::Seen => Lease::Silent,
            Process::Absent | Process::Hidden => self.lease().await,
        };
        let seen = Signs {
            process: signs.process(),
            port: signs.port,
            lease,
        };
        let (judgement, changed) = self.judge(&seen);
        // Where there is no cluster, that there is no kubelet says nothing.
        let in_cluster = |api_server: &Arc<ApiServer>| !api_server.address().is_empty();
        if changed && self.api_server.as_ref().is_some_and(in_cluster) {
            match judgement.life {
                Life::Alive => tracing::info!(target: NEWS, "the kubelet shows signs of life"),
                Life::Quiet => tracing::info!(target: NEWS, "the kubelet shows no sign of life"),
                Life::Down => tracing::warn!(target: NEWS, "the kubelet is down"),
            }
        }
        Look {
            signs,
            lease,
            judgement,
        }
    }

    /// Whether it is down, as a look now shows.
    pub(crate) async fn is_down(&self) -> bool {
        self.look().await.judgement.life == Life::Down
    }

    /// How it stands after this look, and whether that is news. It is published before another look is judged, so that
    /// what is published is what was judged last.
    fn judge(&self, signs: &Signs) -> (Judgement, bool) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let judgement = seen.see(signs, Instant::now(), Timestamp::now());
        let changed = self
            .life
            .send_if_modified(|before| std::mem::replace(before, judgement.life) != judgement.life);
        (judgement, changed)
    }

    /// How it stands, as of the last look.
    pub(crate) fn life(&self) -> watch::Receiver<Life> {
        self.life.subscribe()
    }

    /// What the API server says of its Lease. One that refuses to say it is not asked at every look.
    async fn lease(&self) -> Lease {
        let Some(api_server) = &self.api_server else {
            return Lease::Silent;
        };
        if let Some(lease) = self.refusals().standing(Instant::now()) {
            return lease;
        }
        let ask = async {
            let client = api_server.client().await.ok()?;
            let leases = Api::<v1::Lease>::namespaced(client, LEASES);
            Some(leases.get(&self.node_name).await)
        };
        match tokio::time::timeout(LEASE_TIMEOUT, ask).await {
            Ok(Some(answer)) => {
                let refused =
                    matches!(&answer, Err(kube::Error::Api(status)) if matches!(status.code, 401 | 403));
                let lease = lease_of(answer);
                self.refusals()
                    .take(lease, refused, Instant::now(), rand::random());
                lease
            }
            Ok(None) | Err(_) => Lease::Silent,
        }
    }

    fn refusals(&self) -> MutexGuard<'_, Refusals> {
        self.refusals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How an API server is asked again that has refused to show the Lease: soon at first, then less and less often.
#[derive(Debug)]
struct Refusals {
    back_off: BackOff,
    /// What the last refusal says of the Lease, and until when it stands; none where the last answer was no refusal.
    last: Option<(Lease, Instant)>,
}

impl Default for Refusals {
    fn default() -> Refusals {
        Refusals {
            back_off: BackOff::new(Growth::REFUSAL),
            last: None,
        }
    }
}

impl Refusals {
    /// What a refusal from before says of the Lease, where it is too soon to ask again.
    fn standing(&self, now: Instant) -> Option<Lease> {
        self.last
            .and_then(|(lease, until)| (now < until).then_some(lease))
    }

    /// Takes in an answer that says this of the Lease. `spread` is as for [`BackOff::next`].
    fn take(&mut self, lease: Lease, refused: bool, now: Instant, spread: u32) {
        if refused {
            self.last = Some((lease, now + self.back_off.next(spread)));
        } else {
            *self = Refusals::default();
        }
    }
}

/// What an answer says of the Lease. A node's credential may read the Lease of its own node and no other (Node authorizer), so
/// a refusal to one says the same as that there is none: it is not known which Lease is the kubelet's. debuglet's own
/// credential may lack the right, which is for the administrator to choose.
fn lease_of(answer: Result<v1::Lease, kube::Error>) -> Lease {
    match answer {
        Ok(lease) => {
            let renewed = lease.spec.and_then(|spec| spec.renew_time);
            renewed.map_or(Lease::Unknown, |time| Lease::Renewed(time.0))
        }
        Err(kube::Error::Api(status)) if status.code == 404 => Lease::Unknown,
        Err(kube::Error::Api(status)) if status.code == 403 && is_of_a_nodes_credential(&status.message) => {
            Lease::Unknown
        }
        Err(_) => Lease::Silent,
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    #[test]
    fn an_api_server_that_refuses_to_show_the_lease_is_asked_again_soon_and_then_less_and_less_often() {
        let mut refusals = Refusals::default();
        let mut now = Instant::now();
        for failures in 0..12 {
            assert_eq!(refusals.standing(now), None);
            refusals.take(Lease::Unknown, true, now, u32::MAX);
            let wait = Growth::REFUSAL.wait(failures);
            assert_eq!(
                refusals.standing(now + wait - Duration::from_millis(1)),
                Some(Lease::Unknown)
            );
            now += wait;
        }
        refusals.take(Lease::Silent, false, now, u32::MAX);
        assert_eq!(refusals.standing(now), None, "it says something else");
        refusals.take(Lease::Silent, true, now, u32::MAX);
        assert_eq!(refusals.standing(now), Some(Lease::Silent));
        assert_eq!(
            refusals.standing(now + Growth::REFUSAL.wait(0)),
            None,
            "soon again"
        );
    }

    #[test]
    fn a_lease_that_is_not_there_is_unknown_and_a_server_that_does_not_answer_says_nothing() {
        let refusal = |code: u16, message: &str| {
            let status = Status {
                code,
                message: message.to_owned(),
                ..Status::default()
            };
            Err(kube::Error::Api(Box::new(status)))
        };
        let user = |name: &str| {
            format!(
                "leases.coordination.k8s.io \"a\" is forbidden: User \"{name}\" cannot get resource \"leases\""
            )
        };
        let time: Timestamp = "2026-11-22T00:00:00Z".parse().expect("a time");
        let renewed =
            serde_json::json!({"metadata": {}, "spec": {"renewTime": "2026-11-22T00:00:00.000000Z"}});
        let renewed = serde_json::from_value(renewed).expect("a Lease");
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        for (case, answer, expected) in [
            ("renewed", Ok(renewed), Lease::Renewed(time)),
            ("never renewed", Ok(v1::Lease::default()), Lease::Unknown),
            ("not there", refusal(404, ""), Lease::Unknown),
            (
                "another node's",
                refusal(403, &user("system:node:b")),
                Lease::Unknown,
            ),
            (
                "not for us",
                refusal(403, &user("system:serviceaccount:kube-system:debuglet")),
                Lease::Silent,
            ),
            ("no credential", refusal(401, "Unauthorized"), Lease::Silent),
            ("not ready", refusal(503, ""), Lease::Silent),
            ("away", Err(kube::Error::Service(refused.into())), Lease::Silent),
        ] {
            assert_eq!(lease_of(answer), expected, "{case}");
        }
    }
}
