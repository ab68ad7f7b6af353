//! Whether maps say what the policies say: the verdicts of the pods of this node, by the
//! [`oracle`](crate::oracle) and by what the kernel makes of the maps.
//!
//! Not every address and port is tried, but one of each kind. Pods are of one kind if policies cannot tell
//! them apart and the maps say the same of them, so that what is wrong with one entry makes a kind of its
//! own. Of ports and blocks of addresses, both sides of each boundary are tried.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dataplane_common::abi::{Addr4, Addr6, IdentityVal, Subject};
use dataplane_common::decide::policy::Decision;
use dataplane_common::net::proto;
use ipnet::IpNet;

use crate::eval::{self, Packet};
use crate::oracle::{Flow, Side};
use crate::snapshot::{
    ContainerPort, Direction, Labels, Peer, Peers, Pod, PolicyMode, PortRange, Ports, Protocol,
    Rule, Snapshot, Text,
};
use crate::tables::{Family, Tables};

/// Differences that are told; others are counted.
const TOLD: usize = 1_000;
/// Addresses that are no pod's nor node's, most likely (RFC 5737, RFC 3849).
const OUTSIDE: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(203, 0, 113, 77)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0x77, 0, 0, 0, 0, 0x77)),
];

/// What was found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Report {
    /// Verdicts that were compared.
    pub compared: u64,
    /// Those that differ, up to a number.
    pub differences: Vec<Difference>,
    /// How many there are beyond those.
    pub more: u64,
}

/// A verdict that differs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Difference {
    /// The packet.
    pub packet: Packet,
    /// At which of its ends.
    pub direction: Direction,
    /// Which policies: those in force, or all as if those in audit were in force too.
    pub mode: PolicyMode,
    /// What policies say.
    pub expected: Side,
    /// What the maps say; `None`: that no policy concerns the pod.
    pub actual: Option<Decision>,
}

/// Compares the verdicts of all pods of this node that have a device.
pub fn verify(snapshot: &Snapshot, tables: &Tables) -> Report {
    let owners = owners(snapshot);
    let kinds = Kinds::new(snapshot, tables, &owners);
    let mut report = Report::default();
    let modes = match snapshot.audits() {
        true => &[PolicyMode::Enforce, PolicyMode::Audit][..],
        false => &[PolicyMode::Enforce],
    };
    for &subject in &kinds.here {
        let Some(pod) = owners.get(&subject) else {
            continue;
        };
        for direction in Direction::ALL {
            let tried = Tried::new(snapshot, pod, direction, &kinds);
            let world = world(snapshot, &owners, subject, &tried.peers);
            for &peer in &tried.peers {
                for &(protocol, port) in &tried.ports {
                    let packet = packet(subject, peer, direction, protocol, port);
                    for &mode in modes {
                        report.compare(&world, tables, packet, protocol, (direction, mode));
                    }
                }
            }
        }
    }
    report
}

impl Report {
    fn compare(
        &mut self,
        snapshot: &Snapshot,
        tables: &Tables,
        packet: Packet,
        protocol: Option<Protocol>,
        (direction, mode): (Direction, PolicyMode),
    ) {
        let Some(judged) = eval::judge_with(tables, &packet, (&snapshot.node).into(), mode) else {
            return;
        };
        let flow = Flow {
            snapshot,
            src: packet.src,
            dst: packet.dst,
            protocol,
            port: packet.port,
            mode,
        };
        let verdict = flow.verdict();
        let (expected, actual) = match direction {
            Direction::Ingress => (verdict.ingress, judged.ingress),
            Direction::Egress => (verdict.egress, judged.egress),
        };
        self.compared += 1;
        if actual.is_none_or(|decision| decision.allowed != 0) == expected.is_allowed() {
            return;
        }
        if self.differences.len() == TOLD {
            self.more += 1;
            return;
        }
        self.differences.push(Difference {
            packet,
            direction,
            mode,
            expected,
            actual,
        });
    }
}

fn packet(
    subject: IpAddr,
    peer: IpAddr,
    direction: Direction,
    protocol: Option<Protocol>,
    port: u16,
) -> Packet {
    let (src, dst) = match direction {
        Direction::Ingress => (peer, subject),
        Direction::Egress => (subject, peer),
    };
    let without_ports = if dst.is_ipv4() {
        proto::ICMP
    } else {
        proto::ICMPV6
    };
    Packet {
        src,
        dst,
        proto: protocol.map_or(without_ports, Protocol::number),
        port,
    }
}

