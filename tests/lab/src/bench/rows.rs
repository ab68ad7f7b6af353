//! From samples to rows, and to the table of all variants.

use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};

use super::names::{AGAIN, KERNEL, MANY_POLICIES, MANY_SERVICES, NFT, ONE, REDIRECT, SLUICE};
use super::rounds::{Percentile, Samples, Slot};
use super::traffic::Test;
use super::variant::Scale;
use crate::bpf_check;
use crate::report::{Figure, Report, Row};

/// How far equal variants may be apart before nothing can be said.
const CONTROL: f64 = 0.02;
/// Retransmissions that a busy machine may cause, of a million transactions.
const RETRANSMISSIONS: f64 = 10.0;

/// Names of the phases: one destination alone, and beside random ones.
const PHASES: [&str; 2] = [FIXED, "compared"];
const FIXED: &str = "fixed";

/// What a run measured.
#[derive(Debug)]
pub struct Measured {
    /// One destination, and a random one for each connection.
    pub phases: [Samples; 2],
    /// How many services and policies there are where there are many.
    pub scale: Scale,
    /// Entries that netfilter's conntrack threw away on the nftables node: there should be room.
    pub thrown_away: Option<u64>,
}

/// The rows of a run: those whose variants were measured.
pub fn rows(measured: &Measured, report: &mut Report) {
    let [samples, at_random] = &measured.phases;
    for test in [Test::Rr, Test::Crr] {
        control(samples, test, report);
        against_nft(samples, test, report);
        flatness(samples, test, measured.scale, report);
    }
    random(at_random, report);
    health(measured, report);
}

/// A row for each kernel program, with what it costs to load and keep.
///
/// # Errors
/// The object cannot be read, or the kernel refuses a program.
pub fn programs(object: &Path, report: &mut Report) -> Result<Vec<Value>> {
    let programs = bpf_check::programs(object)?;
    for program in &programs {
        let stack = program["stack_bytes"].as_u64().unwrap_or(0);
        report.push(Row {
            name: format!("program {}", text(&program["program"])),
            expected: "loads, stack ≤ 512 B".to_owned(),
            measured: Figure::Text(format!(
                "{} instructions, {} verified, {} B of machine code, stack {stack} B, {} ms",
                program["translated"],
                program["verified"],
                program["machine_code_bytes"],
                program["load_ms"],
            )),
            unit: String::new(),
            ok: stack <= 512,
        });
    }
    Ok(programs)
}

/// Every slot's times and its ratios to nftables, as JSON.
pub fn slots_json(phases: &[Samples; 2]) -> Value {
    let of_phase = |(phase, samples): (&'static str, &Samples)| -> Vec<Value> {
        let slots = samples.slots();
        slots.map(|slot| slot_json(phase, samples, slot)).collect()
    };
    PHASES.into_iter().zip(phases).flat_map(of_phase).collect()
}

/// Every slot's times and its ratios to nftables, as a Markdown table. The fixed destinations
/// stand in it once more, as they were beside the random ones.
pub fn slots_table(phases: &[Samples; 2]) -> String {
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
        match (phase, slot.random) {
            (FIXED, _) => "",
            (_, true) => ": random",
            (_, false) => ": fixed",
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
        Some(json!({ "q1": ratio.q1, "median": ratio.median, "q3": ratio.q3 }))
    };
    json!({
        "phase": phase,
        "variant": slot.variant,
        "test": slot.test.name(),
        "random": slot.random,
        "p10_us": micros(Percentile::P10),
        "p50_us": micros(Percentile::P50),
        "p99_us": micros(Percentile::P99),
        "nft_p10_ratio": ratio(Percentile::P10),
        "nft_p50_ratio": ratio(Percentile::P50),
    })
}

fn control(samples: &Samples, test: Test, report: &mut Report) {
    let Some(ratio) = ratio(samples, fixed(AGAIN, test), fixed(SLUICE, test)) else {
        return;
    };
    report.push(Row {
        name: format!("{}: two equal nodes (A/A control)", test.name()),
        expected: format!("{} to {}, else all is void", 1.0 - CONTROL, 1.0 + CONTROL),
        measured: rounded(ratio).into(),
        unit: "x".to_owned(),
        ok: (ratio - 1.0).abs() <= CONTROL,
    });
}

fn against_nft(samples: &Samples, test: Test, report: &mut Report) {
    let gain = |name| ratio(samples, fixed(NFT, test), fixed(name, test));
    let least = match test {
        Test::Rr => 1.23,
        Test::Crr => 1.25,
    };
    if let Some(gain) = gain(SLUICE) {
        let expected = format!("≥ {least}");
        let name = format!("{}: nft's time ÷ {SLUICE}'s", test.name());
        report.push(row(name, expected, rounded(gain), "x", gain >= least));
    }
    for name in [KERNEL, REDIRECT] {
        if let Some(gain) = gain(name) {
            let name = format!("{}: nft's time ÷ {name}'s", test.name());
            report.push(row(name, "to compare".to_owned(), rounded(gain), "x", true));
        }
    }
    if let (Some(sluice), Some(floor)) = (gain(SLUICE), gain(REDIRECT)) {
        let share = (sluice - 1.0) / (floor - 1.0) * 100.0;
        let name = format!(
            "{}: share of the gain that redirecting makes possible",
            test.name()
        );
        report.push(row(name, "to compare".to_owned(), share.round(), "%", true));
    }
}

