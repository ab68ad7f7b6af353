//! Explanations of Services.

use std::net::IpAddr;
use std::sync::Arc;

use dataplane_model::capacity::Capacities;
use dataplane_model::ids::IdTable;
use dataplane_model::snapshot::{Place, Protocol, SlicePort, TargetPort};

use super::super::protocol::{Backend, Class};
use super::*;

fn key() -> ObjectKey {
    ObjectKey::new("default", "web")
}

fn endpoint(last: u8) -> Endpoint {
    Endpoint {
        address: IpAddr::from([10, 0, 0, last]),
        ready: true,
        serving: true,
        terminating: false,
        place: Some(Arc::new(Place::on("node-2"))),
    }
}

/// A Service `web` with port `http`, and a slice with these endpoints.
fn snapshot(endpoints: Vec<Endpoint>) -> Snapshot {
    let mut service = Service::new(key());
    service.cluster_ips = vec![IpAddr::from([10, 96, 0, 1])];
    service.ports = vec![ServicePort {
        name: "http".into(),
        protocol: Protocol::Tcp,
        port: 80,
        target: TargetPort::Number(8080),
        node_port: None,
    }];
    let slice = EndpointSlice {
        key: ObjectKey::new("default", "web-1"),
        service: key(),
        ports: vec![SlicePort {
            name: "http".into(),
            protocol: Protocol::Tcp,
            port: 8080,
        }],
        endpoints,
    };
    let mut snapshot = Snapshot::default();
    snapshot.node.name = "node-1".into();
    snapshot.services.insert(key(), Box::new(service));
    snapshot.slices.insert(slice.key.clone(), slice);
    snapshot
}

fn frontend(backends: &[&str]) -> Frontend {
    let backends = backends.iter().map(|address| Backend {
        address: (*address).to_owned(),
        ..Backend::default()
    });
    Frontend {
        service: "default/web:80".to_owned(),
        frontend: "10.96.0.1:80/TCP".to_owned(),
        scope: "internal".to_owned(),
        classes: vec![Class {
            percent: 100.0,
            backends: backends.collect(),
            dropped: false,
        }],
        ..Frontend::default()
    }
}

fn told(snapshot: &Snapshot, frontends: Vec<Frontend>) -> Option<ServiceDetail> {
    let mut services = Services::new(&Capacities::default());
    services.note_all(snapshot);
    let names = Names::new(snapshot, &IdTable::default(), &services);
    explain(snapshot, &services, &names, &key(), frontends)
}

fn reasons(snapshot: &Snapshot, serving: &[&str]) -> Vec<(String, Option<String>)> {
    let detail = told(snapshot, vec![frontend(serving)]).unwrap();
    let endpoints = detail.ports[0].endpoints.iter();
    endpoints
        .map(|one| (one.address.clone(), one.reason.clone()))
        .collect()
}

fn reason(change: impl FnOnce(&mut Snapshot, &mut Endpoint)) -> String {
    let mut endpoint = endpoint(1);
    let mut world = snapshot(Vec::new());
    change(&mut world, &mut endpoint);
    let slice = world.slices.values_mut().next().unwrap();
    slice.endpoints = vec![endpoint];
    reasons(&world, &[])[0].1.clone().unwrap()
}

#[test]
fn an_endpoint_that_serves_needs_no_reason() {
    let world = snapshot(vec![endpoint(1)]);
    let found = reasons(&world, &["10.0.0.1:8080"]);
    assert_eq!(found, [("10.0.0.1:8080".to_owned(), None)]);
}

#[test]
fn each_endpoint_that_does_not_serve_says_why() {
    assert_eq!(reason(|_, endpoint| endpoint.ready = false), "not ready");
    let terminating = reason(|_, endpoint| {
        endpoint.ready = false;
        endpoint.terminating = true;
    });
    assert!(terminating.starts_with("terminating: it serves only where"));
    let local = reason(|world, _| {
        let service = world.services.get_mut(&key()).unwrap();
        service.internal_policy = TrafficPolicy::Local;
    });
    assert_eq!(local, "not on this node (internalTrafficPolicy: Local)");
    let zone = reason(|_, endpoint| {
        let place = Place {
            zones: ["b".into()].into(),
            ..Place::on("node-2")
        };
        endpoint.place = Some(Arc::new(place));
    });
    assert_eq!(zone, "its hints name the zones b");
    let family = reason(|_, endpoint| endpoint.address = "fd00::1".parse().unwrap());
    assert_eq!(family, "the Service has no address of its family");
    let port = reason(|world, _| {
        let slice = world.slices.values_mut().next().unwrap();
        slice.ports[0].name = "web".into();
    });
    assert!(
        port.contains("no port \"http\"/TCP, only \"web\"/TCP"),
        "{port}"
    );
}

#[test]
fn a_port_without_endpoints_says_why() {
    let empty = |world: &Snapshot| {
        let detail = told(world, vec![frontend(&[])]).unwrap();
        detail.ports[0].empty.clone().unwrap()
    };
    let mut world = snapshot(Vec::new());
    assert!(empty(&world).starts_with("its EndpointSlices are empty"));
    world.slices.clear();
    assert!(empty(&world).starts_with("no EndpointSlice names it"));
    let mut unready = endpoint(1);
    unready.ready = false;
    let world = snapshot(vec![unready]);
    assert_eq!(empty(&world), "none of 1 endpoints: not ready");
}

#[test]
fn frontends_are_told_apart_by_port_and_protocol() {
    let world = snapshot(vec![endpoint(1)]);
    let mut other = frontend(&["10.0.0.1:8080"]);
    other.service = "default/web:8080".to_owned();
    let detail = told(&world, vec![other]).unwrap();
    assert!(!detail.ports[0].endpoints[0].inside);
    assert!(is_of(&frontend(&[]).service, &key()));
    assert!(!is_of(
        &frontend(&[]).service,
        &ObjectKey::new("default", "we")
    ));
    let mut world = world;
    world.services.clear();
    assert!(told(&world, Vec::new()).is_none());
}
