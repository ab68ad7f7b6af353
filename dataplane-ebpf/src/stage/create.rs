//! Opens a flow: chooses its backend, judges it, and enters it under the tuples of both sides.

//!
//! Everything stands in the family's scratch room: no function here takes or keeps a reference to it
//! across a call of another global function, which changes it.

use dataplane_common::{
    abi::{
        DNS_PROXY, Port, Subject, backend_flags, config_flags, ct_flags, hook, identity_flags,
        scope, service_flags, subject_flags,
    },
    decide::conntrack::State,
    net::{port, proto},
    verdict::DropReason,
};

use crate::{
    family::{Family, V4, V6},
    maps,
    packet::{Ctx, jiffies},
    stage::{
        audit,
        conntrack::{self, Question, Scratch},
        enter, forward,
        parse::{Kind, Packet},
        policy,
        service::{self, Choice},
        subject,
    },
};

/// The outcome of [`open`] beside 0 (opened) and the drop reasons.
pub mod outcome {
    /// The packet is none of ours: it passes untouched.
    pub const NOT_OURS: u32 = 1 << 8;
    /// Refuse the packet: its sender is told. The drop reason is in the low bits.
    pub const REFUSE: u32 = 1 << 9;
    /// The tuple is taken: try another.
    pub const TAKEN: u32 = 1 << 10;
    /// The flow is there already, entered by another CPU.
    pub const JOINED: u32 = 1 << 11;
    /// The source is to be one of this node's addresses.
    pub const NEEDS_SOURCE: u32 = 1 << 12;
}

/// What a hook knows of the packet whose flow is opened.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Origin {
    /// `hook`.
    pub hook: u32,
    /// Not 0 if this host sent the packet from one of its own addresses.
    pub host: u32,
    /// The device of the hook.
    pub ifindex: u32,
}

/// Opens the flow of the packet in the scratch room. Returns 0, a `DropReason` as a number, or an
/// [`outcome`].
///
/// Its steps are global functions: the verifier checks each once, and their stacks do not add up.
#[inline(never)]
pub fn open<F: Family, C: Ctx>(ctx: C) -> u32 {
    let status = dial::<F>();
    if status != 0 {
        return status;
    }
    let status = build::<F>();
    if status == outcome::NEEDS_SOURCE {
        let status = ctx.source::<F>();
        if status != 0 {
            return status;
        }
    } else if status != 0 {
        return status;
    }
    let status = admit::<F>();
    if status != 0 {
        return status;
    }
    audit::judge::<F>(audit::NEW);
    enter::enter::<F>()
}

/// Defines a step of the slow path as two global functions, one for each family, and the choice between them.
macro_rules! step {
    ($(#[$doc:meta])+ $name:ident($($arg:ident),*) = $v4:ident, $v6:ident: $body:ident) => {
        $(#[$doc])+
        #[inline(always)]
        fn $name<F: Family>($($arg: u32),*) -> u32 {
            if F::IS_V4 { $v4($($arg),*) } else { $v6($($arg),*) }
        }

        /// The step for IPv4.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $v4($($arg: u32),*) -> u32 {
            $body::<V4>($($arg),*)
        }

        /// The step for IPv6.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $v6($($arg: u32),*) -> u32 {
            $body::<V6>($($arg),*)
        }
    };
}

step! {
    /// Chooses a backend if the packet dials a frontend.
    dial() = dial4, dial6: dial_frontend
}

step! {
    /// Builds the entry, its tuple, and the question for policy.
    build() = build4, build6: build_entry
}

step! {
    /// Judges the flow and decides whether its first packet may open it.
    admit() = admit4, admit6: admit_first
}

pub(super) use step;

#[inline(always)]
fn dial_frontend<F: Family>() -> u32 {
    let Some(scratch) = F::scratch() else {
        return DropReason::Internal as u32;
    };
    if is_spoofed_from_outside::<F>(scratch) {
        return DropReason::OutsideSpoofed as u32;
    }
    let frontend = match choose::<F>(&scratch.packet, &scratch.origin, &mut scratch.choice) {
        Ok(frontend) => frontend,
        Err(reason) => return refusal(&scratch.origin, reason),
    };
    scratch.val.frontend = frontend;
    if frontend != 0 || opens_direct::<F>(&scratch.origin, &scratch.packet) {
        0
    } else {
        outcome::NOT_OURS
    }
}

