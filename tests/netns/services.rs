//! ClusterIP Services.

use std::time::{Duration, Instant};

use serde_json::json;
use sluice_lab::kube::PodRun;
use sluice_lab::kube::objects::ServiceManifest;
use sluice_lab::wait;
use sluice_lab::workload::client::{self, Connection};
use sluice_lab::workload::{Load, LoadSpec, ServerSpec};

use crate::world::{DROPPED, PATIENCE, REQUEST, TCP, World, at, pod, same_family, vip};

#[test]
fn every_client_reaches_every_pod_and_is_seen_with_its_own_address() {
    let mut world = World::new();
    world.pod_on_each_node("web");
    world.service("web", vip(1));
    world.await_service(vip(1), 80);
    for client in world.everywhere() {
        for to in at(vip(1), 80) {
            let tally = client.load([to], 60);
            assert_eq!(
                tally.failures(),
                0,
                "{} to {to}: {}",
                client.name,
                tally.failure_kinds()
            );
            assert_eq!(
                tally.by_name.len(),
                2,
                "{} to {to}: {:?}",
                client.name,
                tally.by_name
            );
        }
    }
    for client in world.pods() {
        for to in at(vip(1), 80) {
            for _ in 0..10 {
                let seen = client.get(to).unwrap().peer.ip();
                assert_eq!(
                    seen,
                    same_family(client.addrs, to.ip()),
                    "{} to {to}",
                    client.name
                );
            }
        }
    }
}

#[test]
fn ports_of_clients_are_used_again() {
    let mut world = World::new();
    world.pod_on_each_node("web");
    world.service("web", vip(1));
    world.await_service(vip(1), 80);
    for client in world.everywhere() {
        // So few ports that each is used again, shortly after its last connection ended.
        let settings = [
            ("net/ipv4/ip_local_port_range", "40000 41999"),
            ("net/ipv4/tcp_tw_reuse", "1"),
        ];
        client.netns.sysctl(&settings).unwrap();
        for to in at(vip(1), 80) {
            let tally = client.load([to], 3000);
            let kinds = tally.failure_kinds();
            assert_eq!(tally.failures(), 0, "{} to {to}: {kinds}", client.name);
        }
    }
}

#[test]
fn a_port_that_is_used_again_gets_a_new_choice() {
    let mut world = World::new();
    world.pod("one", 2, &[("app", "web")]);
    world.service("web", vip(1));
    world.await_service(vip(1), 80);
    let clients = world.pods();
    let again = |expected: &str| {
        for client in &clients {
            for (from, to) in at(client.addrs, 45_678).into_iter().zip(at(vip(1), 80)) {
                let answer = client
                    .netns
                    .run(|| client::get_from(from, to, "/", REQUEST));
                let answer = answer.unwrap_or_else(|error| panic!("{from} to {to}: {error}"));
                assert_eq!(answer.name, expected, "{from} to {to}");
            }
        }
    };
    again("one");
    world.pod("two", 1, &[("app", "web")]);
    world.plane.set_ready("one", false).unwrap();
    for client in &clients {
        wait::until_true(PATIENCE, "new connections to go to the new pod", || {
            let names = client.load(at(vip(1), 80), 10).by_name;
            names.keys().map(String::as_str).eq(["two"])
        })
        .unwrap();
    }
    again("two");
}

#[test]
fn a_port_that_asked_before_the_service_was_there_is_served() {
    let mut world = World::new();
    world.pod_on_each_node("web");
    let clients = world.everywhere();
    let from = |client: &crate::world::Client| at(client.addrs, 45_679);
    for client in &clients {
        for (from, to) in from(client).into_iter().zip(at(vip(1), 80)) {
            let early = client
                .netns
                .run(|| client::get_from(from, to, "/", DROPPED));
            assert!(early.is_err(), "{from} to {to}");
        }
    }
    world.service("web", vip(1));
    world.await_service(vip(1), 80);
    for client in &clients {
        for (from, to) in from(client).into_iter().zip(at(vip(1), 80)) {
            let answer = client
                .netns
                .run(|| client::get_from(from, to, "/", REQUEST));
            assert!(answer.is_ok(), "{from} to {to}: {answer:?}");
        }
    }
}

