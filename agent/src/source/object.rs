//! Objects as they are read, before they are converted.

use std::borrow::Cow;
use std::fmt;

use dataplane_model::snapshot::Kind as ModelKind;
use serde::{Deserialize, Serialize};

use super::core::{EndpointSlice, Namespace, NetworkPolicy, Node, Pod, Service};
use super::routes::{DestinationRule, HttpRoute, L4Route, VirtualService};
use super::schema::ObjectMeta;
use super::tiers::TierPolicy;

/// The kinds of objects the agent has a use for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Kind {
    /// `v1` Namespace.
    Namespace,
    /// `v1` Node.
    Node,
    /// `v1` Pod.
    Pod,
    /// `v1` Service.
    Service,
    /// `discovery.k8s.io/v1` EndpointSlice.
    EndpointSlice,
    /// `networking.k8s.io/v1` NetworkPolicy.
    NetworkPolicy,
    /// `policy.networking.k8s.io/v1alpha2` ClusterNetworkPolicy.
    ClusterNetworkPolicy,
    /// `policy.networking.k8s.io/v1alpha1` AdminNetworkPolicy.
    AdminNetworkPolicy,
    /// `policy.networking.k8s.io/v1alpha1` BaselineAdminNetworkPolicy.
    BaselineAdminNetworkPolicy,
    /// `gateway.networking.k8s.io/v1` HTTPRoute.
    #[serde(rename = "HTTPRoute")]
    HttpRoute,
    /// `gateway.networking.k8s.io/v1` TCPRoute.
    #[serde(rename = "TCPRoute")]
    TcpRoute,
    /// `gateway.networking.k8s.io/v1` UDPRoute.
    #[serde(rename = "UDPRoute")]
    UdpRoute,
    /// `networking.istio.io/v1` VirtualService.
    VirtualService,
    /// `networking.istio.io/v1` DestinationRule.
    DestinationRule,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 14] = [
        Kind::Namespace,
        Kind::Node,
        Kind::Pod,
        Kind::Service,
        Kind::EndpointSlice,
        Kind::NetworkPolicy,
        Kind::ClusterNetworkPolicy,
        Kind::AdminNetworkPolicy,
        Kind::BaselineAdminNetworkPolicy,
        Kind::HttpRoute,
        Kind::TcpRoute,
        Kind::UdpRoute,
        Kind::VirtualService,
        Kind::DestinationRule,
    ];

    /// The model's kind that its objects become.
    pub const fn in_model(self) -> ModelKind {
        match self {
            Kind::Namespace => ModelKind::Namespace,
            Kind::Node => ModelKind::Node,
            Kind::Pod => ModelKind::Pod,
            Kind::Service => ModelKind::Service,
            Kind::EndpointSlice => ModelKind::Slice,
            Kind::NetworkPolicy => ModelKind::Policy,
            Kind::ClusterNetworkPolicy
            | Kind::AdminNetworkPolicy
            | Kind::BaselineAdminNetworkPolicy => ModelKind::ClusterPolicy,
            Kind::HttpRoute
            | Kind::TcpRoute
            | Kind::UdpRoute
            | Kind::VirtualService
            | Kind::DestinationRule => ModelKind::Route,
        }
    }

    /// The kind's name as it stands in `kind:`.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Namespace => "Namespace",
            Kind::Node => "Node",
            Kind::Pod => "Pod",
            Kind::Service => "Service",
            Kind::EndpointSlice => "EndpointSlice",
            Kind::NetworkPolicy => "NetworkPolicy",
            Kind::ClusterNetworkPolicy => "ClusterNetworkPolicy",
            Kind::AdminNetworkPolicy => "AdminNetworkPolicy",
            Kind::BaselineAdminNetworkPolicy => "BaselineAdminNetworkPolicy",
            Kind::HttpRoute => "HTTPRoute",
            Kind::TcpRoute => "TCPRoute",
            Kind::UdpRoute => "UDPRoute",
            Kind::VirtualService => "VirtualService",
            Kind::DestinationRule => "DestinationRule",
        }
    }

    /// The API group (empty for the core group) and the versions that are understood, the
    /// preferred one first.
    pub const fn api(self) -> (&'static str, &'static [&'static str]) {
        match self {
            Kind::Namespace | Kind::Node | Kind::Pod | Kind::Service => ("", &["v1"]),
            Kind::EndpointSlice => ("discovery.k8s.io", &["v1"]),
            Kind::NetworkPolicy => ("networking.k8s.io", &["v1"]),
            Kind::ClusterNetworkPolicy => ("policy.networking.k8s.io", &["v1alpha2"]),
            Kind::AdminNetworkPolicy | Kind::BaselineAdminNetworkPolicy => {
                ("policy.networking.k8s.io", &["v1alpha1"])
            }
            Kind::HttpRoute => ("gateway.networking.k8s.io", &["v1", "v1beta1"]),
            Kind::TcpRoute | Kind::UdpRoute => ("gateway.networking.k8s.io", &["v1", "v1alpha2"]),
            Kind::VirtualService | Kind::DestinationRule => {
                ("networking.istio.io", &["v1", "v1beta1", "v1alpha3"])
            }
        }
    }

    /// True for kinds that live in a namespace.
    pub const fn namespaced(self) -> bool {
        !matches!(
            self,
            Kind::Namespace
                | Kind::Node
                | Kind::ClusterNetworkPolicy
                | Kind::AdminNetworkPolicy
                | Kind::BaselineAdminNetworkPolicy
        )
    }

    /// True for policies of all tiers.
    pub const fn is_policy(self) -> bool {
        matches!(
            self,
            Kind::NetworkPolicy
                | Kind::ClusterNetworkPolicy
                | Kind::AdminNetworkPolicy
                | Kind::BaselineAdminNetworkPolicy
        )
    }

    /// The kind of policies with this name, in letters of any size, or with this short name of `kubectl`.
    pub fn policy(name: &str) -> Option<Kind> {
        let short = |kind: Kind| match kind {
            Kind::NetworkPolicy => "netpol",
            Kind::ClusterNetworkPolicy => "cnp",
            Kind::AdminNetworkPolicy => "anp",
            Kind::BaselineAdminNetworkPolicy => "banp",
            _ => "",
        };
        Self::ALL.into_iter().find(|&kind| {
            let known = [kind.name(), short(kind)];
            kind.is_policy() && known.iter().any(|known| known.eq_ignore_ascii_case(name))
        })
    }

    /// The kind with this name in this API group, if it is one of these.
    pub fn find(group: &str, name: &str) -> Option<Kind> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.name() == name && kind.api().0 == group)
    }

    /// The preferred `apiVersion`.
    pub fn api_version(self) -> String {
        let (group, versions) = self.api();
        if group.is_empty() {
            versions[0].to_owned()
        } else {
            format!("{group}/{}", versions[0])
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What an object is found by.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct ObjectKey {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace; empty for kinds without one.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{} {}", self.kind, self.name)
        } else {
            write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
        }
    }
}

