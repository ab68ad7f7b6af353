//! Typed access to maps.

use std::{
    collections::BTreeMap, io, marker::PhantomData, mem::MaybeUninit, os::fd::OwnedFd, sync::Arc,
};

use dataplane_common::abi::{Abi, from_bytes};

use super::{
    Error, Pass, bulk,
    sys::{RawMap, kind},
};

/// The dataplane's maps, by name.
#[derive(Clone, Debug, Default)]
pub struct Maps {
    by_name: BTreeMap<String, Arc<RawMap>>,
}

impl Maps {
    /// Adds an open map.
    ///
    /// # Errors
    ///
    /// The descriptor is not a map's.
    pub fn insert(&mut self, name: &str, fd: OwnedFd) -> Result<(), Error> {
        let map = RawMap::new(fd, possible_cpus())
            .map_err(|error| Error::map(name, "asking for its layout", error))?;
        self.by_name.insert(name.to_owned(), Arc::new(map));
        Ok(())
    }

    /// Names and maps, sorted.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &RawMap)> {
        self.by_name
            .iter()
            .map(|(name, map)| (name.as_str(), &**map))
    }

    /// A map as it is.
    ///
    /// # Errors
    ///
    /// There is none of this name.
    pub fn raw(&self, name: &str) -> Result<Arc<RawMap>, Error> {
        self.by_name.get(name).cloned().ok_or_else(|| Error::Map {
            name: name.to_owned(),
            reason: "not among the dataplane's maps".to_owned(),
        })
    }

    /// Entries of a hash or LRU hash, by a walk over it.
    ///
    /// # Errors
    ///
    /// There is none of this name, or the kernel's.
    pub fn count(&self, name: &str) -> Result<u64, Error> {
        let map = self.raw(name)?;
        let (mut pass, mut count) = (Pass::default(), 0);
        while let Some(read) = bulk::next(&map, &mut pass, bulk::CHUNK)
            .map_err(|error| Error::map(name, "counting", error))?
        {
            count += read.keys.len() / map.key_size();
        }
        Ok(count as u64)
    }

    /// A hash, LRU hash, LPM trie or array (its keys are `u32`) as a table.
    ///
    /// # Errors
    ///
    /// There is none of this name, or its keys or values are of other sizes.
    pub fn table<K: Abi, V: Abi>(&self, name: &str) -> Result<Table<K, V>, Error> {
        Table::new(name, self.raw(name)?)
    }

    /// A per-CPU array of counters.
    ///
    /// # Errors
    ///
    /// There is none of this name, or it is of another kind.
    pub fn counters(&self, name: &str) -> Result<Counters, Error> {
        let map = self.raw(name)?;
        let info = map.info();
        if info.kind != kind::PERCPU_ARRAY || info.value_size != 8 {
            return Err(Error::Map {
                name: name.to_owned(),
                reason: "not a per-CPU array of u64".to_owned(),
            });
        }
        Ok(Counters {
            name: name.to_owned(),
            map,
        })
    }
}

/// A map of `K` to `V`.
#[derive(Clone, Debug)]
pub struct Table<K, V> {
    name: String,
    map: Arc<RawMap>,
    types: PhantomData<(K, V)>,
}

impl<K: Abi, V: Abi> Table<K, V> {
    fn new(name: &str, map: Arc<RawMap>) -> Result<Self, Error> {
        if map.key_size() != size_of::<K>() || map.value_size() != size_of::<V>() {
            return Err(Error::Map {
                name: name.to_owned(),
                reason: format!(
                    "keys of {} B and values of {} B, where {} B and {} B are expected",
                    map.key_size(),
                    map.value_size(),
                    size_of::<K>(),
                    size_of::<V>()
                ),
            });
        }
        Ok(Self {
            name: name.to_owned(),
            map,
            types: PhantomData,
        })
    }

    /// Most entries that it holds.
    pub fn capacity(&self) -> u32 {
        self.map.info().max_entries
    }

