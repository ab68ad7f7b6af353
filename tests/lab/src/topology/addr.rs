//! The lab's addresses.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An IP family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both families.
    pub const ALL: [Family; 2] = [Family::V4, Family::V6];
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        })
    }
}

/// One thing's address in each family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Dual {
    /// Its IPv4 address.
    pub v4: Ipv4Addr,
    /// Its IPv6 address.
    pub v6: Ipv6Addr,
}

impl Dual {
    /// The address in one family.
    pub fn ip(self, family: Family) -> IpAddr {
        match family {
            Family::V4 => self.v4.into(),
            Family::V6 => self.v6.into(),
        }
    }

    /// Both addresses, IPv4 first.
    pub fn both(self) -> [IpAddr; 2] {
        Family::ALL.map(|family| self.ip(family))
    }
}

/// The switch, the nodes' default gateway.
pub(super) const SWITCH: Dual = underlay(1, 1);

/// The client outside the cluster.
pub(super) const OUTSIDE: Dual = underlay(200, 0x200);

/// The address of node `index` (1 to 9).
pub(super) const fn node(index: u8) -> Dual {
    underlay(10 + index, 0x10 + index as u16)
}

/// A pod's address on node `index`; host 1 is the node's pod gateway.
pub(super) const fn pod(index: u8, host: u8) -> Dual {
    Dual {
        v4: Ipv4Addr::new(10, 244, index, host),
        v6: Ipv6Addr::new(0xfd44, index as u16, 0, 0, 0, 0, 0, host as u16),
    }
}

const fn underlay(host4: u8, host6: u16) -> Dual {
    Dual {
        v4: Ipv4Addr::new(172, 30, 0, host4),
        v6: Ipv6Addr::new(0xfd30, 0, 0, 0, 0, 0, 0, host6),
    }
}
