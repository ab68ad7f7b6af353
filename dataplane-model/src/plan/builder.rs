//! Collects operations into steps.

use dataplane_common::abi::{Abi, bytes_of};

use super::{Action, Step};
use crate::tables::MapId;

/// Steps so far.
#[derive(Default)]
pub(super) struct Builder {
    steps: Vec<Step>,
    unreachable: Vec<(MapId, u32)>,
}

impl Builder {
    /// Adds an entry to write.
    pub(super) fn put<K: Abi, V: Abi>(&mut self, map: MapId, key: &K, value: &V) {
        self.step(map, Action::Put)
            .push(bytes_of(key), bytes_of(value));
    }

    /// Adds a key to delete.
    pub(super) fn delete<K: Abi>(&mut self, map: MapId, key: &K) {
        self.step(map, Action::Delete).push(bytes_of(key), &[]);
    }

    /// Notes an array place that nothing points to any more.
    pub(super) fn forget(&mut self, map: MapId, place: u32) {
        self.unreachable.push((map, place));
    }

    /// Takes over all operations of another builder.
    pub(super) fn append(&mut self, other: Builder) {
        self.steps.extend(other.steps);
        self.unreachable.extend(other.unreachable);
    }

    /// True if nothing is to be written.
    pub(super) fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// The steps, and the places to forget.
    pub(super) fn finish(self) -> (Vec<Step>, Vec<(MapId, u32)>) {
        (self.steps, self.unreachable)
    }

    fn step(&mut self, map: MapId, action: Action) -> &mut Step {
        let goes_on = self
            .steps
            .last()
            .is_some_and(|step| step.map == map && step.action == action);
        if !goes_on {
            self.steps.push(Step::new(map, action));
        }
        let last = self.steps.len() - 1;
        &mut self.steps[last]
    }
}
