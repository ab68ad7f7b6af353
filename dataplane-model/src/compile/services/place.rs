//! Giving places and numbers to what a Service asks for: either to all of it, or to nothing.

use std::collections::HashMap;

use dataplane_common::abi::{
    BackendVal, ClassVal, IdKey, Port, ServiceKey, SlotVal, SourceRangeKey,
};

use super::maps::{Holdings, Maps};
use super::places::Span;
use super::wanted::{Wanted, WantedBlock, WantedServing};
use crate::capacity::CapacityError;
use crate::ids::{IdKind, IdTable, key};
use crate::tables::{Family, MapId};

/// What was taken so far, to be given back if the rest cannot be had.
#[derive(Default)]
pub(super) struct Taken {
    backends: [Vec<u32>; 2],
    blocks: Vec<Span>,
    classes: Vec<Span>,
    pub(super) ids: Vec<IdKey>,
}

/// Places of one family.
pub(super) struct Placed<A> {
    pub(super) ports: Vec<PlacedPort<A>>,
    /// Source ranges of the Service.
    pub(super) ranges: Vec<SourceRangeKey<A>>,
    /// Numbers of ports, frontends and source sets.
    pub(super) ids: Vec<IdKey>,
}

/// Blocks of both families: those with the same content are one.
#[derive(Default)]
pub(super) struct Blocks {
    /// With what they have to hold.
    pub(super) slots: Vec<(Span, Vec<SlotVal>)>,
    /// Blocks of classes, likewise.
    pub(super) classes: Vec<(Span, Vec<ClassVal>)>,
}

/// Places of one Service port.
pub(super) struct PlacedPort<A> {
    pub(super) service_port: u32,
    /// Of each wanted backend.
    pub(super) backends: Vec<u32>,
    /// The set of source ranges, 0 for none.
    pub(super) source_set: u32,
    /// Of each wanted serving.
    pub(super) servings: Vec<Serving>,
    /// Number and key of each wanted frontend.
    pub(super) frontends: Vec<(u32, ServiceKey<A>)>,
}

/// Who serves, as a frontend's value says it.
#[derive(Clone, Copy, Default)]
pub(super) struct Serving {
    pub(super) block: Block,
    pub(super) class_base: u32,
    pub(super) classes: u16,
}

/// A block, as values say it.
#[derive(Clone, Copy, Default)]
pub(super) struct Block {
    pub(super) base: u32,
    pub(super) count: u16,
}

/// Takes places.
pub(super) struct Placer<'m> {
    pub(super) maps: &'m mut Maps,
    pub(super) ids: &'m mut IdTable,
    /// What the Service has.
    pub(super) old: &'m Holdings,
    pub(super) taken: &'m mut Taken,
    /// What the Service has from now on.
    pub(super) blocks: Blocks,
}

