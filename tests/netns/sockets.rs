//! Sockets of the host at the end of a backend.

use std::time::{Duration, Instant};

use sluice_lab::wait;

use sluice_lab::workload::client::{Connection, Failure};
use sluice_lab::workload::udp::UdpClient;

use crate::world::{Client, DROPPED, PATIENCE, REQUEST, UDP, World, at, vip};

/// How long a socket may go on talking to a backend that is gone, on a busy machine.
const MOVED: Duration = Duration::from_secs(5);

fn world() -> World {
    let mut world = World::new();
    world.pod_on_each_node("dns");
    world.service("dns", vip(1));
    world.await_service(vip(1), 80);
    world
}

fn hosts(world: &World) -> [Client; 2] {
    [1, 2].map(|node| world.host(node))
}

/// Connected sockets of a client until both pods have one, with the pod that answers.
fn connected(client: &Client, to: std::net::SocketAddr) -> Vec<(UdpClient, String)> {
    let mut sockets: Vec<(UdpClient, String)> = Vec::new();
    let has = |sockets: &[(UdpClient, String)], name: &str| sockets.iter().any(|s| s.1 == name);
    while !(has(&sockets, "dns-1") && has(&sockets, "dns-2")) {
        assert!(
            sockets.len() < 64,
            "{} to {to}: always the same",
            client.name
        );
        let socket = client.netns.run(|| UdpClient::open(to, true)).unwrap();
        let name = socket.ask(REQUEST).unwrap().name;
        sockets.push((socket, name));
    }
    sockets
}

/// Waits until a socket's calls fail at once.
fn await_end(socket: &UdpClient) -> Failure {
    wait::until(PATIENCE, "the socket to end", || {
        match socket.ask(DROPPED) {
            Err(failure) if !failure.is_timeout() => Ok(failure),
            Err(failure) => Err(failure.to_string()),
            Ok(answer) => Err(format!("{} answers", answer.name)),
        }
    })
    .unwrap()
}

#[test]
fn connected_sockets_for_datagrams_end_with_their_backend_and_no_others() {
    let mut world = world();
    let mut sockets = Vec::new();
    let mut direct = Vec::new();
    for client in hosts(&world) {
        for to in at(vip(1), 53) {
            let opened = connected(&client, to).into_iter();
            sockets.extend(opened.map(|(socket, name)| (client.clone(), to, socket, name)));
        }
        for to in at(world.plane.pod("dns-1").addrs(), UDP) {
            let socket = client.netns.run(|| UdpClient::open(to, true)).unwrap();
            socket.ask(REQUEST).unwrap();
            direct.push(socket);
        }
    }
    world.plane.set_ready("dns-1", false).unwrap();
    let since = Instant::now();
    for (_, to, socket, _) in sockets.iter().filter(|socket| socket.3 == "dns-1") {
        let failure = await_end(socket);
        assert!(
            since.elapsed() < MOVED,
            "{to} took {:?}: {failure}",
            since.elapsed()
        );
    }
    for (client, to, _, _) in sockets.iter().filter(|socket| socket.3 == "dns-1") {
        let again = client.netns.run(|| UdpClient::open(*to, true)).unwrap();
        assert_eq!(again.ask(REQUEST).unwrap().name, "dns-2", "{}", client.name);
    }
    for (client, to, socket, name) in sockets.iter().filter(|socket| socket.3 != "dns-1") {
        assert_eq!(
            &socket.ask(REQUEST).unwrap().name,
            name,
            "{} to {to}",
            client.name
        );
    }
    for socket in &direct {
        let name = socket.ask(REQUEST).unwrap().name;
        assert_eq!(name, "dns-1", "a socket that dialled the pod itself stays");
    }
}

