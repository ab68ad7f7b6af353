//! Answers a packet in its destination's place, back by the device it came from. What is refused:
//! TCP with a reset (RFC 9293 section 3.10.7.1), SCTP with an abort (RFC 9260 section 8.4), datagrams
//! with an unreachable port (RFC 792, RFC 4443 section 3.1). What is too big: with how much fits (RFC
//! 1191 section 4, RFC 4443 section 3.2). What is at its last hop: with that (RFC 792, RFC 4443
//! section 3.3).

use dataplane_common::{
    abi::{Address, hook},
    net::{checksum::fold, crc32c, eth, icmp, icmpv6, ipv4, ipv6, proto, sctp, tcp_flags},
    verdict::{DropReason, Verdict},
};

use crate::{
    family::{self, Family},
    packet::{self, Ctx},
    stage::{
        forward,
        parse::{Frag, Packet},
    },
};

/// Length of a TCP header without options.
const TCP: u32 = 20;
/// Length of an SCTP header and an abort without causes.
const SCTP_ABORT: u32 = 16;
/// Length of an ICMP or ICMPv6 error's header.
const ICMP: u32 = 8;
/// Octets of a datagram that the error quotes: its ports and its checksum.
const QUOTE: u32 = 8;
/// Octets of a TCP segment that the error quotes. The kernel does not cut off a checksum that a
/// device is yet to make.
const QUOTE_TCP: u32 = 20;

/// Turns the packet into its own refusal and sends it back.
#[inline(always)]
pub fn refuse<F: Family, C: Ctx>(ctx: C, packet: &Packet<F::Addr>, hook: u32) -> Verdict {
    let status = match packet.proto {
        proto::TCP => reset::<F, C>(ctx, packet),
        proto::SCTP => abort::<F, C>(ctx, packet),
        _ => unreachable::<F, C>(ctx, packet),
    };
    if let Some(reason) = DropReason::from_code(status) {
        return Err(reason);
    }
    send_back(ctx, hook)
}

/// True for a packet that is refused by an ICMP error.
#[inline(always)]
pub fn refuses_by_error<A>(packet: &Packet<A>) -> bool {
    !matches!(packet.proto, proto::TCP | proto::SCTP)
}

/// What an ICMP error says.
#[derive(Clone, Copy)]
pub struct Problem {
    /// Type and code, as the header has them.
    kind: u16,
    /// The word behind the checksum.
    info: u32,
}

/// No more than `mtu` octets fit.
#[inline(always)]
pub fn too_big<F: Family>(mtu: u32) -> Problem {
    if F::IS_V4 {
        problem(icmp::UNREACHABLE, icmp::CODE_FRAGMENTATION, mtu)
    } else {
        problem(icmpv6::PACKET_TOO_BIG, 0, mtu)
    }
}

/// The packet is at its last hop.
#[inline(always)]
pub fn expired<F: Family>() -> Problem {
    let kind = if F::IS_V4 {
        icmp::TIME_EXCEEDED
    } else {
        icmpv6::TIME_EXCEEDED
    };
    problem(kind, 0, 0)
}

#[inline(always)]
fn problem(kind: u8, code: u8, info: u32) -> Problem {
    Problem {
        kind: u16::from_ne_bytes([kind, code]),
        info,
    }
}

/// Tells a packet's sender of a problem.
#[inline(always)]
pub fn complain<F: Family, C: Ctx>(
    ctx: C,
    packet: &Packet<F::Addr>,
    problem: Problem,
    hook: u32,
) -> Verdict {
    let Problem { kind, info } = problem;
    let status = if packet.proto == proto::TCP {
        error_of_tcp::<F, C>(ctx, packet, kind, info)
    } else {
        error_of_other::<F, C>(ctx, packet, kind, info)
    };
    if let Some(reason) = DropReason::from_code(status) {
        return Err(reason);
    }
    send_back(ctx, hook)
}

