//! What sources say.

use super::{
    ClusterPolicy, ClusterPolicyKey, Domain, EndpointSlice, Interface, Namespace, NetworkPolicy,
    Node, NodeConfig, ObjectKey, Pod, Route, RouteKind, Service, Text,
};

/// A change of one object, or the end of a source's first list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// The object exists now, like this.
    Apply(Object),
    /// The object is gone.
    Delete(Key),
    /// All objects of this kind that existed when the source started have been applied.
    InSync(Kind),
}

/// An object of any kind.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Object {
    /// This node: addresses that come and go.
    Config(NodeConfig),
    /// A node.
    Node(Node),
    /// A namespace.
    Namespace(Namespace),
    /// A pod.
    Pod(Pod),
    /// A Service.
    Service(Service),
    /// An EndpointSlice.
    Slice(EndpointSlice),
    /// A NetworkPolicy.
    Policy(NetworkPolicy),
    /// A policy of a tier.
    ClusterPolicy(ClusterPolicy),
    /// A route.
    Route(Route),
    /// What a domain name resolves to.
    Domain(Domain),
    /// The host-side device of a pod of this node.
    Interface(Interface),
}

/// Which object.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Key {
    /// A node.
    Node(Text),
    /// A namespace.
    Namespace(Text),
    /// A pod.
    Pod(ObjectKey),
    /// A Service.
    Service(ObjectKey),
    /// An EndpointSlice.
    Slice(ObjectKey),
    /// A NetworkPolicy.
    Policy(ObjectKey),
    /// A policy of a tier.
    ClusterPolicy(ClusterPolicyKey),
    /// A route.
    Route(RouteKind, ObjectKey),
    /// A domain name.
    Domain(Text),
    /// A device, by ifindex.
    Interface(u32),
}

/// A kind of object that a source delivers as a list.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Kind {
    /// Nodes.
    Node,
    /// Namespaces.
    Namespace,
    /// Pods.
    Pod,
    /// Services.
    Service,
    /// EndpointSlices.
    Slice,
    /// NetworkPolicies.
    Policy,
    /// Policies of the tiers, of all kinds.
    ClusterPolicy,
    /// Routes of all kinds.
    Route,
    /// Devices.
    Interface,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 9] = [
        Self::Node,
        Self::Namespace,
        Self::Pod,
        Self::Service,
        Self::Slice,
        Self::Policy,
        Self::ClusterPolicy,
        Self::Route,
        Self::Interface,
    ];
}

impl Object {
    /// The object's key; `None` for the node's own configuration, which is never deleted.
    pub fn key(&self) -> Option<Key> {
        Some(match self {
            Self::Config(_) => return None,
            Self::Node(node) => Key::Node(node.name.clone()),
            Self::Namespace(namespace) => Key::Namespace(namespace.name.clone()),
            Self::Pod(pod) => Key::Pod(pod.key.clone()),
            Self::Service(service) => Key::Service(service.key.clone()),
            Self::Slice(slice) => Key::Slice(slice.key.clone()),
            Self::Policy(policy) => Key::Policy(policy.key.clone()),
            Self::ClusterPolicy(policy) => Key::ClusterPolicy(policy.key.clone()),
            Self::Route(route) => Key::Route(route.kind, route.key.clone()),
            Self::Domain(domain) => Key::Domain(domain.name.clone()),
            Self::Interface(interface) => Key::Interface(interface.ifindex),
        })
    }
}
