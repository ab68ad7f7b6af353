//! The packet path: parse, conntrack, service, policy, rewrite, forward.

pub mod early;
mod link;
mod told;

use dataplane_common::{
    abi::{CtVal, DNS_PROXY, Subject, ct_flags, hook, subject_state},
    decide::conntrack::State,
    net::{eth, tcp_flags},
    verdict::{Action, DropReason, Verdict},
};

use crate::{
    family::Family,
    observe,
    packet::Ctx,
    stage::{
        conntrack::{self, Tuple},
        create::{self, Origin, outcome},
        forward, fragment, neighbour,
        parse::{self, Frag, Kind, Packet},
        policy, reject, related, rewrite, service, subject,
    },
};

/// The hooks, as a parameter of the path: what a hook does not do is not compiled into it.
const FROM_POD: u32 = hook::FROM_POD as u32;
const TO_POD: u32 = hook::TO_POD as u32;
const FROM_NET: u32 = hook::FROM_NET as u32;
const TO_NET: u32 = hook::TO_NET as u32;

/// What a pod sends.
#[inline(always)]
pub fn from_pod<F: Family, C: Ctx>(ctx: C, pod: &Subject) -> Verdict {
    let packet = room::<F>()?;
    let verdict = sent_by_pod::<F, C>(ctx, packet, pod);
    observe::told::<F, C>(ctx, FROM_POD, verdict)
}

#[inline(always)]
fn sent_by_pod<F: Family, C: Ctx>(ctx: C, packet: &mut Packet<F::Addr>, pod: &Subject) -> Verdict {
    read::<F, C>(ctx, packet)?;
    let managed = pod.state == subject_state::MANAGED;
    if managed && packet.src != F::address_of(pod) && !link::stays_on_link::<F>(packet) {
        return Err(DropReason::SourceSpoofed);
    }
    if packet.kind == Kind::Neighbour {
        if managed {
            neighbour::check_message::<F, C>(ctx, packet, pod)?;
        }
        return Ok(Action::Pass);
    }
    if F::is_multicast(packet.dst) {
        return link::multicast::<F>(packet, pod);
    }
    flow::<F, C, FROM_POD>(ctx, packet, 0)
}

/// What reaches a pod through the host's stack.
#[inline(always)]
pub fn to_pod<F: Family, C: Ctx>(ctx: C, pod: &Subject) -> Verdict {
    let packet = room::<F>()?;
    let verdict = sent_to_pod::<F, C>(ctx, packet, pod);
    observe::told::<F, C>(ctx, TO_POD, verdict)
}

#[inline(always)]
fn sent_to_pod<F: Family, C: Ctx>(ctx: C, packet: &mut Packet<F::Addr>, pod: &Subject) -> Verdict {
    read::<F, C>(ctx, packet)?;
    if packet.kind == Kind::Neighbour {
        if neighbour::is_of_link::<F, C>(ctx, packet) != 0 {
            return Ok(Action::Pass);
        }
        packet.kind = Kind::Other;
    }
    if pod.state == subject_state::MANAGED && packet.dst != F::address_of(pod) {
        return link::not_addressed::<F>(packet, pod);
    }
    if F::is_multicast(packet.dst) {
        return Ok(Action::Pass);
    }
    let host = is_own_host::<F, C>(ctx, packet);
    flow::<F, C, TO_POD>(ctx, packet, host)
}

/// The record of the packet, in the scratch room: the slow path finds it there, and it does not take up the stack.
#[inline(always)]
fn room<F: Family>() -> Result<&'static mut Packet<F::Addr>, DropReason> {
    match F::scratch() {
        Some(scratch) => {
            scratch.packet.clear();
            Ok(&mut scratch.packet)
        }
        None => Err(DropReason::Internal),
    }
}

/// Reads the packet at a pod's device. One that cannot be read has no addresses.
#[inline(always)]
fn read<F: Family, C: Ctx>(ctx: C, packet: &mut Packet<F::Addr>) -> Result<(), DropReason> {
    let read = parse::parse::<F, C>(ctx, eth::LEN as u32, packet);
    if read.is_err() {
        packet.src = F::host_client();
        packet.dst = F::host_client();
    }
    read
}

/// What comes in by an uplink.
#[inline(always)]
pub fn from_net<F: Family, C: Ctx>(ctx: C) -> Verdict {
    let verdict = uplink::<F, C, FROM_NET>(ctx, room::<F>()?, 0);
    observe::told::<F, C>(ctx, FROM_NET, verdict)
}

/// What goes out by an uplink.
#[inline(always)]
pub fn to_net<F: Family, C: Ctx>(ctx: C) -> Verdict {
    let host = (ctx.ingress_ifindex() == 0) as u32;
    let verdict = uplink::<F, C, TO_NET>(ctx, room::<F>()?, host);
    observe::told::<F, C>(ctx, TO_NET, verdict)
}

