//! From samples to rows.

use std::path::Path;

use anyhow::Result;
use serde_json::Value;

use super::names::{AGAIN, KERNEL, MANY_POLICIES, MANY_SERVICES, NFT, ONE, REDIRECT, SLUICE};
use super::rounds::{Percentile, Samples, Slot, To};
use super::stats::Spread;
use super::traffic::Test;
use super::variant::Scale;
use crate::bpf_check;
use crate::report::{Figure, Report, Row};

/// How far equal variants may be apart before nothing can be said.
pub const CONTROL: f64 = 0.02;
/// How much more many objects may cost than few.
const FLAT: f64 = 1.01;
/// What a row says that promises nothing.
pub const TO_COMPARE: &str = "to compare";
/// Retransmissions that a busy machine may cause, of a million transactions.
const RETRANSMISSIONS: f64 = 10.0;

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
    health(&measured.phases, report);
    if let Some(thrown_away) = measured.thrown_away {
        let name = "nft: entries that a full conntrack threw away".to_owned();
        report.push(row(name, "0", thrown_away as f64, "", thrown_away == 0));
    }
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

fn control(samples: &Samples, test: Test, report: &mut Report) {
    let Some(ratio) = ratio(samples, fixed(AGAIN, test), fixed(SLUICE, test)) else {
        return;
    };
    let name = format!("{}: two equal nodes (A/A control)", test.name());
    let expected = format!("{} to {}, else all is void", 1.0 - CONTROL, 1.0 + CONTROL);
    let ok = (ratio.median - 1.0).abs() <= CONTROL;
    report.push(ratio_row(name, &expected, ratio, ok));
}

fn against_nft(samples: &Samples, test: Test, report: &mut Report) {
    let gain = |name| ratio(samples, fixed(NFT, test), fixed(name, test));
    let least = match test {
        Test::Rr => 1.23,
        Test::Crr => 1.25,
    };
    if let Some(gain) = gain(SLUICE) {
        let name = format!("{}: nft's time ÷ {SLUICE}'s", test.name());
        let ok = gain.median >= least;
        report.push(ratio_row(name, &format!("≥ {least}"), gain, ok));
    }
    let p50 = samples.ratio(fixed(NFT, test), fixed(SLUICE, test), Percentile::P50);
    if let Some(p50) = p50 {
        let name = format!("{}: the same of the medians (p50)", test.name());
        report.push(ratio_row(name, TO_COMPARE, p50, true));
    }
    for name in [KERNEL, REDIRECT] {
        if let Some(gain) = gain(name) {
            let name = format!("{}: nft's time ÷ {name}'s", test.name());
            report.push(ratio_row(name, TO_COMPARE, gain, true));
        }
    }
    if let (Some(sluice), Some(floor)) = (gain(SLUICE), gain(REDIRECT)) {
        let share = (sluice.median - 1.0) / (floor.median - 1.0) * 100.0;
        let what = "share of the gain that redirecting makes possible";
        let name = format!("{}: {what}", test.name());
        report.push(row(name, TO_COMPARE, share.round(), "%", true));
    }
}

/// What must not cost anything. Differences this small need an error beside them: a row fails when
/// the ratio is above its limit by more than that.
fn flatness(samples: &Samples, test: Test, scale: Scale, report: &mut Report) {
    let Scale { services, policies } = scale;
    let more_services = format!("1 to {services} services");
    let more_policies = format!("0 to {policies} policies");
    let pairs = [
        (format!("{more_services}, no policies"), MANY_SERVICES, ONE),
        (format!("{more_policies}, 1 service"), MANY_POLICIES, ONE),
        (
            format!("{more_policies}, {services} services"),
            SLUICE,
            MANY_SERVICES,
        ),
        (format!("{more_services} and {more_policies}"), SLUICE, ONE),
    ];
    for (what, many, few) in pairs {
        if let Some(ratio) = ratio(samples, fixed(many, test), fixed(few, test)) {
            let name = format!("{}: {what}", test.name());
            let ok = ratio.median - ratio.error() <= FLAT;
            report.push(ratio_row(name, &format!("≤ {FLAT}"), ratio, ok));
        }
    }
}

fn random(samples: &Samples, report: &mut Report) {
    let at_random = |variant| Slot {
        to: To::Random,
        ..fixed(variant, Test::Crr)
    };
    let cost = |name| ratio(samples, at_random(name), fixed(name, Test::Crr));
    if let Some(client) = cost(KERNEL) {
        let name = "TCP_CRR: random destination, bare kernel (the client's own share)";
        report.push(ratio_row(name.to_owned(), TO_COMPARE, client, true));
    }
    if let Some(ours) = cost(SLUICE) {
        let name = "TCP_CRR: random service for each connection".to_owned();
        report.push(ratio_row(name, "≤ 1.05", ours, ours.median <= 1.05));
    }
    if let Some(gain) = ratio(samples, at_random(NFT), at_random(SLUICE)) {
        // The Services share one server, where connections to different ones can clash: a cluster
        // with as many servers as Services would show less.
        let name = format!("TCP_CRR: random service of one server, nft's time ÷ {SLUICE}'s");
        report.push(ratio_row(name, TO_COMPARE, gain, true));
    }
}

/// Whether all worked.
pub fn health<'a>(samples: impl IntoIterator<Item = &'a Samples>, report: &mut Report) {
    let all: Vec<&Samples> = samples.into_iter().collect();
    let sum = |of: fn(&Samples) -> u64| all.iter().copied().map(of).sum::<u64>();
    let (total, failed) = (sum(Samples::transactions), sum(Samples::failed));
    let unit = format!("of {total} transactions");
    let ok = failed == 0 && total > 0;
    let name = "failed transactions".to_owned();
    report.push(row(name, "0", failed as f64, &unit, ok));
    let share = sum(Samples::retransmitted) as f64 / total.max(1) as f64 * 1e6;
    let name = "TCP segments sent again".to_owned();
    let expected = format!("≤ {RETRANSMISSIONS} of a million transactions");
    report.push(row(
        name,
        &expected,
        share.round(),
        "of a million",
        share <= RETRANSMISSIONS,
    ));
}

/// The quotient of two slots' p10: the percentile that a busy machine disturbs least.
fn ratio(samples: &Samples, over: Slot, under: Slot) -> Option<Spread> {
    samples.ratio(over, under, Percentile::P10)
}

fn fixed(variant: &'static str, test: Test) -> Slot {
    Slot {
        variant,
        test,
        to: To::Fixed,
    }
}

/// A row of a ratio.
pub fn ratio_row(name: String, expected: &str, ratio: Spread, ok: bool) -> Row {
    let unit = format!("x ± {:.3}", ratio.error());
    let rounded = (ratio.median * 1e4).round() / 1e4;
    row(name, expected, rounded, &unit, ok)
}

/// A row of a number.
pub fn row(name: String, expected: &str, measured: f64, unit: &str, ok: bool) -> Row {
    Row {
        name,
        expected: expected.to_owned(),
        measured: measured.into(),
        unit: unit.to_owned(),
        ok,
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
