//! NetworkPolicies (networking.k8s.io/v1).
//!
//! The API's "missing or empty means all" is resolved here: [`Peers::Any`] and [`Ports::Any`] are said
//! outright, and an empty list selects nothing. So a rule that loses a peer which could not be read
//! never grows into a rule for everyone.

use ipnet::IpNet;

use super::{DomainPattern, ObjectKey, Protocol, Selector, Text};

/// Whether a policy is in force (the annotation `sluice.dev/policy-mode`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum PolicyMode {
    /// It is.
    #[default]
    Enforce,
    /// It is not: what it would forbid is counted and told.
    Audit,
}

/// A NetworkPolicy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NetworkPolicy {
    /// Namespace and name.
    pub key: ObjectKey,
    /// Pods of the namespace that it isolates.
    pub pods: Selector,
    /// Its mode; `None`: that of its namespace.
    pub mode: Option<PolicyMode>,
    /// Rules for what they receive; `None` if the policy does not isolate them in this direction.
    pub ingress: Option<Vec<Rule>>,
    /// Rules for what they send; `None` if the policy does not isolate them in this direction.
    pub egress: Option<Vec<Rule>>,
}

/// A direction, as seen from the pod.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Direction {
    /// What a pod receives.
    Ingress,
    /// What a pod sends.
    Egress,
}

/// What a rule matches: these peers on these ports. A NetworkPolicy allows it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Rule {
    /// `from` or `to`.
    pub peers: Peers,
    /// `ports`.
    pub ports: Ports,
}

/// Peers of a rule.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Peers {
    /// Anyone: `from`/`to` missing or empty.
    Any,
    /// These; an empty list is nobody.
    Only(Vec<Peer>),
}

/// A peer.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Peer {
    /// Pods by labels.
    Pods {
        /// In which namespaces.
        namespaces: NamespaceScope,
        /// Which of their pods; `podSelector` missing is [`Selector::everything`].
        pods: Selector,
    },
    /// Nodes by labels: the addresses that their objects name. NetworkPolicies have no such peer.
    Nodes(Selector),
    /// What domain names resolve to, as far as their answers were seen. Only rules that accept what is
    /// sent have such peers.
    Domain(DomainPattern),
    /// Addresses, of pods too.
    Block {
        /// The block.
        cidr: IpNet,
        /// Parts of it that this peer leaves out.
        except: Vec<IpNet>,
    },
}

/// Namespaces of a pod peer.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum NamespaceScope {
    /// The policy's own: `namespaceSelector` is missing.
    Own,
    /// Those with these labels; an empty selector is all.
    Matching(Selector),
}

/// Ports of a rule.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Ports {
    /// Every protocol and port: `ports` missing or empty.
    Any,
    /// These; an empty list is none.
    Only(Vec<PortMatch>),
}

/// A port of a rule.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PortMatch {
    /// Protocol; the API's default is TCP.
    pub protocol: Protocol,
    /// Ports of the protocol.
    pub range: PortRange,
}

/// Ports of one protocol.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum PortRange {
    /// All.
    All,
    /// From the first to the last, both included (`port` and `endPort`).
    Numbers(u16, u16),
    /// The container port with this name, of the pod that receives.
    Named(Text),
}

impl NetworkPolicy {
    /// What stands in for a policy that could not be read: it isolates every pod of its namespace in
    /// both directions and allows nothing. Use it only where not even the pods, or not even the
    /// directions, are known; a rule or peer that cannot be read is left out of its list instead.
    pub fn unreadable(key: ObjectKey) -> Self {
        Self {
            key,
            pods: Selector::everything(),
            mode: None,
            ingress: Some(Vec::new()),
            egress: Some(Vec::new()),
        }
    }

    /// Rules of a direction; `None` if the policy does not isolate in it.
    pub fn rules(&self, direction: Direction) -> Option<&[Rule]> {
        match direction {
            Direction::Ingress => self.ingress.as_deref(),
            Direction::Egress => self.egress.as_deref(),
        }
    }
}

impl Direction {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Ingress, Self::Egress];

    /// The name in output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }
}
