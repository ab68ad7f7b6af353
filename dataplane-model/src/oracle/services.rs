//! Load-balancing: Services as kube-proxy serves them, and routes.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::snapshot::{
    NodeConfig, Place, Pod, Protocol, Route, RouteClass, RouteKind, RouteTarget, Service,
    ServicePort, Snapshot, TargetPort, Text, TrafficPolicy,
};

/// What becomes of new connections to a frontend, as shares from 0 to 1.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Outcome {
    /// Endpoints by address and port.
    pub endpoints: BTreeMap<(IpAddr, u16), f64>,
    /// Refused.
    pub refused: f64,
    /// Dropped without an answer.
    pub dropped: f64,
}

#[derive(Clone, Copy)]
struct Candidate<'a> {
    at: (IpAddr, u16),
    ready: bool,
    serving: bool,
    terminating: bool,
    local: bool,
    place: Option<&'a Place>,
    pod: Option<&'a Pod>,
}

/// True if an address refuses what is for none of its ports: it is a cluster IP.
pub fn refuses_other_ports(snapshot: &Snapshot, addr: IpAddr) -> bool {
    let mut services = snapshot.services.values();
    services.any(|service| has_cluster_ip(service, addr))
}

fn has_cluster_ip(service: &Service, addr: IpAddr) -> bool {
    service.is_served() && !service.ports.is_empty() && service.cluster_ips.contains(&addr)
}

/// Who serves an address and port; `None` if it belongs to no Service. `outside` is for clients that are
/// not on this node.
pub fn serve(
    snapshot: &Snapshot,
    addr: IpAddr,
    port: u16,
    protocol: Protocol,
    outside: bool,
) -> Option<Outcome> {
    let served = snapshot.services.values().filter(|s| s.is_served());
    let mut claims: Vec<Claim<'_>> = served
        .filter_map(|service| claim(snapshot, service, addr, port, protocol))
        .collect();
    let is_anothers = |own: &Service| {
        let mut others = snapshot.services.values().filter(|s| s.key != own.key);
        others.any(|other| has_cluster_ip(other, addr))
    };
    claims.retain(|claim| claim.allocated || !is_anothers(claim.service));
    // An allocated address goes first, then the older Service, then the first by name.
    claims.sort_by_key(|claim| (!claim.allocated, claim.service.created, &claim.service.key));
    let Claim { service, port, .. } = claims.first()?;
    let policy = match (service.cluster_ips.contains(&addr), outside) {
        (true, _) => service.internal_policy,
        (false, true) => service.external_policy,
        (false, false) => TrafficPolicy::Cluster,
    };
    Some(outcome(snapshot, service, port, addr.is_ipv4(), policy))
}

/// A Service's port that may be reached at an address.
struct Claim<'a> {
    service: &'a Service,
    port: &'a ServicePort,
    /// The address is a cluster IP, or the port a node port.
    allocated: bool,
}

fn claim<'a>(
    snapshot: &Snapshot,
    service: &'a Service,
    addr: IpAddr,
    number: u16,
    protocol: Protocol,
) -> Option<Claim<'a>> {
    let mut families = service.cluster_ips.iter().map(IpAddr::is_ipv4);
    if !families.any(|is_ipv4| is_ipv4 == addr.is_ipv4()) {
        return None;
    }
    let is_cluster_ip = service.cluster_ips.contains(&addr);
    let is_vip = service.lb_ips.contains(&addr) || service.external_ips.contains(&addr);
    let is_node = snapshot.node.nodeport_ips().any(|ip| ip == addr);
    let at_vip = |port: &&ServicePort| port.port == number && (is_cluster_ip || is_vip);
    let at_node = |port: &&ServicePort| port.node_port == Some(number) && is_node;
    let mut ports = service.ports.iter().filter(|own| own.protocol == protocol);
    let allocated = is_cluster_ip || ports.clone().any(|port| at_node(&port));
    let port = ports.find(|port| at_vip(port) || at_node(port))?;
    Some(Claim {
        service,
        port,
        allocated,
    })
}

