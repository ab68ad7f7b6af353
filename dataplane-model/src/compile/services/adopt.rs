//! What an earlier process left in the maps.

use std::collections::{BTreeMap, HashMap};

use dataplane_common::abi::{
    Abi, Addr4, Addr6, BackendVal, ServiceKey, ServiceVal, SourceRangeKey, from_bytes,
};

use super::State;
use super::maps::{Front, Held, Holdings, Maps};
use super::places::{Places, Span};
use crate::ids::IdTable;
use crate::snapshot::{ObjectKey, Service, Snapshot};
use crate::store::MapStore;
use crate::tables::{Family, MapId};

/// What was found, by Service port.
#[derive(Clone, Debug, Default)]
pub(super) struct Adopted {
    ports: HashMap<u32, Holdings>,
    /// Source ranges by set.
    sets: HashMap<u32, Holdings>,
}

/// The owner of what no Service has: no object has an empty name.
pub(super) fn orphan() -> ObjectKey {
    ObjectKey::new("", "")
}

impl Front {
    /// True if no Service has it.
    pub(super) fn is_orphan(&self) -> bool {
        self.owner.name.is_empty()
    }
}

/// Reads the Service maps into the record of them.
pub(super) fn read<S: MapStore>(store: &S, maps: &mut Maps) -> Result<Adopted, S::Error> {
    let mut found = Found::default();
    array(store, MapId::Slots, &mut maps.slots)?;
    array(store, MapId::Classes, &mut maps.classes)?;
    found.family::<Addr4, S>(store, maps)?;
    found.family::<Addr6, S>(store, maps)?;
    found.values.sort_unstable();
    found.blocks(maps);
    Ok(found.adopted)
}

/// What is gathered while maps are read.
#[derive(Default)]
struct Found {
    adopted: Adopted,
    /// Service port, block and classes of each frontend.
    values: Vec<(u32, Span, Span)>,
}

impl Found {
    fn family<A: Family, S: MapStore>(&mut self, store: &S, maps: &mut Maps) -> Result<(), S::Error>
    where
        BackendVal<A>: Abi,
        ServiceKey<A>: Abi,
        SourceRangeKey<A>: Abi,
    {
        let mut backends: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        let mut keys: BTreeMap<u32, Vec<ServiceKey<A>>> = BTreeMap::new();
        let side = A::side_mut(maps);
        store.read(A::BACKENDS, &mut |place, value| {
            let (Some(index), Some(val)) = (from_bytes(place), from_bytes::<BackendVal<A>>(value))
            else {
                return;
            };
            side.backends.set(index, val);
            let span = Span {
                first: index,
                count: 1,
            };
            if val.service_port != 0 && side.backends.reserve(span) {
                backends.entry(val.service_port).or_default().push(index);
            }
        })?;
        let values = &mut self.values;
        store.read(A::SERVICES, &mut |key, value| {
            let (Some(key), Some(value)) = (
                from_bytes::<ServiceKey<A>>(key),
                from_bytes::<ServiceVal>(value),
            ) else {
                return;
            };
            keys.entry(value.service_port).or_default().push(key);
            let owner = orphan();
            side.frontends.insert(key, Front { value, owner });
            values.push((
                value.service_port,
                Span {
                    first: value.base,
                    count: value.count.into(),
                },
                Span {
                    first: value.class_base,
                    count: value.classes.into(),
                },
            ));
        })?;
        let mut ranges: BTreeMap<u32, Vec<SourceRangeKey<A>>> = BTreeMap::new();
        store.read(A::SOURCE_RANGES, &mut |key, _| {
            if let Some(key) = from_bytes::<SourceRangeKey<A>>(key) {
                ranges.entry(u32::from_be(key.lead)).or_default().push(key);
            }
        })?;
        for (set, ranges) in ranges {
            side.ranges += ranges.len();
            let held = A::held_mut(self.adopted.sets.entry(set).or_default());
            held.ranges = ranges.into();
        }
        let numbers = backends.keys().chain(keys.keys()).copied();
        for number in numbers.collect::<Vec<_>>() {
            let held = Held {
                backends: backends.remove(&number).unwrap_or_default().into(),
                keys: keys.remove(&number).unwrap_or_default().into(),
                ranges: Box::default(),
            };
            let holdings = self.adopted.ports.entry(number).or_default();
            let mut more = Holdings::default();
            *A::held_mut(&mut more) = held;
            holdings.join(more);
        }
        Ok(())
    }

