//! Enters a flow under the tuples of both sides: the main entry where it is free, then the front.
//!
//! As in [`super::create`], everything stands in the scratch room.

use dataplane_common::{
    abi::{Address, CtKey, CtVal, DNS_PROXY, Port, ct_flags, subject_flags},
    decide::{
        balance::index,
        conntrack::{State, is_expired, timeout_secs},
    },
    verdict::DropReason,
};

use crate::{
    family::{Family, V4, V6},
    maps::{self, InsertError, Table},
    packet::{jiffies, random, repeat},
    stage::{
        conntrack::{self, Scratch, Tuple},
        create::{has_flag, outcome, step},
        parse::Kind,
        policy, service, subject,
    },
};

/// How many other backends are tried when a tuple is taken.
const BACKEND_TRIES: u32 = 3;
/// How many source ports are tried at most: a full range costs a packet some tens of microseconds, and
/// one of which a fiftieth is free is missed by one packet in two hundred.
const PORT_TRIES: u32 = 256;
/// The first of these tries leave alone what another client's connection has just closed, if its backend
/// still knows the tuple. They are few: where many short
/// connections go to one backend, closed ones soon have the whole range, and every new one pays for all
/// these tries.
const GENTLE_TRIES: u32 = PORT_TRIES / 8;

step! {
    /// One attempt to enter the main entry, under the tuple as it is, or under a source port of ours that
    /// is not 0: `TAKEN`, `JOINED`, 0 or a `DropReason`. With `gentle` not 0, another client's closed
    /// connection keeps its place.
    try_enter(port, gentle) = enter4, enter6: enter_at
}

step! {
    /// Takes the next backend of the block; 0 if there is none.
    next_backend() = next_backend4, next_backend6: take_next_backend
}

/// Enters the flow: the main entry under a tuple that is free, then the front entry.
#[inline(always)]
pub fn enter<F: Family>() -> u32 {
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
    // A source of ours always gets a port of ours; a pod or host that is its own backend keeps its own.
    let has_ports = scratch.packet.kind == Kind::Ports;
    let own_source = scratch.val.flags & (ct_flags::SNAT | ct_flags::HOST) == ct_flags::SNAT
        && scratch.tuple.dst != scratch.packet.src
        && has_ports;
    let mut entered = outcome::TAKEN;
    if !own_source {
        entered = try_backends::<F>();
    }
    if entered == outcome::TAKEN && has_ports {
        entered = walk_ports::<F>();
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
        outcome::TAKEN if own_source => outcome::REFUSE | DropReason::SnatExhausted as u32,
        outcome::TAKEN if has_ports => outcome::REFUSE | DropReason::TupleClash as u32,
        outcome::TAKEN => DropReason::TupleClash as u32,
        reason => reason,
    }
}

/// Tries the tuple as the initiator sends it, with the chosen backend and then with some others.
#[inline(always)]
fn try_backends<F: Family>() -> u32 {
    let mut entered = try_enter::<F>(0, 0);
    for _ in 0..BACKEND_TRIES {
        if entered != outcome::TAKEN {
            break;
        }
        if next_backend::<F>() != 0 {
            entered = try_enter::<F>(0, 0);
        }
    }
    entered
}

/// Tries source ports of ours, each drawn anew: whatever the others have taken, every port that is left
/// is as likely as any.
#[inline(always)]
fn walk_ports<F: Family>() -> u32 {
    let mut entered = outcome::TAKEN;
    repeat(PORT_TRIES, try_port::<F>, &mut entered);
    entered
}

/// Tries one port; 1 ends the walk.
extern "C" fn try_port<F: Family>(attempt: u32, entered: *mut u32) -> i64 {
    let port = maps::snat_first() as u32 + index(random(), maps::snat_count() as u32);
    let result = try_enter::<F>(port, (attempt < GENTLE_TRIES) as u32);
    // SAFETY: `repeat` passes on the reference that it was given.
    unsafe { *entered = result };
    (result != outcome::TAKEN) as i64
}

#[inline(always)]
fn enter_at<F: Family>(port: u32, gentle: u32) -> u32 {
    let Some(scratch) = F::scratch() else {
        return DropReason::Internal as u32;
    };
    if port != 0 {
        scratch.tuple.src_port = Port::new(port as u16);
        scratch.val.flags |= ct_flags::SNAT;
    }
    set_main_key(scratch);
    let mut inserted = F::conntrack().insert_new(&scratch.main, &scratch.val);
    if inserted == Err(InsertError::Exists) && frees::<F>(scratch, gentle != 0) {
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
        || scratch.val.responder_ifindex == DNS_PROXY
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
    scratch.question.responder_is = subject::UNASKED;
    scratch.question.responder_ifindex = ifindex;
    scratch.question.port = scratch.choice.port;
    let denied = policy::judge::<F>() != 0;
    let Some(scratch) = F::scratch() else {
        return 0;
    };
    if denied {
        // The present backend stays, and with it what policy says of it.
        scratch.question.responder = scratch.tuple.dst;
        scratch.question.responder_is = subject::UNASKED;
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
fn frees<F: Family>(scratch: &Scratch<F::Addr>, gentle: bool) -> bool {
    let Some(old) = F::conntrack().find(&scratch.main) else {
        return true;
    };
    if old.flags & ct_flags::FRONT != 0 {
        return frees_front::<F>(scratch, old);
    }
    let same_client =
        old.nat_src == scratch.val.nat_src && old.nat_src_port == scratch.val.nat_src_port;
    let over = is_over(scratch.packet.proto, old);
    let stale =
        old.flags & ct_flags::DNAT != 0 && same_client && !service::is_backend_alive::<F>(old);
    let lingers = gentle && !same_client && lingers(scratch.packet.proto, old);
    if (!over && !stale) || lingers {
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

/// True for a closed connection that its responder still knows: the end that closes first does
/// (TIME-WAIT, RFC 9293 section 3.6.1), for a time that is not over.
#[inline(always)]
fn lingers<A>(proto: u8, entry: &CtVal<A>) -> bool {
    let state = State::TimeWait;
    let secs = timeout_secs(proto, state, false);
    entry.state == state as u8
        && entry.flags & ct_flags::INITIATOR_CLOSED == 0
        && !is_expired(entry.last_seen, jiffies(), secs, maps::hz())
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
