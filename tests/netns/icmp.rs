//! ICMP errors, and echo.

use std::io::{self, IoSliceMut, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::Duration;

use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt,
};
use serde_json::json;
use sluice_lab::kube::objects::ServiceManifest;
use sluice_lab::wait;
use sluice_lab::workload::udp::UdpClient;
use sluice_lab::workload::{Cause, Stage};
use socket2::{Domain, Protocol, Socket, Type};

use crate::nodeport::{self, PORT, UDP_PORT};
use crate::world::{PATIENCE, REQUEST, TCP, World, at, vip};

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

#[test]
fn a_closed_port_behind_a_node_port_is_reported_to_clients_outside() {
    let mut world = World::new();
    world.pod_on_each_node("web");
    let closed = json!({
        "name": "closed", "port": 53, "targetPort": 9_999, "nodePort": UDP_PORT, "protocol": "UDP",
    });
    let service = ServiceManifest::new("web").node_port("http", 80, TCP, PORT);
    world.apply(&service.cluster_ips(vip(1).both()).port_object(closed));
    let outside = world.outside();
    for (open, to) in world
        .node_at(1, PORT)
        .iter()
        .zip(world.node_at(1, UDP_PORT))
    {
        outside.eventually_gets(*open);
        // Backends of either node are asked in turn: one speaks of itself as the node that was
        // dialled, one does so by that node.
        for _ in 0..6 {
            let socket = outside.netns.run(|| UdpClient::open(to, true)).unwrap();
            let failure = socket.ask(REQUEST).unwrap_err();
            assert_eq!(failure.cause, Cause::Errno(libc::ECONNREFUSED), "{to}");
        }
    }
}

/// Each hop towards a backend speaks of the packet as its client sent it: the error reaches the
/// client's socket, by the address that it asked.
#[test]
fn hops_to_a_service_are_traced() {
    let mut world = World::new();
    world.pod("web-2", 2, &[("app", "web")]);
    world.apply(&nodeport::service("web"));
    let nodes: Vec<IpAddr> = [1, 2]
        .map(|node| world.plane.cluster().node(node).clone())
        .iter()
        .flat_map(|node| [node.addrs().both(), node.gateway().both()].concat())
        .collect();
    for (client, ends) in [
        (world.client(1), at(vip(1), 53)),
        (world.outside(), world.node_at(1, UDP_PORT)),
    ] {
        for to in ends {
            let what = format!("{} to {to}", client.name);
            let ask = || client.ask(to);
            wait::until(PATIENCE, &format!("{what} to be answered"), ask).unwrap();
            let hops = client.netns.run(|| trace(to));
            let hops = hops.unwrap_or_else(|error| panic!("{what}: {error}"));
            assert!(!hops.is_empty(), "{what}: no hop told of itself");
            for hop in &hops {
                assert!(nodes.contains(hop), "{what}: {hop} of {hops:?} is no node");
            }
        }
    }
}

/// The hops before a server of datagrams: who says that one is at its last hop.
fn trace(to: SocketAddr) -> io::Result<Vec<IpAddr>> {
    const MOST: i32 = 6;
    let mut hops = Vec::new();
    for limit in 1..=MOST {
        let any: IpAddr = match to {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind((any, 0))?;
        socket.connect(to)?;
        socket.set_read_timeout(Some(REQUEST))?;
        if to.is_ipv4() {
            setsockopt(&socket, sockopt::Ipv4Ttl, &limit)?;
            setsockopt(&socket, sockopt::Ipv4RecvErr, &true)?;
        } else {
            setsockopt(&socket, sockopt::Ipv6Ttl, &limit)?;
            setsockopt(&socket, sockopt::Ipv6RecvErr, &true)?;
        }
        socket.send(b"hop")?;
        match socket.recv(&mut [0; 256]) {
            Ok(_) => return Ok(hops),
            Err(error) if error.raw_os_error() == Some(libc::EHOSTUNREACH) => {
                hops.push(offender(&socket, to)?);
            }
            Err(error) => {
                return Err(io::Error::new(
                    error.kind(),
                    format!("hop {limit}: {error}"),
                ));
            }
        }
    }
    Err(io::Error::other(format!("not reached by {hops:?}")))
}

/// Who sent the error that waits at a socket, which is to be about a packet to `to`.
fn offender(socket: &UdpSocket, to: SocketAddr) -> io::Result<IpAddr> {
    let mut data = [0; 256];
    let mut parts = [IoSliceMut::new(&mut data)];
    let mut room = nix::cmsg_space!([u8; 256]);
    let message = recvmsg::<SockaddrStorage>(
        socket.as_raw_fd(),
        &mut parts,
        Some(&mut room),
        MsgFlags::MSG_ERRQUEUE,
    )?;
    for control in message.cmsgs()? {
        match control {
            ControlMessageOwned::Ipv4RecvErr(_, Some(from)) => {
                return Ok(Ipv4Addr::from(u32::from_be(from.sin_addr.s_addr)).into());
            }
            ControlMessageOwned::Ipv6RecvErr(_, Some(from)) => {
                return Ok(Ipv6Addr::from(from.sin6_addr.s6_addr).into());
            }
            _ => {}
        }
    }
    Err(io::Error::other(format!("no error about {to}")))
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
