//! New versions, without a failed request.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::scenario::{IN_FORCE, PATIENCE, Scenario, USER_SERVICE, targets};
use crate::kube::manifests::from_yaml;
use crate::wait;
use crate::workload::{Connections, Load, LoadSpec, Tally};

const FIRST: &str = include_str!("../../../../examples/user-service.yaml");
const NEXT: &str = include_str!("../../../../examples/rolling-update.yaml");
const BLUE_GREEN: &str = include_str!("../../../../examples/blue-green.yaml");

/// Flips of the selector that are timed.
const FLIPS: usize = 6;

/// Five replicas change their version under load: new connections and kept ones, from a pod on each
/// node and from a node.
pub(super) fn rolling(scenario: &mut Scenario) -> Result<()> {
    let mut first = from_yaml(FIRST)?;
    first[0]["spec"]["replicas"] = json!(5);
    first
        .iter()
        .try_for_each(|object| scenario.plane.apply(object))?;
    scenario.await_versions(&["1.0.0"])?;
    let to = targets(USER_SERVICE, 80);
    let kept = Connections::KeepAlive;
    let spec = LoadSpec {
        rate: Some(300),
        ..LoadSpec::new(to)
    };
    let node = scenario.plane.cluster().node(1).netns().clone();
    let loads = [
        Load::start(&scenario.client(1), spec.clone()),
        Load::start(
            &scenario.client(2),
            LoadSpec {
                connections: kept,
                ..spec.clone()
            },
        ),
        Load::start(&node, spec),
    ];
    scenario.plane.apply_yaml(NEXT)?;
    scenario.await_versions(&["2.0.0"])?;
    let tallies = loads.map(Load::stop);
    let mut sum = Tally::default();
    tallies.iter().for_each(|tally| sum.merge(tally));
    scenario.no_failures(
        "rolling update of 5 replicas (surge 2, unavailable 1)",
        &sum,
        500,
    );
    let served = |version: &str| sum.by_version.get(version).map_or(0, |seen| seen.count);
    let (old, new) = (served("1.0.0"), served("2.0.0"));
    let measured = format!("{old} and {new}");
    let name = "… answers of the old and of the new version";
    scenario.row(name, "some of each", measured, "", old > 0 && new > 0);
    scenario.plane.delete_object("Deployment", "user-service")
}

/// The Service's selector goes from one version to the other and back, under load.
pub(super) fn blue_green(scenario: &mut Scenario) -> Result<()> {
    let objects = from_yaml(BLUE_GREEN)?;
    objects
        .iter()
        .try_for_each(|object| scenario.plane.apply(object))?;
    scenario.await_versions(&["blue"])?;
    let service = objects.iter().find(|object| object["kind"] == "Service");
    let mut service = service.context("blue-green.yaml has no Service")?.clone();
    let (mut times, mut stray, mut sum) = (Vec::new(), 0, Tally::default());
    for flip in 0..FLIPS {
        let (from, to) = if flip % 2 == 0 {
            ("blue", "green")
        } else {
            ("green", "blue")
        };
        service["spec"]["selector"]["version"] = json!(to);
        let (millis, tally) = time_flip(scenario, &service, to)?;
        times.push(millis);
        // What began after the first answer of the new version has no reason to go to the old.
        let (old, new) = (tally.by_version.get(from), tally.by_version.get(to));
        let late = old
            .zip(new)
            .is_some_and(|(old, new)| old.last_begun > new.first);
        stray += usize::from(late);
        sum.merge(&tally);
    }
    let worst = times.iter().copied().fold(0.0, f64::max);
    let limit = IN_FORCE.as_millis();
    scenario.row(
        format!("blue-green: file written to first answer of the other version, worst of {FLIPS}"),
        format!("≤ {limit}"),
        worst,
        "ms",
        worst <= limit as f64,
    );
    scenario.row(
        "… flips after which a new connection still got the old version",
        "0",
        stray as u64,
        "",
        stray == 0,
    );
    scenario.no_failures("blue-green", &sum, 500);
    let names = ["user-service-blue", "user-service-green"];
    names
        .iter()
        .try_for_each(|name| scenario.plane.delete_object("Deployment", name))
}

/// Writes the Service and times, in milliseconds, the first answer of `version`.
fn time_flip(scenario: &mut Scenario, service: &Value, version: &str) -> Result<(f64, Tally)> {
    let spec = LoadSpec {
        rate: Some(1000),
        ..LoadSpec::new(targets(USER_SERVICE, 80))
    };
    let load = Load::start(&scenario.client(2), spec);
    wait::until_true(PATIENCE, "the load to run", || {
        load.tally().answered() >= 100
    })?;
    ensure!(
        !load.tally().by_version.contains_key(version),
        "{version} answers too early"
    );
    let written = Instant::now();
    scenario.plane.apply(service)?;
    let first = wait::until(PATIENCE, &format!("the first answer of {version}"), || {
        load.tally()
            .by_version
            .get(version)
            .map(|seen| seen.first)
            .context("none yet")
    })?;
    let so_far = load.tally().requests();
    wait::until_true(PATIENCE, "the load to go on", || {
        load.tally().requests() >= so_far + 150
    })?;
    Ok(((first - written).as_secs_f64() * 1e3, load.stop()))
}
