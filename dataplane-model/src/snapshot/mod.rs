//! What the compiler reads: the current objects, valid by construction and free of API types.
//!
//! Sources turn what they read into [`Event`]s; [`Snapshot::apply`] folds them in. A snapshot depends
//! only on the objects that exist now, never on the order in which they came. Of a namespace that ends,
//! NetworkPolicies stay for as long as there are pods in it.

mod change;
mod domain;
mod ending;
mod endpoints;
mod event;
mod labels;
mod node;
mod pod;
mod policy;
mod route;
mod service;
mod tiers;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::ops::Deref;
use std::sync::Arc;

use dataplane_common::net::proto;
use ipnet::IpNet;

pub use change::Change;
pub use domain::{Domain, DomainPattern};
pub use ending::Before;
pub use endpoints::{Endpoint, EndpointSlice, Place, SlicePort};
pub use event::{Event, Key, Kind, Object};
pub use labels::{Labels, Operator, Requirement, Selector};
pub use node::{Interface, Namespace, Node, NodeConfig, PodRef};
pub use pod::{ContainerPort, Pod};
pub use policy::{
    Direction, NamespaceScope, NetworkPolicy, Peer, Peers, PolicyMode, PortMatch, PortRange, Ports,
    Rule,
};
pub use route::{
    MAX_ROUTE_CLASSES, Route, RouteClass, RouteKind, RouteParent, RouteRule, RouteTarget,
    TooManyClasses,
};
pub use service::{OnRemoved, Service, ServiceKind, ServicePort, TargetPort, TrafficPolicy};
pub use tiers::{ClusterPolicy, ClusterPolicyKey, ClusterPolicyKind, RuleAction, Tier, TierRule};

/// A shared, immutable string.
pub type Text = Arc<str>;

/// Namespace and name of an object. Its copies share them: there are many of each.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ObjectKey(Arc<FullName>);

/// What an [`ObjectKey`] consists of.
#[derive(PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FullName {
    /// The namespace.
    pub namespace: Text,
    /// The name.
    pub name: Text,
}

impl ObjectKey {
    /// From its two parts.
    pub fn new(namespace: impl Into<Text>, name: impl Into<Text>) -> Self {
        Self(Arc::new(FullName {
            namespace: namespace.into(),
            name: name.into(),
        }))
    }
}

impl Deref for ObjectKey {
    type Target = FullName;

    fn deref(&self) -> &FullName {
        &self.0
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A transport protocol that Services and policies name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Protocol {
    /// TCP, the default of the API.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Tcp, Self::Udp, Self::Sctp];

    /// The IP protocol number.
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => proto::TCP,
            Self::Udp => proto::UDP,
            Self::Sctp => proto::SCTP,
        }
    }

    /// The name as Kubernetes spells it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// All objects that exist now, as one node sees them.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Snapshot {
    /// This node.
    pub node: NodeConfig,
    /// Nodes by name; for addresses, this one's own entry is ignored in favour of `node`.
    pub nodes: BTreeMap<Text, Node>,
    /// Labels of namespaces.
    pub namespaces: BTreeMap<Text, Labels>,
    /// Namespaces whose NetworkPolicies are in audit unless they say otherwise.
    pub audited: BTreeSet<Text>,
    /// Pods of the cluster.
    pub pods: BTreeMap<ObjectKey, Pod>,
    /// Services.
    pub services: BTreeMap<ObjectKey, Box<Service>>,
    /// EndpointSlices. A Service that has one is served by its slices alone; see
    /// [`NodeConfig::slices_only`].
    pub slices: BTreeMap<ObjectKey, EndpointSlice>,
    /// NetworkPolicies.
    pub policies: BTreeMap<ObjectKey, Arc<NetworkPolicy>>,
    /// Policies of the tiers Admin and Baseline.
    pub cluster_policies: BTreeMap<ClusterPolicyKey, Arc<ClusterPolicy>>,
    /// Routes, in the order of precedence of their kinds.
    pub routes: BTreeMap<(RouteKind, ObjectKey), Route>,
    /// What domain names resolve to.
    pub domains: BTreeMap<Text, BTreeSet<IpAddr>>,
    /// Host-side devices of this node's pods, by ifindex.
    pub interfaces: BTreeMap<u32, Interface>,
    /// Namespaces that end, and their NetworkPolicies that are gone before their pods.
    ending: ending::Ending,
    /// Kinds whose source has not said yet that its first list is complete.
    pub awaited: BTreeSet<Kind>,
}

impl Snapshot {
    /// An empty snapshot that is in sync once every kind in `awaited` has said so.
    pub fn new(node: NodeConfig, awaited: impl IntoIterator<Item = Kind>) -> Self {
        Self {
            node,
            awaited: awaited.into_iter().collect(),
            ..Self::default()
        }
    }

    /// True once every source has delivered its first list: only then may what is not in the
    /// snapshot be taken as gone.
    pub fn is_in_sync(&self) -> bool {
        self.awaited.is_empty()
    }

