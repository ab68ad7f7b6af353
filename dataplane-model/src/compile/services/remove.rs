//! Removing what no Service needs any more.

use std::collections::HashSet;
use std::hash::Hash;

use dataplane_common::abi::{Abi, Addr4, Addr6, BackendVal, ServiceKey, SourceRangeKey, bytes_of};

use super::batch;
use super::depend::Marks;
use super::maps::{Held, Holdings, Maps, Side};
use super::place::give_back;
use super::{Round, State};
use crate::ids::IdTable;
use crate::plan::{Action, Step};
use crate::snapshot::ObjectKey;
use crate::store::MapStore;
use crate::tables::{Family, MapId};

impl Maps {
    /// What a Service had and has no more. Its frontends leave at once; those that wait for one of
    /// them are marked.
    pub(super) fn retire(
        &mut self,
        key: &ObjectKey,
        old: Holdings,
        new: &Holdings,
        marks: &mut Marks,
    ) -> Holdings {
        Holdings {
            v4: self.retire_family(key, old.v4, new, marks),
            v6: self.retire_family(key, old.v6, new, marks),
            blocks: without(old.blocks, &new.blocks),
            classes: without(old.classes, &new.classes),
            ids: without(old.ids, &new.ids),
        }
    }

    fn retire_family<A: Family>(
        &mut self,
        key: &ObjectKey,
        old: Held<A>,
        new: &Holdings,
        marks: &mut Marks,
    ) -> Held<A> {
        let new = A::held(new);
        let side = A::side_mut(self);
        for frontend in without(old.keys, &new.keys) {
            let is_own = |side: &Side<A>| {
                let front = side.frontends.get(&frontend);
                front.is_some_and(|front| front.owner == *key)
            };
            if is_own(side) {
                side.frontends.remove(&frontend);
                side.leaving.insert(frontend);
                side.unclaim(&frontend, marks);
            }
            if !new.keys.iter().any(|other| other.addr == frontend.addr) {
                side.leave(frontend.addr, key);
            }
        }
        Held {
            backends: without(old.backends, &new.backends),
            keys: Box::default(),
            ranges: without(old.ranges, &new.ranges),
        }
    }

    /// The Service waits for nothing any more, until it says so again.
    pub(super) fn stop_waiting(&mut self, key: &ObjectKey) {
        if self.waiters.remove(key) {
            self.v4.stop_waiting(key);
            self.v6.stop_waiting(key);
        }
    }
}

impl State {
    /// True if something may be removed.
    pub(super) fn has_removals(&self) -> bool {
        !self.retired.is_empty()
            || !self.maps.v4.leaving.is_empty()
            || !self.maps.v6.leaving.is_empty()
    }

    /// Removes what no Service needs. True if that made room. What a Service had whose new state may
    /// not be written yet stays.
    pub(super) fn remove<S: MapStore>(
        &mut self,
        ids: &mut IdTable,
        store: &mut S,
        round: &mut Round,
    ) -> bool {
        if !self.has_removals() {
            return false;
        }
        let owners = self.retired.keys();
        let owners: Vec<_> = owners
            .filter(|key| !self.unsure.contains(*key))
            .cloned()
            .collect();
        if let Some(orphaned) = self.retired.get_mut(&super::adopt::orphan()) {
            // Some Service may have come to hold one since.
            let numbers = orphaned.ids.iter().filter(|key| !ids.is_held(key));
            orphaned.ids = numbers.copied().collect();
        }
        let mut gone = Holdings::default();
        for held in owners.iter().filter_map(|owner| self.retired.get(owner)) {
            gone.join(held.clone());
        }
        let mut numbers = Step::new(MapId::Ids, Action::Delete);
        gone.ids
            .iter()
            .for_each(|key| numbers.push(bytes_of(key), &[]));
        let steps = [
            self.frontends::<Addr4>(),
            self.frontends::<Addr6>(),
            ranges(&gone.v4),
            ranges(&gone.v6),
            self.emptied(&gone.v4),
            self.emptied(&gone.v6),
            numbers,
        ];
        round.operations += steps.iter().map(Step::len).sum::<usize>();
        if let Err(error) = batch::run(&steps, store) {
            round.failure.get_or_insert_with(|| error.to_string());
            return false;
        }
        owners.iter().for_each(|owner| {
            self.retired.remove(owner);
        });
        self.maps.v4.leaving.clear();
        self.maps.v6.leaving.clear();
        self.free(gone, ids);
        true
    }

    fn frontends<A: Family>(&self) -> Step
    where
        ServiceKey<A>: Abi,
    {
        let mut step = Step::new(A::SERVICES, Action::Delete);
        let leaving = &A::side(&self.maps).leaving;
        leaving.iter().for_each(|key| step.push(bytes_of(key), &[]));
        step
    }

    /// An emptied backend keeps a generation, so that flows and affinities see that it is gone.
    fn emptied<A: Family>(&self, gone: &Held<A>) -> Step
    where
        BackendVal<A>: Abi,
    {
        let mut step = Step::new(A::BACKENDS, Action::Put);
        for index in &gone.backends {
            let empty = empty(A::side(&self.maps).backends.get(*index));
            step.push(bytes_of(index), bytes_of(&empty));
        }
        step
    }

    fn free(&mut self, gone: Holdings, ids: &mut IdTable) {
        fn family<A: Family>(maps: &mut Maps, gone: &Held<A>) {
            let places = &mut A::side_mut(maps).backends;
            for &index in &gone.backends {
                places.set(index, empty(places.get(index)));
            }
            give_back(places, &gone.backends);
            A::side_mut(maps).ranges -= gone.ranges.len();
        }
        family::<Addr4>(&mut self.maps, &gone.v4);
        family::<Addr6>(&mut self.maps, &gone.v6);
        gone.blocks
            .iter()
            .for_each(|span| self.maps.slots.give_back(*span));
        gone.classes
            .iter()
            .for_each(|span| self.maps.classes.give_back(*span));
        gone.ids.iter().for_each(|key| ids.release(*key));
    }
}

fn ranges<A: Family>(gone: &Held<A>) -> Step
where
    SourceRangeKey<A>: Abi,
{
    let mut step = Step::new(A::SOURCE_RANGES, Action::Delete);
    gone.ranges
        .iter()
        .for_each(|range| step.push(bytes_of(range), &[]));
    step
}

fn empty<A: Family>(old: BackendVal<A>) -> BackendVal<A> {
    BackendVal {
        generation: (old.generation | 1).wrapping_add(1),
        ..BackendVal::default()
    }
}

/// What is in the first list only.
fn without<T: Hash + Eq>(list: Box<[T]>, other: &[T]) -> Box<[T]> {
    if list.is_empty() || *list == *other {
        return Box::default();
    }
    let other: HashSet<&T> = other.iter().collect();
    list.into_iter()
        .filter(|item| !other.contains(item))
        .collect()
}
