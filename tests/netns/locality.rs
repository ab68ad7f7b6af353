//! Which endpoints serve: policies for traffic, hints, and endpoints that terminate.

use serde_json::{Value, json};
use sluice_lab::kube::objects::{self, ServiceManifest, SliceManifest};
use sluice_lab::topology::Family;

use crate::world::{TCP, World, at, external, same_family, vip};

const BOTH: [&str; 2] = ["web-1", "web-2"];

fn service() -> ServiceManifest {
    ServiceManifest::new("web")
        .cluster_ips(vip(1).both())
        .port("http", 80, TCP)
}

/// Writes slices with `web-1` and `web-2`, and what else is said of them.
fn slices(world: &mut World, more: [Value; 2]) {
    for family in Family::ALL {
        let mut slice = SliceManifest::new("web", family).port("http", TCP);
        for (name, more) in BOTH.iter().zip(&more) {
            slice = slice.pod(world.plane.pod(name), more);
        }
        world.plane.apply(&slice.object()).unwrap();
    }
}

fn conditions(ready: bool, serving: bool, terminating: bool) -> Value {
    json!({ "conditions": { "ready": ready, "serving": serving, "terminating": terminating } })
}

#[test]
fn with_the_internal_policy_a_cluster_ip_stays_on_its_node() {
    let mut world = World::new();
    world.pod_on_each_node("web");
    world.apply(&service().with("internalTrafficPolicy", json!("Local")));
    for node in [1, 2] {
        for client in [world.client(node), world.host(node)] {
            for to in at(vip(1), 80) {
                client.await_names(to, &[BOTH[usize::from(node) - 1]]);
            }
        }
    }
    world.plane.set_ready("web-2", false).unwrap();
    for client in [world.client(2), world.host(2)] {
        for to in at(vip(1), 80) {
            client.await_dropped(to);
        }
    }
    for to in at(vip(1), 80) {
        world.client(1).await_names(to, &["web-1"]);
    }
    // With no endpoint anywhere, it is no matter of policy.
    world.plane.set_ready("web-1", false).unwrap();
    for client in world.everywhere() {
        for to in at(vip(1), 80) {
            client.await_refused(to);
        }
    }
}

#[test]
fn endpoints_without_a_node_are_on_the_node_of_their_device() {
    let mut world = World::new();
    world.pod_on_each_node("web");
    world.apply(&service().with("internalTrafficPolicy", json!("Local")));
    let nowhere = || json!({ "nodeName": null });
    slices(&mut world, [nowhere(), nowhere()]);
    for (node, name) in [1, 2].into_iter().zip(BOTH) {
        for client in [world.client(node), world.host(node)] {
            for to in at(vip(1), 80) {
                client.await_names(to, &[name]);
            }
        }
    }
}

/// [`service`] with the Local policy for clients outside, at both kinds of external address.
fn outside_stays() -> ServiceManifest {
    service()
        .load_balancer(external(1).both(), "VIP")
        .with("externalIPs", json!(external(2).both()))
        .with("externalTrafficPolicy", json!("Local"))
}

#[test]
fn with_the_external_policy_outside_clients_stay_on_the_node_and_are_seen() {
    let mut world = World::new();
    world.pod_on_each_node("web");
    world.apply(&outside_stays());
    let outside = world.outside();
    for addrs in [external(1), external(2)] {
        for (node, name) in [1, 2].into_iter().zip(BOTH) {
            world.route_outside(addrs, node);
            for to in at(addrs, 80) {
                outside.await_names(to, &[name]);
                let seen = outside.get(to).unwrap().peer.ip();
                assert_eq!(seen, same_family(outside.addrs, to.ip()), "{to}");
            }
        }
    }
    world.plane.set_ready("web-2", false).unwrap();
    for addrs in [external(1), external(2)] {
        for to in at(addrs, 80) {
            outside.await_dropped(to);
        }
    }
}

#[test]
fn with_the_external_policy_clients_on_a_node_reach_every_pod() {
    let mut world = World::new();
    world.pod_on_each_node("web");
    world.apply(&outside_stays());
    for addrs in [external(1), external(2)] {
        for client in world.everywhere() {
            for to in at(addrs, 80) {
                client.await_names(to, &BOTH);
            }
        }
    }
    world.plane.set_ready("web-2", false).unwrap();
    for client in [world.client(2), world.host(2)] {
        for to in at(external(1), 80) {
            client.await_names(to, &["web-1"]);
        }
    }
}

#[test]
fn hints_of_nodes_come_before_hints_of_zones() {
    let mut world = World::new();
    world.pod_on_each_node("web");
    let nodes = world.plane.cluster().nodes().iter();
    let nodes = nodes.zip(["here", "there"]).map(|(node, zone)| {
        let mut object = objects::node(node);
        object["metadata"]["labels"]["topology.kubernetes.io/zone"] = json!(zone);
        object
    });
    let base: Vec<_> = nodes.chain([objects::namespace("default", &[])]).collect();
    world.plane.manifests.write("cluster", &base).unwrap();
    let zone = |name: &str| json!({ "hints": { "forZones": [{ "name": name }] } });
    let expect = |world: &World, names: [&[&str]; 2]| {
        for (node, names) in [1, 2].into_iter().zip(names) {
            for client in [world.client(node), world.host(node)] {
                for to in at(vip(1), 80) {
                    client.await_names(to, names);
                }
            }
        }
    };
    world.apply(&service());
    slices(&mut world, [zone("here"), zone("there")]);
    expect(&world, [&["web-1"], &["web-2"]]);
    // Nobody is for node-2's zone: its clients use all.
    slices(&mut world, [zone("here"), zone("here")]);
    expect(&world, [&BOTH, &BOTH]);
    slices(&mut world, [zone("elsewhere"), zone("here")]);
    expect(&world, [&["web-2"], &BOTH]);
    let nodes = |zone: &str, node: &str| json!({ "hints": { "forZones": [{ "name": zone }], "forNodes": [{ "name": node }] } });
    slices(
        &mut world,
        [nodes("there", "node-1"), nodes("here", "node-2")],
    );
    expect(&world, [&["web-1"], &["web-2"]]);
    // One endpoint without hints: none hold.
    slices(&mut world, [nodes("here", "node-1"), json!({})]);
    expect(&world, [&BOTH, &BOTH]);
}

#[test]
fn pods_that_terminate_serve_where_no_other_is_ready() {
    let mut world = World::new();
    world.pod_on_each_node("web");
    world.route_outside(external(1), 1);
    let service = service()
        .load_balancer(external(1).both(), "VIP")
        .with("externalTrafficPolicy", json!("Local"));
    world.apply(&service);
    let leaving = || conditions(false, true, true);
    let outside = world.outside();
    slices(&mut world, [leaving(), conditions(true, true, false)]);
    for client in world.everywhere() {
        for to in at(vip(1), 80) {
            client.await_names(to, &["web-2"]);
        }
    }
    // The local set of node-1 has nothing better.
    for to in at(external(1), 80) {
        outside.await_names(to, &["web-1"]);
    }
    slices(&mut world, [leaving(), leaving()]);
    for client in world.everywhere() {
        for to in at(vip(1), 80) {
            client.await_names(to, &BOTH);
        }
    }
    slices(&mut world, [conditions(false, false, true), leaving()]);
    for client in world.everywhere() {
        for to in at(vip(1), 80) {
            client.await_names(to, &["web-2"]);
        }
    }
    for to in at(external(1), 80) {
        outside.await_dropped(to);
    }
}