/// An object of a kind the agent has a use for.
#[derive(Clone, PartialEq, Debug)]
pub enum Object {
    /// `v1` Namespace.
    Namespace(Box<Namespace>),
    /// `v1` Node.
    Node(Box<Node>),
    /// `v1` Pod.
    Pod(Box<Pod>),
    /// `v1` Service.
    Service(Box<Service>),
    /// `discovery.k8s.io/v1` EndpointSlice.
    EndpointSlice(Box<EndpointSlice>),
    /// `networking.k8s.io/v1` NetworkPolicy.
    NetworkPolicy(Box<NetworkPolicy>),
    /// ClusterNetworkPolicy.
    ClusterNetworkPolicy(Box<TierPolicy>),
    /// AdminNetworkPolicy.
    AdminNetworkPolicy(Box<TierPolicy>),
    /// BaselineAdminNetworkPolicy.
    BaselineAdminNetworkPolicy(Box<TierPolicy>),
    /// HTTPRoute.
    HttpRoute(Box<HttpRoute>),
    /// TCPRoute.
    TcpRoute(Box<L4Route>),
    /// UDPRoute.
    UdpRoute(Box<L4Route>),
    /// VirtualService.
    VirtualService(Box<VirtualService>),
    /// DestinationRule.
    DestinationRule(Box<DestinationRule>),
}

