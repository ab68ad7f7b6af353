//! Looking at the Service maps as they are recorded.

use dataplane_common::abi::{Addr4, Addr6, BackendVal, ClassVal, ServiceKey, ServiceVal, SlotVal};

use super::Services;
use super::maps::Maps;
use crate::eval::ServiceMaps;
use crate::ids::IdTable;
use crate::snapshot::{EndpointSlice, ObjectKey, Snapshot};
use crate::tables::{Family, MapId, Tables};

impl Services {
    /// All frontends of a family, by key.
    pub fn frontends<A: Family>(&self) -> impl Iterator<Item = (ServiceKey<A>, ServiceVal)> {
        let fronts = A::side(&self.state.maps).frontends.iter();
        fronts.map(|(key, front)| (*key, front.value))
    }

    /// The slices of a Service, by key.
    pub fn slices<'a>(
        &'a self,
        snapshot: &'a Snapshot,
        service: &ObjectKey,
    ) -> impl Iterator<Item = &'a EndpointSlice> {
        let slices = self.depend.slices.of(service);
        slices.filter_map(|key| snapshot.slices.get(key))
    }

    /// Entries of a Service map; 0 for other maps.
    pub fn used(&self, map: MapId) -> usize {
        let Maps {
            v4,
            v6,
            slots,
            classes,
            ..
        } = &self.state.maps;
        match map {
            MapId::Services4 => v4.present(),
            MapId::Services6 => v6.present(),
            MapId::Backends4 => v4.backends.used() as usize,
            MapId::Backends6 => v6.backends.used() as usize,
            MapId::Slots => slots.used() as usize,
            MapId::Classes => classes.used() as usize,
            MapId::SourceRanges4 => v4.ranges,
            MapId::SourceRanges6 => v6.ranges,
            _ => 0,
        }
    }

    /// Adds what Services have to tables.
    pub fn fill(&self, ids: &IdTable, tables: &mut Tables) {
        self.fill_family::<Addr4>(tables);
        self.fill_family::<Addr6>(tables);
        for held in self.state.units.values() {
            let places = |first: u32, count: u32| first..first + count;
            for place in held.blocks.iter().flat_map(|s| places(s.first, s.count)) {
                tables.slots.insert(place, self.state.maps.slots.get(place));
            }
            for place in held.classes.iter().flat_map(|s| places(s.first, s.count)) {
                tables
                    .classes
                    .insert(place, self.state.maps.classes.get(place));
            }
        }
        tables.ids.extend(ids.held());
    }

    fn fill_family<A: Family>(&self, tables: &mut Tables) {
        let side = A::side(&self.state.maps);
        let tables = A::tables_mut(tables);
        let fronts = side.frontends.iter();
        tables
            .services
            .extend(fronts.map(|(key, front)| (*key, front.value)));
        for held in self.state.units.values() {
            let indices = A::held(held).backends.iter();
            tables
                .backends
                .extend(indices.map(|&index| (index, side.backends.get(index))));
            let ranges = A::held(held).ranges.iter();
            tables.source_ranges.extend(ranges.map(|&range| (range, 1)));
        }
    }
}

impl ServiceMaps for Services {
    fn service<A: Family>(&self, key: &ServiceKey<A>) -> Option<ServiceVal> {
        let front = A::side(&self.state.maps).frontends.get(key)?;
        Some(front.value)
    }

    fn class(&self, place: u32) -> ClassVal {
        self.state.maps.classes.get(place)
    }

    fn slot(&self, place: u32) -> SlotVal {
        self.state.maps.slots.get(place)
    }

    fn backend<A: Family>(&self, index: u32) -> Option<BackendVal<A>> {
        let backend = A::side(&self.state.maps).backends.get(index);
        (backend.service_port != 0).then_some(backend)
    }
}
