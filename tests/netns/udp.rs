//! Services for datagrams.

use sluice_lab::wait;
use sluice_lab::workload::udp::UdpClient;

use crate::world::{DROPPED, PATIENCE, REQUEST, World, at, same_family, vip};

#[test]
fn datagrams_are_answered_from_the_services_address() {
    let mut world = World::new();
    world.pod_on_each_node("dns");
    world.service("dns", vip(1));
    world.await_service(vip(1), 80);
    for client in world.everywhere() {
        for to in at(vip(1), 53) {
            for connected in [false, true] {
                let mut names = std::collections::BTreeSet::new();
                for _ in 0..24 {
                    // An answer from another address than the Service's is an error here.
                    let answer = client
                        .netns
                        .run(|| UdpClient::open(to, connected)?.ask(REQUEST));
                    let answer = answer.unwrap_or_else(|e| panic!("{} to {to}: {e}", client.name));
                    names.insert(answer.name);
                }
                assert_eq!(names.len(), 2, "{} to {to}: {names:?}", client.name);
            }
        }
    }
    for client in world.pods() {
        for to in at(vip(1), 53) {
            let seen = client.ask(to).unwrap().peer.ip();
            assert_eq!(
                seen,
                same_family(client.addrs, to.ip()),
                "{} to {to}",
                client.name
            );
        }
    }
}

#[test]
fn a_flow_moves_when_its_pod_goes() {
    let mut world = World::new();
    world.pod_on_each_node("dns");
    world.service("dns", vip(1));
    world.await_service(vip(1), 80);
    let mut flows = Vec::new();
    for client in world.pods() {
        for to in at(vip(1), 53) {
            let socket = client.netns.run(|| UdpClient::open(to, false)).unwrap();
            let first = socket.ask(REQUEST).unwrap().name;
            assert_eq!(
                socket.ask(REQUEST).unwrap().name,
                first,
                "a flow stays with its pod"
            );
            flows.push((socket, first));
        }
    }
    world.plane.delete("dns-1").unwrap();
    world.plane.await_deletions().unwrap();
    for (socket, first) in &flows {
        wait::until(
            PATIENCE,
            "the flow to go to the other pod",
            || match socket.ask(DROPPED) {
                Ok(answer) if answer.name == "dns-2" => Ok(()),
                Ok(answer) => Err(format!("{} answers", answer.name)),
                Err(failure) => Err(format!("it was at {first}: {failure}")),
            },
        )
        .unwrap();
    }
}

#[test]
fn a_socket_that_asked_before_the_service_was_there_is_served() {
    let mut world = World::new();
    world.pod_on_each_node("dns");
    let mut sockets = Vec::new();
    for client in world.everywhere() {
        for to in at(vip(1), 53) {
            let socket = client.netns.run(|| UdpClient::open(to, false)).unwrap();
            assert!(socket.ask(DROPPED).is_err(), "{} to {to}", client.name);
            sockets.push((client.name.clone(), to, socket));
        }
    }
    world.service("dns", vip(1));
    world.await_service(vip(1), 80);
    for (name, to, socket) in &sockets {
        let what = format!("{to} to answer the old socket of {name}");
        wait::until(PATIENCE, &what, || socket.ask(DROPPED)).unwrap();
    }
}

#[test]
fn a_service_without_endpoints_refuses_datagrams() {
    let mut world = World::new();
    world.pod_on_each_node("dns");
    world.service("dns", vip(1));
    world.service("empty", vip(2));
    world.await_service(vip(1), 80);
    for client in world.everywhere() {
        for to in at(vip(2), 53) {
            client.await_datagrams_refused(to);
        }
    }
}
