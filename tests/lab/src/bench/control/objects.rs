//! What the API server is filled with: objects as controllers write them.

use std::net::{IpAddr, Ipv4Addr};

use serde_json::{Value, json};

use super::Size;
use crate::bench::traffic::PORT;
use crate::kube::api::Write;
use crate::kube::objects::{PodManifest, ServiceManifest, node};
use crate::topology::{Node, Pod};

/// The port of every Service.
pub const SERVICE_PORT: u16 = 80;
/// The port of every endpoint.
pub const TARGET_PORT: u16 = PORT;
/// A slice has at most so many endpoints, as its controller makes them.
const LARGEST_SLICE: u32 = 100;
/// Namespaces that Services are spread over.
const NAMESPACES: u32 = 20;
/// Nodes that endpoints are spread over; none of them is in the lab.
const NODES: u32 = 100;
/// Address of the first Service.
const FIRST_SERVICE: Ipv4Addr = Ipv4Addr::new(10, 100, 0, 1);
/// Address of the first endpoint.
const FIRST_ENDPOINT: Ipv4Addr = Ipv4Addr::new(10, 128, 0, 1);
/// Where an endpoint moves to: behind all of them.
const FIRST_SPARE: Ipv4Addr = Ipv4Addr::new(10, 224, 0, 1);

/// A Service with one endpoint, which is alive.
pub struct Probed {
    /// Its name.
    pub name: String,
    /// Its address.
    pub address: Ipv4Addr,
}

impl Probed {
    /// The one for a node's pods.
    pub fn of(node: &Node) -> Probed {
        Probed {
            name: format!("probed-{}", node.index()),
            address: extra(node.index()),
        }
    }

    /// Creates it and its slice.
    pub fn create(&self, endpoint: &Pod) -> [Write; 2] {
        let service = ServiceManifest::new(&self.name)
            .cluster_ips([IpAddr::from(self.address)])
            .port("http", SERVICE_PORT, TARGET_PORT);
        create_extra(&self.name, &service, endpoint)
    }

    /// Moves it to another endpoint.
    pub fn lead_to(&self, endpoint: &Pod) -> Write {
        let path = format!("{}/{}-1", slices("default"), self.name);
        Write::replace(&path, slice_of(&self.name, endpoint))
    }
}

/// The address of a Service that is none of the many.
pub fn extra(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 99, 0, number)
}

/// Creates a Service of a name in the namespace `default`, and the slice with its one endpoint.
pub fn create_extra(name: &str, service: &ServiceManifest, endpoint: &Pod) -> [Write; 2] {
    [
        Write::create("/api/v1/namespaces/default/services", service.object()),
        Write::create(&slices("default"), slice_of(name, endpoint)),
    ]
}

fn slice_of(service: &str, endpoint: &Pod) -> Value {
    let address = endpoint.addrs().v4;
    let node = endpoint.node().name();
    let endpoints = vec![self::endpoint(address, &node, "default", endpoint.name())];
    slice("default", service, 1, endpoints)
}

/// Creates a node.
pub fn create_node(of: &Node) -> Write {
    Write::create("/api/v1/nodes", node(of))
}

/// Creates a pod that runs.
pub fn create_pod(pod: &Pod) -> [Write; 2] {
    let mut manifest = PodManifest::new(pod.name(), &pod.node().name());
    manifest.addrs = Some(pod.addrs());
    manifest.ready = true;
    manifest.ports = vec![("http".to_owned(), TARGET_PORT, "TCP")];
    let pods = "/api/v1/namespaces/default/pods";
    let status = format!("{pods}/{}/status", pod.name());
    [
        Write::create(pods, manifest.object()),
        Write::replace(&status, manifest.object()),
    ]
}

/// Creates the namespaces.
pub fn namespaces() -> impl Iterator<Item = Write> + Send {
    (0..NAMESPACES).map(|index| {
        let name = namespace(index);
        let object =
            json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } });
        Write::create("/api/v1/namespaces", object)
    })
}

