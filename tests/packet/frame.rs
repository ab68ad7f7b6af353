//! Frames as values: built with right checksums, and read back with every checksum verified.

mod problem;
mod sums;

use std::net::IpAddr;

use dataplane_common::net::proto;

pub use problem::Problem;
use sums::{crc32c, sum, transport_sum};

/// A hardware address.
pub type Mac = [u8; 6];

/// An Ethernet frame that carries an IP packet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Frame {
    /// Hardware destination.
    pub to: Mac,
    /// Hardware source.
    pub from: Mac,
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// Time to live, or hop limit.
    pub ttl: u8,
    /// IPv4 options, in words.
    pub options: Vec<u8>,
    /// IPv6 extension headers: number, and body behind the next-header octet.
    pub extensions: Vec<(u8, Vec<u8>)>,
    /// IPv4: routers must not cut it up.
    pub whole: bool,
    /// Place in a fragmented datagram.
    pub fragment: Option<Fragment>,
    /// What it carries.
    pub body: Body,
}

/// A fragment's place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fragment {
    /// Identification.
    pub id: u16,
    /// Offset in units of 8 octets.
    pub offset: u16,
    /// Others follow.
    pub more: bool,
}

/// What a packet carries.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Body {
    /// TCP without options.
    Tcp(Tcp),
    /// UDP.
    Udp {
        /// Source port.
        src: u16,
        /// Destination port.
        dst: u16,
        /// Data.
        data: Vec<u8>,
        /// False: the checksum field is 0.
        summed: bool,
    },
    /// ICMP or ICMPv6, by the packet's family.
    Icmp {
        /// Type.
        kind: u8,
        /// Code.
        code: u8,
        /// The four octets behind the checksum.
        info: u32,
        /// The rest.
        data: Vec<u8>,
    },
    /// SCTP.
    Sctp {
        /// Source port.
        src: u16,
        /// Destination port.
        dst: u16,
        /// Verification tag.
        tag: u32,
        /// Chunks.
        chunks: Vec<u8>,
        /// False: the checksum field is 0.
        summed: bool,
    },
    /// Anything else.
    Other {
        /// IP protocol number.
        proto: u8,
        /// Its octets.
        data: Vec<u8>,
    },
}

/// A TCP segment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tcp {
    /// Source port.
    pub src: u16,
    /// Destination port.
    pub dst: u16,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// Flags.
    pub flags: u8,
    /// Data.
    pub data: Vec<u8>,
}