/// Sends what was turned around to where the packet came from.
#[inline(always)]
fn send_back<C: Ctx>(ctx: C, hook: u32) -> Verdict {
    let device = ctx.ifindex();
    forward::redirected(if hook == hook::FROM_POD as u32 {
        packet::redirect_peer(device)
    } else if hook == hook::TO_NET as u32 {
        packet::redirect_in(device)
    } else {
        packet::redirect(device)
    })
}

/// True for packets that can be turned around where they stand: without options, extension headers
/// or fragmentation.
#[inline(always)]
fn is_plain<F: Family>(packet: &Packet<F::Addr>) -> bool {
    packet.l4 - packet.l3 == F::HEADER as u32 && packet.frag == Frag::None
}

#[inline(never)]
fn reset<F: Family, C: Ctx>(ctx: C, packet: &Packet<F::Addr>) -> u32 {
    status(make_reset::<F, C>(ctx, packet))
}

#[inline(never)]
fn abort<F: Family, C: Ctx>(ctx: C, packet: &Packet<F::Addr>) -> u32 {
    status(make_abort::<F, C>(ctx, packet))
}

#[inline(always)]
fn unreachable<F: Family, C: Ctx>(ctx: C, packet: &Packet<F::Addr>) -> u32 {
    let Problem { kind, info } = if F::IS_V4 {
        problem(icmp::UNREACHABLE, icmp::CODE_PORT, 0)
    } else {
        problem(icmpv6::UNREACHABLE, icmpv6::CODE_PORT, 0)
    };
    error_of_other::<F, C>(ctx, packet, kind, info)
}

#[inline(never)]
fn error_of_tcp<F: Family, C: Ctx>(ctx: C, packet: &Packet<F::Addr>, kind: u16, info: u32) -> u32 {
    status(make_error::<F, C, QUOTE_TCP>(ctx, packet, kind, info))
}

#[inline(never)]
fn error_of_other<F: Family, C: Ctx>(
    ctx: C,
    packet: &Packet<F::Addr>,
    kind: u16,
    info: u32,
) -> u32 {
    status(make_error::<F, C, QUOTE>(ctx, packet, kind, info))
}

#[inline(always)]
fn status(result: Result<(), DropReason>) -> u32 {
    match result {
        Ok(()) => 0,
        Err(reason) => reason as u32,
    }
}

#[inline(always)]
fn make_reset<F: Family, C: Ctx>(ctx: C, packet: &Packet<F::Addr>) -> Result<(), DropReason> {
    // A reset is never answered.
    if !is_plain::<F>(packet) || packet.flags & tcp_flags::RST != 0 {
        return Err(DropReason::NoBackend);
    }
    let l4 = eth::LEN + F::HEADER;
    let header = ctx.need::<20>(l4)?;
    let (sequence, acknowledged) = (header.get::<u32, 4>(), header.get::<u32, 8>());
    let length = segment_length::<F, C>(ctx, packet, header.u8::<12>());
    ctx.truncate(l4 as u32 + TCP)?;
    let header = ctx.need::<20>(l4)?;
    let (sequence, acknowledged, flags) = if packet.flags & tcp_flags::ACK != 0 {
        (acknowledged, 0, tcp_flags::RST)
    } else {
        let next = u32::from_be(sequence).wrapping_add(length);
        (0, next.to_be(), tcp_flags::RST | tcp_flags::ACK)
    };
    header.set_u16::<0>(packet.dst_port.0);
    header.set_u16::<2>(packet.src_port.0);
    header.set::<u32, 4>(sequence);
    header.set::<u32, 8>(acknowledged);
    header.set_u8::<12>(5 << 4);
    header.set_u8::<13>(flags);
    header.set_u16::<14>(0);
    header.set_u16::<16>(0);
    header.set_u16::<18>(0);
    let mut sum = pseudo_header::<F>(packet, TCP, proto::TCP);
    for word in [
        header.get::<u32, 0>(),
        header.get::<u32, 4>(),
        header.get::<u32, 8>(),
        header.get::<u32, 12>(),
    ] {
        sum = family::add(sum, word);
    }
    header.set_u16::<16>(!fold(sum));
    turn_around::<F, C>(ctx, packet, TCP)
}

