//! Routes: weights that a Service's connections are divided by.

use super::{ObjectKey, Selector};

/// Most classes of a rule: the Gateway API allows 16 backendRefs.
pub const MAX_ROUTE_CLASSES: usize = dataplane_common::abi::MAX_CLASSES;

/// A route, reduced to what holds per connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Route {
    /// Kind of the object it comes from.
    pub kind: RouteKind,
    /// Its namespace and name.
    pub key: ObjectKey,
    /// Creation time in seconds since the epoch: among routes of one kind the oldest wins. `None`
    /// counts as oldest.
    pub created: Option<i64>,
    /// Rules; for one Service port the first that names it wins.
    pub rules: Vec<RouteRule>,
}

/// Kinds of routes, by falling precedence (Gateway API; Istio's own comes last).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum RouteKind {
    /// GRPCRoute.
    Grpc,
    /// HTTPRoute.
    Http,
    /// TLSRoute.
    Tls,
    /// TCPRoute.
    Tcp,
    /// UDPRoute.
    Udp,
    /// VirtualService.
    VirtualService,
}

/// A rule: connections to the parents are divided among classes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RouteRule {
    /// Services whose connections it takes.
    pub parents: Vec<RouteParent>,
    classes: Vec<RouteClass>,
}

/// A Service, or one port of it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct RouteParent {
    /// The Service.
    pub service: ObjectKey,
    /// Its port's number; `None`: every port.
    pub port: Option<u16>,
}

/// A share of the connections.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RouteClass {
    /// The share is this divided by the rule's sum; 0: none.
    pub weight: u32,
    /// Who serves it.
    pub target: RouteTarget,
}

/// Who serves a class. Without an endpoint, its share is refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RouteTarget {
    /// All endpoints of a Service's port.
    Service {
        /// The Service.
        service: ObjectKey,
        /// Number of its port; `None`: the number that the client dialled on the parent.
        port: Option<u16>,
    },
    /// Those endpoints of a Service's port whose pods have certain labels.
    Subset {
        /// The Service.
        service: ObjectKey,
        /// Number of its port; `None`: the number that the client dialled on the parent.
        port: Option<u16>,
        /// A pod belongs if any of these selects it.
        any_of: Vec<Selector>,
    },
    /// A reference that cannot be followed.
    Invalid,
}

/// A rule has more than [`MAX_ROUTE_CLASSES`] classes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0} backends in one rule; at most {MAX_ROUTE_CLASSES} are supported")]
pub struct TooManyClasses(pub usize);

impl RouteRule {
    /// A rule for `parents`.
    ///
    /// # Errors
    ///
    /// [`TooManyClasses`] if it has more classes than a frontend can hold.
    pub fn new(
        parents: Vec<RouteParent>,
        classes: Vec<RouteClass>,
    ) -> Result<Self, TooManyClasses> {
        if classes.len() > MAX_ROUTE_CLASSES {
            return Err(TooManyClasses(classes.len()));
        }
        Ok(Self { parents, classes })
    }

    /// The classes.
    pub fn classes(&self) -> &[RouteClass] {
        &self.classes
    }
}

impl RouteTarget {
    /// The Service that is referred to.
    pub fn service(&self) -> Option<&ObjectKey> {
        match self {
            Self::Service { service, .. } | Self::Subset { service, .. } => Some(service),
            Self::Invalid => None,
        }
    }
}

impl RouteKind {
    /// The name of the object's kind.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Grpc => "GRPCRoute",
            Self::Http => "HTTPRoute",
            Self::Tls => "TLSRoute",
            Self::Tcp => "TCPRoute",
            Self::Udp => "UDPRoute",
            Self::VirtualService => "VirtualService",
        }
    }
}
