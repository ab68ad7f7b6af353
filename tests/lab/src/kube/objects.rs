//! Objects as a cluster would have them, from the few things the lab varies.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::{Map, Value, json};

use crate::topology::{Dual, Family, Node, Pod};

/// A `v1` Pod.
#[derive(Clone, Debug)]
pub struct PodManifest {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The name of its node.
    pub node: String,
    /// Its node's address, if it is told.
    pub host: Option<IpAddr>,
    /// Its addresses; none before its network is made.
    pub addrs: Option<Dual>,
    /// Its ports: name, number, protocol.
    pub ports: Vec<(String, u16, &'static str)>,
    /// Its Ready condition.
    pub ready: bool,
    /// Whether it has a deletion timestamp.
    pub terminating: bool,
}

impl PodManifest {
    /// A pod in the namespace `default`, not ready, without labels, addresses and ports.
    pub fn new(name: &str, node: &str) -> PodManifest {
        PodManifest {
            namespace: "default".to_owned(),
            name: name.to_owned(),
            labels: BTreeMap::new(),
            node: node.to_owned(),
            host: None,
            addrs: None,
            ports: Vec::new(),
            ready: false,
            terminating: false,
        }
    }

    /// Adds a label.
    pub fn label(mut self, key: &str, value: &str) -> PodManifest {
        self.labels.insert(key.to_owned(), value.to_owned());
        self
    }

    /// The object.
    pub fn object(&self) -> Value {
        let ports = self.ports.iter().map(|(name, number, protocol)| {
            json!({ "name": name, "containerPort": number, "protocol": protocol })
        });
        let ready = if self.ready { "True" } else { "False" };
        let mut object = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": { "name": self.name, "namespace": self.namespace, "labels": self.labels },
            "spec": {
                "nodeName": self.node,
                "containers": [{
                    "name": "server",
                    "image": "lab",
                    "ports": ports.collect::<Vec<_>>(),
                }],
            },
            "status": { "phase": "Running", "conditions": [{ "type": "Ready", "status": ready }] },
        });
        if let Some(addrs) = self.addrs {
            object["status"]["podIP"] = json!(addrs.v4);
            object["status"]["podIPs"] = json!([{ "ip": addrs.v4 }, { "ip": addrs.v6 }]);
        }
        if let Some(host) = self.host {
            object["status"]["hostIP"] = json!(host);
        }
        if self.terminating {
            object["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            object["metadata"]["deletionGracePeriodSeconds"] = json!(30);
        }
        object
    }
}

/// A `v1` Service.
#[derive(Clone, Debug)]
pub struct ServiceManifest {
    name: String,
    cluster_ips: Vec<IpAddr>,
    selector: BTreeMap<String, String>,
    ports: Vec<Value>,
    more: Map<String, Value>,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    ingress: Vec<Value>,
}

impl ServiceManifest {
    /// A Service in the namespace `default` that selects pods whose label `app` is its name.
    pub fn new(name: &str) -> ServiceManifest {
        ServiceManifest {
            name: name.to_owned(),
            cluster_ips: Vec::new(),
            selector: BTreeMap::from([("app".to_owned(), name.to_owned())]),
            ports: Vec::new(),
            more: Map::new(),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            ingress: Vec::new(),
        }
    }

