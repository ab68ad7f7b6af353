//! Nodes, namespaces and pods.

use dataplane_model::snapshot::{self as model, ContainerPort};
use k8s_openapi::api::core::v1::{self as core, Container};

use super::fields::{self, Fault};
use super::model_key;
use crate::source::ObjectKey;

/// The label that the API server gives each namespace.
pub const NAMESPACE_NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// A node.
pub fn node(key: &ObjectKey, node: &core::Node) -> Result<model::Node, Fault> {
    let addresses = node
        .status
        .iter()
        .flat_map(|status| status.addresses.iter().flatten());
    let mut parsed = Vec::new();
    for (index, address) in addresses.enumerate() {
        if matches!(address.type_.as_str(), "InternalIP" | "ExternalIP") {
            let field = format!("status.addresses[{index}].address");
            parsed.push(fields::address(&field, &address.address)?);
        }
    }
    Ok(model::Node {
        name: key.name.as_str().into(),
        addresses: parsed,
    })
}

/// A namespace, with the label that the API server gives it.
pub fn namespace(name: &str, namespace: Option<&core::Namespace>) -> model::Namespace {
    let given = namespace.and_then(|namespace| namespace.metadata.labels.as_ref());
    let mut labels = fields::labels(given);
    labels.insert(NAMESPACE_NAME_LABEL.into(), name.into());
    model::Namespace {
        name: name.into(),
        labels,
    }
}

/// A pod.
pub fn pod(key: &ObjectKey, pod: &core::Pod) -> Result<model::Pod, Fault> {
    let spec = pod.spec.as_ref();
    let status = pod.status.as_ref();
    let phase = status.and_then(|status| status.phase.as_deref());
    Ok(model::Pod {
        key: model_key(key),
        uid: pod.metadata.uid.as_deref().unwrap_or_default().into(),
        labels: fields::labels(pod.metadata.labels.as_ref()),
        ips: addresses(status)?,
        node: spec
            .and_then(|spec| spec.node_name.as_deref())
            .filter(|name| !name.is_empty())
            .map(Into::into),
        terminal: matches!(phase, Some("Succeeded" | "Failed")),
        ready: is_ready(status, phase),
        terminating: pod.metadata.deletion_timestamp.is_some(),
        host_network: spec.and_then(|spec| spec.host_network).unwrap_or(false),
        ports: spec.map_or_else(|| Ok(Vec::new()), container_ports)?,
    })
}

fn addresses(status: Option<&core::PodStatus>) -> Result<Vec<std::net::IpAddr>, Fault> {
    let Some(status) = status else {
        return Ok(Vec::new());
    };
    let listed = status.pod_ips.as_deref().unwrap_or_default();
    if listed.is_empty() {
        let single = status.pod_ip.as_deref().filter(|text| !text.is_empty());
        return single.map_or(Ok(Vec::new()), |text| {
            Ok(vec![fields::address("status.podIP", text)?])
        });
    }
    let mut parsed: Vec<std::net::IpAddr> = Vec::new();
    for (index, entry) in listed.iter().enumerate() {
        let field = format!("status.podIPs[{index}].ip");
        let address = fields::address(&field, &entry.ip)?;
        if parsed
            .iter()
            .any(|other| other.is_ipv4() == address.is_ipv4())
        {
            return Err(Fault::new(
                field,
                "a second address of this family: a pod has at most one of each",
            ));
        }
        parsed.push(address);
    }
    Ok(parsed)
}

/// The condition Ready. A status without any conditions is one that was written by hand: then a pod
/// that runs is ready.
fn is_ready(status: Option<&core::PodStatus>, phase: Option<&str>) -> bool {
    let conditions = status.and_then(|status| status.conditions.as_deref());
    match conditions {
        Some(conditions) if !conditions.is_empty() => conditions
            .iter()
            .any(|condition| condition.type_ == "Ready" && condition.status == "True"),
        _ => matches!(phase, None | Some("Running")),
    }
}

fn container_ports(spec: &core::PodSpec) -> Result<Vec<ContainerPort>, Fault> {
    let sidecar = |container: &&Container| container.restart_policy.as_deref() == Some("Always");
    let containers = spec
        .containers
        .iter()
        .map(|container| ("containers", container));
    let sidecars = spec.init_containers.iter().flatten().filter(sidecar);
    let sidecars = sidecars.map(|container| ("initContainers", container));
    let mut ports = Vec::new();
    for (list, container) in containers.chain(sidecars) {
        for (index, port) in container.ports.iter().flatten().enumerate() {
            let field = format!("spec.{list}[{}].ports[{index}]", container.name);
            if let Some(name) = &port.name {
                fields::port_name(&format!("{field}.name"), name)?;
            }
            ports.push(ContainerPort {
                name: port.name.as_deref().unwrap_or_default().into(),
                protocol: fields::protocol(&format!("{field}.protocol"), port.protocol.as_deref())?,
                port: fields::port(&format!("{field}.containerPort"), port.container_port)?,
            });
        }
    }
    Ok(ports)
}
