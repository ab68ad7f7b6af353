//! Writes of one kind after another: what a frontend leads to before the frontend.

use dataplane_common::abi::{Abi, bytes_of};

use crate::plan::{Action, Step};
use crate::snapshot::ObjectKey;
use crate::store::{Failed, MapStore};
use crate::tables::MapId;

/// The order of what is written.
const ORDER: [MapId; 9] = [
    MapId::Ids,
    MapId::Backends4,
    MapId::Backends6,
    MapId::Slots,
    MapId::Classes,
    MapId::SourceRanges4,
    MapId::SourceRanges6,
    MapId::Services4,
    MapId::Services6,
];

/// Writes for some Services.
#[derive(Clone, Debug)]
pub(super) struct Batch {
    steps: [Step; ORDER.len()],
    /// The Services.
    pub(super) services: Vec<ObjectKey>,
}

impl Default for Batch {
    fn default() -> Self {
        Self {
            steps: ORDER.map(|map| Step::new(map, Action::Put)),
            services: Vec::new(),
        }
    }
}

impl Batch {
    /// Adds an entry to write.
    pub(super) fn put<K: Abi, V: Abi>(&mut self, map: MapId, key: &K, value: &V) {
        if let Some(step) = self.steps.iter_mut().find(|step| step.map() == map) {
            step.push(bytes_of(key), bytes_of(value));
        }
    }

    /// Takes an entry back that one of the batch's Services was to write: another's takes its place.
    pub(super) fn take_back<K: Abi>(&mut self, service: &ObjectKey, map: MapId, key: &K) {
        if self.services.contains(service)
            && let Some(step) = self.steps.iter_mut().find(|step| step.map() == map)
        {
            step.remove(bytes_of(key));
        }
    }

    /// Operations.
    pub(super) fn len(&self) -> usize {
        self.steps.iter().map(Step::len).sum()
    }

    /// Does the writes in order.
    pub(super) fn run<S: MapStore>(&self, store: &mut S) -> Result<(), S::Error> {
        run(&self.steps, store)
    }
}

/// Does steps in order, up to the first failure.
pub(super) fn run<S: MapStore>(steps: &[Step], store: &mut S) -> Result<(), S::Error> {
    let steps = steps.iter().filter(|step| !step.is_empty());
    for step in steps {
        step.run(store).map_err(|Failed { error, .. }| error)?;
    }
    Ok(())
}
