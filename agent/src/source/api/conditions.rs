//! A condition on policies of the tiers that cannot be understood in full (KEP-1623; NetworkPolicies have
//! no status). What concerns one node alone is an Event.
//!
//! All nodes read the same object and come to the same, so one of them says it for all: the first, while
//! the others wait a moment and see it. Nobody contradicts what was said of a version of the object, were
//! it another version of the agent; and of what is understood, nothing is written, unless it was not
//! before.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tracing::debug;

use super::link::Link;
use super::{Failure, object};
use crate::source::tiers::TierPolicy;
use crate::source::{Object, ObjectKey, Problem};

/// The condition's type.
const TYPE: &str = "sluice.dev/Understood";
/// Whose field it is (server-side apply).
const MANAGER: &str = "sluice.dev";
/// Objects that wait to be written.
const WAITING: usize = 256;
/// The longest that a node waits for others to write.
const SPREAD: Duration = Duration::from_secs(3);
/// How long the server has for an answer, and the pause before it is asked again.
const PATIENCE: Duration = Duration::from_secs(10);
/// Attempts at one condition.
const ATTEMPTS: u32 = 3;
/// The longest message that the API server takes, in bytes.
const LONGEST: usize = 32_768;

/// Takes policies as they are read. Without an API server it does nothing.
#[derive(Clone, Debug, Default)]
pub struct Conditions(Option<mpsc::Sender<(ObjectKey, Option<Value>)>>);

impl Conditions {
    /// Begins to write, on the current runtime, until all copies of this are gone.
    pub fn start(link: Arc<Link>, node: &str) -> Self {
        let (sender, receiver) = mpsc::channel(WAITING);
        let writer = Writer {
            link,
            pause: pause(node),
            waiting: BTreeMap::new(),
        };
        tokio::spawn(writer.run(receiver));
        Self(Some(sender))
    }

    /// An object was read, with these problems.
    pub fn see(&self, object: &Object, problems: &[Problem]) {
        let (Some(sender), Some(policy)) = (&self.0, tiered(object)) else {
            return;
        };
        let wanted = wanted(policy, problems, jiff::Timestamp::now());
        if let Err(error) = sender.try_send((object.key(), wanted)) {
            debug!(%error, "a condition is left out: too many wait");
        }
    }
}

fn tiered(object: &Object) -> Option<&TierPolicy> {
    match object {
        Object::ClusterNetworkPolicy(policy)
        | Object::AdminNetworkPolicy(policy)
        | Object::BaselineAdminNetworkPolicy(policy) => Some(policy),
        _ => None,
    }
}

/// The condition that is to be written, if one is.
fn wanted(policy: &TierPolicy, problems: &[Problem], now: jiff::Timestamp) -> Option<Value> {
    let generation = policy.metadata.generation?;
    let conditions = policy.status.get("conditions").and_then(Value::as_array);
    let mut conditions = conditions.into_iter().flatten();
    let known = conditions.find(|condition| condition["type"] == TYPE);
    let observed = known.and_then(|known| known["observedGeneration"].as_i64());
    let was_understood = known.is_none_or(|known| known["status"] == "True");
    if observed == Some(generation) || (problems.is_empty() && was_understood) {
        return None;
    }
    let told = problems.iter().map(|problem| {
        let field = &problem.field;
        let separator = if field.is_empty() { "" } else { ": " };
        format!("{field}{separator}{} ({})", problem.message, problem.effect)
    });
    let told: Vec<String> = told.collect();
    let (status, reason, message) = if told.is_empty() {
        ("True", "Understood", "all of it is understood".to_owned())
    } else {
        ("False", "NotUnderstood", told.join("; "))
    };
    Some(json!({
        "type": TYPE,
        "status": status,
        "reason": reason,
        "message": &message[..message.floor_char_boundary(LONGEST)],
        "observedGeneration": generation,
        "lastTransitionTime": format!("{now:.0}"),
    }))
}

/// How long a node waits for others.
fn pause(node: &str) -> Duration {
    let mut hasher = DefaultHasher::new();
    node.hash(&mut hasher);
    let share = (hasher.finish() >> 32) as f64 / f64::from(u32::MAX);
    SPREAD.mul_f64(share)
}

struct Writer {
    link: Arc<Link>,
    pause: Duration,
    waiting: BTreeMap<ObjectKey, Waiting>,
}

struct Waiting {
    condition: Value,
    due: Instant,
    attempts: u32,
}

