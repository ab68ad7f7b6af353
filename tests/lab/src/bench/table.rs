//! The table of all slots: their times, and their ratios to the same of nftables.

use serde_json::{Value, json};

use super::names::NFT;
use super::rounds::{Percentile, Samples, Slot, To};

/// Names of the phases: one destination alone, and beside random ones.
const PHASES: [&str; 2] = [FIXED, "compared"];
const FIXED: &str = "fixed";

/// The slots as JSON.
pub fn to_json(phases: &[Samples; 2]) -> Value {
    let of_phase = |(phase, samples): (&'static str, &Samples)| -> Vec<Value> {
        let slots = samples.slots();
        slots.map(|slot| slot_json(phase, samples, slot)).collect()
    };
    PHASES.into_iter().zip(phases).flat_map(of_phase).collect()
}

/// The slots as a Markdown table. The fixed destinations
/// stand in it once more, as they were beside the random ones.
pub fn to_markdown(phases: &[Samples; 2]) -> String {
    let mut table =
        "| path | test | p10 µs | p50 µs | p99 µs | nft p10 ÷ its (quartiles) | p50 |\n\
                     |---|---|---|---|---|---|---|\n"
            .to_owned();
    for (phase, samples) in PHASES.into_iter().zip(phases) {
        for slot in samples.slots() {
            table += &slot_line(phase, samples, slot);
        }
    }
    table
}

fn slot_line(phase: &str, samples: &Samples, slot: Slot) -> String {
    let time = |percentile| {
        let time = samples.time(slot, percentile);
        time.map_or(0.0, |time| time.median / 1e3)
    };
    let ratio = |percentile| samples.ratio(baseline(slot), slot, percentile);
    let p10 = ratio(Percentile::P10).map_or_else(String::new, |ratio| {
        format!("{:.3} ({:.3}–{:.3})", ratio.median, ratio.q1, ratio.q3)
    });
    let p50 =
        ratio(Percentile::P50).map_or_else(String::new, |ratio| format!("{:.3}", ratio.median));
    format!(
        "| {} | {}, {phase}{} | {:.2} | {:.2} | {:.2} | {p10} | {p50} |\n",
        slot.variant,
        slot.test.name(),
        match (phase, slot.to) {
            (FIXED, _) => "",
            (_, To::Random) => ": random",
            (_, To::Fixed | To::NodePort) => ": fixed",
        },
        time(Percentile::P10),
        time(Percentile::P50),
        time(Percentile::P99),
    )
}

fn slot_json(phase: &str, samples: &Samples, slot: Slot) -> Value {
    let micros = |percentile| samples.time(slot, percentile).map(|time| time.median / 1e3);
    let ratio = |percentile| {
        let ratio = samples.ratio(baseline(slot), slot, percentile)?;
        Some(
            json!({ "q1": ratio.q1, "median": ratio.median, "q3": ratio.q3, "rounds": ratio.count }),
        )
    };
    json!({
        "phase": phase,
        "variant": slot.variant,
        "test": slot.test.name(),
        "random": slot.to == To::Random,
        "p10_us": micros(Percentile::P10),
        "p50_us": micros(Percentile::P50),
        "p99_us": micros(Percentile::P99),
        "nft_p10_ratio": ratio(Percentile::P10),
        "nft_p50_ratio": ratio(Percentile::P50),
    })
}

/// What a slot is compared with: the same of nftables.
fn baseline(slot: Slot) -> Slot {
    Slot {
        variant: NFT,
        ..slot
    }
}
