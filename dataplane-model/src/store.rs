//! Where plans are written, and the record of what has been.

use std::collections::BTreeMap;
use std::fmt::Display;

use dataplane_common::abi::{
    Abi, IdKey, IdVal, bytes_of, from_bytes, ruleset_flags, subject_state,
};

use crate::ids::{self, IdTable};
use crate::plan::{Action, Step};
use crate::snapshot::{Before, Direction};
use crate::tables::{Cell, Family, MapId, TableEditor, Tables};

/// The BPF maps, or a stand-in.
///
/// Keys and values are the bytes of the ABI types, one after another without gaps
/// ([`MapId::key_size`], [`MapId::value_size`]), ready for batch operations.
pub trait MapStore {
    /// Why an operation failed.
    type Error: Display;

    /// Writes entries in order.
    ///
    /// # Errors
    ///
    /// [`Failed`] with the number of entries that were written before the first that was not.
    fn put(&mut self, map: MapId, keys: &[u8], values: &[u8]) -> Result<(), Failed<Self::Error>>;

    /// Deletes keys in order; one that does not exist counts as deleted. Not called for arrays.
    ///
    /// # Errors
    ///
    /// [`Failed`] with the number of keys that were deleted before the first that was not.
    fn delete(&mut self, map: MapId, keys: &[u8]) -> Result<(), Failed<Self::Error>>;

    /// Calls `each` with every entry's key and value. Array places of zeros may be left out.
    ///
    /// # Errors
    ///
    /// When the map cannot be read.
    fn read(&self, map: MapId, each: &mut dyn FnMut(&[u8], &[u8])) -> Result<(), Self::Error>;
}

/// An operation stopped half-way.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failed<E> {
    /// Entries that were done.
    pub done: usize,
    /// Why the next one was not.
    pub error: E,
}

/// What the maps of policy hold, as far as it was written or read by this process.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Written {
    /// Contents of the maps.
    pub tables: Tables,
    /// The policy epoch; odd while a change of policy is half-written.
    pub epoch: u32,
}

/// Reads the maps of policy as they are, and the policy epoch.
///
/// # Errors
///
/// When a map cannot be read.
pub fn read_policy<S: MapStore>(store: &S) -> Result<(Tables, u32), S::Error> {
    let read = read(store, |map| !map.is_service() && map != MapId::Ids)?;
    Ok((read.tables, read.epoch))
}

/// Reads the maps of Services as they are.
///
/// # Errors
///
/// When a map cannot be read.
pub fn read_services<S: MapStore>(store: &S) -> Result<Tables, S::Error> {
    Ok(read(store, MapId::is_service)?.tables)
}

fn read<S: MapStore>(store: &S, wanted: impl Fn(MapId) -> bool) -> Result<Written, S::Error> {
    let mut read = Written::default();
    for map in MapId::ALL.into_iter().filter(|&map| wanted(map)) {
        store.read(map, &mut |key, value| {
            if !is_empty(map, value) {
                read.record(map, Action::Put, key, value);
            }
        })?;
    }
    Ok(read)
}

impl Written {
    /// Reads what an earlier process left, and the numbers it used.
    ///
    /// # Errors
    ///
    /// When a map cannot be read.
    pub(crate) fn adopt<S: MapStore>(store: &S, ids: &mut IdTable) -> Result<Self, S::Error> {
        let mut written = Self::default();
        let mut numbers = Vec::new();
        for map in MapId::ALL.into_iter().filter(|map| !map.is_service()) {
            store.read(map, &mut |key, value| {
                let number =
                    (map == MapId::Ids).then(|| Some((from_bytes(key)?, from_bytes(value)?)));
                let number: Option<(IdKey, IdVal)> = number.flatten();
                numbers.extend(number);
                let is_service = number.is_some_and(|(key, _)| ids::is_service(&key));
                if !is_service && !is_empty(map, value) {
                    written.record(map, Action::Put, key, value);
                }
            })?;
        }
        ids.restore(numbers);
        Ok(written)
    }

    /// The pods of this node that NetworkPolicies isolate.
    pub(crate) fn isolated(&self) -> Vec<Before> {
        let tables = &self.tables;
        let subjects = tables.subjects.values();
        let subjects = subjects.chain(tables.subjects_overflow.values());
        let isolates = |ruleset: u32| {
            let ruleset = tables.rulesets.get(&ruleset);
            ruleset.is_some_and(|value| value.flags & ruleset_flags::ISOLATES != 0)
        };
        let managed = subjects.filter(|subject| subject.state == subject_state::MANAGED);
        let before = managed.map(|subject| Before {
            ips: vec![subject.addr4.to_ip(), subject.addr6.to_ip()],
            isolated: [
                (Direction::Ingress, subject.ingress),
                (Direction::Egress, subject.egress),
            ]
            .into_iter()
            .filter(|(_, ruleset)| isolates(*ruleset))
            .map(|(direction, _)| direction)
            .collect(),
        });
        before
            .filter(|before| !before.isolated.is_empty())
            .collect()
    }