impl Frame {
    /// The frame's octets.
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend(self.to);
        out.extend(self.from);
        out.extend(if self.src.is_ipv4() {
            [0x08, 0x00]
        } else {
            [0x86, 0xdd]
        });
        out.extend(self.packet());
        out
    }

    /// The IP packet's octets.
    pub fn packet(&self) -> Vec<u8> {
        let body = self.body.bytes(self.src, self.dst);
        let number = self.body.proto(self.src.is_ipv4());
        match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let header = 20 + self.options.len();
                let field = self
                    .fragment
                    .map_or(0, |place| place.offset | u16::from(place.more) << 13)
                    | u16::from(self.whole) << 14;
                let mut out = vec![0x40 | (header / 4) as u8, 0];
                out.extend(((header + body.len()) as u16).to_be_bytes());
                out.extend(self.fragment.map_or(0, |place| place.id).to_be_bytes());
                out.extend(field.to_be_bytes());
                out.extend([self.ttl, number, 0, 0]);
                out.extend(src.octets());
                out.extend(dst.octets());
                out.extend(&self.options);
                let checksum = !sum(&out);
                out[10..12].copy_from_slice(&checksum.to_be_bytes());
                out.extend(body);
                out
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                let (first, chain) = self.chain(number);
                let mut out = vec![0x60, 0, 0, 0];
                out.extend(((chain.len() + body.len()) as u16).to_be_bytes());
                out.extend([first, self.ttl]);
                out.extend(src.octets());
                out.extend(dst.octets());
                out.extend(chain);
                out.extend(body);
                out
            }
            _ => panic!("addresses of two families"),
        }
    }

    /// The extension headers, and the number of the first.
    fn chain(&self, last: u8) -> (u8, Vec<u8>) {
        let mut headers = self.extensions.clone();
        if let Some(place) = self.fragment {
            let field = place.offset << 3 | u16::from(place.more);
            let mut body = vec![0];
            body.extend(field.to_be_bytes());
            body.extend(u32::from(place.id).to_be_bytes());
            headers.push((proto::FRAGMENT, body));
        }
        let numbers: Vec<u8> = headers
            .iter()
            .map(|(number, _)| *number)
            .chain([last])
            .collect();
        let mut out = Vec::new();
        for ((_, body), next) in headers.iter().zip(&numbers[1..]) {
            out.push(*next);
            out.extend(body);
        }
        (numbers[0], out)
    }

    /// The frame cut in two behind `at` octets of its IP payload, a multiple of 8.
    pub fn cut(&self, id: u16, at: usize) -> [Frame; 2] {
        let body = self.body.bytes(self.src, self.dst);
        let part = |data: &[u8], offset, more| Frame {
            fragment: Some(Fragment { id, offset, more }),
            body: Body::Other {
                proto: self.body.proto(self.src.is_ipv4()),
                data: data.to_vec(),
            },
            ..self.clone()
        };
        [
            part(&body[..at], 0, true),
            part(&body[at..], (at / 8) as u16, false),
        ]
    }

    /// The frame whose two fragments these are, its checksums verified.
    pub fn join(parts: [&Frame; 2]) -> Frame {
        let mut whole = parts[0].clone();
        whole.fragment = None;
        let Body::Other { data, .. } = &mut whole.body else {
            panic!("not a fragment: {whole:?}");
        };
        let Body::Other { data: rest, .. } = &parts[1].body else {
            panic!("not a fragment: {:?}", parts[1]);
        };
        data.extend(rest);
        Frame::read(&whole.bytes()).expect("two halves of one datagram")
    }

    /// An ICMP error about this frame, from an address, that quotes `octets` of its IP payload.
    pub fn error(&self, from: IpAddr, kind: Problem, octets: usize) -> Frame {
        let packet = self.packet();
        let header = packet.len() - self.body.bytes(self.src, self.dst).len();
        let (kind, code, info) = kind.numbers(self.src.is_ipv4());
        let data = packet[..packet.len().min(header + octets)].to_vec();
        Frame {
            src: from,
            dst: self.src,
            ttl: 64,
            options: vec![],
            extensions: vec![],
            whole: false,
            fragment: None,
            body: Body::Icmp {
                kind,
                code,
                info,
                data,
            },
            ..self.clone()
        }
    }

    /// Reads a frame and verifies its lengths and checksums.
    pub fn read(bytes: &[u8]) -> Result<Frame, String> {
        let mut frame = Frame {
            to: array(bytes, 0)?,
            from: array(bytes, 6)?,
            src: IpAddr::from([0; 4]),
            dst: IpAddr::from([0; 4]),
            ttl: 0,
            options: vec![],
            extensions: vec![],
            whole: false,
            fragment: None,
            body: Body::Other {
                proto: 0,
                data: vec![],
            },
        };
        let packet = &bytes[14..];
        let (number, body) = match array::<2>(bytes, 12)? {
            [0x08, 0x00] => frame.read_header4(packet)?,
            [0x86, 0xdd] => frame.read_header6(packet)?,
            other => return Err(format!("no IP: EtherType {other:02x?}")),
        };
        frame.body = if frame.fragment.is_some() {
            Body::Other {
                proto: number,
                data: body.to_vec(),
            }
        } else {
            Body::read(frame.src, frame.dst, number, body)?
        };
        Ok(frame)
    }

    fn read_header4<'a>(&mut self, packet: &'a [u8]) -> Result<(u8, &'a [u8]), String> {
        let header = usize::from(array::<1>(packet, 0)?[0] & 0xf) * 4;
        let total = usize::from(u16::from_be_bytes(array(packet, 2)?));
        if total != packet.len() || header < 20 || header > total {
            return Err(format!(
                "IPv4 lengths {header} and {total} of {}",
                packet.len()
            ));
        }
        if sum(&packet[..header]) != 0xffff {
            return Err("IPv4 header checksum".into());
        }
        let field = u16::from_be_bytes(array(packet, 6)?);
        let (offset, more) = (field & 0x1fff, field & 0x2000 != 0);
        self.whole = field & 0x4000 != 0;
        if offset != 0 || more {
            self.fragment = Some(Fragment {
                id: u16::from_be_bytes(array(packet, 4)?),
                offset,
                more,
            });
        }
        self.ttl = packet[8];
        self.src = array::<4>(packet, 12)?.into();
        self.dst = array::<4>(packet, 16)?.into();
        self.options = packet[20..header].to_vec();
        Ok((packet[9], &packet[header..]))
    }

    fn read_header6<'a>(&mut self, packet: &'a [u8]) -> Result<(u8, &'a [u8]), String> {
        let length = usize::from(u16::from_be_bytes(array(packet, 4)?));
        if length + 40 != packet.len() {
            return Err(format!("IPv6 length {length} of {}", packet.len()));
        }
        let mut number = packet[6];
        self.ttl = packet[7];
        self.src = array::<16>(packet, 8)?.into();
        self.dst = array::<16>(packet, 24)?.into();
        let mut rest = &packet[40..];
        loop {
            let octets = match number {
                proto::FRAGMENT => 8,
                proto::HOP_BY_HOP | proto::ROUTING | proto::DESTINATION_OPTIONS => {
                    (usize::from(array::<1>(rest, 1)?[0]) + 1) * 8
                }
                proto::AUTHENTICATION => (usize::from(array::<1>(rest, 1)?[0]) + 2) * 4,
                _ => return Ok((number, rest)),
            };
            let body = rest.get(1..octets).ok_or("IPv6 extension header is cut")?;
            if number == proto::FRAGMENT {
                let field = u16::from_be_bytes(array(body, 1)?);
                let id = u32::from_be_bytes(array(body, 3)?) as u16;
                self.fragment = Some(Fragment {
                    id,
                    offset: field >> 3,
                    more: field & 1 != 0,
                });
            } else {
                self.extensions.push((number, body.to_vec()));
            }
            number = rest[0];
            rest = &rest[octets..];
        }
    }
}

