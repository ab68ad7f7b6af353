//! Which endpoints serve a Service here, and why the others do not.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use dataplane_model::compile::Services;
use dataplane_model::snapshot::{
    Endpoint, EndpointSlice, ObjectKey, Service, ServiceKind, ServicePort, Snapshot, Text,
    TrafficPolicy,
};
use serde::{Deserialize, Serialize};

use super::names::Names;
use super::protocol::Frontend;

/// A Service as this node serves it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceDetail {
    /// Namespace and name.
    pub service: String,
    /// The node that answers, and its zone.
    pub node: String,
    /// `topology.kubernetes.io/zone` of the node.
    pub zone: Option<String>,
    /// Type.
    pub kind: String,
    /// `internalTrafficPolicy`.
    pub internal_policy: String,
    /// `externalTrafficPolicy`.
    pub external_policy: String,
    /// Why it has no frontend, if it has none.
    pub unserved: Option<String>,
    /// Its frontends, with those who serve them.
    pub frontends: Vec<Frontend>,
    /// Its ports.
    pub ports: Vec<PortDetail>,
    /// What is to be known about it.
    pub notices: Vec<String>,
    /// Changes that are not in force yet, and why.
    pub pending: Option<String>,
    /// Seconds since the maps were last written.
    pub written_secs_ago: Option<u64>,
}

/// A port of a Service, and its endpoints.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PortDetail {
    /// Name, number and protocol, as in `http 80/TCP`.
    pub port: String,
    /// Why it has no endpoint that serves, if it has none.
    pub empty: Option<String>,
    /// All endpoints.
    pub endpoints: Vec<EndpointDetail>,
}

/// An endpoint of a port.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointDetail {
    /// Address, and port if it is known.
    pub address: String,
    /// Its node.
    pub node: Option<String>,
    /// Its pod.
    pub pod: Option<String>,
    /// It serves clients on this node.
    pub inside: bool,
    /// It serves clients from outside.
    pub outside: bool,
    /// Why it does not serve one of them, or both.
    pub reason: Option<String>,
}

/// Explains a Service from what is known of it and its frontends in the maps; `None` if there is none of
/// this name.
pub fn explain(
    snapshot: &Snapshot,
    services: &Services,
    names: &Names,
    key: &ObjectKey,
    frontends: Vec<Frontend>,
) -> Option<ServiceDetail> {
    let service = snapshot.services.get(key)?;
    let slices: Vec<_> = services.slices(snapshot, key).collect();
    let ports = service.ports.iter().map(|port| {
        let of_port: Vec<&Frontend> = frontends
            .iter()
            .filter(|frontend| leads_to(frontend, key, port))
            .collect();
        PortView::new(snapshot, service, port, names, &of_port).explain(&slices)
    });
    Some(ServiceDetail {
        service: key.to_string(),
        node: snapshot.node.name.to_string(),
        zone: snapshot.node.zone.as_ref().map(ToString::to_string),
        kind: format!("{:?}", service.kind),
        internal_policy: format!("{:?}", service.internal_policy),
        external_policy: format!("{:?}", service.external_policy),
        unserved: unserved(service),
        ports: ports.collect(),
        frontends,
        ..ServiceDetail::default()
    })
}

/// True for a name that the compiler gives to a frontend of the Service.
pub fn is_of(frontend: &str, key: &ObjectKey) -> bool {
    let rest = frontend.strip_prefix(&key.to_string());
    rest.is_some_and(|rest| rest.starts_with(':'))
}

fn leads_to(frontend: &Frontend, key: &ObjectKey, port: &ServicePort) -> bool {
    let named = frontend
        .service
        .strip_prefix(&format!("{key}:{}", port.port));
    named.is_some_and(|rest| !rest.starts_with(|digit: char| digit.is_ascii_digit()))
        && frontend
            .frontend
            .ends_with(&format!("/{}", port.protocol.name()))
}

fn unserved(service: &Service) -> Option<String> {
    let why = if service.kind == ServiceKind::ExternalName {
        "an ExternalName is a matter of DNS"
    } else if service.cluster_ips.is_empty() {
        "headless: clients dial its endpoints"
    } else if service.ports.is_empty() {
        "it has no ports"
    } else {
        return None;
    };
    Some(why.to_owned())
}

struct PortView<'a> {
    snapshot: &'a Snapshot,
    service: &'a Service,
    port: &'a ServicePort,
    names: &'a Names,
    inside: BTreeSet<String>,
    outside: BTreeSet<String>,
    has_outside: bool,
}

impl<'a> PortView<'a> {
    fn new(
        snapshot: &'a Snapshot,
        service: &'a Service,
        port: &'a ServicePort,
        names: &'a Names,
        frontends: &[&Frontend],
    ) -> Self {
        let serving = |scope: &str| -> BTreeSet<String> {
            let of_scope = frontends.iter().filter(|one| one.scope == scope);
            let classes = of_scope.flat_map(|frontend| &frontend.classes);
            let backends = classes.flat_map(|class| &class.backends);
            backends.map(|backend| backend.address.clone()).collect()
        };
        Self {
            snapshot,
            service,
            port,
            names,
            inside: serving("internal"),
            outside: serving("external"),
            has_outside: frontends.iter().any(|one| one.scope == "external"),
        }
    }

