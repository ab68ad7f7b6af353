//! What is known of the following of each kind, for people.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use crate::admin::protocol::WatchedKind;
use crate::source::{Kind, ObjectKey, Problem};

/// How far the following of a kind is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Phase {
    /// It has not begun.
    #[default]
    Starting,
    /// All objects are being read.
    Listing,
    /// Changes are being waited for.
    Following,
    /// The last request failed; there will be another.
    Retrying,
    /// The cluster does not have this kind.
    NotServed,
}

impl Phase {
    /// All phases.
    pub const ALL: [Self; 5] = [
        Phase::Starting,
        Phase::Listing,
        Phase::Following,
        Phase::Retrying,
        Phase::NotServed,
    ];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Phase::Starting => "starting",
            Phase::Listing => "listing",
            Phase::Following => "following",
            Phase::Retrying => "retrying",
            Phase::NotServed => "not served",
        }
    }
}

/// The state of one kind.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// How far it is.
    pub phase: Phase,
    /// A full list was complete once.
    pub synced: bool,
    /// Objects known.
    pub objects: usize,
    /// Events since the start.
    pub events: u64,
    /// Full lists since the start.
    pub lists: u64,
    /// When the last event or bookmark came.
    pub last_sign: Option<Instant>,
    /// Requests that failed since the start.
    pub failures: u64,
    /// Why the last one failed, until one succeeds.
    pub failure: Option<String>,
    /// Objects that could not be read, since the start.
    pub bad_events: u64,
    /// Objects that cannot be read now.
    pub bad: BTreeMap<ObjectKey, Problem>,
}

impl State {
    /// The state for people.
    pub fn watched(self, kind: Kind) -> WatchedKind {
        WatchedKind {
            kind: kind.name().to_owned(),
            state: self.phase.name().to_owned(),
            synced: self.synced,
            objects: self.objects,
            lists: self.lists,
            events: self.events,
            last_event_secs_ago: self.last_sign.map(|at| at.elapsed().as_secs()),
            failures: self.failures,
            failure: self.failure,
            bad_objects: self.bad.len(),
        }
    }
}

/// The states of all kinds.
#[derive(Clone, Debug, Default)]
pub struct States(Arc<Mutex<BTreeMap<Kind, State>>>);

impl States {
    /// Changes the state of a kind.
    pub fn update<T>(&self, kind: Kind, change: impl FnOnce(&mut State) -> T) -> T {
        change(self.lock().entry(kind).or_default())
    }

    /// The states for people, of all kinds that are followed.
    pub fn watched(&self) -> Vec<WatchedKind> {
        let kinds = self.snapshot().into_iter();
        kinds.map(|(kind, state)| state.watched(kind)).collect()
    }

    /// The states as they are now.
    pub fn snapshot(&self) -> BTreeMap<Kind, State> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Kind, State>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
