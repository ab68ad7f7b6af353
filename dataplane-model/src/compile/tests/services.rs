use dataplane_common::abi::{backend_flags, scope, service_flags};
use dataplane_common::net::proto;

use super::*;
use crate::eval::{self, Serving};
use crate::ids::IdKind;

/// `shop/<name>` on port 80, for pods with app=web, port 8080.
pub(super) fn service(name: &str, address: &str) -> Service {
    let port = ServicePort {
        name: "".into(),
        protocol: Protocol::Tcp,
        port: 80,
        target: TargetPort::Number(8080),
        node_port: Some(30080),
    };
    Service {
        selector: Some(labels("app=web")),
        cluster_ips: vec![ip(address)],
        ports: vec![port],
        ..Service::new(ObjectKey::new("shop", name))
    }
}

pub(super) fn web(pods: impl IntoIterator<Item = Pod>, service: Service) -> Desired {
    compiled(
        pods.into_iter()
            .map(Object::Pod)
            .chain([Object::Service(service)]),
    )
}

fn cluster_ip(desired: &Desired) -> Option<Serving> {
    eval::serving(
        &desired.tables,
        ip("10.96.0.1"),
        80,
        proto::TCP,
        scope::INTERNAL,
    )
}

fn node_port(desired: &Desired, scope: u8) -> Serving {
    eval::serving(&desired.tables, ip("192.168.0.1"), 30080, proto::TCP, scope).unwrap()
}

fn addresses(serving: &Serving) -> Vec<String> {
    serving
        .backends
        .iter()
        .map(|share| format!("{}:{}", share.addr, share.port))
        .collect()
}

pub(super) fn plain() -> Service {
    service("web", "10.96.0.1")
}

#[test]
fn endpoints_of_this_node_come_first() {
    let pods = [
        pod("a", "10.0.0.1", "there", "app=web"),
        pod("b", "10.0.0.2", "here", "app=web"),
    ];
    let serving = cluster_ip(&web(pods, plain())).unwrap();
    assert_eq!(addresses(&serving), ["10.0.0.2:8080", "10.0.0.1:8080"]);
    assert_eq!(serving.service.count, 2);
}

#[test]
fn a_pod_that_is_not_ready_gets_nothing() {
    let unready = Pod {
        ready: false,
        ..pod("b", "10.0.0.2", "here", "app=web")
    };
    let pods = || [pod("a", "10.0.0.1", "here", "app=web"), unready.clone()];
    let desired = web(pods(), plain());
    assert_eq!(addresses(&cluster_ip(&desired).unwrap()), ["10.0.0.1:8080"]);
    assert_eq!(desired.tables.v4.backends.len(), 1);
    let all = web(
        pods(),
        Service {
            publish_not_ready: true,
            ..plain()
        },
    );
    assert_eq!(addresses(&cluster_ip(&all).unwrap()).len(), 2);
}

#[test]
fn terminating_endpoints_serve_only_when_none_is_ready() {
    let ending = Pod {
        terminating: true,
        ..pod("b", "10.0.0.2", "here", "app=web")
    };
    let both = web(
        [pod("a", "10.0.0.1", "here", "app=web"), ending.clone()],
        plain(),
    );
    assert_eq!(addresses(&cluster_ip(&both).unwrap()), ["10.0.0.1:8080"]);
    let flags: Vec<_> = both
        .tables
        .v4
        .backends
        .values()
        .map(|backend| backend.flags)
        .collect();
    assert_eq!(
        flags,
        [
            backend_flags::LOCAL,
            backend_flags::LOCAL | backend_flags::TERMINATING
        ]
    );
    let alone = web([ending], plain());
    assert_eq!(addresses(&cluster_ip(&alone).unwrap()), ["10.0.0.2:8080"]);
}

#[test]
fn without_endpoints_connections_are_refused() {
    for policy in [TrafficPolicy::Cluster, TrafficPolicy::Local] {
        let service = Service {
            internal_policy: policy,
            external_policy: policy,
            ..plain()
        };
        let desired = web([], service);
        assert_eq!(cluster_ip(&desired).unwrap().refused, 1.0);
        assert_eq!(node_port(&desired, scope::EXTERNAL).refused, 1.0);
    }
}

#[test]
fn a_local_policy_drops_what_no_endpoint_here_can_serve() {
    let service = Service {
        internal_policy: TrafficPolicy::Local,
        external_policy: TrafficPolicy::Local,
        ..plain()
    };
    let away = web([pod("a", "10.0.0.1", "there", "app=web")], service.clone());
    assert_eq!(cluster_ip(&away).unwrap().dropped, 1.0);
    assert_eq!(node_port(&away, scope::EXTERNAL).dropped, 1.0);
    // On this node, a node port reaches every endpoint.
    assert_eq!(
        addresses(&node_port(&away, scope::INTERNAL)),
        ["10.0.0.1:8080"]
    );
    let here = web(
        [
            pod("a", "10.0.0.1", "there", "app=web"),
            pod("b", "10.0.0.2", "here", "app=web"),
        ],
        service,
    );
    assert_eq!(addresses(&cluster_ip(&here).unwrap()), ["10.0.0.2:8080"]);
    assert_eq!(
        addresses(&node_port(&here, scope::EXTERNAL)),
        ["10.0.0.2:8080"]
    );
}

