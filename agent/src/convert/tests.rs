//! From YAML to the model's objects.

mod policies;
mod routes;
mod services;
mod tiers;

use std::path::Path;

use dataplane_model::snapshot::{
    Event, Key, Kind as ModelKind, NodeConfig, ObjectKey as ModelKey, Protocol, ServiceKind,
    Snapshot, TargetPort,
};

use super::*;
use crate::source::manifests::fixture::changes;

/// A converter with the snapshot that its events make.
pub(super) struct World {
    converter: Converter,
    pub(super) snapshot: Snapshot,
}

impl World {
    pub(super) fn new() -> Self {
        Self {
            converter: Converter::default(),
            snapshot: Snapshot::new(NodeConfig::default(), [] as [ModelKind; 0]),
        }
    }

    /// The world of these documents.
    pub(super) fn of(yaml: &str) -> Self {
        let mut world = Self::new();
        world.apply(yaml);
        world
    }

    pub(super) fn apply(&mut self, yaml: &str) {
        for change in changes(Path::new("x.yaml"), yaml) {
            self.change(change);
        }
    }

    pub(super) fn delete(&mut self, kind: Kind, name: &str) {
        self.change(Change::Delete(ObjectKey::new(kind, None, name)));
    }

    fn change(&mut self, change: Change) {
        for event in self.converter.convert(change) {
            self.snapshot.apply(event);
        }
    }

    /// Field, message and effect of each problem.
    pub(super) fn problems(&self) -> Vec<String> {
        let line = |problem: &Problem| {
            format!(
                "{}: {} ({})",
                problem.field, problem.message, problem.effect
            )
        };
        self.converter.problems().map(line).collect()
    }

    /// The only problem.
    pub(super) fn problem(&self) -> String {
        let problems = self.problems();
        assert_eq!(problems.len(), 1, "{problems:#?}");
        problems.into_iter().next().expect("one")
    }
}

pub(super) fn key(name: &str) -> ModelKey {
    ModelKey::new("default", name)
}

fn service_yaml(spec: &str) -> String {
    format!("apiVersion: v1\nkind: Service\nmetadata: {{name: s}}\nspec: {spec}\n")
}

#[test]
fn a_service_with_everything() {
    let world = World::of(&service_yaml(
        "{type: NodePort, clusterIPs: [10.96.0.1, 'fd00::1'], selector: {app: x}, sessionAffinity: ClientIP, \
         internalTrafficPolicy: Local, ports: [{name: a, port: 80, targetPort: web, nodePort: 30080}, \
         {name: b, port: 53, nodePort: 30053, protocol: UDP}]}",
    ));
    let service = &world.snapshot.services[&key("s")];
    assert_eq!(service.kind, ServiceKind::NodePort);
    assert_eq!(service.cluster_ips.len(), 2);
    assert_eq!(service.affinity_secs, Some(10_800));
    assert_eq!(service.ports[0].target, TargetPort::Name("web".into()));
    assert_eq!(service.ports[0].node_port, Some(30080));
    assert_eq!(
        (service.ports[1].protocol, service.ports[1].port),
        (Protocol::Udp, 53)
    );
    assert_eq!(service.ports[1].target, TargetPort::Number(53));
    assert_eq!(world.problems(), [""; 0]);
}

#[test]
fn a_headless_service_is_no_problem() {
    let world = World::of(&service_yaml("{clusterIP: None, ports: [{port: 80}]}"));
    assert!(!world.snapshot.services[&key("s")].is_served());
    assert_eq!(world.problems(), [""; 0]);
}

#[test]
fn what_the_api_server_would_choose_is_asked_for() {
    let world = World::of(&service_yaml("{type: NodePort, ports: [{port: 80}]}"));
    let problems = world.problems().join("\n");
    assert!(problems.contains("spec.clusterIP: missing"), "{problems}");
    assert!(
        problems.contains("spec.ports[0].nodePort: missing"),
        "{problems}"
    );
}