fn outcome(
    snapshot: &Snapshot,
    service: &Service,
    port: &ServicePort,
    v4: bool,
    policy: TrafficPolicy,
) -> Outcome {
    let mut shares = match route_classes(snapshot, service, port) {
        None => vec![(1.0, endpoints(snapshot, service, port))],
        Some(classes) => {
            let sum: f64 = classes.iter().map(|class| f64::from(class.weight)).sum();
            let share = |class: &RouteClass| {
                if sum == 0.0 {
                    0.0
                } else {
                    f64::from(class.weight) / sum
                }
            };
            classes
                .iter()
                .map(|class| (share(class), class_endpoints(snapshot, port, class)))
                .collect()
        }
    };
    for (_, candidates) in &mut shares {
        candidates.retain(|candidate| candidate.at.0.is_ipv4() == v4);
    }
    let anywhere = shares.iter().any(|(_, candidates)| {
        !chosen(&snapshot.node, candidates, TrafficPolicy::Cluster).is_empty()
    });
    let mut outcome = Outcome::default();
    let mut empty = 1.0;
    for (share, candidates) in &shares {
        let chosen = chosen(&snapshot.node, candidates, policy);
        for candidate in &chosen {
            *outcome.endpoints.entry(candidate.at).or_default() += share / chosen.len() as f64;
        }
        empty -= if chosen.is_empty() { 0.0 } else { *share };
    }
    outcome.endpoints.retain(|_, share| *share > 0.0);
    if policy == TrafficPolicy::Local && anywhere {
        outcome.dropped = empty;
    } else {
        outcome.refused = empty;
    }
    outcome
}

/// Ready endpoints; without any, those that serve though they terminate (KEP-1669).
fn chosen<'a>(
    node: &NodeConfig,
    candidates: &[Candidate<'a>],
    policy: TrafficPolicy,
) -> Vec<Candidate<'a>> {
    let mut near = candidates.to_vec();
    near.retain(|candidate| policy == TrafficPolicy::Cluster || candidate.local);
    let mut ready = near.clone();
    ready.retain(|candidate| candidate.ready);
    if ready.is_empty() {
        near.retain(|candidate| candidate.serving && candidate.terminating);
        return near;
    }
    if policy == TrafficPolicy::Local {
        return ready;
    }
    let narrowed = |hints: fn(&Candidate<'a>) -> Vec<&'a str>, name: Option<&str>| {
        if ready.iter().any(|candidate| hints(candidate).is_empty()) {
            return Vec::new();
        }
        let mut ours = ready.clone();
        ours.retain(|candidate| hints(candidate).into_iter().any(|hint| Some(hint) == name));
        ours
    };
    let for_node = narrowed(
        |candidate| candidate.place.map_or(vec![], |place| names(&place.nodes)),
        Some(&node.name),
    );
    let for_zone = narrowed(
        |candidate| candidate.place.map_or(vec![], |place| names(&place.zones)),
        node.zone.as_deref(),
    );
    let first = [for_node, for_zone, ready]
        .into_iter()
        .find(|set| !set.is_empty());
    first.unwrap_or_default()
}

fn names(texts: &[Text]) -> Vec<&str> {
    texts.iter().map(|text| &**text).collect()
}

fn endpoints<'a>(
    snapshot: &'a Snapshot,
    service: &Service,
    port: &ServicePort,
) -> Vec<Candidate<'a>> {
    let slices: Vec<_> = snapshot
        .slices
        .values()
        .filter(|slice| slice.service == service.key)
        .collect();
    let mut found = Vec::new();
    for slice in &slices {
        for own in slice
            .ports
            .iter()
            .filter(|own| own.name == port.name && own.protocol == port.protocol)
        {
            for endpoint in &slice.endpoints {
                let lives_there = |pod: &&Pod| !pod.terminal && pod.ips.contains(&endpoint.address);
                let pod = snapshot
                    .pods
                    .values()
                    .filter(lives_there)
                    .find(|pod| may_serve(service, pod));
                found.push(Candidate {
                    at: (endpoint.address, own.port),
                    ready: endpoint.ready,
                    serving: endpoint.serving,
                    terminating: endpoint.terminating,
                    local: endpoint.node() == Some(&snapshot.node.name),
                    place: endpoint.place.as_deref(),
                    pod,
                });
            }
        }
    }
    if slices.is_empty() && !snapshot.node.slices_only {
        found = selected(snapshot, service, port);
    }
    // One address and port is one endpoint: rather one that stays than one that goes.
    found.sort_by_key(|candidate| {
        (
            candidate.at,
            candidate.terminating,
            !candidate.ready,
            !candidate.serving,
        )
    });
    found.dedup_by_key(|candidate| candidate.at);
    found
}

