//! Nodes, namespaces and the devices of this node's pods.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{Labels, Text};

/// This node.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct NodeConfig {
    /// Its name: pods with this `spec.nodeName` are its own.
    pub name: Text,
    /// All addresses of its network namespace.
    pub addresses: Vec<IpAddr>,
    /// Prefixes of those addresses that serve NodePorts; none: all addresses do.
    pub nodeport_addresses: Vec<IpNet>,
}

impl NodeConfig {
    /// The addresses that NodePorts are served on.
    pub fn nodeport_ips(&self) -> impl Iterator<Item = IpAddr> {
        let prefixes = &self.nodeport_addresses;
        let serves = move |ip: &IpAddr| {
            prefixes.is_empty() || prefixes.iter().any(|prefix| prefix.contains(ip))
        };
        self.addresses.iter().copied().filter(serves)
    }
}

/// A node of the cluster.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Node {
    /// Its name.
    pub name: Text,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}

/// A namespace.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Namespace {
    /// Its name.
    pub name: Text,
    /// Its labels, `kubernetes.io/metadata.name` included (the API server always sets it).
    pub labels: Labels,
}

/// The host-side device of a pod of this node.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Interface {
    /// Its ifindex, never 0.
    pub ifindex: u32,
    /// Addresses of the pod's end: they tell which pod it is.
    pub addresses: Vec<IpAddr>,
    /// Hardware address of the pod's end.
    pub mac: [u8; 6],
    /// Hardware address of the host's end.
    pub host_mac: [u8; 6],
    /// Packets may be handed to the pod by `bpf_redirect_peer`.
    pub redirect_ok: bool,
    /// The device was attached after the pod had started.
    pub late: bool,
}
