//! Finds a packet's flow and keeps its state.

use aya_ebpf::{btf_maps::Array, macros::btf_map};
use dataplane_common::{
    abi::{
        Address, CidrKey, CtKey, CtVal, IdentityVal, Port, RowKey, RowVal, capacity, ct_flags,
        scope,
    },
    decide::conntrack::{State, is_expired, next_sctp, next_tcp, timeout_secs},
    net::{proto, sctp, tcp_flags},
};

use crate::{
    family::Family,
    maps::{self, Table, element},
    packet::atomic_add,
    stage::{
        create::Origin,
        parse::{Kind, Packet},
        service::{self, Choice},
        subject,
    },
};

#[btf_map(name = "half_open")]
static HALF_OPEN: Array<u32, { capacity::HALF_OPEN as usize }> = Array::new();

/// Addresses and ports as a packet of the flow is to have them.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Tuple<A> {
    /// Source address.
    pub src: A,
    /// Destination address.
    pub dst: A,
    /// Source port.
    pub src_port: Port,
    /// Destination port.
    pub dst_port: Port,
    /// 1 for a packet of the flow's initiator, 0 for a reply.
    pub forward: u32,
}

impl<A: Address> Tuple<A> {
    /// A packet's own.
    #[inline(always)]
    pub fn of(packet: &Packet<A>) -> Self {
        Self {
            src: packet.src,
            dst: packet.dst,
            src_port: packet.src_port,
            dst_port: packet.dst_port,
            forward: 1,
        }
    }

    /// The key of the flow's entry under this tuple, and whether the source is its `b` end.
    #[inline(always)]
    pub fn key(&self, proto: u8) -> (CtKey<A>, bool) {
        CtKey::sorted(self.src, self.dst, self.src_port, self.dst_port, proto)
    }
}

/// Room for opening a flow, off the stack: one for each CPU. The functions of the slow path share it
/// instead of arguments, so that the verifier checks each of them once.
#[repr(C)]
pub struct Scratch<A> {
    /// The packet.
    pub packet: Packet<A>,
    /// Where it is.
    pub origin: Origin,
    /// The chosen backend.
    pub choice: Choice<A>,
    /// The main entry's tuple, as the initiator sends it.
    pub tuple: Tuple<A>,
    /// Key of the main entry.
    pub main: CtKey<A>,
    /// Key of the front entry.
    pub front: CtKey<A>,
    /// The entry being built.
    pub val: CtVal<A>,
    /// What policy is asked.
    pub question: Question<A>,
    /// How it is looked up.
    pub lookup: Lookup<A>,
    /// The packet that an ICMP error quotes.
    pub quote: Packet<A>,
    /// What the quote is to say.
    pub quote_to: Tuple<A>,
    /// Not 0 if an event tells of the packet's flow that it is denied.
    pub told: u32,
}

/// Keys of the policy maps, and what their rows say.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Lookup<A> {
    /// The key of a row.
    pub row: RowKey,
    /// The key of a peer's prefix.
    pub prefix: CidrKey<A>,
    /// What the rows say so far.
    pub found: RowVal,
}

/// A flow as policy sees it: past all translation.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Question<A> {
    /// Who began it.
    pub initiator: A,
    /// The backend, or whom the initiator dialled.
    pub responder: A,
    /// Host-side device of the initiator's pod, 0 if it is not a pod of this node.
    pub initiator_ifindex: u32,
    /// Host-side device of the responder's pod, 0 if it is not a pod of this node.
    pub responder_ifindex: u32,
    /// The responder's port.
    pub port: Port,
    /// IP protocol number.
    pub proto: u8,
    /// Not 0 if the initiator is the host.
    pub host: u8,
    /// Not 0 if the backend is another implementation's choice, past this hook: what the initiator may
    /// send is asked where the backend is seen.
    pub unresolved: u32,
    /// Not 0 if policies in audit concern an end.
    pub audited: u32,
    /// What the initiator is, if it was asked ([`subject::asked`]).
    pub initiator_is: IdentityVal,
    /// What the responder is, if it was asked.
    pub responder_is: IdentityVal,
}