    fn explain(&self, slices: &[&EndpointSlice]) -> PortDetail {
        let (service, port) = (self.service, self.port);
        let mut endpoints: Vec<EndpointDetail> = slices
            .iter()
            .flat_map(|slice| slice.endpoints.iter().map(move |one| (*slice, one)))
            .map(|(slice, endpoint)| self.endpoint(slice, endpoint))
            .collect();
        if slices.is_empty() {
            // Endpoints by the selector: those in use are known by the maps alone.
            let used = self.inside.union(&self.outside);
            endpoints.extend(used.map(|address| self.selected(address)));
        }
        endpoints.sort_by(|a, b| (!a.inside, &a.address).cmp(&(!b.inside, &b.address)));
        endpoints.dedup();
        let none = !endpoints.iter().any(|one| one.inside || one.outside);
        let empty = (none && service.is_served()).then(|| self.empty(slices, &endpoints));
        let name = if port.name.is_empty() {
            String::new()
        } else {
            format!("{} ", port.name)
        };
        PortDetail {
            port: format!("{name}{}/{}", port.port, port.protocol),
            empty,
            endpoints,
        }
    }

    fn endpoint(&self, slice: &EndpointSlice, endpoint: &Endpoint) -> EndpointDetail {
        let number = slice
            .ports
            .iter()
            .find(|own| own.name == self.port.name && own.protocol == self.port.protocol);
        let address = number.map_or_else(
            || endpoint.address.to_string(),
            |own| SocketAddr::new(endpoint.address, own.port).to_string(),
        );
        let (inside, outside) = (
            self.inside.contains(&address),
            self.outside.contains(&address),
        );
        let complete = inside && (outside || !self.has_outside);
        let reason = match number {
            None => Some(self.wrong_port(slice)),
            Some(_) if complete => None,
            Some(_) => Some(self.reason(endpoint, inside)),
        };
        EndpointDetail {
            address,
            node: endpoint.node().map(ToString::to_string),
            pod: self.names.owner(endpoint.address),
            inside,
            outside,
            reason,
        }
    }

    fn selected(&self, address: &str) -> EndpointDetail {
        let ip = address.parse::<SocketAddr>().ok().map(|socket| socket.ip());
        EndpointDetail {
            address: address.to_owned(),
            node: None,
            pod: ip.and_then(|ip| self.names.owner(ip)),
            inside: self.inside.contains(address),
            outside: self.outside.contains(address),
            reason: None,
        }
    }

    fn wrong_port(&self, slice: &EndpointSlice) -> String {
        let named: Vec<String> = slice
            .ports
            .iter()
            .map(|own| format!("{:?}/{}", &*own.name, own.protocol))
            .collect();
        format!(
            "its slice {} has no port {:?}/{}, only {}",
            slice.key.name,
            &*self.port.name,
            self.port.protocol,
            or_none(&named.join(" "))
        )
    }

    /// Why an endpoint that has the port does not serve all clients.
    fn reason(&self, endpoint: &Endpoint, inside: bool) -> String {
        let is_v4 = endpoint.address.is_ipv4();
        let node = &self.snapshot.node;
        if !self
            .service
            .cluster_ips
            .iter()
            .any(|ip| ip.is_ipv4() == is_v4)
        {
            return "the Service has no address of its family".to_owned();
        }
        if !endpoint.ready {
            return match (endpoint.serving, endpoint.terminating) {
                (true, true) => "terminating: it serves only where no other endpoint is ready",
                (false, true) => "terminating, and no longer serving",
                _ => "not ready",
            }
            .to_owned();
        }
        let policy = if inside {
            self.service.external_policy
        } else {
            self.service.internal_policy
        };
        if policy == TrafficPolicy::Local && endpoint.node() != Some(&node.name) {
            let name = if inside { "external" } else { "internal" };
            return format!("not on this node ({name}TrafficPolicy: Local)");
        }
        let names = |list: &[Text]| list.join(" ");
        if !endpoint.nodes().is_empty() && !endpoint.nodes().contains(&node.name) {
            return format!("its hints name the nodes {}", names(endpoint.nodes()));
        }
        let zone = node.zone.as_ref();
        if !endpoint.zones().is_empty() && !zone.is_some_and(|own| endpoint.zones().contains(own)) {
            return format!("its hints name the zones {}", names(endpoint.zones()));
        }
        "no route gives it a share, or the change is not in force yet".to_owned()
    }

    fn empty(&self, slices: &[&EndpointSlice], endpoints: &[EndpointDetail]) -> String {
        if slices.is_empty() {
            return match &self.service.selector {
                Some(selector) if !selector.is_empty() => {
                    "no EndpointSlice, and no ready pod that its selector matches"
                }
                _ => "no EndpointSlice names it, and it has no selector",
            }
            .to_owned();
        }
        if endpoints.is_empty() {
            return "its EndpointSlices are empty: its selector matches no pod with an address"
                .to_owned();
        }
        let reasons: BTreeSet<&str> = endpoints
            .iter()
            .filter_map(|endpoint| endpoint.reason.as_deref())
            .collect();
        format!(
            "none of {} endpoints: {}",
            endpoints.len(),
            reasons.into_iter().collect::<Vec<_>>().join("; ")
        )
    }
}

fn or_none(text: &str) -> &str {
    if text.is_empty() { "none" } else { text }
}

#[cfg(test)]
mod tests;
