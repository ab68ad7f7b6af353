//! Things that die.

use std::time::Instant;

use anyhow::{Context, Result};

use super::scenario::{IN_FORCE, PATIENCE, Scenario, USER_SERVICE, targets};
use crate::wait;
use crate::workload::{Connections, Load, LoadSpec, Tally};

/// Requests per second while a backend is killed.
const RATE: u32 = 400;

/// A server is killed; its pod is marked not ready, as its kubelet would when its probe fails.
///
/// What is under way at the server is lost, and so are connections it is given until then: nothing
/// but another attempt of the client could save those. All that begin after are to succeed.
pub(super) fn killed_backend(scenario: &mut Scenario) -> Result<()> {
    scenario.await_answers(USER_SERVICE, 80)?;
    let to = targets(USER_SERVICE, 80);
    let victims = scenario.plane.pods_of("user-service-canary");
    let victim = victims.first().context("no canary to kill")?.clone();
    let load = Load::start(
        &scenario.client(1),
        LoadSpec {
            rate: Some(RATE),
            ..LoadSpec::new(to)
        },
    );
    wait::until_true(PATIENCE, "the victim to answer", || {
        load.tally().by_name.contains_key(&victim)
    })?;
    scenario.plane.kill_server(&victim)?;
    scenario.plane.set_ready(&victim, false)?;
    let safe = Instant::now() + IN_FORCE;
    let so_far = load.tally().requests();
    wait::until_true(PATIENCE, "the load to go on", || {
        load.tally().requests() >= so_far + 600
    })?;
    let tally = load.stop();
    let late = tally
        .failed
        .iter()
        .filter(|failed| failed.started > safe)
        .count() as u64;
    let name = "killed backend: failures of requests begun 50 ms after it was marked not ready";
    scenario.row(name, "0", late, "", late == 0);
    // Four workers under way; a quarter of the rate goes to the victim, for 50 ms and the kill.
    let most = u64::from(RATE) / 4 / 10 + 4;
    let early = tally.failures() - late;
    let name = "… failures before that (under way, or given to it until then)";
    scenario.row(name, format!("≤ {most}"), early, "", early <= most);
    scenario.plane.delete(&victim)
}

/// An agent is killed under load and started again: its programs go on by themselves.
pub(super) fn killed_agent(scenario: &mut Scenario) -> Result<()> {
    scenario.await_answers(USER_SERVICE, 80)?;
    let to = targets(USER_SERVICE, 80);
    let spec = LoadSpec {
        rate: Some(300),
        ..LoadSpec::new(to)
    };
    let kept = LoadSpec {
        connections: Connections::KeepAlive,
        ..spec.clone()
    };
    let node = scenario.plane.cluster().node(1);
    let ports = node
        .addrs()
        .both()
        .map(|ip| std::net::SocketAddr::new(ip, 30080));
    let outside = scenario.plane.cluster().outside();
    let loads = [
        Load::start(&scenario.client(1), spec.clone()),
        Load::start(&scenario.client(1), kept),
        Load::start(node.netns(), spec.clone()),
        Load::start(
            outside,
            LoadSpec {
                to: ports.to_vec(),
                ..spec
            },
        ),
    ];
    let more = |what: &str| {
        let so_far = loads[0].tally().requests();
        wait::until_true(PATIENCE, what, || {
            loads[0].tally().requests() >= so_far + 150
        })
    };
    more("the load to run")?;
    scenario.plane.agents[0].kill()?;
    more("the load to go on without the agent")?;
    let begun = Instant::now();
    scenario.plane.agents[0].start()?;
    let restart = begun.elapsed();
    more("the load to go on with the new agent")?;
    let mut sum = Tally::default();
    loads
        .map(Load::stop)
        .iter()
        .for_each(|tally| sum.merge(tally));
    let name = format!(
        "agent killed (SIGKILL) and started again ({:.1} s)",
        restart.as_secs_f64()
    );
    scenario.no_failures(&name, &sum, 600);
    Ok(())
}
