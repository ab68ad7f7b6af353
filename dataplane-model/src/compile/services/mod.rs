//! Services, kept Service by Service: a change costs as much as the Services that it concerns.
//!
//! An event marks Services ([`depend`]). For each of them, what it asks for ([`wanted`]) gets places and
//! numbers ([`place`]), and the difference to what is there goes into a [`batch`]: backends, blocks and
//! classes before the frontends that lead to them. What is not needed any more is removed after all
//! batches. A block never changes while a frontend may lead to it, so a fault anywhere leaves each
//! frontend with its old backends or its new ones. There is no second copy of the endpoints: the record
//! of the arrays is the maps' own content, and is read back at the start ([`adopt`]).

mod adopt;
mod batch;
mod claims;
mod depend;
mod enact;
mod ends;
mod maps;
mod names;
mod place;
mod places;
mod presence;
mod remove;
#[cfg(test)]
mod tests;
mod view;
mod wanted;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use dataplane_common::abi::{Addr4, Addr6, IdKey};

use super::Notice;
use super::endpoints::Index;
use crate::capacity::{Capacities, CapacityError};
use crate::gone::Gone;
use crate::ids::{IdKind, IdTable, key};
use crate::snapshot::{Change, ObjectKey, Service, ServicePort, Snapshot};
use crate::store::MapStore;
use crate::tables::Family;
use adopt::Adopted;
use batch::Batch;
use depend::{Dependents, Marks};
pub use maps::Sided;
use maps::{Holdings, Maps};
pub use names::ServiceNames;
pub use presence::Presence;

/// Writes that one batch gathers before it is done.
const BATCH: usize = 32_768;

/// The state of all Services.
#[derive(Clone, Debug)]
pub struct Services {
    depend: Dependents,
    marks: Marks,
    state: State,
}

/// What became of a round.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Round {
    /// Entries that were to be written and removed.
    pub operations: usize,
    /// The first failure of the maps.
    pub failure: Option<String>,
    /// Services whose change could not be written and is tried again.
    pub failed: usize,
}

/// What Services have, and what is under way.
#[derive(Clone, Debug)]
struct State {
    maps: Maps,
    units: HashMap<ObjectKey, Box<Holdings>>,
    /// What Services have no use for and may still be in the maps.
    retired: BTreeMap<ObjectKey, Holdings>,
    /// Services whose last writes failed somewhere: what they have may not be what is recorded.
    unsure: BTreeSet<ObjectKey>,
    /// Services whose change does not fit. What they had is in force.
    refused: BTreeMap<ObjectKey, CapacityError>,
    /// Backends that went since this was last asked for.
    gone: Vec<Gone>,
    /// What an earlier process left and no Service has taken over yet.
    adopted: Option<Box<Adopted>>,
}

impl Services {
    /// For maps that are empty.
    pub fn new(capacities: &Capacities) -> Self {
        Self {
            depend: Dependents::default(),
            marks: Marks::default(),
            state: State {
                maps: Maps::new(capacities),
                units: HashMap::new(),
                retired: BTreeMap::new(),
                unsure: BTreeSet::new(),
                refused: BTreeMap::new(),
                gone: Vec::new(),
                adopted: None,
            },
        }
    }

    /// Goes on from what the maps hold.
    ///
    /// # Errors
    ///
    /// A map cannot be read.
    pub fn adopt<S: MapStore>(store: &S, ids: &IdTable) -> Result<Self, S::Error> {
        let mut services = Self::new(ids.capacities());
        let adopted = adopt::read(store, &mut services.state.maps)?;
        services.state.adopted = Some(Box::new(adopted));
        Ok(services)
    }

    /// Everything in the snapshot is to be looked at.
    pub fn note_all(&mut self, snapshot: &Snapshot) {
        self.depend.note_all(snapshot, &mut self.marks);
        self.marks.dirty.extend(self.state.units.keys().cloned());
    }

