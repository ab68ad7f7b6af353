//! Opens a flow: chooses its backend, judges it, and enters it under the tuples of both sides.

//!
//! Everything stands in the family's scratch room: no function here takes or keeps a reference to it
//! across a call of another global function, which changes it.

use dataplane_common::{
    abi::{
        Address, CtKey, CtVal, Port, Subject, backend_flags, config_flags, ct_flags, hook,
        identity_flags, scope, service_flags, subject_flags,
    },
    decide::conntrack::{State, is_expired, timeout_secs},
    net::{proto, tcp_flags},
    verdict::DropReason,
};

use crate::{
    family::{Family, V4, V6},
    maps::{self, InsertError, Table},
    packet::{Ctx, jiffies, random},
    stage::{
        conntrack::{self, Question, Scratch, Tuple},
        forward,
        parse::{Kind, Packet},
        policy,
        service::{self, Choice},
        subject,
    },
};

/// How many backends are tried when a tuple is taken.
const BACKEND_TRIES: u32 = 4;
/// How many source ports are tried after that.
const PORT_TRIES: u32 = 24;

/// The outcome of [`open`] beside 0 (opened) and the drop reasons.
pub mod outcome {
    /// The packet is none of ours: it passes untouched.
    pub const NOT_OURS: u32 = 1 << 8;
    /// Refuse the packet: RST or ICMP unreachable. The drop reason is in the low bits.
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
    enter::<F>()
}

/// Defines a step as two global functions, one for each family, and the choice between them.
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

step! {
    /// One attempt to enter the main entry: `TAKEN`, `JOINED`, 0 or a `DropReason`.
    try_enter(attempt, draw) = enter4, enter6: enter_at
}

step! {
    /// Takes the next backend of the block; 0 if there is none.
    next_backend() = next_backend4, next_backend6: take_next_backend
}

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
    if frontend != 0 || opens_direct(&scratch.origin) {
        0
    } else {
        outcome::NOT_OURS
    }
}

/// The frontend that the packet dials, with a chosen backend in `choice`; 0 for a direct flow.
#[inline(always)]
fn choose<F: Family>(
    packet: &Packet<F::Addr>,
    origin: &Origin,
    choice: &mut Choice<F::Addr>,
) -> Result<u32, DropReason> {
    *choice = Choice::empty();
    let translates = matches!(packet.proto, proto::TCP | proto::UDP);
    if !maps::enabled(config_flags::SERVICES)
        || !translates
        || origin.hook == hook::TO_POD as u32
        || (origin.hook == hook::TO_NET as u32 && origin.host == 0)
    {
        return Ok(0);
    }
    let scope = if origin.hook == hook::FROM_NET as u32 {
        scope::EXTERNAL
    } else {
        scope::INTERNAL
    };
    let Some(found) = service::lookup::<F>(packet.dst, packet.dst_port, packet.proto, scope) else {
        return Ok(0);
    };
    if packet.proto == proto::TCP && !begins_tcp(packet) {
        return Err(DropReason::NoConnection);
    }
    let client = if origin.host != 0 {
        F::Addr::UNSPECIFIED
    } else {
        packet.src
    };
    service::choose::<F>(found, client, choice)?;
    choice.service_flags = found.flags as u32;
    Ok(found.frontend)
}