#[test]
fn a_socket_that_came_by_another_service_stays() {
    let mut world = world();
    world.yaml(
        "{apiVersion: v1, kind: Service, metadata: {name: all}, spec: {publishNotReadyAddresses: true, \
         selector: {app: dns}, clusterIPs: [10.96.1.2, 'fd96::1:2'], clusterIP: 10.96.1.2, \
         ports: [{name: http, port: 80, targetPort: 8080}, \
                 {name: dns, port: 53, protocol: UDP, targetPort: 9090}]}}",
    );
    world.await_service(vip(2), 80);
    let client = world.host(1);
    let of_dns: Vec<_> = at(vip(1), 53).map(|to| connected(&client, to)).into();
    let of_all: Vec<_> = at(vip(2), 53).map(|to| connected(&client, to)).into();
    world.plane.set_ready("dns-1", false).unwrap();
    for (socket, _) in of_dns.iter().flatten().filter(|socket| socket.1 == "dns-1") {
        await_end(socket);
    }
    for (socket, name) in of_all.iter().flatten() {
        assert_eq!(&socket.ask(REQUEST).unwrap().name, name);
    }
}

#[test]
fn unconnected_sockets_move_without_an_error() {
    let mut world = world();
    let mut sockets = Vec::new();
    for client in hosts(&world) {
        for to in at(vip(1), 53) {
            let socket = client.netns.run(|| UdpClient::open(to, false)).unwrap();
            socket.ask(REQUEST).unwrap();
            sockets.push(socket);
        }
    }
    world.plane.set_ready("dns-1", false).unwrap();
    let since = Instant::now();
    for socket in &sockets {
        wait::until(PATIENCE, "the other pod alone", || {
            // A pod that takes half of the datagrams is not missed by chance.
            let asked = (0..16).map(|_| socket.ask(REQUEST).map(|answer| answer.name));
            match asked.collect::<Result<Vec<_>, _>>() {
                Ok(names) if names.iter().all(|name| name == "dns-2") => Ok(()),
                Ok(names) => Err(format!("{names:?} answer")),
                Err(failure) => panic!("an error: {failure}"),
            }
        })
        .unwrap();
    }
    assert!(since.elapsed() < MOVED, "took {:?}", since.elapsed());
}

#[test]
fn the_last_backend_takes_its_sockets_along_and_the_next_is_served() {
    let mut world = world();
    let client = world.host(2);
    let sockets: Vec<_> = at(vip(1), 53).map(|to| (to, connected(&client, to))).into();
    world.plane.set_ready("dns-1", false).unwrap();
    world.plane.set_ready("dns-2", false).unwrap();
    for (socket, _) in sockets.iter().flat_map(|(_, sockets)| sockets) {
        await_end(socket);
    }
    for (to, _) in &sockets {
        let refused = client.netns.run(|| UdpClient::open(*to, true)).unwrap_err();
        assert!(refused.is_refused(), "{to}: {refused}");
    }
    world.plane.set_ready("dns-2", true).unwrap();
    for (to, _) in &sockets {
        wait::until(PATIENCE, "the pod that is ready again", || {
            client
                .netns
                .run(|| UdpClient::open(*to, true)?.ask(REQUEST))
        })
        .unwrap();
    }
}

/// A connection to the pod `dns-1` through the Service.
fn connection_to_first(client: &Client, to: std::net::SocketAddr) -> Connection {
    for _ in 0..64 {
        let open = || Connection::open(None, to, REQUEST);
        let mut connection = client.netns.run(open).unwrap();
        if connection.get("/", false).unwrap().name == "dns-1" {
            return connection;
        }
    }
    panic!("{} to {to}: always the same", client.name);
}

#[test]
fn connections_of_the_host_drain() {
    let mut world = world();
    let mut open = Vec::new();
    for client in hosts(&world) {
        open.extend(at(vip(1), 80).map(|to| connection_to_first(&client, to)));
    }
    let datagrams = connected(&world.host(1), at(vip(1), 53)[0]);
    world.plane.set_ready("dns-1", false).unwrap();
    // Sockets for datagrams end when the backend goes: by then connections would have, too.
    for (socket, _) in datagrams.iter().filter(|socket| socket.1 == "dns-1") {
        await_end(socket);
    }
    for connection in &mut open {
        assert_eq!(connection.get("/", false).unwrap().name, "dns-1");
    }
}
