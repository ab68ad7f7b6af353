//! Services.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{Labels, ObjectKey, Protocol, Text};

/// A Service.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Service {
    /// Namespace and name.
    pub key: ObjectKey,
    /// Creation time in seconds since the epoch: of Services that claim one address and port the oldest
    /// has it. `None` counts as oldest.
    pub created: Option<i64>,
    /// `spec.type`.
    pub kind: ServiceKind,
    /// `spec.selector`; `None` or empty: endpoints come from slices only.
    pub selector: Option<Labels>,
    /// `spec.clusterIPs`; empty for a headless Service.
    pub cluster_ips: Vec<IpAddr>,
    /// `spec.externalIPs`.
    pub external_ips: Vec<IpAddr>,
    /// Addresses of `status.loadBalancer.ingress` whose `ipMode` is `VIP` or unset.
    pub lb_ips: Vec<IpAddr>,
    /// `spec.loadBalancerSourceRanges`, without host bits: who may use `lb_ips`. A family without a
    /// range is open.
    pub source_ranges: Vec<IpNet>,
    /// `spec.healthCheckNodePort` of a load balancer whose external policy is `Local`.
    pub health_check_node_port: Option<u16>,
    /// Ports.
    pub ports: Vec<ServicePort>,
    /// `spec.internalTrafficPolicy`: for clients in the cluster, on the cluster IP.
    pub internal_policy: TrafficPolicy,
    /// `spec.externalTrafficPolicy`: for clients outside.
    pub external_policy: TrafficPolicy,
    /// Seconds of ClientIP affinity; `None` without affinity.
    pub affinity_secs: Option<u32>,
    /// Endpoints count as ready whatever their pods say.
    pub publish_not_ready: bool,
    /// Annotation `sluice.dev/on-backend-removed`.
    pub on_backend_removed: OnRemoved,
}

/// What becomes of the TCP flows of a backend that is removed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum OnRemoved {
    /// They go on until their ends close them.
    #[default]
    Drain,
    /// They are reset.
    Reset,
}

/// Types of Services.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ServiceKind {
    /// A cluster IP, or none if headless.
    #[default]
    ClusterIp,
    /// And a port on every node.
    NodePort,
    /// And a load balancer in front.
    LoadBalancer,
    /// A DNS alias: nothing to serve.
    ExternalName,
}

/// Which endpoints serve a kind of client.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum TrafficPolicy {
    /// All of them.
    #[default]
    Cluster,
    /// Those on this node; if there is none, packets are dropped.
    Local,
}

/// A port of a Service.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServicePort {
    /// Its name; empty for the only port.
    pub name: Text,
    /// Protocol.
    pub protocol: Protocol,
    /// The port that clients dial on the cluster IP.
    pub port: u16,
    /// The port of the endpoints.
    pub target: TargetPort,
    /// The port that clients dial on a node's address.
    pub node_port: Option<u16>,
}

/// `targetPort`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TargetPort {
    /// A number.
    Number(u16),
    /// The name of a container port, which each pod may number differently.
    Name(Text),
}

impl Service {
    /// A ClusterIP Service without addresses and ports.
    pub fn new(key: ObjectKey) -> Self {
        Self {
            key,
            created: None,
            kind: ServiceKind::default(),
            selector: None,
            cluster_ips: Vec::new(),
            external_ips: Vec::new(),
            lb_ips: Vec::new(),
            source_ranges: Vec::new(),
            health_check_node_port: None,
            ports: Vec::new(),
            internal_policy: TrafficPolicy::default(),
            external_policy: TrafficPolicy::default(),
            affinity_secs: None,
            publish_not_ready: false,
            on_backend_removed: OnRemoved::default(),
        }
    }

    /// Gives back what its lists have room for and do not hold: a cluster may have many Services.
    pub(super) fn shrink(&mut self) {
        self.ports.shrink_to_fit();
        self.source_ranges.shrink_to_fit();
        let lists = [
            &mut self.cluster_ips,
            &mut self.external_ips,
            &mut self.lb_ips,
        ];
        lists.into_iter().for_each(Vec::shrink_to_fit);
    }

    /// True if the Service has frontends: it is neither headless nor an alias.
    pub fn is_served(&self) -> bool {
        self.kind != ServiceKind::ExternalName && !self.cluster_ips.is_empty()
    }
}
