//! Whose address an endpoint sees.

use std::net::SocketAddr;

use serde_json::json;
use sluice_lab::kube::objects::ServiceManifest;
use sluice_lab::topology::Dual;
use sluice_lab::wait;
use sluice_lab::workload::client::Connection;

use crate::world::{Client, PATIENCE, REQUEST, TCP, UDP, World, at, external, same_family, vip};

const BOTH: [&str; 2] = ["web-1", "web-2"];

fn service() -> ServiceManifest {
    ServiceManifest::new("web")
        .cluster_ips(vip(1).both())
        .port("http", 80, TCP)
        .udp_port("dns", 53, UDP)
}

/// The addresses that each endpoint sees of a client are among those given for it.
fn are_seen(client: &Client, to: SocketAddr, expected: [&[Dual]; 2]) {
    client.await_names(to, &BOTH);
    for _ in 0..12 {
        let answer = client.get(to).unwrap();
        let place = BOTH.iter().position(|name| *name == answer.name);
        let expected = expected[place.expect("one of both")];
        let seen = answer.peer.ip();
        let mut expected = expected.iter().map(|dual| same_family(*dual, to.ip()));
        assert!(
            expected.any(|ip| ip == seen),
            "{} sees {seen} for {} by {to}",
            answer.name,
            client.name
        );
    }
}

#[test]
fn with_masquerading_for_all_pods_are_seen_as_their_node() {
    let mut world = World::with_args(&["--masquerade-all"]);
    world.pod_on_each_node("web");
    world.apply(&service());
    world.await_service(vip(1), 80);
    for node in [1, 2] {
        let of = world.plane.cluster().node(node);
        let own = [of.addrs(), of.gateway()];
        for client in [world.client(node), world.host(node)] {
            for to in at(vip(1), 80) {
                are_seen(&client, to, [&own, &own]);
            }
        }
        for to in at(vip(1), 53) {
            for _ in 0..12 {
                let answer = world.client(node).ask(to).unwrap();
                let seen = answer.peer.ip();
                let own = own.map(|dual| same_family(dual, to.ip()));
                assert!(own.contains(&seen), "{} sees {seen}", answer.name);
            }
        }
    }
}

#[test]
fn a_client_outside_at_a_cluster_ip_is_seen_as_the_node_only_from_another_one() {
    let mut world = World::new();
    world.pod_on_each_node("web");
    world.apply(&service());
    let outside = world.outside();
    for node in [1, 2] {
        world.route_outside(vip(1), node);
        let (own, own_node) = ([outside.addrs], [world.host(node).addrs]);
        let expected: [&[Dual]; 2] = match node {
            1 => [&own, &own_node],
            _ => [&own_node, &own],
        };
        for to in at(vip(1), 80) {
            are_seen(&outside, to, expected);
        }
    }
}

#[test]
fn a_flow_for_which_no_source_port_is_left_is_refused_and_counted() {
    const PORTS: usize = 4;
    let mut world = World::with_args(&["--snat-ports=61000-61003"]);
    world.pod("web", 2, &[("app", "web")]);
    world.apply(&service().with("externalIPs", json!(external(1).both())));
    world.route_outside(external(1), 1);
    let outside = world.outside();
    let open = |to: SocketAddr| outside.netns.run(|| Connection::open(None, to, REQUEST));
    for (family, to) in at(external(1), 80).into_iter().enumerate() {
        let mut held: Vec<Connection> = Vec::new();
        let what = format!("{to} to hold {PORTS} connections");
        wait::until(PATIENCE, &what, || {
            while held.len() < PORTS {
                held.push(open(to)?);
            }
            Ok::<(), sluice_lab::workload::Failure>(())
        })
        .unwrap();
        let refused = open(to).unwrap_err();
        assert!(refused.is_refused(), "{to}: {refused}");
        let status = world.plane.agents[0].status().unwrap();
        let counted = status["drops"]["snat-exhausted"].as_u64();
        assert!(counted > Some(family as u64), "{status}");
        for connection in &mut held {
            let answer = connection.get("/", false).unwrap();
            assert_eq!(answer.peer.ip(), same_family(world.host(1).addrs, to.ip()));
            assert!(
                (61_000..=61_003).contains(&answer.peer.port()),
                "{answer:?}"
            );
        }
        drop(held);
        wait::until(PATIENCE, "a port that is free again", || open(to)).unwrap();
    }
}
