//! From events to maps: folds them into the snapshot, compiles, plans, and writes.

use std::time::Duration;

use anyhow::Result;
use dataplane_common::abi::name;
use dataplane_model::capacity::CapacityError;
use dataplane_model::compile::{Desired, compile};
use dataplane_model::gone::{Gone, gone};
use dataplane_model::ids::IdTable;
use dataplane_model::plan::Plan;
use dataplane_model::snapshot::{Event, Kind, NodeConfig, Snapshot};
use dataplane_model::store::Written;
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
    snapshot: Snapshot,
    ids: IdTable,
    written: Written,
    store: Store,
    desired: Desired,
    work_at: Instant,
    /// When the first change came that is not in force yet.
    changed_at: Option<Instant>,
    retry: Duration,
    history: History,
    /// Backends that were removed.
    gone: Vec<Gone>,
}

/// What became of the plans.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// Plans that were written in full.
    pub done: u64,
    /// Plans that could not be made or written.
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
        let (written, ids) = Written::adopt(&store, IdTable::new(capacities))?;
        debug!(
            entries = written.tables.ids.len(),
            map = name::IDS,
            "numbers read back"
        );
        Ok(Self {
            snapshot: Snapshot::new(node, Kind::ALL),
            ids,
            written,
            store,
            desired: Desired::default(),
            work_at: Instant::now() + IDLE,
            changed_at: None,
            retry: RETRY.0,
            history: History::default(),
            gone: Vec::new(),
        })
    }

    /// Folds an event in; what follows from it is written after `settle` at the latest.
    pub fn fold(&mut self, event: Event, settle: Duration) {
        self.fold_from(event, Instant::now(), settle);
    }

    /// Folds an event in that became known at `received`.
    pub fn fold_from(&mut self, event: Event, received: Instant, settle: Duration) {
        if !self.snapshot.apply(event) {
            return;
        }
        self.changed_at.get_or_insert(received);
        self.work_at = self.work_at.min(Instant::now() + settle);
    }

    /// When the oldest change came that is not in force yet.
    pub fn oldest_change(&self) -> Option<Instant> {
        self.changed_at
    }

    /// When [`Self::reconcile`] is to be called next.
    pub fn work_at(&self) -> Instant {
        self.work_at
    }

    /// Brings the maps to what the snapshot asks for. True if something was compiled.
    pub fn reconcile(&mut self) -> bool {
        self.work_at = Instant::now() + IDLE;
        if !self.snapshot.is_in_sync() {
            return false;
        }
        match self.apply() {
            Ok(operations) => self.succeeded(operations),
            Err(text) => self.failed(text),
        }
        true
    }

    /// Backends that plans in force have removed since the last call.
    pub fn take_gone(&mut self) -> Vec<Gone> {
        if self.history.pending.is_some() {
            return Vec::new();
        }
        std::mem::take(&mut self.gone)
    }

    /// The snapshot.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// The numbers.
    pub fn ids(&self) -> &IdTable {
        &self.ids
    }

    /// What the maps are to hold.
    pub fn desired(&self) -> &Desired {
        &self.desired
    }

    /// What the maps hold.
    pub fn written(&self) -> &Written {
        &self.written
    }

    /// Where it is written.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// What became of the plans.
    pub fn history(&self) -> &History {
        &self.history
    }

    fn apply(&mut self) -> Result<usize, String> {
        let desired = compile(&self.snapshot, &mut self.ids).map_err(|errors| full(&errors))?;
        for notice in &desired.notices {
            if !self.desired.notices.contains(notice) {
                warn!("{notice}");
            }
        }
        let plan = Plan::new(&desired, &self.written, &self.ids).map_err(|errors| full(&errors))?;
        self.desired = desired;
        self.gone
            .extend(gone(&self.written.tables, &self.desired.tables));
        plan.apply(&mut self.store, &mut self.written, &mut self.ids)
            .map_err(|error| error.to_string())?;
        Ok(plan.len())
    }

    fn succeeded(&mut self, operations: usize) {
        let took = self
            .changed_at
            .take()
            .map(|at| at.elapsed())
            .unwrap_or_default();
        self.retry = RETRY.0;
        let history = &mut self.history;
        if history.pending.take().is_some() {
            info!("all changes are in force again");
        }
        history.done += 1;
        history.last = Some(Instant::now());
        history.last_took = took;
        history.last_operations = operations;
        if !history.in_sync {
            history.in_sync = true;
            info!(operations, "in sync");
        }
        debug!(operations, ?took, "plan written");
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

fn full(errors: &[CapacityError]) -> String {
    let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
    texts.join("; ")
}
