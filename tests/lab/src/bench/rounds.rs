//! Slots in rotated rounds, and what they measured.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::Result;

use super::stats::Spread;
use super::traffic::Test;
use super::worker::Sample;

/// Where the connections of a slot go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum To {
    /// From a pod to one destination.
    Fixed,
    /// From a pod, each to one of many.
    Random,
    /// From outside to a node port, whose server is on another node.
    NodePort,
}

/// A slot: a variant, by its name, and what its client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Slot {
    /// The variant's name.
    pub variant: &'static str,
    /// What is timed.
    pub test: Test,
    /// Where connections go.
    pub to: To,
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

/// Runs all rounds. Each begins at another slot, and every second one goes backwards, so that no
/// slot always follows the same one.
///
/// # Errors
/// A client is stuck or has ended.
pub fn run(
    slots: &[Slot],
    rounds: usize,
    mut work: impl FnMut(Slot) -> Result<Sample>,
) -> Result<Samples> {
    let mut samples = Samples::default();
    let begun = Instant::now();
    for round in 0..rounds {
        for next in order(slots, round, rounds) {
            samples.0.entry(next).or_default().push(work(next)?);
        }
    }
    eprintln!(
        "{rounds} rounds of {} slots in {:.0} s",
        slots.len(),
        begun.elapsed().as_secs_f64()
    );
    Ok(samples)
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
            to: To::Fixed,
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
