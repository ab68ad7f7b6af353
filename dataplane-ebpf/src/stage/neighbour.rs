//! ARP and neighbour discovery from pods: senders may speak for their own addresses only, and a pod
//! is no router (CVE-2020-10749).

use dataplane_common::{
    abi::{Addr4, Addr6, Address, Subject},
    net::{eth, icmpv6},
    verdict::DropReason,
};

use crate::{packet::Ctx, stage::parse::Packet};

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
pub fn check_message<C: Ctx, A: Address>(
    ctx: C,
    packet: &Packet<A>,
    subject: &Subject,
) -> Result<(), DropReason> {
    const TARGET: usize = 8;
    match packet.flags {
        icmpv6::ROUTER_ADVERTISEMENT | icmpv6::REDIRECT => Err(DropReason::RogueNeighbour),
        icmpv6::NEIGHBOUR_ADVERTISEMENT => {
            let message = ctx.need::<24>(packet.l4 as usize)?;
            let target = message.get::<Addr6, TARGET>();
            if target == subject.addr6 || target.is_link_local() {
                return Ok(());
            }
            Err(DropReason::NeighbourSpoofed)
        }
        _ => Ok(()),
    }
}
