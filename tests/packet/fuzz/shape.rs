//! Random packets between two addresses.

use std::net::IpAddr;

use dataplane_common::net::{icmp, icmpv6, proto};
use dataplane_model::snapshot::{Interface, Protocol};
use sluice_generate::{cluster::PORTS, dice::Dice};

use crate::{
    frame::{Body, Frame, Tcp},
    world::{ACK, SYN, SYN_ACK},
};

/// A flow's first packet, as policies see it and as octets.
pub struct Shape {
    /// `None`: it has no ports.
    pub protocol: Option<Protocol>,
    /// Source port.
    pub from: u16,
    /// Destination port.
    pub port: u16,
    /// It may begin a flow.
    pub opens: bool,
    /// The packet.
    pub frame: Frame,
}

/// Source ports of flows towards the lower address, and of those towards the higher.
const FROM: [u16; 2] = [20_000, 40_000];
/// How many of each.
const FROM_COUNT: u16 = 20_000;

/// A packet that opens a flow, with hardware addresses as at a pod's device. No two flows of opposite
/// directions have one tuple: the second would be the answer to the first.
pub fn first(dice: &mut Dice, src: IpAddr, dst: IpAddr, device: &Interface) -> Shape {
    let is_upwards = src < dst;
    let from = FROM[usize::from(is_upwards)] + dice.below(FROM_COUNT.into()) as u16;
    let port = match dice.roll() as u16 {
        port if port < FROM[0] && dice.once_in(2) => port,
        _ => dice.pick(&PORTS),
    };
    let data = vec![0x5a; dice.below(40)];
    let flags = if dice.once_in(8) { ACK } else { SYN };
    let (protocol, body) = match dice.below(9) {
        0..3 => (Some(Protocol::Tcp), tcp(from, port, flags)),
        3..6 => (Some(Protocol::Udp), udp(from, port, data, true)),
        6 => (Some(Protocol::Sctp), sctp(from, port, 1)),
        7 => (None, echo(src.is_ipv4(), false, from)),
        _ => (
            None,
            Body::Other {
                proto: if is_upwards { 47 } else { 50 },
                data,
            },
        ),
    };
    let extensions = if src.is_ipv6() && dice.once_in(8) {
        // Eight octets of padding (RFC 8200 section 4.2).
        let number = dice.pick(&[proto::HOP_BY_HOP, proto::DESTINATION_OPTIONS]);
        vec![(number, vec![0, 1, 4, 0, 0, 0, 0])]
    } else {
        vec![]
    };
    let options = if src.is_ipv4() && dice.once_in(8) {
        vec![1; 4]
    } else {
        vec![]
    };
    let frame = Frame {
        to: device.host_mac,
        from: device.mac,
        src,
        dst,
        ttl: 64,
        options,
        extensions,
        whole: false,
        fragment: None,
        body,
    };
    Shape {
        protocol,
        from,
        port: if protocol.is_some() { port } else { 0 },
        opens: protocol != Some(Protocol::Tcp) || flags == SYN,
        frame,
    }
}

/// The other end's answer to a packet, with hardware addresses as at a pod's device.
pub fn answer(frame: &Frame, device: &Interface) -> Frame {
    let is_v4 = frame.src.is_ipv4();
    let body = match &frame.body {
        Body::Tcp(first) => Body::Tcp(Tcp {
            src: first.dst,
            dst: first.src,
            flags: SYN_ACK,
            ..first.clone()
        }),
        Body::Udp { src, dst, data, .. } => udp(*dst, *src, data.clone(), true),
        Body::Sctp { src, dst, .. } => sctp(*dst, *src, 2),
        Body::Icmp { info, .. } => echo(is_v4, true, (info >> 16) as u16),
        Body::Other { proto, data } => Body::Other {
            proto: *proto,
            data: data.clone(),
        },
    };
    Frame {
        to: device.host_mac,
        from: device.mac,
        src: frame.dst,
        dst: frame.src,
        options: vec![],
        extensions: vec![],
        body,
        ..frame.clone()
    }
}

/// Octets with a few of the headers' changed, or cut short.
pub fn damaged(dice: &mut Dice, mut octets: Vec<u8>) -> Vec<u8> {
    const LINK: usize = 14;
    for _ in 0..=dice.below(3) {
        let at = LINK + dice.below((octets.len() - LINK).min(64));
        octets[at] = match dice.below(3) {
            0 => dice.roll() as u8,
            1 => octets[at] ^ (1 << dice.below(8)),
            _ => dice.pick(&[0, 1, 4, 6, 17, 43, 44, 51, 58, 59, 60, 132, 0xff]),
        };
    }
    // The kernel runs programs on no frame that ends within the network header.
    let least = LINK + if octets[12] == 0x08 { 20 } else { 40 };
    if dice.once_in(4) {
        octets.truncate(least + dice.below(octets.len() - least + 1));
    }
    octets
}

fn tcp(src: u16, dst: u16, flags: u8) -> Body {
    Body::Tcp(Tcp {
        src,
        dst,
        seq: 1,
        ack: 0,
        flags,
        data: vec![],
    })
}

fn udp(src: u16, dst: u16, data: Vec<u8>, summed: bool) -> Body {
    Body::Udp {
        src,
        dst,
        data,
        summed,
    }
}

fn sctp(src: u16, dst: u16, chunk: u8) -> Body {
    let tag = if chunk == 1 { 0 } else { 7 };
    let mut chunks = vec![chunk, 0, 0, 20];
    chunks.extend([0, 0, 0, 7, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1]);
    Body::Sctp {
        src,
        dst,
        tag,
        chunks,
        summed: true,
    }
}

fn echo(is_v4: bool, reply: bool, id: u16) -> Body {
    let kind = match (is_v4, reply) {
        (true, false) => icmp::ECHO_REQUEST,
        (true, true) => icmp::ECHO_REPLY,
        (false, false) => icmpv6::ECHO_REQUEST,
        (false, true) => icmpv6::ECHO_REPLY,
    };
    Body::Icmp {
        kind,
        code: 0,
        info: u32::from(id) << 16 | 1,
        data: b"ping".to_vec(),
    }
}