impl Placer<'_> {
    /// Places for all that the Service asks for in one family.
    pub(super) fn place<A: Family>(
        &mut self,
        wanted: &[Wanted<'_, A>],
    ) -> Result<Placed<A>, CapacityError> {
        let mut placed = Placed {
            ports: Vec::with_capacity(wanted.len()),
            ranges: Vec::new(),
            ids: Vec::new(),
        };
        let known = self.known_backends::<A>();
        for wanted in wanted {
            let port = self.port(wanted, &known, &mut placed)?;
            placed.ports.push(port);
        }
        self.check_room(&placed)?;
        Ok(placed)
    }

    /// Backends of the Service by Service port, address and port.
    fn known_backends<A: Family>(&self) -> HashMap<(u32, A, Port), u32> {
        let backends = &A::side(self.maps).backends;
        let known = A::held(self.old).backends.iter().map(|&index| {
            let val = backends.get(index);
            ((val.service_port, val.addr, val.port), index)
        });
        known.collect()
    }

    fn port<A: Family>(
        &mut self,
        wanted: &Wanted<'_, A>,
        known: &HashMap<(u32, A, Port), u32>,
        placed: &mut Placed<A>,
    ) -> Result<PlacedPort<A>, CapacityError> {
        let service_port = self.service_port(wanted, &mut placed.ids)?;
        let mut backends = Vec::with_capacity(wanted.backends.len());
        for backend in &wanted.backends {
            let index = match known.get(&(service_port, backend.addr, backend.port)) {
                Some(&index) => index,
                None => {
                    let index = A::side_mut(self.maps).backends.take_lowest()?;
                    self.taken.backends[A::INDEX].push(index);
                    index
                }
            };
            backends.push(index);
        }
        let servings = wanted.servings.iter();
        let servings = servings
            .map(|serving| self.serving(serving, &backends))
            .collect::<Result<_, _>>()?;
        let mut frontends = Vec::with_capacity(wanted.frontends.len());
        for at in 0..wanted.frontends.len() {
            frontends.push(self.frontend(wanted, at, &mut placed.ids)?);
        }
        let source_set = self.source_set(wanted, placed)?;
        Ok(PlacedPort {
            service_port,
            backends,
            source_set,
            servings,
            frontends,
        })
    }

    fn service_port<A>(
        &mut self,
        wanted: &Wanted<'_, A>,
        ids: &mut Vec<IdKey>,
    ) -> Result<u32, CapacityError> {
        let key = super::service_port_key(&wanted.service.key, wanted.port);
        self.number(key, ids)
    }

    fn frontend<A: Family>(
        &mut self,
        wanted: &Wanted<'_, A>,
        at: usize,
        ids: &mut Vec<IdKey>,
    ) -> Result<(u32, ServiceKey<A>), CapacityError> {
        let (service, port) = (&wanted.service.key, wanted.port);
        let frontend = &wanted.frontends[at].frontend;
        let content = (service, frontend.addr.to_ip(), frontend.port, port.protocol);
        let number = self.number(key(IdKind::Frontend, &content), ids)?;
        Ok((number, frontend.key()))
    }

    /// The number of the clients that load balancers' addresses are for; 0: all. The set is the
    /// Service's own, so that it can change in place.
    fn source_set<A: Family>(
        &mut self,
        wanted: &Wanted<'_, A>,
        placed: &mut Placed<A>,
    ) -> Result<u32, CapacityError> {
        let Some(ranges) = &wanted.source_ranges else {
            return Ok(0);
        };
        let key = super::source_set_key::<A>(&wanted.service.key);
        let set = self.number(key, &mut placed.ids)?;
        let ranges = ranges.iter().filter_map(|range| {
            let addr = A::from_ip(range.network())?;
            let length = range.prefix_len().into();
            Some(SourceRangeKey::of_source_set(set, addr, length))
        });
        placed.ranges = ranges.collect();
        placed.ranges.sort_unstable();
        placed.ranges.dedup();
        Ok(set)
    }

    fn number(&mut self, key: IdKey, ids: &mut Vec<IdKey>) -> Result<u32, CapacityError> {
        let (number, is_new) = self.ids.hold(key)?;
        if is_new {
            self.taken.ids.push(key);
        }
        ids.push(key);
        Ok(number)
    }

    fn serving(
        &mut self,
        wanted: &WantedServing,
        backends: &[u32],
    ) -> Result<Serving, CapacityError> {
        let mut classes = Vec::with_capacity(wanted.classes.len());
        for (threshold, block) in &wanted.classes {
            let block = self.block(block, backends)?;
            classes.push(ClassVal {
                threshold: *threshold,
                base: block.base,
                count: block.count,
                reserved: 0,
            });
        }
        let block = self.block(&wanted.block, backends)?;
        let count = classes.len() as u16;
        let class_base = self.class_block(classes)?;
        Ok(Serving {
            block,
            class_base,
            classes: count,
        })
    }

    /// A block with this content: one that the Service has, else a new one. What a block holds never
    /// changes while a frontend may lead to it.
    fn block(&mut self, wanted: &WantedBlock, backends: &[u32]) -> Result<Block, CapacityError> {
        if wanted.members.is_empty() {
            return Ok(Block::default());
        }
        let members = wanted.members.iter();
        let content: Vec<SlotVal> = members
            .map(|&at| SlotVal {
                backend: backends[at as usize],
            })
            .collect();
        let is_same = |span: &&Span| self.maps.slots.hold(**span, &content);
        let new = self
            .blocks
            .slots
            .iter()
            .find(|(_, known)| *known == content);
        let span = match (new, self.old.blocks.iter().find(is_same)) {
            (Some((span, _)), _) | (None, Some(span)) => *span,
            (None, None) => {
                let span = self.maps.slots.take(content.len() as u32)?;
                self.taken.blocks.push(span);
                span
            }
        };
        let block = Block {
            base: span.first,
            count: span.count as u16,
        };
        if new.is_none() {
            self.blocks.slots.push((span, content));
        }
        Ok(block)
    }

    fn class_block(&mut self, content: Vec<ClassVal>) -> Result<u32, CapacityError> {
        if content.is_empty() {
            return Ok(0);
        }
        let is_same = |span: &&Span| self.maps.classes.hold(**span, &content);
        let new = self
            .blocks
            .classes
            .iter()
            .find(|(_, known)| *known == content);
        let span = match (new, self.old.classes.iter().find(is_same)) {
            (Some((span, _)), _) => return Ok(span.first),
            (None, Some(span)) => *span,
            (None, None) => {
                let span = self.maps.classes.take(content.len() as u32)?;
                self.taken.classes.push(span);
                span
            }
        };
        self.blocks.classes.push((span, content));
        Ok(span.first)
    }

    /// Room for the frontends that are new.
    fn check_room<A: Family>(&self, placed: &Placed<A>) -> Result<(), CapacityError> {
        let side = A::side(self.maps);
        let keys = placed.ports.iter().flat_map(|port| &port.frontends);
        let new = keys
            .filter(|(_, key)| !side.frontends.contains_key(key) && !side.leaving.contains(key));
        let frontends = (side.present() + new.count()) as u64;
        fits(A::SERVICES, frontends, side.capacity)?;
        let known = &A::held(self.old).ranges;
        let new = placed.ranges.iter().filter(|range| !known.contains(range));
        let ranges = (side.ranges + new.count()) as u64;
        fits(A::SOURCE_RANGES, ranges, side.ranges_capacity)
    }
}

fn fits(map: MapId, need: u64, capacity: u32) -> Result<(), CapacityError> {
    if need <= u64::from(capacity) {
        return Ok(());
    }
    Err(CapacityError::Map {
        map,
        need,
        capacity,
    })
}

impl Taken {
    /// Gives everything back.
    pub(super) fn undo(self, maps: &mut Maps, ids: &mut IdTable) {
        let [v4, v6] = self.backends;
        give_back(&mut maps.v4.backends, &v4);
        give_back(&mut maps.v6.backends, &v6);
        self.blocks
            .into_iter()
            .for_each(|span| maps.slots.give_back(span));
        self.classes
            .into_iter()
            .for_each(|span| maps.classes.give_back(span));
        self.ids.into_iter().for_each(|key| ids.release(key));
    }
}

/// Gives places of backends back.
pub(super) fn give_back<A: Copy + Default>(
    places: &mut super::places::Places<BackendVal<A>>,
    indices: &[u32],
) {
    for &first in indices {
        places.give_back(Span { first, count: 1 });
    }
}
