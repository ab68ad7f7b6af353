//! Services.

use std::collections::BTreeSet;
use std::net::IpAddr;

use dataplane_model::snapshot::{
    self as model, Labels, OnRemoved, ServiceKind, ServicePort, TargetPort, TrafficPolicy,
};
use ipnet::IpNet;

use super::fields::{self, Fault, Note, PortRef};
use super::model_key;
use super::shared::Shared;
use crate::source::ObjectKey;
use crate::source::core::{self, ServiceSpec};

/// Label of Services that another proxy serves.
const PROXY_NAME_LABEL: &str = "service.kubernetes.io/service-proxy-name";
/// Annotation that says what becomes of TCP flows whose backend is removed.
const ON_REMOVED_ANNOTATION: &str = "sluice.dev/on-backend-removed";
/// Default and greatest time of ClientIP affinity, in seconds.
const AFFINITY_SECS: [u32; 2] = [10_800, 86_400];

/// A Service; `None` if it is another proxy's.
pub fn service(
    key: &ObjectKey,
    service: &core::Service,
    names: &mut Shared<str>,
    notes: &mut Vec<Note>,
) -> Result<Option<model::Service>, Fault> {
    if service.metadata.labels.contains_key(PROXY_NAME_LABEL) {
        notes.push(Note::new(
            format!("metadata.labels[{PROXY_NAME_LABEL}]"),
            "another proxy serves this Service",
            "it is left to that proxy",
        ));
        return Ok(None);
    }
    let spec = &service.spec;
    let kind = service_kind(spec)?;
    let (cluster_ips, headless) = cluster_ips(spec)?;
    let ports = ports(spec, kind, names, notes)?;
    if cluster_ips.is_empty() && !headless && kind != ServiceKind::ExternalName {
        notes.push(Note::new(
            "spec.clusterIP",
            "missing: only the API server chooses one; write it here, or None for a headless Service",
            "the Service has no address",
        ));
    }
    let (lb_ips, source_ranges) = load_balancer(service, notes);
    let external_policy = traffic_policy(
        "spec.externalTrafficPolicy",
        spec.external_traffic_policy.as_deref(),
    )?;
    Ok(Some(model::Service {
        key: model_key(key),
        created: fields::created(&service.metadata)?,
        kind,
        selector: selector(spec, names),
        cluster_ips,
        external_ips: external_ips(spec, notes),
        lb_ips,
        source_ranges,
        health_check_node_port: health_check_node_port(spec, kind, external_policy, notes),
        ports,
        internal_policy: traffic_policy(
            "spec.internalTrafficPolicy",
            spec.internal_traffic_policy.as_deref(),
        )?,
        external_policy,
        affinity_secs: affinity(spec)?,
        publish_not_ready: spec.publish_not_ready_addresses,
        on_backend_removed: on_backend_removed(service, notes),
    }))
}

fn selector(spec: &ServiceSpec, names: &mut Shared<str>) -> Option<Labels> {
    let labels = spec.selector.iter();
    let labels = labels.map(|(key, value)| (names.of(key.as_str()), value.as_str().into()));
    (!spec.selector.is_empty()).then(|| labels.collect())
}

fn service_kind(spec: &ServiceSpec) -> Result<ServiceKind, Fault> {
    match spec.r#type.as_deref() {
        None | Some("ClusterIP") => Ok(ServiceKind::ClusterIp),
        Some("NodePort") => Ok(ServiceKind::NodePort),
        Some("LoadBalancer") => Ok(ServiceKind::LoadBalancer),
        Some("ExternalName") => Ok(ServiceKind::ExternalName),
        Some(other) => Err(Fault::new(
            "spec.type",
            format!(
                "{other:?} is not a type: write ClusterIP, NodePort, LoadBalancer or ExternalName"
            ),
        )),
    }
}

