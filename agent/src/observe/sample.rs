//! What `/metrics` reads at the moment it is asked for, away from the event loop.

use std::collections::BTreeMap;
use std::sync::Arc;

use dataplane_common::abi::{capacity, name};
use dataplane_common::verdict::DropReason;

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
        let read = read.unwrap_or_else(|panicked| {
            std::panic::resume_unwind(panicked.into_panic());
        })?;
        sample.maps.extend(read.maps);
        Ok(Sample {
            maps: sample.maps,
            kinds: sample.kinds,
            ..read
        })
    }
}

/// What the maps say.
fn read(maps: &Maps, census: &Census) -> Result<Sample, Error> {
    let mut counts = Vec::new();
    for (map, entries) in name::CONNTRACK.into_iter().zip(census.entries()) {
        let capacity = maps.raw(map)?.info().max_entries;
        counts.push((map.to_owned(), entries, capacity.into()));
    }
    for map in FILLED_BY_PROGRAMS.into_iter().flatten() {
        let capacity = maps.raw(map)?.info().max_entries;
        counts.push((map.to_owned(), maps.count(map)?, capacity.into()));
    }
    let half_open = maps.table::<u32, u32>(name::HALF_OPEN)?;
    let total = half_open.get(&(capacity::HALF_OPEN - 1))?;
    Ok(Sample {
        maps: counts,
        drops: named(drops::read(maps)?),
        errors_held: named(drops::without_error(maps)?),
        flow_events: drops::events(maps)?,
        audits: drops::audits(maps)?,
        // A count that has gone astray may be below zero.
        half_open: u64::try_from(total.unwrap_or_default().cast_signed()).unwrap_or_default(),
        ..Sample::default()
    })
}

fn named(counts: BTreeMap<DropReason, u64>) -> BTreeMap<&'static str, u64> {
    let named = counts.into_iter();
    named
        .map(|(reason, count)| (reason.name(), count))
        .collect()
}
