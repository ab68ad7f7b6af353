//! `sessionAffinity: ClientIP`.

use std::time::{Duration, Instant};

use serde_json::json;
use sluice_lab::kube::objects::ServiceManifest;
use sluice_lab::wait;

use crate::world::{PATIENCE, World, at, external, vip};

/// Longer than the affinity of two seconds, which counts whole ones.
const AWAY: Duration = Duration::from_millis(3_100);

#[test]
fn a_client_stays_with_its_pod_as_long_as_there_is_one() {
    let mut world = World::new();
    for (name, node) in [("web-1", 1), ("web-2", 2), ("web-3", 1), ("web-4", 2)] {
        world.pod(name, node, &[("app", "web")]);
    }
    let service = ServiceManifest::new("web")
        .cluster_ips(vip(1).both())
        .port("http", 80, 8080);
    world.apply(&service.with("sessionAffinity", json!("ClientIP")));
    world.await_service(vip(1), 80);
    for client in world.everywhere() {
        for to in at(vip(1), 80) {
            let tally = client.load([to], 40);
            let names: Vec<_> = tally.by_name.keys().cloned().collect();
            assert_eq!(
                (names.len(), tally.failures()),
                (1, 0),
                "{} to {to}: {names:?}",
                client.name
            );
        }
    }
    let (client, to) = (world.client(1), at(vip(1), 80)[0]);
    let first = client.get(to).unwrap().name;
    world.plane.set_ready(&first, false).unwrap();
    let other = wait::until(PATIENCE, "the client to get another pod", || {
        let name = client.get(to).map_err(|failure| failure.to_string())?.name;
        if name == first {
            Err(format!("it is still {name}"))
        } else {
            Ok(name)
        }
    });
    let tally = client.load([to], 40);
    let names: Vec<_> = tally.by_name.keys().cloned().collect();
    assert_eq!(names, [other.unwrap()]);
}

#[test]
fn the_addresses_of_a_services_port_share_its_affinity() {
    let mut world = World::new();
    for (name, node) in [("web-1", 1), ("web-2", 2), ("web-3", 1), ("web-4", 2)] {
        world.pod(name, node, &[("app", "web")]);
    }
    let service = ServiceManifest::new("web")
        .cluster_ips(vip(1).both())
        .node_port("http", 80, 8080, 30080)
        .load_balancer(external(1).both(), "VIP")
        .with("externalIPs", json!(external(2).both()))
        .with("sessionAffinity", json!("ClientIP"));
    world.apply(&service);
    world.await_service(vip(1), 80);
    for (node, client) in [1, 2].into_iter().zip(world.pods()) {
        for family in [0, 1] {
            let expected = client.get(at(vip(1), 80)[family]).unwrap().name;
            let others = [
                at(external(1), 80),
                at(external(2), 80),
                world.node_at(node, 30080),
            ];
            for to in others.map(|both| both[family]) {
                client.await_names(to, &[&expected]);
            }
        }
    }
}

#[test]
fn affinity_ends_when_a_client_was_away_long_enough() {
    let mut world = World::new();
    for (name, node) in [("web-1", 1), ("web-2", 2), ("web-3", 1), ("web-4", 2)] {
        world.pod(name, node, &[("app", "web")]);
    }
    let service = ServiceManifest::new("web")
        .cluster_ips(vip(1).both())
        .port("http", 80, 8080)
        .with("sessionAffinity", json!("ClientIP"))
        .with(
            "sessionAffinityConfig",
            json!({ "clientIP": { "timeoutSeconds": 2 } }),
        );
    world.apply(&service);
    world.await_service(vip(1), 80);
    let clients = world.everywhere();
    let dialled = clients
        .iter()
        .flat_map(|client| at(vip(1), 80).map(|to| (client, to)));
    let mut staying: Vec<_> = dialled
        .map(|(client, to)| {
            let tally = client.load([to], 20);
            let names: Vec<_> = tally.by_name.into_keys().collect();
            assert_eq!(names.len(), 1, "{} to {to}: {names:?}", client.name);
            (client, to, names)
        })
        .collect();
    // One of four is chosen anew each time: the same one again is no failure, many times would be.
    for _ in 0..12 {
        if staying.is_empty() {
            break;
        }
        let asked = Instant::now();
        wait::until_true(PATIENCE, "the affinity to run out", || {
            asked.elapsed() > AWAY
        })
        .unwrap();
        staying.retain(|(client, to, names)| client.get(*to).unwrap().name == names[0]);
    }
    let staying = staying.iter().map(|(client, to, _)| (&client.name, to));
    assert_eq!(staying.collect::<Vec<_>>(), []);
}
