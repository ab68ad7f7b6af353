//! Services, slices and nodes as the API server writes them.

use std::net::IpAddr;
use std::sync::Arc;

use dataplane_model::snapshot::{EndpointSlice, OnRemoved, Service};

use super::{Kind, World, key, service_yaml};

fn service(yaml: &str) -> (Service, Vec<String>) {
    let world = World::of(yaml);
    (
        (*world.snapshot.services[&key("s")]).clone(),
        world.problems(),
    )
}

fn load_balancer(spec: &str, status: &str) -> (Service, Vec<String>) {
    let spec = format!(
        "{{type: LoadBalancer, clusterIP: 10.0.0.1, ports: [{{port: 80, nodePort: 30001}}], {spec}}}"
    );
    service(&format!("{}status: {status}\n", service_yaml(&spec)))
}

fn ips(texts: &[&str]) -> Vec<IpAddr> {
    let parsed = texts.iter().map(|text| text.parse().expect("an address"));
    parsed.collect()
}

const INGRESS: &str = "{loadBalancer: {ingress: [{ip: 192.0.2.1}, {ip: 192.0.2.2, ipMode: VIP}, {ip: 192.0.2.3, ipMode: Proxy}, {hostname: lb.example}, {ip: '2001:db8::1'}, {ip: 192.0.2.1}]}}";

#[test]
fn addresses_of_load_balancers_are_taken_unless_they_are_proxies() {
    let (service, problems) = load_balancer("allocateLoadBalancerNodePorts: false", INGRESS);
    assert_eq!(
        service.lb_ips,
        ips(&["192.0.2.1", "192.0.2.2", "2001:db8::1"])
    );
    assert_eq!(problems, [""; 0]);
}

#[test]
fn source_ranges_are_trimmed_and_lose_their_host_bits() {
    let (service, problems) = load_balancer(
        "loadBalancerSourceRanges: [' 10.1.2.3/8 ', 'fd00::1/64']",
        INGRESS,
    );
    let ranges: Vec<_> = service
        .source_ranges
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(ranges, ["10.0.0.0/8", "fd00::/64"]);
    assert_eq!(problems, [""; 0]);
}

#[test]
fn a_source_range_that_cannot_be_read_closes_the_load_balancer_alone() {
    let (service, problems) = load_balancer("loadBalancerSourceRanges: [10.0.0.0/8, x]", INGRESS);
    assert_eq!(service.lb_ips, ips(&[]));
    assert_eq!(service.ports[0].node_port, Some(30001));
    assert!(
        problems[0].contains("spec.loadBalancerSourceRanges[1]: \"x\" is not a block"),
        "{problems:?}"
    );
}

#[test]
fn a_bad_address_hurts_only_itself() {
    let (service, problems) = load_balancer(
        "externalIPs: [203.0.113.1, x, 127.0.0.1]",
        "{loadBalancer: {ingress: [{ip: y}, {ip: 192.0.2.1}]}}",
    );
    assert_eq!(service.external_ips, ips(&["203.0.113.1"]));
    assert_eq!(service.lb_ips, ips(&["192.0.2.1"]));
    let problems = problems.join("\n");
    for field in [
        "spec.externalIPs[1]",
        "spec.externalIPs[2]",
        "status.loadBalancer.ingress[0].ip",
    ] {
        assert!(problems.contains(field), "{problems}");
    }
}

#[test]
fn only_local_load_balancers_have_a_health_check() {
    let port = |spec: &str| load_balancer(spec, "{}").0.health_check_node_port;
    let local = "externalTrafficPolicy: Local, healthCheckNodePort: 32000";
    assert_eq!(port(local), Some(32000));
    assert_eq!(port("healthCheckNodePort: 32000"), None);
    assert_eq!(port("externalTrafficPolicy: Local"), None);
}

#[test]
fn flows_of_removed_backends_drain_or_are_reset() {
    let of = |value: &str| {
        let (annotation, spec) = (
            format!("annotations: {{sluice.dev/on-backend-removed: {value}}}"),
            "{clusterIP: 10.0.0.1, ports: [{port: 80}]}",
        );
        service(&format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: s, {annotation}}}\nspec: {spec}\n"
        ))
    };
    assert_eq!(of("reset").0.on_backend_removed, OnRemoved::Reset);
    assert_eq!(of("drain").0.on_backend_removed, OnRemoved::Drain);
    let (other, problems) = of("cut");
    assert_eq!(other.on_backend_removed, OnRemoved::Drain);
    assert!(
        problems[0].contains("\"cut\" is unknown: write drain or reset"),
        "{problems:?}"
    );
}

#[test]
fn a_service_that_becomes_another_proxys_is_gone() {
    let spec = "{clusterIP: 10.0.0.1, ports: [{port: 80}]}";
    let mut world = World::of(&service_yaml(spec));
    assert!(world.snapshot.services.contains_key(&key("s")));
    world.apply(&format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: s, labels: {{service.kubernetes.io/service-proxy-name: other}}}}\nspec: {spec}\n"
    ));
    assert!(world.snapshot.services.is_empty());
    world.delete(Kind::Service, "s");
    assert!(world.snapshot.services.is_empty());
}