    /// Adds a label.
    pub fn label(mut self, key: &str, value: &str) -> ServiceManifest {
        self.labels.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Adds an annotation.
    pub fn annotation(mut self, key: &str, value: &str) -> ServiceManifest {
        self.annotations.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Makes the Service one of type LoadBalancer, with addresses of an `ipMode` in its status.
    pub fn load_balancer(
        mut self,
        ips: impl IntoIterator<Item = IpAddr>,
        ip_mode: &str,
    ) -> ServiceManifest {
        let ingress = |ip| json!({ "ip": ip, "ipMode": ip_mode });
        self.ingress.extend(ips.into_iter().map(ingress));
        self.with("type", json!("LoadBalancer"))
    }

    /// Its addresses, the first one decides its primary family.
    pub fn cluster_ips(mut self, ips: impl IntoIterator<Item = IpAddr>) -> ServiceManifest {
        self.cluster_ips = ips.into_iter().collect();
        self
    }

    /// Selects pods by another label, instead or in addition.
    pub fn select(mut self, key: &str, value: &str) -> ServiceManifest {
        self.selector.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Adds a TCP port.
    pub fn port(self, name: &str, port: u16, target: u16) -> ServiceManifest {
        self.port_object(json!({ "name": name, "port": port, "targetPort": target }))
    }

    /// Adds a UDP port.
    pub fn udp_port(self, name: &str, port: u16, target: u16) -> ServiceManifest {
        let protocol = "UDP";
        let port =
            json!({ "name": name, "port": port, "targetPort": target, "protocol": protocol });
        self.port_object(port)
    }

    /// Adds a TCP port with a node port, and makes the Service one of type NodePort.
    pub fn node_port(self, name: &str, port: u16, target: u16, node_port: u16) -> ServiceManifest {
        let port =
            json!({ "name": name, "port": port, "targetPort": target, "nodePort": node_port });
        self.with("type", json!("NodePort")).port_object(port)
    }

    /// Adds a port as it stands in `spec.ports`.
    pub fn port_object(mut self, port: Value) -> ServiceManifest {
        self.ports.push(port);
        self
    }

    /// Sets another field of `spec`.
    pub fn with(mut self, field: &str, value: Value) -> ServiceManifest {
        self.more.insert(field.to_owned(), value);
        self
    }

    /// The object.
    pub fn object(&self) -> Value {
        let mut object = json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {
                "name": self.name,
                "namespace": "default",
                "labels": self.labels,
                "annotations": self.annotations,
            },
            "spec": { "selector": self.selector, "ports": self.ports },
            "status": { "loadBalancer": { "ingress": self.ingress } },
        });
        let spec = &mut object["spec"];
        if let Some(first) = self.cluster_ips.first() {
            let family = |ip: &IpAddr| if ip.is_ipv4() { "IPv4" } else { "IPv6" };
            spec["clusterIP"] = json!(first);
            spec["clusterIPs"] = json!(self.cluster_ips);
            spec["ipFamilies"] = self.cluster_ips.iter().map(family).collect();
        }
        for (field, value) in &self.more {
            spec[field] = value.clone();
        }
        object
    }
}

/// A `v1` Namespace.
pub fn namespace(name: &str, labels: &[(&str, &str)]) -> Value {
    let mut all: BTreeMap<&str, &str> = labels.iter().copied().collect();
    all.insert("kubernetes.io/metadata.name", name);
    json!({
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": { "name": name, "labels": all },
    })
}

/// A `discovery.k8s.io/v1` EndpointSlice.
#[derive(Clone, Debug)]
pub struct SliceManifest {
    service: String,
    suffix: String,
    family: Family,
    labels: BTreeMap<String, String>,
    ports: Vec<Value>,
    endpoints: Vec<Value>,
}

impl SliceManifest {
    /// A slice of one family of a Service in the namespace `default`, without ports and endpoints.
    pub fn new(service: &str, family: Family) -> SliceManifest {
        let label = ("kubernetes.io/service-name".to_owned(), service.to_owned());
        SliceManifest {
            service: service.to_owned(),
            suffix: String::new(),
            family,
            labels: BTreeMap::from([label]),
            ports: Vec::new(),
            endpoints: Vec::new(),
        }
    }

    /// Makes it another slice than the Service's first of that family.
    pub fn suffix(mut self, suffix: &str) -> SliceManifest {
        self.suffix = format!("-{suffix}");
        self
    }

    /// Adds a label.
    pub fn label(mut self, key: &str, value: &str) -> SliceManifest {
        self.labels.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Adds a TCP port.
    pub fn port(self, name: &str, port: u16) -> SliceManifest {
        self.port_of("TCP", name, port)
    }

    /// Adds a UDP port.
    pub fn udp_port(self, name: &str, port: u16) -> SliceManifest {
        self.port_of("UDP", name, port)
    }

    fn port_of(mut self, protocol: &str, name: &str, port: u16) -> SliceManifest {
        self.ports
            .push(json!({ "name": name, "port": port, "protocol": protocol }));
        self
    }

    /// Adds a pod: see [`SliceManifest::endpoint`].
    pub fn pod(self, pod: &Pod, more: &Value) -> SliceManifest {
        self.endpoint(pod.addrs(), &pod.node().name(), more)
    }

    /// Adds an endpoint, ready unless `more`, other fields of it, says something else.
    pub fn endpoint(mut self, addrs: Dual, node: &str, more: &Value) -> SliceManifest {
        let mut endpoint = json!({ "addresses": [addrs.ip(self.family)], "nodeName": node });
        for (field, value) in more.as_object().into_iter().flatten() {
            endpoint[field] = value.clone();
        }
        self.endpoints.push(endpoint);
        self
    }

    /// The object, named after the Service, the family and the suffix.
    pub fn object(&self) -> Value {
        let address_type = match self.family {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        };
        let family = address_type.to_ascii_lowercase();
        json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": format!("{}-{family}{}", self.service, self.suffix),
                "namespace": "default",
                "labels": self.labels,
            },
            "addressType": address_type,
            "ports": self.ports,
            "endpoints": self.endpoints,
        })
    }
}

/// A `v1` Node.
pub fn node(node: &Node) -> Value {
    let name = node.name();
    let cidrs = node.pod_cidrs();
    let internal = |ip: IpAddr| json!({ "type": "InternalIP", "address": ip });
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": { "name": name, "labels": { "kubernetes.io/hostname": name } },
        "spec": { "podCIDR": cidrs[0], "podCIDRs": cidrs },
        "status": { "addresses": node.addrs().both().map(internal) },
    })
}
