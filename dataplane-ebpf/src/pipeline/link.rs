//! What belongs to a pod's link and to no flow.

use dataplane_common::{
    abi::Subject,
    verdict::{Action, DropReason, Verdict},
};

use crate::{
    family::Family,
    stage::{
        conntrack::{self, Tuple},
        parse::{Kind, Packet},
        policy,
    },
};

/// Multicast and broadcast from a pod: no flow, only its egress policy.
#[inline(always)]
pub fn multicast<F: Family>(packet: &Packet<F::Addr>, pod: &Subject) -> Verdict {
    if policy::may_multicast::<F>(pod, packet) == 0 {
        return Err(DropReason::PolicyEgress);
    }
    Ok(Action::Pass)
}

/// True for a packet of link scope (RFC 4291 section 2.5.6): no router forwards it, so its source
/// is nobody's but on the link.
#[inline(always)]
pub fn stays_on_link<F: Family>(packet: &Packet<F::Addr>) -> bool {
    F::is_link_scope(packet.src)
        && (packet.kind == Kind::Neighbour
            || F::is_link_scope(packet.dst)
            || F::is_multicast(packet.dst))
}

/// A packet at a pod's device that is not addressed to the pod's known address: a bridge floods, and
/// the pod has a link-local address too. It makes no entry, for it may be another's.
#[inline(always)]
pub fn not_addressed<F: Family>(packet: &Packet<F::Addr>, pod: &Subject) -> Verdict {
    if pod.ingress == 0 || (F::is_link_scope(packet.dst) && is_answer::<F>(packet) != 0) {
        return Ok(Action::Pass);
    }
    Err(DropReason::PolicyIngress)
}

/// Not 0 if the packet answers an allowed flow.
#[inline(never)]
fn is_answer<F: Family>(packet: &Packet<F::Addr>) -> u32 {
    let mut to = Tuple::of(packet);
    match conntrack::find::<F>(packet, false, &mut to) {
        Some(entry) => (to.forward == 0 && entry.denied == 0) as u32,
        None => 0,
    }
}