fn flatness(samples: &Samples, test: Test, scale: Scale, report: &mut Report) {
    let Scale { services, policies } = scale;
    let pairs = [
        (
            format!("1 to {services} services, no policies"),
            MANY_SERVICES,
            ONE,
        ),
        (
            format!("0 to {policies} policies, 1 service"),
            MANY_POLICIES,
            ONE,
        ),
        (
            format!("0 to {policies} policies, {services} services"),
            SLUICE,
            MANY_SERVICES,
        ),
        (
            format!("1 to {services} services and 0 to {policies} policies"),
            SLUICE,
            ONE,
        ),
    ];
    for (what, many, few) in pairs {
        if let Some(ratio) = ratio(samples, fixed(many, test), fixed(few, test)) {
            let name = format!("{}: {what}", test.name());
            report.push(row(
                name,
                "≤ 1.01".to_owned(),
                rounded(ratio),
                "x",
                ratio <= 1.01,
            ));
        }
    }
}

fn random(samples: &Samples, report: &mut Report) {
    let cost = |name| {
        let fixed = fixed(name, Test::Crr);
        ratio(
            samples,
            Slot {
                random: true,
                ..fixed
            },
            fixed,
        )
    };
    if let Some(client) = cost(KERNEL) {
        let name = "TCP_CRR: random destination on the bare kernel (the client's own share)";
        report.push(row(
            name.to_owned(),
            "to compare".to_owned(),
            rounded(client),
            "x",
            true,
        ));
    }
    if let Some(ours) = cost(SLUICE) {
        let name = "TCP_CRR: random service for each connection".to_owned();
        report.push(row(
            name,
            "≤ 1.05".to_owned(),
            rounded(ours),
            "x",
            ours <= 1.05,
        ));
    }
    let slot = |variant| Slot {
        random: true,
        ..fixed(variant, Test::Crr)
    };
    if let Some(gain) = ratio(samples, slot(NFT), slot(SLUICE)) {
        // The Services share one server, so that the tuples of different ones clash there, which
        // netfilter pays for dearly: no figure to boast of.
        let name = "TCP_CRR: random service of the one server, nft's time ÷ sluice's";
        let to_compare = "to compare".to_owned();
        report.push(row(name.to_owned(), to_compare, rounded(gain), "x", true));
    }
}

fn health(measured: &Measured, report: &mut Report) {
    let phases = measured.phases.iter();
    let sum = |of: fn(&Samples) -> u64| phases.clone().map(of).sum::<u64>();
    let (total, failed) = (sum(Samples::transactions), sum(Samples::failed));
    let unit = format!("of {total} transactions");
    let ok = failed == 0 && total > 0;
    let name = "failed transactions".to_owned();
    report.push(row(name, "0".to_owned(), failed as f64, &unit, ok));
    if let Some(thrown_away) = measured.thrown_away {
        let name = "nft: entries that a full conntrack threw away".to_owned();
        let (value, ok) = (thrown_away as f64, thrown_away == 0);
        report.push(row(name, "0".to_owned(), value, "", ok));
    }
    let share = sum(Samples::retransmitted) as f64 / total.max(1) as f64 * 1e6;
    let name = "TCP segments sent again".to_owned();
    let expected = format!("≤ {RETRANSMISSIONS} of a million transactions");
    report.push(row(
        name,
        expected,
        share.round(),
        "of a million",
        share <= RETRANSMISSIONS,
    ));
}

/// The quotient of two slots' p10: the percentile that a busy machine disturbs least.
fn ratio(samples: &Samples, over: Slot, under: Slot) -> Option<f64> {
    samples
        .ratio(over, under, Percentile::P10)
        .map(|ratio| ratio.median)
}

fn fixed(variant: &'static str, test: Test) -> Slot {
    Slot {
        variant,
        test,
        random: false,
    }
}

/// What a slot is compared with: the same of nftables.
fn baseline(slot: Slot) -> Slot {
    Slot {
        variant: NFT,
        ..slot
    }
}

fn row(name: String, expected: String, measured: f64, unit: &str, ok: bool) -> Row {
    Row {
        name,
        expected,
        measured: measured.into(),
        unit: unit.to_owned(),
        ok,
    }
}

fn rounded(ratio: f64) -> f64 {
    (ratio * 1e4).round() / 1e4
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
