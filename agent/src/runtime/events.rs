//! What happens in the runtime, as it happens: containerd's own event stream, or CRI's where there is no other.
//! An event only wakes: what is true is read from CRI afterwards.
//!
//! The stream is read whether or not anybody takes the events, because a runtime that cannot get rid of them
//! blocks, for the kubelet too. Whatever was missed is made up for by one [`RuntimeEvent::Reconnected`].

use std::time::Duration;

use containerd_client::events::{ContainerCreate, ContainerDelete, TaskExit, TaskOom, TaskStart};
use containerd_client::services::v1::events_client::EventsClient;
use containerd_client::services::v1::{PublishRequest, SubscribeRequest};
use containerd_client::types::Envelope;
use debuglet_proto::v1::{ContainerEventResponse, ContainerEventType, GetEventsRequest};
use prost::Message;
use prost_types::Any;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Status};

use super::bounded_channel::BoundedChannel;
use super::call_object::Call;
use super::client::Runtime;
use super::error::{is_logged, message};

/// Events that wait to be taken. A burst of starts on a big node fits; beyond, one re-list is cheaper.
const CAPACITY: usize = 1024;
/// containerd's namespace of everything that CRI makes.
const NAMESPACE: &str = "k8s.io";
/// The header that names it.
const NAMESPACE_HEADER: &str = "containerd-namespace";
/// What is subscribed to: the topics of [`container_event`], and [`HELLO_TOPIC`].
const FILTERS: [&str; 2] = [
    r#"namespace==k8s.io,topic~="^/(tasks/(start|exit|oom)|containers/(create|delete))$""#,
    r#"namespace==k8s.io,topic=="/debuglet/subscribed""#,
];
/// An event of our own. The runtime does not say when a subscription has begun; it has once this comes back.
const HELLO_TOPIC: &str = "/debuglet/subscribed";
/// The first wait before a broken or refused stream is opened again, and the longest.
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// The wait where the runtime has no events at all; until then the slow re-list is all there is.
const WAIT_WITHOUT_EVENTS: Duration = Duration::from_secs(60);
/// How long CRI's stream, which cannot be asked, is given to begin.
const CRI_STREAM_SETTLES: Duration = Duration::from_millis(200);

/// Something happened in the runtime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RuntimeEvent {
    /// To one container or sandbox, whoever made it.
    Container {
        /// The runtime's id.
        id: String,
        /// What.
        kind: ContainerEventKind,
    },
    /// The stream has begun, or events were missed: list everything again. What happens after this was sent
    /// is in the stream.
    Reconnected,
}

/// What happened to a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ContainerEventKind {
    /// It was made.
    Created,
    /// Its own process was started.
    Started,
    /// Its own process has ended. CRI may say so a moment later.
    Exited,
    /// A process that was started in it by exec has ended; the container goes on.
    ExecExited,
    /// The kernel killed a process in it for want of memory.
    Oom,
    /// It is gone.
    Deleted,
}

/// Follows the runtime's events until `stop` or until the receiver is dropped.
pub(crate) fn follow(
    runtime: Runtime,
    stop: CancellationToken,
) -> (mpsc::Receiver<RuntimeEvent>, JoinHandle<()>) {
    let (sender, receiver) = mpsc::channel(CAPACITY);
    let task = tokio::spawn(async move {
        let follower = Follower {
            runtime,
            outlet: Outlet {
                sender,
                missed: false,
            },
        };
        stop.run_until_cancelled(follower.run()).await;
    });
    (receiver, task)
}

/// The bounded way out: a full channel costs the events, not the stream.
struct Outlet {
    sender: mpsc::Sender<RuntimeEvent>,
    /// Whether an event was left out, or a stream began, since the last `Reconnected`.
    missed: bool,
}

impl Outlet {
    fn send(&mut self, event: RuntimeEvent) {
        // After a gap nothing is worth sending but the news of it.
        if self.missed || self.sender.try_send(event).is_err() {
            self.missed = true;
        }
    }

