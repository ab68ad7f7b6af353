//! Pods whose sockets the test holds itself.

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, SocketAddr, TcpListener, UdpSocket},
    time::Duration,
};

use serde_json::Value;
use sluice_lab::{
    kube::objects::PodManifest,
    topology::{Cluster, Family, Pod},
    wait,
};
use socket2::{Domain, Socket, Type};

use super::PORTS;

/// The port that a pod's own node sends its marks to.
const MARK: u16 = 7;
/// How long packets that may arrive are waited for in one attempt.
const ATTEMPT: Duration = Duration::from_millis(300);

/// A packet that arrived, or may: places by number, family and port by index.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Arrival {
    pub from: usize,
    pub to: usize,
    /// 0 for IPv4.
    pub family: usize,
    pub port: usize,
    pub tcp: bool,
}

/// All arrivals that there can be between so many places.
pub fn all(places: usize) -> impl Iterator<Item = Arrival> {
    let pairs = (0..places).flat_map(move |from| (0..places).map(move |to| (from, to)));
    let pairs = pairs.filter(|(from, to)| from != to);
    pairs.flat_map(|(from, to)| {
        (0..2).flat_map(move |family| {
            (0..PORTS.len()).flat_map(move |port| {
                [false, true].map(|tcp| Arrival {
                    from,
                    to,
                    family,
                    port,
                    tcp,
                })
            })
        })
    })
}

/// A pod, and its sockets by family.
pub struct Place {
    manifest: PodManifest,
    pod: Pod,
    node: u8,
    servers: [Servers; 2],
}

struct Servers {
    udp: Vec<UdpSocket>,
    tcp: Vec<TcpListener>,
    mark: UdpSocket,
    /// What it sends its datagrams by: one flow to each other place and port, through all changes.
    client: UdpSocket,
}

impl Place {
    /// A pod on a node, in a namespace.
    pub fn new(cluster: &Cluster, node: u8, number: usize, namespace: &str) -> Place {
        let name = format!("pod-{number}");
        let pod = cluster.add_pod(node, &name).unwrap();
        let addrs = pod.addrs();
        let manifest = PodManifest {
            namespace: namespace.to_owned(),
            addrs: Some(addrs),
            ports: ["TCP", "UDP"]
                .map(|protocol| ("web".to_owned(), PORTS[1], protocol))
                .into(),
            ready: true,
            ..PodManifest::new(&name, &pod.node().name())
        };
        let open = |family: Family| {
            let ip = addrs.ip(family);
            pod.netns().run(|| Servers::open(ip)).unwrap()
        };
        Place {
            manifest,
            servers: Family::ALL.map(open),
            pod,
            node,
        }
    }

    /// Its addresses, IPv4 first.
    pub fn addrs(&self) -> [IpAddr; 2] {
        self.pod.addrs().both()
    }

    /// The Pod, with a label.
    pub fn object(&self, app: Option<&str>) -> Value {
        let manifest = self.manifest.clone();
        match app {
            Some(app) => manifest.label("app", app).object(),
            None => manifest.object(),
        }
    }
}

impl Servers {
    fn open(ip: IpAddr) -> io::Result<Servers> {
        let udp = |port: u16| {
            let socket = UdpSocket::bind((ip, port))?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        };
        let tcp = |port: u16| {
            let listener = TcpListener::bind((ip, port))?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        };
        Ok(Servers {
            udp: PORTS.into_iter().map(udp).collect::<io::Result<_>>()?,
            tcp: PORTS.into_iter().map(tcp).collect::<io::Result<_>>()?,
            mark: udp(MARK)?,
            client: udp(0)?,
        })
    }
}

