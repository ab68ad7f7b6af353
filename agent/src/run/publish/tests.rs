use dataplane_model::capacity::Capacities;
use dataplane_model::snapshot::{
    Endpoint, EndpointSlice, Kind, Labels, NodeConfig, Place, Pod, Protocol, ServiceKind,
    ServicePort, SlicePort, TargetPort,
};

use super::*;

fn key(name: &str) -> ObjectKey {
    ObjectKey::new("ns", name)
}

fn port(name: &str, number: u16) -> ServicePort {
    ServicePort {
        name: name.into(),
        protocol: Protocol::Tcp,
        port: number,
        target: TargetPort::Number(8_080),
        node_port: None,
    }
}

fn service() -> Service {
    Service {
        ports: vec![port("http", 80), port("https", 443)],
        kind: ServiceKind::LoadBalancer,
        external_policy: TrafficPolicy::Local,
        health_check_node_port: Some(31_000),
        selector: Some(Labels::from([("app".into(), "web".into())])),
        ..Service::new(key("web"))
    }
}

fn endpoint(ip: &str, node: &str, [ready, serving, terminating]: [bool; 3]) -> Endpoint {
    Endpoint {
        address: ip.parse().unwrap(),
        ready,
        serving,
        terminating,
        place: Some(Arc::new(Place::on(node))),
    }
}

fn slice(name: &str, service: &str, endpoints: Vec<Endpoint>) -> Event {
    Event::Apply(Object::Slice(EndpointSlice {
        key: key(name),
        service: key(service),
        ports: ["http", "https"]
            .map(|name| SlicePort {
                name: name.into(),
                protocol: Protocol::Tcp,
                port: 8_080,
            })
            .into(),
        endpoints,
    }))
}

fn snapshot(events: impl IntoIterator<Item = Event>) -> Snapshot {
    let node = NodeConfig {
        name: "me".into(),
        ..NodeConfig::default()
    };
    let mut snapshot = Snapshot::new(node, [Kind::Node; 0]);
    for event in events {
        snapshot.apply(event);
    }
    snapshot
}

fn found(snapshot: &Snapshot) -> Local {
    let mut services = Services::new(&Capacities::default());
    services.note_all(snapshot);
    look(&service(), &services, snapshot)
}

const READY: [bool; 3] = [true, true, false];

#[test]
fn ready_endpoints_of_this_node_count_once_each() {
    let local = found(&snapshot([
        slice("a", "web", vec![endpoint("10.0.0.1", "me", READY)]),
        slice(
            "b",
            "web",
            vec![
                endpoint("10.0.0.1", "me", READY),
                endpoint("10.0.0.2", "me", [false, true, true]),
                endpoint("10.0.0.3", "other", READY),
                endpoint("fd00::1", "other", READY),
            ],
        ),
        slice("c", "other", vec![endpoint("10.0.0.4", "me", READY)]),
    ]));
    assert_eq!(
        local.check,
        Some(Check {
            port: 31_000,
            local: [1, 0]
        })
    );
    let both_ports_have_none_of_v6_here = [[0; 2], [0, 2]];
    assert_eq!(local.missing, Missing(both_ports_have_none_of_v6_here));
}

#[test]
fn without_slices_pods_count_and_with_slices_they_do_not() {
    let pod = Event::Apply(Object::Pod(Pod {
        key: key("p"),
        uid: "u".into(),
        labels: Labels::from([("app".into(), "web".into())]),
        ips: vec!["10.0.0.1".parse().unwrap()],
        node: Some("me".into()),
        terminal: false,
        ready: true,
        terminating: false,
        host_network: false,
        ports: Vec::new(),
    }));
    let local = |snapshot: &Snapshot| found(snapshot).check.unwrap().local;
    assert_eq!(local(&snapshot([pod.clone()])), [1, 0]);
    assert_eq!(
        local(&snapshot([pod, slice("a", "web", Vec::new())])),
        [0, 0]
    );
}

#[test]
fn a_node_object_that_leaves_or_goes_is_noticed() {
    let (mut publisher, _published) = Publisher::new(Arc::new(Metrics::default()));
    let known = snapshot([]);
    let node = |name: &str, leaving: bool| {
        Event::Apply(Object::Node(dataplane_model::snapshot::Node {
            name: name.into(),
            leaving,
            ..Default::default()
        }))
    };
    for (event, expected) in [
        (node("other", true), NodeState::Unknown),
        (node("me", false), NodeState::Stays),
        (node("me", true), NodeState::Leaves),
        (node("me", false), NodeState::Stays),
        (Event::Delete(Key::Node("me".into())), NodeState::Leaves),
    ] {
        publisher.seen(&event, &known);
        assert_eq!(publisher.node, expected);
    }
}

/// A cluster of many Services that all ask for local endpoints, in one namespace.
fn many(count: u16) -> Snapshot {
    let services = (0..count).flat_map(|n| {
        let name = format!("s{n}");
        let [high, low] = n.to_be_bytes();
        let service = Service {
            key: key(&name),
            health_check_node_port: Some(20_000 + n),
            ..service()
        };
        let ends = vec![
            endpoint(&format!("10.1.{high}.{low}"), "me", READY),
            endpoint(&format!("10.2.{high}.{low}"), "other", READY),
        ];
        [
            Event::Apply(Object::Service(service)),
            slice(&format!("{name}-x"), &name, ends),
        ]
    });
    snapshot(services)
}

#[test]
fn a_change_costs_what_its_service_costs_however_many_others_there_are() {
    let mut snapshot = many(10_000);
    let (mut publisher, published) = Publisher::new(Arc::new(Metrics::default()));
    let mut services = Services::new(&Capacities::default());
    services.note_all(&snapshot);
    publisher.dirty.extend(snapshot.services.keys().cloned());
    publisher.check_services(&services, &snapshot);
    assert_eq!(published.checks.borrow().services.len(), 10_000);
    let mut best = std::time::Duration::MAX;
    for round in 0..20 {
        let ready = [round % 2 == 0, true, false];
        let event = slice("s77-x", "s77", vec![endpoint("10.1.0.77", "me", ready)]);
        let began = std::time::Instant::now();
        publisher.seen(&event, &snapshot);
        let folding = std::time::Instant::now();
        snapshot.apply(event);
        let folding = folding.elapsed();
        publisher.check_services(&services, &snapshot);
        best = best.min(began.elapsed() - folding);
        let expected = [usize::from(ready[0]), 0];
        assert_eq!(
            published.checks.borrow().services[&key("s77")].local,
            expected
        );
    }
    eprintln!("a change among 10000 Services: {best:?}");
    assert!(best < std::time::Duration::from_micros(500), "{best:?}");
}
