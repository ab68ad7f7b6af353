//! Internet checksum arithmetic (RFC 1071, RFC 1624).

/// Folds a 32-bit sum to the 16 bits of a checksum field's complement.
#[inline(always)]
pub const fn fold(sum: u32) -> u16 {
    let once = (sum & 0xffff) + (sum >> 16);
    ((once & 0xffff) + (once >> 16)) as u16
}

/// A checksum field after a 16-bit word of what it covers changed (RFC 1624 equation 3). All in the
/// byte order of the packet.
#[inline(always)]
pub const fn update16(field: u16, old: u16, new: u16) -> u16 {
    !fold(!field as u32 + !old as u32 + new as u32)
}

/// As [`update16`], for an aligned 32-bit word.
#[inline(always)]
pub const fn update32(field: u16, old: u32, new: u32) -> u16 {
    update16(
        update16(field, old as u16, new as u16),
        (old >> 16) as u16,
        (new >> 16) as u16,
    )
}

/// The one's-complement sum that takes a sum over `old` to one over `new`, unfolded.
#[inline(always)]
pub const fn diff32(old: u32, new: u32) -> u32 {
    let sum = !old as u64 + new as u64;
    ((sum & 0xffff_ffff) + (sum >> 32)) as u32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn checksum(words: &[u16]) -> u16 {
        let sum = words
            .iter()
            .fold(0u32, |sum, &word| fold(sum + word as u32) as u32);
        !(sum as u16)
    }

    proptest! {
        #[test]
        fn an_update_equals_a_new_sum(words in prop::collection::vec(1u16.., 3..40), at: prop::sample::Index, new in 1u16..) {
            let at = at.index(words.len());
            let mut changed = words.clone();
            changed[at] = new;
            prop_assert_eq!(update16(checksum(&words), words[at], new), checksum(&changed));
        }

        #[test]
        fn a_wide_update_equals_two(field: u16, old: u32, new: u32) {
            let narrow = update16(update16(field, old as u16, new as u16), (old >> 16) as u16, (new >> 16) as u16);
            prop_assert_eq!(update32(field, old, new), narrow);
        }
    }
}