    /// Notes a change that is in the snapshot already.
    pub fn note(&mut self, snapshot: &Snapshot, change: &Change) {
        self.depend.note(snapshot, change, &mut self.marks);
    }

    /// True if there is something to write or to remove.
    pub fn is_pending(&self) -> bool {
        let state = &self.state;
        !self.marks.dirty.is_empty() || state.has_removals() || state.adopted.is_some()
    }

    /// How many Services are waiting: marked, failed or refused.
    pub fn pending(&self) -> usize {
        self.marks.dirty.len() + self.state.refused.len()
    }

    /// Services whose change does not fit, with the reason. What they had is in force, and they are
    /// tried again as soon as something makes room.
    pub fn refused(&self) -> &BTreeMap<ObjectKey, CapacityError> {
        &self.state.refused
    }

    /// Brings the maps to what the marked Services ask for. Only to be called when all sources are in
    /// sync: what an earlier process left and nothing asks for is removed.
    pub fn reconcile<S: MapStore>(
        &mut self,
        snapshot: &Snapshot,
        ids: &mut IdTable,
        store: &mut S,
    ) -> Round {
        let mut round = Round::default();
        let mut failed = BTreeSet::new();
        self.state.take_adopted(snapshot, ids);
        loop {
            self.put(snapshot, ids, store, &mut round, &mut failed);
            self.state.sweep(ids);
            let freed = self.state.remove(ids, store, &mut round);
            if !freed || self.state.refused.is_empty() {
                break;
            }
            self.marks.dirty.extend(self.state.refused.keys().cloned());
        }
        round.failed = failed.len();
        self.marks.dirty.extend(failed);
        round
    }

    /// Writes what the marked Services ask for, in batches. When a batch fails, its Services are
    /// written one by one: what ails one of them keeps no other from being served.
    fn put<S: MapStore>(
        &mut self,
        snapshot: &Snapshot,
        ids: &mut IdTable,
        store: &mut S,
        round: &mut Round,
        failed: &mut BTreeSet<ObjectKey>,
    ) {
        let Self {
            depend,
            marks,
            state,
        } = self;
        let index = Index::new(snapshot, &depend.slices);
        let context = Context {
            snapshot,
            index: &index,
            depend,
        };
        loop {
            let mut batch = Batch::default();
            while batch.len() < BATCH
                && let Some(key) = marks.dirty.pop_first()
            {
                state.prepare(&context, ids, key, marks, &mut batch);
            }
            if batch.services.is_empty() {
                return;
            }
            round.operations += batch.len();
            let Err(error) = batch.run(store) else {
                batch.services.iter().for_each(|key| {
                    state.unsure.remove(key);
                });
                continue;
            };
            round.failure.get_or_insert_with(|| error.to_string());
            state.unsure.extend(batch.services.iter().cloned());
            for key in batch.services {
                let mut single = Batch::default();
                state.prepare(&context, ids, key.clone(), marks, &mut single);
                if single.run(store).is_ok() {
                    state.unsure.remove(&key);
                    failed.remove(&key);
                } else {
                    failed.insert(key);
                }
            }
        }
    }

    /// Backends that are needed no more since the last call, and end sockets.
    pub fn take_gone(&mut self) -> Vec<Gone> {
        std::mem::take(&mut self.state.gone)
    }

    /// What owners of objects should know.
    pub fn notices(&self) -> Vec<Notice> {
        let mut notices = self.depend.routes.notices.clone();
        notices.extend(self.state.maps.v4.contested());
        notices.extend(self.state.maps.v6.contested());
        notices.extend(self.state.refused.iter().map(|(key, error)| Notice {
            object: format!("Service {key}"),
            text: format!("its change does not fit and what it had stays in force: {error}"),
            reason: "CapacityExceeded",
        }));
        notices.sort_unstable();
        notices.dedup();
        notices
    }
}