/// The pod is one that the Service selects, or the Service has no selector.
fn may_serve(service: &Service, pod: &Pod) -> bool {
    service.selector.as_ref().is_none_or(|selector| {
        pod.key.namespace == service.key.namespace
            && selector
                .iter()
                .all(|(key, value)| pod.labels.get(key) == Some(value))
    })
}

fn selected<'a>(
    snapshot: &'a Snapshot,
    service: &Service,
    port: &ServicePort,
) -> Vec<Candidate<'a>> {
    let Some(selector) = service
        .selector
        .as_ref()
        .filter(|selector| !selector.is_empty())
    else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for pod in snapshot
        .pods
        .values()
        .filter(|pod| pod.key.namespace == service.key.namespace && !pod.terminal)
    {
        if !selector
            .iter()
            .all(|(key, value)| pod.labels.get(key) == Some(value))
        {
            continue;
        }
        let number = match &port.target {
            TargetPort::Number(number) => Some(*number),
            TargetPort::Name(name) => pod.named_ports(name, port.protocol).next(),
        };
        let Some(number) = number else { continue };
        found.extend(pod.ips.iter().map(|&ip| Candidate {
            at: (ip, number),
            ready: service.publish_not_ready || (pod.ready && !pod.terminating),
            serving: pod.ready,
            terminating: pod.terminating,
            local: pod.node.as_ref() == Some(&snapshot.node.name),
            place: None,
            pod: Some(pod),
        }));
    }
    found
}

/// The classes of the route that takes a Service's port: by kind, then the oldest, then by name.
fn route_classes<'a>(
    snapshot: &'a Snapshot,
    service: &Service,
    port: &ServicePort,
) -> Option<&'a [RouteClass]> {
    let mut routes: Vec<&Route> = snapshot.routes.values().collect();
    routes.retain(|route| {
        let carries = if route.kind == RouteKind::Udp {
            Protocol::Udp
        } else {
            Protocol::Tcp
        };
        let for_all =
            route.kind == RouteKind::VirtualService || route.key.namespace == service.key.namespace;
        carries == port.protocol && for_all
    });
    routes.sort_by_key(|route| (route.kind, route.created, route.key.clone()));
    let rules = routes.into_iter().flat_map(|route| &route.rules);
    let takes = |rule: &&crate::snapshot::RouteRule| {
        rule.parents.iter().any(|parent| {
            parent.service == service.key && parent.port.is_none_or(|own| own == port.port)
        })
    };
    rules.into_iter().find(takes).map(|rule| rule.classes())
}

fn class_endpoints<'a>(
    snapshot: &'a Snapshot,
    dialled: &ServicePort,
    class: &RouteClass,
) -> Vec<Candidate<'a>> {
    let (key, port, any_of) = match &class.target {
        RouteTarget::Service { service, port } => (service, port, None),
        RouteTarget::Subset {
            service,
            port,
            any_of,
        } => (service, port, Some(any_of)),
        RouteTarget::Invalid => return Vec::new(),
    };
    let Some(service) = snapshot.services.get(key) else {
        return Vec::new();
    };
    let number = port.unwrap_or(dialled.port);
    let own = service
        .ports
        .iter()
        .find(|own| own.port == number && own.protocol == dialled.protocol);
    let mut found = own
        .map(|own| endpoints(snapshot, service, own))
        .unwrap_or_default();
    if let Some(any_of) = any_of {
        found.retain(|candidate| {
            candidate
                .pod
                .is_some_and(|pod| any_of.iter().any(|selector| selector.matches(&pod.labels)))
        });
    }
    found
}