    /// Notes that the first `done` entries of a step have been written.
    pub fn record_step(&mut self, step: &Step, done: usize) {
        for (key, value) in step.entries().take(done) {
            self.record(step.map(), step.action(), key, value);
        }
    }

    /// Drops array places that nothing points to any more.
    pub(crate) fn forget(&mut self, places: &[(MapId, u32)]) {
        for (map, place) in places {
            self.tables.edit(
                *map,
                &mut Record {
                    key: bytes_of(place),
                    put: None,
                },
            );
        }
    }

    fn record(&mut self, map: MapId, action: Action, key: &[u8], value: &[u8]) {
        if map == MapId::Epoch {
            self.epoch = from_bytes(value).unwrap_or(self.epoch);
            return;
        }
        let put = (action == Action::Put && !is_empty(map, value)).then_some(value);
        self.tables.edit(map, &mut Record { key, put });
    }
}

/// Sets or removes one entry.
struct Record<'a> {
    key: &'a [u8],
    put: Option<&'a [u8]>,
}

impl TableEditor for Record<'_> {
    fn edit<K: Cell + Ord, V: Cell>(&mut self, table: &mut BTreeMap<K, V>) {
        let Some(key) = from_bytes(self.key) else {
            return;
        };
        match self.put.and_then(from_bytes) {
            Some(value) => table.insert(key, value),
            None => table.remove(&key),
        };
    }
}

fn is_empty(map: MapId, value: &[u8]) -> bool {
    map.is_array() && map != MapId::Epoch && value.iter().all(|&byte| byte == 0)
}

/// Maps that take everything and hold nothing.
pub struct NoMaps;

impl MapStore for NoMaps {
    type Error = std::convert::Infallible;

    fn put(&mut self, _: MapId, _: &[u8], _: &[u8]) -> Result<(), Failed<Self::Error>> {
        Ok(())
    }

    fn delete(&mut self, _: MapId, _: &[u8]) -> Result<(), Failed<Self::Error>> {
        Ok(())
    }

    fn read(&self, _: MapId, _: &mut dyn FnMut(&[u8], &[u8])) -> Result<(), Self::Error> {
        Ok(())
    }
}

/// Maps in memory, for tests: any number of entries, and failures on demand.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MemoryStore {
    maps: BTreeMap<MapId, BTreeMap<Vec<u8>, Vec<u8>>>,
    /// Entries that may still be written or deleted before every operation fails; `None`: no limit.
    pub budget: Option<usize>,
}

/// The error of a [`MemoryStore`] whose budget is used up.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("no operations are left")]
pub struct BudgetSpent;

impl MemoryStore {
    /// The value of a key.
    pub fn get<K: Abi, V: Abi>(&self, map: MapId, key: &K) -> Option<V> {
        self.maps
            .get(&map)?
            .get(bytes_of(key))
            .and_then(|value| from_bytes(value))
    }

    /// Sets a value past the plan, as a fault would.
    pub fn corrupt<K: Abi, V: Abi>(&mut self, map: MapId, key: &K, value: &V) {
        self.maps
            .entry(map)
            .or_default()
            .insert(bytes_of(key).to_vec(), bytes_of(value).to_vec());
    }

    /// All entries as tables.
    pub fn tables(&self) -> Tables {
        let mut all = Written::default();
        for (map, entries) in &self.maps {
            for (key, value) in entries {
                all.record(*map, Action::Put, key, value);
            }
        }
        all.tables
    }

    /// Numbers in use.
    pub fn ids(&self) -> BTreeMap<IdKey, IdVal> {
        let entries = self.maps.get(&MapId::Ids).into_iter().flatten();
        entries
            .filter_map(|(key, value)| Some((from_bytes(key)?, from_bytes(value)?)))
            .collect()
    }

    fn spend(&mut self, done: usize) -> Result<(), Failed<BudgetSpent>> {
        match &mut self.budget {
            Some(0) => Err(Failed {
                done,
                error: BudgetSpent,
            }),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

impl MapStore for MemoryStore {
    type Error = BudgetSpent;

    fn put(&mut self, map: MapId, keys: &[u8], values: &[u8]) -> Result<(), Failed<BudgetSpent>> {
        let entries = keys
            .chunks_exact(map.key_size())
            .zip(values.chunks_exact(map.value_size()));
        for (done, (key, value)) in entries.enumerate() {
            self.spend(done)?;
            self.maps
                .entry(map)
                .or_default()
                .insert(key.to_vec(), value.to_vec());
        }
        Ok(())
    }

    fn delete(&mut self, map: MapId, keys: &[u8]) -> Result<(), Failed<BudgetSpent>> {
        for (done, key) in keys.chunks_exact(map.key_size()).enumerate() {
            self.spend(done)?;
            self.maps.entry(map).or_default().remove(key);
        }
        Ok(())
    }

    fn read(&self, map: MapId, each: &mut dyn FnMut(&[u8], &[u8])) -> Result<(), BudgetSpent> {
        for (key, value) in self.maps.get(&map).into_iter().flatten() {
            each(key, value);
        }
        Ok(())
    }
}
