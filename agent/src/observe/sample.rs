//! What `/metrics` reads at the moment it is asked for, away from the event loop.

use std::sync::Arc;

use dataplane_common::abi::{capacity, name};

use super::drops;
use crate::bpf::{Error, Maps};
use crate::metrics::Sample;
use crate::observe::conntrack::Census;
use crate::source::api::States;
use tokio::sync::watch;

/// Maps that the programs fill, beside those of flows: they are counted by a walk over their keys.
const FILLED_BY_PROGRAMS: [[&str; 2]; 3] = [name::AFFINITY, name::SOCK_REV, name::FRAGMENTS];

/// Entries and capacity of maps.
pub type MapCounts = Vec<(String, u64, u64)>;

/// Reads samples.
pub struct Sampler {
    maps: Maps,
    written: watch::Receiver<MapCounts>,
    census: Arc<Census>,
    source: States,
}

impl Sampler {
    /// `written` are the maps that the agent fills; `census` counts flows; `source` follows kinds.
    pub fn new(
        maps: Maps,
        written: watch::Receiver<MapCounts>,
        census: Arc<Census>,
        source: States,
    ) -> Self {
        Self {
            maps,
            written,
            census,
            source,
        }
    }

    /// Reads, on a thread of its own.
    ///
    /// # Errors
    ///
    /// A map cannot be read.
    pub async fn sample(&self) -> Result<Sample, Error> {
        let mut sample = Sample {
            maps: self.written.borrow().clone(),
            kinds: self.source.watched(),
            ..Sample::default()
        };
        let (maps, census) = (self.maps.clone(), Arc::clone(&self.census));
        let read = tokio::task::spawn_blocking(move || read(&maps, &census)).await;
        let (maps, drops, half_open) = read.unwrap_or_else(|panicked| {
            std::panic::resume_unwind(panicked.into_panic());
        })?;
        sample.maps.extend(maps);
        sample.drops = drops;
        sample.half_open = half_open;
        Ok(sample)
    }
}

type Read = (
    MapCounts,
    std::collections::BTreeMap<&'static str, u64>,
    u64,
);

fn read(maps: &Maps, census: &Census) -> Result<Read, Error> {
    let mut counts = Vec::new();
    for (map, entries) in name::CONNTRACK.into_iter().zip(census.entries()) {
        let capacity = maps.raw(map)?.info().max_entries;
        counts.push((map.to_owned(), entries, capacity.into()));
    }
    for map in FILLED_BY_PROGRAMS.into_iter().flatten() {
        let capacity = maps.raw(map)?.info().max_entries;
        counts.push((map.to_owned(), maps.count(map)?, capacity.into()));
    }
    let drops = drops::read(maps)?;
    let half_open = maps.table::<u32, u32>(name::HALF_OPEN)?;
    let total = half_open.get(&(capacity::HALF_OPEN - 1))?;
    Ok((
        counts,
        drops
            .into_iter()
            .map(|(reason, count)| (reason.name(), count))
            .collect(),
        // A count that has gone astray may be below zero.
        u64::try_from(total.unwrap_or_default().cast_signed()).unwrap_or_default(),
    ))
}
