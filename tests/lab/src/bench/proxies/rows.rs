//! From samples to rows and lines.

use super::{AGAIN, KUBE_PROXIES, Measured, SLUICE, TIMED};
use crate::bench::kube_proxy::Mode;
use crate::bench::rounds::{Percentile, Samples, Slot, To};
use crate::bench::rows::{CONTROL, TO_COMPARE, health, ratio_row, row};
use crate::bench::traffic::Test;
use crate::report::Report;

/// What is promised: how much longer kube-proxy takes.
fn least(test: Test, to: To) -> f64 {
    match (test, to) {
        (Test::Rr, _) => 1.23,
        (Test::Crr, To::NodePort) => 1.2,
        (Test::Crr, To::Fixed | To::Random) => 1.25,
    }
}

/// The rows of a run.
pub fn rows(measured: &Measured, report: &mut Report) {
    let Measured {
        samples, services, ..
    } = measured;
    for (test, to) in TIMED {
        let slot = |variant| Slot { variant, test, to };
        let what = what(test, to);
        let ratio = |over, percentile| samples.ratio(slot(over), slot(SLUICE), percentile);
        if let Some(ratio) = ratio(AGAIN, Percentile::P10) {
            let name = format!("{what}: two equal pairs of nodes (A/A control)");
            let expected = format!("{} to {}, else all is void", 1.0 - CONTROL, 1.0 + CONTROL);
            let ok = (ratio.median - 1.0).abs() <= CONTROL;
            report.push(ratio_row(name, &expected, ratio, ok));
        }
        for (proxy, mode) in KUBE_PROXIES {
            let name = format!("{what}, {services} services: {proxy}'s time ÷ {SLUICE}'s");
            if let Some(ratio) = ratio(proxy, Percentile::P10) {
                // Of a node port, nothing is promised beside iptables.
                let promised = mode == Mode::Nftables || to != To::NodePort;
                let least = Some(least(test, to)).filter(|_| promised);
                let expected = least.map_or(TO_COMPARE.to_owned(), |least| format!("≥ {least}"));
                let ok = least.is_none_or(|least| ratio.median >= least);
                report.push(ratio_row(name.clone(), &expected, ratio, ok));
            }
            if let Some(ratio) = ratio(proxy, Percentile::P50) {
                report.push(ratio_row(format!("{name}, p50"), TO_COMPARE, ratio, true));
            }
        }
    }
    health([samples], report);
    let name = "kube-proxy: entries that a full conntrack threw away".to_owned();
    let thrown_away = measured.thrown_away;
    report.push(row(name, "0", thrown_away as f64, "", thrown_away == 0));
}

fn what(test: Test, to: To) -> String {
    let way = match to {
        To::Fixed | To::Random => "pod to pod of its node",
        To::NodePort => "outside to node port to another node's pod",
    };
    format!("{}, {way}", test.name())
}

/// The times of all slots.
pub fn table(samples: &Samples) -> String {
    let mut table =
        "| proxy | test | p10 µs | p50 µs | p99 µs |\n|---|---|---|---|---|\n".to_owned();
    for slot in samples.slots() {
        let time = |percentile| {
            let time = samples.time(slot, percentile);
            time.map_or(0.0, |time| time.median / 1e3)
        };
        table += &format!(
            "| {} | {} | {:.2} | {:.2} | {:.2} |\n",
            slot.variant,
            what(slot.test, slot.to),
            time(Percentile::P10),
            time(Percentile::P50),
            time(Percentile::P99),
        );
    }
    table
}