#[test]
fn bad_services_name_field_and_remedy() {
    for (spec, expected) in [
        (
            "{clusterIP: 10.0.0.999, ports: [{port: 80}]}",
            "spec.clusterIP: \"10.0.0.999\" is not an IP address",
        ),
        (
            "{clusterIP: 10.0.0.1, ports: [{port: 0}]}",
            "spec.ports[0].port: 0 is not a port: give one from 1 to 65535",
        ),
        (
            "{clusterIP: 10.0.0.1, ports: [{port: 80}, {port: 81}]}",
            "spec.ports[0].name: missing",
        ),
        (
            "{clusterIP: 10.0.0.1, ports: [{port: 80, nodePort: 30000}]}",
            "spec.ports[0].nodePort: only Services of type",
        ),
        (
            "{clusterIP: 127.0.0.1, ports: [{port: 80}]}",
            "spec.clusterIP: 127.0.0.1 is a loopback address",
        ),
        (
            "{type: Cluster}",
            "spec.type: \"Cluster\" is not a type: write ClusterIP,",
        ),
        (
            "{clusterIP: 10.0.0.1, ports: [{port: 80, targetPort: '8080'}]}",
            "write the number without quotes",
        ),
        (
            "{clusterIP: 10.0.0.1, ports: [{port: 80, protocol: tcp}]}",
            "write TCP, UDP or SCTP",
        ),
    ] {
        let world = World::of(&service_yaml(spec));
        let problem = world.problem();
        assert!(problem.contains(expected), "{spec}: {problem}");
        assert!(
            problem.contains("the object does not exist for the agent"),
            "{problem}"
        );
        assert!(world.snapshot.services.is_empty());
    }
}

#[test]
fn a_bad_version_leaves_the_good_one() {
    let mut world = World::of(&service_yaml("{clusterIP: 10.0.0.1, ports: [{port: 80}]}"));
    let good = world.snapshot.clone();
    world.apply(&service_yaml("{clusterIP: nonsense, ports: [{port: 80}]}"));
    assert_eq!(world.snapshot, good);
    assert!(
        world
            .problem()
            .contains("the version read before stays in force")
    );
    world.delete(Kind::Service, "s");
    assert!(world.snapshot.services.is_empty());
    assert_eq!(world.problems(), [""; 0]);
}

#[test]
fn another_proxys_service_is_left_to_it() {
    let mut world = World::of(&service_yaml("{clusterIP: 10.0.0.1, ports: [{port: 80}]}"));
    world.apply("apiVersion: v1\nkind: Service\nmetadata: {name: s, labels: {service.kubernetes.io/service-proxy-name: x}}\nspec: {clusterIP: 10.0.0.1, ports: [{port: 80}]}\n");
    assert!(world.snapshot.services.is_empty());
}

#[test]
fn namespaces_are_implied_by_their_objects() {
    let mut world = World::of("apiVersion: v1\nkind: Pod\nmetadata: {name: p, namespace: shop}\n");
    let labels = &world.snapshot.namespaces["shop"];
    assert_eq!(labels.get(NAMESPACE_NAME_LABEL), Some(&"shop".into()));
    world.apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {team: a}}\n");
    assert_eq!(world.snapshot.namespaces["shop"].iter().count(), 2);
    world.delete(Kind::Namespace, "shop");
    assert_eq!(world.snapshot.namespaces["shop"].iter().count(), 1);
    let gone = ObjectKey::new(Kind::Pod, Some("shop"), "p");
    world.change(Change::Delete(gone));
    assert!(world.snapshot.namespaces.is_empty());
}

