//! Services with endpoints, and routes.

use std::{net::IpAddr, sync::Arc};

use dataplane_common::abi::scope;
use dataplane_model::snapshot::*;
use proptest::{collection::vec, option, prelude::*, sample::select};

use crate::cluster::{THIS_NODE, THIS_ZONE, ip, namespace, node, pod_ips, selector};

/// The first is also a port of Services, which an external address of the node's may clash with.
const NODE_PORTS: [u16; 3] = [80, 30081, 30082];

/// Services, some with slices, and routes.
pub fn objects() -> impl Strategy<Value = Vec<Object>> {
    (vec(service(), 0..4), vec(slice(), 0..3), vec(route(), 0..3)).prop_map(
        |(services, slices, routes)| {
            let services = services
                .into_iter()
                .enumerate()
                .map(|(i, service)| Object::Service(place(i, service)));
            let slices = slices.into_iter().enumerate().map(|(i, slice)| {
                Object::Slice(EndpointSlice {
                    key: ObjectKey::new(slice.key.namespace.clone(), format!("slice{i}")),
                    ..slice
                })
            });
            let routes = routes.into_iter().enumerate().map(|(i, route)| {
                Object::Route(Route {
                    key: ObjectKey::new(route.key.namespace.clone(), format!("route{i}")),
                    ..route
                })
            });
            services.chain(slices).chain(routes).collect()
        },
    )
}

fn place(index: usize, service: Service) -> Service {
    let low = index + 1;
    let ips = [ip(&format!("10.96.0.{low}")), ip(&format!("fd96::{low}"))];
    let cluster_ips = ips.into_iter().take(service.cluster_ips.len()).collect();
    let mut ports = service.ports;
    for port in &mut ports {
        // Node ports are unique in a cluster.
        port.node_port = port
            .node_port
            .filter(|_| port.protocol == Protocol::Tcp)
            .map(|_| NODE_PORTS[index % 3]);
    }
    let key = ObjectKey::new(service.key.namespace.clone(), format!("svc{}", index % 2));
    // Some addresses are claimed twice, and some are in two lists of one Service.
    let vips = |ips: Vec<IpAddr>| {
        let low = |ip: &IpAddr| if ip.is_loopback() { index % 2 + 1 } else { 9 };
        let vip = |ip: IpAddr| match ip {
            ip if !ip.is_loopback() && !ip.is_unspecified() => ip,
            IpAddr::V4(_) => ip4(low(&ip)),
            IpAddr::V6(_) => ip6(low(&ip)),
        };
        ips.into_iter().map(vip).collect()
    };
    Service {
        key,
        cluster_ips,
        ports,
        external_ips: vips(service.external_ips),
        lb_ips: vips(service.lb_ips),
        ..service
    }
}

fn ip4(low: usize) -> IpAddr {
    ip(&format!("203.0.113.{low}"))
}

fn ip6(low: usize) -> IpAddr {
    ip(&format!("2001:db8:1::{low}"))
}

/// Places of addresses: loopback ones are for the Service's own, unspecified ones for those that it
/// shares. The others are cluster IPs, of this or another Service, and the node's addresses.
fn vips() -> impl Strategy<Value = Vec<IpAddr>> {
    vec(
        select(vec![
            "127.0.0.1",
            "::1",
            "0.0.0.0",
            "::",
            "10.96.0.1",
            "10.96.0.2",
            "fd96::1",
            "192.168.0.1",
        ])
        .prop_map(ip),
        0..3,
    )
}

fn service() -> impl Strategy<Value = Service> {
    let app = select(vec!["web", "api", "none"]);
    let policy = || {
        select(vec![
            TrafficPolicy::Cluster,
            TrafficPolicy::Cluster,
            TrafficPolicy::Local,
        ])
    };
    let ports = select(vec![Protocol::Tcp, Protocol::Udp]).prop_flat_map(|second| {
        (target(), target(), any::<bool>()).prop_map(move |(first, other, both)| {
            let port = |name: &str, protocol, target| ServicePort {
                name: name.into(),
                protocol,
                port: 80,
                target,
                node_port: Some(0),
            };
            let mut ports = vec![port("one", Protocol::Tcp, first)];
            if both {
                let other = port("two", second, other);
                ports.push(ServicePort {
                    port: if second == Protocol::Tcp { 81 } else { 80 },
                    node_port: (second == Protocol::Udp).then_some(0),
                    ..other
                });
            }
            ports
        })
    });
    let kind = prop_oneof![8 => Just(ServiceKind::NodePort), 1 => Just(ServiceKind::ExternalName)];
    (
        namespace(),
        app,
        policy(),
        policy(),
        ports,
        kind,
        0usize..3,
        any::<bool>(),
        (vips(), vips(), option::of(0i64..2)),
    )
        .prop_map(
            |(namespace, app, internal, external, ports, kind, families, publish, vips)| Service {
                kind,
                created: vips.2,
                selector: Some([("app".into(), app.into())].into()),
                cluster_ips: vec![ip("::"); families],
                ports,
                internal_policy: internal,
                external_policy: external,
                affinity_secs: publish.then_some(60),
                publish_not_ready: publish,
                external_ips: vips.0,
                lb_ips: vips.1,
                ..Service::new(ObjectKey::new(namespace, "svc"))
            },
        )
}