/// The path of a packet at an uplink. What is not readable there is not ours to drop.
#[inline(always)]
fn uplink<F: Family, C: Ctx, const HOOK: u32>(
    ctx: C,
    packet: &mut Packet<F::Addr>,
    host: u32,
) -> Verdict {
    if parse::parse::<F, C>(ctx, eth::LEN as u32, packet).is_err() || F::is_multicast(packet.dst) {
        return Ok(Action::Pass);
    }
    if packet.kind == Kind::Neighbour {
        // Policy has left it alone as a message of the link: so it must not leave the link.
        if HOOK == TO_NET
            && ctx.ingress_ifindex() != 0
            && neighbour::is_of_link::<F, C>(ctx, packet) == 0
        {
            return Err(DropReason::RogueNeighbour);
        }
        return Ok(Action::Pass);
    }
    flow::<F, C, HOOK>(ctx, packet, host)
}

/// The path of a packet that belongs to a flow.
#[inline(always)]
fn flow<F: Family, C: Ctx, const HOOK: u32>(
    ctx: C,
    packet: &mut Packet<F::Addr>,
    host: u32,
) -> Verdict {
    if packet.frag != Frag::None
        && let Some(reason) = DropReason::from_code(fragment::resolve::<F>(packet))
    {
        return unknown::<HOOK>(reason);
    }
    if packet.kind == Kind::IcmpError {
        return error::<F, C, HOOK>(ctx, packet);
    }
    let raw_client = HOOK == FROM_POD || HOOK == FROM_NET;
    let mut to = Tuple::of(packet);
    let (entry, fresh) = match conntrack::find::<F>(packet, raw_client, &mut to) {
        Some(entry) => (entry, false),
        None => {
            let opened = open::<F, C, HOOK>(ctx, host);
            if opened != 0 {
                return unopened::<F, C, HOOK>(ctx, packet, opened);
            }
            match conntrack::opened::<F>(&mut to) {
                Some(entry) => (entry, true),
                None => return Err(DropReason::Internal),
            }
        }
    };
    if entry.flags & ct_flags::RESETS != 0 && !service::is_backend_alive::<F>(entry) {
        entry.state = State::Reset as u8;
        // What this node has told an end goes out by this hook.
        let is_reset = packet.flags & tcp_flags::RST != 0;
        if HOOK == TO_NET && is_reset && !rewrite::is_translated(packet, &to) {
            return Ok(Action::Pass);
        }
        return told::turn_away::<F, C, HOOK>(ctx, packet, DropReason::BackendRemoved, true);
    }
    let mut news = fresh as u32;
    if entry.epoch != policy::epoch() {
        news |= policy::judge_again::<F>(packet, entry);
    }
    let denied = DropReason::from_code(entry.denied as u32);
    if (news != 0 || denied.is_some()) && observe::is_heard() {
        let at = observe::at(HOOK, entry.denied as u32, ctx.ifindex());
        observe::tell(packet, Some(entry), &to, at);
        if denied.is_some()
            && let Some(scratch) = F::scratch()
        {
            scratch.told = 1;
        }
    }
    if let Some(reason) = denied {
        return Err(reason);
    }
    conntrack::touch(packet, entry, to.forward != 0);
    act::<F, C, HOOK>(ctx, packet, entry, &to)
}

/// Opens the packet's flow: 0, a `DropReason` as a number, or an `outcome`.
#[inline(always)]
fn open<F: Family, C: Ctx, const HOOK: u32>(ctx: C, host: u32) -> u32 {
    let Some(scratch) = F::scratch() else {
        return DropReason::Internal as u32;
    };
    scratch.origin = Origin {
        hook: HOOK,
        host,
        ifindex: ctx.ifindex(),
    };
    create::open::<F, C>(ctx)
}

/// What becomes of a packet that opened no flow.
#[inline(always)]
fn unopened<F: Family, C: Ctx, const HOOK: u32>(
    ctx: C,
    packet: &Packet<F::Addr>,
    opened: u32,
) -> Verdict {
    if opened & outcome::NOT_OURS != 0 {
        return Ok(Action::Pass);
    }
    let Some(reason) = DropReason::from_code(opened & 0xff) else {
        return Err(DropReason::Internal);
    };
    told::turn_away::<F, C, HOOK>(ctx, packet, reason, opened & outcome::REFUSE != 0)
}

/// Translates and forwards, as the hook's place on the flow's way asks for: a request is rewritten
/// at its first hook, a reply at its last one, or earlier by a hook that itself redirects.
#[inline(always)]
fn act<F: Family, C: Ctx, const HOOK: u32>(
    ctx: C,
    packet: &Packet<F::Addr>,
    entry: &CtVal<F::Addr>,
    to: &Tuple<F::Addr>,
) -> Verdict {
    let forward = to.forward != 0;
    if HOOK == FROM_NET && is_forged(entry, forward) {
        return Err(DropReason::OutsideSpoofed);
    }
    // A redirect takes effect when the program ends: what is too big for it is still as it was sent.
    let sent = send::<F, C, HOOK>(ctx, packet, entry, forward, to.dst);
    match sent {
        Err(DropReason::TooBig) => return told::too_big::<F, C, HOOK>(ctx, packet, entry, to),
        Err(DropReason::HopLimit) => {
            let problem = reject::expired::<F>();
            return told::complain::<F, C, HOOK>(
                ctx,
                packet,
                entry,
                to,
                DropReason::HopLimit,
                problem,
            );
        }
        _ => {}
    }
    if sent.is_ok() && rewrites::<HOOK>(entry.flags, forward) && rewrite::is_translated(packet, to)
    {
        rewrite::apply::<F, C>(ctx, packet, to)?;
    }
    sent
}