/// Creates the Services and their slices.
pub fn services(size: Size) -> impl Iterator<Item = Write> + Send {
    (0..size.services).flat_map(move |index| {
        let namespace = namespace(index);
        let services = format!("/api/v1/namespaces/{namespace}/services");
        let service = Write::create(&services, service(index));
        let slices = (0..size.slices())
            .map(move |part| Write::create(&slices(&namespace), size.slice(index, part, 0)));
        std::iter::once(service).chain(slices)
    })
}

/// The change with this number: the first endpoint of a Service moves.
pub fn change(size: Size, number: u32) -> Write {
    // A stride that is prime to all sizes spreads changes over the Services.
    let index = (u64::from(number) * 7_919 % u64::from(size.services)) as u32;
    let path = format!("{}/{}-1", slices(&namespace(index)), name(index));
    Write::replace(&path, size.slice(index, 0, number + 1))
}

impl Size {
    fn slices(self) -> u32 {
        self.endpoints.div_ceil(LARGEST_SLICE)
    }

    /// A slice of a Service; its first endpoint has an address of its own in each round but 0.
    fn slice(self, index: u32, part: u32, round: u32) -> Value {
        let places = part * LARGEST_SLICE..self.endpoints.min((part + 1) * LARGEST_SLICE);
        let (namespace, name) = (namespace(index), name(index));
        let endpoints = places.map(|place| {
            let number = index * self.endpoints + place;
            let address = match (place, round) {
                (0, 1..) => nth(FIRST_SPARE, round),
                _ => nth(FIRST_ENDPOINT, number),
            };
            let node = format!("elsewhere-{}", number % NODES);
            endpoint(
                address,
                &node,
                &namespace,
                &format!("{name}-5d8f7c9b6d-{place:05}"),
            )
        });
        slice(&namespace, &name, part + 1, endpoints.collect())
    }
}

fn namespace(index: u32) -> String {
    format!("team-{}", index % NAMESPACES)
}

fn name(index: u32) -> String {
    format!("service-{index}")
}

fn nth(first: Ipv4Addr, index: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(first) + index)
}

fn slices(namespace: &str) -> String {
    format!("/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices")
}

fn service(index: u32) -> Value {
    let mut service = ServiceManifest::new(&name(index))
        .cluster_ips([IpAddr::from(nth(FIRST_SERVICE, index))])
        .port("http", SERVICE_PORT, TARGET_PORT)
        .object();
    service["metadata"]["namespace"] = json!(namespace(index));
    service["metadata"]["labels"] = json!({ "app": name(index) });
    service
}

fn slice(namespace: &str, service: &str, part: u32, endpoints: Vec<Value>) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": format!("{service}-{part}"),
            "namespace": namespace,
            "labels": {
                "kubernetes.io/service-name": service,
                "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
            },
        },
        "addressType": "IPv4",
        "ports": [{ "name": "http", "port": TARGET_PORT, "protocol": "TCP" }],
        "endpoints": endpoints,
    })
}

fn endpoint(address: Ipv4Addr, node: &str, namespace: &str, pod: &str) -> Value {
    json!({
        "addresses": [address],
        "conditions": { "ready": true, "serving": true, "terminating": false },
        "nodeName": node,
        "targetRef": {
            "kind": "Pod",
            "namespace": namespace,
            "name": pod,
            "uid": format!("3c1f8a52-6d0e-4b7a-9f43-{:012x}", u32::from(address)),
        },
        "zone": "zone-a",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_hold_all_endpoints_and_no_more_than_their_controller_puts_there() {
        let size = Size {
            services: 3,
            endpoints: 250,
        };
        assert_eq!(size.slices(), 3);
        let counts: Vec<usize> = (0..3)
            .map(|part| {
                size.slice(1, part, 0)["endpoints"]
                    .as_array()
                    .unwrap()
                    .len()
            })
            .collect();
        assert_eq!(counts, [100, 100, 50]);
    }

    #[test]
    fn a_change_moves_one_endpoint() {
        let size = Size {
            services: 3,
            endpoints: 4,
        };
        let address = |round, place: usize| {
            size.slice(2, 0, round)["endpoints"][place]["addresses"][0].clone()
        };
        assert_ne!(address(0, 0), address(1, 0));
        assert_ne!(address(1, 0), address(2, 0));
        assert_eq!(address(0, 1), address(1, 1));
    }
}