/// The addresses, and whether the Service is headless.
fn cluster_ips(spec: &ServiceSpec) -> Result<(Vec<IpAddr>, bool), Fault> {
    let field = |index: usize| format!("spec.clusterIPs[{index}]");
    let mut listed: Vec<(String, &str)> = spec
        .cluster_ips
        .iter()
        .enumerate()
        .map(|(index, text)| (field(index), text.as_str()))
        .collect();
    if listed.is_empty() {
        let single = spec.cluster_ip.as_deref().filter(|text| !text.is_empty());
        listed.extend(single.map(|text| ("spec.clusterIP".to_owned(), text)));
    }
    if let [(_, "None")] = listed[..] {
        return Ok((Vec::new(), true));
    }
    let mut addresses: Vec<IpAddr> = Vec::new();
    for (field, text) in listed {
        let address = fields::address(&field, text)?;
        if addresses
            .iter()
            .any(|other| other.is_ipv4() == address.is_ipv4())
        {
            return Err(Fault::new(
                field,
                "a second address of this family: a Service has at most one of each",
            ));
        }
        addresses.push(address);
    }
    Ok((addresses, false))
}

fn ports(
    spec: &ServiceSpec,
    kind: ServiceKind,
    shared: &mut Shared<str>,
    notes: &mut Vec<Note>,
) -> Result<Vec<ServicePort>, Fault> {
    let given = &spec.ports;
    let mut ports = Vec::new();
    let (mut names, mut numbers) = (BTreeSet::new(), BTreeSet::new());
    for (index, port) in given.iter().enumerate() {
        let field = |name: &str| format!("spec.ports[{index}].{name}");
        let protocol = fields::protocol(&field("protocol"), port.protocol.as_deref())?;
        let number = fields::port(&field("port"), port.port)?;
        let name = port.name.as_deref().unwrap_or_default();
        if name.is_empty() && given.len() > 1 {
            return Err(Fault::new(
                field("name"),
                "missing: each of several ports needs a name",
            ));
        }
        if !names.insert(name) {
            return Err(Fault::new(
                field("name"),
                format!("{name:?} names another port too: names differ"),
            ));
        }
        if !numbers.insert((protocol, number)) {
            return Err(Fault::new(
                field("port"),
                format!("{number}/{protocol} is given twice: delete one"),
            ));
        }
        let target = match &port.target_port {
            None => TargetPort::Number(number),
            Some(target) => match fields::port_ref(&field("targetPort"), target)? {
                PortRef::Number(number) => TargetPort::Number(number),
                PortRef::Name(name) => TargetPort::Name(name.into()),
            },
        };
        ports.push(ServicePort {
            name: shared.of(name),
            protocol,
            port: number,
            target,
            node_port: node_port(&field("nodePort"), port.node_port, kind, notes)?,
        });
    }
    Ok(ports)
}

fn node_port(
    field: &str,
    number: Option<i64>,
    kind: ServiceKind,
    notes: &mut Vec<Note>,
) -> Result<Option<u16>, Fault> {
    let wanted = matches!(kind, ServiceKind::NodePort | ServiceKind::LoadBalancer);
    match number.filter(|&number| number != 0) {
        Some(number) if wanted => fields::port(field, number).map(Some),
        Some(_) => Err(Fault::new(
            field,
            "only Services of type NodePort and LoadBalancer have one: set spec.type or delete it",
        )),
        None => {
            if kind == ServiceKind::NodePort {
                notes.push(Note::new(
                    field,
                    "missing: only the API server chooses one; write it here",
                    "the port is not served on the nodes",
                ));
            }
            Ok(None)
        }
    }
}

fn traffic_policy(field: &str, name: Option<&str>) -> Result<TrafficPolicy, Fault> {
    match name {
        None | Some("" | "Cluster") => Ok(TrafficPolicy::Cluster),
        Some("Local") => Ok(TrafficPolicy::Local),
        Some(other) => Err(Fault::new(
            field,
            format!("{other:?} is not a traffic policy: write Cluster or Local"),
        )),
    }
}

fn affinity(spec: &ServiceSpec) -> Result<Option<u32>, Fault> {
    match spec.session_affinity.as_deref() {
        None | Some("" | "None") => return Ok(None),
        Some("ClientIP") => {}
        Some(other) => {
            return Err(Fault::new(
                "spec.sessionAffinity",
                format!("{other:?} is not an affinity: write None or ClientIP"),
            ));
        }
    }
    let [default, greatest] = AFFINITY_SECS;
    let Some(given) = spec.session_affinity_config.client_ip.timeout_seconds else {
        return Ok(Some(default));
    };
    u32::try_from(given)
        .ok()
        .filter(|&secs| (1..=greatest).contains(&secs))
        .map(Some)
        .ok_or_else(|| {
            Fault::new(
                "spec.sessionAffinityConfig.clientIP.timeoutSeconds",
                format!("{given} is out of range: give 1 to {greatest}"),
            )
        })
}

