//! Load while endpoints and agents come and go.

use std::net::SocketAddr;

use sluice_lab::wait;
use sluice_lab::workload::{Load, LoadSpec};

use crate::cluster::{Client, NODES, OUTSIDE};
use crate::scene::{PATIENCE, Scene, answers, deployment};

/// New connections, 200 in a second together, from a pod, a host and outside.
fn loads(scene: &Scene) -> Vec<(String, Load)> {
    let port = scene.node_port("web", "tcp");
    let node_ports: Vec<SocketAddr> = ["172.30.0.11", "fd30::12"]
        .map(|host| (host.parse::<std::net::IpAddr>().unwrap(), port).into())
        .to_vec();
    let vips = scene.vips("web");
    let inside = scene.inside();
    let places: [(&Client, &[SocketAddr]); 4] = [
        (&inside[0], &vips),
        (&inside[3], &vips),
        (&inside[1], &node_ports),
        (&scene.cluster.host(OUTSIDE), &node_ports),
    ];
    places
        .into_iter()
        .map(|(client, to)| {
            to.iter().for_each(|to| drop(answers(client, *to)));
            let spec = LoadSpec {
                rate: Some(50),
                workers: 2,
                ..LoadSpec::new(to.to_vec())
            };
            (client.name.clone(), client.load(spec))
        })
        .collect()
}

/// Waits until each load made so many more requests.
fn more(loads: &[(String, Load)], count: u64) {
    for (name, load) in loads {
        let so_far = load.tally().requests();
        wait::until_true(PATIENCE, &format!("the load of {name} to go on"), || {
            load.tally().requests() > so_far + count
        })
        .unwrap();
    }
}

fn none_failed(loads: Vec<(String, Load)>) {
    for (name, load) in loads {
        let tally = load.stop();
        assert_eq!(
            tally.failures(),
            0,
            "{name}: {} of {}",
            tally.failure_kinds(),
            tally.requests()
        );
    }
}

#[test]
fn a_rolling_update_costs_no_request() {
    let scene = Scene::with_web("rolling");
    scene.service("web", ", type: NodePort");
    scene.kubectl(&["scale", "deployment/web", "--replicas=10"]);
    scene.rolled_out("web");
    let loads = loads(&scene);
    more(&loads, 25);
    scene.apply(&deployment("web", 10, "v2", ""));
    scene.rolled_out("web");
    more(&loads, 25);
    for (name, load) in &loads {
        assert!(
            load.tally().share("v2") > 0.0,
            "{name} never met the new version"
        );
    }
    none_failed(loads);
}

#[test]
fn agents_that_are_killed_and_come_back_cost_no_request() {
    let scene = Scene::with_web("killed");
    if !scene.cluster.has_sluice() {
        panic!("this cluster's Services are not served by Sluice: start it with --proxy sluice");
    }
    scene.service("web", ", type: NodePort");
    let loads = loads(&scene);
    for node in NODES {
        more(&loads, 25);
        let killed = agent(&scene, node).unwrap();
        scene.cluster.run(node, &["kill", "-9", &killed]).unwrap();
        wait::until(PATIENCE, "another agent that is ready", || {
            let now = agent(&scene, node)?;
            anyhow::ensure!(now != killed, "the killed one is still there");
            scene.cluster.run(
                node,
                &[
                    "curl",
                    "--silent",
                    "--fail",
                    "http://127.0.0.1:10256/healthz",
                ],
            )
        })
        .unwrap();
        more(&loads, 25);
    }
    none_failed(loads);
}

/// The process of a node's agent, as the node counts.
fn agent(scene: &Scene, node: &str) -> anyhow::Result<String> {
    let said = scene
        .cluster
        .run(node, &["pgrep", "--full", "^/usr/bin/sluice agent"])?;
    Ok(said.trim().to_owned())
}
