//! What ICMP errors say.

use dataplane_common::net::{icmp, icmpv6};

/// What an ICMP error says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Problem {
    /// Nobody has the port.
    Port,
    /// Fragmentation needed, or packet too big.
    TooBig,
    /// The hop limit was exceeded.
    Expired,
}

impl Problem {
    /// Type, code and the word behind the checksum.
    pub fn numbers(self, is_v4: bool) -> (u8, u8, u32) {
        match (self, is_v4) {
            (Problem::Port, true) => (icmp::UNREACHABLE, icmp::CODE_PORT, 0),
            (Problem::Port, false) => (icmpv6::UNREACHABLE, icmpv6::CODE_PORT, 0),
            (Problem::TooBig, true) => (icmp::UNREACHABLE, 4, 1400),
            (Problem::TooBig, false) => (icmpv6::PACKET_TOO_BIG, 0, 1400),
            (Problem::Expired, true) => (icmp::TIME_EXCEEDED, 0, 0),
            (Problem::Expired, false) => (icmpv6::TIME_EXCEEDED, 0, 0),
        }
    }
}