impl Body {
    fn proto(&self, is_v4: bool) -> u8 {
        match self {
            Body::Tcp(_) => proto::TCP,
            Body::Udp { .. } => proto::UDP,
            Body::Sctp { .. } => proto::SCTP,
            Body::Icmp { .. } if is_v4 => proto::ICMP,
            Body::Icmp { .. } => proto::ICMPV6,
            Body::Other { proto, .. } => *proto,
        }
    }

    fn bytes(&self, src: IpAddr, dst: IpAddr) -> Vec<u8> {
        let mut out = Vec::new();
        let (at, octets) = match self {
            Body::Tcp(tcp) => {
                out.extend(tcp.src.to_be_bytes());
                out.extend(tcp.dst.to_be_bytes());
                out.extend(tcp.seq.to_be_bytes());
                out.extend(tcp.ack.to_be_bytes());
                out.extend([5 << 4, tcp.flags, 0, 0, 0, 0, 0, 0]);
                (16, &tcp.data)
            }
            Body::Udp { src, dst, data, .. } => {
                out.extend(src.to_be_bytes());
                out.extend(dst.to_be_bytes());
                out.extend(((8 + data.len()) as u16).to_be_bytes());
                out.extend([0, 0]);
                (6, data)
            }
            Body::Icmp {
                kind,
                code,
                info,
                data,
            } => {
                out.extend([*kind, *code, 0, 0]);
                out.extend(info.to_be_bytes());
                (2, data)
            }
            Body::Sctp {
                src,
                dst,
                tag,
                chunks,
                summed,
            } => {
                out.extend([src.to_be_bytes(), dst.to_be_bytes()].as_flattened());
                out.extend(tag.to_be_bytes());
                out.extend([0; 4]);
                out.extend(chunks);
                if *summed {
                    let checksum = crc32c(&out);
                    out[8..12].copy_from_slice(&checksum.to_le_bytes());
                }
                return out;
            }
            Body::Other { data, .. } => return data.clone(),
        };
        out.extend(octets);
        let mut checksum = !transport_sum(src, dst, self.proto(src.is_ipv4()), &out);
        match self {
            Body::Udp { summed: false, .. } => checksum = 0,
            Body::Udp { .. } if checksum == 0 => checksum = 0xffff,
            _ => {}
        }
        out[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
        out
    }

    fn read(src: IpAddr, dst: IpAddr, number: u8, bytes: &[u8]) -> Result<Body, String> {
        let word = |at| array::<2>(bytes, at).map(u16::from_be_bytes);
        let long = |at| array::<4>(bytes, at).map(u32::from_be_bytes);
        let verify = |name: &str| match transport_sum(src, dst, number, bytes) {
            0xffff => Ok(()),
            sum => Err(format!("{name} checksum: the sum is {sum:04x}")),
        };
        match number {
            proto::TCP => {
                verify("TCP")?;
                let header = usize::from(array::<1>(bytes, 12)?[0] >> 4) * 4;
                Ok(Body::Tcp(Tcp {
                    src: word(0)?,
                    dst: word(2)?,
                    seq: long(4)?,
                    ack: long(8)?,
                    flags: array::<1>(bytes, 13)?[0],
                    data: bytes.get(header..).ok_or("TCP header is cut")?.to_vec(),
                }))
            }
            proto::UDP => {
                let summed = word(6)? != 0;
                if summed {
                    verify("UDP")?;
                } else if src.is_ipv6() {
                    return Err("UDP without checksum in IPv6".into());
                }
                if usize::from(word(4)?) != bytes.len() {
                    return Err(format!("UDP length {} of {}", word(4)?, bytes.len()));
                }
                Ok(Body::Udp {
                    src: word(0)?,
                    dst: word(2)?,
                    data: bytes[8..].to_vec(),
                    summed,
                })
            }
            proto::ICMP | proto::ICMPV6 => {
                verify("ICMP")?;
                Ok(Body::Icmp {
                    kind: bytes[0],
                    code: bytes[1],
                    info: long(4)?,
                    data: bytes[8..].to_vec(),
                })
            }
            proto::SCTP => {
                let sum = u32::from_le_bytes(array(bytes, 8)?);
                let mut covered = bytes.to_vec();
                covered[8..12].fill(0);
                if sum != 0 && sum != crc32c(&covered) {
                    return Err(format!("SCTP checksum {sum:08x}"));
                }
                Ok(Body::Sctp {
                    src: word(0)?,
                    dst: word(2)?,
                    tag: long(4)?,
                    chunks: bytes[12..].to_vec(),
                    summed: sum != 0,
                })
            }
            _ => Ok(Body::Other {
                proto: number,
                data: bytes.to_vec(),
            }),
        }
    }
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], String> {
    bytes
        .get(at..at + N)
        .and_then(|part| part.try_into().ok())
        .ok_or_else(|| format!("{} octets end before {}", bytes.len(), at + N))
}