/// True if a hook translates packets of a flow in a direction.
#[inline(always)]
fn rewrites<const HOOK: u32>(flags: u16, forward: bool) -> bool {
    if flags & (ct_flags::DNAT | ct_flags::SNAT) == 0 {
        return false;
    }
    let redirects = flags & ct_flags::REDIRECT != 0;
    let host = flags & ct_flags::HOST != 0;
    match HOOK {
        FROM_POD => forward || redirects || host,
        FROM_NET => forward || redirects || host,
        TO_POD => !forward,
        _ => host || (!forward && flags & ct_flags::OUTSIDE != 0),
    }
}

/// True for a packet from outside that a pod of this node would have sent.
#[inline(always)]
fn is_forged<A>(entry: &CtVal<A>, forward: bool) -> bool {
    if forward {
        entry.initiator_ifindex != 0 && entry.flags & ct_flags::OUTSIDE == 0
    } else {
        entry.responder_ifindex != 0
    }
}

/// Sends a packet of a flow on, towards the end it is addressed to.
#[inline(always)]
fn send<F: Family, C: Ctx, const HOOK: u32>(
    ctx: C,
    packet: &Packet<F::Addr>,
    entry: &CtVal<F::Addr>,
    forward: bool,
    dst: F::Addr,
) -> Verdict {
    let flags = entry.flags;
    if HOOK == TO_POD {
        return Ok(Action::Pass);
    }
    if HOOK == TO_NET {
        const HOSTS: u16 = ct_flags::DNAT | ct_flags::HOST;
        // One that already has its backend's address was sent here by this hook, and goes on.
        if flags & HOSTS != HOSTS || packet.dst == dst {
            return Ok(Action::Pass);
        }
        let device = entry.responder_ifindex;
        let sent = forward::for_host::<F, C>(ctx, packet, forward as u32, device, &dst);
        return forward::redirect_status(sent);
    }
    if flags & ct_flags::REDIRECT == 0 {
        return Ok(Action::Pass);
    }
    if HOOK == FROM_POD && forward && entry.responder_ifindex == DNS_PROXY {
        return match subject::dns_proxy(ctx.ifindex()) {
            Some(proxy) => forward::deliver::<F, C>(ctx, proxy),
            None => Err(DropReason::NoDnsProxy),
        };
    }
    let outside = !forward && flags & ct_flags::OUTSIDE != 0;
    let device = if forward {
        entry.responder_ifindex
    } else {
        entry.initiator_ifindex
    };
    if !outside
        && device != 0
        && let Some(target) = forward::target_at::<F>(device, dst)
    {
        return forward::deliver::<F, C>(ctx, target);
    }
    forward::routed(forward::by_route::<F, C>(ctx, packet, &dst), flags)
}

/// An ICMP error: it goes the way of the flow that it is about.
#[inline(always)]
fn error<F: Family, C: Ctx, const HOOK: u32>(ctx: C, packet: &Packet<F::Addr>) -> Verdict {
    let Some(entry) = related::locate::<F, C>(ctx, packet) else {
        return unknown::<HOOK>(DropReason::IcmpUnrelated);
    };
    let Some(scratch) = F::scratch() else {
        return Err(DropReason::Internal);
    };
    // An error goes to who sent what it quotes, and a pod is no router: only an end complains.
    if packet.dst != scratch.quote.src || (HOOK == FROM_POD && packet.src != scratch.quote.dst) {
        return unknown::<HOOK>(DropReason::IcmpUnrelated);
    }
    if let Some(reason) = DropReason::from_code(entry.denied as u32) {
        return Err(reason);
    }
    let forward = scratch.quote_to.forward != 0;
    let mut dst = packet.dst;
    if rewrites::<HOOK>(entry.flags, forward)
        && rewrite::is_translated(&scratch.quote, &scratch.quote_to)
    {
        let status = ctx.translate_error::<F>();
        if let Some(reason) = DropReason::from_code(status) {
            return Err(reason);
        }
        dst = scratch.quote_to.src;
    }
    send::<F, C, HOOK>(ctx, packet, entry, forward, dst)
}

/// What becomes of a packet of no known flow: at a pod it is dropped, at an uplink it is not ours.
#[inline(always)]
fn unknown<const HOOK: u32>(reason: DropReason) -> Verdict {
    if HOOK == FROM_POD || HOOK == TO_POD {
        Err(reason)
    } else {
        Ok(Action::Pass)
    }
}

/// 1 if this host sent the packet from one of its own addresses (not merely with one of them as
/// source: that could be forged).
#[inline(always)]
fn is_own_host<F: Family, C: Ctx>(ctx: C, packet: &Packet<F::Addr>) -> u32 {
    if ctx.ingress_ifindex() != 0 {
        return 0;
    }
    subject::is_this_node::<F>(&packet.src) as u32
}