    /// Labels of a namespace. `kubernetes.io/metadata.name` is there as the API server sets it, even if
    /// the namespace's own object is not known.
    pub fn namespace_labels(&self, namespace: &Text) -> Labels {
        let mut labels = self.namespaces.get(namespace).cloned().unwrap_or_default();
        labels.insert(Text::from("kubernetes.io/metadata.name"), namespace.clone());
        labels
    }

    /// What a NetworkPolicy is there for: as it says itself, else as its namespace says.
    pub fn mode_of(&self, policy: &NetworkPolicy) -> PolicyMode {
        let of_namespace = || match self.audited.contains(&policy.key.namespace) {
            true => PolicyMode::Audit,
            false => PolicyMode::Enforce,
        };
        policy.mode.unwrap_or_else(of_namespace)
    }

    /// True if a NetworkPolicy is in audit, by itself or by its namespace.
    pub fn is_audited(&self, policy: &NetworkPolicy) -> bool {
        self.mode_of(policy) == PolicyMode::Audit
    }

    /// True if some policy is in audit.
    pub fn audits(&self) -> bool {
        let mut tiers = self.cluster_policies.values();
        let mut namespaced = self.policies.values();
        tiers.any(|policy| policy.mode == PolicyMode::Audit)
            || namespaced.any(|policy| self.is_audited(policy))
    }

    /// Prefixes that pods' addresses are in: those that the settings name, and those of nodes. Without
    /// any, pods may be anywhere.
    pub fn pod_ranges(&self) -> BTreeSet<IpNet> {
        let of_nodes = self.nodes.values().flat_map(|node| &node.pod_ranges);
        let all = self.node.pod_ranges.iter().chain(of_nodes);
        let all: Vec<_> = all.copied().collect();
        IpNet::aggregate(&all).into_iter().collect()
    }

    /// What policies depend on: everything but Services, their slices and routes.
    pub fn of_policy(&self) -> Self {
        Self {
            pods: self.pods.clone(),
            ..self.without_pods()
        }
    }

    /// The same without pods.
    pub(crate) fn without_pods(&self) -> Self {
        Self {
            node: self.node.clone(),
            nodes: self.nodes.clone(),
            namespaces: self.namespaces.clone(),
            audited: self.audited.clone(),
            policies: self.policies.clone(),
            cluster_policies: self.cluster_policies.clone(),
            domains: self.domains.clone(),
            interfaces: self.interfaces.clone(),
            ending: self.ending.clone(),
            awaited: self.awaited.clone(),
            ..Self::default()
        }
    }

    /// Folds an event in. Returns false if nothing changed.
    pub fn apply(&mut self, event: Event) -> bool {
        self.fold(event).is_some()
    }
}

impl Snapshot {
    /// Takes over what this node's own object says of it.
    fn follow_own_node(&mut self) {
        let own = self.nodes.get(&self.node.name);
        self.node.zone = own.and_then(|own| own.zone.clone());
        self.node.internal_ips = own.map(|own| own.internal_ips.clone()).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_is_in_sync_when_all_awaited_kinds_are() {
        let mut snapshot = Snapshot::new(NodeConfig::default(), [Kind::Pod, Kind::Service]);
        assert!(!snapshot.is_in_sync());
        assert!(snapshot.apply(Event::InSync(Kind::Pod)));
        assert!(!snapshot.is_in_sync());
        assert!(snapshot.apply(Event::InSync(Kind::Service)));
        assert!(!snapshot.apply(Event::InSync(Kind::Service)));
        assert!(snapshot.is_in_sync());
    }

    #[test]
    fn repeated_events_change_nothing() {
        let mut snapshot = Snapshot::default();
        let namespace = || {
            Event::Apply(Object::Namespace(Namespace {
                name: "a".into(),
                labels: Labels::new(),
                mode: PolicyMode::Enforce,
                ending: false,
            }))
        };
        assert!(snapshot.apply(namespace()));
        assert!(!snapshot.apply(namespace()));
        assert!(snapshot.apply(Event::Delete(Key::Namespace("a".into()))));
        assert!(!snapshot.apply(Event::Delete(Key::Namespace("a".into()))));
        assert_eq!(snapshot, Snapshot::default());
    }

    #[test]
    fn what_a_nodes_own_object_says_does_not_depend_on_what_came_first() {
        let config = || {
            Event::Apply(Object::Config(NodeConfig {
                name: "here".into(),
                ..NodeConfig::default()
            }))
        };
        let node = |name: &str| {
            Event::Apply(Object::Node(Node {
                name: name.into(),
                zone: Some("z".into()),
                internal_ips: vec![[192, 0, 2, 1].into()],
                ..Node::default()
            }))
        };
        let (mut first, mut last) = (Snapshot::default(), Snapshot::default());
        assert!(first.apply(node("here")) && first.apply(config()));
        assert!(last.apply(config()) && last.apply(node("here")));
        assert_eq!(first, last);
        assert_eq!(first.node.zone.as_deref(), Some("z"));
        assert!(!first.apply(config()), "nothing new");
        assert!(first.apply(node("there")) && first.apply(Event::Delete(Key::Node("here".into()))));
        assert_eq!(
            (&first.node.zone, first.node.internal_ips.len()),
            (&None, 0)
        );
    }
}
