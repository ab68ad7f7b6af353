//! Reads a frame's headers into a flat record.

use dataplane_common::{
    abi::{Address, Port},
    net::{icmp, icmpv6, proto},
    verdict::DropReason,
};

use crate::{family::Family, packet::Ctx};

/// How a packet's transport header identifies its flow.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// By ports (TCP, UDP, SCTP).
    Ports = 0,
    /// ICMP echo request, by identifier.
    EchoRequest = 1,
    /// ICMP echo reply, by identifier.
    EchoReply = 2,
    /// ICMP error, by the packet it quotes.
    IcmpError = 3,
    /// Neighbour discovery and multicast listening: no flow.
    Neighbour = 4,
    /// By addresses and protocol alone.
    Other = 5,
}

/// Fragmentation.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Frag {
    /// Whole.
    None = 0,
    /// The first fragment, which has the transport header.
    First = 1,
    /// A later fragment.
    Later = 2,
}

/// A packet's headers. Flat, and every field is always set.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Packet<A> {
    /// Source address.
    pub src: A,
    /// Destination address.
    pub dst: A,
    /// Source port, or echo identifier.
    pub src_port: Port,
    /// Destination port, or echo identifier.
    pub dst_port: Port,
    /// Offset of the network header.
    pub l3: u32,
    /// Offset of the transport header.
    pub l4: u32,
    /// Identification of a fragmented datagram.
    pub frag_id: u32,
    /// IP protocol number.
    pub proto: u8,
    /// TCP flags; for SCTP the type of the first chunk; for ICMP the type.
    pub flags: u8,
    /// What the transport header is.
    pub kind: Kind,
    /// Fragmentation.
    pub frag: Frag,
}

impl<A: Address> Packet<A> {
    /// Makes ready for parsing: what only some packets have is as if there were none.
    #[inline(always)]
    pub fn clear(&mut self) {
        self.src_port = Port(0);
        self.dst_port = Port(0);
        self.kind = Kind::Other;
        self.flags = 0;
    }
}

/// Largest network and transport headers that are read: IPv6 and TCP without options.
const HEADERS: u32 = 74;

/// Reads the network header at `l3` and the transport header behind it.
#[inline(always)]
pub fn parse<F: Family, C: Ctx>(
    ctx: C,
    l3: u32,
    packet: &mut Packet<F::Addr>,
) -> Result<(), DropReason> {
    if ctx.window::<{ HEADERS as usize - 20 }>(0).is_none() {
        ctx.pull(HEADERS)?;
    }
    let mut end = l3 + F::stated_length(ctx, l3)?;
    if end > ctx.len() {
        return Err(DropReason::Truncated);
    }
    // Octets behind its end are the link layer's padding; but one that is yet to be segmented may be
    // longer than the field can tell.
    if ctx.len() - l3 > u16::MAX as u32 {
        end = ctx.len();
    }
    F::parse(ctx, l3, packet)?;
    if packet.l4 > end {
        return Err(DropReason::Truncated);
    }
    transport::<F, C>(ctx, packet, end)
}

/// Reads the transport header at `packet.l4` of a packet that ends at `end`; a later fragment has
/// none.
#[inline(always)]
fn transport<F: Family, C: Ctx>(
    ctx: C,
    packet: &mut Packet<F::Addr>,
    end: u32,
) -> Result<(), DropReason> {
    packet.kind = Kind::Other;
    packet.flags = 0;
    if packet.frag == Frag::Later {
        if has_ports(packet.proto) {
            packet.kind = Kind::Ports;
        }
        return Ok(());
    }
    let l4 = packet.l4 as usize;
    if has_ports(packet.proto) {
        packet.kind = Kind::Ports;
        if packet.proto == proto::TCP {
            let header = readable::<20, C>(ctx, l4, end)?;
            ports(packet, header.get::<u32, 0>());
            packet.flags = header.u8::<13>();
        } else if packet.proto == proto::SCTP {
            let header = readable::<16, C>(ctx, l4, end)?;
            ports(packet, header.get::<u32, 0>());
            packet.flags = header.u8::<12>();
        } else {
            let header = readable::<8, C>(ctx, l4, end)?;
            ports(packet, header.get::<u32, 0>());
        }
        return Ok(());
    }
    if packet.proto == F::ICMP {
        let header = readable::<8, C>(ctx, l4, end)?;
        let kind = header.u8::<0>();
        packet.flags = kind;
        packet.kind = if F::IS_V4 { kind4(kind) } else { kind6(kind) };
        if matches!(packet.kind, Kind::EchoRequest | Kind::EchoReply) {
            let id = Port(header.u16::<4>());
            packet.src_port = id;
            packet.dst_port = id;
        }
    }
    Ok(())
}

/// `N` bytes at `offset` of a packet that ends at `end`, taken out of paged memory if they are there.
#[inline(always)]
fn readable<const N: usize, C: Ctx>(
    ctx: C,
    offset: usize,
    end: u32,
) -> Result<crate::packet::Window<N>, DropReason> {
    if (offset + N) as u32 > end {
        return Err(DropReason::Truncated);
    }
    if let Some(window) = ctx.window::<N>(offset) {
        return Ok(window);
    }
    ctx.pull((offset + N) as u32)?;
    ctx.need::<N>(offset)
}

#[inline(always)]
fn ports<A>(packet: &mut Packet<A>, both: u32) {
    packet.src_port = Port(both as u16);
    packet.dst_port = Port((both >> 16) as u16);
}

/// True for protocols whose flows have ports.
#[inline(always)]
pub fn has_ports(protocol: u8) -> bool {
    matches!(protocol, proto::TCP | proto::UDP | proto::SCTP)
}

#[inline(always)]
fn kind4(kind: u8) -> Kind {
    match kind {
        icmp::ECHO_REQUEST => Kind::EchoRequest,
        icmp::ECHO_REPLY => Kind::EchoReply,
        icmp::UNREACHABLE | icmp::TIME_EXCEEDED | icmp::PARAMETER_PROBLEM => Kind::IcmpError,
        _ => Kind::Other,
    }
}

#[inline(always)]
fn kind6(kind: u8) -> Kind {
    match kind {
        icmpv6::ECHO_REQUEST => Kind::EchoRequest,
        icmpv6::ECHO_REPLY => Kind::EchoReply,
        icmpv6::UNREACHABLE..=icmpv6::PARAMETER_PROBLEM => Kind::IcmpError,
        icmpv6::LISTENER_QUERY..=icmpv6::REDIRECT | icmpv6::LISTENER_REPORT_2 => Kind::Neighbour,
        _ => Kind::Other,
    }
}
