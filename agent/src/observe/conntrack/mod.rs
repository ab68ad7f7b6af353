//! Tracked flows: listing them, and removing those that are over.

mod in_use;
mod list;
mod sweep;

use dataplane_common::{
    abi::{Addr4, Addr6, Address, CtKey, CtVal, Port, ct_flags, name},
    decide::conntrack::{State, is_expired, timeout_secs},
};

use crate::bpf::{Error, Maps, Table};

pub use in_use::InUse;
pub use list::{Flow, FlowState, list};
pub use sweep::{Census, Sweep, Sweeper};

/// An address family, with its own table of flows.
trait Family: Address
where
    CtKey<Self>: dataplane_common::abi::Abi + Ord,
    CtVal<Self>: dataplane_common::abi::Abi,
{
    /// The table's name.
    const TABLE: &'static str;

    fn table(maps: &Maps) -> Result<Flows<Self>, Error> {
        maps.table(Self::TABLE)
    }
}

impl Family for Addr4 {
    const TABLE: &'static str = name::CONNTRACK[0];
}

impl Family for Addr6 {
    const TABLE: &'static str = name::CONNTRACK[1];
}

type Flows<A> = Table<CtKey<A>, CtVal<A>>;

/// A packet's addresses and ports.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Tuple<A> {
    src: A,
    dst: A,
    src_port: Port,
    dst_port: Port,
}

impl<A: Address> Tuple<A> {
    fn key(&self, proto: u8) -> CtKey<A> {
        CtKey::sorted(self.src, self.dst, self.src_port, self.dst_port, proto).0
    }
}

/// The tuple that an entry stands under, as the flow's initiator sends it.
fn initiator_tuple<A: Address>(key: &CtKey<A>, value: &CtVal<A>) -> Tuple<A> {
    let (a, b) = ((key.a, key.a_port), (key.b, key.b_port));
    let (src, dst) = if value.flags & ct_flags::INITIATOR_IS_B != 0 {
        (b, a)
    } else {
        (a, b)
    };
    Tuple {
        src: src.0,
        dst: dst.0,
        src_port: src.1,
        dst_port: dst.1,
    }
}

/// The tuple in an entry's value: a front's is the main entry's, a main's is the client's.
fn other_tuple<A: Address>(value: &CtVal<A>) -> Tuple<A> {
    Tuple {
        src: value.nat_src,
        dst: value.nat_dst,
        src_port: value.nat_src_port,
        dst_port: value.nat_dst_port,
    }
}

fn is_front<A>(value: &CtVal<A>) -> bool {
    value.flags & ct_flags::FRONT != 0
}

/// The key of a main entry's front, if it has one.
fn front_key<A: Address>(key: &CtKey<A>, value: &CtVal<A>) -> Option<CtKey<A>> {
    if value.flags & (ct_flags::DNAT | ct_flags::SNAT) == 0 {
        return None;
    }
    let mut front = other_tuple(value).key(key.proto);
    front.layer = u8::from(value.flags & ct_flags::DNAT == 0);
    Some(front)
}

/// True if the main entry is the one that the front stands for.
fn belongs<A: Address>(front_key: &CtKey<A>, front: &CtVal<A>, main: &CtVal<A>) -> bool {
    !is_front(main) && other_tuple(main) == initiator_tuple(front_key, front)
}

/// Seconds without a packet after which a main entry is over.
fn lifetime<A>(proto: u8, value: &CtVal<A>) -> u32 {
    timeout_secs(proto, State::from_number(value.state), value.denied != 0)
}

/// True if a main entry is over at `now` (low 32 bits of jiffies).
fn is_over<A>(proto: u8, value: &CtVal<A>, now: u32, hz: u32) -> bool {
    is_expired(value.last_seen, now, lifetime(proto, value), hz)
}

#[cfg(test)]
mod tests;