/// The live flow of a packet, and how the packet is to be translated. `raw_client` is true where a
/// packet stands as its client sent it: there, the tuple of a translated flow is not the client's.
#[inline(always)]
pub fn find<F: Family>(
    packet: &Packet<F::Addr>,
    raw_client: bool,
    out: &mut Tuple<F::Addr>,
) -> Option<&'static mut CtVal<F::Addr>> {
    *out = Tuple::of(packet);
    let (mut key, source_is_b) = out.key(packet.proto);
    let entry = F::conntrack().find(&key)?;
    let forward = source_is_b == (entry.flags & ct_flags::INITIATOR_IS_B != 0);
    if entry.flags & ct_flags::FRONT != 0 {
        return behind_front::<F>(packet, entry, forward, out);
    }
    if !forward {
        out.src = entry.nat_dst;
        out.dst = entry.nat_src;
        out.src_port = entry.nat_dst_port;
        out.dst_port = entry.nat_src_port;
        out.forward = 0;
    } else if raw_client && entry.flags & (ct_flags::DNAT | ct_flags::SNAT) != 0 {
        key.layer = 1;
        let entry = F::conntrack().find(&key)?;
        return behind_front::<F>(packet, entry, true, out);
    }
    live::<F>(packet, entry, forward)
}

/// The flow that was just opened in the scratch room.
#[inline(always)]
pub fn opened<F: Family>(out: &mut Tuple<F::Addr>) -> Option<&'static mut CtVal<F::Addr>> {
    let scratch = F::scratch()?;
    *out = scratch.tuple;
    F::conntrack().find(&scratch.main)
}

/// The main entry behind a front.
#[inline(always)]
fn behind_front<F: Family>(
    packet: &Packet<F::Addr>,
    front: &CtVal<F::Addr>,
    forward: bool,
    out: &mut Tuple<F::Addr>,
) -> Option<&'static mut CtVal<F::Addr>> {
    let (key, _) = CtKey::sorted(
        front.nat_src,
        front.nat_dst,
        front.nat_src_port,
        front.nat_dst_port,
        packet.proto,
    );
    let main = F::conntrack().find(&key)?;
    if forward {
        // The main entry may have been taken over by another client since.
        if main.nat_src != packet.src || main.nat_src_port != packet.src_port {
            return None;
        }
        out.src = front.nat_src;
        out.dst = front.nat_dst;
        out.src_port = front.nat_src_port;
        out.dst_port = front.nat_dst_port;
    } else {
        out.forward = 0;
    }
    live::<F>(packet, main, forward)
}

/// The entry, unless its flow is over.
#[inline(always)]
fn live<F: Family>(
    packet: &Packet<F::Addr>,
    entry: &'static mut CtVal<F::Addr>,
    forward: bool,
) -> Option<&'static mut CtVal<F::Addr>> {
    let state = State::from_number(entry.state);
    let now = crate::packet::jiffies();
    let secs = timeout_secs(packet.proto, state, entry.denied != 0);
    if is_expired(entry.last_seen, now, secs, maps::hz()) {
        return None;
    }
    if packet.kind == Kind::Ports && begins(packet) {
        if state.is_reusable() {
            return None;
        }
        if forward && is_open_again::<F>(packet, entry) {
            return None;
        }
    }
    Some(entry)
}

/// True if the choice for the flow is to be made again: its backend is gone; or it was a direct flow
/// without an answer, and there is a frontend by now.
#[inline(always)]
fn is_open_again<F: Family>(packet: &Packet<F::Addr>, entry: &CtVal<F::Addr>) -> bool {
    if entry.flags & ct_flags::DNAT != 0 {
        return !service::is_backend_alive::<F>(entry);
    }
    let (addr, port) = (packet.dst, packet.dst_port);
    entry.frontend == 0
        && entry.flags & (ct_flags::REPLIED | ct_flags::SNAT) == 0
        && service::lookup::<F>(addr, port, packet.proto, scope::INTERNAL).is_some()
}

