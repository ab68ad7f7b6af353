//! Sets of policies, made by number: each policy has one rule, for one peer and its ports.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde_json::{Value, json};

use crate::bench::traffic::PORT;

/// Peers are pods that exist, so many at most.
pub const PEERS: u32 = 1_000;
/// Ports from here on are those of policies.
const FIRST_PORT: u16 = 10_000;
/// Ports of a range.
const WIDTH: u16 = 5;
/// Every so many blocks of addresses have an exception.
const EXCEPTIONS: u32 = 10;

/// What the policies of a set are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// NetworkPolicies for pods by their labels, and a port.
    Selectors,
    /// NetworkPolicies for a block of addresses, and a port.
    Blocks,
    /// NetworkPolicies for pods by their labels, and a range of ports.
    Ranges,
    /// ClusterNetworkPolicies of both tiers, for pods by their labels, and a port.
    Tiers,
    /// As many of each.
    Mixed,
    /// As many of each but the tiers: what Kubernetes itself defines.
    Standard,
}

/// A set: what it is made of, and how many policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Set {
    /// What.
    pub kind: Kind,
    /// How many.
    pub count: u32,
}

/// A policy. Half of a set is for what the server receives, half for what the client sends; one of
/// each half, in its middle, lets the measured connections pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    index: u32,
    /// For what the server receives, or for what the client sends.
    pub ingress: bool,
    /// The other side.
    pub peer: Peer,
    /// The first and last port.
    pub ports: (u16, u16),
    /// Of a tier, with its action; else a NetworkPolicy.
    pub tier: Option<(Tier, Action)>,
}

/// The other side of a policy's rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// The other one of client and server.
    Partner,
    /// A pod by its number.
    Pod(u32),
    /// A block of addresses, perhaps without its second half.
    Block(Ipv4Net, Option<Ipv4Net>),
}

/// A tier beside NetworkPolicies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// Before them.
    Admin,
    /// After them.
    Baseline,
}

/// What a rule of a tier does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Lets pass.
    Accept,
    /// Does not.
    Deny,
    /// Leaves it to what comes after.
    Pass,
}

impl Kind {
    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Selectors => "selectors",
            Kind::Blocks => "CIDRs",
            Kind::Ranges => "port ranges",
            Kind::Tiers => "tiers",
            Kind::Mixed => "mixed",
            Kind::Standard => "mixed without tiers",
        }
    }
}

impl Set {
    /// The objects, all for the measured pods; or, `spread`, as they are in a cluster: one in `PEERS / 2` for
    /// them, the others for the peers.
    pub fn objects(self, spread: bool) -> impl Iterator<Item = Value> {
        self.policies().map(move |policy| {
            let here = !spread || policy.index % (PEERS / 2) < 2;
            if here {
                policy.object()
            } else {
                policy.elsewhere()
            }
        })
    }

    /// Its policies.
    pub fn policies(self) -> impl Iterator<Item = Policy> {
        (0..self.count).map(move |index| self.policy(index))
    }

    /// Whether a NetworkPolicy isolates both pods: a port that none opens is closed then.
    pub fn isolates(self) -> bool {
        let isolated = |ingress| {
            let mut all = self.policies();
            all.any(|policy| policy.ingress == ingress && policy.tier.is_none())
        };
        isolated(true) || isolated(false)
    }

