use dataplane_model::snapshot::{
    Endpoint, EndpointSlice, Kind, Labels, NodeConfig, Place, Pod, ServiceKind,
};

use super::*;

fn key(name: &str) -> ObjectKey {
    ObjectKey::new("ns", name)
}

fn service() -> Service {
    Service {
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
        ports: Vec::new(),
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

const READY: [bool; 3] = [true, true, false];

#[test]
fn ready_endpoints_of_this_node_count_once_each() {
    let local = look(
        &service(),
        &snapshot([
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
        ]),
    );
    assert_eq!(
        local.check,
        Some(Check {
            port: 31_000,
            local: [1, 0]
        })
    );
    let only_v6_has_none_here = [[false; 2], [false, true]];
    assert_eq!(local.missing, only_v6_has_none_here);
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
    let local = |snapshot: &Snapshot| look(&service(), snapshot).check.unwrap().local;
    assert_eq!(local(&snapshot([pod.clone()])), [1, 0]);
    assert_eq!(
        local(&snapshot([pod, slice("a", "web", Vec::new())])),
        [0, 0]
    );
}

#[test]
fn a_node_object_that_leaves_or_goes_is_noticed() {
    let (mut publisher, _published) = Publisher::new(Arc::new(Metrics::new()));
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
