//! Protocol numbers and header layouts.

pub mod checksum;
pub mod crc32c;

/// EtherTypes, in network byte order as loaded from a frame.
pub mod ethertype {
    /// IPv4.
    pub const IPV4: u16 = 0x0800u16.to_be();
    /// IPv6.
    pub const IPV6: u16 = 0x86ddu16.to_be();
    /// ARP.
    pub const ARP: u16 = 0x0806u16.to_be();
}

/// IP protocol numbers (IANA).
pub mod proto {
    /// IPv6 hop-by-hop options (RFC 8200 section 4.3).
    pub const HOP_BY_HOP: u8 = 0;
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// IPv6 routing header.
    pub const ROUTING: u8 = 43;
    /// IPv6 fragment header.
    pub const FRAGMENT: u8 = 44;
    /// Authentication header (RFC 4302).
    pub const AUTHENTICATION: u8 = 51;
    /// ICMPv6.
    pub const ICMPV6: u8 = 58;
    /// IPv6: nothing follows.
    pub const NO_NEXT: u8 = 59;
    /// IPv6 destination options.
    pub const DESTINATION_OPTIONS: u8 = 60;
    /// SCTP.
    pub const SCTP: u8 = 132;

    /// The name of a transport protocol, as Kubernetes spells it, or `None`.
    pub const fn name(proto: u8) -> Option<&'static str> {
        match proto {
            TCP => Some("TCP"),
            UDP => Some("UDP"),
            SCTP => Some("SCTP"),
            ICMP => Some("ICMP"),
            ICMPV6 => Some("ICMPv6"),
            _ => None,
        }
    }
}

/// Ports of protocols that the dataplane knows (IANA), in host order.
pub mod port {
    /// DNS (RFC 1035 section 4.2).
    pub const DNS: u16 = 53;
}

/// TCP flags (RFC 9293 section 3.1).
pub mod tcp_flags {
    /// No more data.
    pub const FIN: u8 = 1;
    /// Synchronise sequence numbers.
    pub const SYN: u8 = 1 << 1;
    /// Reset.
    pub const RST: u8 = 1 << 2;
    /// Acknowledgement is valid.
    pub const ACK: u8 = 1 << 4;
}

/// Types of SCTP chunks (RFC 9260 section 3.2). A packet is known by its first.
pub mod sctp {
    /// Begins an association.
    pub const INIT: u8 = 1;
    /// Ends it at once.
    pub const ABORT: u8 = 6;
    /// Begins to end it.
    pub const SHUTDOWN: u8 = 7;
    /// Answers `SHUTDOWN`.
    pub const SHUTDOWN_ACK: u8 = 8;
    /// The association's last.
    pub const SHUTDOWN_COMPLETE: u8 = 14;
    /// Flag of the last and of `ABORT`: the tag is the sender's own, not the receiver's.
    pub const REFLECTED_TAG: u8 = 1;
}

/// Offsets within an Ethernet header.
pub mod eth {
    /// Length of the header.
    pub const LEN: usize = 14;
    /// Destination.
    pub const DST: usize = 0;
    /// Source.
    pub const SRC: usize = 6;
    /// EtherType.
    pub const TYPE: usize = 12;
}

/// Offsets within an IPv4 header (RFC 791).
pub mod ipv4 {
    /// Length without options.
    pub const LEN: usize = 20;
    /// Version and header length in words.
    pub const VERSION_IHL: usize = 0;
    /// Total length.
    pub const TOTAL_LENGTH: usize = 2;
    /// Identification.
    pub const ID: usize = 4;
    /// Flags and fragment offset.
    pub const FRAGMENT: usize = 6;
    /// Protocol.
    pub const PROTO: usize = 9;
    /// Header checksum.
    pub const CHECKSUM: usize = 10;
    /// Source address.
    pub const SRC: usize = 12;
    /// Destination address.
    pub const DST: usize = 16;
    /// Do not fragment, in host order of the fragment field.
    pub const DONT_FRAGMENT: u16 = 0x4000;
    /// More fragments, in host order of the fragment field.
    pub const MORE_FRAGMENTS: u16 = 0x2000;
    /// Fragment offset, in host order of the fragment field.
    pub const OFFSET_MASK: u16 = 0x1fff;
}

/// Offsets within an IPv6 header (RFC 8200).
pub mod ipv6 {
    /// Length.
    pub const LEN: usize = 40;
    /// Payload length.
    pub const PAYLOAD_LENGTH: usize = 4;
    /// Next header.
    pub const NEXT: usize = 6;
    /// Hop limit.
    pub const HOP_LIMIT: usize = 7;
    /// Source address.
    pub const SRC: usize = 8;
    /// Destination address.
    pub const DST: usize = 24;
}

/// ICMP types (RFC 792).
pub mod icmp {
    /// Echo reply.
    pub const ECHO_REPLY: u8 = 0;
    /// Destination unreachable.
    pub const UNREACHABLE: u8 = 3;
    /// Time exceeded.
    pub const TIME_EXCEEDED: u8 = 11;
    /// Parameter problem.
    pub const PARAMETER_PROBLEM: u8 = 12;
    /// Echo request.
    pub const ECHO_REQUEST: u8 = 8;
    /// Code of an unreachable port.
    pub const CODE_PORT: u8 = 3;
    /// Code of a packet that does not fit, and that must not be cut (RFC 1191).
    pub const CODE_FRAGMENTATION: u8 = 4;
}

/// ICMPv6 types (RFC 4443, RFC 4861).
pub mod icmpv6 {
    /// Destination unreachable.
    pub const UNREACHABLE: u8 = 1;
    /// Packet too big.
    pub const PACKET_TOO_BIG: u8 = 2;
    /// Time exceeded.
    pub const TIME_EXCEEDED: u8 = 3;
    /// Parameter problem.
    pub const PARAMETER_PROBLEM: u8 = 4;
    /// Echo request.
    pub const ECHO_REQUEST: u8 = 128;
    /// Echo reply.
    pub const ECHO_REPLY: u8 = 129;
    /// Multicast listener query, the first of 130 to 132.
    pub const LISTENER_QUERY: u8 = 130;
    /// Router solicitation.
    pub const ROUTER_SOLICITATION: u8 = 133;
    /// Router advertisement.
    pub const ROUTER_ADVERTISEMENT: u8 = 134;
    /// Neighbour solicitation.
    pub const NEIGHBOUR_SOLICITATION: u8 = 135;
    /// Neighbour advertisement.
    pub const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
    /// Redirect.
    pub const REDIRECT: u8 = 137;
    /// Multicast listener report, version 2 (RFC 3810).
    pub const LISTENER_REPORT_2: u8 = 143;
    /// Code of an unreachable port.
    pub const CODE_PORT: u8 = 4;
}
