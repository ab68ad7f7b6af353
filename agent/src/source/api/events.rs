//! Events (events.k8s.io/v1) on the objects that something is to be known about.
//!
//! What is told is told once: an Event's name follows from what it says, so that of all nodes that
//! say the same the first makes it, and an agent that starts again makes no other. What happens again
//! is counted in its series. Whoever tells never waits; what does not fit is in the log alone.

mod journal;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use dataplane_model::compile::Notice;
use http::Method;
use http_body_util::{BodyExt, Limited};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tracing::debug;

use super::link::{Link, broken};
use super::{Failure, object};
use crate::source::{Kind, ObjectKey, Problem};
use journal::{Journal, Post};

/// Events that wait to be posted.
const WAITING: usize = 256;
/// How long the server has for an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Pauses between attempts.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(5)];
/// Who reports, as a qualified name.
const CONTROLLER: &str = "sluice.dev/agent";
/// The longest note and reporting instance that the API server takes, in bytes.
const LONGEST: (usize, usize) = (1_024, 128);
/// An answer is at most so long.
const LONGEST_ANSWER: usize = 4 << 20;
/// Where Events on objects without a namespace are.
const NO_NAMESPACE: &str = "default";

/// What is to be known about an object.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Told {
    /// The object.
    pub object: ObjectKey,
    /// Why, in CamelCase, for machines.
    pub reason: &'static str,
    /// What happened and what is done about it, for people.
    pub note: String,
}

impl Told {
    /// What the model's compiler has to say; `None` if that is about no object of the API.
    pub fn of_notice(notice: &Notice) -> Option<Self> {
        let (kind, name) = notice.object.split_once(' ')?;
        let kind = Kind::ALL.into_iter().find(|known| known.name() == kind)?;
        let (namespace, name) = match name.split_once('/') {
            Some((namespace, name)) => (Some(namespace), name),
            None => (None, name),
        };
        Some(Self {
            object: ObjectKey::new(kind, namespace, name),
            reason: notice.reason,
            note: notice.text.clone(),
        })
    }

    /// An object that cannot be understood; `None` if it is not known which.
    pub fn of_problem(problem: &Problem) -> Option<Self> {
        let place = if problem.field.is_empty() {
            String::new()
        } else {
            format!("{}: ", problem.field)
        };
        Some(Self {
            object: problem.object.clone()?,
            reason: "NotUnderstood",
            note: format!("{place}{}; {}", problem.message, problem.effect),
        })
    }

    fn namespace(&self) -> &str {
        match &*self.object.namespace {
            "" => NO_NAMESPACE,
            namespace => namespace,
        }
    }

    /// The Event's name.
    fn name(&self) -> String {
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        format!("{}.{:016x}", self.object.name, hasher.finish())
    }

    /// The Event as it is made first.
    fn event(&self, node: &str, uid: Option<&str>, now: jiff::Timestamp) -> Value {
        let ObjectKey {
            kind,
            namespace,
            name,
        } = &self.object;
        let mut regarding = json!({
            "apiVersion": kind.api_version(),
            "kind": kind.name(),
            "name": name,
        });
        if !namespace.is_empty() {
            regarding["namespace"] = json!(namespace);
        }
        if let Some(uid) = uid {
            regarding["uid"] = json!(uid);
        }
        json!({
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": self.name(), "namespace": self.namespace()},
            "eventTime": micros(now),
            "type": "Warning",
            "reason": self.reason,
            "action": "Serve",
            "regarding": regarding,
            "note": shortened(&self.note, LONGEST.0),
            "reportingController": CONTROLLER,
            "reportingInstance": shortened(node, LONGEST.1),
        })
    }
}

/// Takes what is to be told. Without an API server it goes nowhere.
#[derive(Clone, Debug, Default)]
pub struct Events(Option<mpsc::Sender<Told>>);