/// The frontend that the packet dials, with a chosen backend in `choice` if Services are served here; 0
/// for a direct flow.
#[inline(always)]
fn choose<F: Family>(
    packet: &Packet<F::Addr>,
    origin: &Origin,
    choice: &mut Choice<F::Addr>,
) -> Result<u32, DropReason> {
    *choice = Choice::none(packet.dst);
    if !maps::enabled(config_flags::SERVICES) {
        return Ok(served_elsewhere::<F>(packet, origin));
    }
    if origin.hook == hook::TO_POD as u32
        || (origin.hook == hook::TO_NET as u32 && origin.host == 0)
    {
        return Ok(0);
    }
    let scope = if origin.hook == hook::FROM_NET as u32 {
        scope::EXTERNAL
    } else {
        scope::INTERNAL
    };
    let found = if packet.kind == Kind::Ports {
        service::lookup::<F>(packet.dst, packet.dst_port, packet.proto, scope)
    } else {
        None
    };
    let Some(found) = found else {
        return undefined::<F>(packet, scope);
    };
    if !service::admits::<F>(found, packet.src) {
        return Err(DropReason::SourceRange);
    }
    if !conntrack::begins(packet) {
        return Err(DropReason::NoConnection);
    }
    let client = if origin.host != 0 {
        F::host_client()
    } else {
        packet.src
    };
    service::choose::<F>(found, client, choice)?;
    choice.service_flags = found.flags as u32;
    Ok(found.frontend)
}

/// The frontend at an end of a pod's flow whose backend another implementation of Services chooses, past
/// this hook; 0 for none.
#[inline(always)]
fn served_elsewhere<F: Family>(packet: &Packet<F::Addr>, origin: &Origin) -> u32 {
    let (addr, port) = if origin.hook == hook::FROM_POD as u32 {
        (packet.dst, packet.dst_port)
    } else {
        (packet.src, packet.src_port)
    };
    if packet.kind != Kind::Ports || !is_at_pod(origin) {
        return 0;
    }
    match service::lookup::<F>(addr, port, packet.proto, scope::INTERNAL) {
        Some(found) => found.frontend,
        None => 0,
    }
}

/// 0 for a direct flow, unless the address is one whose ports are all Services': nobody answers to
/// another port there, nor to an echo.
#[inline(always)]
fn undefined<F: Family>(packet: &Packet<F::Addr>, scope: u8) -> Result<u32, DropReason> {
    if !service::owns::<F>(packet.dst, scope) {
        Ok(0)
    } else if packet.kind == Kind::Ports {
        Err(DropReason::NoBackend)
    } else {
        Err(DropReason::NoFrontend)
    }
}

#[inline(always)]
fn refusal(origin: &Origin, reason: DropReason) -> u32 {
    match reason {
        DropReason::NoBackend | DropReason::NoConnection if origin.hook != hook::TO_NET as u32 => {
            outcome::REFUSE | reason as u32
        }
        _ => reason as u32,
    }
}

/// True where a flow without a frontend gets an entry: at the pods; and at the uplink by which it comes,
/// if it can go from there to its pod past the host's stack. Beside another implementation of Services
/// the stack is not passed by, and a pod's flow also gets one where it leaves the node, for only there
/// its backend is seen.
#[inline(always)]
fn opens_direct<F: Family>(origin: &Origin, packet: &Packet<F::Addr>) -> bool {
    if is_at_pod(origin) {
        return true;
    }
    if maps::enabled(config_flags::SERVICES) {
        return origin.hook == hook::FROM_NET as u32
            && packet.kind == Kind::Ports
            && conntrack::begins(packet)
            && may_redirect(origin, subject::identity::<F>(&packet.dst).ifindex);
    }
    origin.hook == hook::TO_NET as u32
        && origin.host == 0
        && subject::identity::<F>(&packet.src).ifindex != 0
}