#[test]
fn node_ports_translate_the_source_of_outside_clients() {
    let pods = || [pod("a", "10.0.0.1", "there", "app=web")];
    let cluster = web(pods(), plain());
    let flags = |desired: &Desired, scope| node_port(desired, scope).service.flags;
    let both = service_flags::SNAT_REMOTE | service_flags::NODE_ADDRESS;
    assert_eq!(flags(&cluster, scope::EXTERNAL), both);
    assert_eq!(
        flags(&cluster, scope::INTERNAL),
        service_flags::NODE_ADDRESS
    );
    let local = web(
        pods(),
        Service {
            external_policy: TrafficPolicy::Local,
            ..plain()
        },
    );
    assert_eq!(
        flags(&local, scope::EXTERNAL) & service_flags::SNAT_REMOTE,
        0
    );
}

#[test]
fn node_ports_are_on_the_chosen_addresses_only() {
    let mut snapshot = snapshot([Object::Service(plain())]);
    snapshot.node.addresses.push(ip("172.16.0.1"));
    snapshot.node.nodeport_addresses = vec!["172.16.0.0/16".parse().unwrap()];
    let desired = compile(&snapshot, &mut IdTable::default()).unwrap();
    let serving = |address| {
        eval::serving(
            &desired.tables,
            ip(address),
            30080,
            proto::TCP,
            scope::EXTERNAL,
        )
    };
    assert!(serving("172.16.0.1").is_some());
    assert!(serving("192.168.0.1").is_none());
}

#[test]
fn node_ports_at_the_loopback_address_are_for_sockets_and_every_endpoint() {
    let service = Service {
        external_policy: TrafficPolicy::Local,
        ..plain()
    };
    let mut snapshot = snapshot([
        Object::Service(service),
        Object::Pod(pod("a", "10.0.0.1", "there", "app=web")),
    ]);
    let serving = |desired: &Desired, address, scope| {
        eval::serving(&desired.tables, ip(address), 30080, proto::TCP, scope)
    };
    let open = compile(&snapshot, &mut IdTable::default()).unwrap();
    let loopback = serving(&open, "127.0.0.1", scope::LOOPBACK).unwrap();
    assert_eq!(addresses(&loopback), ["10.0.0.1:8080"]);
    for (address, scope) in [
        ("127.0.0.1", scope::INTERNAL),
        ("127.0.0.1", scope::EXTERNAL),
        ("::1", scope::LOOPBACK),
    ] {
        assert!(serving(&open, address, scope).is_none(), "{address}");
    }
    snapshot.node.nodeport_addresses = vec!["192.168.0.0/16".parse().unwrap()];
    let elsewhere = compile(&snapshot, &mut IdTable::default()).unwrap();
    assert!(serving(&elsewhere, "127.0.0.1", scope::LOOPBACK).is_none());
}

#[test]
fn headless_services_and_aliases_have_no_frontends() {
    let headless = Service {
        cluster_ips: Vec::new(),
        ..plain()
    };
    let alias = Service {
        kind: ServiceKind::ExternalName,
        ..plain()
    };
    for service in [headless, alias] {
        let desired = web([pod("a", "10.0.0.1", "here", "app=web")], service);
        assert!(desired.tables.v4.services.is_empty() && desired.tables.v4.backends.is_empty());
    }
}

#[test]
fn a_named_target_is_each_pods_own_number() {
    let mut other = pod("b", "10.0.0.2", "here", "app=web");
    other.ports[0].port = 9090;
    let without = Pod {
        ports: Vec::new(),
        ..pod("c", "10.0.0.3", "here", "app=web")
    };
    let mut service = plain();
    service.ports[0].target = TargetPort::Name("web".into());
    let desired = web(
        [pod("a", "10.0.0.1", "here", "app=web"), other, without],
        service,
    );
    assert_eq!(
        addresses(&cluster_ip(&desired).unwrap()),
        ["10.0.0.1:8080", "10.0.0.2:9090"]
    );
}

