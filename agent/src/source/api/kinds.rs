//! Where each kind is found, and which of its objects are asked for.

use crate::source::Kind;

/// What a kind is asked for with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Scope {
    /// `labelSelector`, empty for none.
    pub labels: &'static str,
    /// `fieldSelector`, empty for none.
    pub fields: &'static str,
}

/// True for kinds that a cluster need not serve.
pub fn is_optional(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::ClusterNetworkPolicy
            | Kind::AdminNetworkPolicy
            | Kind::BaselineAdminNetworkPolicy
            | Kind::HttpRoute
            | Kind::TcpRoute
            | Kind::UdpRoute
            | Kind::VirtualService
            | Kind::DestinationRule
    )
}

/// The objects that are asked for: as kube-proxy does, neither Services that another proxy serves
/// nor headless ones, nor their slices.
pub fn scope(kind: Kind) -> Scope {
    match kind {
        Kind::Service => Scope {
            labels: "!service.kubernetes.io/headless,!service.kubernetes.io/service-proxy-name",
            fields: "spec.clusterIP!=None",
        },
        Kind::EndpointSlice => Scope {
            labels: "!service.kubernetes.io/headless,!service.kubernetes.io/service-proxy-name",
            fields: "",
        },
        _ => Scope {
            labels: "",
            fields: "",
        },
    }
}

/// The path of a kind that every API server has; that of an optional kind is found by asking.
pub fn path(kind: Kind) -> String {
    let plural = plural(kind);
    let (group, versions) = kind.api();
    if group.is_empty() {
        format!("/api/{}/{plural}", versions[0])
    } else {
        format!("/apis/{group}/{}/{plural}", versions[0])
    }
}

/// The name of the kind's resource, as RBAC rules name it.
pub fn plural(kind: Kind) -> &'static str {
    match kind {
        Kind::Namespace => "namespaces",
        Kind::Node => "nodes",
        Kind::Pod => "pods",
        Kind::Service => "services",
        Kind::EndpointSlice => "endpointslices",
        Kind::NetworkPolicy => "networkpolicies",
        Kind::ClusterNetworkPolicy => "clusternetworkpolicies",
        Kind::AdminNetworkPolicy => "adminnetworkpolicies",
        Kind::BaselineAdminNetworkPolicy => "baselineadminnetworkpolicies",
        Kind::HttpRoute => "httproutes",
        Kind::TcpRoute => "tcproutes",
        Kind::UdpRoute => "udproutes",
        Kind::VirtualService => "virtualservices",
        Kind::DestinationRule => "destinationrules",
    }
}