type Owners<'a> = BTreeMap<IpAddr, &'a Pod>;

/// The pods by address: of two with one address, the one that stays, then the one of this node.
fn owners(snapshot: &Snapshot) -> Owners<'_> {
    let rank = |pod: &Pod| {
        let here = pod.node.as_ref() == Some(&snapshot.node.name);
        (pod.terminating, !here)
    };
    let mut owners = Owners::new();
    for pod in snapshot.pods.values().filter(|pod| pod.is_policy_pod()) {
        for &ip in &pod.ips {
            let owner = owners.entry(ip).or_insert(pod);
            if rank(pod) < rank(owner) {
                *owner = pod;
            }
        }
    }
    owners
}

/// Addresses that stand for all of their kind.
struct Kinds {
    /// Of pods of this node that have a device.
    here: Vec<IpAddr>,
    /// Of pods and nodes.
    peers: Vec<IpAddr>,
    /// Numbers of named ports.
    named: HashMap<(Protocol, Text), BTreeSet<u16>>,
}

/// What tells pods apart: the family, what policies see of them, and what the maps say.
type Kind<'a> = (
    bool,
    &'a Text,
    &'a Labels,
    &'a [ContainerPort],
    Option<IdentityVal>,
    Option<Subject>,
);

impl Kinds {
    fn new(snapshot: &Snapshot, tables: &Tables, owners: &Owners<'_>) -> Self {
        let devices = snapshot.interfaces.values();
        let devices: BTreeSet<&IpAddr> = devices.flat_map(|device| &device.addresses).collect();
        let (mut seen, mut here, mut peers): (Vec<Kind<'_>>, _, _) =
            (Vec::new(), Vec::new(), Vec::new());
        let mut named: HashMap<_, BTreeSet<u16>> = HashMap::new();
        for (ip, pod) in owners {
            for port in &pod.ports {
                let numbers = named.entry((port.protocol, port.name.clone()));
                numbers.or_default().insert(port.port);
            }
            let identity = identity(tables, *ip);
            let subject = identity
                .filter(|_| devices.contains(ip))
                .and_then(|identity| eval::subject(tables, identity.ifindex));
            let kind: Kind<'_> = (
                ip.is_ipv4(),
                &pod.key.namespace,
                &pod.labels,
                &pod.ports,
                identity.map(|identity| IdentityVal {
                    ifindex: 0,
                    ..identity
                }),
                // Of a subject, only what policies made of it.
                subject.map(|subject| Subject {
                    state: subject.state,
                    egress: subject.egress,
                    ingress: subject.ingress,
                    audited_egress: subject.audited_egress,
                    audited_ingress: subject.audited_ingress,
                    ..Subject::default()
                }),
            );
            if !seen.contains(&kind) {
                seen.push(kind);
                peers.push(*ip);
                here.extend(devices.contains(ip).then_some(*ip));
            }
        }
        let others = snapshot.nodes.values();
        let others = others.filter(|node| node.name != snapshot.node.name);
        peers.extend(others.flat_map(|node| &node.addresses));
        peers.extend(&snapshot.node.addresses);
        Self { here, peers, named }
    }
}

fn identity(tables: &Tables, ip: IpAddr) -> Option<IdentityVal> {
    fn of<A: Family>(tables: &Tables, ip: IpAddr) -> Option<IdentityVal> {
        A::tables(tables).identities.get(&A::from_ip(ip)?).copied()
    }
    of::<Addr4>(tables, ip).or_else(|| of::<Addr6>(tables, ip))
}

/// What is tried at one end of a pod.
struct Tried {
    peers: Vec<IpAddr>,
    ports: Vec<(Option<Protocol>, u16)>,
}