impl Object {
    /// The object's kind.
    pub fn kind(&self) -> Kind {
        match self {
            Object::Namespace(_) => Kind::Namespace,
            Object::Node(_) => Kind::Node,
            Object::Pod(_) => Kind::Pod,
            Object::Service(_) => Kind::Service,
            Object::EndpointSlice(_) => Kind::EndpointSlice,
            Object::NetworkPolicy(_) => Kind::NetworkPolicy,
            Object::ClusterNetworkPolicy(_) => Kind::ClusterNetworkPolicy,
            Object::AdminNetworkPolicy(_) => Kind::AdminNetworkPolicy,
            Object::BaselineAdminNetworkPolicy(_) => Kind::BaselineAdminNetworkPolicy,
            Object::HttpRoute(_) => Kind::HttpRoute,
            Object::TcpRoute(_) => Kind::TcpRoute,
            Object::UdpRoute(_) => Kind::UdpRoute,
            Object::VirtualService(_) => Kind::VirtualService,
            Object::DestinationRule(_) => Kind::DestinationRule,
        }
    }

    /// Its metadata.
    pub fn metadata(&self) -> &ObjectMeta {
        match self {
            Object::Namespace(o) => &o.metadata,
            Object::Node(o) => &o.metadata,
            Object::Pod(o) => &o.metadata,
            Object::Service(o) => &o.metadata,
            Object::EndpointSlice(o) => &o.metadata,
            Object::NetworkPolicy(o) => &o.metadata,
            Object::ClusterNetworkPolicy(o)
            | Object::AdminNetworkPolicy(o)
            | Object::BaselineAdminNetworkPolicy(o) => &o.metadata,
            Object::HttpRoute(o) => &o.metadata,
            Object::TcpRoute(o) | Object::UdpRoute(o) => &o.metadata,
            Object::VirtualService(o) => &o.metadata,
            Object::DestinationRule(o) => &o.metadata,
        }
    }

    /// What the object is found by; the namespace is `default` where none is given.
    pub fn key(&self) -> ObjectKey {
        let meta = self.metadata();
        ObjectKey::new(
            self.kind(),
            meta.namespace.as_deref(),
            meta.name.as_deref().unwrap_or_default(),
        )
    }
}

impl ObjectKey {
    /// A key; the namespace is `default` where the kind needs one and none is given.
    pub fn new(kind: Kind, namespace: Option<&str>, name: &str) -> Self {
        let namespace = match namespace {
            _ if !kind.namespaced() => "",
            Some(given) if !given.is_empty() => given,
            _ => "default",
        };
        Self {
            kind,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }
}

/// Where a document stands.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
pub struct Origin {
    /// The file's path, or the name of another place.
    pub file: Cow<'static, str>,
    /// The line, counted from 1, where the document (or what is wrong in it) begins; 0 where there
    /// are no lines.
    pub line: u32,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => f.write_str(&self.file),
            line => write!(f, "{}:{line}", self.file),
        }
    }
}

/// What is wrong with a document or an object.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Problem {
    /// Where it stands.
    pub origin: Origin,
    /// The object, where it is known.
    pub object: Option<ObjectKey>,
    /// The path of the field, where it is known, as in `spec.ports[0].port`.
    pub field: String,
    /// What is wrong and what would cure it, in one line.
    pub message: String,
    /// What holds in the meantime, in one line.
    pub effect: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.origin)?;
        if let Some(object) = &self.object {
            write!(f, "{object}: ")?;
        }
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.message)?;
        if !self.effect.is_empty() {
            write!(f, " ({})", self.effect)?;
        }
        Ok(())
    }
}