#[inline(always)]
fn make_abort<F: Family, C: Ctx>(ctx: C, packet: &Packet<F::Addr>) -> Result<(), DropReason> {
    // The end of an association is never answered.
    let ends = matches!(packet.flags, sctp::ABORT | sctp::SHUTDOWN_COMPLETE);
    if !is_plain::<F>(packet) || ends {
        return Err(DropReason::NoBackend);
    }
    let l4 = eth::LEN + F::HEADER;
    // An INIT says which tag its sender wants to see; any other packet has its receiver's tag.
    let (tag, flags) = if packet.flags == sctp::INIT {
        ctx.pull(l4 as u32 + 20)?;
        (ctx.need::<20>(l4)?.get::<u32, 16>(), 0)
    } else {
        (ctx.need::<12>(l4)?.get::<u32, 4>(), sctp::REFLECTED_TAG)
    };
    ctx.truncate(l4 as u32 + SCTP_ABORT)?;
    let header = ctx.need::<{ SCTP_ABORT as usize }>(l4)?;
    let ports = packet.dst_port.0 as u32 | (packet.src_port.0 as u32) << 16;
    let chunk = u32::from_le_bytes([sctp::ABORT, flags, 0, 4]);
    header.set::<u32, 0>(ports);
    header.set::<u32, 4>(tag);
    header.set::<u32, 8>(sctp_sum(ports, tag, chunk));
    header.set::<u32, 12>(chunk);
    turn_around::<F, C>(ctx, packet, SCTP_ABORT)
}

/// The checksum of an abort. A global function: the verifier checks it once.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn sctp_sum(ports: u32, tag: u32, chunk: u32) -> u32 {
    crc32c::of_words([ports, tag, 0, chunk])
}

/// Sequence numbers that the segment takes: its payload, SYN and FIN.
#[inline(always)]
fn segment_length<F: Family, C: Ctx>(ctx: C, packet: &Packet<F::Addr>, offset: u8) -> u32 {
    let headers = packet.l4 + (offset >> 4) as u32 * 4;
    let payload = if ctx.len() > headers {
        ctx.len() - headers
    } else {
        0
    };
    payload
        + (packet.flags & tcp_flags::SYN != 0) as u32
        + (packet.flags & tcp_flags::FIN != 0) as u32
}

/// Makes an error of a packet, of a type and code, which says `info`, and quotes so much of the
/// packet's payload.
#[inline(always)]
fn make_error<F: Family, C: Ctx, const QUOTE: u32>(
    ctx: C,
    packet: &Packet<F::Addr>,
    kind: u16,
    info: u32,
) -> Result<(), DropReason> {
    if !is_plain::<F>(packet) {
        return Err(DropReason::NoBackend);
    }
    let quoted = F::HEADER as u32 + QUOTE;
    ctx.truncate(eth::LEN as u32 + quoted)?;
    ctx.grow_after_link(F::HEADER as u32 + ICMP)?;
    let l4 = eth::LEN + F::HEADER;
    let header = ctx.need::<8>(l4)?;
    header.set_u16::<0>(kind);
    header.set_u16::<2>(0);
    header.set::<u32, 4>(info.to_be());
    let length = ICMP + quoted;
    let mut sum = family::add(header.get::<u32, 0>(), info.to_be());
    if !F::IS_V4 {
        sum = family::add(sum, pseudo_header::<F>(packet, length, proto::ICMPV6));
    }
    sum = family::add(sum, quoted_sum::<F, C, QUOTE>(ctx, l4 + ICMP as usize)?);
    let header = ctx.need::<8>(l4)?;
    header.set_u16::<2>(!fold(sum));
    write_header::<F, C>(ctx, length)?;
    turn_around::<F, C>(ctx, packet, length)
}

/// One's-complement sum of the quoted packet: its header and so many octets.
#[inline(always)]
fn quoted_sum<F: Family, C: Ctx, const QUOTE: u32>(ctx: C, at: usize) -> Result<u32, DropReason> {
    let mut sum = 0;
    let words = (F::HEADER + QUOTE as usize) / 4;
    for i in 0..words {
        let word = ctx.need::<4>(at + i * 4)?;
        sum = family::add(sum, word.get::<u32, 0>());
    }
    Ok(sum)
}

