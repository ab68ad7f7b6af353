//! An agent without the I/O: numbers, maps, and the record of what was written.

use dataplane_model::capacity::Capacities;
use dataplane_model::compile::{Desired, compile};
use dataplane_model::ids::IdTable;
use dataplane_model::plan::Plan;
use dataplane_model::snapshot::Snapshot;
use dataplane_model::store::{MemoryStore, Written};
use dataplane_model::tables::{MapId, Tables};

#[derive(Clone)]
pub struct World {
    pub ids: IdTable,
    pub store: MemoryStore,
    pub written: Written,
}

impl World {
    pub fn new() -> Self {
        Self {
            ids: fresh_ids(),
            store: MemoryStore::default(),
            written: Written::default(),
        }
    }

    /// What is desired, and how to get there.
    pub fn plan(&mut self, snapshot: &Snapshot) -> (Desired, Plan) {
        let desired = compile(snapshot, &mut self.ids).expect("it fits");
        let plan = Plan::new(&desired, &self.written, &self.ids).expect("it fits");
        (desired, plan)
    }

    /// Brings the maps to what the snapshot asks for.
    pub fn reconcile(&mut self, snapshot: &Snapshot) -> Desired {
        let (desired, plan) = self.plan(snapshot);
        plan.apply(&mut self.store, &mut self.written, &mut self.ids)
            .expect("the store takes all");
        assert_eq!(self.written.tables, desired.tables);
        assert_eq!(self.written.epoch % 2, 0, "no change of policy is open");
        desired
    }

    /// A new process: it knows only what is in the maps.
    pub fn restart(&mut self) {
        self.store.budget = None;
        (self.written, self.ids) =
            Written::adopt(&self.store, fresh_ids()).expect("the maps can be read");
    }

    /// What the maps hold, without array places that nothing points to.
    pub fn reachable(&self, desired: &Desired) -> Tables {
        let (mut adopted, _) =
            Written::adopt(&self.store, fresh_ids()).expect("the maps can be read");
        let tables = &mut adopted.tables;
        tables
            .slots
            .retain(|place, _| desired.tables.slots.contains_key(place));
        tables
            .classes
            .retain(|place, _| desired.tables.classes.contains_key(place));
        tables
            .rulesets
            .retain(|place, _| desired.tables.rulesets.contains_key(place));
        tables
            .port_bounds
            .retain(|place, _| desired.tables.port_bounds.contains_key(place));
        adopted.tables
    }
}

/// Few places for pods, so that some must share one.
fn fresh_ids() -> IdTable {
    let capacities = Capacities {
        subjects: 4,
        ..Capacities::default()
    };
    assert_eq!(capacities.of(MapId::Subjects), 4);
    IdTable::new(capacities)
}