#[test]
fn slices_replace_the_selector() {
    let endpoint = Endpoint {
        address: ip("10.9.9.9"),
        ready: true,
        serving: true,
        terminating: false,
        place: None,
    };
    let slice = EndpointSlice {
        key: ObjectKey::new("shop", "web-x"),
        service: ObjectKey::new("shop", "web"),
        ports: vec![SlicePort {
            name: "".into(),
            protocol: Protocol::Tcp,
            port: 1234,
        }],
        endpoints: vec![endpoint],
    };
    let objects = [
        Object::Pod(pod("a", "10.0.0.1", "here", "app=web")),
        Object::Service(plain()),
        Object::Slice(slice),
    ];
    assert_eq!(
        addresses(&cluster_ip(&compiled(objects)).unwrap()),
        ["10.9.9.9:1234"]
    );
}

fn routed(weights: &[(u32, &str)]) -> Desired {
    let classes = weights.iter().map(|&(weight, track)| RouteClass {
        weight,
        target: RouteTarget::Subset {
            service: ObjectKey::new("shop", "web"),
            port: None,
            any_of: vec![Selector::from(&labels(&format!("track={track}")))],
        },
    });
    let parent = RouteParent {
        service: ObjectKey::new("shop", "web"),
        port: Some(80),
    };
    let route = Route {
        kind: RouteKind::VirtualService,
        key: ObjectKey::new("other", "canary"),
        created: None,
        rules: vec![RouteRule::new(vec![parent], classes.collect()).unwrap()],
    };
    let stable = (1..=3).map(|n| {
        pod(
            &format!("s{n}"),
            &format!("10.0.1.{n}"),
            "here",
            "app=web,track=stable",
        )
    });
    let pods = stable
        .chain([pod("c", "10.0.2.1", "here", "app=web,track=canary")])
        .map(Object::Pod);
    compiled(pods.chain([Object::Service(plain()), Object::Route(route)]))
}

fn share(desired: &Desired, prefix: &str) -> f64 {
    let serving = cluster_ip(desired).unwrap();
    serving
        .backends
        .iter()
        .filter(|share| share.addr.to_string().starts_with(prefix))
        .map(|share| share.share)
        .sum()
}

#[test]
fn weights_do_not_depend_on_replicas() {
    let desired = routed(&[(90, "stable"), (10, "canary")]);
    assert!((share(&desired, "10.0.2.") - 0.1).abs() < 1e-6);
    assert!((share(&desired, "10.0.1.") - 0.9).abs() < 1e-6);
    assert!((share(&desired, "10.0.1.2") - 0.3).abs() < 1e-6);
}

#[test]
fn a_class_without_weight_gets_nothing_but_keeps_its_backends() {
    let desired = routed(&[(0, "stable"), (100, "canary")]);
    assert_eq!(share(&desired, "10.0.2."), 1.0);
    assert_eq!(cluster_ip(&desired).unwrap().service.classes, 1);
    assert_eq!(
        desired.tables.v4.backends.len(),
        4,
        "their live flows go on"
    );
}

#[test]
fn the_share_of_a_class_without_endpoints_is_refused() {
    let desired = routed(&[(75, "stable"), (25, "gone")]);
    assert!((cluster_ip(&desired).unwrap().refused - 0.25).abs() < 1e-6);
    assert_eq!(cluster_ip(&routed(&[(0, "stable")])).unwrap().refused, 1.0);
}

#[test]
fn a_route_for_one_namespaces_clients_is_reported() {
    let parent = RouteParent {
        service: ObjectKey::new("shop", "web"),
        port: None,
    };
    let route = Route {
        kind: RouteKind::Http,
        key: ObjectKey::new("other", "consumer"),
        created: None,
        rules: vec![RouteRule::new(vec![parent], Vec::new()).unwrap()],
    };
    let desired = compiled([
        Object::Pod(pod("a", "10.0.0.1", "here", "app=web")),
        Object::Service(plain()),
        Object::Route(route),
    ]);
    assert_eq!(addresses(&cluster_ip(&desired).unwrap()).len(), 1);
    assert_eq!(desired.notices.len(), 1);
    assert!(
        desired.notices[0]
            .to_string()
            .starts_with("HTTPRoute other/consumer: its Service shop/web")
    );
}

#[test]
fn an_address_belongs_to_one_service() {
    let objects = [
        Object::Service(plain()),
        Object::Service(service("zweb", "10.96.0.1")),
    ];
    let (mut ids, snapshot) = (IdTable::default(), snapshot(objects));
    let desired = compile(&snapshot, &mut ids).unwrap();
    let number = cluster_ip(&desired).unwrap().service.frontend;
    let mut names = ServiceNames::new(&snapshot, &ids);
    names.add(desired.tables.v4.services.clone());
    assert_eq!(
        names.name(IdKind::Frontend, number).map(|name| &**name),
        Some("shop/web:80")
    );
    assert!(
        desired
            .notices
            .iter()
            .all(|notice| notice.object == "Service shop/zweb"),
        "{:?}",
        desired.notices
    );
    assert!(!desired.notices.is_empty());
}
