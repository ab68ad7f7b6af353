//! What a frame says, read octet by octet from RFC 791, RFC 8200 and the transports' RFCs, with no
//! regard for how the programs read it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dataplane_common::net::proto;
use dataplane_model::snapshot::Protocol;

/// What a frame says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reading {
    /// A packet, or the first part of one.
    Packet(Packet),
    /// A later part of one: its flow stands in the first.
    Later(IpAddr, IpAddr),
    /// Neighbour discovery (RFC 4861) or multicast listening (RFC 2710, RFC 3810).
    Neighbour,
    /// It contradicts itself, or ends too early.
    Broken,
}

/// A packet's flow, as policies see it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Packet {
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// `None` for one without ports.
    pub protocol: Option<Protocol>,
    /// Source port, 0 without ports.
    pub from: u16,
    /// Destination port, 0 without ports.
    pub port: u16,
    /// It tells of an error about another packet.
    pub is_error: bool,
    /// Other parts of it follow.
    pub is_first: bool,
}

/// Ends, protocol and ports.
pub type Tuple = (IpAddr, IpAddr, Option<Protocol>, u16, u16);

impl Packet {
    /// Its own.
    pub fn tuple(&self) -> Tuple {
        (self.src, self.dst, self.protocol, self.from, self.port)
    }

    /// That of a packet which it may answer.
    pub fn answered(&self) -> Tuple {
        (self.dst, self.src, self.protocol, self.port, self.from)
    }
}

/// Reads an Ethernet frame that carries IP.
pub fn read(frame: &[u8]) -> Reading {
    let read = match frame.get(12..14) {
        Some([0x08, 0x00]) => read4(&frame[14..]),
        Some([0x86, 0xdd]) => read6(&frame[14..]),
        _ => None,
    };
    read.unwrap_or(Reading::Broken)
}

/// The packet that a frame carries, whole or its first part.
pub fn packet(frame: &[u8]) -> Option<Packet> {
    match read(frame) {
        Reading::Packet(packet) => Some(packet),
        _ => None,
    }
}

fn read4(packet: &[u8]) -> Option<Reading> {
    let (version, words) = (packet.first()? >> 4, packet.first()? & 0xf);
    let header = usize::from(words) * 4;
    let total = usize::from(word(packet, 2)?);
    if version != 4 || header < 20 || total < header {
        return None;
    }
    let packet = packet.get(..total)?;
    let src = IpAddr::from(Ipv4Addr::from(array::<4>(packet, 12)?));
    let dst = IpAddr::from(Ipv4Addr::from(array::<4>(packet, 16)?));
    let place = word(packet, 6)?;
    if place & 0x1fff != 0 {
        return Some(Reading::Later(src, dst));
    }
    transport(src, dst, packet[9], &packet[header..], place & 0x2000 != 0)
}

fn read6(packet: &[u8]) -> Option<Reading> {
    if packet.first()? >> 4 != 6 {
        return None;
    }
    let packet = packet.get(..40 + usize::from(word(packet, 4)?))?;
    let src = IpAddr::from(Ipv6Addr::from(array::<16>(packet, 8)?));
    let dst = IpAddr::from(Ipv6Addr::from(array::<16>(packet, 24)?));
    let (mut number, mut rest) = (packet[6], &packet[40..]);
    let mut is_first = false;
    loop {
        let octets = match number {
            proto::FRAGMENT => 8,
            proto::HOP_BY_HOP | proto::ROUTING | proto::DESTINATION_OPTIONS => {
                (usize::from(*rest.get(1)?) + 1) * 8
            }
            proto::AUTHENTICATION => (usize::from(*rest.get(1)?) + 2) * 4,
            _ => return transport(src, dst, number, rest, is_first),
        };
        if number == proto::FRAGMENT {
            let place = word(rest, 2)?;
            if place >> 3 != 0 {
                return Some(Reading::Later(src, dst));
            }
            is_first |= place & 1 != 0;
        }
        number = *rest.first()?;
        rest = rest.get(octets..)?;
    }
}

fn transport(src: IpAddr, dst: IpAddr, number: u8, body: &[u8], is_first: bool) -> Option<Reading> {
    let protocol = Protocol::ALL
        .into_iter()
        .find(|protocol| protocol.number() == number);
    let (from, port) = match protocol {
        Some(_) => (word(body, 0)?, word(body, 2)?),
        None => (0, 0),
    };
    let icmp = match (number, src) {
        (proto::ICMP, IpAddr::V4(_)) | (proto::ICMPV6, IpAddr::V6(_)) => Some(*body.first()?),
        _ => None,
    };
    if src.is_ipv6() && matches!(icmp, Some(130..=137 | 143)) {
        return Some(Reading::Neighbour);
    }
    let is_error = match icmp {
        Some(kind) if src.is_ipv4() => matches!(kind, 3 | 11 | 12),
        Some(kind) => matches!(kind, 1..=4),
        None => false,
    };
    Some(Reading::Packet(Packet {
        src,
        dst,
        protocol,
        from,
        port,
        is_error,
        is_first,
    }))
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    array(bytes, at).map(u16::from_be_bytes)
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}