#[test]
fn a_service_that_becomes_an_alias_is_not_served() {
    let mut world = World::of(&service_yaml("{clusterIP: 10.0.0.1, ports: [{port: 80}]}"));
    assert!(world.snapshot.services[&key("s")].is_served());
    world.apply(&service_yaml(
        "{type: ExternalName, externalName: example.com}",
    ));
    assert!(!world.snapshot.services[&key("s")].is_served());
    assert_eq!(world.problems(), [""; 0]);
}

fn slice(rest: &str) -> (EndpointSlice, Vec<String>) {
    let world = World::of(&format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: s-1, labels: {{kubernetes.io/service-name: s}}}}\naddressType: IPv4\n{rest}"
    ));
    (world.snapshot.slices[&key("s-1")].clone(), world.problems())
}

#[test]
fn unset_conditions_mean_ready_and_serving() {
    let (slice, _) = slice(
        "endpoints: [{addresses: [10.1.0.1, 10.1.0.9]}, {addresses: [10.1.0.2], conditions: {ready: false, terminating: true}}]\nports: null\n",
    );
    let states: Vec<_> = slice
        .endpoints
        .iter()
        .map(|endpoint| (endpoint.ready, endpoint.serving, endpoint.terminating))
        .collect();
    assert_eq!(states, [(true, true, false), (false, true, true)]);
}

#[test]
fn a_slice_without_endpoints_or_ports_is_read() {
    let (slice, problems) = slice("endpoints: null\nports: null\n");
    assert_eq!((slice.endpoints.len(), slice.ports.len()), (0, 0));
    assert_eq!(problems, [""; 0]);
}

#[test]
fn a_port_without_a_number_is_ignored() {
    let (slice, problems) =
        slice("endpoints: []\nports: [{name: a}, {name: b, port: 80}, {name: c, port: 70000}]\n");
    let names: Vec<&str> = slice.ports.iter().map(|port| &*port.name).collect();
    assert_eq!(names, ["b"]);
    assert!(problems[0].contains("ports[2].port"), "{problems:?}");
}

#[test]
fn an_endpoint_that_cannot_be_read_hurts_only_itself() {
    let (slice, problems) = slice(
        "endpoints: [{addresses: []}, {addresses: [x]}, {addresses: ['fd00::1']}, {addresses: [10.1.0.1]}]\nports: []\n",
    );
    assert_eq!(slice.endpoints.len(), 1);
    assert_eq!(problems.len(), 3, "{problems:?}");
}

#[test]
fn hints_are_read_and_places_are_shared() {
    let (slice, _) = slice(
        "endpoints:\n- {addresses: [10.1.0.1], nodeName: n1, hints: {forZones: [{name: z1}, {name: z2}], forNodes: [{name: n1}]}}\n- {addresses: [10.1.0.2], nodeName: n1, hints: {forZones: [{name: z1}, {name: z2}], forNodes: [{name: n1}]}}\n- {addresses: [10.1.0.3], nodeName: n1}\nports: []\n",
    );
    let [first, second, third] = &slice.endpoints[..] else {
        panic!("three endpoints");
    };
    let names = |texts: &[_]| {
        let texts = texts
            .iter()
            .map(|text: &std::sync::Arc<str>| text.to_string());
        texts.collect::<Vec<_>>()
    };
    assert_eq!(names(first.zones()), ["z1", "z2"]);
    assert_eq!(names(first.nodes()), ["n1"]);
    let place = |endpoint: &dataplane_model::snapshot::Endpoint| {
        endpoint.place.clone().expect("it has a place")
    };
    assert!(Arc::ptr_eq(&place(first), &place(second)));
    assert_eq!((third.zones().len(), third.nodes().len()), (0, 0));
}

#[test]
fn slices_of_headless_services_are_not_read() {
    let world = World::of(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: s-1, labels: {kubernetes.io/service-name: s, service.kubernetes.io/headless: ''}}\naddressType: IPv4\nendpoints: [{addresses: [10.1.0.1]}]\n",
    );
    assert!(world.snapshot.slices.is_empty());
    assert_eq!(world.problems(), [""; 0]);
}

#[test]
fn a_node_says_its_zone_and_whether_it_is_about_to_go() {
    let world = World::of(
        "apiVersion: v1\nkind: Node\nmetadata: {name: n1, labels: {topology.kubernetes.io/zone: z1}}\nspec: {taints: [{key: ToBeDeletedByClusterAutoscaler, effect: NoSchedule}]}\nstatus: {addresses: [{type: ExternalIP, address: 203.0.113.1}, {type: InternalIP, address: 192.0.2.1}]}\n---\n\
         apiVersion: v1\nkind: Node\nmetadata: {name: n2, deletionTimestamp: '2026-01-31T08:00:00Z'}\nstatus: {addresses: [{type: ExternalIP, address: 203.0.113.2}]}\n---\n\
         apiVersion: v1\nkind: Node\nmetadata: {name: n3}\nspec: {taints: [{key: other}]}\n",
    );
    let node = |name: &str| &world.snapshot.nodes[name];
    assert_eq!(node("n1").zone.as_deref(), Some("z1"));
    assert_eq!(node("n1").internal_ips, ips(&["192.0.2.1"]));
    assert_eq!(node("n1").addresses, ips(&["192.0.2.1", "203.0.113.1"]));
    assert_eq!(node("n2").internal_ips, ips(&["203.0.113.2"]));
    assert_eq!(
        ["n1", "n2", "n3"].map(|name| node(name).leaving),
        [true, true, false]
    );
}
