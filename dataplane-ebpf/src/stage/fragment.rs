//! Fragments: later ones get the ports of the first.

use dataplane_common::{
    abi::{FragKey, FragVal},
    verdict::DropReason,
};

use crate::{
    family::Family,
    maps::Table,
    stage::parse::{Frag, Kind, Packet},
};

/// Remembers a first fragment's ports, or finds them for a later one.
#[inline(never)]
pub fn resolve<F: Family>(packet: &mut Packet<F::Addr>) -> u32 {
    let key = FragKey {
        src: packet.src,
        dst: packet.dst,
        id: packet.frag_id,
        proto: packet.proto as u32,
    };
    if packet.frag == Frag::First {
        let ports = FragVal {
            src_port: packet.src_port,
            dst_port: packet.dst_port,
        };
        // Without room, later fragments are dropped, and counted, one by one.
        let _ = F::fragments().put(&key, &ports);
        return 0;
    }
    let Some(first) = F::fragments().find(&key) else {
        return DropReason::FragmentUnknown as u32;
    };
    packet.src_port = first.src_port;
    packet.dst_port = first.dst_port;
    if packet.kind == Kind::Other && packet.proto == F::ICMP {
        // Of ICMP only echoes are long enough to be fragmented.
        packet.kind = Kind::EchoReply;
    }
    0
}
