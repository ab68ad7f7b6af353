//! A small world for the programs: hosts by name in either family, and what is told of them.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::MutexGuard,
};

use dataplane_common::{
    abi::{Addr4, Addr6, IdentityVal, Subject, identity_flags, name, subject_flags, subject_state},
    net::{proto, sctp, tcp_flags},
};

use crate::{
    frame::{Body, Frame, Mac, Problem, Tcp},
    kernel::{Kernel, Mode},
    netns::{PODS, UPLINK},
    service::Known,
};

/// An address family.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// Somebody with an address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Host {
    /// A pod of this node.
    Pod(u8),
    /// A pod of another node.
    Remote(u8),
    /// Nobody that is known.
    Outside(u8),
    /// This node.
    Node,
    /// Another node.
    OtherNode,
    /// A Service's address.
    Vip(u8),
}

/// The pod that asks.
pub const CLIENT: Host = Host::Pod(1);
/// The pod that answers.
pub const SERVER: Host = Host::Pod(2);
/// One more pod.
pub const THIRD: Host = Host::Pod(3);
/// A pod of another node.
pub const REMOTE: Host = Host::Remote(1);
/// A client outside.
pub const OUTSIDE: Host = Host::Outside(7);
/// A Service's address.
pub const VIP: Host = Host::Vip(10);

/// A host and a port.
pub type End = (Host, u16);

/// TCP's first packet.
pub const SYN: u8 = tcp_flags::SYN;
/// Its answer.
pub const SYN_ACK: u8 = tcp_flags::SYN | tcp_flags::ACK;
/// A packet amid a connection.
pub const ACK: u8 = tcp_flags::ACK;
/// One end's last.
pub const FIN: u8 = tcp_flags::FIN | tcp_flags::ACK;
/// A reset.
pub const RST: u8 = tcp_flags::RST;
/// SCTP's answer to an INIT.
pub const INIT_ACK: u8 = 2;

/// Loaded programs, and what their maps say.
pub struct World {
    /// Programs and maps.
    pub kernel: MutexGuard<'static, Kernel>,
    /// The family of all addresses.
    pub family: Family,
    /// Services so far.
    pub(crate) known: Known,
    /// Rulesets so far.
    pub(crate) rulesets: u32,
    /// Port bounds so far.
    pub(crate) bounds: u32,
    pods: BTreeMap<Host, Subject>,
    epoch: u32,
}

impl World {
    /// A node whose pods are all managed, may be redirected to, and are not isolated.
    pub fn new(mode: Mode, family: Family) -> World {
        let mut world = World {
            kernel: Kernel::take(mode),
            family,
            known: Known::default(),
            rulesets: 0,
            bounds: 0,
            pods: BTreeMap::new(),
            epoch: 0,
        };
        for number in 1..=PODS as u8 {
            let pod = Host::Pod(number);
            world.set_identity(pod, identity_of(pod), ifindex(pod), identity_flags::POD);
            world.change_pod(pod, |_| {});
            let remote = Host::Remote(number);
            world.set_identity(remote, identity_of(remote), 0, identity_flags::POD);
        }
        world.set_identity(Host::Node, identity_of(Host::Node), 0, identity_flags::NODE);
        let other = identity_flags::REMOTE_NODE;
        world.set_identity(Host::OtherNode, identity_of(Host::OtherNode), 0, other);
        world.next_epoch();
        world
    }

    /// A host's address.
    pub fn ip(&self, host: Host) -> IpAddr {
        World::address(self.family, host)
    }

    /// A host's address of a family.
    pub fn address(family: Family, host: Host) -> IpAddr {
        let (net4, net6, number) = match host {
            Host::Pod(n) => ([10, 1, 0], [0xfd00, 1, 0], n),
            Host::Remote(n) => ([10, 2, 0], [0xfd00, 2, 0], n),
            Host::Outside(n) => ([198, 51, 100], [0x2001, 0xdb8, 0], n),
            Host::Node => ([192, 0, 2], [0xfd00, 0xf, 0], 1),
            Host::OtherNode => ([192, 0, 2], [0xfd00, 0xf, 0], 2),
            Host::Vip(n) => ([10, 96, 0], [0xfd00, 0x60, 0], n),
        };
        let ([a, b, c], [x, y, z]) = (net4, net6);
        match family {
            Family::V4 => Ipv4Addr::new(a, b, c, number).into(),
            Family::V6 => Ipv6Addr::new(x, y, z, 0, 0, 0, 0, u16::from(number)).into(),
        }
    }