/// Sends from each place to each other, on every port. Returns what arrived when all that is expected
/// has, or the time for it is over, and what each pod's own node sent after it.
pub fn exchange(
    places: &[Place],
    cluster: &Cluster,
    attempt: u32,
    expected: &BTreeSet<Arrival>,
) -> BTreeSet<Arrival> {
    let addrs: Vec<[IpAddr; 2]> = places.iter().map(Place::addrs).collect();
    let mut arrived = BTreeSet::new();
    // What an earlier attempt's connections left.
    receive(places, &addrs, 0, &mut BTreeSet::new());
    let calls: Vec<Socket> = places
        .iter()
        .enumerate()
        .flat_map(|(from, place)| send(place, from, &addrs, attempt))
        .collect();
    // If it does not, the caller sees what is missing.
    let _ = wait::until_true(ATTEMPT, "what is expected", || {
        receive(places, &addrs, attempt, &mut arrived);
        expected.is_subset(&arrived)
    });
    for node in cluster.nodes() {
        let marks = places.iter().filter(|place| place.node == node.index());
        let marks: Vec<_> = marks.flat_map(Place::addrs).collect();
        node.netns().run(|| mark(&marks, attempt)).unwrap();
    }
    for place in places {
        await_mark(place, attempt);
    }
    receive(places, &addrs, attempt, &mut arrived);
    drop(calls);
    arrived
}

/// Sends a datagram to every port of every other place, and begins a connection to it.
fn send(place: &Place, from: usize, addrs: &[[IpAddr; 2]], attempt: u32) -> Vec<Socket> {
    let others = || all(addrs.len()).filter(|arrival| arrival.from == from);
    let to =
        |arrival: Arrival| SocketAddr::new(addrs[arrival.to][arrival.family], PORTS[arrival.port]);
    for arrival in others().filter(|arrival| !arrival.tcp) {
        let client = &place.servers[arrival.family].client;
        client
            .send_to(&payload(attempt, from), to(arrival))
            .unwrap_or_else(|error| panic!("{arrival:?}: {error}"));
    }
    let call = |arrival: Arrival| {
        let to = to(arrival);
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        // Nothing of it is to stay when it is closed.
        socket.set_linger(Some(Duration::ZERO))?;
        match socket.connect(&to.into()) {
            Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
            _ => Ok(socket),
        }
    };
    let calls = others().filter(|arrival| arrival.tcp);
    let begun = place
        .pod
        .netns()
        .run(|| calls.map(call).collect::<io::Result<Vec<_>>>());
    begun.unwrap_or_else(|error| panic!("connections of pod {from}: {error}"))
}

fn payload(attempt: u32, from: usize) -> [u8; 8] {
    let words = [attempt.to_be_bytes(), (from as u32).to_be_bytes()];
    words.as_flattened().try_into().expect("two words")
}

/// Takes what has arrived, of this attempt.
fn receive(places: &[Place], addrs: &[[IpAddr; 2]], attempt: u32, arrived: &mut BTreeSet<Arrival>) {
    for (to, place) in places.iter().enumerate() {
        for (family, servers) in place.servers.iter().enumerate() {
            for port in 0..PORTS.len() {
                let mut note = |from, tcp| {
                    arrived.insert(Arrival {
                        from,
                        to,
                        family,
                        port,
                        tcp,
                    });
                };
                let mut octets = [0; 8];
                while let Ok((_, peer)) = servers.udp[port].recv_from(&mut octets) {
                    let from = addrs.iter().position(|own| own.contains(&peer.ip()));
                    if let Some(from) = from.filter(|from| octets == payload(attempt, *from)) {
                        note(from, false);
                    }
                }
                while let Ok((_, peer)) = servers.tcp[port].accept() {
                    if let Some(from) = addrs.iter().position(|own| own.contains(&peer.ip())) {
                        note(from, true);
                    }
                }
            }
        }
    }
}

/// Sends a datagram to pods, as their node.
fn mark(to: &[IpAddr], attempt: u32) -> io::Result<()> {
    for ip in to {
        let any: SocketAddr = if ip.is_ipv4() {
            ([0; 4], 0).into()
        } else {
            ([0u16; 8], 0).into()
        };
        UdpSocket::bind(any)?.send_to(&attempt.to_be_bytes(), (*ip, MARK))?;
    }
    Ok(())
}

/// Waits for the datagram of a pod's own node, which policy never drops.
fn await_mark(place: &Place, attempt: u32) {
    for servers in &place.servers {
        let what = "a node's datagram to its pod";
        let arrived = wait::until_true(Duration::from_secs(10), what, || {
            let mut octets = [0; 4];
            let got = servers.mark.recv(&mut octets);
            got.is_ok() && octets == attempt.to_be_bytes()
        });
        arrived.unwrap();
    }
}
