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

/// A ruleset: what the policies of all tiers say of one direction of a pod.
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
    /// Some row names a CIDR set: the peer's address must be looked up, unless its identity has
    /// [`identity_flags::NO_CIDR`](crate::abi::identity_flags::NO_CIDR).
    pub const CIDRS: u16 = 1;
    /// Some row names an identity.
    pub const IDENTITIES: u16 = 1 << 1;
    /// NetworkPolicies isolate the pod: what no rule decides is denied.
    pub const ISOLATES: u16 = 1 << 2;
    /// Some row names [`peer::UNKNOWN_POD`](super::peer::UNKNOWN_POD): whether an unknown address
    /// may be a pod's must be looked up.
    pub const UNKNOWN_PODS: u16 = 1 << 3;
    /// Some row is for any peer.
    pub const ANY: u16 = 1 << 4;
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
    /// The identity of an address that may be a pod's, which nobody knows: rules that deny pods
    /// deny it, rules that accept pods do not match it.
    pub const UNKNOWN_POD: u32 = CIDR - 1;
    /// The same for a node whose labels are in transition.
    pub const UNKNOWN_NODE: u32 = CIDR - 2;
    /// Other identities are below this.
    pub const IDENTITIES: u32 = UNKNOWN_NODE;
}

/// What a ruleset says of one peer and port class: of each tier the rule that is asked first.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct RowVal {
    /// Of tier Admin.
    pub admin: Claim,
    /// Of the NetworkPolicies, if any isolates the pod; else of tier Baseline.
    pub below: Claim,
}

/// A rule's claim to decide.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Claim {
    /// The rule's place in its ruleset and tier, and its [`action`]; the smallest decides. All bits:
    /// no claim.
    pub order: u32,
    /// The rule's number.
    pub rule: u32,
}

/// The lowest bits of [`Claim::order`].
pub mod action {
    /// The packet may pass.
    pub const ACCEPT: u32 = 0;
    /// The packet is dropped.
    pub const DENY: u32 = 1;
    /// The next tier decides.
    pub const PASS: u32 = 2;
    /// How many bits there are.
    pub const BITS: u32 = 2;
    /// These bits. All set: no action, as in [`Claim::NONE`](super::Claim::NONE).
    pub const MASK: u32 = (1 << BITS) - 1;
}

impl Claim {
    /// No rule claims.
    pub const NONE: Self = Self {
        order: u32::MAX,
        rule: 0,
    };

    /// A rule's claim at a place of its tier.
    #[inline(always)]
    pub const fn new(place: u32, action: u32, rule: u32) -> Self {
        Self {
            order: place << action::BITS | action,
            rule,
        }
    }

    /// One of [`action`].
    #[inline(always)]
    pub const fn action(&self) -> u32 {
        self.order & action::MASK
    }
}

impl Default for Claim {
    fn default() -> Self {
        Self::NONE
    }
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
    /// The set's number, without [`peer::CIDR`]; 0 for none.
    pub set: u32,
    /// [`cidr_flags`].
    pub flags: u32,
}

/// Bits of [`CidrVal::flags`].
pub mod cidr_flags {
    /// Pods have addresses within the prefix.
    pub const PODS: u32 = 1;
}

abi! {
CidrKey<Addr4> = 12,
CidrKey<Addr6> = 24,
PortSpan = 8, RulesetVal = 28, PortBound = 4, RowKey = 12, Claim = 8, RowVal = 16, CidrVal = 8 }