#[inline(always)]
fn begins_tcp<A>(packet: &Packet<A>) -> bool {
    packet.flags & (tcp_flags::SYN | tcp_flags::ACK) == tcp_flags::SYN
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

/// True where a flow without a frontend gets an entry: at the pods.
#[inline(always)]
fn opens_direct(origin: &Origin) -> bool {
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
    if val.frontend != 0 {
        tuple.dst = choice.addr;
        tuple.dst_port = choice.port;
    } else {
        tuple.dst = packet.dst;
        tuple.dst_port = packet.dst_port;
    }
    let (initiator, responder) = devices::<F>(packet, origin, &tuple.dst);
    let outside = origin.hook == hook::FROM_NET as u32;
    question.initiator = packet.src;
    question.responder = tuple.dst;
    question.initiator_ifindex = if outside { 0 } else { initiator };
    question.responder_ifindex = responder;
    question.port = tuple.dst_port;
    question.proto = packet.proto;
    question.host = (origin.host != 0) as u8;
    val.nat_dst = packet.dst;
    val.nat_src = packet.src;
    val.nat_dst_port = packet.dst_port;
    val.nat_src_port = packet.src_port;
    val.state = State::New as u8;
    val.last_seen = jiffies();
    val.backend = choice.backend;
    val.generation = choice.generation;
    val.initiator_ifindex = initiator;
    val.responder_ifindex = responder;
    let hairpin = val.frontend != 0 && tuple.dst == packet.src;
    let snat_remote = val.frontend != 0
        && outside
        && choice.service_flags & service_flags::SNAT_REMOTE as u32 != 0
        && choice.flags & backend_flags::LOCAL == 0;
    let flag = |set: bool, flag: u16| if set { flag } else { 0 };
    val.flags = flag(val.frontend != 0, ct_flags::DNAT)
        | flag(origin.host != 0, ct_flags::HOST)
        | flag(outside, ct_flags::OUTSIDE)
        | flag(hairpin || snat_remote, ct_flags::SNAT | ct_flags::REDIRECT)
        | flag(may_redirect(origin, responder), ct_flags::REDIRECT);
    if hairpin {
        tuple.src = packet.dst;
    }
    if snat_remote {
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
    scratch.tuple.src = forward::source_towards::<F, C>(ctx, &scratch.packet, scratch.tuple.dst);
    0
}

/// The devices of both ends: of pods of this node, or the uplink an outside client comes by.
#[inline(always)]
fn devices<F: Family>(
    packet: &Packet<F::Addr>,
    origin: &Origin,
    responder: &F::Addr,
) -> (u32, u32) {
    let initiator = if origin.hook == hook::FROM_POD as u32 || origin.hook == hook::FROM_NET as u32
    {
        origin.ifindex
    } else {
        subject::identity::<F>(&packet.src).ifindex
    };
    let responder = if origin.hook == hook::TO_POD as u32 {
        origin.ifindex
    } else {
        subject::identity::<F>(responder).ifindex
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

#[inline(always)]
fn has_flag(ifindex: u32, flag: u16) -> bool {
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
        Kind::Ports => packet.proto != proto::TCP || begins_tcp(packet),
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

/// Enters the flow: the main entry under a tuple that is free, then the front entry.
#[inline(always)]
fn enter<F: Family>() -> u32 {
    let Some(scratch) = F::scratch() else {
        return DropReason::Internal as u32;
    };
    let counted = scratch.question.initiator_ifindex;
    let half_open = scratch.val.flags & ct_flags::MIDSTREAM == 0;
    if half_open {
        if !conntrack::may_open(counted) {
            return DropReason::HalfOpenLimit as u32;
        }
        scratch.val.flags |= ct_flags::HALF_OPEN;
    }
    // A source of ours always gets a port of ours; a pod that is its own backend keeps its own.
    let own_source = scratch.val.flags & ct_flags::SNAT != 0
        && scratch.tuple.dst != scratch.packet.src
        && scratch.packet.kind == Kind::Ports;
    let draw = random();
    let mut attempt = if own_source { BACKEND_TRIES } else { 0 };
    let mut entered = outcome::TAKEN;
    for _ in 0..BACKEND_TRIES + PORT_TRIES {
        if attempt == 0 || attempt >= BACKEND_TRIES || next_backend::<F>() != 0 {
            entered = try_enter::<F>(attempt, draw);
        }
        attempt += 1;
        if entered != outcome::TAKEN || attempt == BACKEND_TRIES + PORT_TRIES {
            break;
        }
    }
    if entered == 0 {
        entered = enter_front::<F>();
        if entered == 0 {
            return 0;
        }
    }
    if half_open {
        conntrack::forget_open(counted);
    }
    match entered {
        outcome::JOINED => 0,
        outcome::TAKEN if own_source => DropReason::SnatExhausted as u32,
        outcome::TAKEN => DropReason::TupleClash as u32,
        reason => reason,
    }
}

#[inline(always)]
fn enter_at<F: Family>(attempt: u32, draw: u32) -> u32 {
    let Some(scratch) = F::scratch() else {
        return DropReason::Internal as u32;
    };
    if attempt >= BACKEND_TRIES {
        if scratch.packet.kind != Kind::Ports {
            return outcome::TAKEN;
        }
        scratch.tuple.src_port = snat_port(draw, attempt);
        scratch.val.flags |= ct_flags::SNAT;
    }
    set_main_key(scratch);
    let mut inserted = F::conntrack().insert_new(&scratch.main, &scratch.val);
    if inserted == Err(InsertError::Exists) && frees::<F>(scratch) {
        inserted = F::conntrack().insert_new(&scratch.main, &scratch.val);
    }
    match inserted {
        Ok(()) => 0,
        Err(InsertError::Full) => DropReason::ConntrackFull as u32,
        Err(InsertError::Exists) if is_same_flow::<F>(scratch) => outcome::JOINED,
        Err(InsertError::Exists) => outcome::TAKEN,
    }
}

#[inline(always)]
fn set_main_key<A: Address>(scratch: &mut Scratch<A>) {
    let (key, source_is_b) = scratch.tuple.key(scratch.packet.proto);
    scratch.main = key;
    scratch.val.flags = if source_is_b {
        scratch.val.flags | ct_flags::INITIATOR_IS_B
    } else {
        scratch.val.flags & !ct_flags::INITIATOR_IS_B
    };
}

/// A port of ours: attempts walk the range from a random place.
#[inline(always)]
fn snat_port(draw: u32, attempt: u32) -> Port {
    let count = maps::snat_count() as u32;
    let draw = draw.wrapping_add(attempt.wrapping_mul(0x9e37_79b9));
    Port::new(maps::snat_first().wrapping_add(((draw as u64 * count as u64) >> 32) as u16))
}

/// For a flow whose tuple with the present backend is taken: only one that lies on the same side and
/// that policy allows.
#[inline(always)]
fn take_next_backend<F: Family>() -> u32 {
    let Some(scratch) = F::scratch() else {
        return 0;
    };
    if scratch.val.flags & (ct_flags::DNAT | ct_flags::SNAT) != ct_flags::DNAT
        || scratch.choice.count < 2
        || scratch.val.denied != 0
        || !service::choose_next::<F>(&mut scratch.choice)
        || scratch.choice.addr == scratch.packet.src
    {
        return 0;
    }
    let addr = scratch.choice.addr;
    let ifindex = subject::identity::<F>(&addr).ifindex;
    if (ifindex == 0) != (scratch.val.responder_ifindex == 0)
        || (scratch.val.flags & ct_flags::REDIRECT != 0
            && !has_flag(ifindex, subject_flags::REDIRECT))
    {
        return 0;
    }
    scratch.question.responder = addr;
    scratch.question.responder_ifindex = ifindex;
    scratch.question.port = scratch.choice.port;
    let denied = policy::judge::<F>() != 0;
    let Some(scratch) = F::scratch() else {
        return 0;
    };
    if denied {
        // The present backend stays, and with it what policy says of it.
        scratch.question.responder = scratch.tuple.dst;
        scratch.question.responder_ifindex = scratch.val.responder_ifindex;
        scratch.question.port = scratch.tuple.dst_port;
        let _ = policy::judge::<F>();
        return 0;
    }
    scratch.val.backend = scratch.choice.backend;
    scratch.val.generation = scratch.choice.generation;
    scratch.val.responder_ifindex = ifindex;
    scratch.tuple.dst = addr;
    scratch.tuple.dst_port = scratch.choice.port;
    1
}

/// Removes the entry in the way if its flow is over. True if the place is free now.
#[inline(always)]
fn frees<F: Family>(scratch: &Scratch<F::Addr>) -> bool {
    let Some(old) = F::conntrack().find(&scratch.main) else {
        return true;
    };
    if old.flags & ct_flags::FRONT != 0 {
        return frees_front::<F>(scratch, old);
    }
    let over = is_over(scratch.packet.proto, old);
    let stale = old.frontend != 0
        && old.nat_src == scratch.val.nat_src
        && old.nat_src_port == scratch.val.nat_src_port
        && !service::is_backend_alive::<F>(old);
    if !over && !stale {
        return false;
    }
    if old.flags & ct_flags::HALF_OPEN != 0 {
        conntrack::forget_open(conntrack::counted_device(old));
    }
    F::conntrack().delete(&scratch.main);
    true
}

/// A client's tuple that stands in the way of a backend's: it goes with its flow.
#[inline(always)]
fn frees_front<F: Family>(scratch: &Scratch<F::Addr>, front: &CtVal<F::Addr>) -> bool {
    let (key, _) = CtKey::sorted(
        front.nat_src,
        front.nat_dst,
        front.nat_src_port,
        front.nat_dst_port,
        scratch.packet.proto,
    );
    if let Some(main) = F::conntrack().find(&key)
        && main.frontend == front.frontend
        && !is_over(scratch.packet.proto, main)
    {
        return false;
    }
    F::conntrack().delete(&scratch.main);
    true
}

#[inline(always)]
fn is_over<A>(proto: u8, entry: &CtVal<A>) -> bool {
    let state = State::from_number(entry.state);
    let secs = timeout_secs(proto, state, entry.denied != 0);
    state.is_reusable() || is_expired(entry.last_seen, jiffies(), secs, maps::hz())
}

/// True if the entry in the way is this very flow.
#[inline(always)]
fn is_same_flow<F: Family>(scratch: &Scratch<F::Addr>) -> bool {
    let Some(old) = F::conntrack().find(&scratch.main) else {
        return false;
    };
    old.flags & ct_flags::FRONT == 0
        && old.nat_src == scratch.val.nat_src
        && old.nat_dst == scratch.val.nat_dst
        && old.nat_src_port == scratch.val.nat_src_port
        && old.nat_dst_port == scratch.val.nat_dst_port
}

/// Enters the front entry, under the tuple the client sends. A direct flow whose own tuple is taken
/// stands beside it, in layer 1.
#[inline(always)]
fn enter_front<F: Family>() -> u32 {
    let Some(scratch) = F::scratch() else {
        return DropReason::Internal as u32;
    };
    if scratch.val.flags & (ct_flags::DNAT | ct_flags::SNAT) == 0 {
        return 0;
    }
    let (mut front, source_is_b) = Tuple::of(&scratch.packet).key(scratch.packet.proto);
    front.layer = (scratch.val.flags & ct_flags::DNAT == 0) as u8;
    scratch.front = front;
    scratch.val.nat_src = scratch.tuple.src;
    scratch.val.nat_dst = scratch.tuple.dst;
    scratch.val.nat_src_port = scratch.tuple.src_port;
    scratch.val.nat_dst_port = scratch.tuple.dst_port;
    scratch.val.flags = ct_flags::FRONT
        | if source_is_b {
            ct_flags::INITIATOR_IS_B
        } else {
            0
        };
    match F::conntrack().put(&scratch.front, &scratch.val) {
        Ok(()) => 0,
        Err(_) => {
            F::conntrack().delete(&scratch.main);
            DropReason::ConntrackFull as u32
        }
    }
}
