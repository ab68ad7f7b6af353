//! Where a Service's port can be reached.

use dataplane_common::abi::{scope, service_flags};

use crate::snapshot::{NodeConfig, Service, ServicePort, TrafficPolicy};
use crate::tables::Family;

/// An address, port and kind of client.
pub(super) struct Frontend<A> {
    /// Address.
    pub(super) addr: A,
    /// Port.
    pub(super) port: u16,
    /// Whether clients are on this node ([`scope`]).
    pub(super) scope: u8,
    /// [`service_flags`].
    pub(super) flags: u16,
    /// Which endpoints serve.
    pub(super) policy: TrafficPolicy,
}

/// The frontends of one family of a Service's port.
pub(super) fn frontends<A: Family>(
    node: &NodeConfig,
    service: &Service,
    port: &ServicePort,
) -> Vec<Frontend<A>> {
    let cluster_ips = service.cluster_ips.iter().filter_map(|&ip| A::from_ip(ip));
    let mut frontends: Vec<_> = cluster_ips
        .map(|addr| Frontend {
            addr,
            port: port.port,
            scope: scope::INTERNAL,
            flags: 0,
            policy: service.internal_policy,
        })
        .collect();
    // A node port has the families of its Service.
    let (Some(node_port), false) = (port.node_port, frontends.is_empty()) else {
        return frontends;
    };
    for addr in node.nodeport_ips().filter_map(A::from_ip) {
        let inside = Frontend {
            addr,
            port: node_port,
            scope: scope::INTERNAL,
            flags: service_flags::NODE_ADDRESS,
            // Clients on this node reach every endpoint, whatever the policy for those outside.
            policy: TrafficPolicy::Cluster,
        };
        let snat = match service.external_policy {
            TrafficPolicy::Cluster => service_flags::SNAT_REMOTE,
            TrafficPolicy::Local => 0,
        };
        let flags = inside.flags | snat;
        frontends.push(Frontend {
            scope: scope::EXTERNAL,
            flags,
            policy: service.external_policy,
            ..inside
        });
        frontends.push(inside);
    }
    frontends
}