    fn policy(self, index: u32) -> Policy {
        let number = index / 2;
        let opens = number == self.count / 4;
        let kind = match (self.kind, number % 4) {
            (Kind::Mixed, 0) => Kind::Selectors,
            (Kind::Mixed, 1) => Kind::Blocks,
            (Kind::Mixed, 2) => Kind::Ranges,
            (Kind::Mixed, _) => Kind::Tiers,
            (Kind::Standard, _) => {
                [Kind::Selectors, Kind::Blocks, Kind::Ranges][number as usize % 3]
            }
            (kind, _) => kind,
        };
        let port = FIRST_PORT + (index % 50_000) as u16;
        let first = FIRST_PORT + (index % 10_000) as u16 * WIDTH;
        let of_tier = match (index / 4 % 2, index / 8 % 3) {
            _ if opens => (Tier::Admin, Action::Accept),
            (1, which) => (
                Tier::Baseline,
                if which == 0 {
                    Action::Accept
                } else {
                    Action::Deny
                },
            ),
            (_, 0) => (Tier::Admin, Action::Accept),
            (_, 1) => (Tier::Admin, Action::Deny),
            _ => (Tier::Admin, Action::Pass),
        };
        Policy {
            index,
            ingress: index.is_multiple_of(2),
            peer: match kind {
                _ if opens => Peer::Partner,
                Kind::Blocks => block(index),
                _ => Peer::Pod(index % PEERS),
            },
            ports: match kind {
                _ if opens => (PORT, PORT),
                Kind::Ranges => (first, first + WIDTH - 1),
                _ => (port, port),
            },
            tier: (kind == Kind::Tiers).then_some(of_tier),
        }
    }
}

fn block(index: u32) -> Peer {
    let [_, _, high, low] = index.to_be_bytes();
    let half = |first, bits| Ipv4Net::new_assert(Ipv4Addr::new(192, 100 + high, low, first), bits);
    let except = index.is_multiple_of(EXCEPTIONS).then(|| half(128, 25));
    Peer::Block(half(0, 24), except)
}

/// The address of a peer.
pub fn peer_address(number: u32) -> Ipv4Addr {
    let [_, _, high, low] = number.to_be_bytes();
    Ipv4Addr::new(10, 245, high, low)
}

impl Policy {
    /// The object; those without a namespace of their own are in `default`.
    pub fn object(&self) -> Value {
        self.object_for(if self.ingress { "server" } else { "client" })
    }

    /// The same for one of the peers, instead of the measured pods.
    pub fn elsewhere(&self) -> Value {
        self.object_for(&peer_name((self.index + 1) % PEERS))
    }

    /// The object for pods `app: SUBJECT`.
    fn object_for(&self, subject: &str) -> Value {
        let partner = if self.ingress { "client" } else { "server" };
        match self.tier {
            None => self.network_policy(subject, partner),
            Some((tier, action)) => self.cluster_policy(subject, partner, tier, action),
        }
    }

    fn network_policy(&self, subject: &str, partner: &str) -> Value {
        let (direction, field, side) = if self.ingress {
            ("Ingress", "ingress", "from")
        } else {
            ("Egress", "egress", "to")
        };
        let app = |app: String| json!({ "podSelector": { "matchLabels": { "app": app } } });
        let peer = match self.peer {
            Peer::Partner => app(partner.to_owned()),
            Peer::Pod(number) => app(peer_name(number)),
            Peer::Block(cidr, None) => json!({ "ipBlock": { "cidr": cidr.to_string() } }),
            Peer::Block(cidr, Some(except)) => {
                json!({ "ipBlock": { "cidr": cidr.to_string(), "except": [except.to_string()] } })
            }
        };
        let (first, last) = self.ports;
        let mut port = json!({ "protocol": "TCP", "port": first });
        if last > first {
            port["endPort"] = json!(last);
        }
        json!({
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": { "name": self.name(), "namespace": "default" },
            "spec": {
                "podSelector": { "matchLabels": { "app": subject } },
                "policyTypes": [direction],
                field: [{ side: [peer], "ports": [port] }],
            },
        })
    }

