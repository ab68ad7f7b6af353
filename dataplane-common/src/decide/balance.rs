//! Choosing a backend: by weight among classes, then evenly among a class's backends.

/// Step of the Weyl sequence that draws classes: 2^32 divided by the golden ratio. Successive
/// draws spread more evenly than random ones, at any stride.
pub const CLASS_STEP: u32 = 0x9e37_79b9;

/// Step of the sequence that draws backends; incommensurable with [`CLASS_STEP`], so that a
/// backend does not depend on its class's draw.
pub const BACKEND_STEP: u32 = 0x6a09_e667;

/// The place in a block of `count` that a draw falls on: `draw * count / 2^32`.
#[inline(always)]
pub const fn index(draw: u32, count: u32) -> u32 {
    ((draw as u64 * count as u64) >> 32) as u32
}

/// True if a draw falls in a class with this upper threshold, given that no earlier class took it.
#[inline(always)]
pub const fn in_class(draw: u32, threshold: u32) -> bool {
    draw < threshold || threshold == u32::MAX
}

/// Cumulative thresholds for weights: the share of class `i` is `weights[i] / sum`. `None` if the
/// weights are all zero or more than `N`.
pub fn thresholds<const N: usize>(weights: &[u32]) -> Option<[u32; N]> {
    let sum: u64 = weights.iter().map(|&weight| weight as u64).sum();
    if sum == 0 || weights.len() > N {
        return None;
    }
    let mut out = [u32::MAX; N];
    let mut before = 0u64;
    for (slot, &weight) in out.iter_mut().zip(weights) {
        before += weight as u64;
        // A share that ends at the top is all ones; `in_class` includes the last draw in it.
        *slot = ((before << 32) / sum).min(u32::MAX as u64) as u32;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pick(draw: u32, thresholds: &[u32]) -> usize {
        thresholds
            .iter()
            .position(|&threshold| in_class(draw, threshold))
            .expect("the last class takes every draw")
    }

    #[test]
    fn a_weyl_walk_keeps_ninety_to_ten() {
        let table = thresholds::<16>(&[90, 10]).expect("weights");
        for start in [0u32, 1, 0xdead_beef, u32::MAX] {
            let mut draw = start;
            let canary = (0..1000)
                .filter(|_| {
                    draw = draw.wrapping_add(CLASS_STEP);
                    pick(draw, &table) == 1
                })
                .count();
            assert!((97..=103).contains(&canary), "{canary} of 1000");
        }
    }

    #[test]
    fn a_zero_weight_gets_nothing() {
        let table = thresholds::<16>(&[0, 100]).expect("weights");
        assert_eq!(pick(0, &table), 1);
        assert_eq!(pick(u32::MAX, &table), 1);
        let table = thresholds::<16>(&[100, 0]).expect("weights");
        assert_eq!(pick(0, &table), 0);
        assert_eq!(pick(u32::MAX, &table), 0);
    }

    #[test]
    fn classes_and_backends_are_drawn_independently() {
        let table = thresholds::<16>(&[50, 50]).expect("weights");
        let (mut class, mut backend) = (0u32, 0u32);
        let mut seen = [[0u32; 3]; 2];
        for _ in 0..6000 {
            class = class.wrapping_add(CLASS_STEP);
            backend = backend.wrapping_add(BACKEND_STEP);
            seen[pick(class, &table)][index(backend, 3) as usize] += 1;
        }
        assert!(
            seen.iter()
                .flatten()
                .all(|count| (950..=1050).contains(count)),
            "{seen:?}"
        );
    }

    proptest! {
        #[test]
        fn shares_are_the_weights(weights in prop::collection::vec(0u32..=1_000_000, 1..=16)) {
            let Some(table) = thresholds::<16>(&weights) else {
                prop_assert!(weights.iter().all(|&weight| weight == 0));
                return Ok(());
            };
            let sum: f64 = weights.iter().map(|&weight| weight as f64).sum();
            let mut before = 0u64;
            for (&threshold, &weight) in table.iter().zip(&weights) {
                let top = if threshold == u32::MAX { 1u64 << 32 } else { threshold as u64 };
                let share = (top - before) as f64 / (1u64 << 32) as f64;
                prop_assert!((share - weight as f64 / sum).abs() < 1e-6);
                before = top;
            }
        }

        #[test]
        fn every_index_is_in_the_block(draw: u32, count in 1u32..=65_535) {
            prop_assert!(index(draw, count) < count);
        }
    }
}
