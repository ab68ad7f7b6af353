//! ARP and neighbour discovery from pods: senders may speak for their own addresses only, and a pod
//! is no router (CVE-2020-10749).

use dataplane_common::{
    abi::{Addr4, Addr6, Address, Subject},
    net::{eth, icmpv6, ipv6},
    verdict::DropReason,
};

use crate::{family::Family, packet::Ctx, stage::parse::Packet};

/// Checks an ARP packet's sender (RFC 826).
#[inline(always)]
pub fn check_arp<C: Ctx>(ctx: C, subject: &Subject) -> Result<(), DropReason> {
    const SENDER: usize = 14;
    let arp = ctx.need::<28>(eth::LEN)?;
    let sender = arp.get::<Addr4, SENDER>();
    // An address probe has no sender (RFC 5227).
    if sender == subject.addr4 || sender == Addr4::UNSPECIFIED {
        return Ok(());
    }
    Err(DropReason::NeighbourSpoofed)
}

/// Checks a pod's neighbour-discovery or multicast-listening message (RFC 4861, RFC 3810).
#[inline(always)]
pub fn check_message<F: Family, C: Ctx>(
    ctx: C,
    packet: &Packet<F::Addr>,
    subject: &Subject,
) -> Result<(), DropReason> {
    const TARGET: usize = 8;
    if is_of_link::<F, C>(ctx, packet) == 0 {
        return Err(DropReason::RogueNeighbour);
    }
    // A solicitation without a source claims its target (RFC 4862 section 5.4).
    let claims = match packet.flags {
        icmpv6::ROUTER_ADVERTISEMENT | icmpv6::REDIRECT => {
            return Err(DropReason::RogueNeighbour);
        }
        icmpv6::NEIGHBOUR_ADVERTISEMENT => true,
        icmpv6::NEIGHBOUR_SOLICITATION => packet.src == F::Addr::UNSPECIFIED,
        _ => false,
    };
    if !claims {
        return Ok(());
    }
    let message = ctx.need::<24>(packet.l4 as usize)?;
    let target = message.get::<Addr6, TARGET>();
    if target == subject.addr6 || target.is_link_local() {
        return Ok(());
    }
    Err(DropReason::NeighbourSpoofed)
}

/// Not 0 if a message has not been forwarded: its hop limit is what its sender must set (RFC 4861
/// section 7.1), or neither end has a meaning elsewhere (RFC 3810 section 5). Only such messages are
/// exempt from policy.
#[inline(never)]
pub fn is_of_link<F: Family, C: Ctx>(ctx: C, packet: &Packet<F::Addr>) -> u32 {
    if is_listening(packet.flags) {
        let to_link = F::is_multicast(packet.dst) || F::is_link_scope(packet.dst);
        return (F::is_link_scope(packet.src) && to_link) as u32;
    }
    match ctx.window::<{ ipv6::LEN }>(packet.l3 as usize) {
        Some(header) => (header.u8::<{ ipv6::HOP_LIMIT }>() == 255) as u32,
        None => 0,
    }
}

/// True for types of multicast listening.
#[inline(always)]
fn is_listening(kind: u8) -> bool {
    matches!(
        kind,
        icmpv6::LISTENER_QUERY..icmpv6::ROUTER_SOLICITATION | icmpv6::LISTENER_REPORT_2
    )
}