#[test]
fn changes_of_a_service_cost_no_connection() {
    let mut world = World::new();
    world.pod_on_each_node("web");
    world.service("web", vip(1));
    world.await_service(vip(1), 80);
    let clients = world.everywhere();
    let start = |client: &crate::world::Client| {
        let spec = LoadSpec {
            rate: Some(300),
            workers: 2,
            ..LoadSpec::new(at(vip(1), 80))
        };
        Load::start(&client.netns, spec)
    };
    let loads: Vec<Load> = clients.iter().map(start).collect();
    for round in 0..60 {
        let so_far = loads[0].tally().requests();
        world.plane.set_ready("web-1", round % 2 == 1).unwrap();
        wait::until_true(PATIENCE, "the load to go on", || {
            loads[0].tally().requests() >= so_far + 10
        })
        .unwrap();
    }
    for (load, client) in loads.into_iter().zip(&clients) {
        let tally = load.stop();
        assert_eq!(
            tally.failures(),
            0,
            "{}: {}",
            client.name,
            tally.failure_kinds()
        );
    }
}

#[test]
fn long_answers_arrive_whole() {
    let mut world = World::new();
    world.pod_on_each_node("web");
    world.service("web", vip(1));
    world.await_service(vip(1), 80);
    for client in world.everywhere() {
        for to in at(vip(1), 80) {
            for _ in 0..6 {
                // The client checks the length.
                let answer = client.netns.run(|| client::get(to, "/pad/400000", REQUEST));
                answer.unwrap_or_else(|error| panic!("{} to {to}: {error}", client.name));
            }
        }
    }
}

#[test]
fn ports_of_one_service_lead_to_their_own_targets() {
    let mut world = World::new();
    for (name, port) in [("one", 8081), ("two", 8082)] {
        let server = ServerSpec {
            tcp: vec![port],
            ..ServerSpec::default()
        };
        let port_names = vec![name.to_owned()];
        let run = pod(name, 1, &[("app", "web")]);
        world
            .plane
            .run(PodRun {
                server,
                port_names,
                ..run
            })
            .unwrap();
    }
    let named = |name: &str, port| json!({ "name": name, "port": port, "targetPort": name });
    let service = ServiceManifest::new("web").cluster_ips(vip(1).both());
    world.apply(
        &service
            .port_object(named("one", 81))
            .port_object(named("two", 82)),
    );
    for (name, port) in [("one", 81), ("two", 82)] {
        world.await_service(vip(1), port);
        for client in world.everywhere() {
            for to in at(vip(1), port) {
                assert_eq!(
                    client.get(to).unwrap().name,
                    name,
                    "{} to {to}",
                    client.name
                );
            }
        }
    }
}

#[test]
fn a_service_without_endpoints_refuses_at_once() {
    let mut world = World::new();
    world.pod_on_each_node("web");
    world.service("web", vip(1));
    world.service("empty", vip(2));
    // The second Service is known when the first one, in the same folder, is.
    world.await_service(vip(1), 80);
    for client in world.everywhere() {
        for to in at(vip(2), 80) {
            client.await_refused(to);
            // Less than the second after which TCP tries again.
            let at_once = (0..5).any(|_| {
                let begun = Instant::now();
                let failure = client.get(to).unwrap_err();
                assert!(failure.is_refused(), "{} to {to}: {failure}", client.name);
                begun.elapsed() < Duration::from_millis(900)
            });
            assert!(at_once, "{} to {to}", client.name);
        }
    }
}

#[test]
fn a_pod_gets_connections_only_while_it_is_ready() {
    let mut world = World::new();
    world.pod_on_each_node("web");
    world.service("web", vip(1));
    world.await_service(vip(1), 80);
    world.plane.set_ready("web-1", false).unwrap();
    for client in world.everywhere() {
        let what = format!("web-1 to get nothing from {}", client.name);
        wait::until_true(PATIENCE, &what, || {
            !client
                .load(at(vip(1), 80), 20)
                .by_name
                .contains_key("web-1")
        })
        .unwrap();
        let tally = client.load(at(vip(1), 80), 60);
        assert_eq!(
            (tally.failures(), tally.by_name.len()),
            (0, 1),
            "{}",
            client.name
        );
    }
    world.plane.set_ready("web-1", true).unwrap();
    for client in world.everywhere() {
        let what = format!("web-1 to be back for {}", client.name);
        wait::until_true(PATIENCE, &what, || {
            client
                .load(at(vip(1), 80), 20)
                .by_name
                .contains_key("web-1")
        })
        .unwrap();
    }
}

