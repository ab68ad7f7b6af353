//! NodePort Services.

use std::net::SocketAddr;

use serde_json::json;
use sluice_lab::kube::objects::ServiceManifest;
use sluice_lab::workload::udp::UdpClient;

use crate::world::{Client, REQUEST, TCP, UDP, World, at, external, same_family, vip};

pub const PORT: u16 = 30080;
pub const UDP_PORT: u16 = 30053;

pub fn service(name: &str) -> ServiceManifest {
    let udp = json!({
        "name": "dns", "port": 53, "targetPort": UDP, "nodePort": UDP_PORT, "protocol": "UDP",
    });
    ServiceManifest::new(name)
        .cluster_ips(vip(1).both())
        .node_port("http", 80, TCP, PORT)
        .port_object(udp)
}

#[test]
fn either_node_serves_a_client_outside() {
    let mut world = World::new();
    world.pod_on_each_node("web");
    world.apply(&service("web"));
    let outside = world.outside();
    for node in [1, 2] {
        for to in world.node_at(node, PORT) {
            outside.await_names(to, &["web-1", "web-2"]);
            for _ in 0..12 {
                let answer = outside.get(to).unwrap();
                let local = answer.name == format!("web-{node}");
                let seen = if local {
                    outside.addrs
                } else {
                    world.host(node).addrs
                };
                assert_eq!(
                    answer.peer.ip(),
                    same_family(seen, to.ip()),
                    "{} by {to}",
                    answer.name
                );
            }
            for path in ["/pad/300000"; 4] {
                let get = || sluice_lab::workload::client::get(to, path, REQUEST);
                outside
                    .netns
                    .run(get)
                    .unwrap_or_else(|error| panic!("{to}: {error}"));
            }
        }
        for to in world.node_at(node, UDP_PORT) {
            let mut names = std::collections::BTreeSet::new();
            for _ in 0..24 {
                let answer = outside
                    .netns
                    .run(|| UdpClient::open(to, false)?.ask(REQUEST));
                names.insert(answer.unwrap_or_else(|error| panic!("{to}: {error}")).name);
            }
            assert_eq!(names.len(), 2, "{to}: {names:?}");
        }
    }
}

#[test]
fn pods_and_nodes_reach_either_nodes_port() {
    let mut world = World::new();
    world.pod_on_each_node("web");
    world.apply(&service("web"));
    for client in world.everywhere() {
        for node in [1, 2] {
            for to in world.node_at(node, PORT) {
                client.await_names(to, &["web-1", "web-2"]);
            }
        }
    }
}

#[test]
fn with_the_local_policy_a_node_uses_only_its_own_pods() {
    let mut world = World::new();
    world.pod("web-1", 1, &[("app", "web")]);
    world.apply(&service("web").with("externalTrafficPolicy", json!("Local")));
    let outside = world.outside();
    for to in world.node_at(1, PORT) {
        outside.await_names(to, &["web-1"]);
        assert_eq!(
            outside.get(to).unwrap().peer.ip(),
            same_family(outside.addrs, to.ip())
        );
    }
    for to in world.node_at(2, PORT) {
        let failure = outside.try_get(to).unwrap_err();
        assert!(failure.is_timeout(), "{to}: {failure}");
    }
    // Clients on a node are served by any pod.
    for client in [world.client(2), world.host(2)] {
        for to in world.node_at(2, PORT) {
            client.await_names(to, &["web-1"]);
        }
    }
    // At another node, they are clients outside of it.
    for client in [world.client(1), world.host(1)] {
        for to in world.node_at(2, PORT) {
            client.await_dropped(to);
        }
    }
    for client in [world.client(2), world.host(2)] {
        for to in world.node_at(1, PORT) {
            client.await_names(to, &["web-1"]);
            let seen = client.get(to).unwrap().peer.ip();
            assert_eq!(seen, same_family(client.addrs, to.ip()), "{}", client.name);
        }
    }
}

#[test]
fn an_address_without_endpoints_refuses_whatever_its_kind() {
    let world = World::new();
    for (n, policy) in [(1, "Cluster"), (2, "Local")] {
        let empty = service("empty")
            .cluster_ips(vip(n).both())
            .load_balancer(external(n).both(), "VIP")
            .with("externalIPs", json!(external(n + 2).both()))
            .with("internalTrafficPolicy", json!(policy))
            .with("externalTrafficPolicy", json!(policy));
        world.apply(&empty);
        let addresses = [vip(n), external(n), external(n + 2)];
        for addrs in addresses {
            world.route_outside(addrs, n);
        }
        for client in world.everywhere().into_iter().chain([world.outside()]) {
            for addrs in addresses {
                are_refused(&client, at(addrs, 80), at(addrs, 53));
            }
            for node in [1, 2] {
                are_refused(
                    &client,
                    world.node_at(node, PORT),
                    world.node_at(node, UDP_PORT),
                );
            }
        }
    }
}

fn are_refused(client: &Client, tcp: [SocketAddr; 2], udp: [SocketAddr; 2]) {
    for to in tcp {
        client.await_refused(to);
    }
    for to in udp {
        client.await_datagrams_refused(to);
    }
}
