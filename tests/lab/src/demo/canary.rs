//! A part of the traffic for the new version.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::scenario::{PATIENCE, Scenario, USER_SERVICE, targets};
use crate::kube::manifests::from_yaml;
use crate::wait;
use crate::workload::{Load, LoadSpec};

const BY_REPLICAS: &str = include_str!("../../../../examples/canary-replicas.yaml");
const BY_WEIGHT: &str = include_str!("../../../../examples/canary-weight.yaml");
const BY_HTTP_ROUTE: &str = include_str!("../../../../examples/canary-weight-httproute.yaml");

/// Connections for each measured share.
const SAMPLE: u64 = 2000;
/// Of 2000 even picks, the standard deviation of a tenth is 0.67 points; four and a half of them.
const BY_REPLICAS_TOLERANCE: f64 = 0.03;
/// Weights are kept by a counter that leaves no more than a few tenths of a point after 2000
/// connections; the start of the sample and a change of the processor add to that.
const BY_WEIGHT_TOLERANCE: f64 = 0.015;

/// Nine pods of the old version and one of the new.
pub(super) fn by_replicas(scenario: &mut Scenario) -> Result<()> {
    scenario.plane.apply_yaml(BY_REPLICAS)?;
    scenario.plane.await_deletions()?;
    scenario.await_versions(&["stable", "canary"])?;
    share_row(
        scenario,
        "canary 9:1 by replicas",
        0.1,
        BY_REPLICAS_TOLERANCE,
    );
    Ok(())
}

/// One pod of the version that gets nine tenths and three of the other, then other weights, then
/// the same by an HTTPRoute, under load.
pub(super) fn by_weight(scenario: &mut Scenario) -> Result<()> {
    let objects = from_yaml(BY_WEIGHT)?;
    let (routes, rest): (Vec<Value>, Vec<Value>) = objects
        .into_iter()
        .partition(|object| object["kind"] == "VirtualService");
    rest.iter()
        .try_for_each(|object| scenario.plane.apply(object))?;
    let mut route = routes
        .into_iter()
        .next()
        .context("no VirtualService in the example")?;
    let spec = LoadSpec {
        rate: Some(200),
        ..LoadSpec::new(targets(USER_SERVICE, 80))
    };
    let load = Load::start(&scenario.client(2), spec);
    for (stable, canary) in [(90, 10), (50, 50), (0, 100)] {
        let weights = &mut route["spec"]["http"][1]["route"];
        weights[0]["weight"] = json!(stable);
        weights[1]["weight"] = json!(canary);
        scenario.plane.apply(&route)?;
        let share = f64::from(canary) / 100.0;
        await_share(scenario, share)?;
        let name = format!("canary {stable}/{canary} by weight, 1 and 3 replicas");
        share_row(
            scenario,
            &name,
            share,
            if stable == 0 {
                0.0
            } else {
                BY_WEIGHT_TOLERANCE
            },
        );
    }
    scenario
        .plane
        .delete_object("VirtualService", "user-service")?;
    scenario.plane.apply_yaml(BY_HTTP_ROUTE)?;
    await_share(scenario, 0.1)?;
    share_row(
        scenario,
        "canary 90/10 by weight, HTTPRoute",
        0.1,
        BY_WEIGHT_TOLERANCE,
    );
    scenario.plane.delete_object("HTTPRoute", "user-service")?;
    let tally = load.stop();
    scenario.no_failures("canary, while weights change", &tally, 200);
    Ok(())
}

/// Waits until a few connections come near the share: a new weight is in force.
fn await_share(scenario: &Scenario, share: f64) -> Result<()> {
    let what = format!("a share near {share}");
    wait::until(PATIENCE, &what, || {
        let tally = scenario.sample(&scenario.client(1), 50);
        let seen = tally.share("canary");
        // Every other weight in the demo is at least twice as far away.
        match tally.failures() {
            0 if (seen - share).abs() < 0.2 => Ok(()),
            failures => Err(format!("it was {seen}, {failures} failed")),
        }
    })
}

/// Measures the canary's share, from a pod on each node.
fn share_row(scenario: &mut Scenario, name: &str, share: f64, tolerance: f64) {
    for node in [1, 2] {
        let spec = LoadSpec {
            limit: Some(SAMPLE),
            ..LoadSpec::new(targets(USER_SERVICE, 80))
        };
        let tally = Load::run(&scenario.client(node), spec);
        let seen = tally.share("canary");
        if tally.failures() > 0 {
            eprintln!("{name}: {}", tally.failure_kinds());
        }
        let ok = tally.failures() == 0 && (seen - share).abs() <= tolerance;
        let expected = format!("{:.0} ± {:.1}", share * 100.0, tolerance * 100.0);
        scenario.row(
            format!("{name}, from node-{node}"),
            expected,
            seen * 100.0,
            "%",
            ok,
        );
    }
}