    /// Notes the blocks that frontends lead to. One that overlaps with another cannot be trusted: it
    /// is nobody's, and who leads to it gets a new one.
    fn blocks(&mut self, maps: &mut Maps) {
        let mut blocks: BTreeMap<u32, Vec<Span>> = BTreeMap::new();
        let mut class_blocks: BTreeMap<u32, Vec<Span>> = BTreeMap::new();
        for &(service_port, block, classes) in &self.values {
            if maps.slots.reserve(block) {
                blocks.entry(service_port).or_default().push(block);
            }
            if !maps.classes.reserve(classes) {
                continue;
            }
            class_blocks.entry(service_port).or_default().push(classes);
            for place in classes.first..classes.first + classes.count {
                let class = maps.classes.get(place);
                let block = Span {
                    first: class.base,
                    count: class.count.into(),
                };
                if maps.slots.reserve(block) {
                    blocks.entry(service_port).or_default().push(block);
                }
            }
        }
        for (number, holdings) in &mut self.adopted.ports {
            holdings.blocks = blocks.remove(number).unwrap_or_default().into();
            holdings.classes = class_blocks.remove(number).unwrap_or_default().into();
        }
    }
}

fn array<V: Abi + Default, S: MapStore>(
    store: &S,
    map: MapId,
    places: &mut Places<V>,
) -> Result<(), S::Error> {
    store.read(map, &mut |place, value| {
        if let (Some(place), Some(value)) = (from_bytes(place), from_bytes::<V>(value)) {
            places.set(place, value);
        }
    })
}

impl State {
    /// Gives Services what an earlier process left of them: all of them before any is looked at, so that
    /// none takes for free what another has.
    pub(super) fn take_adopted(&mut self, snapshot: &Snapshot, ids: &IdTable) {
        let Some(mut adopted) = self.adopted.take() else {
            return;
        };
        let services = snapshot.services.values();
        for service in services.filter(|service| service.is_served()) {
            let mut found = Holdings::default();
            self.take_adopted_by(ids, service, &mut adopted, &mut found);
            if !found.is_empty() {
                let held = self.units.entry(service.key.clone()).or_default();
                held.join(found);
            }
        }
        self.adopted = Some(adopted);
    }

    fn take_adopted_by(
        &mut self,
        ids: &IdTable,
        service: &Service,
        adopted: &mut Adopted,
        old: &mut Holdings,
    ) {
        let sets = [
            super::source_set_key::<Addr4>(&service.key),
            super::source_set_key::<Addr6>(&service.key),
        ];
        for set in sets.iter().filter_map(|key| ids.get(key)) {
            old.join(adopted.sets.remove(&set.id).unwrap_or_default());
        }
        for port in &service.ports {
            let number = ids.get(&super::service_port_key(&service.key, port));
            let held = number.and_then(|number| adopted.ports.remove(&number.id));
            let Some(held) = held else {
                continue;
            };
            own(&mut self.maps.v4.frontends, &held.v4.keys, &service.key);
            own(&mut self.maps.v6.frontends, &held.v6.keys, &service.key);
            old.join(held);
        }
    }

    /// Once all Services have been looked at: what none of them took over is retired.
    pub(super) fn sweep(&mut self, ids: &IdTable) {
        let Some(adopted) = self.adopted.take() else {
            return;
        };
        let mut left = Holdings::default();
        for held in adopted
            .ports
            .into_values()
            .chain(adopted.sets.into_values())
        {
            left.join(held);
        }
        let ending = super::ends::ending(&self.maps, &left);
        super::ends::gone(&self.maps, &ending, &left, &mut self.gone);
        orphans(&mut self.maps.v4);
        orphans(&mut self.maps.v6);
        left.v4.keys = Box::default();
        left.v6.keys = Box::default();
        left.ids = ids.unheld().collect();
        if !left.is_empty() {
            self.retired.insert(orphan(), left);
        }
    }
}

fn own<A: Ord + Copy>(
    frontends: &mut BTreeMap<ServiceKey<A>, Front>,
    keys: &[ServiceKey<A>],
    owner: &ObjectKey,
) {
    for key in keys {
        if let Some(front) = frontends.get_mut(key).filter(|front| front.is_orphan()) {
            front.owner = owner.clone();
        }
    }
}

fn orphans<A: Family>(side: &mut super::maps::Side<A>) {
    let leaving = &mut side.leaving;
    side.frontends.retain(|key, front| {
        if front.is_orphan() {
            leaving.insert(*key);
        }
        !front.is_orphan()
    });
}