/// What preparing a Service reads.
struct Context<'a, 'i> {
    snapshot: &'a Snapshot,
    index: &'i Index<'a>,
    depend: &'i Dependents,
}

impl State {
    /// Gives a Service what it asks for, and adds what is to be written. What it had and needs no more is
    /// retired.
    fn prepare<'a>(
        &mut self,
        context: &Context<'a, '_>,
        ids: &mut IdTable,
        key: ObjectKey,
        marks: &mut Marks,
        batch: &mut Batch,
    ) {
        let service = context.snapshot.services.get(&key);
        let service = service.filter(|service| service.is_served());
        let mut old = *self.units.remove(&key).unwrap_or_default();
        if let Some(retired) = self.retired.remove(&key) {
            old.join(retired);
        }
        self.maps.stop_waiting(&key);
        let ending = ends::ending(&self.maps, &old);
        context.index.asked_devices();
        let result = match service {
            Some(service) => self.renew(context, ids, service, &old, marks, batch),
            None => Ok(Holdings::default()),
        };
        marks.set_nodeless(&key, context.index.asked_devices());
        match result {
            Ok(new) => {
                self.refused.remove(&key);
                let gone = self.maps.retire(&key, old, &new, marks);
                ends::gone(&self.maps, &ending, &gone, &mut self.gone);
                if !gone.is_empty() {
                    self.retired.insert(key.clone(), gone);
                }
                if !new.is_empty() {
                    self.units.insert(key.clone(), Box::new(new));
                }
                batch.services.push(key);
            }
            Err(error) => {
                if !old.is_empty() {
                    self.units.insert(key.clone(), Box::new(old));
                }
                self.refused.insert(key, error);
            }
        }
    }

    fn renew<'a>(
        &mut self,
        context: &Context<'a, '_>,
        ids: &mut IdTable,
        service: &'a Service,
        old: &Holdings,
        marks: &mut Marks,
        batch: &mut Batch,
    ) -> Result<Holdings, CapacityError> {
        let Context {
            snapshot,
            index,
            depend,
        } = context;
        let Maps {
            v4, v6, waiters, ..
        } = &mut self.maps;
        let routes = &depend.routes;
        let wanted4 = wanted::wanted::<Addr4>(snapshot, index, routes, service, |key| {
            v4.may_have(snapshot, service, key, waiters)
        })?;
        let wanted6 = wanted::wanted::<Addr6>(snapshot, index, routes, service, |key| {
            v6.may_have(snapshot, service, key, waiters)
        })?;
        let mut taken = place::Taken::default();
        let mut placer = place::Placer {
            maps: &mut self.maps,
            ids,
            old,
            taken: &mut taken,
            blocks: place::Blocks::default(),
        };
        let placed = placer
            .place(&wanted4)
            .and_then(|v4| Ok((v4, placer.place(&wanted6)?)));
        let blocks = placer.blocks;
        let (placed4, placed6) = match placed {
            Ok(placed) => placed,
            Err(error) => {
                taken.undo(&mut self.maps, ids);
                return Err(error);
            }
        };
        let mut enact = enact::Enact {
            maps: &mut self.maps,
            snapshot,
            service,
            old,
            rewrite: self.unsure.contains(&service.key),
            marks,
            batch,
            new: Holdings::default(),
        };
        enact.ids(ids, &taken, [&placed4.ids, &placed6.ids]);
        enact.blocks(blocks);
        enact.family(&wanted4, placed4);
        enact.family(&wanted6, placed6);
        Ok(enact.new)
    }
}

/// The key of a Service port's number.
fn service_port_key(service: &ObjectKey, port: &ServicePort) -> IdKey {
    let content = (service, &port.name, port.port, port.protocol);
    key(IdKind::ServicePort, &content)
}

/// The key of the number of a Service's source ranges.
fn source_set_key<A: Family>(service: &ObjectKey) -> IdKey {
    key(IdKind::SourceSet, &(A::INDEX, service))
}
