//! Services over several pods.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use super::scenario::{METRICS, PATIENCE, REQUEST, Scenario, USER_SERVICE, targets};
use crate::kube::PodRun;
use crate::topology::Family;
use crate::wait;
use crate::workload::udp::UdpClient;
use crate::workload::{Connections, Load, LoadSpec, ServerSpec, Tally};

const EXAMPLE: &str = include_str!("../../../../examples/user-service.yaml");
const UDP_EXAMPLE: &str = include_str!("../../../../examples/udp-service.yaml");

/// Requests for each client and family.
const SAMPLE: u64 = 600;
/// Of 600 even picks out of three, the standard deviation of one pod's part is 1.9 points; four of
/// them are allowed.
const SPREAD: f64 = 0.08;

/// A Service over three replicas, for every kind of client.
pub(super) fn cluster_ip(scenario: &mut Scenario) -> Result<()> {
    scenario.plane.apply_yaml(EXAMPLE)?;
    scenario.await_answers(USER_SERVICE, 80)?;
    for (client, netns) in scenario.clients() {
        let tallies = Family::ALL.map(|family| {
            let to = std::net::SocketAddr::new(USER_SERVICE.ip(family), 80);
            Load::run(
                &netns,
                LoadSpec {
                    limit: Some(SAMPLE),
                    ..LoadSpec::new([to])
                },
            )
        });
        let parts: Vec<f64> = tallies.iter().flat_map(parts).collect();
        let failures: u64 = tallies.iter().map(Tally::failures).sum();
        let (least, most) = ends(&parts);
        let even = 1.0 / 3.0;
        let ok = parts.len() == 6 && failures == 0 && least > even - SPREAD && most < even + SPREAD;
        scenario.row(
            format!("ClusterIP over 3 replicas, IPv4 and IPv6, from {client}"),
            "33 ± 8 % each, none failed",
            format!(
                "{:.1} to {:.1} %, {failures} failed",
                least * 100.0,
                most * 100.0
            ),
            "",
            ok,
        );
    }
    Ok(())
}

/// A pod whose readiness probe fails, and then does not.
pub(super) fn readiness(scenario: &mut Scenario) -> Result<()> {
    const NAME: &str = "user-service-slow";
    scenario.await_answers(USER_SERVICE, 80)?;
    let server = ServerSpec {
        tcp: vec![8080],
        not_ready: true,
        ..ServerSpec::default()
    };
    let labels = [("app".to_owned(), "user-service".to_owned())].into();
    let run = PodRun {
        name: NAME.to_owned(),
        labels,
        server,
        ..PodRun::default()
    };
    scenario.plane.run(run)?;
    let (clients, to) = (scenario.clients(), targets(USER_SERVICE, 80));
    let mut sum = Tally::default();
    for (_, netns) in &clients {
        sum.merge(&Load::run(
            netns,
            LoadSpec {
                limit: Some(SAMPLE),
                ..LoadSpec::new(to)
            },
        ));
    }
    let answers = sum.by_name.get(NAME).map_or(0, |seen| seen.count);
    let ok = answers == 0 && sum.failures() == 0;
    let (all, name) = (sum.requests(), "a pod that is not ready: its answers");
    scenario.row(name, format!("0 of {all}"), answers, "", ok);

    // The same pod proves that it would have been reached.
    let load = Load::start(
        &scenario.client(1),
        LoadSpec {
            rate: Some(500),
            ..LoadSpec::new(to)
        },
    );
    let begun = Instant::now();
    scenario.plane.set_ready(NAME, true)?;
    let first = wait::until(PATIENCE, "the pod's first answer", || {
        load.tally()
            .by_name
            .get(NAME)
            .map(|seen| seen.first)
            .context("none yet")
    })?;
    let tally = load.stop();
    let millis = (first - begun).as_secs_f64() * 1e3;
    scenario.row(
        "… once it is ready: time to its first answer",
        "≤ 200",
        millis,
        "ms",
        millis <= 200.0,
    );
    ensure!(
        tally.failures() == 0,
        "while it became ready: {}",
        tally.failure_kinds()
    );
    scenario.plane.delete(NAME)
}

/// A Service for datagrams: sockets that connect and sockets that do not.
pub(super) fn datagrams(scenario: &mut Scenario) -> Result<()> {
    scenario.plane.apply_yaml(UDP_EXAMPLE)?;
    let mut sum = Tally::default();
    for (client, netns) in scenario.clients() {
        for to in targets(METRICS, 8125) {
            netns.run(|| {
                wait::until(PATIENCE, &format!("{to} to answer {client}"), || {
                    UdpClient::open(to, false)?.ask(REQUEST / 10)
                })?;
                UdpClient::open(to, true)?
                    .ask(REQUEST)
                    .context("a connected socket")
            })?;
        }
        let to = targets(METRICS, 8125);
        let connections = Connections::Udp;
        let spec = LoadSpec {
            limit: Some(300),
            connections,
            ..LoadSpec::new(to)
        };
        sum.merge(&Load::run(&netns, spec));
    }
    scenario.no_failures(
        "UDP service, from pods and nodes, IPv4 and IPv6",
        &sum,
        1200,
    );
    let (least, most) = ends(&parts(&sum));
    let ok = sum.by_name.len() == 2 && least > 0.4 && most < 0.6;
    let measured = format!("{:.1} to {:.1} %", least * 100.0, most * 100.0);
    // 1200 even picks out of two: four standard deviations are 6 points; there are four clients.
    scenario.row(
        "UDP service over 2 replicas",
        "50 ± 10 % each",
        measured,
        "",
        ok,
    );
    scenario.plane.delete_object("Deployment", "metrics")
}

/// Each pod's part of the answers.
fn parts(tally: &Tally) -> Vec<f64> {
    let counts: BTreeMap<_, _> = tally
        .by_name
        .iter()
        .map(|(n, seen)| (n, seen.count))
        .collect();
    counts
        .values()
        .map(|count| *count as f64 / tally.answered() as f64)
        .collect()
}

/// The least and the most.
fn ends(parts: &[f64]) -> (f64, f64) {
    let least = parts.iter().copied().fold(1.0, f64::min);
    (least, parts.iter().copied().fold(0.0, f64::max))
}
