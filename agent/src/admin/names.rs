//! Names of what the kernel knows by numbers and addresses.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use dataplane_common::abi::{Addr4, Addr6, Port};
use dataplane_common::net::proto;
use dataplane_model::compile::Services;
use dataplane_model::ids::{IdKind, IdTable};
use dataplane_model::snapshot::{Direction, ObjectKey, PolicyMode, Snapshot};
use dataplane_model::tables::Family;

/// Names as of one state.
#[derive(Clone, Debug, Default)]
pub struct Names {
    frontends: BTreeMap<u32, Arc<str>>,
    rules: BTreeMap<u32, Arc<str>>,
    /// Pods by address: keys, whose text is made for the few that are shown.
    pods: HashMap<IpAddr, ObjectKey>,
    /// Addresses by device.
    devices: BTreeMap<u32, Vec<IpAddr>>,
    /// Policies that isolate a pod of this node, for what it receives and what it sends; or would.
    isolated: BTreeMap<ObjectKey, [Vec<(PolicyMode, String)>; 2]>,
    node: Option<Arc<str>>,
    node_addresses: Vec<IpAddr>,
}

impl Names {
    /// The names of a state.
    pub fn new(snapshot: &Snapshot, ids: &IdTable, services: &Services) -> Self {
        let mut names = Self {
            frontends: services.names(snapshot, ids).of(IdKind::Frontend),
            rules: ids.names(IdKind::Rule),
            node: Some(snapshot.node.name.clone()),
            node_addresses: snapshot.node.addresses.clone(),
            ..Self::default()
        };
        for pod in snapshot.pods.values().filter(|pod| pod.is_policy_pod()) {
            for &ip in &pod.ips {
                names.pods.insert(ip, pod.key.clone());
            }
            if pod.node.as_ref() == Some(&snapshot.node.name) {
                let isolated = isolating(snapshot, pod);
                names.isolated.insert(pod.key.clone(), isolated);
            }
        }
        for interface in snapshot.interfaces.values() {
            let addresses = interface.addresses.to_vec();
            names.devices.insert(interface.ifindex, addresses);
        }
        names
    }

    /// The Service port of a frontend.
    pub fn frontend(&self, number: u32) -> Option<String> {
        named(&self.frontends, number)
    }

    /// A policy's rule.
    pub fn rule(&self, number: u32) -> Option<String> {
        named(&self.rules, number)
    }

    /// The pod with an address; or the node.
    pub fn owner(&self, ip: IpAddr) -> Option<String> {
        if let Some(pod) = self.pods.get(&ip) {
            return Some(pod.to_string());
        }
        let node = self.node.as_ref()?;
        self.node_addresses
            .contains(&ip)
            .then(|| format!("node {node}"))
    }

    /// True for an address of a pod of this node.
    pub fn is_local(&self, ip: IpAddr) -> bool {
        self.pods
            .get(&ip)
            .is_some_and(|pod| self.isolated.contains_key(pod))
    }

    /// The pod with a device.
    pub fn device(&self, ifindex: u32) -> Option<String> {
        let addresses = self.devices.get(&ifindex)?;
        let pod = addresses.iter().find_map(|ip| self.pods.get(ip));
        pod.map(ToString::to_string)
    }

    /// The policies that isolate the pod with an address in a direction, if it is on this node. In audit,
    /// those that would if all were in force.
    pub fn isolated_by(&self, ip: IpAddr, direction: Direction, mode: PolicyMode) -> Vec<String> {
        let index = match direction {
            Direction::Ingress => 0,
            Direction::Egress => 1,
        };
        let policies = self.pods.get(&ip).and_then(|pod| self.isolated.get(pod));
        let policies = policies.into_iter().flat_map(|policies| &policies[index]);
        let of_mode = policies.filter(|(of, _)| *of == mode || *of == PolicyMode::Enforce);
        of_mode.map(|(_, policy)| policy.clone()).collect()
    }
}

fn isolating(
    snapshot: &Snapshot,
    pod: &dataplane_model::snapshot::Pod,
) -> [Vec<(PolicyMode, String)>; 2] {
    [Direction::Ingress, Direction::Egress].map(|direction| {
        let policies = snapshot.policies.values().filter(|policy| {
            policy.key.namespace == pod.key.namespace
                && policy.rules(direction).is_some()
                && policy.pods.matches(&pod.labels)
        });
        let named = policies.map(|policy| (snapshot.mode_of(policy), policy.key.to_string()));
        named.collect()
    })
}

fn named(names: &BTreeMap<u32, Arc<str>>, number: u32) -> Option<String> {
    if number == 0 {
        return None;
    }
    Some(
        names
            .get(&number)
            .map_or_else(|| format!("#{number}"), |name| name.to_string()),
    )
}

/// An address of the maps for people: IPv4-mapped ones as IPv4.
pub fn ip(address: Addr6) -> IpAddr {
    match address.mapped4() {
        Some(v4) => v4.to_ip(),
        None => address.to_ip(),
    }
}

/// Address and port for people; without the port for protocols that have none.
pub fn endpoint(ip: IpAddr, port: Port) -> String {
    if port.number() == 0 {
        return ip.to_string();
    }
    SocketAddr::new(ip, port.number()).to_string()
}

/// True for `::`, which stands for no address.
pub fn is_none(address: Addr6) -> bool {
    Ipv6Addr::from(address).is_unspecified() || address.mapped4() == Some(Addr4(0))
}

/// The name of a protocol.
pub fn protocol(number: u8) -> String {
    match number {
        proto::TCP => "TCP".to_owned(),
        proto::UDP => "UDP".to_owned(),
        proto::SCTP => "SCTP".to_owned(),
        proto::ICMP => "ICMP".to_owned(),
        proto::ICMPV6 => "ICMPv6".to_owned(),
        other => format!("protocol {other}"),
    }
}
