//! ICMP errors, and echo.

use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use sluice_lab::kube::objects::ServiceManifest;
use sluice_lab::workload::udp::UdpClient;
use sluice_lab::workload::{Cause, Stage};

use socket2::{Domain, Protocol, Socket, Type};

use crate::world::{REQUEST, World, at, vip};

#[test]
fn a_closed_port_behind_a_service_is_reported_to_the_client() {
    let mut world = World::new();
    world.pod_on_each_node("web");
    let service = ServiceManifest::new("web").cluster_ips(vip(1).both());
    world.apply(&service.port("http", 80, 8080).udp_port("closed", 53, 9999));
    world.await_service(vip(1), 80);
    for client in world.everywhere() {
        for to in at(vip(1), 53) {
            for _ in 0..6 {
                let socket = client.netns.run(|| UdpClient::open(to, true)).unwrap();
                // The pod's "port unreachable" speaks of the pod; the client knows the Service.
                let failure = socket.ask(REQUEST).unwrap_err();
                assert_eq!(failure.stage, Stage::Receive, "{} to {to}", client.name);
                assert_ne!(
                    failure.cause,
                    Cause::Timeout,
                    "{} to {to}: {failure}",
                    client.name
                );
            }
        }
    }
}

#[test]
fn echo_passes_between_pods_and_nodes() {
    let mut world = World::new();
    world.pod_on_each_node("web");
    for client in world.everywhere() {
        for name in ["web-1", "web-2"] {
            for ip in world.plane.pod(name).addrs().both() {
                let answered = client.netns.run(|| echo(ip, REQUEST));
                assert!(
                    answered.is_ok(),
                    "{} to {name} at {ip}: {answered:?}",
                    client.name
                );
            }
        }
    }
}

/// One echo request and its reply.
pub fn echo(to: IpAddr, timeout: Duration) -> io::Result<()> {
    let (domain, protocol, request, reply) = match to {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4, 8, 0),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6, 128, 129),
    };
    // The kernel fills in the identifier and the checksum of such a socket.
    std::fs::write("/proc/sys/net/ipv4/ping_group_range", "0 0")?;
    let mut socket = Socket::new(domain, Type::DGRAM, Some(protocol))?;
    socket.set_read_timeout(Some(timeout))?;
    socket.connect(&SocketAddr::new(to, 0).into())?;
    socket.send(&[request, 0, 0, 0, 0, 0, 0, 1, b'h', b'i'])?;
    let mut answer = [0; 64];
    let length = socket.read(&mut answer)?;
    let matches = answer[0] == reply && answer[..length].ends_with(b"hi");
    if matches {
        Ok(())
    } else {
        Err(io::ErrorKind::InvalidData.into())
    }
}
