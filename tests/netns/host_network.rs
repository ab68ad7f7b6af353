//! Endpoints in the network of their node.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use serde_json::json;
use sluice_lab::kube::objects::{ServiceManifest, SliceManifest};
use sluice_lab::topology::Family;
use sluice_lab::workload::{Server, ServerSpec, client, udp};

use crate::world::{Client, REQUEST, TCP, UDP, World, at, external, same_family, vip};

const PORT: u16 = 30080;
const BOTH: [&str; 2] = ["host-1", "host-2"];

/// A server on each node, and a Service that has them as its endpoints.
fn serve_on_nodes(world: &mut World) -> Vec<Server> {
    let started = BOTH.into_iter().zip([1, 2]).map(|(name, node)| {
        let node = world.plane.cluster().node(node);
        let server = ServerSpec {
            name: name.to_owned(),
            tcp: vec![TCP],
            udp: vec![UDP],
            udp_at: node.addrs().both().to_vec(),
            ..ServerSpec::default()
        };
        node.netns().run(|| Server::start(server)).unwrap()
    });
    let servers = started.collect();
    let service = ServiceManifest::new("host")
        .cluster_ips(vip(1).both())
        .node_port("http", 80, TCP, PORT)
        .udp_port("dns", 53, UDP)
        .with("externalIPs", json!(external(1).both()));
    world.apply(&service);
    for family in Family::ALL {
        let mut slice = SliceManifest::new("host", family)
            .port("http", TCP)
            .udp_port("dns", UDP);
        for node in [1, 2] {
            let of = world.plane.cluster().node(node);
            slice = slice.endpoint(of.addrs(), &of.name(), &json!({}));
        }
        world.plane.apply(&slice.object()).unwrap();
    }
    servers
}

#[test]
fn they_serve_pods_hosts_and_clients_outside() {
    let mut world = World::new();
    let _servers = serve_on_nodes(&mut world);
    for client in world.everywhere() {
        for to in at(vip(1), 80).into_iter().chain(at(external(1), 80)) {
            client.await_names(to, &BOTH);
        }
        for to in at(vip(1), 53) {
            are_answered(&client, to);
        }
    }
    let outside = world.outside();
    for node in [1, 2] {
        for to in world.node_at(node, PORT) {
            outside.await_names(to, &BOTH);
        }
        world.route_outside(external(1), node);
        for to in at(external(1), 80) {
            outside.await_names(to, &BOTH);
        }
    }
}

/// Both endpoints answer datagrams.
fn are_answered(client: &Client, to: SocketAddr) {
    let ask = || client.netns.run(|| udp::ask(to, REQUEST));
    let answers = (0..24).map(|_| ask().unwrap_or_else(|e| panic!("{} to {to}: {e}", client.name)));
    let names: BTreeSet<_> = answers.map(|answer| answer.name).collect();
    assert_eq!(names.len(), 2, "{} to {to}: {names:?}", client.name);
}

#[test]
fn a_host_is_served_without_socket_hooks_also_by_itself() {
    let mut world = World::with_args(&["--socket-lb=off"]);
    let _servers = serve_on_nodes(&mut world);
    world.pod_on_each_node("web");
    world.service("web", vip(2));
    for client in [world.host(1), world.host(2)] {
        for (vip, names) in [(vip(1), BOTH), (vip(2), ["web-1", "web-2"])] {
            for to in at(vip, 80) {
                client.await_names(to, &names);
                for path in ["/pad/300000"; 4] {
                    let answer = client.netns.run(|| client::get(to, path, REQUEST));
                    answer.unwrap_or_else(|e| panic!("{} to {to}: {e}", client.name));
                }
            }
            for to in at(vip, 53) {
                are_answered(&client, to);
            }
        }
    }
}

#[test]
fn they_see_pods_as_they_are_and_clients_outside_as_long_as_no_second_node_is_on_the_way() {
    let mut world = World::new();
    let _servers = serve_on_nodes(&mut world);
    for client in world.pods() {
        for to in at(vip(1), 80) {
            client.await_names(to, &BOTH);
            for _ in 0..8 {
                let seen = client.get(to).unwrap().peer.ip();
                assert_eq!(seen, same_family(client.addrs, to.ip()), "{to}");
            }
        }
    }
    let outside = world.outside();
    for node in [1, 2] {
        for to in world.node_at(node, PORT) {
            outside.await_names(to, &BOTH);
            for _ in 0..8 {
                let answer = outside.get(to).unwrap();
                let expected = if answer.name == format!("host-{node}") {
                    outside.addrs
                } else {
                    world.host(node).addrs
                };
                let expected = same_family(expected, to.ip());
                assert_eq!(answer.peer.ip(), expected, "{} by {to}", answer.name);
            }
        }
    }
}