#[test]
fn an_open_connection_outlives_its_pods_readiness() {
    let mut world = World::new();
    world.pod_on_each_node("web");
    world.service("web", vip(1));
    world.await_service(vip(1), 80);
    let clients = world.everywhere();
    let open = |client: &crate::world::Client| {
        at(vip(1), 80).map(|to| {
            let mut connection = client
                .netns
                .run(|| Connection::open(None, to, REQUEST))
                .unwrap();
            let name = connection.get("/", false).unwrap().name;
            (connection, name)
        })
    };
    let connections: Vec<_> = clients.iter().flat_map(open).collect();
    for name in ["web-1", "web-2"] {
        world.plane.set_ready(name, false).unwrap();
    }
    for client in &clients {
        for to in at(vip(1), 80) {
            client.eventually_fails(to);
        }
    }
    for (mut connection, name) in connections {
        assert_eq!(connection.get("/", false).unwrap().name, name);
    }
}

#[test]
fn a_host_process_is_told_the_service_as_its_peer() {
    let mut world = World::new();
    world.pod_on_each_node("web");
    world.service("web", vip(1));
    world.await_service(vip(1), 80);
    for node in [1, 2] {
        for to in at(vip(1), 80) {
            let host = world.host(node);
            let connection = host
                .netns
                .run(|| Connection::open(None, to, REQUEST))
                .unwrap();
            assert_eq!(
                connection.stream().peer_addr().unwrap(),
                to,
                "{}",
                host.name
            );
        }
    }
}

#[test]
fn a_deleted_service_is_gone_and_its_pods_are_not() {
    let mut world = World::new();
    world.pod_on_each_node("web");
    world.service("web", vip(1));
    world.await_service(vip(1), 80);
    world.plane.manifests.remove("service-web").unwrap();
    for client in world.everywhere() {
        for to in at(vip(1), 80) {
            client.eventually_fails(to);
        }
        for to in at(world.plane.pod("web-1").addrs(), TCP) {
            client.get(to).unwrap();
        }
    }
}

#[test]
fn a_pod_cannot_send_from_another_address() {
    let mut world = World::new();
    world.pod("web", 2, &[("app", "web")]);
    let (client, to) = (world.client(1), at(world.plane.pod("web").addrs(), TCP));
    // Addresses of the node's own pods' range: they would be routed back to this node.
    client
        .netns
        .ip([
            "addr add 10.244.1.250/32 dev eth0",
            "addr add fd44:1::fa/128 dev eth0 nodad",
        ])
        .unwrap();
    let node = world.plane.cluster().node(1);
    let host_if = world.plane.pod("client-1").host_if().to_owned();
    node.netns()
        .ip([
            format!("route add 10.244.1.250/32 dev {host_if}"),
            format!("route add fd44:1::fa/128 dev {host_if}"),
        ])
        .unwrap();
    let forged = ["10.244.1.250:0", "[fd44:1::fa]:0"].map(|addr| addr.parse().unwrap());
    for ((from, own), to) in forged.into_iter().zip(at(client.addrs, 0)).zip(to) {
        let answer = client.netns.run(|| client::get_from(own, to, "/", REQUEST));
        answer.unwrap_or_else(|error| panic!("{own} to {to}: {error}"));
        let answer = client
            .netns
            .run(|| client::get_from(from, to, "/", DROPPED));
        assert!(
            answer.is_err_and(|failure| failure.is_timeout()),
            "{from} to {to}"
        );
    }
}

#[test]
fn a_pod_that_comes_at_a_used_address_is_served_as_itself() {
    let mut world = World::new();
    world.pod_on_each_node("web");
    world.service("web", vip(1));
    world.await_service(vip(1), 80);
    let old = world.plane.pod("web-2").addrs();
    world.plane.delete("web-2").unwrap();
    world.plane.await_deletions().unwrap();
    let host = old.v4.octets()[3];
    let again = world.plane.cluster().add_pod_at(2, "again", host).unwrap();
    let server = ServerSpec {
        name: "again".into(),
        tcp: vec![TCP],
        ..ServerSpec::default()
    };
    let _running = again
        .netns()
        .run(|| sluice_lab::workload::Server::start(server))
        .unwrap();
    let mut manifest =
        sluice_lab::kube::objects::PodManifest::new("again", "node-2").label("app", "web");
    (manifest.addrs, manifest.ready) = (Some(again.addrs()), true);
    world
        .plane
        .manifests
        .write("pod-again", &[manifest.object()])
        .unwrap();
    for client in world.everywhere() {
        let what = format!("the new pod to answer {}", client.name);
        wait::until_true(PATIENCE, &what, || {
            client
                .load(at(vip(1), 80), 20)
                .by_name
                .contains_key("again")
        })
        .unwrap();
    }
}
