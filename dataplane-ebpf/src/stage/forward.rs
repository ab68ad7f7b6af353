//! Sends a packet on: into a pod of this node, out by a route, or up the host's stack.

use dataplane_common::{
    abi::{Subject, ct_flags, subject_state},
    net::{eth, ipv4, proto},
    verdict::{Action, DropReason, Verdict},
};

use crate::{
    family::Family,
    packet::{self, Ctx},
    stage::{parse::Packet, subject},
};

const TC_ACT_REDIRECT: i64 = 7;

/// `BPF_FIB_LKUP_RET_SUCCESS`.
pub const LOOKUP_SUCCESS: i64 = 0;
const LOOKUP_NO_NEIGHBOUR: i64 = 7;
/// `BPF_FIB_LKUP_RET_FRAG_NEEDED`.
const LOOKUP_TOO_BIG: i64 = 8;
/// `BPF_FIB_LOOKUP_SKIP_NEIGH`: leave hardware addresses alone.
const LOOKUP_SKIP_NEIGHBOUR: u32 = 1 << 2;
/// `BPF_FIB_LOOKUP_SRC`: also give the route's source address.
const LOOKUP_SOURCE: u32 = 1 << 4;

/// Hands the packet to a pod, from a device's ingress, past the host's stack.
#[inline(always)]
pub fn deliver<F: Family, C: Ctx>(ctx: C, target: &Subject) -> Verdict {
    if target.state == subject_state::CLOSED {
        return Err(DropReason::PodClosed);
    }
    ctx.set_to_host();
    let frame = ctx.need::<{ eth::LEN }>(0)?;
    frame.set_mac::<{ eth::DST }>(target.mac);
    frame.set_mac::<{ eth::SRC }>(target.host_mac);
    redirected(packet::redirect_peer(target.ifindex))
}

/// The pod of this node that has an address behind a device, or behind another one meanwhile.
#[inline(always)]
pub fn target_at<F: Family>(ifindex: u32, addr: F::Addr) -> Option<&'static Subject> {
    if let Some(found) = subject::by_device(ifindex)
        && F::address_of(found) == addr
    {
        return Some(found);
    }
    let identity = subject::identity::<F>(&addr);
    if identity.ifindex == 0 {
        return None;
    }
    subject::by_device(identity.ifindex)
}

/// Length of the packet from its network header on, or of each that a device is to make of it; 0 if
/// they differ.
#[inline(always)]
fn length_on_wire<A, C: Ctx>(ctx: C, packet: &Packet<A>) -> u16 {
    /// `GSO_BY_FRAGS`.
    const AS_THEY_COME: u32 = 0xffff;
    let segment = ctx.segment();
    if segment == 0 {
        return (ctx.len() - packet.l3) as u16;
    }
    if segment == AS_THEY_COME {
        return 0;
    }
    let header = match ctx.window::<20>(packet.l4 as usize) {
        Some(tcp) if packet.proto == proto::TCP => (tcp.u8::<12>() >> 4) as u32 * 4,
        _ => 8,
    };
    (packet.l4 - packet.l3 + header + segment) as u16
}

/// Sends the packet by the route to a destination, past the host's stack. One that is `TooBig` stays
/// as it is.
#[inline(never)]
pub fn by_route<F: Family, C: Ctx>(ctx: C, packet: &Packet<F::Addr>, dst: &F::Addr) -> u32 {
    let length = length_on_wire(ctx, packet);
    let mut query = F::route_query(ctx.ifindex(), *dst, packet.proto, length);
    let found = packet::fib_lookup(ctx, &mut query, LOOKUP_SKIP_NEIGHBOUR);
    if found == LOOKUP_TOO_BIG {
        return DropReason::TooBig as u32;
    }
    if found != LOOKUP_SUCCESS && found != LOOKUP_NO_NEIGHBOUR {
        return DropReason::NoRoute as u32;
    }
    if let Err(reason) = F::count_hop(ctx, packet.l3) {
        return reason as u32;
    }
    let mut next_hop = F::next_hop(&query);
    if packet::redirect_neigh(query.ifindex, &mut next_hop) == TC_ACT_REDIRECT {
        0
    } else {
        DropReason::NoRoute as u32
    }
}

