//! An array map's places: what each holds, and which are free.

use crate::capacity::CapacityError;
use crate::ids::Space;
use crate::tables::MapId;

/// Places that are recorded together.
const CHUNK: usize = 4_096;

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
    /// By chunks, up to the last place that was ever filled: growing moves nothing.
    chunks: Vec<Box<[V]>>,
    space: Space,
}

impl<V: Copy + Default> Places<V> {
    /// All places are empty.
    pub(super) fn new(map: MapId, capacity: u32) -> Self {
        Self {
            map,
            capacity,
            chunks: Vec::new(),
            space: Space::new(capacity),
        }
    }

    /// Places in use.
    pub(super) fn used(&self) -> u32 {
        self.space.used()
    }

    /// What a place holds.
    pub(super) fn get(&self, place: u32) -> V {
        let place = place as usize;
        let chunk = self.chunks.get(place / CHUNK);
        chunk.map_or_else(V::default, |chunk| chunk[place % CHUNK])
    }

    /// True if successive places hold this, and no more.
    pub(super) fn hold(&self, span: Span, content: &[V]) -> bool
    where
        V: PartialEq,
    {
        let mut places = (span.first..).zip(content);
        span.count as usize == content.len() && places.all(|(at, value)| self.get(at) == *value)
    }

    /// Notes what a place holds. A place past the capacity is none.
    pub(super) fn set(&mut self, place: u32, value: V) {
        if place >= self.capacity {
            return;
        }
        let place = place as usize;
        while self.chunks.len() <= place / CHUNK {
            self.chunks.push(vec![V::default(); CHUNK].into());
        }
        self.chunks[place / CHUNK][place % CHUNK] = value;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_hold_what_they_were_given_also_where_chunks_meet() {
        let capacity = 2 * CHUNK as u32 + 10;
        let mut places = Places::<u32>::new(MapId::Slots, capacity);
        let first = CHUNK as u32 - 2;
        let content = [1, 2, 3, 4];
        (first..)
            .zip(content)
            .for_each(|(at, value)| places.set(at, value));
        let span = |count| Span { first, count };
        assert!(places.hold(span(4), &content));
        assert!(!places.hold(span(4), &[1, 2, 3, 5]));
        assert!(!places.hold(span(3), &content), "it is longer");
        assert!(!places.hold(span(5), &content), "it is shorter");
        assert_eq!(places.get(first + 4), 0, "never filled");
        assert_eq!(places.get(capacity - 1), 0, "not recorded yet");
    }

    #[test]
    fn a_place_past_the_capacity_is_none() {
        let mut places = Places::<u32>::new(MapId::Slots, 5);
        places.set(5, 7);
        assert_eq!(places.get(5), 0);
    }
}
