//! Times in a histogram, and what repeated ratios say.

/// Values below this are counted exactly, larger ones in steps of at most 1/1024 of themselves.
const EXACT: u64 = 2048;
/// Steps in each doubling above [`EXACT`].
const STEPS: usize = 1024;
/// Doublings above [`EXACT`]: up to 2^43 ns, more than two hours.
const DOUBLINGS: usize = 32;

/// A histogram of nanoseconds.
#[derive(Clone, Debug)]
pub struct Histogram {
    counts: Vec<u32>,
    total: u64,
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram {
            counts: vec![0; EXACT as usize + DOUBLINGS * STEPS],
            total: 0,
        }
    }
}

impl Histogram {
    /// Counts a value.
    pub fn record(&mut self, nanos: u64) {
        let place = place(nanos).min(self.counts.len() - 1);
        self.counts[place] += 1;
        self.total += 1;
    }

    /// How many values were counted.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The value below which this share (0 to 1) of the counted values lies, interpolated inside
    /// its step; 0 when nothing was counted.
    pub fn percentile(&self, share: f64) -> f64 {
        let rank = share * self.total as f64;
        let mut below = 0.0;
        for (place, count) in self
            .counts
            .iter()
            .enumerate()
            .filter(|(_, count)| **count > 0)
        {
            let count = f64::from(*count);
            if below + count >= rank {
                let (start, width) = step(place);
                return start + width * ((rank - below) / count).clamp(0.0, 1.0);
            }
            below += count;
        }
        0.0
    }
}

/// The place of a value in the histogram.
fn place(nanos: u64) -> usize {
    if nanos < EXACT {
        return nanos as usize;
    }
    // The value's eleven leading bits tell its step in its doubling.
    let doubling = (nanos.ilog2() - EXACT.ilog2()) as usize;
    let leading = (nanos >> (doubling + 1)) as usize;
    EXACT as usize + doubling * STEPS + (leading - STEPS)
}

/// First value and width of a place.
fn step(place: usize) -> (f64, f64) {
    let Some(above) = place.checked_sub(EXACT as usize) else {
        return (place as f64, 1.0);
    };
    let (doubling, leading) = (above / STEPS, above % STEPS + STEPS);
    let width = (1u64 << (doubling + 1)) as f64;
    (leading as f64 * width, width)
}

/// A median with its quartiles.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The first quartile.
    pub q1: f64,
    /// The median.
    pub median: f64,
    /// The third quartile.
    pub q3: f64,
    /// How many values.
    pub count: usize,
}

impl Spread {
    /// Of values in any order; `None` of none.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Spread> {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        if sorted.is_empty() {
            return None;
        }
        Some(Spread {
            q1: quantile(&sorted, 0.25),
            median: quantile(&sorted, 0.5),
            q3: quantile(&sorted, 0.75),
            count: sorted.len(),
        })
    }

    /// How far the median may be from that of endlessly many values: half the notch of a box plot,
    /// a confidence of 95 % (McGill, Tukey and Larsen 1978).
    pub fn error(&self) -> f64 {
        1.57 * (self.q3 - self.q1) / (self.count as f64).sqrt()
    }

    /// Of the quotients of values that belong together, as those of one round do.
    pub fn of_ratios(over: &[f64], under: &[f64]) -> Option<Spread> {
        Spread::of(over.iter().zip(under).map(|(over, under)| over / under))
    }
}

/// A quantile of sorted values, interpolated between its neighbours.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let at = share * (sorted.len() - 1) as f64;
    let (low, high) = (at.floor() as usize, at.ceil() as usize);
    sorted[low] + (sorted[high] - sorted[low]) * at.fract()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_in_order_and_hold_their_values() {
        let mut last = 0;
        for nanos in (0..5_000).chain((12..43).flat_map(|bits| {
            let start = 1u64 << bits;
            [start - 1, start, start + 1, start + start / 3]
        })) {
            let place = place(nanos);
            let (start, width) = step(place);
            assert!(
                start <= nanos as f64 && (nanos as f64) < start + width,
                "{nanos}"
            );
            assert!(width <= 1.0 || width <= start / 1024.0, "{nanos}: {width}");
            assert!(nanos < 5_000 || place >= last, "{nanos}");
            last = place;
        }
    }

    #[test]
    fn percentiles_of_known_values() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.percentile(0.5), 0.0);
        // 10,001 to 20,000 ns, once each.
        (10_001..=20_000).for_each(|nanos| histogram.record(nanos));
        assert_eq!(histogram.total(), 10_000);
        for (share, expected) in [(0.1, 11_000.0), (0.5, 15_000.0), (0.99, 19_900.0)] {
            let found = histogram.percentile(share);
            assert!((found / expected - 1.0).abs() < 0.001, "{share}: {found}");
        }
    }

    #[test]
    fn a_value_past_the_end_is_counted_in_the_last_place() {
        let mut histogram = Histogram::default();
        histogram.record(u64::MAX);
        assert_eq!(histogram.total(), 1);
        assert!(histogram.percentile(0.5) > 1e12);
    }

    #[test]
    fn quartiles_are_interpolated() {
        let spread = Spread::of([4.0, 1.0, 3.0, 2.0]).unwrap();
        assert_eq!(
            spread,
            Spread {
                q1: 1.75,
                median: 2.5,
                q3: 3.25,
                count: 4
            }
        );
        let one = Spread::of([7.0]).unwrap();
        assert_eq!(
            one,
            Spread {
                q1: 7.0,
                median: 7.0,
                q3: 7.0,
                count: 1
            }
        );
        assert_eq!(Spread::of([]), None);
        assert!((spread.error() - 1.57 * 1.5 / 2.0).abs() < 1e-9);
        assert_eq!(one.error(), 0.0);
    }

    #[test]
    fn ratios_are_taken_round_by_round() {
        // A disturbed round disturbs both, so its ratio is as good as the others'.
        let spread = Spread::of_ratios(&[10.0, 100.0, 10.0], &[8.0, 80.0, 8.0]).unwrap();
        assert_eq!(
            spread,
            Spread {
                q1: 1.25,
                median: 1.25,
                q3: 1.25,
                count: 3
            }
        );
    }
}