impl Tried {
    fn new(snapshot: &Snapshot, pod: &Pod, direction: Direction, kinds: &Kinds) -> Self {
        let rules = rules(snapshot, pod, direction);
        let mut peers: BTreeSet<IpAddr> = kinds.peers.iter().copied().chain(OUTSIDE).collect();
        let mut ports = BTreeSet::new();
        for rule in rules {
            peers.extend(blocks(rule).flat_map(around));
            ports.extend(boundaries(rule, kinds));
        }
        peers.extend(snapshot.domains.values().flatten());
        peers.extend(snapshot.pod_ranges().iter().flat_map(around));
        for protocol in Protocol::ALL {
            let free = (1..=u16::MAX).find(|&port| !ports.contains(&(Some(protocol), port)));
            ports.extend(free.map(|port| (Some(protocol), port)));
        }
        ports.insert((None, 0));
        // A packet has ends of one family.
        let families: BTreeSet<bool> = pod.ips.iter().map(IpAddr::is_ipv4).collect();
        peers.retain(|peer| families.contains(&peer.is_ipv4()));
        Self {
            peers: peers.into_iter().collect(),
            ports: ports.into_iter().collect(),
        }
    }
}

/// Rules of all policies that select a pod.
fn rules<'a>(snapshot: &'a Snapshot, pod: &Pod, direction: Direction) -> Vec<&'a Rule> {
    let namespaced = snapshot.policies.values().filter(|policy| {
        policy.key.namespace == pod.key.namespace && policy.pods.matches(&pod.labels)
    });
    let namespaced = namespaced.flat_map(|policy| policy.rules(direction).unwrap_or(&[]));
    let labels = snapshot.namespace_labels(&pod.key.namespace);
    let cluster = snapshot
        .cluster_policies
        .values()
        .filter(|policy| policy.namespaces.matches(&labels) && policy.pods.matches(&pod.labels));
    let cluster = cluster.flat_map(|policy| policy.rules(direction));
    namespaced
        .chain(cluster.map(|rule| &rule.matches))
        .collect()
}

fn blocks(rule: &Rule) -> impl Iterator<Item = &IpNet> {
    let peers = match &rule.peers {
        Peers::Any => &[][..],
        Peers::Only(peers) => peers,
    };
    peers.iter().flat_map(|peer| match peer {
        Peer::Block { cidr, except } => std::iter::once(cidr).chain(except).collect(),
        Peer::Pods { .. } | Peer::Nodes(_) | Peer::Domain(_) => Vec::new(),
    })
}

/// The first and the last address of a block, and those beside it.
fn around(block: &IpNet) -> Vec<IpAddr> {
    fn step(ip: IpAddr, up: bool) -> Option<IpAddr> {
        let by = |number: u128| match up {
            true => number.checked_add(1),
            false => number.checked_sub(1),
        };
        match ip {
            IpAddr::V4(ip) => {
                let next = u32::try_from(by(u32::from(ip).into())?).ok()?;
                Some(IpAddr::V4(next.into()))
            }
            IpAddr::V6(ip) => Some(IpAddr::V6(by(ip.into())?.into())),
        }
    }
    let (first, last) = (block.network(), block.broadcast());
    let beside = [step(first, false), step(last, true)];
    beside.into_iter().flatten().chain([first, last]).collect()
}

/// Ports on both sides of each boundary of a rule.
fn boundaries(rule: &Rule, kinds: &Kinds) -> Vec<(Option<Protocol>, u16)> {
    let Ports::Only(ports) = &rule.ports else {
        return Vec::new();
    };
    let mut tried = Vec::new();
    for matched in ports {
        let numbers = match &matched.range {
            PortRange::All => Vec::new(),
            PortRange::Numbers(first, last) => vec![
                first.saturating_sub(1),
                *first,
                *last,
                last.saturating_add(1),
            ],
            PortRange::Named(name) => {
                let numbers = kinds.named.get(&(matched.protocol, name.clone()));
                numbers.into_iter().flatten().copied().collect()
            }
        };
        tried.extend(
            numbers
                .into_iter()
                .map(|port| (Some(matched.protocol), port)),
        );
    }
    tried
}

/// The snapshot without the pods that have none of these addresses.
fn world(snapshot: &Snapshot, owners: &Owners<'_>, subject: IpAddr, peers: &[IpAddr]) -> Snapshot {
    let ips = peers.iter().chain([&subject]);
    let pods = ips.filter_map(|ip| owners.get(ip));
    let mut world = snapshot.without_pods();
    world.pods = pods.map(|&pod| (pod.key.clone(), pod.clone())).collect();
    world
}

#[cfg(test)]
mod tests;