/// True for a packet that may begin a flow to a frontend: a TCP SYN, an SCTP INIT, any datagram.
#[inline(always)]
pub fn begins<A>(packet: &Packet<A>) -> bool {
    match packet.proto {
        proto::TCP => packet.flags & (tcp_flags::SYN | tcp_flags::ACK) == tcp_flags::SYN,
        proto::SCTP => packet.flags == sctp::INIT,
        _ => true,
    }
}

/// Notes a packet of the flow.
#[inline(always)]
pub fn touch<A: Address>(packet: &Packet<A>, entry: &mut CtVal<A>, forward: bool) {
    let now = crate::packet::jiffies();
    if entry.last_seen != now {
        entry.last_seen = now;
    }
    if !forward && entry.flags & ct_flags::REPLIED == 0 {
        answered(entry);
        if packet.proto != proto::TCP {
            entry.state = State::Established as u8;
        }
    }
    if packet.proto == proto::TCP {
        const CHANGES: u8 = tcp_flags::SYN | tcp_flags::FIN | tcp_flags::RST;
        let state = State::from_number(entry.state);
        if packet.flags & CHANGES != 0 || state == State::New {
            entry.state = after(packet, entry, state, forward) as u8;
        }
    } else if packet.proto == proto::SCTP {
        entry.state = next_sctp(entry.state, packet.flags);
    }
}

#[inline(always)]
fn after<A: Address>(
    packet: &Packet<A>,
    entry: &mut CtVal<A>,
    state: State,
    forward: bool,
) -> State {
    let closed_by_other = if forward {
        ct_flags::RESPONDER_CLOSED
    } else {
        ct_flags::INITIATOR_CLOSED
    };
    if packet.flags & tcp_flags::FIN != 0 {
        if entry.flags & closed_by_other != 0 {
            return State::TimeWait;
        }
        entry.flags |= closed_by_other ^ (ct_flags::RESPONDER_CLOSED | ct_flags::INITIATOR_CLOSED);
    }
    next_tcp(state, packet.flags, !forward)
}

#[inline(always)]
fn answered<A>(entry: &mut CtVal<A>) {
    let half_open = entry.flags & ct_flags::HALF_OPEN != 0;
    entry.flags = (entry.flags | ct_flags::REPLIED) & !ct_flags::HALF_OPEN;
    if half_open {
        forget_open(counted_device(entry));
    }
}

/// The device whose half-open count a flow is in; 0 for flows from outside, which no pod began.
#[inline(always)]
pub fn counted_device<A>(entry: &CtVal<A>) -> u32 {
    if entry.flags & ct_flags::OUTSIDE != 0 {
        0
    } else {
        entry.initiator_ifindex
    }
}

/// True if a new flow of the device's pod (0 for none) may be opened; then it is counted.
#[inline(always)]
pub fn may_open(ifindex: u32) -> bool {
    let (Some(own), Some(total)) = (
        element(&HALF_OPEN, subject::place(ifindex)),
        element(&HALF_OPEN, capacity::HALF_OPEN - 1),
    ) else {
        return false;
    };
    let own_limit = maps::half_open_per_pod();
    let total_limit = maps::half_open_total();
    if (ifindex != 0 && is_full(*own, own_limit)) || is_full(*total, total_limit) {
        return false;
    }
    count_half_open(ifindex, 1);
    true
}

/// True if a count has reached its limit; 0 is none. Two CPUs may take the same flow off, and the
/// sweeper may write what it counted before: below zero is not above the limit.
#[inline(always)]
fn is_full(count: u32, limit: u32) -> bool {
    limit != 0 && count >= limit && count as i32 >= 0
}

/// Takes back what [`may_open`] counted.
#[inline(always)]
pub fn forget_open(ifindex: u32) {
    count_half_open(ifindex, u32::MAX);
}

/// Adds to the half-open counts; `u32::MAX` takes one off.
#[inline(always)]
fn count_half_open(ifindex: u32, delta: u32) {
    if ifindex != 0
        && let Some(own) = element(&HALF_OPEN, subject::place(ifindex))
    {
        atomic_add(own, delta);
    }
    if let Some(total) = element(&HALF_OPEN, capacity::HALF_OPEN - 1) {
        atomic_add(total, delta);
    }
}
