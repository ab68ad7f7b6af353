//! Much data through Services, compared octet by octet.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;

use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::{RcvBufForce, UdpGsoSegment};
use serde_json::json;
use sluice_lab::kube::objects::ServiceManifest;
use sluice_lab::netns::Netns;
use sluice_lab::wait;
use socket2::{Domain, Protocol, Socket, Type};

use crate::world::{Client, DROPPED, PATIENCE, REQUEST, World, at, vip};

/// The port that pods send everything back on, by TCP and by datagrams.
const BULK: u16 = 9_999;
/// The Services' port for TCP and for datagrams.
pub const PORT: u16 = 80;
/// Node ports are this and the node that the pod is on.
pub const NODE_PORTS: u16 = 30_090;
/// Octets of a TCP transfer each way: many windows.
const LENGTH: usize = 600_000;
/// Datagrams that are sent in one call, and come back in one.
const BATCH: usize = 32;
/// Batches of a transfer.
const BATCHES: usize = 12;

/// How often a batch is tried.
const ATTEMPTS: usize = 4;

/// How datagrams of a transfer are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Datagrams {
    /// A call for each; it fits a packet.
    Single,
    /// One call for many, which a device, or the kernel in its place, makes datagrams of (GSO).
    Segmented,
    /// A call for each, that does not fit a packet.
    Fragmented,
}

impl Datagrams {
    /// Octets of a datagram, which are also how their receiver knows how to send them back.
    fn length(self) -> usize {
        match self {
            Datagrams::Single => 900,
            Datagrams::Segmented => 1_200,
            Datagrams::Fragmented => 4_000,
        }
    }

    fn of_length(length: usize) -> Option<Datagrams> {
        const ALL: [Datagrams; 3] = [
            Datagrams::Single,
            Datagrams::Segmented,
            Datagrams::Fragmented,
        ];
        ALL.into_iter().find(|kind| kind.length() == length)
    }
}

/// A world with the pods `near` on node 1 and `far` on node 2, which send back what they get, each
/// behind a Service: cluster address number 1 or 2, node port [`NODE_PORTS`] and 1 or 2.
pub fn world(args: &[&str]) -> World {
    let mut world = World::with_args(args);
    for (node, app) in [(1, "near"), (2, "far")] {
        world.pod(app, node, &[("app", app)]);
        let pod = world.plane.pod(app).netns();
        send_back(pod);
        for any in [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()] {
            send_datagrams_back(pod, any);
        }
        world.apply(&service(app, node));
    }
    for node in [1, 2] {
        let node_port = NODE_PORTS + u16::from(node);
        await_connections(&world.outside(), world.node_at(1, node_port));
        await_connections(&world.client(1), at(vip(node), PORT));
    }
    world
}

fn service(app: &str, node: u8) -> ServiceManifest {
    let node_port = NODE_PORTS + u16::from(node);
    ServiceManifest::new(app)
        .cluster_ips(vip(node).both())
        .node_port("stream", PORT, BULK, node_port)
        .port_object(json!({
            "name": "datagram", "protocol": "UDP", "port": PORT, "targetPort": BULK, "nodePort": node_port,
        }))
}

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

/// Sends each batch of datagrams back as it was sent, from a pod.
fn send_datagrams_back(pod: &Netns, any: IpAddr) {
    let socket = pod.run(|| socket(any, BULK));
    thread::spawn(move || {
        let mut batches: HashMap<SocketAddr, Vec<Vec<u8>>> = HashMap::new();
        let mut data = [0; 9_000];
        while let Ok((length, peer)) = socket.recv_from(&mut data) {
            let batch = batches.entry(peer).or_default();
            batch.push(data[..length].to_vec());
            if batch.len() == BATCH
                && let Some(kind) = Datagrams::of_length(length)
            {
                // A failure is the client's to report: it does not get its data.
                let _ = send(&socket, peer, batch, kind);
                batch.clear();
            }
        }
    });
}

/// Has data sent there and back by TCP; the connection stays open.
pub fn transfer(client: &Client, to: SocketAddr) -> TcpStream {
    let sent = octets(LENGTH, to.port().into());
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

/// Has batches of datagrams sent there and back. One may be lost, on a busy machine: then its batch
/// is tried again.
pub fn transfer_datagrams(client: &Client, to: SocketAddr, kind: Datagrams) {
    let what = format!("{} to {to}, {kind:?}", client.name);
    for batch in 0..BATCHES {
        let all = octets(BATCH * kind.length(), batch as u64);
        let mut sent: Vec<Vec<u8>> = all.chunks(kind.length()).map(<[u8]>::to_vec).collect();
        let exchange = |_| exchange(client, to, kind, &sent);
        let mut received = (0..ATTEMPTS)
            .find_map(exchange)
            .unwrap_or_else(|| panic!("{what}: batch {batch} does not come back"));
        // Datagrams may pass each other.
        sent.sort_unstable();
        received.sort_unstable();
        assert!(sent == received, "{what}: batch {batch} has other data");
    }
}

/// Sends a batch from a socket of its own; what comes back, if all of it does.
fn exchange(
    client: &Client,
    to: SocketAddr,
    kind: Datagrams,
    batch: &[Vec<u8>],
) -> Option<Vec<Vec<u8>>> {
    let any: IpAddr = match to {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = client.netns.run(|| socket(any, 0));
    socket.set_read_timeout(Some(DROPPED)).unwrap();
    send(&socket, to, batch, kind).unwrap();
    let mut data = [0; 9_000];
    let receive = |_| {
        let (length, from) = socket.recv_from(&mut data).ok()?;
        assert_eq!(from, to, "{}: answered by another", client.name);
        Some(data[..length].to_vec())
    };
    (0..BATCH).map(receive).collect()
}

fn send(
    socket: &UdpSocket,
    to: SocketAddr,
    batch: &[Vec<u8>],
    kind: Datagrams,
) -> std::io::Result<()> {
    if kind == Datagrams::Segmented {
        setsockopt(socket, UdpGsoSegment, &(kind.length() as i32))?;
        socket.send_to(&batch.concat(), to)?;
        setsockopt(socket, UdpGsoSegment, &0)?;
        return Ok(());
    }
    batch
        .iter()
        .try_for_each(|data| socket.send_to(data, to).map(drop))
}

/// A socket with room for a whole batch, of the calling thread's namespace.
fn socket(any: IpAddr, port: u16) -> UdpSocket {
    let at = SocketAddr::new(any, port);
    let socket = Socket::new(Domain::for_address(at), Type::DGRAM, Some(Protocol::UDP)).unwrap();
    if any.is_ipv6() {
        socket.set_only_v6(true).unwrap();
    }
    // Root may have more than the limit, which a batch of fragments needs.
    setsockopt(&socket, RcvBufForce, &(4 << 20)).unwrap();
    socket.bind(&at.into()).unwrap();
    socket.into()
}

/// Octets without a period, so that none can be in another's place unnoticed (xorshift).
fn octets(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2).wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let words = length.div_ceil(8);
    let mut all: Vec<u8> = (0..words).flat_map(|_| next().to_le_bytes()).collect();
    all.truncate(length);
    all
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
