//! ICMP errors: they belong to the flow of the packet they quote, and are translated with it, inside
//! and out (RFC 5508 section 4, RFC 4443).

use dataplane_common::{
    abi::{CtKey, CtVal, Port, ct_flags},
    net::{
        checksum::{diff32, fold},
        proto,
    },
    verdict::DropReason,
};

use crate::{
    family::{self, Family},
    maps::Table,
    packet::{Ctx, PSEUDO_HEADER},
    stage::{
        conntrack::Tuple,
        parse::{Frag, Kind, Packet, has_ports},
        rewrite::checksum_offset,
    },
};

/// Length of an ICMP or ICMPv6 error's header.
const HEADER: u32 = 8;
/// Offset of its checksum.
const CHECKSUM: u32 = 2;

/// The flow of the packet that an error quotes. The quote, and what it is to say where the error
/// goes to, are left in the scratch room; the latter's `forward` tells the error's own direction.
#[inline(never)]
pub fn locate<F: Family, C: Ctx>(
    ctx: C,
    error: &Packet<F::Addr>,
) -> Option<&'static mut CtVal<F::Addr>> {
    let scratch = F::scratch()?;
    scratch.quote.clear();
    if quoted::<F, C>(ctx, error, &mut scratch.quote).is_err() {
        return None;
    }
    find::<F>(&scratch.quote, &mut scratch.quote_to)
}

/// Reads the packet that an error quotes: its network header, and its ports or echo identifier.
#[inline(always)]
fn quoted<F: Family, C: Ctx>(
    ctx: C,
    error: &Packet<F::Addr>,
    out: &mut Packet<F::Addr>,
) -> Result<(), DropReason> {
    let l3 = error.l4 + HEADER;
    ctx.pull(l3 + F::HEADER as u32 + HEADER)?;
    F::parse(ctx, l3, out)?;
    if out.frag == Frag::Later {
        return Err(DropReason::IcmpUnrelated);
    }
    let header = match ctx.window::<8>(out.l4 as usize) {
        Some(header) => header,
        None => {
            ctx.pull(out.l4 + HEADER)?;
            ctx.need::<8>(out.l4 as usize)?
        }
    };
    if has_ports(out.proto) {
        out.kind = Kind::Ports;
        out.src_port = Port(header.u16::<0>());
        out.dst_port = Port(header.u16::<2>());
    } else if out.proto == F::ICMP {
        out.kind = Kind::EchoRequest;
        out.src_port = Port(header.u16::<4>());
        out.dst_port = out.src_port;
    }
    Ok(())
}

/// The flow of a quoted packet; `to.forward` is set if the error travels as the flow's initiator
/// sends.
#[inline(always)]
fn find<F: Family>(
    quote: &Packet<F::Addr>,
    to: &mut Tuple<F::Addr>,
) -> Option<&'static mut CtVal<F::Addr>> {
    *to = Tuple::of(quote);
    let (key, source_is_b) = to.key(quote.proto);
    let entry = F::conntrack().find(&key)?;
    let from_initiator = source_is_b == (entry.flags & ct_flags::INITIATOR_IS_B != 0);
    to.forward = !from_initiator as u32;
    if entry.flags & ct_flags::FRONT == 0 {
        if from_initiator {
            to.src = entry.nat_src;
            to.src_port = entry.nat_src_port;
            to.dst = entry.nat_dst;
            to.dst_port = entry.nat_dst_port;
        }
        return Some(entry);
    }
    let (key, _) = CtKey::sorted(
        entry.nat_src,
        entry.nat_dst,
        entry.nat_src_port,
        entry.nat_dst_port,
        quote.proto,
    );
    if !from_initiator {
        to.src = entry.nat_dst;
        to.src_port = entry.nat_dst_port;
        to.dst = entry.nat_src;
        to.dst_port = entry.nat_src_port;
    }
    F::conntrack().find(&key)
}

/// Translates the error in the scratch room's `packet`, and the quote that [`locate`] found, but for
/// the quoted transport checksum. Returns 0 or a `DropReason` as a number.
#[inline(always)]
pub fn translate<F: Family, C: Ctx>(ctx: C) -> u32 {
    let Some(scratch) = F::scratch() else {
        return DropReason::Internal as u32;
    };
    match rewrite::<F, C>(ctx, &scratch.packet, &scratch.quote, &scratch.quote_to) {
        Ok(()) => 0,
        Err(reason) => reason as u32,
    }
}

