//! From samples to rows, and to the table of all variants.

use std::fmt::Write;
use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};

use super::names::{AGAIN, KERNEL, MANY_POLICIES, MANY_SERVICES, NFT, ONE, REDIRECT, SLUICE};
use super::rounds::{Percentile, Samples, Slot};
use super::traffic::Test;
use crate::bpf_check;
use crate::report::{Figure, Report, Row};

/// How far equal variants may be apart before nothing can be said.
const CONTROL: f64 = 0.02;
/// Retransmissions that a busy machine may cause, of a million transactions.
const RETRANSMISSIONS: f64 = 10.0;

/// The rows of a run: those whose variants were measured.
pub fn rows(samples: &Samples, report: &mut Report) {
    for test in [Test::Rr, Test::Crr] {
        control(samples, test, report);
        against_nft(samples, test, report);
        flatness(samples, test, report);
    }
    random(samples, report);
    health(samples, report);
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
pub fn slots_json(samples: &Samples) -> Value {
    samples
        .slots()
        .map(|slot| slot_json(samples, slot))
        .collect()
}

/// Every slot's times and its ratios to nftables, as a Markdown table.
pub fn slots_table(samples: &Samples) -> String {
    let mut table =
        "| path | test | p10 µs | p50 µs | p99 µs | nft p10 ÷ its (quartiles) | p50 |\n\
                     |---|---|---|---|---|---|---|\n"
            .to_owned();
    for slot in samples.slots() {
        let time = |percentile| {
            samples
                .time(slot, percentile)
                .map_or(0.0, |time| time.median / 1e3)
        };
        let ratio = |percentile| samples.ratio(baseline(slot), slot, percentile);
        let p10 = ratio(Percentile::P10).map_or_else(String::new, |ratio| {
            format!("{:.3} ({:.3}–{:.3})", ratio.median, ratio.q1, ratio.q3)
        });
        let p50 =
            ratio(Percentile::P50).map_or_else(String::new, |ratio| format!("{:.3}", ratio.median));
        // Writing to a String cannot fail.
        let _ = writeln!(
            table,
            "| {} | {}{} | {:.2} | {:.2} | {:.2} | {p10} | {p50} |",
            slot.variant,
            slot.test.name(),
            if slot.random { ", random" } else { "" },
            time(Percentile::P10),
            time(Percentile::P50),
            time(Percentile::P99),
        );
    }
    table
}

fn slot_json(samples: &Samples, slot: Slot) -> Value {
    let micros = |percentile| samples.time(slot, percentile).map(|time| time.median / 1e3);
    let ratio = |percentile| {
        let ratio = samples.ratio(baseline(slot), slot, percentile)?;
        Some(json!({ "q1": ratio.q1, "median": ratio.median, "q3": ratio.q3 }))
    };
    json!({
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

fn flatness(samples: &Samples, test: Test, report: &mut Report) {
    let pairs = [
        ("services from 1 to many, no policies", MANY_SERVICES, ONE),
        ("policies from none to many, 1 service", MANY_POLICIES, ONE),
        (
            "policies from none to many, many services",
            SLUICE,
            MANY_SERVICES,
        ),
        ("both from least to most", SLUICE, ONE),
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
        let name = format!("TCP_CRR: random service, nft's time ÷ {SLUICE}'s");
        report.push(row(
            name,
            "≥ 1.25".to_owned(),
            rounded(gain),
            "x",
            gain >= 1.25,
        ));
    }
}

fn health(samples: &Samples, report: &mut Report) {
    let total = samples.transactions();
    let failed = samples.failed();
    let unit = format!("of {total} transactions");
    let name = "failed transactions".to_owned();
    report.push(row(
        name,
        "0".to_owned(),
        failed as f64,
        &unit,
        failed == 0 && total > 0,
    ));
    let share = samples.retransmitted() as f64 / total.max(1) as f64 * 1e6;
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
