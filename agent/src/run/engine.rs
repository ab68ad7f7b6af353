//! From events to maps: when the model's rounds run, and what became of them.

use std::time::Duration;

use anyhow::Result;
use dataplane_model::compile::Notice;
use dataplane_model::gone::Gone;
use dataplane_model::ids::IdTable;
use dataplane_model::reconcile::{Outcome, Reconciler};
use dataplane_model::snapshot::{Event, Kind, NodeConfig, Snapshot};
use dataplane_model::tables::MapId;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::bpf::{Maps, Store};
use crate::config::model_capacities;

/// First and longest pause before a plan that failed is tried again.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// When there is nothing to do.
const IDLE: Duration = Duration::from_secs(3_600);

/// The state of the cluster as it is known, and of the maps as they were written.
pub struct Engine {
    state: Reconciler,
    store: Store,
    notices: Vec<Notice>,
    /// Notices that are new since they were last taken.
    fresh: Vec<Notice>,
    /// When there is time for a round.
    work_at: Instant,
    /// When a round has to run, whatever else there is to do.
    latest: Instant,
    /// When the first change came that is not in force yet.
    changed_at: Option<Instant>,
    /// When every source had delivered its first list.
    complete_at: Option<Instant>,
    retry: Duration,
    history: History,
    /// Backends that were removed.
    gone: Vec<Gone>,
}

/// What became of the rounds.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// Rounds that were written in full.
    pub done: u64,
    /// Rounds of which something could not be made or written.
    pub failed: u64,
    /// When the last one was done.
    pub last: Option<Instant>,
    /// From its first change to the end of its writing.
    pub last_took: Duration,
    /// Its operations.
    pub last_operations: usize,
    /// Why changes are not in force.
    pub pending: Option<String>,
    /// Everything that was there at the start is in force.
    pub in_sync: bool,
}

impl Engine {
    /// Goes on from what the maps hold.
    ///
    /// # Errors
    ///
    /// A map cannot be read.
    pub fn adopt(maps: &Maps, node: NodeConfig) -> Result<Self> {
        let store = Store::new(maps)?;
        let capacities =
            model_capacities(|name| maps.raw(name).ok().map(|map| map.info().max_entries));
        let snapshot = Snapshot::new(node, Kind::ALL);
        let state = Reconciler::adopt(snapshot, IdTable::new(capacities), &store)?;
        debug!(numbers = state.used(MapId::Ids), "maps read back");
        let idle = Instant::now() + IDLE;
        Ok(Self {
            state,
            store,
            notices: Vec::new(),
            fresh: Vec::new(),
            work_at: idle,
            latest: idle,
            changed_at: None,
            complete_at: None,
            retry: RETRY.0,
            history: History::default(),
            gone: Vec::new(),
        })
    }

    /// Folds an event in; what follows from it is written as soon as no other event is ready, and after
    /// `settle` at the latest.
    pub fn fold(&mut self, event: Event, settle: Duration) {
        self.fold_from(event, Instant::now(), settle);
    }

    /// Folds an event in that became known at `received`.
    pub fn fold_from(&mut self, event: Event, received: Instant, settle: Duration) {
        if !self.state.fold(event) {
            return;
        }
        let now = Instant::now();
        if self.complete_at.is_none() && self.state.snapshot().is_in_sync() {
            self.complete_at = Some(now);
        }
        self.changed_at.get_or_insert(received);
        self.work_at = self.work_at.min(now);
        self.latest = self.latest.min(now + settle);
    }

    /// True if [`Self::reconcile`] has waited long enough for other events.
    pub fn is_overdue(&self) -> bool {
        Instant::now() >= self.latest
    }

    /// When the oldest change came that is not in force yet.
    pub fn oldest_change(&self) -> Option<Instant> {
        self.changed_at
    }

    /// When [`Self::reconcile`] is to be called next.
    pub fn work_at(&self) -> Instant {
        self.work_at
    }

    /// Brings the maps to what the snapshot asks for. True if it was the time to.
    pub fn reconcile(&mut self) -> bool {
        self.work_at = Instant::now() + IDLE;
        self.latest = self.work_at;
        if !self.state.snapshot().is_in_sync() {
            return false;
        }
        let outcome = self.state.reconcile(&mut self.store);
        self.warn();
        if outcome.errors.is_empty() {
            self.gone.extend(self.state.take_gone());
            self.succeeded(outcome);
        } else {
            self.failed(outcome.errors.join("; "));
        }
        true
    }

    /// Backends that rounds in force have removed since the last call.
    pub fn take_gone(&mut self) -> Vec<Gone> {
        std::mem::take(&mut self.gone)
    }

    /// The model's state.
    pub fn state(&self) -> &Reconciler {
        &self.state
    }

    /// The snapshot.
    pub fn snapshot(&self) -> &Snapshot {
        self.state.snapshot()
    }

    /// The numbers.
    pub fn ids(&self) -> &IdTable {
        self.state.ids()
    }

    /// What owners of objects should know.
    pub fn notices(&self) -> &[Notice] {
        &self.notices
    }

    /// Notices that are new since the last call.
    pub fn take_fresh(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.fresh)
    }

    /// Where it is written.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// What became of the plans.
    pub fn history(&self) -> &History {
        &self.history
    }

    fn warn(&mut self) {
        let notices = self.state.notices();
        // Both are sorted.
        let is_new = |notice: &&Notice| self.notices.binary_search(notice).is_err();
        let fresh: Vec<Notice> = notices.iter().filter(is_new).cloned().collect();
        fresh.iter().for_each(|notice| warn!("{notice}"));
        self.fresh.extend(fresh);
        self.notices = notices;
    }

    fn succeeded(&mut self, outcome: Outcome) {
        let operations = outcome.operations;
        let took = self
            .changed_at
            .take()
            .map(|at| at.elapsed())
            .unwrap_or_default();
        self.retry = RETRY.0;
        let history = &mut self.history;
        if history.pending.is_some() && outcome.refused.is_none() {
            info!("all changes are in force again");
        }
        history.pending = outcome.refused;
        history.done += 1;
        history.last = Some(Instant::now());
        history.last_took = took;
        history.last_operations = operations;
        if !history.in_sync {
            history.in_sync = true;
            let since_complete = self.complete_at.map_or(Duration::ZERO, |at| at.elapsed());
            info!(
                operations,
                maps_us = since_complete.as_micros() as u64,
                "in sync"
            );
        }
        debug!(
            operations,
            took_us = took.as_micros() as u64,
            "round written"
        );
    }

    fn failed(&mut self, text: String) {
        self.history.failed += 1;
        if self.history.pending.as_ref() != Some(&text) {
            warn!("{text}; what was in force stays, and the change is tried again");
        }
        self.history.pending = Some(text);
        self.work_at = Instant::now() + self.retry;
        self.retry = (self.retry * 2).min(RETRY.1);
    }
}
