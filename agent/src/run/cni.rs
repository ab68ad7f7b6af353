//! Requests of the CNI plugin: what is known of a device at once, and what is waited for.

use std::collections::BTreeSet;
use std::time::Duration;

use dataplane_common::abi::subject_state;
use dataplane_model::snapshot::{Event, Interface, Object, Pod};
use serde_json::Value;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::{Agent, SETTLE};
use crate::admin::protocol::Response;
use crate::cni::protocol::{Answer, Ask, Attachment, AttachmentId, Fault, code};
use crate::source::api::Told;
use crate::source::{Kind, ObjectKey};

/// How long a pod's object is waited for, and its policy. The runtime asks again.
const PATIENCE: Duration = Duration::from_secs(10);

type Reply = oneshot::Sender<Response<Value>>;

/// An `ADD` that is not answered yet.
pub(super) struct Waiting {
    id: AttachmentId,
    since: Instant,
    reply: Reply,
}

const ADD: &str = "ADD";

/// What owners of pods should know that were there before the plugin.
const WITHOUT: &str = "it started without the CNI plugin, so policy did not hold from its first packet on; it does now";

/// A device as it is now. One that was closed for its pod stays so when its attachment is gone: the pod has
/// ended, and the device is about to go.
pub(super) fn keep_closed(device: Interface, known: Option<&Interface>) -> Interface {
    match known {
        Some(known) if known.closed => Interface {
            late: false,
            pod: known.pod.clone(),
            closed: true,
            ..device
        },
        _ => device,
    }
}

impl Agent {
    /// Answers a plugin, now or when its pod is ready.
    pub(super) fn on_cni(&mut self, ask: Ask, reply: Reply) {
        let since = Instant::now();
        let command = ask.command();
        let answer = match ask {
            Ask::Add(attachment) => match self.add(*attachment) {
                Ok(id) => {
                    self.waiting.push(Waiting { id, since, reply });
                    // Where nothing changed, no round will tell.
                    return self.answer_waiting();
                }
                Err(fault) => Answer::Refused(fault),
            },
            Ask::Check { id } => match self.broken(&id) {
                None => Answer::Done,
                Some(why) => Answer::Refused(Fault::new(code::BROKEN, "the attachment", why)),
            },
            Ask::Del { id } => {
                self.forget(&[id]);
                Answer::Done
            }
            Ask::Status if self.engine.history().in_sync => Answer::Done,
            Ask::Status => Answer::Refused(Fault::new(
                code::UNAVAILABLE,
                "the agent is starting",
                "its sources have not delivered all objects yet",
            )),
            Ask::Gc { valid } => {
                let valid: BTreeSet<_> = valid.into_iter().collect();
                let all = self.attachments.ids().cloned();
                let stale: Vec<_> = all.filter(|id| !valid.contains(id)).collect();
                self.forget(&stale);
                Answer::Done
            }
        };
        self.send(reply, command, since, &answer);
    }

    /// Takes a device over: its programs are attached before this returns, and nothing passes until its
    /// pod is known.
    fn add(&mut self, attachment: Attachment) -> Result<AttachmentId, Fault> {
        let (id, ifindex, name) = (
            attachment.id.clone(),
            attachment.ifindex,
            attachment.name.clone(),
        );
        let pod = attachment.pod.as_ref().map(|pod| pod.reference().key);
        debug!(device = %name, ?pod, "the CNI plugin hands over a device");
        self.attachments.insert(attachment)?;
        let known = self.engine.snapshot().interfaces.get(&ifindex).cloned();
        let known = Interface {
            ifindex,
            closed: false,
            ..known.unwrap_or_default()
        };
        let interface = self.attachments.device(known, self.settings.policy);
        self.devices.pod(&interface, name);
        self.fold_here(Event::Apply(Object::Interface(interface)));
        let known = pod.and_then(|key| self.engine.snapshot().pods.get(&key).cloned());
        if let Some(pod) = known {
            let event = self.attachments.pod(&pod);
            self.fold_here(event);
        }
        Ok(id)
    }

    fn fold_here(&mut self, event: Event) {
        self.publisher.seen(&event, self.engine.snapshot());
        self.engine.fold(event, SETTLE);
    }