fn target() -> impl Strategy<Value = TargetPort> {
    prop_oneof![
        Just(TargetPort::Number(8080)),
        Just(TargetPort::Name("web".into()))
    ]
}

fn slice() -> impl Strategy<Value = EndpointSlice> {
    let conditions = prop_oneof![
        4 => Just([true, true, false]),
        1 => any::<[bool; 3]>(),
    ];
    let endpoint = (0usize..6, 0usize..2, conditions, place_of()).prop_map(
        |(pod, family, [ready, serving, terminating], place)| Endpoint {
            address: pod_ips(pod)[family],
            ready: ready && !terminating,
            serving: serving || (ready && !terminating),
            terminating,
            place,
        },
    );
    let port =
        (select(vec!["one", "two"]), select(vec![8080u16, 9000])).prop_map(|(name, port)| {
            SlicePort {
                name: name.into(),
                protocol: Protocol::Tcp,
                port,
            }
        });
    (
        namespace(),
        select(vec!["svc0", "svc1"]),
        vec(endpoint, 0..5),
        vec(port, 1..3),
    )
        .prop_map(|(namespace, name, endpoints, mut ports)| {
            ports.sort_by_key(|port| port.name.clone());
            ports.dedup_by_key(|port| port.name.clone());
            EndpointSlice {
                key: ObjectKey::new(namespace, "slice"),
                service: ObjectKey::new(namespace, name),
                ports,
                endpoints,
            }
        })
}

/// A node is named always, hints mostly, so that all of a Service's endpoints may have them.
fn place_of() -> impl Strategy<Value = Option<Arc<Place>>> {
    let hint = |names: Vec<&'static str>| {
        option::weighted(0.8, select(names))
            .prop_map(|name| name.into_iter().map(Text::from).collect())
    };
    let nodes = hint(vec![THIS_NODE, "there"]);
    let zones = hint(vec![THIS_ZONE, "elsewhere"]);
    (select(vec![THIS_NODE, "there"]), nodes, zones).prop_map(|(node, nodes, zones)| {
        let node = Some(node.into());
        Some(Arc::new(Place { node, zones, nodes }))
    })
}

fn route() -> impl Strategy<Value = Route> {
    let service = || {
        (namespace(), select(vec!["svc0", "svc1"]))
            .prop_map(|(namespace, name)| ObjectKey::new(namespace, name))
    };
    let port = || select(vec![None, Some(80), Some(81)]);
    let target = prop_oneof![
        4 => (service(), port()).prop_map(|(service, port)| RouteTarget::Service { service, port }),
        4 => (service(), port(), vec(selector(), 1..3)).prop_map(|(service, port, any_of)| RouteTarget::Subset { service, port, any_of }),
        1 => Just(RouteTarget::Invalid),
    ];
    let class = (select(vec![0u32, 1, 10, 90]), target)
        .prop_map(|(weight, target)| RouteClass { weight, target });
    let parent = (service(), port()).prop_map(|(service, port)| RouteParent { service, port });
    let rule = (vec(parent, 1..3), vec(class, 0..4))
        .prop_map(|(parents, classes)| RouteRule::new(parents, classes).expect("few classes"));
    let kind = select(vec![
        RouteKind::Http,
        RouteKind::Tcp,
        RouteKind::Udp,
        RouteKind::VirtualService,
    ]);
    (kind, namespace(), option::of(0i64..2), vec(rule, 1..3)).prop_map(
        |(kind, namespace, created, rules)| Route {
            kind,
            key: ObjectKey::new(namespace, "route"),
            created,
            rules,
        },
    )
}

/// Frontends that may exist: address, port, protocol and kind of client.
pub fn frontends() -> Vec<(IpAddr, u16, Protocol, u8)> {
    let cluster =
        (1..5).flat_map(|low| [ip(&format!("10.96.0.{low}")), ip(&format!("fd96::{low}"))]);
    let vips = [1, 2, 9].into_iter().flat_map(|low| [ip4(low), ip6(low)]);
    let cluster = cluster.chain(vips);
    let cluster = cluster.flat_map(|ip| [80, 81].map(|port| (ip, port)));
    let nodes = node()
        .addresses
        .into_iter()
        .flat_map(|ip| [80, 81, 30081, 30082].map(|port| (ip, port)));
    let protocols = [Protocol::Tcp, Protocol::Udp];
    let scopes = [scope::INTERNAL, scope::EXTERNAL];
    let each = cluster
        .chain(nodes)
        .flat_map(|(ip, port)| protocols.map(|protocol| (ip, port, protocol)));
    each.flat_map(|(ip, port, protocol)| scopes.map(|scope| (ip, port, protocol, scope)))
        .collect()
}
