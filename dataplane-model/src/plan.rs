//! From the policy that is desired and written to map operations, in an order that is safe to stop in.
//!
//! A plan that stops anywhere, by a fault or a kill, leaves the packet path correct:
//!
//! * A pod's rulesets, identity and prefixes are written before the pod points to them. Rows between
//!   an old ruleset and a new identity or set, and the other way round, exist while both are in use.
//! * In each direction of a pod, no step allows a peer and port that both the old and the new state
//!   forbid: pods that become isolated come first, those that stop to be last, and an address whose
//!   pod changed stands for no one while rulesets are exchanged (see [`subjects`](self)).
//! * What nothing points to any more is removed last.
//!
//! The policy epoch is odd from before the first change of policy until after the last one, so flows
//! that were judged in between are judged again, and a successor sees that a plan was cut short.

mod builder;
mod diff;
mod subjects;

use std::fmt::Display;
use std::sync::Arc;

use crate::capacity::CapacityError;
use crate::compile::{Desired, PolicyState};
use crate::ids::IdTable;
use crate::store::{Failed, MapStore, Written};
use crate::tables::MapId;
use builder::Builder;

/// What is done to a map's entries.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Action {
    /// They are written.
    Put,
    /// They are deleted.
    Delete,
}

/// Operations on one map, to be done in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Step {
    map: MapId,
    action: Action,
    keys: Vec<u8>,
    values: Vec<u8>,
}

impl Step {
    /// Nothing to do yet.
    pub(crate) fn new(map: MapId, action: Action) -> Self {
        Self {
            map,
            action,
            keys: Vec::new(),
            values: Vec::new(),
        }
    }

    /// Adds an entry; the value is empty for a deletion.
    pub(crate) fn push(&mut self, key: &[u8], value: &[u8]) {
        self.keys.extend_from_slice(key);
        self.values.extend_from_slice(value);
    }

    /// Takes the entries of a key back.
    pub(crate) fn remove(&mut self, key: &[u8]) {
        let (of_key, of_value) = (self.map.key_size(), self.map.value_size());
        let mut keys = self.keys.chunks_exact(of_key);
        while let Some(at) = keys.position(|known| known == key) {
            self.keys.drain(at * of_key..(at + 1) * of_key);
            let values = at * of_value..(at + 1) * of_value;
            if self.values.len() >= values.end {
                self.values.drain(values);
            }
            keys = self.keys.chunks_exact(of_key);
        }
    }

    /// The map.
    pub fn map(&self) -> MapId {
        self.map
    }

    /// What is done.
    pub fn action(&self) -> Action {
        self.action
    }

    /// Entries.
    pub fn len(&self) -> usize {
        self.keys.len() / self.map.key_size()
    }

    /// True if there are none; a plan has no such step.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Keys and values, in order; values are empty for deletions.
    pub fn entries(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let size = self.map.value_size();
        let value = move |index: usize| {
            self.values
                .get(index * size..(index + 1) * size)
                .unwrap_or(&[])
        };
        self.keys
            .chunks_exact(self.map.key_size())
            .enumerate()
            .map(move |(index, key)| (key, value(index)))
    }

    /// Does it.
    pub(crate) fn run<S: MapStore>(&self, store: &mut S) -> Result<(), Failed<S::Error>> {
        match self.action {
            Action::Put => store.put(self.map, &self.keys, &self.values),
            Action::Delete => store.delete(self.map, &self.keys),
        }
    }
}

/// Ordered map operations.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Plan {
    /// What pods need before Services lead to them.
    first: Vec<Step>,
    /// What goes once no Service leads to it.
    last: Vec<Step>,
    /// Array places that nothing points to any more: they are not worth a write.
    unreachable: Vec<(MapId, u32)>,
    /// Policy once the plan is done; `None` if sources are not in sync, and nothing is retired.
    policy: Option<Arc<PolicyState>>,
}

/// A plan stopped half-way. What was done is recorded; the rest is in the next plan.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{action:?} in map {} failed: {error}; {pending} operations are pending", .map.name())]
pub struct ApplyError<E: Display> {
    /// The map.
    pub map: MapId,
    /// What was being done.
    pub action: Action,
    /// Operations that were not done.
    pub pending: usize,
    /// Why.
    pub error: E,
}

impl Plan {
    /// The plan that turns what is written into what is desired.
    ///
    /// It is empty while a source is not in sync: what is in force stays, and nothing is taken as
    /// gone because it has not been read yet.
    ///
    /// # Errors
    ///
    /// Every map that the change does not fit in. Entries count that are only removed later.
    pub fn new(
        desired: &Desired,
        written: &Written,
        ids: &IdTable,
    ) -> Result<Self, Vec<CapacityError>> {
        if !desired.complete {
            return Ok(Self::default());
        }
        diff::check_capacity(desired, written, ids)?;
        let mut builders = [Builder::default(), Builder::default()];
        diff::build(desired, written, ids, &mut builders);
        let [(first, early), (last, late)] = builders.map(Builder::finish);
        Ok(Self {
            first,
            last,
            unreachable: early.into_iter().chain(late).collect(),
            policy: Some(desired.policy.clone()),
        })
    }

    /// The steps.
    pub fn steps(&self) -> impl Iterator<Item = &Step> {
        self.first.iter().chain(&self.last)
    }

    /// True if there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.first.is_empty() && self.last.is_empty()
    }

    /// Operations.
    pub fn len(&self) -> usize {
        self.steps().map(Step::len).sum()
    }

    /// Does the first steps in order and records what was done: afterwards, a new pod is policed and
    /// may serve.
    ///
    /// # Errors
    ///
    /// The first operation that failed: nothing after it is tried, since it may depend on it.
    pub fn begin<S: MapStore>(
        &self,
        store: &mut S,
        written: &mut Written,
    ) -> Result<(), ApplyError<S::Error>> {
        run(&self.first, self.len(), store, written)
    }

    /// Does the last steps, after [`Self::begin`] and when no Service leads to a pod that is gone.
    /// When all are done, numbers that the plan removed are free for other things.
    ///
    /// # Errors
    ///
    /// The first operation that failed: nothing after it is tried.
    pub fn finish<S: MapStore>(
        &self,
        store: &mut S,
        written: &mut Written,
        ids: &mut IdTable,
    ) -> Result<(), ApplyError<S::Error>> {
        let pending = self.last.iter().map(Step::len).sum();
        run(&self.last, pending, store, written)?;
        if let Some(policy) = &self.policy {
            written.forget(&self.unreachable);
            ids.settle(policy.clone());
        }
        Ok(())
    }
}

fn run<S: MapStore>(
    steps: &[Step],
    mut pending: usize,
    store: &mut S,
    written: &mut Written,
) -> Result<(), ApplyError<S::Error>> {
    for step in steps {
        if let Err(Failed { done, error }) = step.run(store) {
            written.record_step(step, done);
            return Err(ApplyError {
                map: step.map,
                action: step.action,
                pending: pending - done,
                error,
            });
        }
        written.record_step(step, step.len());
        pending -= step.len();
    }
    Ok(())
}

#[cfg(test)]
mod tests;
