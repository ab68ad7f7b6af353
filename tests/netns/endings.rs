//! What becomes of open connections and flows when their endpoint goes.

use std::net::SocketAddr;

use serde_json::json;
use sluice_lab::kube::objects::ServiceManifest;
use sluice_lab::topology::Dual;
use sluice_lab::wait;
use sluice_lab::workload::client::Connection;
use sluice_lab::workload::udp::UdpClient;

use crate::world::{Client, DROPPED, PATIENCE, REQUEST, TCP, UDP, World, at, external, vip};

/// A Service of the pods `web-*`, with an address for clients outside.
fn service(name: &str, own: Dual, outside: Dual) -> ServiceManifest {
    ServiceManifest::new(name)
        .select("app", "web")
        .cluster_ips(own.both())
        .port("http", 80, TCP)
        .udp_port("dns", 53, UDP)
        .with("externalIPs", json!(outside.both()))
}

/// Connections to `web-1` of every client to what it dials, with what to say of them.
fn connections(clients: &[(Client, Vec<SocketAddr>)]) -> Vec<(String, Connection)> {
    let mut opened = Vec::new();
    for (client, to) in clients {
        for to in to {
            client.await_names(*to, &["web-1", "web-2"]);
            opened.push((format!("{} to {to}", client.name), to_first(client, *to)));
        }
    }
    opened
}

fn to_first(client: &Client, to: SocketAddr) -> Connection {
    for _ in 0..64 {
        let open = || Connection::open(None, to, REQUEST);
        let mut connection = client.netns.run(open).unwrap();
        if connection.get("/", false).unwrap().name == "web-1" {
            return connection;
        }
    }
    panic!("{} to {to}: always the same", client.name);
}

/// Every client with the addresses that it dials.
fn dialled(world: &World, own: Dual, outside: Dual) -> Vec<(Client, Vec<SocketAddr>)> {
    let inside = world.everywhere().into_iter();
    let inside = inside.map(|client| (client, at(own, 80).to_vec()));
    let outside = (world.outside(), at(outside, 80).to_vec());
    inside.chain([outside]).collect()
}

#[test]
fn connections_go_on_or_are_reset_as_their_service_asks() {
    let mut world = World::new();
    world.pod_on_each_node("web");
    world.apply(&service("drains", vip(1), external(1)));
    let resets = service("resets", vip(2), external(2));
    world.apply(&resets.annotation("sluice.dev/on-backend-removed", "reset"));
    // By node-2, so that the backend is on another node.
    for addrs in [external(1), external(2)] {
        world.route_outside(addrs, 2);
    }
    let mut drained = connections(&dialled(&world, vip(1), external(1)));
    let reset = connections(&dialled(&world, vip(2), external(2)));
    world.plane.set_ready("web-1", false).unwrap();
    for (what, mut connection) in reset {
        let ended = || match connection.get("/", false) {
            Ok(answer) => Err(format!("{} answers", answer.name)),
            Err(failure) if failure.is_timeout() => panic!("{what} is not told: {failure}"),
            Err(_) => Ok(()),
        };
        wait::until(PATIENCE, &format!("{what} to end"), ended).unwrap();
    }
    for (what, connection) in &mut drained {
        let answer = connection.get("/", false);
        let answer = answer.unwrap_or_else(|failure| panic!("{what}: {failure}"));
        assert_eq!(answer.name, "web-1", "{what}");
    }
}

#[test]
fn datagrams_from_outside_move_when_a_pod_goes_also_the_last_one() {
    let mut world = World::new();
    world.pod_on_each_node("web");
    world.apply(&service("web", vip(1), external(1)));
    let outside = world.outside();
    for node in [1, 2] {
        world.route_outside(external(1), node);
        let sockets = at(external(1), 53).map(|to| {
            outside.eventually_gets(SocketAddr::new(to.ip(), 80));
            let socket = outside.netns.run(|| UdpClient::open(to, false)).unwrap();
            let first = socket.ask(REQUEST).unwrap().name;
            (to, socket, first)
        });
        let is_answered_by = |name: &str| {
            for (to, socket, first) in &sockets {
                let what = format!("{to}, first answered by {first}, to be answered by {name}");
                wait::until(PATIENCE, &what, || match socket.ask(DROPPED) {
                    Ok(answer) if answer.name == name => Ok(()),
                    other => Err(format!("{other:?}")),
                })
                .unwrap();
            }
        };
        world.plane.set_ready("web-1", false).unwrap();
        is_answered_by("web-2");
        world.plane.set_ready("web-2", false).unwrap();
        for (to, socket, _) in &sockets {
            let what = format!("{to} to be without a pod");
            wait::until_true(PATIENCE, &what, || socket.ask(DROPPED).is_err()).unwrap();
        }
        world.plane.set_ready("web-1", true).unwrap();
        is_answered_by("web-1");
        world.plane.set_ready("web-2", true).unwrap();
    }
}
