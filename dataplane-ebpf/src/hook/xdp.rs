//! The XDP program of uplinks: what needs no packet buffer.

use aya_ebpf::{macros::xdp, programs::XdpContext};
use dataplane_common::{
    net::{eth, ethertype},
    verdict::DropReason,
};

use crate::{
    family::{V4, V6},
    observe,
    packet::{Ctx, Xdp},
    pipeline::early,
    stage::early::{Way, is_addressed},
};

const DROP: u32 = 1;
const PASS: u32 = 2;
const TRANSMIT: u32 = 3;
const REDIRECT: u32 = 4;

/// Ingress of an uplink, ahead of `from_net`. Tagged frames are of another network.
///
/// Not for frames in several buffers: of those, generic mode makes copies that do not know the length
/// of their link header, and `from_net` could not read what is passed on (Linux 6.18).
#[xdp]
#[inline(always)]
pub fn from_net_xdp(ctx: XdpContext) -> u32 {
    let ctx = Xdp::new(ctx.ctx);
    let Some(frame) = ctx.window::<{ eth::LEN }>(0) else {
        return PASS;
    };
    if !is_addressed(ctx, frame) {
        return PASS;
    }
    code(match frame.u16::<{ eth::TYPE }>() {
        ethertype::IPV4 => early::from_net::<V4, Xdp>(ctx),
        ethertype::IPV6 => early::from_net::<V6, Xdp>(ctx),
        _ => Ok(Way::Stack),
    })
}

#[inline(always)]
fn code(way: Result<Way, DropReason>) -> u32 {
    match way {
        Ok(Way::Stack) => PASS,
        Ok(Way::Back) => TRANSMIT,
        Ok(Way::Redirect) => REDIRECT,
        Err(reason) => {
            observe::count_drop(reason);
            DROP
        }
    }
}
