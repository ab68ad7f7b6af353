//! The Kubernetes API as a source: each kind is listed and watched over one connection, and what
//! comes is passed on object by object (ADR 7).

mod access;
mod census;
mod conditions;
mod decode;
mod dial;
mod discover;
mod events;
mod follow;
mod intake;
mod kinds;
mod last_good;
mod ledger;
mod lines;
mod link;
mod memory;
mod object;
mod state;
mod watch;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use dataplane_model::snapshot::Kind as ModelKind;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tracing::debug;

pub use access::{Access, Error};
pub use census::Census;
pub use conditions::Conditions;
pub use events::{Events, Told};
use follow::{Follower, Message};
pub use kinds::plural;
pub use link::Link;
pub use object::Versions;
pub use state::{Phase, State, States};
pub use watch::Timing;

use super::{Batch, Kind, Origin, Problem};
use crate::admin::protocol::SourceStatus;

/// Where objects of the API stand.
const ORIGIN: Origin = Origin {
    file: Cow::Borrowed("API server"),
    line: 0,
};
/// How long the start waits for a count of the objects.
const CENSUS: Duration = Duration::from_secs(3);
/// Messages that wait for the agent: what makes a fast server wait for a slow node.
const WAITING: usize = 16;

/// Why a request did not bring what it should.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Failure {
    /// The server does not answer.
    #[error("no answer within {} s", .0.as_secs_f32())]
    Silent(Duration),
    /// The next part of an answer does not come.
    #[error("the answer stopped half-way")]
    Stalled,
    /// There is no connection, or it broke.
    #[error("{0}")]
    Broken(String),
    /// The server refuses.
    #[error("HTTP status {code}: {message}")]
    Status {
        /// The HTTP status code.
        code: u16,
        /// What it says.
        message: String,
        /// How long it wants to be left alone.
        retry_after: Option<Duration>,
    },
    /// What it says cannot be understood.
    #[error("not understood: {0}")]
    Garbage(String),
}

/// The source.
#[derive(Debug)]
pub struct Api {
    link: Arc<Link>,
    states: States,
    messages: mpsc::Receiver<Message>,
    /// Kinds whose first full list is not complete.
    awaited: BTreeSet<Kind>,
    /// Ends them when the source is dropped.
    _followers: JoinSet<()>,
}

impl Api {
    /// Begins to follow all kinds. In the file `memory`, where the API servers are is kept for the next
    /// start.
    ///
    /// # Errors
    ///
    /// The credentials cannot be used. A server that does not answer is waited for.
    pub async fn open(
        access: Access,
        timing: Timing,
        memory: Option<PathBuf>,
    ) -> Result<Self, Error> {
        let link = Link::new(access).await?;
        let states = States::default();
        let (sender, messages) = mpsc::channel(WAITING);
        let mut followers = JoinSet::new();
        for kind in Kind::ALL {
            let (link, states) = (Arc::clone(&link), states.clone());
            let (sender, memory) = (sender.clone(), memory.clone());
            followers.spawn(Follower::new(kind, link, sender, states, timing, memory).run());
        }
        Ok(Self {
            link,
            states,
            messages,
            awaited: Kind::ALL.into(),
            _followers: followers,
        })
    }

    /// Waits for changes. Cancelling it loses nothing.
    pub async fn next(&mut self) -> Batch {
        let Some(message) = self.messages.recv().await else {
            // The followers end after this receiver.
            return std::future::pending().await;
        };
        let mut in_sync = Vec::new();
        if message.complete && self.awaited.remove(&message.kind) {
            in_sync.extend(self.completed(message.kind.in_model()));
        }
        Batch {
            changes: message.changes,
            in_sync,
            received: message.received,
        }
    }

    /// How many objects there are; `None` if the server does not say.
    pub async fn census(&self) -> Option<Census> {
        let census = census::census(&self.link, CENSUS).await;
        let failed = |failure: &Failure| debug!("the objects are not counted: {failure}");
        census.inspect_err(failed).ok()
    }

    /// The objects that cannot be read.
    pub fn problems(&self) -> Vec<Problem> {
        let states = self.states.snapshot().into_values();
        states.flat_map(|state| state.bad.into_values()).collect()
    }

    /// What is known of it, for people.
    pub fn status(&self) -> SourceStatus {
        SourceStatus {
            place: self.link.url(),
            connected: self
                .link
                .addresses()
                .connected()
                .map(|address| address.to_string()),
            kinds: self.states.watched(),
        }
    }

    /// The state of each kind.
    pub fn states(&self) -> &States {
        &self.states
    }

    /// The connection.
    pub fn link(&self) -> &Arc<Link> {
        &self.link
    }

    /// The model's kind, if all kinds that become it have been read.
    fn completed(&self, kind: ModelKind) -> Option<ModelKind> {
        let waits = self
            .awaited
            .iter()
            .any(|awaited| awaited.in_model() == kind);
        (!waits).then_some(kind)
    }
}

#[cfg(test)]
mod tests;
