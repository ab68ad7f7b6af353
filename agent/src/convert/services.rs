//! Services and EndpointSlices.

use std::collections::BTreeSet;
use std::net::IpAddr;

use dataplane_model::snapshot::{
    self as model, Endpoint, ServiceKind, ServicePort, SlicePort, TargetPort, TrafficPolicy,
};

use super::fields::{self, Fault, Note, PortRef};
use super::model_key;
use crate::source::ObjectKey;
use crate::source::core::{self, ServiceSpec};

/// Label of Services that another proxy serves.
const PROXY_NAME_LABEL: &str = "service.kubernetes.io/service-proxy-name";
/// Label that names a slice's Service.
const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";
/// Label of the slices of headless Services.
const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";
/// Default and greatest time of ClientIP affinity, in seconds.
const AFFINITY_SECS: [u32; 2] = [10_800, 86_400];

/// A Service; `None` if it is another proxy's.
pub fn service(
    key: &ObjectKey,
    service: &core::Service,
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
    let ports = ports(spec, kind, notes)?;
    if cluster_ips.is_empty() && !headless && kind != ServiceKind::ExternalName {
        notes.push(Note::new(
            "spec.clusterIP",
            "missing: only the API server chooses one; write it here, or None for a headless Service",
            "the Service has no address",
        ));
    }
    note_unsupported(spec, kind, notes);
    Ok(Some(model::Service {
        key: model_key(key),
        kind,
        selector: (!spec.selector.is_empty()).then(|| fields::labels(&spec.selector)),
        cluster_ips,
        ports,
        internal_policy: traffic_policy(
            "spec.internalTrafficPolicy",
            spec.internal_traffic_policy.as_deref(),
        )?,
        external_policy: traffic_policy(
            "spec.externalTrafficPolicy",
            spec.external_traffic_policy.as_deref(),
        )?,
        affinity_secs: affinity(spec)?,
        publish_not_ready: spec.publish_not_ready_addresses,
    }))
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
            name: name.into(),
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

fn note_unsupported(spec: &ServiceSpec, kind: ServiceKind, notes: &mut Vec<Note>) {
    if kind == ServiceKind::LoadBalancer {
        notes.push(Note::new(
            "spec.type",
            "the addresses of load balancers are not served yet",
            "it works as ClusterIP and NodePort",
        ));
    }
    if !spec.external_ips.is_empty() {
        notes.push(Note::unsupported("spec.externalIPs"));
    }
    if !spec.load_balancer_source_ranges.is_empty() {
        notes.push(Note::unsupported("spec.loadBalancerSourceRanges"));
    }
    if spec.health_check_node_port != 0 {
        notes.push(Note::unsupported("spec.healthCheckNodePort"));
    }
    if spec.traffic_distribution.is_some() {
        notes.push(Note::unsupported("spec.trafficDistribution"));
    }
}

/// An EndpointSlice; `None` if it belongs to no Service that is served.
pub fn endpoint_slice(
    key: &ObjectKey,
    slice: &core::EndpointSlice,
    notes: &mut Vec<Note>,
) -> Result<Option<model::EndpointSlice>, Fault> {
    let label = |name: &str| slice.metadata.labels.get(name);
    if label(HEADLESS_LABEL).is_some() {
        return Ok(None);
    }
    let Some(service) = label(SERVICE_NAME_LABEL).filter(|name| !name.is_empty()) else {
        notes.push(Note::new(
            format!("metadata.labels[{SERVICE_NAME_LABEL}]"),
            "missing: it names the Service that the endpoints serve",
            "the endpoints serve none",
        ));
        return Ok(None);
    };
    let ipv4 = match slice.address_type.as_str() {
        "IPv4" => true,
        "IPv6" => false,
        "FQDN" => {
            notes.push(Note::unsupported("addressType FQDN"));
            return Ok(None);
        }
        other => {
            return Err(Fault::new(
                "addressType",
                format!("{other:?} is not an address type: write IPv4 or IPv6"),
            ));
        }
    };
    let mut endpoints = Vec::new();
    for (index, endpoint) in slice.endpoints.iter().enumerate() {
        endpoints.push(self::endpoint(key, index, endpoint, ipv4)?);
    }
    Ok(Some(model::EndpointSlice {
        key: model_key(key),
        service: model::ObjectKey::new(key.namespace.as_str(), service.as_str()),
        ports: slice_ports(slice)?,
        endpoints,
    }))
}

fn slice_ports(slice: &core::EndpointSlice) -> Result<Vec<SlicePort>, Fault> {
    let mut ports = Vec::new();
    for (index, port) in slice.ports.iter().enumerate() {
        let field = format!("ports[{index}]");
        let Some(number) = port.port else { continue };
        ports.push(SlicePort {
            name: port.name.as_deref().unwrap_or_default().into(),
            protocol: fields::protocol(&format!("{field}.protocol"), port.protocol.as_deref())?,
            port: fields::port(&format!("{field}.port"), number)?,
        });
    }
    Ok(ports)
}

fn endpoint(
    key: &ObjectKey,
    index: usize,
    endpoint: &core::Endpoint,
    ipv4: bool,
) -> Result<Endpoint, Fault> {
    let field = format!("endpoints[{index}].addresses[0]");
    let Some(text) = endpoint.addresses.first() else {
        return Err(Fault::new(field, "missing: an endpoint needs an address"));
    };
    let address = fields::address(&field, text)?;
    if address.is_ipv4() != ipv4 {
        return Err(Fault::new(
            field,
            format!(
                "{text} is not of the slice's addressType: move it to a slice of its own family"
            ),
        ));
    }
    let conditions = &endpoint.conditions;
    let ready = conditions.ready.unwrap_or(true);
    let target = endpoint.target_ref.as_ref();
    let pod = target.filter(|target| target.kind.as_deref() == Some("Pod"));
    Ok(Endpoint {
        address,
        ready,
        serving: conditions.serving.unwrap_or(ready),
        terminating: conditions.terminating.unwrap_or(false),
        node: endpoint.node_name.as_deref().map(Into::into),
        pod: pod.and_then(|target| {
            let namespace = target.namespace.as_deref().unwrap_or(&key.namespace);
            Some(model::ObjectKey::new(namespace, target.name.as_deref()?))
        }),
    })
}
