//! The path of a frame that comes in by an uplink, before the kernel has made a packet buffer of it
//! (XDP): traffic of outside clients with backends on other nodes is translated and sent on.
//!
//! All else goes on to the tc hooks as it is. They find the flow of a first packet entered, if its
//! backend was chosen here: it is drawn once.

use dataplane_common::{
    abi::{CtVal, ct_flags, scope},
    net::proto,
    verdict::DropReason,
};

use super::{FROM_NET, open, room};
use crate::{
    family::Family,
    observe,
    packet::Ctx,
    stage::{
        conntrack::{self, Tuple},
        early::{self, Way},
        parse::{self, Frag, Kind, Packet},
        policy, rewrite, service,
    },
};

/// What comes in by an uplink.
#[inline(always)]
pub fn from_net<F: Family, C: Ctx>(ctx: C) -> Result<Way, DropReason> {
    let packet = room::<F>()?;
    let l3 = dataplane_common::net::eth::LEN as u32;
    if parse::parse::<F, C>(ctx, l3, packet).is_err() || !is_plain::<F>(packet) {
        return Ok(Way::Stack);
    }
    let mut to = Tuple::of(packet);
    let (entry, fresh) = match conntrack::find::<F>(packet, true, &mut to) {
        Some(entry) => (entry, false),
        None => {
            if !enter::<F, C>(ctx, packet) {
                return Ok(Way::Stack);
            }
            match conntrack::opened::<F>(&mut to) {
                Some(entry) => (entry, true),
                None => return Ok(Way::Stack),
            }
        }
    };
    // A flow that may have to be reset is left to the tc hooks, which can.
    let resets = entry.flags & ct_flags::RESETS != 0;
    if entry.denied != 0 || resets || entry.epoch != policy::epoch() {
        return Ok(Way::Stack);
    }
    if fresh && observe::is_heard() {
        let at = observe::at(FROM_NET, 0, ctx.ifindex());
        observe::tell(packet, Some(entry), &to, at);
    }
    if !is_relayed(entry) {
        return Ok(Way::Stack);
    }
    let ifindex = early::route::<F, C>(ctx, packet, &to.dst);
    if ifindex == 0 {
        return Ok(Way::Stack);
    }
    conntrack::touch(packet, entry, to.forward != 0);
    if let Some(reason) = DropReason::from_code(translate::<F, C>(ctx, packet, &to)) {
        return Err(reason);
    }
    early::send(ctx, ifindex)
}

/// Translates a frame: 0 or a `DropReason`. Not inlined: its stack is not to add up with that of
/// the slow path.
#[inline(never)]
fn translate<F: Family, C: Ctx>(ctx: C, packet: &Packet<F::Addr>, to: &Tuple<F::Addr>) -> u32 {
    match rewrite::apply::<F, C>(ctx, packet, to) {
        Ok(()) => 0,
        Err(reason) => reason as u32,
    }
}

/// True for packets that are translated here: whole, without options or extension headers.
#[inline(always)]
fn is_plain<F: Family>(packet: &Packet<F::Addr>) -> bool {
    packet.kind == Kind::Ports
        && matches!(packet.proto, proto::TCP | proto::UDP)
        && packet.frag == Frag::None
        && packet.l4 - packet.l3 == F::HEADER as u32
}

/// Opens the flow of a packet that dials a frontend. What fails is left to the tc hooks, as if
/// nothing had been drawn.
#[inline(always)]
fn enter<F: Family, C: Ctx>(ctx: C, packet: &Packet<F::Addr>) -> bool {
    let (addr, port) = (packet.dst, packet.dst_port);
    if service::lookup::<F>(addr, port, packet.proto, scope::EXTERNAL).is_none() {
        return false;
    }
    let draws = service::draws();
    if open::<F, C, FROM_NET>(ctx, 0) != 0 {
        service::set_draws(draws);
        return false;
    }
    true
}

/// True for a flow from outside to outside: its backend is on another node, and its packets carry
/// this node's address there.
#[inline(always)]
fn is_relayed<A>(entry: &CtVal<A>) -> bool {
    const RELAYED: u16 = ct_flags::OUTSIDE | ct_flags::DNAT | ct_flags::SNAT | ct_flags::REDIRECT;
    entry.flags & RELAYED == RELAYED && entry.responder_ifindex == 0
}