/// The largest packet that fits the route to an address, in octets from its network header on; 0 if
/// the kernel does not say.
#[inline(never)]
pub fn mtu_towards<F: Family, C: Ctx>(ctx: C, packet: &Packet<F::Addr>, dst: &F::Addr) -> u32 {
    let mut query = F::route_query(ctx.ifindex(), *dst, packet.proto, u16::MAX);
    if packet::fib_lookup(ctx, &mut query, LOOKUP_SKIP_NEIGHBOUR) != LOOKUP_TOO_BIG {
        return 0;
    }
    // SAFETY: every bit pattern is a length.
    unsafe { query.__bindgen_anon_1.mtu_result as u32 }
}

/// True if routers may cut the packet up (RFC 791 section 3.2; RFC 8200 section 5: never).
#[inline(always)]
pub fn may_be_cut<F: Family, C: Ctx>(ctx: C, l3: u32) -> bool {
    if !F::IS_V4 {
        return false;
    }
    match ctx.window::<{ ipv4::LEN }>(l3 as usize) {
        Some(header) => u16::from_be(header.u16::<{ ipv4::FRAGMENT }>()) & ipv4::DONT_FRAGMENT == 0,
        None => false,
    }
}

/// The source address of the route towards an address; the unspecified one if there is no route, or if
/// the kernel does not say.
#[inline(always)]
pub fn source_towards<F: Family, C: Ctx>(
    ctx: C,
    packet: &Packet<F::Addr>,
    dst: F::Addr,
) -> F::Addr {
    let mut query = F::route_query(ctx.ifindex(), dst, packet.proto, 0);
    let flags = LOOKUP_SKIP_NEIGHBOUR | LOOKUP_SOURCE;
    match packet::fib_lookup(ctx, &mut query, flags) {
        LOOKUP_SUCCESS | LOOKUP_NO_NEIGHBOUR => F::route_source(&query),
        _ => F::host_client(),
    }
}

/// Sends the packet to a pod by the host's side of its device, through the pod's own egress hook.
#[inline(always)]
pub fn deliver_by_device<C: Ctx>(ctx: C, target: &Subject) -> Verdict {
    let frame = ctx.need::<{ eth::LEN }>(0)?;
    frame.set_mac::<{ eth::DST }>(target.mac);
    frame.set_mac::<{ eth::SRC }>(target.host_mac);
    redirected(packet::redirect(target.ifindex))
}

/// Sends what the host dialled to its backend: behind a device, by the route, or back to the host, which
/// is its own backend, or whose answer to itself this is (`forward` is 0). Returns 0 or a `DropReason`.
#[inline(never)]
pub fn for_host<F: Family, C: Ctx>(
    ctx: C,
    packet: &Packet<F::Addr>,
    forward: u32,
    device: u32,
    dst: &F::Addr,
) -> u32 {
    let sent = if forward == 0 || subject::is_this_node::<F>(dst) {
        return_to_host(ctx)
    } else {
        match target_at::<F>(device, *dst) {
            Some(target) => deliver_by_device(ctx, target),
            None => return by_route::<F, C>(ctx, packet, dst),
        }
    };
    match sent {
        Ok(_) => 0,
        Err(reason) => reason as u32,
    }
}

/// Turns a packet that the host sends round: it comes back in by the device that it was to leave by.
#[inline(always)]
pub fn return_to_host<C: Ctx>(ctx: C) -> Verdict {
    let frame = ctx.need::<{ eth::LEN }>(0)?;
    frame.set_mac::<{ eth::DST }>(frame.mac::<{ eth::SRC }>());
    redirected(packet::redirect_in(ctx.ifindex()))
}

/// A redirect helper's status as a verdict.
#[inline(always)]
pub fn redirected(status: i64) -> Verdict {
    if status == TC_ACT_REDIRECT {
        Ok(Action::Redirect)
    } else {
        Err(DropReason::NoRoute)
    }
}

/// A subprogram's status (0 or a `DropReason`) after which the packet is redirected.
#[inline(always)]
pub fn redirect_status(status: u32) -> Verdict {
    match DropReason::from_code(status) {
        None => Ok(Action::Redirect),
        Some(reason) => Err(reason),
    }
}

/// The status of [`by_route`] for a packet of a flow with some `ct_flags`, as a verdict. One that is not
/// translated may go by the host's stack: it knows routes that the lookup does not, and tells the sender
/// if there is none.
#[inline(always)]
pub fn routed(status: u32, flags: u16) -> Verdict {
    let translated = flags & (ct_flags::DNAT | ct_flags::SNAT) != 0;
    if status == DropReason::NoRoute as u32 && !translated {
        return Ok(Action::Pass);
    }
    redirect_status(status)
}