impl Writer {
    async fn run(mut self, mut seen: mpsc::Receiver<(ObjectKey, Option<Value>)>) {
        loop {
            let next = self.waiting.iter().min_by_key(|(_, waiting)| waiting.due);
            let next = next.map(|(key, waiting)| (key.clone(), waiting.due));
            let due = next.as_ref().map(|(_, due)| *due);
            tokio::select! {
                biased;
                seen = seen.recv() => match seen {
                    Some((key, wanted)) => self.note(key, wanted),
                    None => return,
                },
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    if let Some((key, _)) = next {
                        self.write(key).await;
                    }
                }
            }
        }
    }

    /// What another node has written meanwhile is not written again.
    fn note(&mut self, key: ObjectKey, wanted: Option<Value>) {
        match wanted {
            Some(condition) => {
                let waiting = Waiting {
                    condition,
                    due: Instant::now() + self.pause,
                    attempts: 0,
                };
                self.waiting.insert(key, waiting);
            }
            None => {
                self.waiting.remove(&key);
            }
        }
    }

    async fn write(&mut self, key: ObjectKey) {
        let Some(mut waiting) = self.waiting.remove(&key) else {
            return;
        };
        match self.apply(&key, &waiting.condition).await {
            Ok(()) => {}
            // It is not the time that makes these good.
            Err(
                failure @ Failure::Status {
                    code: 400..=428, ..
                },
            ) => debug!(object = %key, %failure, "a condition is left out"),
            Err(failure) => {
                waiting.attempts += 1;
                debug!(object = %key, %failure, "a condition is not written yet");
                if waiting.attempts < ATTEMPTS {
                    waiting.due = Instant::now() + PATIENCE;
                    self.waiting.insert(key, waiting);
                }
            }
        }
    }

    async fn apply(&self, key: &ObjectKey, condition: &Value) -> Result<(), Failure> {
        let Some(path) = object::path(&self.link, key).await? else {
            return Ok(());
        };
        let path = format!(
            "{path}/{}/status?fieldManager={MANAGER}&force=true",
            key.name
        );
        let body = json!({
            "apiVersion": key.kind.api_version(),
            "kind": key.kind.name(),
            "metadata": {"name": key.name},
            "status": {"conditions": [condition]},
        });
        let body = body.to_string().into_bytes();
        let form = "application/apply-patch+yaml";
        let sent = self.link.send(Method::PATCH, &path, form, body, PATIENCE);
        sent.await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Kind;

    fn policy(generation: Option<i64>, condition: Option<Value>) -> TierPolicy {
        let mut policy = TierPolicy::default();
        policy.metadata.generation = generation;
        policy.status = json!({"conditions": condition.into_iter().collect::<Vec<_>>()});
        policy
    }

    fn known(status: &str, generation: i64) -> Option<Value> {
        Some(json!({"type": TYPE, "status": status, "observedGeneration": generation}))
    }

    fn problem() -> Problem {
        Problem {
            origin: super::super::ORIGIN,
            object: Some(ObjectKey::new(Kind::ClusterNetworkPolicy, None, "p")),
            field: "spec.tier".to_owned(),
            message: "not a tier".to_owned(),
            effect: "it is closed".to_owned(),
        }
    }

    #[test]
    fn only_what_is_wrong_is_said_and_that_it_is_over() {
        let status = |policy: TierPolicy, problems: &[Problem]| {
            let wanted = wanted(&policy, problems, jiff::Timestamp::UNIX_EPOCH);
            wanted.map(|condition| condition["status"].clone())
        };
        let bad = [problem()];
        for (condition, when_good, when_bad) in [
            (None, None, Some("False")),
            (known("True", 2), None, Some("False")),
            (known("False", 2), Some("True"), Some("False")),
            // Of this version, somebody has said it, whatever it was.
            (known("True", 3), None, None),
            (known("False", 3), None, None),
        ] {
            let policy = || policy(Some(3), condition.clone());
            let [good, bad] = [status(policy(), &[]), status(policy(), &bad)];
            assert_eq!(
                (
                    good.as_ref().and_then(Value::as_str),
                    bad.as_ref().and_then(Value::as_str)
                ),
                (when_good, when_bad),
                "{condition:?}"
            );
        }
        assert_eq!(
            status(policy(None, None), &bad),
            None,
            "it is no API server's"
        );
    }

    #[test]
    fn a_condition_is_as_the_api_wants_it() {
        let now = "2026-01-31T08:00:00.25Z".parse().unwrap();
        let condition = wanted(&policy(Some(3), None), &[problem(), problem()], now);
        let told = "spec.tier: not a tier (it is closed)";
        assert_eq!(
            condition,
            Some(json!({
                "type": "sluice.dev/Understood",
                "status": "False",
                "reason": "NotUnderstood",
                "message": format!("{told}; {told}"),
                "observedGeneration": 3,
                "lastTransitionTime": "2026-01-31T08:00:00Z",
            }))
        );
    }

    #[test]
    fn nodes_wait_for_times_of_their_own() {
        let pauses: std::collections::BTreeSet<_> = (0..100)
            .map(|node| pause(&format!("node-{node}")))
            .collect();
        assert!(pauses.len() > 90 && pauses.iter().all(|pause| *pause <= SPREAD));
    }
}
