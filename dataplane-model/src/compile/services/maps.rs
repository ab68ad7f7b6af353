//! The Service maps as they are written, and who has what in them.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use dataplane_common::abi::{
    Addr4, Addr6, BackendVal, ClassVal, IdKey, ServiceKey, ServiceVal, SlotVal, SourceRangeKey,
};

use super::places::{Places, Span};
use crate::capacity::Capacities;
use crate::snapshot::ObjectKey;
use crate::tables::{Family, MapId};

/// The Service maps of both families.
#[derive(Clone, Debug)]
pub struct Maps {
    pub(super) v4: Side<Addr4>,
    pub(super) v6: Side<Addr6>,
    /// Blocks.
    pub(super) slots: Places<SlotVal>,
    /// Blocks of classes.
    pub(super) classes: Places<ClassVal>,
    /// Services that wait for an address of another's.
    pub(super) waiters: HashSet<ObjectKey>,
}

/// The Service maps of one family.
#[derive(Clone, Debug)]
pub struct Side<A> {
    /// Backends.
    pub(super) backends: Places<BackendVal<A>>,
    /// Frontends. A tree: a hash table may be more than half empty.
    pub(super) frontends: BTreeMap<ServiceKey<A>, Front>,
    /// Frontends that are not wanted any more and may still be in the map.
    pub(super) leaving: BTreeSet<ServiceKey<A>>,
    /// Services that want a frontend which is another's.
    pub(super) waiting: BTreeMap<ServiceKey<A>, BTreeSet<ObjectKey>>,
    /// Services by the addresses that they have because a user wrote them.
    pub(super) given: BTreeMap<A, BTreeSet<ObjectKey>>,
    /// Frontends that there is room for.
    pub(super) capacity: u32,
    /// Source ranges that the map may have.
    pub(super) ranges: usize,
    /// Source ranges that there is room for.
    pub(super) ranges_capacity: u32,
}

/// A frontend.
#[derive(Clone, Debug)]
pub struct Front {
    /// Its value.
    pub(super) value: ServiceVal,
    /// The Service that has it.
    pub(super) owner: ObjectKey,
}

/// What a Service has in the maps.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Holdings {
    pub(super) v4: Held<Addr4>,
    pub(super) v6: Held<Addr6>,
    /// Blocks.
    pub(super) blocks: Box<[Span]>,
    /// Blocks of classes.
    pub(super) classes: Box<[Span]>,
    /// Numbers of its ports and frontends.
    pub(super) ids: Box<[IdKey]>,
}

/// What a Service has in the maps of one family.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Held<A> {
    /// Indices of backends.
    pub(super) backends: Box<[u32]>,
    /// Frontends.
    pub(super) keys: Box<[ServiceKey<A>]>,
    /// Source ranges.
    pub(super) ranges: Box<[SourceRangeKey<A>]>,
}

/// A family's part of what both have: a part of [`Family`], that everything generic can reach it.
pub trait Sided: Sized {
    /// Its maps.
    fn side(maps: &Maps) -> &Side<Self>;
    /// Its maps, to change.
    fn side_mut(maps: &mut Maps) -> &mut Side<Self>;
    /// What is held in them.
    fn held(holdings: &Holdings) -> &Held<Self>;
    /// What is held in them, to change.
    fn held_mut(holdings: &mut Holdings) -> &mut Held<Self>;
}

macro_rules! sided {
    ($family:ty, $field:ident) => {
        impl Sided for $family {
            fn side(maps: &Maps) -> &Side<Self> {
                &maps.$field
            }

            fn side_mut(maps: &mut Maps) -> &mut Side<Self> {
                &mut maps.$field
            }

            fn held(holdings: &Holdings) -> &Held<Self> {
                &holdings.$field
            }

            fn held_mut(holdings: &mut Holdings) -> &mut Held<Self> {
                &mut holdings.$field
            }
        }
    };
}
sided!(Addr4, v4);
sided!(Addr6, v6);

impl Maps {
    /// Empty maps.
    pub(super) fn new(capacities: &Capacities) -> Self {
        Self {
            v4: Side::new(capacities),
            v6: Side::new(capacities),
            slots: Places::new(MapId::Slots, capacities.slots),
            classes: Places::new(MapId::Classes, capacities.classes),
            waiters: HashSet::new(),
        }
    }
}

impl<A: Family> Side<A> {
    fn new(capacities: &Capacities) -> Self {
        Self {
            backends: Places::new(A::BACKENDS, capacities.backends),
            frontends: BTreeMap::new(),
            leaving: BTreeSet::new(),
            waiting: BTreeMap::new(),
            given: BTreeMap::new(),
            capacity: capacities.services,
            ranges: 0,
            ranges_capacity: capacities.source_ranges,
        }
    }

    /// Entries that the map may have.
    pub(super) fn present(&self) -> usize {
        self.frontends.len() + self.leaving.len()
    }
}

impl Holdings {
    /// True if nothing is held.
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Both holdings.
    pub(super) fn join(&mut self, other: Self) {
        fn append<T>(to: &mut Box<[T]>, from: Box<[T]>) {
            if !from.is_empty() {
                let both = std::mem::take(to).into_vec().into_iter().chain(from);
                *to = both.collect();
            }
        }
        append(&mut self.v4.backends, other.v4.backends);
        append(&mut self.v6.backends, other.v6.backends);
        append(&mut self.v4.keys, other.v4.keys);
        append(&mut self.v6.keys, other.v6.keys);
        append(&mut self.v4.ranges, other.v4.ranges);
        append(&mut self.v6.ranges, other.v6.ranges);
        append(&mut self.blocks, other.blocks);
        append(&mut self.classes, other.classes);
        append(&mut self.ids, other.ids);
    }
}
