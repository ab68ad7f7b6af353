//! Ethernet frames with an IPv4 header and a TCP header, right to the checksums.

use std::net::Ipv4Addr;

/// Length of the frames: Ethernet, IPv4, TCP, no payload.
pub const LEN: usize = 54;
/// TCP flags.
pub const SYN: u8 = 0x02;
/// TCP flags.
pub const SYN_ACK: u8 = 0x12;
/// TCP flags.
pub const ACK: u8 = 0x10;

/// An end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// The address.
    pub ip: Ipv4Addr,
    /// The port.
    pub port: u16,
}

impl End {
    /// The same address with another port.
    pub fn with_port(self, port: u16) -> End {
        End { port, ..self }
    }
}

/// A TCP segment without payload.
pub fn tcp(from: End, to: End, flags: u8) -> [u8; LEN] {
    let mut frame = [0; LEN];
    frame[..12].copy_from_slice(&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2]);
    frame[12..14].copy_from_slice(&0x0800u16.to_be_bytes());
    let ip = &mut frame[14..34];
    ip[0] = 0x45;
    ip[2..4].copy_from_slice(&40u16.to_be_bytes());
    ip[6] = 0x40;
    ip[8..10].copy_from_slice(&[64, 6]);
    ip[12..16].copy_from_slice(&from.ip.octets());
    ip[16..20].copy_from_slice(&to.ip.octets());
    let sum = checksum(ip, 0);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    let pseudo = [&frame[26..34], &[0, 6, 0, 20]].concat();
    let tcp = &mut frame[34..];
    tcp[0..2].copy_from_slice(&from.port.to_be_bytes());
    tcp[2..4].copy_from_slice(&to.port.to_be_bytes());
    tcp[7] = 1;
    tcp[12..14].copy_from_slice(&[0x50, flags]);
    tcp[14..16].copy_from_slice(&0xffffu16.to_be_bytes());
    let sum = checksum(tcp, u32::from(!checksum(&pseudo, 0)));
    tcp[16..18].copy_from_slice(&sum.to_be_bytes());
    frame
}

/// The internet checksum (RFC 1071) of an even number of bytes.
fn checksum(bytes: &[u8], start: u32) -> u16 {
    let words = bytes.chunks_exact(2);
    let mut sum = words.fold(start, |sum, word| {
        sum + u32::from(u16::from_be_bytes([word[0], word[1]]))
    });
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_right() {
        let from = End {
            ip: Ipv4Addr::new(10, 0, 0, 1),
            port: 40_000,
        };
        let to = End {
            ip: Ipv4Addr::new(10, 0, 0, 2),
            port: 80,
        };
        let frame = tcp(from, to, SYN);
        // A checksum over what includes its own is 0.
        assert_eq!(checksum(&frame[14..34], 0), 0);
        let pseudo = [&frame[26..34], &[0, 6, 0, 20]].concat();
        assert_eq!(checksum(&[&pseudo, &frame[34..]].concat(), 0), 0);
    }
}