impl Events {
    /// Begins to post, on the current runtime, until all copies of this are gone.
    pub fn start(link: Arc<Link>, node: &str) -> Self {
        let (sender, receiver) = mpsc::channel(WAITING);
        let poster = Poster {
            link,
            node: node.to_owned(),
            journal: Journal::new(Instant::now()),
        };
        tokio::spawn(poster.run(receiver));
        Self(Some(sender))
    }

    /// Tells something, at once.
    pub fn tell(&self, told: Told) {
        let Some(sender) = &self.0 else {
            return;
        };
        if let Err(error) = sender.try_send(told) {
            debug!(%error, "an Event is left out: too many wait");
        }
    }
}

struct Poster {
    link: Arc<Link>,
    node: String,
    journal: Journal,
}

impl Poster {
    async fn run(mut self, mut told: mpsc::Receiver<Told>) {
        while let Some(told) = told.recv().await {
            let Some(post) = self.journal.note(&told, Instant::now()) else {
                continue;
            };
            if let Err(failure) = self.post(&told, post).await {
                debug!(object = %told.object, reason = told.reason, %failure, "an Event is left out");
                self.journal.forget(&told);
            }
        }
    }

    async fn post(&self, told: &Told, post: Post) -> Result<(), Failure> {
        let mut pauses = PAUSES.into_iter();
        loop {
            let posted = match post {
                Post::First => self.create(told).await,
                Post::Again(count) => self.count(told, count).await,
            };
            match posted {
                // It is not the time that makes these good.
                Err(Failure::Status {
                    code: 400..=428, ..
                })
                | Ok(()) => return posted,
                Err(failure) => match pauses.next() {
                    Some(pause) => sleep(pause).await,
                    None => return Err(failure),
                },
            }
        }
    }

    async fn create(&self, told: &Told) -> Result<(), Failure> {
        let uid = self.uid(&told.object).await;
        let event = told.event(&self.node, uid.as_deref(), jiff::Timestamp::now());
        let path = path(told.namespace());
        let sent = self.send(Method::POST, &path, "application/json", &event);
        match sent.await {
            // Another node has told it, or this one before it started again.
            Err(Failure::Status { code: 409, .. }) => Ok(()),
            sent => sent,
        }
    }

    async fn count(&self, told: &Told, count: u32) -> Result<(), Failure> {
        let observed = micros(jiff::Timestamp::now());
        let series = json!({"series": {"count": count, "lastObservedTime": observed}});
        let path = format!("{}/{}", path(told.namespace()), told.name());
        let form = "application/merge-patch+json";
        match self.send(Method::PATCH, &path, form, &series).await {
            // The API server forgets Events after a time.
            Err(Failure::Status { code: 404, .. }) => self.create(told).await,
            sent => sent,
        }
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        form: &'static str,
        body: &Value,
    ) -> Result<(), Failure> {
        let body = body.to_string().into_bytes();
        let sent = self.link.send(method, path, form, body, PATIENCE).await;
        let body = Limited::new(sent?.into_body(), LONGEST_ANSWER).collect();
        match tokio::time::timeout(PATIENCE, body).await {
            Err(_) => Err(Failure::Stalled),
            Ok(Err(error)) => Err(broken(&*error)),
            Ok(Ok(_)) => Ok(()),
        }
    }

    /// The object's uid, by which `kubectl describe` finds its Events. A Node's Events name it by its
    /// name, as the kubelet's do.
    async fn uid(&self, of: &ObjectKey) -> Option<String> {
        if of.kind == Kind::Node {
            return Some(of.name.clone());
        }
        object::metadata(&self.link, of).await.ok()??.uid
    }
}

fn path(namespace: &str) -> String {
    format!("/apis/events.k8s.io/v1/namespaces/{namespace}/events")
}

/// `meta/v1` MicroTime.
fn micros(time: jiff::Timestamp) -> String {
    format!("{time:.6}")
}

/// The beginning of a text, not longer than this in bytes.
fn shortened(text: &str, most: usize) -> &str {
    &text[..text.floor_char_boundary(most)]
}
