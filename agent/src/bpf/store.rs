//! The model's plans, written to the kernel's maps.

use std::sync::Arc;

use dataplane_model::{
    store::{Failed, MapStore},
    tables::MapId,
};

use super::{Error, Maps, Pass, bulk, sys::RawMap};

/// The maps that the model writes.
#[derive(Clone, Debug)]
pub struct Store {
    /// By [`MapId`], in the order of [`MapId::ALL`].
    maps: Vec<(MapId, Arc<RawMap>)>,
}

impl Store {
    /// Takes the maps.
    ///
    /// # Errors
    ///
    /// One is missing, or its keys or values are of other sizes than the model's.
    pub fn new(maps: &Maps) -> Result<Self, Error> {
        let check = |id: MapId| {
            let map = maps.raw(id.name())?;
            if (map.key_size(), map.value_size()) != (id.key_size(), id.value_size()) {
                return Err(Error::Map {
                    name: id.name().to_owned(),
                    reason: "keys or values of another size than the model's".to_owned(),
                });
            }
            Ok((id, map))
        };
        Ok(Self {
            maps: MapId::ALL
                .into_iter()
                .map(check)
                .collect::<Result<_, _>>()?,
        })
    }

    /// How many entries a map has room for.
    pub fn capacity(&self, id: MapId) -> u32 {
        self.map(id).info().max_entries
    }

    fn map(&self, id: MapId) -> &RawMap {
        let entry = self.maps.iter().find(|(map, _)| *map == id);
        &entry.expect("`new` takes every map of the model").1
    }
}

fn failed(id: MapId, what: &'static str, (done, error): (usize, std::io::Error)) -> Failed<Error> {
    Failed {
        done,
        error: Error::map(id.name(), what, error),
    }
}

impl MapStore for Store {
    type Error = Error;

    fn put(&mut self, map: MapId, keys: &[u8], values: &[u8]) -> Result<(), Failed<Error>> {
        bulk::put(self.map(map), keys, values).map_err(|error| failed(map, "writing", error))
    }

    fn delete(&mut self, map: MapId, keys: &[u8]) -> Result<(), Failed<Error>> {
        bulk::delete(self.map(map), keys).map_err(|error| failed(map, "deleting", error))
    }

    fn read(&self, map: MapId, each: &mut dyn FnMut(&[u8], &[u8])) -> Result<(), Error> {
        let raw = self.map(map);
        let mut pass = Pass::default();
        loop {
            let read = bulk::next(raw, &mut pass, bulk::CHUNK)
                .map_err(|error| Error::map(map.name(), "listing", error))?;
            let Some(read) = read else {
                return Ok(());
            };
            let keys = read.keys.chunks_exact(raw.key_size());
            for (key, value) in keys.zip(read.values.chunks_exact(raw.value_size())) {
                // Most places of an array are empty.
                if !map.is_array() || value.iter().any(|&byte| byte != 0) {
                    each(key, value);
                }
            }
        }
    }
}