    /// The map's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A key's value.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn get(&self, key: &K) -> Result<Option<V>, Error> {
        let mut value = zeroed::<V>();
        let found = self
            .map
            .lookup(
                bytes(std::slice::from_ref(key)),
                bytes_mut(std::slice::from_mut(&mut value)),
            )
            .map_err(|error| self.error("reading", error))?;
        Ok(found.then_some(value))
    }

    /// Writes one entry.
    ///
    /// # Errors
    ///
    /// The kernel's; `E2BIG` if the map is full.
    pub fn put(&self, key: &K, value: &V) -> Result<(), Error> {
        self.map
            .update(
                bytes(std::slice::from_ref(key)),
                bytes(std::slice::from_ref(value)),
            )
            .map_err(|error| self.error("writing", error))
    }

    /// Deletes one entry; false if there is none.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn delete(&self, key: &K) -> Result<bool, Error> {
        self.map
            .delete(bytes(std::slice::from_ref(key)))
            .map_err(|error| self.error("deleting", error))
    }

    /// Writes entries in order. Those before a failing one are written.
    ///
    /// # Errors
    ///
    /// The kernel's, with the number of entries written.
    pub fn put_all(&self, entries: &[(K, V)]) -> Result<(), (usize, Error)> {
        let keys: Vec<K> = entries.iter().map(|(key, _)| *key).collect();
        let values: Vec<V> = entries.iter().map(|(_, value)| *value).collect();
        bulk::put(&self.map, bytes(&keys), bytes(&values))
            .map_err(|(done, error)| (done, self.error("writing", error)))
    }

    /// Deletes entries; a key that is not there is passed over.
    ///
    /// # Errors
    ///
    /// The kernel's, with the number of keys dealt with.
    pub fn delete_all(&self, keys: &[K]) -> Result<(), (usize, Error)> {
        bulk::delete(&self.map, bytes(keys))
            .map_err(|(done, error)| (done, self.error("deleting", error)))
    }

    /// All entries; an array's empty ones too.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn entries(&self) -> Result<Vec<(K, V)>, Error> {
        let mut all = Vec::new();
        let mut pass = Pass::default();
        while let Some(slice) = self.slice(&mut pass, bulk::CHUNK)? {
            all.extend(slice);
        }
        Ok(all)
    }

    /// The next entries of a pass over the map, about `size`; `None` at the end.
    ///
    /// Entries that come and go meanwhile may be missed or met twice.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn slice(&self, pass: &mut Pass, size: usize) -> Result<Option<Vec<(K, V)>>, Error> {
        let read =
            bulk::next(&self.map, pass, size).map_err(|error| self.error("listing", error))?;
        Ok(read.map(|read| {
            let keys = read.keys.chunks_exact(size_of::<K>());
            let values = read.values.chunks_exact(size_of::<V>());
            keys.zip(values)
                .filter_map(|(key, value)| Some((from_bytes(key)?, from_bytes(value)?)))
                .collect()
        }))
    }

    fn error(&self, what: &'static str, source: io::Error) -> Error {
        Error::map(&self.name, what, source)
    }
}

/// A per-CPU array of counters.
#[derive(Clone, Debug)]
pub struct Counters {
    name: String,
    map: Arc<RawMap>,
}

impl Counters {
    /// The sum of all CPUs for each index.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn sums(&self) -> Result<Vec<u64>, Error> {
        let mut values = vec![0u64; self.map.value_size() / 8];
        (0..self.map.info().max_entries)
            .map(|index| {
                self.map
                    .lookup(&index.to_ne_bytes(), bytes_mut(&mut values))
                    .map_err(|error| Error::map(&self.name, "reading", error))?;
                Ok(values.iter().sum())
            })
            .collect()
    }
}

/// CPUs that the kernel has room for: the values of a per-CPU map.
pub(super) fn possible_cpus() -> usize {
    cpus("possible")
}

/// CPUs that are there now.
pub fn online_cpus() -> usize {
    cpus("online")
}

fn cpus(which: &str) -> usize {
    std::fs::read_to_string(format!("/sys/devices/system/cpu/{which}"))
        .ok()
        .and_then(|list| parse_cpus(list.trim()))
        .unwrap_or(1)
}

fn parse_cpus(list: &str) -> Option<usize> {
    list.split(',')
        .map(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
            Some(last.checked_sub(first)? + 1)
        })
        .sum()
}

/// The bytes of values.
pub(super) fn bytes<T: Abi>(values: &[T]) -> &[u8] {
    // SAFETY: `Abi` types have no padding, so all bytes of the slice are initialised.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) }
}

fn bytes_mut<T: Abi>(values: &mut [T]) -> &mut [u8] {
    // SAFETY: as above, and every bit pattern is valid for an `Abi` type.
    unsafe { std::slice::from_raw_parts_mut(values.as_mut_ptr().cast(), size_of_val(values)) }
}

fn zeroed<T: Abi>() -> T {
    // SAFETY: every bit pattern is valid for an `Abi` type, so all zeros is.
    unsafe { MaybeUninit::zeroed().assume_init() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_lists_are_counted() {
        assert_eq!(parse_cpus("0-3"), Some(4));
        assert_eq!(parse_cpus("0"), Some(1));
        assert_eq!(parse_cpus("0-1,4,6-7"), Some(5));
        assert_eq!(parse_cpus("x"), None);
    }

    #[test]
    fn values_are_their_bytes() {
        let mut value = zeroed::<u32>();
        bytes_mut(std::slice::from_mut(&mut value)).copy_from_slice(&7u32.to_ne_bytes());
        assert_eq!(value, 7);
        assert_eq!(bytes(&[1u32, 2]).len(), 8);
    }
}
