//! Dropped packets, by reason, and what became of the verdicts that listeners are to hear of.

use std::collections::BTreeMap;

use dataplane_common::{
    abi::{audit_count, event_count, name},
    verdict::DropReason,
};

use crate::bpf::{Error, Maps};

/// Packets dropped since the maps were made, all CPUs together; reasons without any are left out.
///
/// # Errors
///
/// The counters cannot be read.
pub fn read(maps: &Maps) -> Result<BTreeMap<DropReason, u64>, Error> {
    by_reason(maps, name::DROPS)
}

/// Those among them whose senders got no ICMP error, since they had many.
///
/// # Errors
///
/// The counters cannot be read.
pub fn without_error(maps: &Maps) -> Result<BTreeMap<DropReason, u64>, Error> {
    by_reason(maps, name::ERRORS_HELD)
}

/// Verdicts by what became of their events.
///
/// # Errors
///
/// The counters cannot be read.
pub fn events(maps: &Maps) -> Result<BTreeMap<&'static str, u64>, Error> {
    let sums = maps.counters(name::EVENT_COUNTS)?.sums()?;
    Ok(event_count::NAMES.into_iter().zip(sums).collect())
}

/// Flows that policies in audit would deny: directions and whether the flow was new, with counts.
///
/// # Errors
///
/// The counters cannot be read.
pub fn audits(maps: &Maps) -> Result<Vec<([&'static str; 2], u64)>, Error> {
    let sums = maps.counters(name::AUDITS)?.sums()?;
    let labels = [
        (audit_count::NEW_EGRESS, ["egress", "new"]),
        (audit_count::NEW_INGRESS, ["ingress", "new"]),
        (audit_count::LIVE_EGRESS, ["egress", "live"]),
        (audit_count::LIVE_INGRESS, ["ingress", "live"]),
    ];
    let count = |place: u32| sums.get(place as usize).copied().unwrap_or(0);
    let counts = labels.map(|(place, labels)| (labels, count(place)));
    Ok(counts.into())
}

fn by_reason(maps: &Maps, map: &str) -> Result<BTreeMap<DropReason, u64>, Error> {
    let sums = maps.counters(map)?.sums()?;
    let reasons = (0u32..).zip(sums).filter_map(|(code, count)| {
        let reason = DropReason::from_code(code)?;
        (count != 0).then_some((reason, count))
    });
    Ok(reasons.collect())
}
