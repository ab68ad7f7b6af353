//! Routes that not every packet fits: bulk transfers through Services learn how much does.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

use sluice_lab::kube::objects::ServiceManifest;
use sluice_lab::netns::Netns;
use sluice_lab::wait;

use crate::world::{Client, DROPPED, PATIENCE, REQUEST, World, at, vip};

/// The port that pods send everything back on.
const BULK: u16 = 9_999;
/// Node ports are this and the node that the pod is on.
const NODE_PORTS: u16 = 30_090;
/// Octets of a transfer each way: many windows of TCP.
const LENGTH: usize = 600_000;
/// Octets of a packet, from its network header on, that the narrow routes let through.
const NARROW: u32 = 1_300;

/// Sends connections' data back to them, from a pod.
fn send_back(pod: &Netns) {
    let listener = pod.run(|| TcpListener::bind(("::", BULK))).unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut data = vec![0; LENGTH];
            let read = stream.read_exact(&mut data);
            // A failure is the client's to report: it does not get its data.
            let _ = read.and_then(|()| stream.write_all(&data));
            let _ = stream.read(&mut [0]);
        }
    });
}

/// Has data sent there and back; the connection stays open.
fn transfer(client: &Client, to: SocketAddr) -> TcpStream {
    let sent: Vec<u8> = (0..LENGTH).map(|at| (at / 7) as u8).collect();
    let mut stream = client
        .netns
        .run(|| TcpStream::connect_timeout(&to, REQUEST))
        .unwrap_or_else(|error| panic!("{} to {to}: {error}", client.name));
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    let mut received = vec![0; LENGTH];
    let moved = stream
        .write_all(&sent)
        .and_then(|()| stream.read_exact(&mut received));
    moved.unwrap_or_else(|error| panic!("{} to {to}: {error}", client.name));
    assert!(sent == received, "{} to {to}: other data", client.name);
    stream
}

/// TCP of a namespace knows the path of its open connection.
#[track_caller]
fn assert_learned(netns: &Netns, what: &str) {
    let open = ["-Htin", "state", "established"];
    let text = netns.command("ss", &open).unwrap();
    assert!(text.contains(&format!("pmtu:{NARROW}")), "{what}: {text}");
}

/// Waits until connections are accepted.
fn await_connections(client: &Client, ends: [SocketAddr; 2]) {
    for to in ends {
        let what = format!("{to} to accept {}", client.name);
        let connect = || {
            client
                .netns
                .run(|| TcpStream::connect_timeout(&to, DROPPED))
        };
        wait::until(PATIENCE, &what, connect).unwrap();
    }
}

/// A world with a pod on node 1 that the Service `near` is for, and one on node 2 for `far`.
fn world() -> World {
    let mut world = World::new();
    for (node, app) in [(1, "near"), (2, "far")] {
        world.pod(app, node, &[("app", app)]);
        send_back(world.plane.pod(app).netns());
        let service = ServiceManifest::new(app).cluster_ips(vip(node).both());
        let node_port = NODE_PORTS + u16::from(node);
        world.apply(&service.node_port("bulk", 80, BULK, node_port));
    }
    for node in [1, 2] {
        await_connections(
            &world.outside(),
            world.node_at(1, NODE_PORTS + u16::from(node)),
        );
        await_connections(&world.client(1), at(vip(node), 80));
    }
    world
}

#[test]
fn a_narrow_way_between_nodes_is_learned_by_both_ends() {
    let world = world();
    let cluster = world.plane.cluster();
    for (node, other) in [(1, 2), (2, 1)] {
        let [pods4, pods6] = cluster.node(other).pod_cidrs();
        let to = cluster.node(other).addrs();
        cluster
            .node(node)
            .netns()
            .ip([
                format!("route replace {pods4} via {} mtu lock {NARROW}", to.v4),
                format!("route replace {pods6} via {} mtu lock {NARROW}", to.v6),
                format!("route replace {}/32 dev eth0 mtu lock {NARROW}", to.v4),
                format!("route replace {}/128 dev eth0 mtu lock {NARROW}", to.v6),
            ])
            .unwrap();
    }
    let far = world.plane.pod("far").netns();
    for (client, ends) in [
        (world.client(1), at(vip(2), 80)),
        (world.outside(), world.node_at(1, NODE_PORTS + 2)),
    ] {
        for to in ends {
            let what = format!("{} to {to}", client.name);
            let _open = transfer(&client, to);
            assert_learned(&client.netns, &what);
            assert_learned(far, &what);
        }
    }
}

#[test]
fn a_narrow_way_to_a_client_outside_is_learned_by_backends() {
    let world = world();
    let (cluster, outside) = (world.plane.cluster(), world.outside());
    cluster
        .node(1)
        .netns()
        .ip([
            format!(
                "route add {}/32 dev eth0 mtu lock {NARROW}",
                outside.addrs.v4
            ),
            format!(
                "route add {}/128 dev eth0 mtu lock {NARROW}",
                outside.addrs.v6
            ),
        ])
        .unwrap();
    for (app, port) in [("near", NODE_PORTS + 1), ("far", NODE_PORTS + 2)] {
        for to in world.node_at(1, port) {
            let _open = transfer(&outside, to);
            let netns = world.plane.pod(app).netns();
            assert_learned(netns, &format!("{app} by {to}"));
        }
    }
}
