//! From what the API server says of a kind to changes.

use std::path::PathBuf;
use std::sync::Arc;

use tracing::{info, warn};

use super::ORIGIN;
use super::decode::{Bad, Identity, Item};
use super::dial::Addresses;
use super::last_good::{LastGood, is_kept, usable};
use super::ledger::Ledger;
use super::memory::Memory;
use super::state::States;
use crate::source::core::EndpointSlice;
use crate::source::{Change, Kind, Object, ObjectKey, Problem, closed};

/// The objects of a kind, and what they become.
#[derive(Debug)]
pub struct Intake {
    kind: Kind,
    states: States,
    addresses: Addresses,
    ledger: Ledger,
    last_good: LastGood,
    memory: Memory,
    /// Slices of `default/kubernetes` from before the start, until the first full list is complete.
    remembered: Vec<EndpointSlice>,
}

impl Intake {
    /// An empty one; API servers that slices name, or that `memory` knows, become known to `addresses`.
    pub fn new(kind: Kind, states: States, addresses: Addresses, memory: Option<PathBuf>) -> Self {
        let mut memory = Memory::new(memory.filter(|_| kind == Kind::EndpointSlice));
        let remembered = memory.read();
        addresses.learn(remembered.iter().flat_map(usable).collect());
        Self {
            kind,
            states,
            addresses,
            ledger: Ledger::default(),
            last_good: LastGood::default(),
            memory,
            remembered,
        }
    }

    /// A full list begins.
    pub fn begin(&mut self) {
        self.ledger.begin();
    }

    /// A full list is complete: what it did not have is gone.
    pub fn sweep(&mut self, changes: &mut Vec<Change>) {
        for key in self.ledger.sweep(self.kind) {
            self.gone(key, changes);
        }
        let restored = self.last_good.restore(std::mem::take(&mut self.remembered));
        if !restored.is_empty() {
            info!(
                "the API server names no backend of default/kubernetes: those from before the start stay"
            );
        }
        changes.extend(restored);
    }

    /// How many objects are known.
    pub fn len(&self) -> usize {
        self.ledger.len()
    }

    /// An object came, by a full list (`initial`) or as a change.
    pub fn apply(&mut self, item: Item, initial: bool, changes: &mut Vec<Change>) {
        match item {
            Item::Object(identity, object) => {
                let Identity {
                    namespace, name, ..
                } = &identity;
                if !self
                    .ledger
                    .apply(namespace, name, identity.number(), initial)
                {
                    return;
                }
                let key = ObjectKey::new(self.kind, Some(namespace), name);
                self.states
                    .update(self.kind, |state| state.bad.remove(&key));
                self.pass(object, changes);
            }
            Item::Bad(bad) => self.bad(bad, changes),
        }
    }

    fn pass(&mut self, object: Object, changes: &mut Vec<Change>) {
        let change = Change::Apply {
            object: Arc::new(object),
            origin: ORIGIN,
        };
        self.filtered(change, changes);
    }

    /// An object is gone.
    pub fn delete(&mut self, identity: &Identity, changes: &mut Vec<Change>) {
        let Identity {
            namespace, name, ..
        } = identity;
        if self.ledger.delete(namespace, name, identity.number()) {
            let key = ObjectKey::new(self.kind, Some(namespace), name);
            self.gone(key, changes);
        }
    }

    fn gone(&mut self, key: ObjectKey, changes: &mut Vec<Change>) {
        self.states
            .update(self.kind, |state| state.bad.remove(&key));
        if is_kept(&key) {
            info!("{key} is deleted; it is served on until the API server makes it again");
            return;
        }
        self.filtered(Change::Delete(key), changes);
    }

    fn filtered(&mut self, change: Change, changes: &mut Vec<Change>) {
        if self.kind != Kind::EndpointSlice {
            changes.push(change);
            return;
        }
        let before = changes.len();
        changes.extend(self.last_good.filter(change));
        if changes.len() == before {
            info!("default/kubernetes would have no backend: the last ones stay");
        }
        self.addresses.learn(self.last_good.addresses());
        self.memory.write(self.last_good.in_force());
    }

    /// An object that cannot be read hurts only itself.
    fn bad(&mut self, bad: Bad, changes: &mut Vec<Change>) {
        let Identity {
            namespace, name, ..
        } = &bad.identity;
        let known = self.ledger.keep(namespace, name);
        let key = ObjectKey::new(self.kind, Some(namespace), name);
        let effect = match (bad.closed, known) {
            (Some(policy), _) => {
                let effect = closed::effect(&policy);
                self.pass(policy, changes);
                effect
            }
            (None, true) => "the version read before stays in force",
            (None, false) => "the object does not exist for the agent",
        };
        let problem = Problem {
            origin: ORIGIN,
            object: Some(key.clone()),
            field: String::new(),
            message: format!("cannot be read: {}", bad.message),
            effect: effect.to_owned(),
        };
        self.states.update(self.kind, |state| {
            state.bad_events += 1;
            if state.bad.get(&key) != Some(&problem) {
                warn!("{problem}");
            }
            state.bad.insert(key, problem);
        });
    }
}
