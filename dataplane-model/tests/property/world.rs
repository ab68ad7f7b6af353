//! An agent without the I/O: its state and the maps.

use dataplane_model::capacity::Capacities;
use dataplane_model::ids::IdTable;
use dataplane_model::reconcile::{Outcome, Reconciler};
use dataplane_model::snapshot::{Object, Snapshot};
use dataplane_model::store::MemoryStore;
use dataplane_model::tables::{MapId, Tables};

use sluice_generate::{changes, cluster::node};

#[derive(Clone)]
pub struct World {
    pub state: Reconciler,
    pub store: MemoryStore,
}

impl World {
    /// Nothing is in the maps.
    pub fn new(snapshot: Snapshot) -> Self {
        Self {
            state: Reconciler::new(snapshot, fresh_ids()),
            store: MemoryStore::default(),
        }
    }

    /// The maps lead to these objects.
    pub fn of(objects: &[Object]) -> Self {
        let mut world = Self::new(Snapshot::new(node(), []));
        world.turn_into(&[], objects);
        world.reconcile();
        world
    }

    /// Tells the events that turn objects into others.
    pub fn turn_into(&mut self, old: &[Object], new: &[Object]) {
        for event in changes(old, new) {
            self.state.fold(event);
        }
    }

    /// Brings the maps to what the snapshot asks for.
    pub fn reconcile(&mut self) -> Outcome {
        let outcome = self.state.reconcile(&mut self.store);
        assert_eq!(outcome.errors, Vec::<String>::new());
        assert_eq!(outcome.refused, None);
        assert_eq!(self.state.epoch() % 2, 0, "no change of policy is open");
        assert_eq!(self.state.pending(), 0);
        outcome
    }

    /// Brings the maps to what the snapshot asks for, until `stop` operations are done.
    pub fn cut(&mut self, stop: usize) {
        self.store.budget = Some(stop);
        let outcome = self.state.reconcile(&mut self.store);
        assert_ne!(
            outcome.errors,
            Vec::<String>::new(),
            "{stop} operations were enough"
        );
        self.store.budget = None;
    }

    /// A new process: it knows only what is in the maps, and the objects.
    pub fn restart(&mut self, snapshot: Snapshot) {
        self.store.budget = None;
        self.state =
            Reconciler::adopt(snapshot, fresh_ids(), &self.store).expect("the maps can be read");
    }

    /// What the agent believes to be in the maps.
    pub fn tables(&self) -> Tables {
        self.state.tables()
    }

    /// What the maps hold, without array places that nothing points to.
    pub fn reachable(&self) -> Tables {
        let mut found = self.store.tables();
        let wanted = self.tables();
        found
            .slots
            .retain(|place, _| wanted.slots.contains_key(place));
        found
            .classes
            .retain(|place, _| wanted.classes.contains_key(place));
        found
            .rulesets
            .retain(|place, _| wanted.rulesets.contains_key(place));
        found
            .port_bounds
            .retain(|place, _| wanted.port_bounds.contains_key(place));
        found
            .v4
            .backends
            .retain(|_, backend| backend.service_port != 0);
        found
            .v6
            .backends
            .retain(|_, backend| backend.service_port != 0);
        found
    }
}

/// Few places for pods, so that some must share one.
pub fn fresh_ids() -> IdTable {
    let capacities = Capacities {
        subjects: 4,
        ..Capacities::default()
    };
    assert_eq!(capacities.of(MapId::Subjects), 4);
    IdTable::new(capacities)
}