    /// The map of a pair that is this family's.
    pub fn of(&self, pair: [&'static str; 2]) -> &'static str {
        pair[self.family as usize]
    }

    /// Changes what is known of a pod's device.
    pub fn change_pod(&mut self, pod: Host, change: impl FnOnce(&mut Subject)) {
        let own = Family::V4;
        let mut subject = self.pods.get(&pod).copied().unwrap_or_else(|| Subject {
            addr4: addr4(World::address(own, pod)),
            addr6: addr6(World::address(Family::V6, pod)),
            ifindex: ifindex(pod),
            state: subject_state::MANAGED,
            flags: subject_flags::REDIRECT,
            identity: identity_of(pod),
            mac: mac(pod),
            host_mac: host_mac(pod),
            ..Subject::default()
        });
        change(&mut subject);
        self.pods.insert(pod, subject);
        self.kernel.write_at(name::SUBJECTS, ifindex(pod), &subject);
    }

    /// Says what a host's address is.
    pub fn set_identity(&mut self, host: Host, identity: u32, ifindex: u32, flags: u32) {
        let value = IdentityVal {
            identity,
            ifindex,
            flags,
        };
        self.with_addr(name::IDENTITIES, host, |kernel, map, addr| match addr {
            Ok(addr) => kernel.write(map, &addr, &value),
            Err(addr) => kernel.write(map, &addr, &value),
        });
    }

    /// Begins a new policy epoch.
    pub fn next_epoch(&mut self) {
        self.epoch += 1;
        let epoch = self.epoch;
        self.kernel.write_at(name::EPOCH, 0, &epoch);
    }

    /// A frame as its sender's device gives it to the node.
    pub fn frame(&self, src: Host, dst: Host, body: Body) -> Frame {
        Frame {
            to: host_mac(src),
            from: mac(src),
            src: self.ip(src),
            dst: self.ip(dst),
            ttl: 64,
            options: vec![],
            extensions: vec![],
            whole: false,
            fragment: None,
            body,
        }
    }

    /// A TCP segment. A SYN has no data.
    pub fn tcp(&self, flags: u8, src: End, dst: End) -> Frame {
        let data = if flags & (SYN | FIN | RST) & !ACK == 0 {
            b"data".to_vec()
        } else {
            vec![]
        };
        let tcp = Tcp {
            src: src.1,
            dst: dst.1,
            seq: 1000,
            ack: 2000,
            flags,
            data,
        };
        self.frame(src.0, dst.0, Body::Tcp(tcp))
    }

    /// A UDP datagram.
    pub fn udp(&self, src: End, dst: End) -> Frame {
        let data = b"datagram of some octets".to_vec();
        self.frame(
            src.0,
            dst.0,
            Body::Udp {
                src: src.1,
                dst: dst.1,
                data,
                summed: true,
            },
        )
    }

    /// An SCTP packet of one chunk.
    pub fn sctp(&self, chunk: u8, src: End, dst: End) -> Frame {
        let mut chunks = vec![chunk, 0, 0, 20, 0xa, 0xb, 0xc, 0xd];
        chunks.extend([7; 12]);
        let body = Body::Sctp {
            src: src.1,
            dst: dst.1,
            tag: 0x0102_0304,
            chunks,
            summed: true,
        };
        self.frame(src.0, dst.0, body)
    }

    /// A packet that may begin a flow: a SYN, a datagram, an SCTP INIT.
    pub fn first(&self, proto: u8, src: End, dst: End) -> Frame {
        match proto {
            proto::TCP => self.tcp(SYN, src, dst),
            proto::UDP => self.udp(src, dst),
            proto::SCTP => self.sctp(sctp::INIT, src, dst),
            _ => {
                let mut data = [src.1.to_be_bytes(), dst.1.to_be_bytes()].concat();
                data.extend([0; 24]);
                self.frame(src.0, dst.0, Body::Other { proto, data })
            }
        }
    }

    /// The first answer to [`first`](Self::first).
    pub fn answer(&self, proto: u8, src: End, dst: End) -> Frame {
        match proto {
            proto::TCP => self.tcp(SYN_ACK, src, dst),
            proto::SCTP => self.sctp(INIT_ACK, src, dst),
            _ => self.first(proto, src, dst),
        }
    }

    /// An echo request or reply.
    pub fn echo(&self, reply: bool, src: Host, dst: Host, id: u16) -> Frame {
        let kind = match (self.family, reply) {
            (Family::V4, false) => 8,
            (Family::V4, true) => 0,
            (Family::V6, false) => 128,
            (Family::V6, true) => 129,
        };
        let info = u32::from(id) << 16 | 1;
        self.frame(
            src,
            dst,
            Body::Icmp {
                kind,
                code: 0,
                info,
                data: vec![7; 32],
            },
        )
    }

    /// The same frame with other ends.
    pub fn between(&self, frame: &Frame, src: End, dst: End) -> Frame {
        let mut out = Frame {
            src: self.ip(src.0),
            dst: self.ip(dst.0),
            ..frame.clone()
        };
        match &mut out.body {
            Body::Tcp(tcp) => (tcp.src, tcp.dst) = (src.1, dst.1),
            Body::Udp {
                src: from, dst: to, ..
            }
            | Body::Sctp {
                src: from, dst: to, ..
            } => (*from, *to) = (src.1, dst.1),
            Body::Other { data, .. } => {
                data[..2].copy_from_slice(&src.1.to_be_bytes());
                data[2..4].copy_from_slice(&dst.1.to_be_bytes());
            }
            Body::Icmp { .. } => {}
        }
        out
    }

    /// The reset that answers a segment.
    pub fn reset_of(&self, frame: &Frame, seq: u32, ack: u32, flags: u8) -> Frame {
        let Body::Tcp(tcp) = &frame.body else {
            panic!("no TCP: {frame:?}");
        };
        let reset = Tcp {
            src: tcp.dst,
            dst: tcp.src,
            seq,
            ack,
            flags,
            data: vec![],
        };
        Frame {
            src: frame.dst,
            dst: frame.src,
            body: Body::Tcp(reset),
            ..frame.clone()
        }
        .turned()
    }

    /// The answer to a first packet that is refused.
    pub fn refusal_of(&self, first: &Frame) -> Frame {
        match &first.body {
            Body::Tcp(_) => self.reset_of(first, 0, 1001, RST | ACK),
            Body::Sctp { .. } => self.abort_of(first, 0x0a0b_0c0d, 0),
            _ => first.error(first.dst, Problem::Port, 8).turned(),
        }
    }

    /// The abort that answers an SCTP packet.
    pub fn abort_of(&self, frame: &Frame, tag: u32, flags: u8) -> Frame {
        let Body::Sctp { src, dst, .. } = frame.body else {
            panic!("no SCTP: {frame:?}");
        };
        let abort = Body::Sctp {
            src: dst,
            dst: src,
            tag,
            chunks: vec![sctp::ABORT, flags, 0, 4],
            summed: true,
        };
        Frame {
            src: frame.dst,
            dst: frame.src,
            body: abort,
            ..frame.clone()
        }
        .turned()
    }

    fn with_addr(
        &mut self,
        pair: [&'static str; 2],
        host: Host,
        act: impl FnOnce(&Kernel, &str, Result<Addr4, Addr6>),
    ) {
        let addr = match self.family {
            Family::V4 => Ok(addr4(self.ip(host))),
            Family::V6 => Err(addr6(self.ip(host))),
        };
        act(&self.kernel, self.of(pair), addr);
    }
}

impl Frame {
    /// Its source port.
    pub fn src_port(&self) -> u16 {
        match &self.body {
            Body::Tcp(tcp) => tcp.src,
            Body::Udp { src, .. } | Body::Sctp { src, .. } => *src,
            other => panic!("no ports: {other:?}"),
        }
    }

    /// The frame as it is handed to a pod.
    pub fn for_pod(mut self, pod: Host) -> Frame {
        (self.to, self.from) = (mac(pod), host_mac(pod));
        self
    }

    /// The frame as a pod sends it.
    pub fn of_pod(mut self, pod: Host) -> Frame {
        (self.to, self.from) = (host_mac(pod), mac(pod));
        self
    }

    /// The frame on its way back.
    pub fn turned(mut self) -> Frame {
        (self.to, self.from) = (self.from, self.to);
        self
    }

    /// The frame as it comes in again by the device that it was to leave by.
    pub fn returned(mut self) -> Frame {
        self.to = self.from;
        self
    }

    /// The frame after a router has forwarded it.
    pub fn routed(mut self) -> Frame {
        self.ttl -= 1;
        self
    }
}

/// The host-side device of a pod.
pub fn ifindex(pod: Host) -> u32 {
    match pod {
        Host::Pod(number) => UPLINK + u32::from(number),
        _ => panic!("{pod:?} has no device on this node"),
    }
}

/// The identity that policy knows a host by.
pub fn identity_of(host: Host) -> u32 {
    match host {
        Host::Pod(number) => 1000 + u32::from(number),
        Host::Remote(number) => 2000 + u32::from(number),
        Host::Node => 1,
        Host::OtherNode => 2,
        Host::Outside(_) | Host::Vip(_) => 0,
    }
}

/// IPv4 as the maps have it.
pub fn addr4(ip: IpAddr) -> Addr4 {
    match ip {
        IpAddr::V4(ip) => ip.into(),
        IpAddr::V6(ip) => panic!("{ip} is not IPv4"),
    }
}

/// IPv6 as the maps have it.
pub fn addr6(ip: IpAddr) -> Addr6 {
    match ip {
        IpAddr::V6(ip) => ip.into(),
        IpAddr::V4(ip) => panic!("{ip} is not IPv6"),
    }
}

fn mac(host: Host) -> Mac {
    match host {
        Host::Pod(number) => [0x0a, 0, 0, 0, 1, number],
        _ => [0x0a, 0, 0, 0, 9, 1],
    }
}

fn host_mac(host: Host) -> Mac {
    match host {
        Host::Pod(number) => [0x0a, 0, 0, 0, 2, number],
        _ => [0x0a, 0, 0, 0, 9, 2],
    }
}
