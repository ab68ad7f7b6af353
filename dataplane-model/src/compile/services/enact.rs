//! Recording what a Service gets, and adding to a batch what of it has to be written.

use std::collections::HashSet;

use dataplane_common::abi::{
    Abi, BackendVal, IdKey, ServiceKey, ServiceVal, SourceRangeKey, service_flags,
};

use super::batch::Batch;
use super::depend::Marks;
use super::maps::{Front, Held, Holdings, Maps};
use super::place::{Blocks, Placed, PlacedPort, Taken};
use super::places::{Places, Span};
use super::wanted::Wanted;
use crate::ids::IdTable;
use crate::snapshot::{Service, Snapshot};
use crate::tables::{Family, MapId};

/// Records one Service's places.
pub(super) struct Enact<'m> {
    pub(super) maps: &'m mut Maps,
    pub(super) snapshot: &'m Snapshot,
    pub(super) service: &'m Service,
    /// What it had.
    pub(super) old: &'m Holdings,
    /// Writes everything, as what is recorded may not be in the maps.
    pub(super) rewrite: bool,
    pub(super) marks: &'m mut Marks,
    pub(super) batch: &'m mut Batch,
    /// What the Service has now.
    pub(super) new: Holdings,
}

impl Enact<'_> {
    /// Writes numbers that are new.
    pub(super) fn ids(&mut self, ids: &IdTable, taken: &Taken, placed: [&Vec<IdKey>; 2]) {
        let mut all: Vec<IdKey> = placed.into_iter().flatten().copied().collect();
        all.sort_unstable();
        all.dedup();
        for key in &all {
            if let Some(val) = ids.get(key)
                && (self.rewrite || taken.ids.contains(key))
            {
                self.batch.put(MapId::Ids, key, &val);
            }
        }
        self.new.ids = all.into();
    }

    /// Writes blocks that are new.
    pub(super) fn blocks(&mut self, blocks: Blocks) {
        let (rewrite, maps) = (self.rewrite, &mut *self.maps);
        let Blocks { slots, classes } = blocks;
        fill(rewrite, MapId::Slots, &mut maps.slots, &slots, self.batch);
        fill(
            rewrite,
            MapId::Classes,
            &mut maps.classes,
            &classes,
            self.batch,
        );
        self.new.blocks = spans(slots);
        self.new.classes = spans(classes);
    }

    /// Writes what a family needs.
    pub(super) fn family<A: Family>(&mut self, wanted: &[Wanted<'_, A>], placed: Placed<A>)
    where
        BackendVal<A>: Abi,
        ServiceKey<A>: Abi,
        SourceRangeKey<A>: Abi,
    {
        for (wanted, port) in wanted.iter().zip(&placed.ports) {
            self.backends(wanted, port);
        }
        let known = &A::held(self.old).ranges;
        for range in &placed.ranges {
            let is_new = !known.contains(range);
            if is_new {
                A::side_mut(self.maps).ranges += 1;
            }
            if is_new || self.rewrite {
                self.batch.put(A::SOURCE_RANGES, range, &1u32);
            }
        }
        let mut keys = Vec::new();
        let mut seen = HashSet::new();
        for (wanted, port) in wanted.iter().zip(&placed.ports) {
            for at in 0..port.frontends.len() {
                let key = port.frontends[at].1;
                if seen.insert(key) {
                    self.frontend(wanted, port, at);
                    keys.push(key);
                }
            }
        }
        let backends = placed.ports.into_iter().flat_map(|port| port.backends);
        *A::held_mut(&mut self.new) = Held {
            backends: backends.collect(),
            keys: keys.into(),
            ranges: placed.ranges.into(),
        };
    }

    fn backends<A: Family>(&mut self, wanted: &Wanted<'_, A>, port: &PlacedPort<A>)
    where
        BackendVal<A>: Abi,
    {
        let places = &mut A::side_mut(self.maps).backends;
        for (backend, &index) in wanted.backends.iter().zip(&port.backends) {
            let old = places.get(index);
            let val = BackendVal {
                addr: backend.addr,
                service_port: port.service_port,
                // Even: the place was emptied, and is filled anew.
                generation: old.generation | 1,
                port: backend.port,
                flags: backend.flags,
                reserved: 0,
            };
            if self.rewrite || old != val {
                places.set(index, val);
                self.batch.put(A::BACKENDS, &index, &val);
            }
        }
    }

    /// Writes a frontend.
    fn frontend<A: Family>(&mut self, wanted: &Wanted<'_, A>, port: &PlacedPort<A>, at: usize)
    where
        ServiceKey<A>: Abi,
    {
        let (asked, (number, key)) = (&wanted.frontends[at], port.frontends[at]);
        let own = &self.service.key;
        let side = A::side_mut(self.maps);
        let before = side.claim(self.snapshot, self.service, &key, self.marks);
        if let Some(before) = &before {
            self.batch.take_back(before, A::SERVICES, &key);
        }
        let serving = asked
            .serving
            .map(|at| port.servings[at])
            .unwrap_or_default();
        let drops = if asked.drops {
            service_flags::DROP_IF_EMPTY
        } else {
            0
        };
        let value = ServiceVal {
            frontend: number,
            service_port: port.service_port,
            base: serving.block.base,
            class_base: serving.class_base,
            affinity_secs: self.service.affinity_secs.unwrap_or(0),
            source_set: if asked.frontend.flags & service_flags::SOURCE_RANGES != 0 {
                port.source_set
            } else {
                0
            },
            count: serving.block.count,
            classes: serving.classes,
            flags: asked.frontend.flags | drops,
            reserved: 0,
        };
        let was_leaving = side.leaving.remove(&key);
        let known = side.frontends.get(&key);
        if self.rewrite
            || was_leaving
            || before.is_some()
            || known.is_none_or(|front| front.value != value)
        {
            self.batch.put(A::SERVICES, &key, &value);
        }
        let owner = own.clone();
        side.frontends.insert(key, Front { value, owner });
    }
}

/// Fills new blocks.
fn fill<V: Abi + Default + PartialEq>(
    rewrite: bool,
    map: MapId,
    places: &mut Places<V>,
    blocks: &[(Span, Vec<V>)],
    batch: &mut Batch,
) {
    for (span, content) in blocks {
        if !rewrite && places.hold(*span, content) {
            continue;
        }
        for (place, value) in (span.first..).zip(content) {
            places.set(place, *value);
            batch.put(map, &place, value);
        }
    }
}

fn spans<V>(blocks: Vec<(Span, V)>) -> Box<[Span]> {
    blocks.into_iter().map(|(span, _)| span).collect()
}
