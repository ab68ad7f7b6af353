//! Where a Service's port can be reached.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use dataplane_common::abi::{Port, ServiceKey, scope, service_flags};
use ipnet::IpNet;

use crate::snapshot::{NodeConfig, OnRemoved, Service, ServicePort, TrafficPolicy};
use crate::tables::Family;

/// An address, port and kind of client.
pub(super) struct Frontend<A> {
    /// Address.
    pub(super) addr: A,
    /// Port; 0 with `proto` 0 for all that are no other frontend's.
    pub(super) port: u16,
    /// IP protocol number.
    pub(super) proto: u8,
    /// Where clients are ([`scope`]).
    pub(super) scope: u8,
    /// [`service_flags`].
    pub(super) flags: u16,
    /// Which endpoints serve; `None`: nobody does, clients are refused.
    pub(super) policy: Option<TrafficPolicy>,
}

impl<A: Family> Frontend<A> {
    /// Its key in the map.
    pub(super) fn key(&self) -> ServiceKey<A> {
        ServiceKey {
            addr: self.addr,
            port: Port::new(self.port),
            proto: self.proto,
            scope: self.scope,
            reserved: 0,
        }
    }
}

/// The frontends of one family of a Service's port: none unless the Service has a cluster IP of it. An
/// address that the Service has for several reasons is there once, for the first in this order:
/// cluster IP, load balancer, external IP, NodePort.
pub(super) fn frontends<A: Family>(
    node: &NodeConfig,
    service: &Service,
    port: &ServicePort,
) -> Vec<Frontend<A>> {
    let mut frontends = Frontends {
        node,
        service,
        proto: port.protocol.number(),
        seen: BTreeSet::new(),
        list: Vec::new(),
    };
    for addr in service.cluster_ips.iter().filter_map(|&ip| A::from_ip(ip)) {
        frontends.add_cluster_ip(addr, port.port);
        if service.ports.first() == Some(port) {
            frontends.add_other_ports(addr);
        }
    }
    if frontends.list.is_empty() {
        return frontends.list;
    }
    let ranges = flag(
        has_source_ranges::<A>(service),
        service_flags::SOURCE_RANGES,
    );
    for addr in service.lb_ips.iter().filter_map(|&ip| A::from_ip(ip)) {
        frontends.add_external(addr, port.port, ranges);
    }
    for addr in service.external_ips.iter().filter_map(|&ip| A::from_ip(ip)) {
        frontends.add_external(addr, port.port, 0);
    }
    if let Some(node_port) = port.node_port {
        for addr in node.nodeport_ips().filter_map(A::from_ip) {
            frontends.add_external(addr, node_port, 0);
        }
        if node.has_loopback_nodeports() {
            frontends.add_loopback(node_port);
        }
    }
    frontends.list
}

/// The addresses of one family from which the load balancer's addresses may be used; `None`: from all.
/// If that includes the node itself, then also the load balancer's addresses: a host that has one of
/// them on a device sends from it.
pub(super) fn source_ranges<A: Family>(node: &NodeConfig, service: &Service) -> Option<Vec<IpNet>> {
    if !has_source_ranges::<A>(service) {
        return None;
    }
    let of_family = |range: &&IpNet| A::from_ip(range.addr()).is_some();
    let mut ranges: Vec<_> = service
        .source_ranges
        .iter()
        .filter(of_family)
        .copied()
        .collect();
    let from_node = node
        .internal_ips
        .iter()
        .any(|ip| ranges.iter().any(|range| range.contains(ip)));
    if from_node {
        let vips = service.lb_ips.iter().copied().map(IpNet::from);
        ranges.extend(vips.filter(|range| of_family(&range)));
    }
    ranges.sort_unstable();
    ranges.dedup();
    Some(ranges)
}

/// True if some clients of a family may not use the load balancer's addresses.
fn has_source_ranges<A: Family>(service: &Service) -> bool {
    let ranges = service.source_ranges.iter();
    let mut of_family = ranges
        .filter(|range| A::from_ip(range.addr()).is_some())
        .peekable();
    of_family.peek().is_some() && of_family.all(|range| range.prefix_len() > 0)
}

struct Frontends<'a, A> {
    node: &'a NodeConfig,
    service: &'a Service,
    proto: u8,
    seen: BTreeSet<(A, u16)>,
    list: Vec<Frontend<A>>,
}

impl<A: Family> Frontends<'_, A> {
    /// The internal policy is for clients of either place.
    fn add_cluster_ip(&mut self, addr: A, port: u16) {
        let policy = Some(self.service.internal_policy);
        let masquerade = flag(self.node.masquerade_all, service_flags::SNAT_ALWAYS);
        self.add(addr, port, [policy, policy], masquerade);
    }

    /// Clients on this node reach every endpoint, whatever the policy for those outside.
    fn add_external(&mut self, addr: A, port: u16, flags: u16) {
        let policies = [TrafficPolicy::Cluster, self.service.external_policy];
        let policies = policies.map(Some);
        self.add(addr, port, policies, flags);
    }

    /// Sockets of this node reach every endpoint. There is no such frontend for IPv6.
    fn add_loopback(&mut self, port: u16) {
        if let Some(addr) = A::from_ip(Ipv4Addr::LOCALHOST.into()) {
            self.list.push(Frontend {
                addr,
                port,
                proto: self.proto,
                scope: scope::LOOPBACK,
                flags: 0,
                policy: Some(TrafficPolicy::Cluster),
            });
        }
    }

    /// Nobody serves the ports that the Service does not have.
    fn add_other_ports(&mut self, addr: A) {
        for scope in [scope::INTERNAL, scope::EXTERNAL] {
            self.list.push(Frontend {
                addr,
                port: 0,
                proto: 0,
                scope,
                flags: 0,
                policy: None,
            });
        }
    }

    /// For clients on this node, and for those outside.
    fn add(&mut self, addr: A, port: u16, policies: [Option<TrafficPolicy>; 2], flags: u16) {
        if !self.seen.insert((addr, port)) {
            return;
        }
        let is_own = self.node.addresses.contains(&addr.to_ip());
        let reset = self.service.on_backend_removed == OnRemoved::Reset;
        let flags = flags
            | flag(is_own, service_flags::NODE_ADDRESS)
            | flag(reset, service_flags::RESET_ON_REMOVED);
        for (scope, policy) in [scope::INTERNAL, scope::EXTERNAL].into_iter().zip(policies) {
            let snat = scope == scope::EXTERNAL && policy == Some(TrafficPolicy::Cluster);
            self.list.push(Frontend {
                addr,
                port,
                proto: self.proto,
                scope,
                flags: flags | flag(snat, service_flags::SNAT_REMOTE),
                policy,
            });
        }
    }
}

fn flag(set: bool, bit: u16) -> u16 {
    if set { bit } else { 0 }
}
