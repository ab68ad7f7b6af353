//! An array map's places: what each holds, and which are free.

use crate::capacity::CapacityError;
use crate::ids::Space;
use crate::tables::MapId;

/// Successive places.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct Span {
    /// The first.
    pub(super) first: u32,
    /// How many.
    pub(super) count: u32,
}

/// The places of one array map, as the kernel has them once all writes under way are done.
#[derive(Clone, Debug)]
pub(super) struct Places<V> {
    map: MapId,
    capacity: u32,
    /// Up to the last place that was ever filled.
    values: Vec<V>,
    space: Space,
}

impl<V: Copy + Default> Places<V> {
    /// All places are empty.
    pub(super) fn new(map: MapId, capacity: u32) -> Self {
        Self {
            map,
            capacity,
            values: Vec::new(),
            space: Space::new(capacity),
        }
    }

    /// Places in use.
    pub(super) fn used(&self) -> u32 {
        self.space.used()
    }

    /// What a place holds.
    pub(super) fn get(&self, place: u32) -> V {
        self.values.get(place as usize).copied().unwrap_or_default()
    }

    /// What successive places hold; `None` if some were never filled.
    pub(super) fn slice(&self, span: Span) -> Option<&[V]> {
        let first = span.first as usize;
        self.values.get(first..first + span.count as usize)
    }

    /// Notes what a place holds. A place past the capacity is none.
    pub(super) fn set(&mut self, place: u32, value: V) {
        if place >= self.capacity {
            return;
        }
        let index = place as usize;
        if index >= self.values.len() {
            // By an eighth: twice as much would be left empty in a large cluster.
            let more = (index + 1 - self.values.len()).max(self.values.len() / 8);
            if index >= self.values.capacity() {
                self.values.reserve_exact(more);
            }
            self.values.resize(index + 1, V::default());
        }
        self.values[index] = value;
    }

    /// Takes successive free places, those longest unused first: a packet under way may still read
    /// what was there.
    pub(super) fn take(&mut self, count: u32) -> Result<Span, CapacityError> {
        let first = self.space.take(count);
        self.taken(first, count)
    }

    /// Takes the lowest free place, so that the places in use stay close together.
    pub(super) fn take_lowest(&mut self) -> Result<u32, CapacityError> {
        let first = self.space.take_lowest(1);
        self.taken(first, 1).map(|span| span.first)
    }

    /// Takes these places; false if one is taken already or does not exist.
    pub(super) fn reserve(&mut self, span: Span) -> bool {
        self.space.reserve(span.first, span.count)
    }

    /// Takes places back.
    pub(super) fn give_back(&mut self, span: Span) {
        self.space.give_back(span.first, span.count);
    }

    fn taken(&self, first: Option<u32>, count: u32) -> Result<Span, CapacityError> {
        first
            .map(|first| Span { first, count })
            .ok_or_else(|| CapacityError::Map {
                map: self.map,
                // Place 0 is never used.
                need: u64::from(self.used()) + u64::from(count) + 1,
                capacity: self.capacity,
            })
    }
}