/// Addresses of the load balancer that packets reach unchanged, and who may use them.
fn load_balancer(service: &core::Service, notes: &mut Vec<Note>) -> (Vec<IpAddr>, Vec<IpNet>) {
    let ranges = service.spec.load_balancer_source_ranges.iter().enumerate();
    let ranges = ranges.map(|(index, text)| source_range(index, text));
    let ranges = match ranges.collect::<Result<_, Fault>>() {
        Ok(ranges) => ranges,
        Err(Fault { field, message }) => {
            // Without a range that cannot be read, more clients could be let in than are meant.
            let effect = "the addresses of the load balancer are not served";
            notes.push(Note::new(field, message, effect));
            return (Vec::new(), Vec::new());
        }
    };
    let ingress = service.status.load_balancer.ingress.iter().enumerate();
    let vips =
        ingress.filter(|(_, ingress)| matches!(ingress.ip_mode.as_deref(), None | Some("VIP")));
    let texts = vips.filter_map(|(index, ingress)| {
        let field = format!("status.loadBalancer.ingress[{index}].ip");
        Some((
            field,
            ingress.ip.as_deref().filter(|text| !text.is_empty())?,
        ))
    });
    (readable(texts, notes), ranges)
}

fn source_range(index: usize, text: &str) -> Result<IpNet, Fault> {
    let range = text.trim().parse().map(|range: IpNet| range.trunc());
    range.map_err(|_| {
        Fault::new(
            format!("spec.loadBalancerSourceRanges[{index}]"),
            format!(
                "{text:?} is not a block of addresses: write one like 10.0.0.0/24 or fd00::/64"
            ),
        )
    })
}

fn external_ips(spec: &ServiceSpec, notes: &mut Vec<Note>) -> Vec<IpAddr> {
    let texts = spec.external_ips.iter().enumerate();
    let texts = texts.map(|(index, text)| (format!("spec.externalIPs[{index}]"), text.as_str()));
    readable(texts, notes)
}

/// The addresses that can be read; each once.
fn readable<'a>(
    texts: impl Iterator<Item = (String, &'a str)>,
    notes: &mut Vec<Note>,
) -> Vec<IpAddr> {
    let mut addresses = Vec::new();
    for (field, text) in texts {
        match fields::address(&field, text) {
            Ok(address) if addresses.contains(&address) => {}
            Ok(address) => addresses.push(address),
            Err(Fault { field, message }) => {
                notes.push(Note::new(field, message, "it is not served"));
            }
        }
    }
    addresses
}

/// The port of the health check, which only load balancers with an external policy of `Local` have.
fn health_check_node_port(
    spec: &ServiceSpec,
    kind: ServiceKind,
    policy: TrafficPolicy,
    notes: &mut Vec<Note>,
) -> Option<u16> {
    let needs = kind == ServiceKind::LoadBalancer && policy == TrafficPolicy::Local;
    if !needs || spec.health_check_node_port == 0 {
        return None;
    }
    let port = fields::port("spec.healthCheckNodePort", spec.health_check_node_port);
    port.map_err(|Fault { field, message }| {
        notes.push(Note::new(field, message, "the health check is not served"));
    })
    .ok()
}

fn on_backend_removed(service: &core::Service, notes: &mut Vec<Note>) -> OnRemoved {
    match service
        .metadata
        .annotations
        .get(ON_REMOVED_ANNOTATION)
        .map(String::as_str)
    {
        None | Some("drain") => OnRemoved::Drain,
        Some("reset") => OnRemoved::Reset,
        Some(other) => {
            notes.push(Note::new(
                format!("metadata.annotations[{ON_REMOVED_ANNOTATION}]"),
                format!("{other:?} is unknown: write drain or reset"),
                "connections to removed backends drain",
            ));
            OnRemoved::Drain
        }
    }
}
