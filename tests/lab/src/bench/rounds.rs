//! Slots in rotated rounds, and what they measured.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::names::RANDOM;
use super::stats::Spread;
use super::traffic::Test;
use super::variant::Variant;
use super::worker::Sample;

/// A slot: a variant, by its name, and what its client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Slot {
    /// The variant's name.
    pub variant: &'static str,
    /// What is timed.
    pub test: Test,
    /// Whether each connection has a destination of its own.
    pub random: bool,
}

/// Which percentile of the times in a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Percentile {
    /// Little disturbed by what else the machine does.
    P10,
    /// The middle.
    P50,
    /// The slow end.
    P99,
}

impl Percentile {
    fn of(self, sample: &Sample) -> f64 {
        match self {
            Percentile::P10 => sample.p10,
            Percentile::P50 => sample.p50,
            Percentile::P99 => sample.p99,
        }
    }
}

/// All samples: of each slot, one a round.
#[derive(Clone, Debug, Default)]
pub struct Samples(BTreeMap<Slot, Vec<Sample>>);

/// What the clients of a round do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Every test of every variant, at one destination.
    Fixed,
    /// Connections of the variants named in [`RANDOM`], at one destination and at random ones.
    /// This comes last: the thousands of tuples that it leaves behind slow down what follows.
    Random,
}

/// Runs all rounds of a phase. Each begins at another slot, and every second one goes backwards,
/// so that no slot always follows the same one.
///
/// # Errors
/// A client is stuck or has ended.
pub fn run(
    variants: &mut [Variant],
    phase: Phase,
    rounds: usize,
    slot: Duration,
) -> Result<Samples> {
    let slots = slots(variants, phase);
    // Random destinations cost so much or so little that half the rounds will do.
    let rounds = match phase {
        Phase::Fixed => rounds,
        Phase::Random => rounds.div_ceil(2),
    };
    let mut samples = Samples::default();
    let begun = Instant::now();
    for round in 0..rounds {
        for next in order(&slots, round, rounds) {
            let variant = variants
                .iter_mut()
                .find(|variant| variant.name() == next.variant);
            let variant = variant.context("a slot without its variant")?;
            let sample = variant.run(next.test, next.random, slot)?;
            samples.0.entry(next).or_default().push(sample);
        }
    }
    eprintln!(
        "{phase:?}: {rounds} rounds of {} slots in {:.0} s",
        slots.len(),
        begun.elapsed().as_secs_f64()
    );
    Ok(samples)
}

fn slots(variants: &[Variant], phase: Phase) -> Vec<Slot> {
    let fixed = |variant: &'static str, test| Slot {
        variant,
        test,
        random: false,
    };
    let names = variants.iter().map(Variant::name);
    match phase {
        Phase::Fixed => names
            .flat_map(|name| [fixed(name, Test::Rr), fixed(name, Test::Crr)])
            .collect(),
        Phase::Random => names
            .filter(|name| RANDOM.contains(name))
            .map(|name| fixed(name, Test::Crr))
            .flat_map(|slot| {
                [
                    slot,
                    Slot {
                        random: true,
                        ..slot
                    },
                ]
            })
            .collect(),
    }
}

fn order(slots: &[Slot], round: usize, rounds: usize) -> Vec<Slot> {
    let mut order = slots.to_vec();
    order.rotate_left(round * slots.len() / rounds.max(1));
    if round % 2 == 1 {
        order.reverse();
    }
    order
}

impl Samples {
    /// The slots that were measured.
    pub fn slots(&self) -> impl Iterator<Item = Slot> {
        self.0.keys().copied()
    }

    /// A percentile of a slot, in nanoseconds: the median of the rounds, with quartiles.
    pub fn time(&self, slot: Slot, percentile: Percentile) -> Option<Spread> {
        Spread::of(
            self.0
                .get(&slot)?
                .iter()
                .map(|sample| percentile.of(sample)),
        )
    }

    /// How much longer `over` took than `under`: the median of each round's ratio, with quartiles.
    pub fn ratio(&self, over: Slot, under: Slot, percentile: Percentile) -> Option<Spread> {
        let times = |slot: &Slot| -> Option<Vec<f64>> {
            Some(
                self.0
                    .get(slot)?
                    .iter()
                    .map(|sample| percentile.of(sample))
                    .collect(),
            )
        };
        Spread::of_ratios(&times(&over)?, &times(&under)?)
    }

    /// Timed transactions of all slots.
    pub fn transactions(&self) -> u64 {
        self.all().map(|sample| sample.transactions).sum()
    }

    /// Transactions that failed.
    pub fn failed(&self) -> u64 {
        self.all().map(|sample| sample.failed).sum()
    }

    /// TCP segments that were sent again.
    pub fn retransmitted(&self) -> u64 {
        self.all().map(|sample| sample.retransmitted).sum()
    }

    /// The first failures, with where they happened.
    pub fn errors(&self) -> Vec<String> {
        let with_error = |(slot, samples): (&Slot, &Vec<Sample>)| {
            let error = samples.iter().find_map(|sample| sample.error.clone())?;
            Some(format!("{} {}: {error}", slot.variant, slot.test.name()))
        };
        self.0.iter().filter_map(with_error).collect()
    }

    fn all(&self) -> impl Iterator<Item = &Sample> {
        self.0.values().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(variant: &'static str) -> Slot {
        Slot {
            variant,
            test: Test::Rr,
            random: false,
        }
    }

    #[test]
    fn every_round_has_every_slot_and_another_beginning() {
        let slots: Vec<Slot> = ["a", "b", "c", "d", "e", "f"].map(slot).to_vec();
        let rounds: Vec<Vec<Slot>> = (0..12).map(|round| order(&slots, round, 12)).collect();
        for round in &rounds {
            let mut sorted = round.clone();
            sorted.sort();
            assert_eq!(sorted, slots);
        }
        for slot in &slots {
            assert!(
                rounds.iter().any(|round| round[0] == *slot),
                "{slot:?} never begins"
            );
        }
    }

    #[test]
    fn ratios_and_sums_come_from_the_samples() {
        let sample = |p10: f64, failed| Sample {
            transactions: 10,
            p10,
            p50: p10 * 2.0,
            failed,
            error: (failed > 0).then(|| "refused".to_owned()),
            ..Sample::default()
        };
        let samples = Samples(BTreeMap::from([
            (slot("a"), vec![sample(12.0, 0), sample(24.0, 1)]),
            (slot("b"), vec![sample(10.0, 0), sample(20.0, 0)]),
        ]));
        let ratio = samples
            .ratio(slot("a"), slot("b"), Percentile::P50)
            .unwrap();
        assert_eq!(ratio.median, 1.2);
        assert_eq!(
            samples.time(slot("b"), Percentile::P10).unwrap().median,
            15.0
        );
        assert_eq!((samples.transactions(), samples.failed()), (40, 1));
        assert_eq!(samples.errors(), ["a TCP_RR: refused"]);
        assert_eq!(samples.ratio(slot("a"), slot("c"), Percentile::P10), None);
    }
}
