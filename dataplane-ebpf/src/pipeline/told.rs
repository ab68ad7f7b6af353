//! Packets that go no further, whose senders are told.

use dataplane_common::{
    abi::{CtVal, ct_flags},
    verdict::{Action, DropReason, Verdict},
};

use super::TO_NET;
use crate::{
    family::Family,
    observe,
    packet::Ctx,
    stage::{conntrack::Tuple, errors, forward, parse::Packet, reject, rewrite},
};

/// Drops a packet, or refuses it: its sender is told.
#[inline(always)]
pub fn turn_away<F: Family, C: Ctx, const HOOK: u32>(
    ctx: C,
    packet: &Packet<F::Addr>,
    reason: DropReason,
    refuses: bool,
) -> Verdict {
    // A host's own packet is never refused: its sender is told by the drop.
    if HOOK == TO_NET
        || !refuses
        || (reject::refuses_by_error(packet) && !errors::may_tell(packet.src, reason))
        || reject::refuse::<F, C>(ctx, packet, HOOK).is_err()
    {
        return Err(reason);
    }
    if observe::is_heard() {
        let at = observe::at(HOOK, reason as u32, ctx.ifindex());
        observe::tell(packet, None, &Tuple::of(packet), at);
    }
    observe::count_drop(reason);
    Ok(Action::Redirect)
}

/// What becomes of a packet that is larger than the way it would go: the host's stack cuts it up, or its sender is told.
#[inline(always)]
pub fn too_big<F: Family, C: Ctx, const HOOK: u32>(
    ctx: C,
    packet: &Packet<F::Addr>,
    entry: &CtVal<F::Addr>,
    to: &Tuple<F::Addr>,
) -> Verdict {
    // The stack routes nothing that claims to be from its host, which a translated source would.
    let may_be_cut =
        entry.flags & ct_flags::SNAT == 0 && forward::may_be_cut::<F, C>(ctx, packet.l3);
    if HOOK != TO_NET && may_be_cut {
        // Replies to the outside are translated by `to_net`, whole or cut.
        let is_reply = to.forward == 0 && entry.flags & ct_flags::OUTSIDE != 0;
        if !is_reply && rewrite::is_translated(packet, to) {
            rewrite::apply::<F, C>(ctx, packet, to)?;
        }
        return Ok(Action::Pass);
    }
    let mtu = forward::mtu_towards::<F, C>(ctx, packet, &to.dst);
    if mtu == 0 {
        return Err(DropReason::TooBig);
    }
    let problem = reject::too_big::<F>(mtu);
    complain::<F, C, HOOK>(ctx, packet, entry, to, DropReason::TooBig, problem)
}

/// Drops a packet and tells its sender why.
#[inline(always)]
pub fn complain<F: Family, C: Ctx, const HOOK: u32>(
    ctx: C,
    packet: &Packet<F::Addr>,
    entry: &CtVal<F::Addr>,
    to: &Tuple<F::Addr>,
    reason: DropReason,
    problem: reject::Problem,
) -> Verdict {
    if !errors::may_tell(packet.src, reason)
        || reject::complain::<F, C>(ctx, packet, problem, HOOK).is_err()
    {
        return Err(reason);
    }
    if observe::is_heard() {
        let at = observe::at(HOOK, reason as u32, ctx.ifindex());
        observe::tell(packet, Some(entry), to, at);
    }
    observe::count_drop(reason);
    Ok(Action::Redirect)
}