#[test]
fn a_pod_with_everything() {
    let world = World::of(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: p, labels: {app: x}, uid: u1, deletionTimestamp: '2026-01-01T00:00:00Z'}\n\
         spec:\n  nodeName: n1\n  initContainers:\n  - {name: i, restartPolicy: Always, ports: [{name: side, containerPort: 15001}]}\n  - {name: j, ports: [{name: not, containerPort: 1}]}\n  \
         containers:\n  - {name: c, ports: [{name: web, containerPort: 8080}, {name: dns, containerPort: 53, protocol: UDP}]}\n\
         status:\n  phase: Running\n  podIPs: [{ip: 10.1.0.5}, {ip: 'fd00:1::5'}]\n  conditions: [{type: Ready, status: 'False'}]\n",
    );
    let pod = &world.snapshot.pods[&key("p")];
    assert_eq!(
        (pod.ips.len(), pod.node.as_deref(), &*pod.uid),
        (2, Some("n1"), "u1")
    );
    assert!(!pod.ready && pod.terminating && !pod.terminal && !pod.host_network);
    let names: Vec<&str> = pod.ports.iter().map(|port| &*port.name).collect();
    assert_eq!(names, ["web", "dns", "side"]);
}

#[test]
fn readiness_without_conditions_follows_the_phase() {
    let ready = |status: &str| {
        let text = format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: p}}\nstatus: {status}\n");
        World::of(&text).snapshot.pods[&key("p")].ready
    };
    assert!(ready("{podIP: 10.0.0.1}"));
    assert!(ready("{podIP: 10.0.0.1, phase: Running}"));
    assert!(!ready("{podIP: 10.0.0.1, phase: Pending}"));
    assert!(!ready(
        "{podIP: 10.0.0.1, phase: Running, conditions: [{type: Initialized, status: 'True'}]}"
    ));
    assert!(ready(
        "{podIP: 10.0.0.1, conditions: [{type: Ready, status: 'True'}]}"
    ));
}

#[test]
fn a_finished_pod_is_terminal() {
    for phase in ["Succeeded", "Failed"] {
        let text = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: p}}\nstatus: {{phase: {phase}, podIP: 10.0.0.1}}\n"
        );
        assert!(World::of(&text).snapshot.pods[&key("p")].terminal);
    }
}

#[test]
fn slices_name_their_service() {
    let world = World::of(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: s-1, labels: {kubernetes.io/service-name: s}}\naddressType: IPv4\n\
         ports: [{name: '', port: 8080}]\nendpoints:\n- {addresses: [10.1.0.1], conditions: {ready: false, serving: true, terminating: true}, nodeName: n1, targetRef: {kind: Pod, name: p}}\n- {addresses: [10.1.0.2]}\n",
    );
    let slice = &world.snapshot.slices[&key("s-1")];
    assert_eq!(slice.service, key("s"));
    let [first, second] = &slice.endpoints[..] else {
        panic!("two endpoints");
    };
    assert!(!first.ready && first.serving && first.terminating);
    assert_eq!(
        (first.node().map(|node| &**node), second.node()),
        (Some("n1"), None)
    );
    assert!(second.ready && second.serving && !second.terminating);
}

#[test]
fn a_slice_without_a_service_serves_none() {
    let world = World::of(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: s-1}\naddressType: IPv4\nendpoints: []\n",
    );
    assert!(world.snapshot.slices.is_empty());
    assert!(world.problem().contains("the endpoints serve none"));
}

#[test]
fn a_node_has_its_addresses() {
    let world = World::of(
        "apiVersion: v1\nkind: Node\nmetadata: {name: n1}\nstatus: {addresses: [{type: InternalIP, address: 192.0.2.1}, {type: Hostname, address: n1}]}\n",
    );
    assert_eq!(world.snapshot.nodes["n1"].addresses.len(), 1);
}

#[test]
fn deleting_what_never_was_is_nothing() {
    let mut converter = Converter::default();
    let gone = Change::Delete(ObjectKey::new(Kind::Service, None, "s"));
    assert_eq!(converter.convert(gone), []);
    let service = changes(Path::new("x.yaml"), &service_yaml("{clusterIP: x}")).remove(0);
    let events = converter.convert(service);
    assert!(
        !events
            .iter()
            .any(|event| matches!(event, Event::Delete(Key::Service(_))))
    );
}
