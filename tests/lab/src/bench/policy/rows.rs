//! From what was measured to rows and lines.

use super::change::{Changed, Times};
use super::load::{Load, RATE};
use super::side::By;
use super::{AGAIN, MANY, Member, NONE, Pass};
use crate::bench::control::rows::percentiles;
use crate::bench::rounds::{Percentile, Samples, Slot, To};
use crate::bench::rows::{CONTROL, TO_COMPARE, health, ratio_row, row};
use crate::bench::stats::Spread;
use crate::bench::traffic::Test;
use crate::report::Report;

/// How much more many policies may cost than none.
const FLAT: f64 = 1.03;
/// Milliseconds that all policies may take to be compiled, and one to come into force.
const LIMITS: (f64, f64) = (2_000.0, 20.0);

/// CPUs that the agent may have while there are many new flows.
const AGENT: f64 = 0.2;
/// Of the flows that there are to be, so many must be.
const ENOUGH: f64 = 0.95;

/// The rows of a pass.
pub fn traffic(pass: &Pass, samples: &Samples, report: &mut Report) {
    for test in [Test::Rr, Test::Crr] {
        let ratio = |over, under| ratio(samples, test, over, under);
        if let Some(ratio) = ratio(AGAIN, NONE) {
            let name = format!("{}: two equal nodes (A/A control)", test.name());
            let expected = format!("{} to {}, else all is void", 1.0 - CONTROL, 1.0 + CONTROL);
            let ok = (ratio.median - 1.0).abs() <= CONTROL;
            report.push(ratio_row(name, &expected, ratio, ok));
        }
        for member in pass.members.iter().filter(|member| member.0 != NONE) {
            against_none(test, member, ratio(member.0, NONE), report);
        }
        for (ours, theirs) in pass.pairs() {
            if let Some(ratio) = ratio(theirs.0, ours.0) {
                let name = format!("{}: {}'s time ÷ {}'s", test.name(), theirs.0, ours.0);
                report.push(ratio_row(name, TO_COMPARE, ratio, true));
            }
        }
    }
    health([samples], report);
}

fn against_none(test: Test, member: &Member, ratio: Option<Spread>, report: &mut Report) {
    let (name, by, set) = member;
    let Some(ratio) = ratio.filter(|_| *by == By::Sluice && *name != AGAIN) else {
        return;
    };
    let name = format!(
        "{}: {} {} policies ÷ none",
        test.name(),
        set.count,
        set.kind.name()
    );
    let (expected, ok) = if set.count == MANY {
        (format!("≤ {FLAT}"), ratio.median - ratio.error() <= FLAT)
    } else {
        (TO_COMPARE.to_owned(), true)
    };
    report.push(ratio_row(name, &expected, ratio, ok));
}

fn ratio(samples: &Samples, test: Test, over: &'static str, under: &'static str) -> Option<Spread> {
    let slot = |variant| Slot {
        variant,
        test,
        to: To::Fixed,
    };
    samples.ratio(slot(over), slot(under), Percentile::P10)
}

/// The rows of changes. What is promised is of policies for a whole cluster's pods; that all of them are
/// for two pods of one node is the worst there can be.
pub fn changes(changed: &Changed, spread: bool, report: &mut Report) {
    let of = if spread {
        "for 1,000 pods"
    } else {
        "for two pods of the node"
    };
    let mut push = |name: &str, value: f64, unit: &str, most: Option<f64>| {
        let most = most.filter(|_| spread);
        let expected = most.map_or(TO_COMPARE.to_owned(), |most| format!("≤ {most}"));
        let ok = most.is_none_or(|most| value <= most);
        let rounded = (value * 1e3).round() / 1e3;
        report.push(row(
            format!("{MANY} policies {of}: {name}"),
            &expected,
            rounded,
            unit,
            ok,
        ));
    };
    push(
        "in sync to maps complete",
        changed.maps_ms,
        "ms",
        Some(LIMITS.0),
    );
    let [p50, p99] = percentiles(&changed.rounds_ms);
    push("one changed: watch bytes to map, p50", p50, "ms", None);
    push("one changed: watch bytes to map, p99", p99, "ms", None);
    for (what, [from_request, from_reply]) in
        [("allow", &changed.allow_ms), ("deny", &changed.deny_ms)]
    {
        let [p50, p99] = percentiles(from_request);
        push(
            &format!("{what}: API write to packet, p50"),
            p50,
            "ms",
            None,
        );
        push(
            &format!("{what}: API write to packet, p99"),
            p99,
            "ms",
            Some(LIMITS.1),
        );
        let [p50, p99] = percentiles(from_reply);
        push(
            &format!("{what}: API reply to packet, p50"),
            p50,
            "ms",
            None,
        );
        push(
            &format!("{what}: API reply to packet, p99"),
            p99,
            "ms",
            None,
        );
    }
    push("the agent's memory for each", changed.memory, "bytes", None);
    push(
        "keys and values in the maps for each",
        changed.maps,
        "bytes",
        None,
    );
}

/// The rows of changes under kube-router, for [`MANY`] policies for 1,000 pods.
pub fn changes_of_kube_router([deny, allow]: &[Times; 2], report: &mut Report) {
    for (what, [from_request, _]) in [("allow", allow), ("deny", deny)] {
        let count = from_request.len();
        let name = format!(
            "{MANY} policies for 1,000 pods, by kube-router: {what}: API write to packet, p50 of {count}"
        );
        let [p50, _] = percentiles(from_request);
        report.push(row(name, TO_COMPARE, p50.round(), "ms", true));
    }
}

/// The rows of many new flows: nobody listens, and someone does.
pub fn loads([quiet, heard]: &[Load; 2], report: &mut Report) {
    for (load, who) in [(quiet, "nobody listens"), (heard, "one listens")] {
        let named = |what: &str| format!("{RATE} new flows a second, {who}: {what}");
        let enough = load.flows >= f64::from(RATE) * ENOUGH;
        let expected = format!("≥ {}", f64::from(RATE) * ENOUGH);
        let rounded = |value: f64| (value * 1e3).round() / 1e3;
        report.push(row(
            named("flows a second"),
            &expected,
            load.flows.round(),
            "",
            enough,
        ));
        report.push(row(
            named("events a second"),
            TO_COMPARE,
            load.events.round(),
            "",
            true,
        ));
        report.push(row(
            named("the agent"),
            &format!("≤ {AGENT}"),
            rounded(load.agent),
            "CPUs",
            load.agent <= AGENT,
        ));
    }
}

/// Above the lines of all passes.
pub const HEAD: &str =
    "| policies | by | test | p10 µs | p50 µs | p99 µs |\n|---|---|---|---|---|---|\n";

/// The lines of a pass.
pub fn lines(pass: &Pass, samples: &Samples) -> String {
    let mut lines = String::new();
    for slot in samples.slots() {
        let member = pass.members.iter().find(|member| member.0 == slot.variant);
        let Some((name, by, set)) = member else {
            continue;
        };
        let time = |percentile| {
            let time = samples.time(slot, percentile);
            time.map_or(0.0, |time| time.median / 1e3)
        };
        lines += &format!(
            "| {}{} {} | {} | {} | {:.2} | {:.2} | {:.2} |\n",
            if *name == AGAIN { "again " } else { "" },
            set.count,
            set.kind.name(),
            by.name(),
            slot.test.name(),
            time(Percentile::P10),
            time(Percentile::P50),
            time(Percentile::P99),
        );
    }
    lines
}
