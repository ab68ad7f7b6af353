//! Sends frames on from an XDP hook: back by the device they came by, or by another uplink that the
//! same kind of hook is on.

use aya_ebpf::{
    btf_maps::{HashMap, PerCpuArray},
    macros::btf_map,
};
use dataplane_common::{
    abi::{XdpDevice, capacity, xdp_count},
    net::eth,
    verdict::DropReason,
};

use crate::{
    family::Family,
    maps::{Table, local_element},
    packet::{self, Ctx, Window, fib_lookup},
    stage::{forward::LOOKUP_SUCCESS, parse::Packet},
};

#[btf_map(name = "xdp_devices")]
static DEVICES: HashMap<u32, XdpDevice, { capacity::XDP_DEVICES as usize }> = HashMap::new();

#[btf_map(name = "xdp_frames")]
static FRAMES: PerCpuArray<u64, { capacity::XDP_FRAMES as usize }> = PerCpuArray::new();

/// `XDP_REDIRECT`.
const REDIRECT: i64 = 4;

/// What becomes of a frame at an XDP hook, if it is not dropped.
#[must_use]
#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// On to the tc hooks, as it is.
    Stack = 0,
    /// Back by the device it came by.
    Back = 1,
    /// By another uplink, as the redirect helper was told.
    Redirect = 2,
}

/// True for a frame that is addressed to the device it came by. Others are seen where a switch
/// floods, and by devices that take everything.
#[inline(always)]
pub fn is_addressed<C: Ctx>(ctx: C, frame: Window<{ eth::LEN }>) -> bool {
    let Some(device) = DEVICES.find(&ctx.ifindex()) else {
        return false;
    };
    let [a, b, c, d, e, f] = device.mac;
    frame.get::<u32, { eth::DST }>() == u32::from_ne_bytes([a, b, c, d])
        && frame.u16::<{ eth::DST + 4 }>() == u16::from_ne_bytes([e, f])
}

/// Addresses a frame to the next hop towards an address, as a router does, and returns the device;
/// 0, and the frame stays as it is, if it does not fit there or is at its last hop, if the neighbour
/// is not known, or if the device does not take frames of this hook.
///
/// Not inlined: its stack is not to add up with that of the slow path.
#[inline(never)]
pub fn route<F: Family, C: Ctx>(ctx: C, packet: &Packet<F::Addr>, dst: &F::Addr) -> u32 {
    let length = ctx.len() - packet.l3;
    let mut query = F::route_query(ctx.ifindex(), *dst, packet.proto, length as u16);
    if fib_lookup(ctx, &mut query, 0) != LOOKUP_SUCCESS {
        return 0;
    }
    if query.ifindex != ctx.ifindex() && !agree(query.ifindex, ctx.ifindex()) {
        return 0;
    }
    let Some(frame) = ctx.window::<{ eth::LEN }>(0) else {
        return 0;
    };
    if F::count_hop(ctx, packet.l3).is_err() {
        return 0;
    }
    frame.set_mac::<{ eth::DST }>(query.dmac);
    frame.set_mac::<{ eth::SRC }>(query.smac);
    query.ifindex
}

/// True if both devices run the early program in the same mode.
#[inline(always)]
fn agree(a: u32, b: u32) -> bool {
    match (DEVICES.find(&a), DEVICES.find(&b)) {
        (Some(a), Some(b)) => a.mode == b.mode,
        _ => false,
    }
}

/// Sends a frame by a device that [`route`] gave.
#[inline(always)]
pub fn send<C: Ctx>(ctx: C, ifindex: u32) -> Result<Way, DropReason> {
    if ifindex == ctx.ifindex() {
        count(xdp_count::SENT_BACK);
        return Ok(Way::Back);
    }
    if packet::redirect(ifindex) != REDIRECT {
        return Err(DropReason::NoRoute);
    }
    count(xdp_count::REDIRECTED);
    Ok(Way::Redirect)
}

#[inline(always)]
fn count(what: u32) {
    if let Some(count) = local_element(&FRAMES, what) {
        *count += 1;
    }
}
