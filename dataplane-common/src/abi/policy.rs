//! Policy: immutable rulesets, their port classes and rows.
//!
//! A pod points to one ruleset for each direction. A verdict needs the class of the packet's port
//! in that ruleset and then at most three rows: the one for any peer, the one for the peer's
//! identity and the one for the set of CIDRs that holds its address. Its cost does not depend on
//! how many policies or rules there are.

use super::{Addr4, Addr6, abi};

/// A run of [`PortBound`]s.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PortSpan {
    /// Index of the first; its `start` is 0.
    pub base: u32,
    /// How many; at least 1 and at most 65,536.
    pub count: u32,
}

/// A ruleset: what one direction of a pod allows.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RulesetVal {
    /// Classes of TCP ports.
    pub tcp: PortSpan,
    /// Classes of UDP ports.
    pub udp: PortSpan,
    /// Classes of SCTP ports.
    pub sctp: PortSpan,
    /// Class of everything without ports.
    pub other_class: u16,
    /// [`ruleset_flags`].
    pub flags: u16,
}

/// Bits of [`RulesetVal::flags`].
pub mod ruleset_flags {
    /// Some row names a CIDR set: the peer's address must be looked up.
    pub const CIDRS: u16 = 1;
    /// Some row names an identity.
    pub const IDENTITIES: u16 = 1 << 1;
}

/// From port `start` (host order) up to the next bound, ports have class `class`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct PortBound {
    /// First port, in host order.
    pub start: u16,
    /// The class.
    pub class: u16,
}

/// Steps in which a binary search finds any port's bound.
pub const PORT_SEARCH_STEPS: u32 = 17;

/// A row's key.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct RowKey {
    /// The ruleset.
    pub ruleset: u32,
    /// [`peer`].
    pub peer: u32,
    /// Port class.
    pub class: u16,
    /// Explicit padding.
    pub reserved: u16,
}

/// Values of [`RowKey::peer`]: [`ANY`](peer::ANY), an identity, or a CIDR set.
pub mod peer {
    /// Any peer.
    pub const ANY: u32 = 0;
    /// Set for a CIDR set; its number is in the other bits.
    pub const CIDR: u32 = 1 << 31;
}

/// What a ruleset says of one peer and port class.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct RowVal {
    /// The rule that decides: the smallest number of those that allow.
    pub rule: u32,
    /// [`row_flags`].
    pub flags: u32,
}

/// Bits of [`RowVal::flags`].
pub mod row_flags {
    /// A NetworkPolicy rule allows.
    pub const ALLOW: u32 = 1;
}

/// A prefix, as an LPM trie wants it: a length and the bits it counts.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct CidrKey<A> {
    /// Bits that count: [`LEAD_BITS`](Self::LEAD_BITS) and the prefix's own length.
    pub prefix: u32,
    /// 0 for a policy's prefix. For a source range the number of its set, in network byte order: the
    /// first bits of the prefix.
    pub lead: u32,
    /// The address; its bits past the length are 0.
    pub addr: A,
}

impl<A> CidrKey<A> {
    /// Bits of `lead`, which every prefix includes.
    pub const LEAD_BITS: u32 = 32;
}

/// A source range ([`super::ServiceVal::source_set`]): its set in [`CidrKey::lead`], then the prefix.
pub type SourceRangeKey<A> = CidrKey<A>;

impl<A> CidrKey<A> {
    /// The key of a source range of `length` bits, or of an address to look up with its full length.
    #[inline(always)]
    pub const fn of_source_set(set: u32, addr: A, length: u32) -> Self {
        Self {
            prefix: Self::LEAD_BITS + length,
            lead: set.to_be(),
            addr,
        }
    }
}

/// The set of all policy CIDRs that hold an address.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct CidrVal {
    /// The set's number, without [`peer::CIDR`].
    pub set: u32,
}

abi! {
CidrKey<Addr4> = 12,
CidrKey<Addr6> = 24,
PortSpan = 8, RulesetVal = 28, PortBound = 4, RowKey = 12, RowVal = 8, CidrVal = 4 }
