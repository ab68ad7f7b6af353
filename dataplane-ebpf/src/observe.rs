//! Counters of drops, and flow events for those who listen.
//!
//! New flows are told one by one, dropped packets together with those like them: at once, and then
//! once a second with their number. Events have a budget on each CPU; what it does not cover is counted.

use aya_ebpf::{
    btf_maps::{Array, LruHashMap, PerCpuArray, RingBuf},
    macros::btf_map,
};
use dataplane_common::{
    abi::{Address, CtVal, DropKey, DropVal, FlowEvent, capacity, ct_flags, event_count},
    decide::budget,
    verdict::{DropReason, Verdict},
};

use crate::{
    family::Family,
    maps::{self, Table, element, local_element},
    packet::{Ctx, atomic_add, jiffies, monotonic_ns},
    stage::{audit, conntrack::Tuple, parse::Packet},
};

#[btf_map(name = "drops")]
static DROPS: PerCpuArray<u64, { capacity::DROPS as usize }> = PerCpuArray::new();

#[btf_map(name = "listeners")]
static LISTENERS: Array<u32, 1> = Array::new();

#[btf_map(name = "events")]
static EVENTS: RingBuf<FlowEvent, { capacity::EVENTS as usize }> = RingBuf::new();

#[btf_map(name = "told")]
static TOLD: LruHashMap<DropKey, DropVal, { capacity::TOLD as usize }> = LruHashMap::new();

#[btf_map(name = "event_budget")]
static EVENT_BUDGET: PerCpuArray<u64, { capacity::EVENT_BUDGET as usize }> = PerCpuArray::new();

#[btf_map(name = "event_counts")]
static EVENT_COUNTS: PerCpuArray<u64, { capacity::EVENT_COUNTS as usize }> = PerCpuArray::new();

/// Events that a CPU may send at once.
const EVENT_BURST: u32 = 256;
/// How long dropped packets are counted until they are told, in nanoseconds.
const JOINED_NS: u64 = 1_000_000_000;

/// Counts a drop.
#[inline(always)]
pub fn count_drop(reason: DropReason) {
    if let Some(count) = local_element(&DROPS, reason as u32) {
        *count += 1;
    }
}

/// True if someone listens to flow events.
#[inline(always)]
pub fn is_heard() -> bool {
    match element(&LISTENERS, 0) {
        Some(count) => *count != 0,
        None => false,
    }
}

/// Sends the verdict on a flow's packet. `entry` is the flow, if there is one.
#[inline(never)]
pub fn tell<A: Address>(
    packet: &Packet<A>,
    entry: Option<&CtVal<A>>,
    to: &Tuple<A>,
    at: u64,
) -> u32 {
    let reason = (at >> 8) as u32 & 0xff;
    let (Some(skipped), Some(spent)) = (
        local_element(&EVENT_BUDGET, 1),
        local_element(&EVENT_BUDGET, 2),
    ) else {
        return 0;
    };
    // The clock that the budget goes by costs more than the rest of an event that is left out.
    let tick = jiffies() as u64 | 1 << 32;
    if reason == 0 && *spent == tick {
        *skipped += 1;
        return count(event_count::SAMPLED);
    }
    let Some(full_at) = local_element(&EVENT_BUDGET, 0) else {
        return 0;
    };
    let now = monotonic_ns();
    let packets = if reason == 0 {
        1
    } else {
        join(packet, at as u8, reason, now)
    };
    if packets == 0 {
        return count(event_count::JOINED);
    }
    let (kept, may_send) = budget::take(*full_at, now, maps::event_rate(), EVENT_BURST);
    *full_at = kept;
    if !may_send {
        *spent = tick;
        *skipped += 1;
        return count(event_count::SAMPLED);
    }
    let Some(mut slot) = EVENTS.reserve(0) else {
        *skipped += 1;
        return count(event_count::LOST);
    };
    let mut event = FlowEvent {
        time: now,
        src: packet.src.to_mapped(),
        dst: packet.dst.to_mapped(),
        backend: A::UNSPECIFIED.to_mapped(),
        src_port: packet.src_port,
        dst_port: packet.dst_port,
        backend_port: to.dst_port,
        proto: packet.proto,
        hook: at as u8,
        reason,
        ifindex: (at >> 32) as u32,
        egress_rule: 0,
        ingress_rule: 0,
        frontend: 0,
        packets,
        skipped: *skipped as u32,
        audit: 0,
        audit_rule: 0,
        reserved: 0,
    };
    *skipped = 0;
    if let Some(entry) = entry {
        event.egress_rule = entry.egress_rule;
        event.ingress_rule = entry.ingress_rule;
        event.frontend = entry.frontend;
        event.audit = audit::verdict(entry);
        event.audit_rule = entry.audit_rule;
        if entry.flags & ct_flags::DNAT != 0 {
            event.backend = to.dst.to_mapped();
        }
    }
    slot.write(event);
    slot.submit(0);
    count(event_count::SENT)
}

/// Counts a verdict by what became of its event.
#[inline(always)]
fn count(outcome: u32) -> u32 {
    if let Some(count) = local_element(&EVENT_COUNTS, outcome) {
        *count += 1;
    }
    0
}

/// Joins a dropped packet with those like it. Returns how many an event is to stand for; 0: none is due.
#[inline(never)]
fn join<A: Address>(packet: &Packet<A>, hook: u8, reason: u32, now: u64) -> u32 {
    let key = DropKey {
        src: packet.src.to_mapped(),
        dst: packet.dst.to_mapped(),
        dst_port: packet.dst_port,
        proto: packet.proto,
        hook,
        reason,
    };
    let Some(told) = TOLD.find(&key) else {
        let first = DropVal {
            told: now,
            packets: 0,
            reserved: 0,
        };
        // Without room for it the next one is told too.
        let _ = TOLD.put(&key, &first);
        return 1;
    };
    if now - told.told < JOINED_NS {
        atomic_add(&mut told.packets, 1);
        return 0;
    }
    let packets = told.packets.wrapping_add(1);
    told.told = now;
    told.packets = 0;
    packets
}

/// Tells those who listen of a packet that is dropped, unless its flow was told of. The packet is the
/// one in the family's scratch room.
#[inline(always)]
pub fn told<F: Family, C: Ctx>(ctx: C, hook: u32, verdict: Verdict) -> Verdict {
    if let Err(reason) = verdict
        && is_heard()
        && let Some(scratch) = F::scratch()
    {
        if scratch.told == 0 {
            let at = at(hook, reason as u32, ctx.ifindex());
            tell(&scratch.packet, None, &Tuple::of(&scratch.packet), at);
        }
        scratch.told = 0;
    }
    verdict
}

/// The hook, reason and device of an event, packed as [`tell`] wants them.
#[inline(always)]
pub fn at(hook: u32, reason: u32, ifindex: u32) -> u64 {
    hook as u64 | (reason as u64) << 8 | (ifindex as u64) << 32
}