/// Translates the quoted transport checksum, if the quote is long enough to have it (RFC 5508 section
/// 4.2). Returns 0 or a `DropReason` as a number.
#[inline(always)]
pub fn translate_checksum<F: Family, C: Ctx>(ctx: C) -> u32 {
    let Some(scratch) = F::scratch() else {
        return DropReason::Internal as u32;
    };
    let (quote, to) = (&scratch.quote, &scratch.quote_to);
    let addresses = family::add(
        F::checksum_diff(quote.src, to.src),
        F::checksum_diff(quote.dst, to.dst),
    );
    let pair = |src: u16, dst: u16| src as u32 | (dst as u32) << 16;
    let ports = diff32(
        pair(quote.src_port.0, quote.dst_port.0),
        pair(to.src_port.0, to.dst_port.0),
    );
    let at = scratch.packet.l4 + CHECKSUM;
    match update_quoted(ctx, at, quote, family::add(addresses, ports)) {
        Ok(()) => 0,
        Err(reason) => reason as u32,
    }
}

/// The error's own addresses: where they are ends of the quoted packet, they change with it.
#[inline(always)]
fn outer<F: Family>(
    error: &Packet<F::Addr>,
    quote: &Packet<F::Addr>,
    to: &Tuple<F::Addr>,
) -> (F::Addr, F::Addr) {
    let src = if error.src == quote.dst {
        to.dst
    } else {
        error.src
    };
    let dst = if error.dst == quote.src {
        to.src
    } else {
        error.dst
    };
    (src, dst)
}

#[inline(always)]
fn rewrite<F: Family, C: Ctx>(
    ctx: C,
    error: &Packet<F::Addr>,
    quote: &Packet<F::Addr>,
    to: &Tuple<F::Addr>,
) -> Result<(), DropReason> {
    let checksum = error.l4 + CHECKSUM;
    let (src, dst) = outer::<F>(error, quote, to);
    if !F::IS_V4 {
        let outer = family::add(
            F::checksum_diff(error.src, src),
            F::checksum_diff(error.dst, dst),
        );
        ctx.update_checksum_by(checksum, outer, PSEUDO_HEADER | F::checksum_flags())?;
        // In IPv4 the quoted header's own checksum balances its addresses.
        let inner = family::add(
            F::checksum_diff(quote.src, to.src),
            F::checksum_diff(quote.dst, to.dst),
        );
        ctx.update_checksum_by(checksum, inner, 0)?;
    }
    if quote.kind == Kind::Ports {
        let pair = |src: u16, dst: u16| src as u32 | (dst as u32) << 16;
        let old = pair(quote.src_port.0, quote.dst_port.0);
        let new = pair(to.src_port.0, to.dst_port.0);
        ctx.update_checksum(checksum, old, new, 0)?;
        let ports = ctx.need::<4>(quote.l4 as usize)?;
        ports.set_u16::<0>(to.src_port.0);
        ports.set_u16::<2>(to.dst_port.0);
    }
    F::write_addresses(ctx, quote.l3, to.src, to.dst)?;
    F::write_addresses(ctx, error.l3, src, dst)
}

/// Updates the quoted transport checksum by the difference of what it covers, and the error's
/// checksum at `checksum` with it.
#[inline(always)]
fn update_quoted<C: Ctx, A>(
    ctx: C,
    checksum: u32,
    quote: &Packet<A>,
    diff: u32,
) -> Result<(), DropReason> {
    let Some(offset) = checksum_offset(quote.proto) else {
        return Ok(());
    };
    let at = quote.l4 + offset;
    ctx.pull(at + 2)?;
    let Some(field) = ctx.window::<2>(at as usize) else {
        return Ok(());
    };
    let old = field.u16::<0>();
    if quote.proto == proto::UDP && old == 0 {
        return Ok(());
    }
    let new = !fold(!old as u32 + fold(diff) as u32);
    // In UDP a sum of 0 is sent as its other form (RFC 768).
    let new = if quote.proto == proto::UDP && new == 0 {
        u16::MAX
    } else {
        new
    };
    field.set_u16::<0>(new);
    ctx.update_checksum(checksum, old as u32, new as u32, 0)
}
