//! What processes of the host dial: IPv4 frontends from IPv6 sockets, node ports at the loopback address,
//! and frontends that only the path of packets can judge.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};

use serde_json::json;
use sluice_lab::kube::objects::ServiceManifest;
use sluice_lab::wait;
use sluice_lab::workload::udp::UdpClient;

use crate::world::{Client, DROPPED, PATIENCE, REQUEST, TCP, UDP, World, at, vip};

const PORT: u16 = 30080;
const UDP_PORT: u16 = 30053;

/// The address in the form in which an IPv6 socket dials it (RFC 3493 section 3.7).
fn mapped(to: SocketAddr) -> SocketAddr {
    match to.ip() {
        IpAddr::V4(ip) => (ip.to_ipv6_mapped(), to.port()).into(),
        IpAddr::V6(_) => panic!("{to} is IPv6 already"),
    }
}

fn hosts(world: &World) -> [Client; 2] {
    [1, 2].map(|node| world.host(node))
}

/// Both pods answer TCP and datagrams there; sockets see the frontend as their peer.
fn is_served(client: &Client, tcp: SocketAddr, udp: SocketAddr) {
    let both = || {
        let tally = client.load([tcp], 24);
        if tally.by_name.len() == 2 && tally.failures() == 0 {
            return Ok(());
        }
        Err(format!("{:?}, {}", tally.by_name, tally.failure_kinds()))
    };
    wait::until(PATIENCE, &format!("{tcp} to answer {}", client.name), both).unwrap();
    let peer = client.netns.run(|| TcpStream::connect(tcp)?.peer_addr());
    assert_eq!(peer.unwrap(), tcp, "{}", client.name);
    for connected in [false, true] {
        let asked = client
            .netns
            .run(|| UdpClient::open(udp, connected)?.ask(REQUEST));
        asked.unwrap_or_else(|error| panic!("{udp}, {}: {error}", client.name));
    }
}

#[test]
fn sockets_of_ipv6_reach_frontends_of_ipv4() {
    let mut world = World::new();
    world.pod_on_each_node("web");
    world.service("web", vip(1));
    world.service("empty", vip(2));
    world.await_service(vip(1), 80);
    for client in hosts(&world) {
        let [tcp, udp] = [80, 53].map(|port| mapped(at(vip(1), port)[0]));
        is_served(&client, tcp, udp);
        let refused = client.get(mapped(at(vip(2), 80)[0])).unwrap_err();
        assert!(refused.is_refused(), "{}: {refused}", client.name);
    }
}

#[test]
fn node_ports_at_the_loopback_address_are_for_the_hosts_own_sockets() {
    let mut world = World::new();
    world.pod_on_each_node("web");
    let udp = json!({
        "name": "dns", "port": 53, "targetPort": UDP, "nodePort": UDP_PORT, "protocol": "UDP",
    });
    let service = ServiceManifest::new("web").cluster_ips(vip(1).both());
    world.apply(&service.node_port("http", 80, TCP, PORT).port_object(udp));
    let [tcp, udp] = [PORT, UDP_PORT].map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    for client in hosts(&world) {
        is_served(&client, tcp, udp);
        is_served(&client, mapped(tcp), mapped(udp));
        let refused = client.get((Ipv6Addr::LOCALHOST, PORT).into()).unwrap_err();
        assert!(refused.is_refused(), "only IPv4 has them: {refused}");
    }
    // A pod's own loopback address is the pod's.
    for client in world.pods() {
        let refused = client.get(tcp).unwrap_err();
        assert!(refused.is_refused(), "{}: {refused}", client.name);
    }
}

#[test]
fn the_host_is_a_client_within_or_outside_of_source_ranges() {
    let mut world = World::new();
    world.pod_on_each_node("web");
    let own = world.host(1).addrs.both();
    let balancer = [
        IpAddr::from([203, 0, 113, 9]),
        "2001:db8:9::9".parse().unwrap(),
    ];
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
        "spec": {
            "type": "LoadBalancer", "selector": {"app": "web"},
            "clusterIP": vip(1).both()[0], "clusterIPs": vip(1).both(),
            "ipFamilies": ["IPv4", "IPv6"],
            "loadBalancerSourceRanges": [format!("{}/32", own[0]), format!("{}/128", own[1])],
            "ports": [
                {"name": "http", "port": 80, "targetPort": TCP},
                {"name": "dns", "port": 53, "targetPort": UDP, "protocol": "UDP"},
            ],
        },
        "status": {"loadBalancer": {"ingress": balancer.map(|ip| json!({"ip": ip}))}},
    });
    world.yaml(&service.to_string());
    world.await_service(vip(1), 80);
    for ip in balancer {
        let [tcp, udp] = [80, 53].map(|port| SocketAddr::new(ip, port));
        is_served(&world.host(1), tcp, udp);
        let outside = [world.host(2), world.client(1), world.client(2)];
        for client in outside {
            let failure = client.try_get(tcp).unwrap_err();
            assert!(failure.is_timeout(), "{}: {failure}", client.name);
            let asked = client
                .netns
                .run(|| UdpClient::open(udp, false)?.ask(DROPPED));
            assert!(
                asked.is_err_and(|failure| failure.is_timeout()),
                "{}",
                client.name
            );
        }
    }
}
