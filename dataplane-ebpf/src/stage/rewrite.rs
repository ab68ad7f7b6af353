//! Translates a packet's addresses and ports, with every checksum that covers them.

use dataplane_common::{
    net::{crc32c, proto},
    verdict::DropReason,
};

use crate::{
    family::{self, Family},
    packet::{Ctx, PSEUDO_HEADER, ZERO_IS_NONE},
    stage::{
        conntrack::Tuple,
        parse::{Frag, Kind, Packet},
    },
};

/// Offset of a transport checksum for protocols whose checksum covers addresses.
#[inline(always)]
pub fn checksum_offset(protocol: u8) -> Option<u32> {
    match protocol {
        proto::TCP => Some(16),
        proto::UDP => Some(6),
        proto::ICMPV6 => Some(2),
        _ => None,
    }
}

/// Gives the packet the tuple's addresses and ports.
#[inline(always)]
pub fn apply<F: Family, C: Ctx>(
    ctx: C,
    packet: &Packet<F::Addr>,
    to: &Tuple<F::Addr>,
) -> Result<(), DropReason> {
    let has_transport = packet.frag != Frag::Later;
    let ports_change = packet.kind == Kind::Ports
        && (to.src_port != packet.src_port || to.dst_port != packet.dst_port);
    if has_transport && let Some(offset) = checksum_offset(packet.proto) {
        let at = packet.l4 + offset;
        let flags = if packet.proto == proto::UDP {
            ZERO_IS_NONE
        } else {
            0
        };
        let diff = family::add(
            F::checksum_diff(packet.src, to.src),
            F::checksum_diff(packet.dst, to.dst),
        );
        ctx.update_checksum_by(at, diff, PSEUDO_HEADER | flags | F::checksum_flags())?;
        if ports_change {
            let pair = |src: u16, dst: u16| src as u32 | (dst as u32) << 16;
            let old = pair(packet.src_port.0, packet.dst_port.0);
            ctx.update_checksum(at, old, pair(to.src_port.0, to.dst_port.0), flags)?;
        }
    }
    if has_transport && ports_change && packet.proto == proto::SCTP {
        update_sctp::<F, C>(ctx, packet, to)?;
    }
    F::write_addresses(ctx, packet.l3, to.src, to.dst)?;
    if has_transport && ports_change {
        let header = ctx.need::<4>(packet.l4 as usize)?;
        header.set_u16::<0>(to.src_port.0);
        header.set_u16::<2>(to.dst_port.0);
    }
    Ok(())
}

/// Updates an SCTP checksum for changed ports (it covers no addresses). One of 0 is still to be computed
/// by a device, over what the packet then says.
#[inline(always)]
fn update_sctp<F: Family, C: Ctx>(
    ctx: C,
    packet: &Packet<F::Addr>,
    to: &Tuple<F::Addr>,
) -> Result<(), DropReason> {
    if packet.frag != Frag::None {
        return Err(DropReason::Rewrite);
    }
    let length = F::stated_length(ctx, packet.l3)? + packet.l3 - packet.l4;
    let src = (packet.src_port.0 ^ to.src_port.0) as u32;
    let dst = (packet.dst_port.0 ^ to.dst_port.0) as u32;
    let change = sctp_change(src | dst << 16, length);
    let header = ctx.need::<12>(packet.l4 as usize)?;
    let sum = header.get::<u32, 8>();
    if sum != 0 {
        header.set::<u32, 8>(sum ^ change);
    }
    Ok(())
}

/// [`crc32c::change_of_first_word`] as a global function: the verifier checks it once.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn sctp_change(diff: u32, length: u32) -> u32 {
    crc32c::change_of_first_word(diff, length)
}

/// True if the tuple is not the packet's own.
#[inline(always)]
pub fn is_translated<A: PartialEq>(packet: &Packet<A>, to: &Tuple<A>) -> bool {
    to.src != packet.src
        || to.dst != packet.dst
        || to.src_port != packet.src_port
        || to.dst_port != packet.dst_port
}
