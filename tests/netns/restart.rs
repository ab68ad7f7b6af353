//! Agents that end and come back.

use sluice_lab::wait;
use sluice_lab::workload::{Connections, Load, LoadSpec};

use crate::world::{Client, PATIENCE, World, at, vip};

fn world() -> World {
    let mut world = World::new();
    world.pod_on_each_node("web");
    world.service("web", vip(1));
    world.await_service(vip(1), 80);
    world
}

/// New and kept connections from a client.
fn loads(client: &Client) -> [Load; 2] {
    let spec = LoadSpec {
        rate: Some(200),
        workers: 2,
        ..LoadSpec::new(at(vip(1), 80))
    };
    let kept = LoadSpec {
        connections: Connections::KeepAlive,
        ..spec.clone()
    };
    [spec, kept].map(|spec| Load::start(&client.netns, spec))
}

/// Waits until each load made this many more requests.
fn more(loads: &[Load]) {
    for load in loads {
        let so_far = load.tally().requests();
        wait::until_true(PATIENCE, "the load to go on", || {
            load.tally().requests() > so_far + 60
        })
        .unwrap();
    }
}

#[test]
fn neither_kill_nor_term_nor_restart_costs_a_request() {
    let mut world = world();
    let clients = world.everywhere();
    let loads: Vec<Load> = clients.iter().flat_map(loads).collect();
    more(&loads);
    for round in 0..2 {
        for index in 0..2 {
            let agent = &mut world.plane.agents[index];
            if round == 0 {
                agent.kill()
            } else {
                agent.terminate()
            }
            .unwrap();
            more(&loads);
            agent.start().unwrap();
            more(&loads);
        }
    }
    for (index, load) in loads.into_iter().enumerate() {
        let (tally, client) = (load.stop(), &clients[index / 2].name);
        assert_eq!(tally.failures(), 0, "{client}: {}", tally.failure_kinds());
    }
}

#[test]
fn what_changed_while_an_agent_was_away_is_in_force_when_it_is_back() {
    let mut world = world();
    for agent in &mut world.plane.agents {
        agent.kill().unwrap();
    }
    world.plane.set_ready("web-1", false).unwrap();
    world.service("more", vip(2));
    world.pod("more-1", 1, &[("app", "more")]);
    for agent in &mut world.plane.agents {
        agent.start().unwrap();
    }
    for client in world.everywhere() {
        let tally = client.load(at(vip(1), 80), 40);
        let names: Vec<_> = tally.by_name.keys().cloned().collect();
        assert_eq!(
            (names, tally.failures()),
            (vec!["web-2".to_owned()], 0),
            "{}",
            client.name
        );
        for to in at(vip(2), 80) {
            assert_eq!(client.get(to).unwrap().name, "more-1", "{}", client.name);
        }
    }
}

#[test]
fn cleanup_removes_every_trace() {
    let mut world = world();
    for index in 0..2 {
        let agent = &mut world.plane.agents[index];
        agent.terminate().unwrap();
        agent.cleanup().unwrap();
        let left = std::fs::read_dir(agent.bpffs()).map_or(0, |pins| pins.count());
        assert_eq!(left, 0, "pins of {}", agent.node().name());
    }
    for client in world.everywhere() {
        for to in at(vip(1), 80) {
            assert!(client.try_get(to).is_err(), "{} to {to}", client.name);
        }
        for to in at(world.plane.pod("web-2").addrs(), crate::world::TCP) {
            client.get(to).unwrap();
        }
    }
}
