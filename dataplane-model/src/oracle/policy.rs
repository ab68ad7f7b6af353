//! NetworkPolicy (networking.k8s.io/v1).

use std::net::IpAddr;

use crate::snapshot::{
    Direction, NamespaceScope, NetworkPolicy, ObjectKey, Peer, Peers, Pod, PortMatch, PortRange,
    Ports, Protocol, Rule, Snapshot,
};

/// What policies say of one end of a flow.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Side {
    /// Policies that isolate the pod in this direction; none: all is allowed.
    pub isolated_by: Vec<ObjectKey>,
    /// Rules that allow the flow: the policy and the rule's place in it.
    pub allowed_by: Vec<(ObjectKey, usize)>,
}

impl Side {
    /// True if the flow is not forbidden here.
    pub fn is_allowed(&self) -> bool {
        self.isolated_by.is_empty() || !self.allowed_by.is_empty()
    }
}

/// What policies say of a flow.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Verdict {
    /// Of the sender.
    pub egress: Side,
    /// Of the receiver.
    pub ingress: Side,
}

impl Verdict {
    /// True if neither end forbids the flow.
    pub fn is_allowed(&self) -> bool {
        self.egress.is_allowed() && self.ingress.is_allowed()
    }
}

/// Judges a flow between two addresses, after translation of the destination. `protocol` is `None` for
/// one without ports.
///
/// Traffic between a pod and its own node is never policed ("traffic to and from the node where a pod
/// is running is always allowed").
pub fn judge(
    snapshot: &Snapshot,
    src: IpAddr,
    dst: IpAddr,
    protocol: Option<Protocol>,
    port: u16,
) -> Verdict {
    let own_node = |ip: IpAddr| snapshot.node.addresses.contains(&ip);
    if src == dst || own_node(src) || own_node(dst) {
        return Verdict::default();
    }
    let flow = Flow {
        snapshot,
        src,
        dst,
        protocol,
        port,
    };
    Verdict {
        egress: flow.side(Direction::Egress),
        ingress: flow.side(Direction::Ingress),
    }
}

struct Flow<'a> {
    snapshot: &'a Snapshot,
    src: IpAddr,
    dst: IpAddr,
    protocol: Option<Protocol>,
    port: u16,
}

impl Flow<'_> {
    fn side(&self, direction: Direction) -> Side {
        let mut side = Side::default();
        let subject = match direction {
            Direction::Ingress => self.dst,
            Direction::Egress => self.src,
        };
        let Some(subject) = self.pod(subject) else {
            return side;
        };
        for policy in self.snapshot.policies.values() {
            let selects = policy.key.namespace == subject.key.namespace
                && policy.pods.matches(&subject.labels);
            let Some(rules) = policy.rules(direction).filter(|_| selects) else {
                continue;
            };
            side.isolated_by.push(policy.key.clone());
            for (place, rule) in rules.iter().enumerate() {
                if self.allows(policy, rule, direction) {
                    side.allowed_by.push((policy.key.clone(), place));
                }
            }
        }
        side
    }

    /// The pod that has an address. Pods of the host's network have none of their own.
    fn pod(&self, address: IpAddr) -> Option<&Pod> {
        let pods = self.snapshot.pods.values();
        let own =
            pods.filter(|pod| !pod.terminal && !pod.host_network && pod.ips.contains(&address));
        // An address that is given on belongs to the pod that stays; else rather to one of this node.
        let here = |pod: &Pod| pod.node.as_ref() == Some(&self.snapshot.node.name);
        own.min_by_key(|pod| (pod.terminating, !here(pod)))
    }

    fn allows(&self, policy: &NetworkPolicy, rule: &Rule, direction: Direction) -> bool {
        let peer = match direction {
            Direction::Ingress => self.src,
            Direction::Egress => self.dst,
        };
        match &rule.peers {
            Peers::Any => self.ports_match(&rule.ports, true),
            Peers::Only(peers) => peers.iter().any(|listed| {
                // A name belongs to a pod; towards a block of addresses it means nothing.
                let names = direction == Direction::Ingress || matches!(listed, Peer::Pods { .. });
                self.peer_matches(policy, listed, peer) && self.ports_match(&rule.ports, names)
            }),
        }
    }

    fn peer_matches(&self, policy: &NetworkPolicy, listed: &Peer, peer: IpAddr) -> bool {
        match listed {
            Peer::Block { cidr, except } => {
                cidr.contains(&peer) && !except.iter().any(|out| out.contains(&peer))
            }
            Peer::Pods { namespaces, pods } => self.pod(peer).is_some_and(|pod| {
                let in_namespace = match namespaces {
                    NamespaceScope::Own => pod.key.namespace == policy.key.namespace,
                    NamespaceScope::Matching(selector) => {
                        selector.matches(&self.snapshot.namespace_labels(&pod.key.namespace))
                    }
                };
                in_namespace && pods.matches(&pod.labels)
            }),
        }
    }

    fn ports_match(&self, ports: &Ports, names: bool) -> bool {
        match ports {
            Ports::Any => true,
            Ports::Only(ports) => ports
                .iter()
                .any(|matched| self.port_matches(matched, names)),
        }
    }

    fn port_matches(&self, matched: &PortMatch, names: bool) -> bool {
        if self.protocol != Some(matched.protocol) {
            return false;
        }
        match &matched.range {
            PortRange::All => true,
            PortRange::Numbers(first, last) => (*first..=*last).contains(&self.port),
            // The receiving pod's, in either direction.
            PortRange::Named(name) => {
                names
                    && self.pod(self.dst).is_some_and(|pod| {
                        pod.named_ports(name, matched.protocol)
                            .any(|n| n == self.port)
                    })
            }
        }
    }
}
