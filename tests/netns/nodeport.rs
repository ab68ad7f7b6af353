//! NodePort Services.

use std::net::SocketAddr;

use serde_json::json;
use sluice_lab::kube::objects::ServiceManifest;
use sluice_lab::wait;
use sluice_lab::workload::udp::UdpClient;

use crate::world::{Client, DROPPED, PATIENCE, REQUEST, TCP, UDP, World, at, same_family, vip};

const PORT: u16 = 30080;
const UDP_PORT: u16 = 30053;

fn service(name: &str) -> ServiceManifest {
    let udp = json!({
        "name": "dns", "port": 53, "targetPort": UDP, "nodePort": UDP_PORT, "protocol": "UDP",
    });
    ServiceManifest::new(name)
        .cluster_ips(vip(1).both())
        .node_port("http", 80, TCP, PORT)
        .port_object(udp)
}

/// Waits until a client gets answers from every pod that it is to get them from.
fn await_names(client: &Client, to: SocketAddr, names: &[&str]) {
    wait::until(
        PATIENCE,
        &format!("{to} to answer {} as {names:?}", client.name),
        || {
            let tally = client.load([to], 24);
            let seen: Vec<_> = tally.by_name.keys().map(String::as_str).collect();
            if seen == names && tally.failures() == 0 {
                Ok(())
            } else {
                Err(format!("{seen:?}, {}", tally.failure_kinds()))
            }
        },
    )
    .unwrap();
}

#[test]
fn either_node_serves_a_client_outside() {
    let mut world = World::new();
    world.pod_on_each_node("web");
    world.apply(&service("web"));
    let outside = world.outside();
    for node in [1, 2] {
        for to in world.node_at(node, PORT) {
            await_names(&outside, to, &["web-1", "web-2"]);
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
                await_names(&client, to, &["web-1", "web-2"]);
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
        await_names(&outside, to, &["web-1"]);
        assert_eq!(
            outside.get(to).unwrap().peer.ip(),
            same_family(outside.addrs, to.ip())
        );
    }
    for to in world.node_at(2, PORT) {
        let failure = outside.try_get(to).unwrap_err();
        assert!(failure.is_timeout(), "{to}: {failure}");
    }
    // Clients in the cluster are served by any pod.
    for to in world.node_at(2, PORT) {
        await_names(&world.client(2), to, &["web-1"]);
    }
}

#[test]
fn a_node_port_without_endpoints_refuses() {
    let world = World::new();
    world.apply(&service("empty"));
    let outside = world.outside();
    for node in [1, 2] {
        for to in world.node_at(node, PORT) {
            let failure = outside.get(to).unwrap_err();
            assert!(failure.is_refused(), "{to}: {failure}");
        }
        for to in world.node_at(node, UDP_PORT) {
            let asked = outside
                .netns
                .run(|| UdpClient::open(to, true)?.ask(DROPPED));
            assert!(asked.is_err_and(|failure| !failure.is_timeout()), "{to}");
        }
    }
    for client in world.pods() {
        for to in at(vip(1), 80) {
            client.eventually_fails(to);
        }
    }
}
