//! Addresses and ports, in network byte order at rest.

use super::abi;

/// A TCP, UDP or SCTP port in network byte order, as it stands in a packet.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Port(pub u16);

impl Port {
    /// From a port number.
    #[inline(always)]
    pub const fn new(number: u16) -> Self {
        Self(number.to_be())
    }

    /// The port number.
    #[inline(always)]
    pub const fn number(self) -> u16 {
        u16::from_be(self.0)
    }
}

/// An IPv4 address: its four octets in network order.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Addr4(pub u32);

/// An IPv6 address: its sixteen octets in network order, as two words.
///
/// Two words instead of an array: arrays compile to byte loops for BPF.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Addr6 {
    /// The first eight octets.
    pub high: u64,
    /// The last eight octets.
    pub low: u64,
}

/// What the packet path needs of an address of either family.
pub trait Address: super::Abi + PartialEq + Eq + PartialOrd + Ord {
    /// The unspecified address (`0.0.0.0` or `::`).
    const UNSPECIFIED: Self;
    /// Length of the address in bits.
    const BITS: u32;

    /// The address as sixteen octets, IPv4 in its IPv4-mapped form (RFC 4291 section 2.5.5.2).
    fn to_mapped(self) -> Addr6;
}

impl Address for Addr4 {
    const UNSPECIFIED: Self = Self(0);
    const BITS: u32 = 32;

    #[inline(always)]
    fn to_mapped(self) -> Addr6 {
        // Octets 10 and 11 are 0xff, octets 12 to 15 the IPv4 address.
        let marker = u64::from_ne_bytes([0, 0, 0xff, 0xff, 0, 0, 0, 0]);
        let low = if cfg!(target_endian = "little") {
            marker | (self.0 as u64) << 32
        } else {
            marker | self.0 as u64
        };
        Addr6 { high: 0, low }
    }
}

impl Address for Addr6 {
    const UNSPECIFIED: Self = Self { high: 0, low: 0 };
    const BITS: u32 = 128;

    #[inline(always)]
    fn to_mapped(self) -> Addr6 {
        self
    }
}

impl Addr6 {
    /// The IPv4 address inside an IPv4-mapped one (`::ffff:a.b.c.d`), if it is one.
    #[inline(always)]
    pub fn mapped4(self) -> Option<Addr4> {
        let tagged = Addr4(0).to_mapped().low;
        let address = if cfg!(target_endian = "little") {
            (self.low >> 32) as u32
        } else {
            self.low as u32
        };
        (self.high == 0 && self.low == (Addr4(address).to_mapped().low | tagged))
            .then_some(Addr4(address))
    }

    /// True for `fe80::/10` (RFC 4291 section 2.5.6).
    #[inline(always)]
    pub fn is_link_local(self) -> bool {
        let first = (u64::from_be(self.high) >> 48) as u16;
        first & 0xffc0 == 0xfe80
    }

    /// True for `ff00::/8` (RFC 4291 section 2.7).
    #[inline(always)]
    pub fn is_multicast(self) -> bool {
        u64::from_be(self.high) >> 56 == 0xff
    }
}

impl Addr4 {
    /// True for `224.0.0.0/4` (RFC 1112) and the limited broadcast address.
    #[inline(always)]
    pub fn is_multicast(self) -> bool {
        let first = u32::from_be(self.0) >> 24;
        first & 0xf0 == 0xe0 || self.0 == u32::MAX
    }

    /// True for `127.0.0.0/8` (RFC 1122 section 3.2.1.3).
    #[inline(always)]
    pub fn is_loopback(self) -> bool {
        u32::from_be(self.0) >> 24 == 127
    }
}

abi! { Port = 2, Addr4 = 4, Addr6 = 16 }

impl From<core::net::Ipv4Addr> for Addr4 {
    fn from(address: core::net::Ipv4Addr) -> Self {
        Self(u32::from_ne_bytes(address.octets()))
    }
}

impl From<Addr4> for core::net::Ipv4Addr {
    fn from(address: Addr4) -> Self {
        address.0.to_ne_bytes().into()
    }
}

impl From<core::net::Ipv6Addr> for Addr6 {
    fn from(address: core::net::Ipv6Addr) -> Self {
        let [high, low] = halves(address.octets());
        Self { high, low }
    }
}

impl From<Addr6> for core::net::Ipv6Addr {
    fn from(address: Addr6) -> Self {
        let mut octets = [0; 16];
        octets[..8].copy_from_slice(&address.high.to_ne_bytes());
        octets[8..].copy_from_slice(&address.low.to_ne_bytes());
        octets.into()
    }
}

fn halves(octets: [u8; 16]) -> [u64; 2] {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = octets;
    [
        u64::from_ne_bytes([a, b, c, d, e, f, g, h]),
        u64::from_ne_bytes([i, j, k, l, m, n, o, p]),
    ]
}

#[cfg(test)]
mod tests {
    use core::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    #[test]
    fn addresses_round_trip() {
        let v4 = Ipv4Addr::new(10, 1, 2, 3);
        let v6: Ipv6Addr = "fd00:1::2".parse().expect("literal");
        assert_eq!(Ipv4Addr::from(Addr4::from(v4)), v4);
        assert_eq!(Ipv6Addr::from(Addr6::from(v6)), v6);
    }

    #[test]
    fn mapped_form_is_rfc_4291() {
        let v4 = Ipv4Addr::new(192, 0, 2, 1);
        let mapped = Addr4::from(v4).to_mapped();
        assert_eq!(Ipv6Addr::from(mapped), v4.to_ipv6_mapped());
        assert_eq!(mapped.mapped4(), Some(Addr4::from(v4)));
        let plain: Ipv6Addr = "fd00::1".parse().expect("literal");
        assert_eq!(Addr6::from(plain).mapped4(), None);
    }

    #[test]
    fn scopes_are_recognised() {
        let parse = |text: &str| Addr6::from(text.parse::<Ipv6Addr>().expect("literal"));
        assert!(parse("fe80::1").is_link_local());
        assert!(parse("febf::1").is_link_local());
        assert!(!parse("fec0::1").is_link_local());
        assert!(parse("ff02::1").is_multicast());
        assert!(Addr4::from(Ipv4Addr::new(224, 0, 0, 251)).is_multicast());
        assert!(!Addr4::from(Ipv4Addr::new(223, 255, 255, 255)).is_multicast());
        assert!(Addr4::from(Ipv4Addr::new(127, 0, 0, 1)).is_loopback());
        assert!(!Addr4::from(Ipv4Addr::new(128, 0, 0, 127)).is_loopback());
    }

    #[test]
    fn ports_are_big_endian_at_rest() {
        assert_eq!(Port::new(80).0.to_ne_bytes(), [0, 80]);
        assert_eq!(Port::new(30080).number(), 30080);
    }
}
