//! Nodes, namespaces and pods.

use std::net::IpAddr;

use dataplane_model::snapshot::{self as model, ContainerPort};

use super::fields::{self, Fault, Note};
use super::{mode, model_key};
use crate::source::ObjectKey;
use crate::source::core::{self, Container};

/// The label that the API server gives each namespace.
pub const NAMESPACE_NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// The label of a node's zone.
const ZONE_LABEL: &str = "topology.kubernetes.io/zone";
/// The taint of a node that the cluster's autoscaler is about to remove.
const TO_BE_DELETED_TAINT: &str = "ToBeDeletedByClusterAutoscaler";

/// A node.
pub fn node(key: &ObjectKey, node: &core::Node) -> Result<model::Node, Fault> {
    let (mut internal, mut external) = (Vec::new(), Vec::new());
    for (index, address) in node.status.addresses.iter().enumerate() {
        let list = match address.r#type.as_str() {
            "InternalIP" => &mut internal,
            "ExternalIP" => &mut external,
            _ => continue,
        };
        let field = format!("status.addresses[{index}].address");
        list.push(fields::address(&field, &address.address)?);
    }
    let metadata = &node.metadata;
    let mut ranges: Vec<&String> = node.spec.pod_cidrs.iter().collect();
    if ranges.is_empty() {
        ranges.extend(node.spec.pod_cidr.iter().filter(|text| !text.is_empty()));
    }
    let range = |(index, text): (usize, &String)| {
        text.parse().map_err(|_| {
            Fault::new(
                format!("spec.podCIDRs[{index}]"),
                format!("{text:?} is not a block of addresses: write one like 10.244.1.0/24"),
            )
        })
    };
    let mut taints = node.spec.taints.iter();
    Ok(model::Node {
        name: key.name.as_str().into(),
        addresses: [&internal[..], &external].concat(),
        internal_ips: if internal.is_empty() {
            external
        } else {
            internal
        },
        labels: fields::labels(&metadata.labels),
        pod_ranges: ranges
            .into_iter()
            .enumerate()
            .map(range)
            .collect::<Result<_, _>>()?,
        zone: metadata
            .labels
            .get(ZONE_LABEL)
            .map(|zone| zone.as_str().into()),
        leaving: metadata.deletion_timestamp.is_some()
            || taints.any(|taint| taint.key == TO_BE_DELETED_TAINT),
    })
}

/// A namespace, with the label that the API server gives it.
pub fn namespace(
    name: &str,
    namespace: Option<&core::Namespace>,
    notes: &mut Vec<Note>,
) -> model::Namespace {
    let given = namespace.map(|namespace| fields::labels(&namespace.metadata.labels));
    let mut labels = given.unwrap_or_default();
    labels.insert(NAMESPACE_NAME_LABEL.into(), name.into());
    model::Namespace {
        name: name.into(),
        labels,
        mode: namespace
            .and_then(|one| mode::of(&one.metadata, notes))
            .unwrap_or_default(),
        ending: namespace.is_some_and(|one| one.metadata.deletion_timestamp.is_some()),
    }
}

/// A pod.
pub fn pod(key: &ObjectKey, pod: &core::Pod) -> Result<model::Pod, Fault> {
    let (spec, status) = (&pod.spec, &pod.status);
    let node = spec.node_name.as_deref().filter(|name| !name.is_empty());
    Ok(model::Pod {
        key: model_key(key),
        uid: pod.metadata.uid.as_deref().unwrap_or_default().into(),
        labels: fields::labels(&pod.metadata.labels),
        ips: addresses(status)?,
        node: node.map(Into::into),
        terminal: matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")),
        ready: is_ready(status),
        terminating: pod.metadata.deletion_timestamp.is_some(),
        host_network: spec.host_network,
        ports: container_ports(spec)?,
    })
}

fn addresses(status: &core::PodStatus) -> Result<Vec<IpAddr>, Fault> {
    if status.pod_ips.is_empty() {
        let single = status.pod_ip.as_deref().filter(|text| !text.is_empty());
        return single.map_or(Ok(Vec::new()), |text| {
            Ok(vec![fields::address("status.podIP", text)?])
        });
    }
    let mut parsed: Vec<IpAddr> = Vec::new();
    for (index, entry) in status.pod_ips.iter().enumerate() {
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
fn is_ready(status: &core::PodStatus) -> bool {
    if status.conditions.is_empty() {
        return matches!(status.phase.as_deref(), None | Some("Running"));
    }
    let mut conditions = status.conditions.iter();
    conditions.any(|condition| condition.r#type == "Ready" && condition.status == "True")
}

fn container_ports(spec: &core::PodSpec) -> Result<Vec<ContainerPort>, Fault> {
    let sidecar = |container: &&Container| container.restart_policy.as_deref() == Some("Always");
    let containers = spec
        .containers
        .iter()
        .map(|container| ("containers", container));
    let sidecars = spec.init_containers.iter().filter(sidecar);
    let sidecars = sidecars.map(|container| ("initContainers", container));
    let mut ports = Vec::new();
    for (list, container) in containers.chain(sidecars) {
        for (index, port) in container.ports.iter().enumerate() {
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