#[inline(always)]
fn is_at_pod(origin: &Origin) -> bool {
    origin.hook == hook::FROM_POD as u32 || origin.hook == hook::TO_POD as u32
}

/// True for a packet from outside whose source is a pod of this node, or the node itself.
#[inline(always)]
fn is_spoofed_from_outside<F: Family>(scratch: &Scratch<F::Addr>) -> bool {
    if scratch.origin.hook != hook::FROM_NET as u32 {
        return false;
    }
    let source = subject::identity::<F>(&scratch.packet.src);
    source.ifindex != 0 || source.flags & identity_flags::NODE != 0
}

#[inline(always)]
fn build_entry<F: Family>() -> u32 {
    let Some(scratch) = F::scratch() else {
        return DropReason::Internal as u32;
    };
    let Scratch {
        packet,
        origin,
        choice,
        tuple,
        val,
        question,
        ..
    } = scratch;
    tuple.src = packet.src;
    tuple.src_port = packet.src_port;
    tuple.forward = 1;
    let translated = val.frontend != 0 && maps::enabled(config_flags::SERVICES);
    if translated {
        tuple.dst = choice.addr;
        tuple.dst_port = choice.port;
    } else {
        tuple.dst = packet.dst;
        tuple.dst_port = packet.dst_port;
    }
    // Before anything is asked that it stands for.
    val.epoch = policy::epoch();
    question.initiator = packet.src;
    question.responder = tuple.dst;
    question.initiator_is = subject::UNASKED;
    question.responder_is = subject::UNASKED;
    let (initiator, responder) = devices::<F>(origin, question);
    let outside = origin.hook == hook::FROM_NET as u32;
    question.initiator_ifindex = if outside { 0 } else { initiator };
    question.responder_ifindex = responder;
    question.port = tuple.dst_port;
    question.proto = packet.proto;
    question.host = (origin.host != 0) as u8;
    question.unresolved = (val.frontend != 0 && !translated) as u32;
    val.nat_dst = packet.dst;
    val.nat_src = packet.src;
    val.nat_dst_port = packet.dst_port;
    val.nat_src_port = packet.src_port;
    val.state = State::New as u8;
    val.last_seen = jiffies();
    val.backend = choice.backend;
    val.generation = choice.generation;
    val.initiator_ifindex = initiator;
    // The stack drops what comes in to an address of its own from another such one.
    let own_backend = translated
        && subject::asked::<F>(&mut question.responder_is, &tuple.dst).flags & identity_flags::NODE
            != 0;
    let hairpin = translated && (tuple.dst == packet.src || (origin.host != 0 && own_backend));
    let has = |flag: u16| translated && choice.service_flags & flag as u32 != 0;
    let remote = choice.flags & backend_flags::LOCAL == 0;
    // The proxy asks as the node: what is not judged before is not judged at all.
    let proxied =
        !hairpin && question.unresolved == 0 && is_proxied(packet, origin, tuple.dst_port);
    val.responder_ifindex = if proxied { DNS_PROXY } else { responder };
    let masquerades = !hairpin
        && !proxied
        && origin.host == 0
        && (has(service_flags::SNAT_ALWAYS)
            || (has(service_flags::SNAT_REMOTE) && outside && remote))
        && !own_backend;
    let resets = packet.proto == proto::TCP && has(service_flags::RESET_ON_REMOVED);
    let flag = |set: bool, flag: u16| if set { flag } else { 0 };
    val.flags = flag(translated, ct_flags::DNAT)
        | flag(resets, ct_flags::RESETS)
        | flag(origin.host != 0, ct_flags::HOST)
        | flag(outside, ct_flags::OUTSIDE)
        | flag(hairpin || masquerades, ct_flags::SNAT)
        | flag(
            (hairpin && origin.host == 0) || masquerades,
            ct_flags::REDIRECT,
        )
        | flag(may_redirect(origin, responder), ct_flags::REDIRECT)
        | flag(proxied, ct_flags::REDIRECT);
    if hairpin {
        tuple.src = packet.dst;
    }
    if masquerades {
        outcome::NEEDS_SOURCE
    } else {
        0
    }
}

