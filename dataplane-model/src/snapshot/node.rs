//! Nodes, namespaces and the devices of this node's pods.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

use super::{Labels, ObjectKey, Pod, PolicyMode, Text};

/// This node.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct NodeConfig {
    /// Its name: pods with this `spec.nodeName` are its own.
    pub name: Text,
    /// All addresses of its network namespace.
    pub addresses: Vec<IpAddr>,
    /// Prefixes of those addresses that serve NodePorts; in a family without any, all addresses do.
    pub nodeport_addresses: Vec<IpNet>,
    /// NodePorts are served on the first address of each family in `internal_ips` alone.
    pub nodeport_primary: bool,
    /// NodePorts are not served at the node's loopback address, whatever the prefixes say.
    pub nodeport_not_at_loopback: bool,
    /// Clients of cluster IPs are masqueraded, wherever their backend is.
    pub masquerade_all: bool,
    /// Endpoints come from slices alone: a Service without any has none. Otherwise its selector
    /// finds them, as Kubernetes' controller would.
    pub slices_only: bool,
    /// NetworkPolicies police what a pod sends to its own node, too.
    pub police_node_egress: bool,
    /// NetworkPolicies police what a pod sends to itself through a Service, too.
    pub police_hairpin: bool,
    /// There is a DNS proxy, or there will be: queries that go through it wait for it.
    pub has_dns_proxy: bool,
    /// Prefixes of pods' addresses in the whole cluster, as far as settings name them.
    pub pod_ranges: Vec<IpNet>,
    /// Its zone. Like `internal_ips` it is what its own [`Node`] says: [`super::Snapshot`] keeps it so.
    pub zone: Option<Text>,
    /// Its addresses as its own [`Node`] gives them.
    pub internal_ips: Vec<IpAddr>,
}

impl NodeConfig {
    /// The addresses that NodePorts are served on.
    pub fn nodeport_ips(&self) -> impl Iterator<Item = IpAddr> {
        let serves = |ip: &&IpAddr| match self.nodeport_primary {
            true => self.is_primary(**ip),
            false => self.is_in_nodeport_prefixes(**ip),
        };
        self.addresses.iter().filter(serves).copied()
    }

    /// True if this node's own sockets reach NodePorts at `127.0.0.1`, too.
    pub fn has_loopback_nodeports(&self) -> bool {
        !self.nodeport_primary
            && !self.nodeport_not_at_loopback
            && self.is_in_nodeport_prefixes(Ipv4Addr::LOCALHOST.into())
    }

    fn is_primary(&self, ip: IpAddr) -> bool {
        let mut of_family = self.internal_ips.iter();
        of_family.find(|own| own.is_ipv4() == ip.is_ipv4()) == Some(&ip)
    }

    fn is_in_nodeport_prefixes(&self, ip: IpAddr) -> bool {
        let prefixes = self.nodeport_addresses.iter();
        let mut of_family = prefixes
            .filter(|prefix| prefix.addr().is_ipv4() == ip.is_ipv4())
            .peekable();
        of_family.peek().is_none() || of_family.any(|prefix| prefix.contains(&ip))
    }
}

/// A node of the cluster.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Node {
    /// Its name.
    pub name: Text,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Those of type `InternalIP`; if it has none, those of type `ExternalIP`.
    pub internal_ips: Vec<IpAddr>,
    /// Its labels.
    pub labels: Labels,
    /// Prefixes of its pods' addresses (`spec.podCIDRs`).
    pub pod_ranges: Vec<IpNet>,
    /// Label `topology.kubernetes.io/zone`.
    pub zone: Option<Text>,
    /// It is about to go: it has a deletion timestamp, or the taint
    /// `ToBeDeletedByClusterAutoscaler`.
    pub leaving: bool,
}

/// A namespace.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Namespace {
    /// Its name.
    pub name: Text,
    /// Its labels, `kubernetes.io/metadata.name` included (the API server always sets it).
    pub labels: Labels,
    /// The mode of its NetworkPolicies.
    pub mode: PolicyMode,
    /// It has a deletion timestamp: everything in it goes, in any order.
    pub ending: bool,
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
    /// The pod, if the CNI plugin said which it is; else its addresses tell.
    pub pod: Option<PodRef>,
    /// Nothing passes until the pod is known.
    pub closed: bool,
    /// It is the DNS proxy's, and no pod's.
    pub is_dns_proxy: bool,
}

/// A pod that may not be known yet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PodRef {
    /// Namespace and name.
    pub key: ObjectKey,
    /// `metadata.uid`; empty: any pod of that name.
    pub uid: Text,
}

impl PodRef {
    /// True if it is this one. A source may have no uids.
    pub fn is(&self, pod: &Pod) -> bool {
        let same_uid = self.uid.is_empty() || pod.uid.is_empty() || self.uid == pod.uid;
        self.key == pod.key && same_uid
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ips(texts: &[&str]) -> Vec<IpAddr> {
        let parsed = texts.iter().map(|text| text.parse().expect("an address"));
        parsed.collect()
    }

    fn serving(node: &NodeConfig) -> Vec<IpAddr> {
        node.nodeport_ips().collect()
    }

    fn node() -> NodeConfig {
        NodeConfig {
            addresses: ips(&[
                "192.0.2.1",
                "192.0.2.2",
                "10.0.0.1",
                "2001:db8::1",
                "2001:db8::2",
            ]),
            internal_ips: ips(&["192.0.2.2", "192.0.2.1", "2001:db8::2"]),
            ..NodeConfig::default()
        }
    }

    #[test]
    fn without_prefixes_all_addresses_serve_node_ports() {
        assert_eq!(serving(&node()), node().addresses);
    }

    #[test]
    fn prefixes_of_one_family_leave_the_other_open() {
        let node = NodeConfig {
            nodeport_addresses: vec!["192.0.2.0/24".parse().expect("a prefix")],
            ..node()
        };
        let expected = ips(&["192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2"]);
        assert_eq!(serving(&node), expected);
    }

    #[test]
    fn the_loopback_address_serves_node_ports_where_it_is_in_the_prefixes() {
        let with = |prefixes: &[&str], nodeport_primary| NodeConfig {
            nodeport_addresses: (prefixes.iter().map(|text| text.parse().expect("a prefix")))
                .collect(),
            nodeport_primary,
            ..node()
        };
        assert!(with(&[], false).has_loopback_nodeports());
        assert!(with(&["2001:db8::/64"], false).has_loopback_nodeports());
        assert!(with(&["192.0.2.0/24", "127.0.0.0/8"], false).has_loopback_nodeports());
        assert!(!with(&["192.0.2.0/24"], false).has_loopback_nodeports());
        assert!(!with(&[], true).has_loopback_nodeports());
        let without = NodeConfig {
            nodeport_not_at_loopback: true,
            ..node()
        };
        assert!(!without.has_loopback_nodeports());
    }

    #[test]
    fn the_primary_address_is_the_first_of_its_family() {
        let node = NodeConfig {
            nodeport_primary: true,
            ..node()
        };
        assert_eq!(serving(&node), ips(&["192.0.2.2", "2001:db8::2"]));
        let gone = NodeConfig {
            addresses: ips(&["192.0.2.1", "2001:db8::2"]),
            ..node
        };
        assert_eq!(serving(&gone), ips(&["2001:db8::2"]));
    }
}