    /// Forgets attachments. Their devices are as they were until they go.
    pub(super) fn forget(&mut self, ids: &[AttachmentId]) {
        for id in ids {
            if let Some(event) = self.attachments.remove(id) {
                self.fold_here(event);
            }
        }
        let gone = |waiting: &mut Waiting| ids.contains(&waiting.id);
        let gone: Vec<_> = self.waiting.extract_if(.., gone).collect();
        for Waiting { since, reply, .. } in gone {
            let fault = Fault::new(
                code::TRY_AGAIN,
                "the attachment",
                "it was deleted meanwhile",
            );
            self.send(reply, ADD, since, &Answer::Refused(fault));
        }
    }

    /// Forgets attachments whose devices went while there was no agent.
    pub(super) fn forget_former(&mut self) {
        let devices = self.devices.pods().keys().copied().collect();
        let former = self.attachments.without_device(&devices);
        self.forget(&former);
    }

    /// Answers those whose pods are ready, and those that have waited long enough.
    pub(super) fn answer_waiting(&mut self) {
        let now = Instant::now();
        for waiting in std::mem::take(&mut self.waiting) {
            match self.broken(&waiting.id) {
                None => {
                    let took = now - waiting.since;
                    debug!(container = %waiting.id.container, ?took, "the pod's policy is in force");
                    self.send(waiting.reply, ADD, waiting.since, &Answer::Done);
                }
                Some(why) if now >= waiting.since + PATIENCE => {
                    warn!(container = %waiting.id.container, %why, "a pod cannot start yet");
                    let fault = Fault::new(code::TRY_AGAIN, "the pod's policy", why);
                    self.send(waiting.reply, ADD, waiting.since, &Answer::Refused(fault));
                }
                Some(_) => self.waiting.push(waiting),
            }
        }
    }

    /// Tells of pods that started without the plugin, once they are known and policed.
    pub(super) fn tell_without(&mut self) {
        let state = self.engine.state();
        let snapshot = state.snapshot();
        self.without.retain(|ifindex| {
            let Some(interface) = snapshot.interfaces.get(ifindex) else {
                return false;
            };
            let subject = state.subject(*ifindex);
            if subject.is_none_or(|subject| subject.state != subject_state::MANAGED) {
                return true;
            }
            let has = |pod: &&Pod| pod.ips.iter().any(|ip| interface.addresses.contains(ip));
            let mut pods = snapshot.pods.values().filter(|pod| pod.is_policy_pod());
            if let Some(pod) = pods.find(has) {
                self.events.tell(Told {
                    object: ObjectKey::new(Kind::Pod, Some(&pod.key.namespace), &pod.key.name),
                    reason: "StartedWithoutPolicy",
                    note: WITHOUT.to_owned(),
                });
            }
            false
        });
    }

    /// When the first of them has waited long enough.
    pub(super) fn waiting_until(&self) -> Option<Instant> {
        let first = self.waiting.iter().map(|waiting| waiting.since).min();
        first.map(|since| since + PATIENCE)
    }

    /// Why an attachment is not in force.
    fn broken(&self, id: &AttachmentId) -> Option<String> {
        let Some(attachment) = self.attachments.get(id) else {
            return Some("the agent does not know it".to_owned());
        };
        if let Some(failure) = self.devices.failures().remove(&attachment.name) {
            return Some(failure);
        }
        let history = self.engine.history();
        let state = self.engine.state();
        match state.subject(attachment.ifindex) {
            Some(subject) if subject.state != subject_state::CLOSED => None,
            _ if !history.in_sync => {
                Some("the agent's sources have not delivered all objects".into())
            }
            Some(_) => Some(match &attachment.pod {
                Some(pod) => format!(
                    "the pod {}/{} is not known from the API server yet",
                    pod.namespace, pod.name
                ),
                None => "its device is closed".to_owned(),
            }),
            None => Some(
                history
                    .pending
                    .clone()
                    .unwrap_or_else(|| "its entry is not written yet".to_owned()),
            ),
        }
    }

    fn send(&self, reply: Reply, command: &'static str, since: Instant, answer: &Answer) {
        let code = match answer {
            Answer::Done => 0,
            Answer::Refused(fault) => fault.code,
        };
        self.publisher.cni(command, code, since.elapsed());
        let response = match serde_json::to_value(answer) {
            Ok(value) => Response::Ok(value),
            Err(error) => Response::Error(error.to_string()),
        };
        // A plugin that was killed does not need it.
        let _ = reply.send(response);
    }
}