/// Gives the flow the source address of the route to its backend. A step that needs the context.
#[inline(always)]
pub fn choose_source<F: Family, C: Ctx>(ctx: C) -> u32 {
    let Some(scratch) = F::scratch() else {
        return DropReason::Internal as u32;
    };
    let source = forward::source_towards::<F, C>(ctx, &scratch.packet, scratch.tuple.dst);
    let is_own = scratch.choice.service_flags & service_flags::NODE_ADDRESS as u32 != 0;
    scratch.tuple.src = if source != F::host_client() {
        source
    } else if is_own {
        // A kernel before 6.7 tells no source: the address that the client dialled is one of ours.
        scratch.packet.dst
    } else {
        return DropReason::NoRoute as u32;
    };
    0
}

/// The devices of both ends: of pods of this node, or the uplink an outside client comes by.
#[inline(always)]
fn devices<F: Family>(origin: &Origin, question: &mut Question<F::Addr>) -> (u32, u32) {
    let initiator = if origin.hook == hook::FROM_POD as u32 || origin.hook == hook::FROM_NET as u32
    {
        origin.ifindex
    } else {
        subject::asked::<F>(&mut question.initiator_is, &question.initiator).ifindex
    };
    let responder = if origin.hook == hook::TO_POD as u32 {
        origin.ifindex
    } else {
        subject::asked::<F>(&mut question.responder_is, &question.responder).ifindex
    };
    (initiator, responder)
}

/// True if the flow can go from device to device in both directions.
#[inline(always)]
fn may_redirect(origin: &Origin, responder_ifindex: u32) -> bool {
    let outside = origin.hook == hook::FROM_NET as u32;
    if !maps::enabled(config_flags::REDIRECT)
        || responder_ifindex == 0
        || !(outside || origin.hook == hook::FROM_POD as u32)
    {
        return false;
    }
    has_flag(responder_ifindex, subject_flags::REDIRECT)
        && (outside || has_flag(origin.ifindex, subject_flags::REDIRECT))
}

/// True for a query to a nameserver, of a pod whose queries go through the proxy.
#[inline(always)]
fn is_proxied<A>(packet: &Packet<A>, origin: &Origin, to: Port) -> bool {
    if origin.hook != hook::FROM_POD as u32
        || packet.kind != Kind::Ports
        || to.number() != port::DNS
        || (packet.proto != proto::UDP && packet.proto != proto::TCP)
    {
        return false;
    }
    match subject::by_device(origin.ifindex) {
        Some(pod) => pod.flags & subject_flags::DNS != 0 && pod.dns_proxy != 0,
        None => false,
    }
}

#[inline(always)]
pub(super) fn has_flag(ifindex: u32, flag: u16) -> bool {
    match subject::by_device(ifindex) {
        Some(Subject { flags, .. }) => flags & flag != 0,
        None => false,
    }
}

/// A flow that policy forbids is opened, as a tombstone.
#[inline(always)]
fn admit_first<F: Family>() -> u32 {
    let Some(scratch) = F::scratch() else {
        return DropReason::Internal as u32;
    };
    let packet = &scratch.packet;
    let opens = match packet.kind {
        Kind::Ports => packet.proto != proto::TCP || conntrack::begins(packet),
        Kind::EchoReply => false,
        _ => true,
    };
    if opens {
        let _ = policy::judge::<F>();
        return 0;
    }
    if !joins_late(&scratch.question) {
        return DropReason::NoConnection as u32;
    }
    scratch.val.flags |= ct_flags::MIDSTREAM;
    scratch.val.state = State::Established as u8;
    let _ = policy::judge_either_way::<F>();
    0
}

/// True if an end is a pod whose flows may be older than its attachment.
#[inline(always)]
fn joins_late<A>(question: &Question<A>) -> bool {
    let late = |ifindex| ifindex != 0 && has_flag(ifindex, subject_flags::LATE);
    late(question.initiator_ifindex) || late(question.responder_ifindex)
}