    fn cluster_policy(&self, subject: &str, partner: &str, tier: Tier, action: Action) -> Value {
        let pods = |app: &str| {
            let labels = json!({ "matchLabels": { "app": app } });
            json!({ "pods": { "namespaceSelector": {}, "podSelector": labels } })
        };
        let peer = match self.peer {
            Peer::Pod(number) => pods(&peer_name(number)),
            Peer::Partner | Peer::Block(..) => pods(partner),
        };
        let (field, side) = if self.ingress {
            ("ingress", "from")
        } else {
            ("egress", "to")
        };
        let port = json!({ "tcp": { "destinationPort": { "number": self.ports.0 } } });
        let rule = json!({ "action": format!("{action:?}"), side: [peer], "protocols": [port] });
        json!({
            "apiVersion": "policy.networking.k8s.io/v1alpha2",
            "kind": "ClusterNetworkPolicy",
            "metadata": { "name": self.name() },
            "spec": {
                "tier": format!("{tier:?}"),
                "priority": self.index % 1_000,
                "subject": pods(subject),
                field: [rule],
            },
        })
    }

    fn name(&self) -> String {
        format!("policy-{}", self.index)
    }
}

/// The name of a peer, and its label `app`.
pub fn peer_name(number: u32) -> String {
    format!("peer-{number}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: [Kind; 6] = [
        Kind::Selectors,
        Kind::Blocks,
        Kind::Ranges,
        Kind::Tiers,
        Kind::Mixed,
        Kind::Standard,
    ];

    #[test]
    fn one_policy_of_each_direction_opens_the_measured_port() {
        for (kind, count) in KINDS
            .into_iter()
            .flat_map(|kind| [2, 10, 1_000].map(|n| (kind, n)))
        {
            let set = Set { kind, count };
            for ingress in [true, false] {
                let opens = |policy: &Policy| policy.peer == Peer::Partner;
                let mut open = set.policies().filter(opens);
                let open = open.by_ref().filter(|policy| policy.ingress == ingress);
                let open: Vec<Policy> = open.collect();
                assert_eq!(open.len(), 1, "{set:?}");
                assert_eq!(open[0].ports, (PORT, PORT));
                assert!(
                    open[0]
                        .tier
                        .is_none_or(|tier| tier == (Tier::Admin, Action::Accept)),
                    "{set:?}"
                );
            }
        }
    }

    #[test]
    fn mixed_sets_have_all_their_kinds_for_both_directions() {
        let sets = [
            (Kind::Mixed, 80, [9..=10, 9..=10, 9..=10]),
            (Kind::Standard, 60, [9..=10, 9..=10, 0..=0]),
        ];
        for (kind, count, expected) in sets {
            let set = Set { kind, count };
            for ingress in [true, false] {
                let all: Vec<Policy> = set.policies().filter(|p| p.ingress == ingress).collect();
                let blocks = all.iter().filter(|p| matches!(p.peer, Peer::Block(..)));
                let ranges = all.iter().filter(|p| p.ports.0 < p.ports.1);
                let tiers = all.iter().filter(|p| p.tier.is_some());
                let counts = [blocks.count(), ranges.count(), tiers.count()];
                let mut both = expected.iter().zip(&counts);
                assert!(
                    both.all(|(expected, count)| expected.contains(count)),
                    "{set:?}: {counts:?}"
                );
            }
        }
    }

    #[test]
    fn spread_policies_are_for_all_pods() {
        let set = Set {
            kind: Kind::Selectors,
            count: 10_000,
        };
        let subject = |object: &Value| {
            let labels = &object["spec"]["podSelector"]["matchLabels"];
            labels["app"].as_str().unwrap().to_owned()
        };
        let here = |spread| {
            let subjects = set.objects(spread).map(|object| subject(&object));
            let here = subjects.filter(|subject| ["client", "server"].contains(&subject.as_str()));
            here.count()
        };
        assert_eq!([here(false), here(true)], [10_000, 40]);
    }

    #[test]
    fn exceptions_lie_in_their_blocks() {
        let Peer::Block(cidr, Some(except)) = block(10 * 256) else {
            panic!("no exception");
        };
        assert!(cidr.contains(&except) && cidr.prefix_len() == 24);
        assert!(matches!(block(11), Peer::Block(_, None)));
    }
}