/// A fresh network header for the error, in the room that was made.
#[inline(always)]
fn write_header<F: Family, C: Ctx>(ctx: C, payload: u32) -> Result<(), DropReason> {
    const TTL: u8 = 64;
    let l3 = eth::LEN;
    if F::IS_V4 {
        let header = ctx.need::<{ ipv4::LEN }>(l3)?;
        let total = (ipv4::LEN as u32 + payload) as u16;
        header.set::<u32, 0>(u32::from_be(0x4500_0000 | total as u32));
        header.set::<u32, 4>(0);
        header.set::<u32, 8>(u32::from_be(
            (TTL as u32) << 24 | (proto::ICMP as u32) << 16,
        ));
        // Addresses are written last, with their share of the checksum.
        header.set::<u32, 12>(0);
        header.set::<u32, 16>(0);
        let sum = family::add(header.get::<u32, 0>(), header.get::<u32, 8>());
        header.set_u16::<{ ipv4::CHECKSUM }>(!fold(sum));
    } else {
        let header = ctx.need::<{ ipv6::LEN }>(l3)?;
        header.set::<u32, 0>(u32::from_be(0x6000_0000));
        let next = (payload << 16) | (proto::ICMPV6 as u32) << 8 | TTL as u32;
        header.set::<u32, 4>(u32::from_be(next));
    }
    Ok(())
}

/// Sum of both addresses.
#[inline(always)]
fn add_address<F: Family>(packet: &Packet<F::Addr>) -> u32 {
    family::add(
        F::checksum_diff(F::Addr::UNSPECIFIED, packet.src),
        F::checksum_diff(F::Addr::UNSPECIFIED, packet.dst),
    )
}

/// Sum of a pseudo-header (RFC 9293 section 3.1, RFC 8200 section 8.1).
#[inline(always)]
fn pseudo_header<F: Family>(packet: &Packet<F::Addr>, length: u32, protocol: u8) -> u32 {
    let sum = family::add(add_address::<F>(packet), length.to_be());
    family::add(sum, (protocol as u32).to_be())
}

/// Swaps the two ends, and sets the length, which leaves checksums over the addresses as they are.
#[inline(always)]
fn turn_around<F: Family, C: Ctx>(
    ctx: C,
    packet: &Packet<F::Addr>,
    payload: u32,
) -> Result<(), DropReason> {
    set_length::<F, C>(ctx, payload)?;
    F::write_addresses(ctx, eth::LEN as u32, packet.dst, packet.src)?;
    let frame = ctx.need::<{ eth::LEN }>(0)?;
    let (a, b) = (frame.get::<u32, 0>(), frame.u16::<4>());
    let (c, d) = (frame.get::<u32, 6>(), frame.u16::<10>());
    frame.set::<u32, 0>(c);
    frame.set_u16::<4>(d);
    frame.set::<u32, 6>(a);
    frame.set_u16::<10>(b);
    Ok(())
}

/// Writes the network header's length field, and the checksum of IPv4's.
#[inline(always)]
fn set_length<F: Family, C: Ctx>(ctx: C, payload: u32) -> Result<(), DropReason> {
    use dataplane_common::net::checksum::update16;
    if !F::IS_V4 {
        let header = ctx.need::<{ ipv6::LEN }>(eth::LEN)?;
        header.set_u16::<{ ipv6::PAYLOAD_LENGTH }>((payload as u16).to_be());
        return Ok(());
    }
    let header = ctx.need::<{ ipv4::LEN }>(eth::LEN)?;
    let old = header.u16::<{ ipv4::TOTAL_LENGTH }>();
    let new = ((ipv4::LEN as u32 + payload) as u16).to_be();
    header.set_u16::<{ ipv4::TOTAL_LENGTH }>(new);
    let sum = header.u16::<{ ipv4::CHECKSUM }>();
    header.set_u16::<{ ipv4::CHECKSUM }>(update16(sum, old, new));
    Ok(())
}
