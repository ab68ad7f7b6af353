//! Counters of drops, and flow events for those who listen.

use aya_ebpf::{
    btf_maps::{Array, PerCpuArray, RingBuf},
    macros::btf_map,
};
use dataplane_common::{
    abi::{Address, CtVal, FlowEvent, capacity, ct_flags},
    verdict::{DropReason, Verdict},
};

use crate::{
    family::Family,
    maps::{element, local_element},
    packet::{Ctx, monotonic_ns},
    stage::{conntrack::Tuple, parse::Packet},
};

#[btf_map(name = "drops")]
static DROPS: PerCpuArray<u64, { capacity::DROPS as usize }> = PerCpuArray::new();

#[btf_map(name = "listeners")]
static LISTENERS: Array<u32, 1> = Array::new();

#[btf_map(name = "events")]
static EVENTS: RingBuf<FlowEvent, { capacity::EVENTS as usize }> = RingBuf::new();

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
    let Some(mut slot) = EVENTS.reserve(0) else {
        return 0;
    };
    let mut event = FlowEvent {
        time: monotonic_ns(),
        src: packet.src.to_mapped(),
        dst: packet.dst.to_mapped(),
        backend: A::UNSPECIFIED.to_mapped(),
        src_port: packet.src_port,
        dst_port: packet.dst_port,
        backend_port: to.dst_port,
        proto: packet.proto,
        hook: at as u8,
        reason: (at >> 8) as u32 & 0xff,
        ifindex: (at >> 32) as u32,
        egress_rule: 0,
        ingress_rule: 0,
        frontend: 0,
        reserved: 0,
    };
    if let Some(entry) = entry {
        event.egress_rule = entry.egress_rule;
        event.ingress_rule = entry.ingress_rule;
        event.frontend = entry.frontend;
        if entry.flags & ct_flags::DNAT != 0 {
            event.backend = to.dst.to_mapped();
        }
    }
    slot.write(event);
    slot.submit(0);
    0
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