    /// Waits for room for the news of a gap; for ever when there is no gap.
    async fn report_gap(&mut self) -> Result<(), Gone> {
        if !self.missed {
            self.sender.closed().await;
            return Err(Gone);
        }
        let permit = self.sender.reserve().await.map_err(|_| Gone)?;
        permit.send(RuntimeEvent::Reconnected);
        self.missed = false;
        Ok(())
    }
}

/// Nobody takes the events any more.
struct Gone;

/// Why a stream ended.
enum End {
    /// Nobody listens.
    Gone,
    /// The runtime has no such service.
    NotThere,
    /// It broke, or never began.
    Broken(String),
    /// It never began, or there is a new connection, as the log has already.
    Silent,
}

impl From<Gone> for End {
    fn from(_: Gone) -> End {
        End::Gone
    }
}

impl From<Status> for End {
    fn from(status: Status) -> End {
        match status.code() {
            Code::Unimplemented => End::NotThere,
            _ if is_logged(&status) => End::Silent,
            _ => End::Broken(message(&status)),
        }
    }
}

/// The task that keeps a stream open.
struct Follower {
    runtime: Runtime,
    outlet: Outlet,
}

impl Follower {
    async fn run(mut self) {
        let mut wait = FIRST_WAIT;
        let mut renewals = self.runtime.renewals();
        // Why it ended, as the log has it: the same is not logged again and again while the runtime is away.
        let mut logged = None;
        loop {
            let mut began = false;
            let end = tokio::select! {
                end = self.follow(&mut began) => end,
                // Never an error: the sender is in `self.runtime`.
                _ = renewals.changed() => End::Silent,
            };
            if began {
                wait = FIRST_WAIT;
                logged = None;
            }
            let why = match end {
                End::Gone => return,
                End::NotThere => {
                    wait = WAIT_WITHOUT_EVENTS;
                    "the runtime has no event stream: changes are noticed by the slow re-list only".to_owned()
                }
                End::Broken(why) => format!("the runtime's event stream ended: {why}"),
                End::Silent => logged.clone().unwrap_or_default(),
            };
            if !why.is_empty() && logged.as_ref() != Some(&why) {
                tracing::warn!("{why}");
                logged = Some(why);
            }
            let until = Instant::now() + wait;
            tokio::select! {
                () = sleep_until(until) => {}
                () = self.outlet.sender.closed() => return,
            }
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }

    async fn follow(&mut self, began: &mut bool) -> End {
        match self.follow_containerd(began).await {
            End::NotThere => self.follow_cri(began).await,
            end => end,
        }
    }

    /// containerd's stream. The answer to Subscribe may begin only with the first event, so the call is not
    /// waited for before the hello is sent.
    async fn follow_containerd(&mut self, began: &mut bool) -> End {
        let mut client = EventsClient::new(self.runtime.channel());
        let mut greeter = client.clone();
        let filters = FILTERS.iter().map(ToString::to_string).collect();
        let subscribe = client.subscribe(SubscribeRequest { filters });
        let greet = greet(&mut greeter);
        let limit = self.runtime.limits().stream_begins();
        let too_late = tokio::time::sleep(limit);
        let call = Call {
            method: "Subscribe".to_owned(),
            object: String::new(),
        };
        let publish = Call {
            method: "Publish".to_owned(),
            object: String::new(),
        };
        let unanswered = self.runtime.unanswered().clone();
        tokio::pin!(subscribe, greet, too_late);
        // Until the stream answers, only a refusal of either call can come.
        let mut stream = tokio::select! {
            answer = &mut subscribe => match answer {
                Ok(stream) => stream.into_inner(),
                Err(status) => return status.into(),
            },
            refusal = &mut greet => return refusal.into(),
            () = &mut too_late => {
                unanswered.given_up(&call, "", limit);
                return End::Silent;
            }
        };
        loop {
            tokio::select! {
                biased;
                event = stream.message() => match event {
                    Ok(Some(envelope)) if envelope.topic == HELLO_TOPIC => {
                        if !*began {
                            *began = true;
                            self.outlet.missed = true;
                            unanswered.answered(&call);
                            // The hello came back: its call is not waited for any more.
                            unanswered.answered(&publish);
                        }
                    }
                    Ok(Some(envelope)) => {
                        if let Some(event) = container_event(&envelope) {
                            self.outlet.send(event);
                        }
                    }
                    Ok(None) => return End::Broken("the runtime closed it".to_owned()),
                    Err(status) => return status.into(),
                },
                refusal = &mut greet, if !*began => return refusal.into(),
                () = &mut too_late, if !*began => {
                    unanswered.given_up(&call, "", limit);
                    return End::Silent;
                }
                sent = self.outlet.report_gap() => if let Err(gone) = sent { return gone.into() },
            }
        }
    }

    /// CRI's stream, for runtimes that are not containerd.
    async fn follow_cri(&mut self, began: &mut bool) -> End {
        let mut client = self.runtime.runtime();
        let open = client.get_container_events(GetEventsRequest {});
        tokio::pin!(open);
        let settled = Instant::now() + CRI_STREAM_SETTLES;
        let mut stream = loop {
            tokio::select! {
                answer = &mut open => match answer {
                    Ok(stream) => break stream.into_inner(),
                    Err(status) => return status.into(),
                },
                () = sleep_until(settled), if !*began => {
                    *began = true;
                    self.outlet.missed = true;
                }
                sent = self.outlet.report_gap(), if *began => if let Err(gone) = sent { return gone.into() },
            }
        };
        if !*began {
            *began = true;
            self.outlet.missed = true;
        }
        loop {
            tokio::select! {
                biased;
                event = stream.message() => match event {
                    Ok(Some(event)) => self.outlet.send(cri_event(event)),
                    Ok(None) => return End::Broken("the runtime closed it".to_owned()),
                    Err(status) => return status.into(),
                },
                sent = self.outlet.report_gap() => if let Err(gone) = sent { return gone.into() },
            }
        }
    }
}

/// Publishes the hello again and again, since one from before the subscription is lost; ends only when refused.
async fn greet(client: &mut EventsClient<BoundedChannel>) -> Status {
    let mut wait = Duration::from_millis(1);
    loop {
        let mut hello = Request::new(PublishRequest {
            topic: HELLO_TOPIC.to_owned(),
            // Of a type that everybody who prints containerd's events can read.
            event: Some(Any {
                type_url: "google.protobuf.Empty".to_owned(),
                value: Vec::new(),
            }),
        });
        let namespace = tonic::metadata::MetadataValue::from_static(NAMESPACE);
        hello.metadata_mut().insert(NAMESPACE_HEADER, namespace);
        if let Err(refusal) = client.publish(hello).await {
            return refusal;
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(LONGEST_WAIT);
    }
}

/// Reads containerd's event; `None` for one that says nothing of a container.
fn container_event(envelope: &Envelope) -> Option<RuntimeEvent> {
    let value = envelope.event.as_ref()?.value.as_slice();
    let (id, kind) = match envelope.topic.as_str() {
        "/containers/create" => (
            ContainerCreate::decode(value).ok()?.id,
            ContainerEventKind::Created,
        ),
        "/containers/delete" => (
            ContainerDelete::decode(value).ok()?.id,
            ContainerEventKind::Deleted,
        ),
        "/tasks/start" => (
            TaskStart::decode(value).ok()?.container_id,
            ContainerEventKind::Started,
        ),
        "/tasks/oom" => (TaskOom::decode(value).ok()?.container_id, ContainerEventKind::Oom),
        "/tasks/exit" => {
            let exit = TaskExit::decode(value).ok()?;
            // The container's own process goes under the container's id, those of exec under ids of their own.
            let own = exit.id.is_empty() || exit.id == exit.container_id;
            let kind = if own {
                ContainerEventKind::Exited
            } else {
                ContainerEventKind::ExecExited
            };
            (exit.container_id, kind)
        }
        _ => return None,
    };
    Some(RuntimeEvent::Container { id, kind })
}

fn cri_event(event: ContainerEventResponse) -> RuntimeEvent {
    let kind = match event.container_event_type() {
        ContainerEventType::ContainerCreatedEvent => ContainerEventKind::Created,
        ContainerEventType::ContainerStartedEvent => ContainerEventKind::Started,
        ContainerEventType::ContainerStoppedEvent => ContainerEventKind::Exited,
        ContainerEventType::ContainerDeletedEvent => ContainerEventKind::Deleted,
    };
    RuntimeEvent::Container {
        id: event.container_id,
        kind,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(topic: &str, event: &impl Message) -> Option<RuntimeEvent> {
        container_event(&Envelope {
            topic: topic.to_owned(),
            event: Some(Any {
                type_url: String::new(),
                value: event.encode_to_vec(),
            }),
            ..Envelope::default()
        })
    }

    fn event(number: usize) -> RuntimeEvent {
        RuntimeEvent::Container {
            id: number.to_string(),
            kind: ContainerEventKind::Started,
        }
    }

    #[test]
    fn an_exit_of_an_exec_is_told_from_the_containers_own() {
        let exit = |id: &str| TaskExit {
            container_id: "c1".to_owned(),
            id: id.to_owned(),
            ..TaskExit::default()
        };
        for (process, kind) in [
            ("c1", ContainerEventKind::Exited),
            ("", ContainerEventKind::Exited),
            ("exec-7", ContainerEventKind::ExecExited),
        ] {
            let id = "c1".to_owned();
            assert_eq!(
                told("/tasks/exit", &exit(process)),
                Some(RuntimeEvent::Container { id, kind })
            );
        }
    }

    #[test]
    fn every_topic_that_is_subscribed_to_is_read_and_no_other() {
        let id = || "c1".to_owned();
        let create = ContainerCreate {
            id: id(),
            ..ContainerCreate::default()
        };
        let start = TaskStart {
            container_id: id(),
            pid: 1,
        };
        for (event, kind) in [
            (told("/containers/create", &create), ContainerEventKind::Created),
            (
                told("/containers/delete", &ContainerDelete { id: id() }),
                ContainerEventKind::Deleted,
            ),
            (told("/tasks/start", &start), ContainerEventKind::Started),
            (
                told("/tasks/oom", &TaskOom { container_id: id() }),
                ContainerEventKind::Oom,
            ),
        ] {
            assert_eq!(event, Some(RuntimeEvent::Container { id: id(), kind }));
        }
        assert_eq!(told("/tasks/paused", &start), None);
    }

    #[tokio::test]
    async fn a_slow_reader_costs_no_room_and_gets_one_reconnected_for_all_it_missed() {
        let (sender, mut receiver) = mpsc::channel(2);
        let mut outlet = Outlet {
            sender,
            missed: false,
        };
        for number in 0..100 {
            outlet.send(event(number));
        }
        assert_eq!(
            (receiver.recv().await, receiver.recv().await),
            (Some(event(0)), Some(event(1)))
        );
        // There is room again; but what comes now must not overtake the news of the gap.
        outlet.send(event(100));
        assert!(outlet.report_gap().await.is_ok());
        outlet.send(event(101));
        assert_eq!(receiver.recv().await, Some(RuntimeEvent::Reconnected));
        assert_eq!(receiver.recv().await, Some(event(101)));
    }

    #[tokio::test]
    async fn following_ends_with_its_reader_and_when_told_to() {
        let nobody = || Runtime::alone(std::path::Path::new("/nonexistent/runtime.sock"));
        let (receiver, task) = follow(nobody(), CancellationToken::new());
        drop(receiver);
        task.await.unwrap();
        let stop = CancellationToken::new();
        let (_receiver, task) = follow(nobody(), stop.clone());
        stop.cancel();
        task.await.unwrap();
    }
}
