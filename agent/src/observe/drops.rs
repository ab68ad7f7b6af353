//! Dropped packets, by reason.

use std::collections::BTreeMap;

use dataplane_common::{abi::name, verdict::DropReason};

use crate::bpf::{Error, Maps};

/// Packets dropped since the maps were made, all CPUs together; reasons without any are left out.
///
/// # Errors
///
/// The counters cannot be read.
pub fn read(maps: &Maps) -> Result<BTreeMap<DropReason, u64>, Error> {
    let sums = maps.counters(name::DROPS)?.sums()?;
    let reasons = (0u32..).zip(sums).filter_map(|(code, count)| {
        let reason = DropReason::from_code(code)?;
        (count != 0).then_some((reason, count))
    });
    Ok(reasons.collect())
}
