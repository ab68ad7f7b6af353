//! From what was measured to rows.

use super::Size;
use super::probe::PAUSE;
use super::world::{Measured, OfProxy, PROGRAMMED};
use crate::report::{Report, Row};

/// Above the lines of all sizes.
pub const HEAD: &str = "| Services x endpoints | | start to programmed | memory (peak) MB | API reply to packet p50 / p99 ms | filled in |\n|---|---|---|---|---|---|\n";
/// What a row says that promises nothing.
const TO_COMPARE: &str = "to compare";
/// How much faster than kube-proxy a change is to be.
const FASTER: f64 = 20.0;

/// What is promised at a size.
struct Promise {
    maps_ms: f64,
    start_s: Option<f64>,
    memory_mb: f64,
}

fn promise(size: Size) -> Option<Promise> {
    match (size.services, size.endpoints) {
        (10_000, 10) => Some(Promise {
            maps_ms: 500.0,
            start_s: Some(5.0),
            memory_mb: 40.0,
        }),
        (10_000, 100) => Some(Promise {
            maps_ms: 2_000.0,
            start_s: None,
            memory_mb: 120.0,
        }),
        _ => None,
    }
}

/// The rows of a size.
pub fn rows(size: Size, measured: &Measured, report: &mut Report) {
    let promise = promise(size);
    let mut row = |name: &str, value: f64, unit: &str, most: Option<f64>| {
        report.push(Row {
            name: format!("{size}: {name}"),
            expected: most.map_or(TO_COMPARE.to_owned(), |most| format!("≤ {most}")),
            measured: round(value).into(),
            unit: unit.to_owned(),
            ok: most.is_none_or(|most| value <= most),
        });
    };
    let of = |get: fn(&Promise) -> Option<f64>| promise.as_ref().and_then(get);
    let Measured {
        sluice, kube_proxy, ..
    } = measured;
    let maps = format!("in sync to maps complete ({} entries)", measured.operations);
    row(&maps, measured.maps_ms, "ms", of(|p| Some(p.maps_ms)));
    let start = sluice.start.as_secs_f64();
    row(
        "process start to all programmed",
        start,
        "s",
        of(|p| p.start_s),
    );
    let most = of(|p| Some(p.memory_mb));
    row("memory (RSS)", megabytes(sluice.memory.now), "MB", most);
    let own = megabytes(sluice.memory.own);
    row("memory without the program's file", own, "MB", None);
    let after = megabytes(measured.after_changes.now);
    row("memory after 1,000 changes", after, "MB", most);
    row(
        "memory, peak",
        megabytes(measured.after_changes.peak),
        "MB",
        None,
    );
    let mut changes = |name: &str, values: &[f64], most: Option<f64>| {
        let [p50, p99] = percentiles(values);
        let unit = format!("ms ({} rounds)", values.len());
        row(
            &format!("{name}: watch bytes to map, p50"),
            p50,
            &unit,
            None,
        );
        row(&format!("{name}: watch bytes to map, p99"), p99, "ms", most);
    };
    changes("one endpoint", &measured.changes_ms, Some(1.0));
    changes("endpoints without a pause", &measured.stream_ms, None);
    let [p50, p99] = percentiles(&sluice.moves_ms);
    row(
        "one endpoint: API reply to packet, p50",
        p50,
        "ms",
        Some(2.0),
    );
    row(
        "one endpoint: API reply to packet, p99",
        p99,
        "ms",
        Some(10.0),
    );
    let Some(kube_proxy) = kube_proxy else {
        return;
    };
    let [theirs, _] = percentiles(&kube_proxy.moves_ms);
    // No connection tells less than the time between two of them.
    let ratio = theirs / p50.max(PAUSE.as_secs_f64() * 1e3);
    report.push(Row {
        name: format!("{size}: the same p50, kube-proxy's ÷ Sluice's"),
        expected: format!("≥ {FASTER}"),
        measured: round(ratio).into(),
        unit: "x".to_owned(),
        ok: ratio >= FASTER,
    });
}

/// The lines of a size in the table.
pub fn lines(size: Size, measured: &Measured) -> String {
    let line = |name: &str, of: &OfProxy| {
        let [p50, p99] = percentiles(&of.moves_ms);
        format!(
            "| {size} | {name} | {:.2} s | {:.1} ({:.1}) | {p50:.2} / {p99:.2} | {:.0} s |\n",
            of.start.as_secs_f64(),
            megabytes(of.memory.now),
            megabytes(of.memory.peak),
            measured.filled_in.as_secs_f64(),
        )
    };
    let theirs = "kube-proxy, nftables";
    line("Sluice", &measured.sluice)
        + &match &measured.kube_proxy {
            Some(kube_proxy) => line(theirs, kube_proxy),
            None => format!(
                "| {size} | {theirs} | more than {} s | | | |\n",
                PROGRAMMED.as_secs()
            ),
        }
}

/// The middle, and what a hundredth is above.
pub fn percentiles(values: &[f64]) -> [f64; 2] {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let rank = (sorted.len() as f64 * share).ceil() as usize;
        sorted.get(rank.max(1) - 1).copied().unwrap_or(f64::NAN)
    };
    [at(0.5), at(0.99)]
}

/// MB of KiB.
fn megabytes(kibibytes: u64) -> f64 {
    kibibytes as f64 * 1_024.0 / 1e6
}

fn round(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let hundred: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!(percentiles(&hundred), [50.0, 99.0]);
        assert_eq!(percentiles(&[3.0]), [3.0, 3.0]);
        assert!(percentiles(&[])[0].is_nan());
    }
}
