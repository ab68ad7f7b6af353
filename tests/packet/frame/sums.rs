//! Checksums, computed plainly.

use std::net::IpAddr;

use dataplane_common::net::proto;

/// What a transport checksum covers, summed: the pseudo-header and all octets.
pub fn transport_sum(src: IpAddr, dst: IpAddr, number: u8, bytes: &[u8]) -> u16 {
    let mut covered = Vec::new();
    match (src, dst) {
        (IpAddr::V4(_), IpAddr::V4(_)) if number == proto::ICMP => {}
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            covered.extend(src.octets());
            covered.extend(dst.octets());
            covered.extend([0, number]);
            covered.extend((bytes.len() as u16).to_be_bytes());
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            covered.extend(src.octets());
            covered.extend(dst.octets());
            covered.extend((bytes.len() as u32).to_be_bytes());
            covered.extend([0, 0, 0, number]);
        }
        _ => panic!("addresses of two families"),
    }
    covered.extend(bytes);
    sum(&covered)
}

/// CRC32c, bit by bit (RFC 9260 appendix A).
pub fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |sum, octet| {
        (0..8).fold(sum ^ u32::from(*octet), |sum, _| {
            (sum >> 1) ^ if sum & 1 == 1 { 0x82f6_3b78 } else { 0 }
        })
    })
}

/// The one's-complement sum (RFC 1071).
pub fn sum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}
