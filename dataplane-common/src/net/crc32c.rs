//! CRC32c (RFC 9260 appendix A), the checksum of SCTP, as arithmetic on polynomials over GF(2).
//!
//! A checksum is linear: when a word of a packet changes, the checksum changes by the word's
//! difference, moved as far up as there are octets behind it. So a packet's ports can be translated
//! without reading the packet.

/// The polynomial, its highest power left out; bit 31 is `x^0`, as in all words here.
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// `x^8`, `x^16`, `x^32` and so on: the factor for 1, 2, 4... octets.
const OCTETS: [u32; 16] = {
    let mut powers = [0; 16];
    let mut power = 1 << (31 - 8);
    let mut i = 0;
    while i < powers.len() {
        powers[i] = power;
        power = multiply(power, power);
        i += 1;
    }
    powers
};

/// The product of two polynomials, modulo the one of the checksum.
#[inline(always)]
const fn multiply(a: u32, b: u32) -> u32 {
    let (mut product, mut b) = (0, b);
    let mut i = 0;
    while i < 32 {
        let is_set = (a >> (31 - i)) & 1;
        product ^= b & 0u32.wrapping_sub(is_set);
        b = (b >> 1) ^ (POLYNOMIAL & 0u32.wrapping_sub(b & 1));
        i += 1;
    }
    product
}

/// How the checksum of `length` octets (up to 65,535) changes when their first word changes by `diff`
/// (the exclusive or of both). Word and checksum are little-endian, as they stand in the packet.
#[inline(always)]
pub const fn change_of_first_word(diff: u32, length: u32) -> u32 {
    let mut out = diff;
    let mut i = 0;
    while i < OCTETS.len() {
        if length & (1 << i) != 0 {
            out = multiply(OCTETS[i], out);
        }
        i += 1;
    }
    out
}

/// The checksum of four words, all little-endian.
#[inline(always)]
pub fn of_words(words: [u32; 4]) -> u32 {
    let [a, b, c, d] = words;
    let next = |sum: u32, word: u32| multiply(OCTETS[2], sum ^ word);
    !next(next(next(next(u32::MAX, a), b), c), d)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Octet by octet, as RFC 9260 appendix A has it.
    fn checksum(octets: &[u8]) -> u32 {
        !octets.iter().fold(u32::MAX, |sum, &octet| {
            (0..8).fold(sum ^ u32::from(octet), |sum, _| {
                (sum >> 1) ^ if sum & 1 == 1 { POLYNOMIAL } else { 0 }
            })
        })
    }

    #[test]
    fn the_check_value_of_the_catalogue() {
        assert_eq!(checksum(b"123456789"), 0xe306_9283);
    }

    proptest! {
        #[test]
        fn a_changed_first_word(octets in prop::collection::vec(any::<u8>(), 4..2_000), new: [u8; 4]) {
            let old = u32::from_le_bytes([octets[0], octets[1], octets[2], octets[3]]);
            let mut changed = octets.clone();
            changed[..4].copy_from_slice(&new);
            let diff = old ^ u32::from_le_bytes(new);
            let change = change_of_first_word(diff, octets.len() as u32);
            prop_assert_eq!(checksum(&octets) ^ change, checksum(&changed));
        }

        #[test]
        fn four_words(words: [u32; 4]) {
            prop_assert_eq!(of_words(words), checksum(&words.map(u32::to_le_bytes).concat()));
        }
    }
}
