//! Objects of a cluster: few names, labels and ports, so that things meet.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use dataplane_model::snapshot::*;
use ipnet::IpNet;
use proptest::{
    collection::{btree_set, vec},
    option,
    prelude::*,
    sample::select,
};

use crate::{services, tiers};

/// The node whose maps are made.
pub const THIS_NODE: &str = "here";
/// Its zone.
pub const THIS_ZONE: &str = "near";
const OTHER_NODE: &str = "there";
/// How many places for pods there are.
pub const PODS: usize = 9;

/// Ports that packets are tried with: those that rules name, and their neighbours.
pub const PORTS: [u16; 9] = [0, 53, 79, 80, 81, 443, 8080, 9000, 65535];

/// Its configuration.
pub fn node() -> NodeConfig {
    NodeConfig {
        name: THIS_NODE.into(),
        addresses: vec![ip("192.168.0.1"), ip("fd99::1")],
        ..NodeConfig::default()
    }
}

/// Addresses that are no known pod's: of nobody, of nodes, and within the pods' ranges.
pub fn outside() -> Vec<IpAddr> {
    [
        "10.0.0.200",
        "10.0.4.4",
        "10.0.2.77",
        "203.0.113.7",
        "192.168.0.1",
        "192.168.0.2",
        "fd00::200",
        "fd00:0:0:1::77",
        "2001:db8::7",
        "fd99::1",
    ]
    .map(ip)
    .into()
}

/// The address that a text states.
pub fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// Addresses of the pod at a place of the cluster, one of each family.
pub fn pod_ips(index: usize) -> Vec<IpAddr> {
    let low = index as u8 + 1;
    vec![
        Ipv4Addr::new(10, 0, low % 3, low).into(),
        Ipv6Addr::new(0xfd00, 0, 0, (low % 3).into(), 0, 0, 0, low.into()).into(),
    ]
}

/// Objects of a cluster, without the node's own configuration.
pub fn objects() -> impl Strategy<Value = Vec<Object>> {
    let namespaces = vec((namespace_labels(), mode()), 3).prop_map(|labels| {
        let named = ["a", "b", "c"].into_iter().zip(labels);
        named
            .filter_map(|(name, (labels, mode))| {
                Some(Object::Namespace(Namespace {
                    name: name.into(),
                    labels: labels?,
                    mode,
                    ending: false,
                }))
            })
            .collect::<Vec<_>>()
    });
    let pods = vec(pod(), PODS).prop_map(|pods| {
        pods.into_iter()
            .enumerate()
            .flat_map(|(i, pod)| place_pod(i, pod))
            .collect::<Vec<_>>()
    });
    let policies = vec(policy(), 0..5).prop_map(|policies| {
        let name = |i: usize, policy: NetworkPolicy| NetworkPolicy {
            key: ObjectKey::new(policy.key.namespace.clone(), format!("np{i}")),
            ..policy
        };
        policies
            .into_iter()
            .enumerate()
            .map(|(i, policy)| Object::Policy(name(i, policy)))
            .collect::<Vec<_>>()
    });
    let services = services::objects();
    let tiers = tiers::policies();
    (
        namespaces,
        pods,
        policies,
        tiers,
        services,
        nodes(),
        domains(),
    )
        .prop_map(move |(a, b, c, d, e, nodes, domains)| {
            distinct([a, b, c, d, e, nodes, domains].concat())
        })
}

/// Names with some addresses of nobody, of nodes and of pods.
fn domains() -> impl Strategy<Value = Vec<Object>> {
    let known = || {
        let mut known = outside();
        known.extend(pod_ips(1));
        btree_set(select(known), 0..4)
    };
    let names = ["example.com", "www.example.com", "a.b.example.com"];
    vec(option::of(known()), names.len()).prop_map(move |all| {
        let named = names.into_iter().zip(all);
        let domain = |(name, addresses): (&str, Option<BTreeSet<IpAddr>>)| {
            let addresses = addresses?;
            let name = name.into();
            Some(Object::Domain(Domain { name, addresses }))
        };
        named.filter_map(domain).collect()
    })
}

/// Both nodes, with labels or without; the ranges of their pods hold some of the pods, or are not
/// known.
fn nodes() -> impl Strategy<Value = Vec<Object>> {
    let role = || select(vec![None, Some("edge"), Some("core")]);
    let ranges = || {
        let some = vec![
            vec![],
            vec!["10.0.2.0/24", "fd00:0:0:1::/64"],
            vec!["10.0.0.0/22"],
        ];
        select(some).prop_map(|ranges| ranges.into_iter().map(net).collect::<Vec<_>>())
    };
    let here = (option::weighted(0.8, Just(THIS_ZONE)), role(), ranges());
    (here, role(), ranges()).prop_map(|((zone, role, ranges), role_there, ranges_there)| {
        let here = Node {
            name: THIS_NODE.into(),
            zone: zone.map(Into::into),
            labels: labels_of("role", role),
            pod_ranges: ranges,
            ..Node::default()
        };
        let there = Node {
            name: OTHER_NODE.into(),
            addresses: vec![ip("192.168.0.2")],
            labels: labels_of("role", role_there),
            pod_ranges: ranges_there,
            ..Node::default()
        };
        vec![Object::Node(there), Object::Node(here)]
    })
}

/// One label, or none.
pub fn labels_of(key: &str, value: Option<&str>) -> Labels {
    value
        .map(|value| (key.into(), value.into()))
        .into_iter()
        .collect()
}

/// The first object of each key.
fn distinct(objects: Vec<Object>) -> Vec<Object> {
    let mut seen = BTreeSet::new();
    let mut objects = objects;
    objects.retain(|object| object.key().is_some_and(|key| seen.insert(key)));
    objects
}

/// The snapshot that holds these objects.
pub fn snapshot(objects: &[Object]) -> Snapshot {
    let mut snapshot = Snapshot::new(node(), []);
    for object in objects {
        snapshot.apply(Event::Apply(object.clone()));
    }
    snapshot
}

fn namespace_labels() -> impl Strategy<Value = Option<Labels>> {
    option::weighted(
        0.8,
        option::of(select(vec!["x", "y"])).prop_map(|team| {
            team.map(|team| ("team".into(), team.into()))
                .into_iter()
                .collect()
        }),
    )
}

/// A namespace: the first is the likeliest.
pub fn namespace() -> impl Strategy<Value = &'static str> {
    select(vec!["a", "a", "b", "c"])
}

fn pod() -> impl Strategy<Value = Option<(Pod, bool)>> {
    let conditions = (
        any::<bool>(),
        prop::bool::weighted(0.1),
        prop::bool::weighted(0.1),
        prop::bool::weighted(0.1),
    );
    let web = option::of(select(vec![80u16, 8080]));
    let dns = option::of(select(vec![53u16, 8080]));
    // A pod that ends may have an address that another pod has already.
    let reuses = prop::bool::weighted(0.3);
    let strategy = (
        namespace(),
        pod_labels(),
        conditions,
        web,
        dns,
        prop::bool::weighted(0.7),
        reuses,
    );
    option::weighted(
        0.9,
        strategy.prop_map(
            |(namespace, labels, (ready, terminal, terminating, host), web, dns, here, reuses)| {
                let web = web.map(|port| ContainerPort {
                    name: "web".into(),
                    protocol: Protocol::Tcp,
                    port,
                });
                let dns = dns.map(|port| ContainerPort {
                    name: "dns".into(),
                    protocol: Protocol::Udp,
                    port,
                });
                let pod = Pod {
                    labels,
                    ready,
                    terminal,
                    terminating,
                    host_network: host,
                    node: Some(if here { THIS_NODE } else { OTHER_NODE }.into()),
                    ports: web.into_iter().chain(dns).collect(),
                    ..Pod::new(ObjectKey::new(namespace, "p"))
                };
                let ends = pod.terminal || pod.terminating;
                (pod, reuses && ends)
            },
        ),
    )
}

fn pod_labels() -> impl Strategy<Value = Labels> {
    let app = option::weighted(0.9, select(vec!["web", "api", "db"]));
    let tier = option::of(select(vec!["1", "2"]));
    (app, tier).prop_map(|(app, tier)| {
        let app = app.map(|value| ("app".into(), value.into()));
        app.into_iter()
            .chain(tier.map(|value| ("tier".into(), value.into())))
            .collect()
    })
}

/// The pod at a place of the cluster, and its device if it is on this node.
fn place_pod(index: usize, pod: Option<(Pod, bool)>) -> Vec<Object> {
    let Some((pod, reuses)) = pod else {
        return Vec::new();
    };
    let own = pod_ips(if reuses { (index + 1) % PODS } else { index });
    let host = vec![if pod.node.as_deref() == Some(THIS_NODE) {
        ip("192.168.0.1")
    } else {
        ip("192.168.0.2")
    }];
    let key = ObjectKey::new(pod.key.namespace.clone(), format!("p{index}"));
    let device = Interface {
        // Four places: some devices share one.
        ifindex: 10 + index as u32 * 2,
        addresses: own.clone(),
        mac: [2, 0, 0, 0, 0, index as u8],
        host_mac: [2, 0, 0, 0, 1, index as u8],
        redirect_ok: true,
        ..Interface::default()
    };
    let is_here = pod.node.as_deref() == Some(THIS_NODE);
    let has_device = is_here && !pod.host_network && !pod.terminal && !reuses;
    let pod = Pod {
        key,
        ips: if pod.host_network { host } else { own },
        ..pod
    };
    let device = has_device.then_some(Object::Interface(device));
    std::iter::once(Object::Pod(pod)).chain(device).collect()
}

/// Selectors of pods.
pub fn selector() -> impl Strategy<Value = Selector> {
    let values = |all: Vec<&'static str>| {
        btree_set(select(all), 1..3).prop_map(|set| set.into_iter().map(Text::from).collect())
    };
    let operator = prop_oneof![
        values(vec!["web", "api", "1"]).prop_map(Operator::In),
        values(vec!["web", "db", "2"]).prop_map(Operator::NotIn),
        Just(Operator::Exists),
        Just(Operator::DoesNotExist),
    ];
    let requirement = (select(vec!["app", "tier", "none"]), operator);
    let requirements = vec(
        requirement.prop_map(|(key, operator)| Requirement {
            key: key.into(),
            operator,
        }),
        0..2,
    );
    let exact = option::of(select(vec!["web", "api", "db"]));
    (exact, requirements).prop_map(|(app, requirements)| {
        let exact: Labels = app
            .map(|app| ("app".into(), app.into()))
            .into_iter()
            .collect();
        Selector::new(&exact, requirements)
    })
}

/// Selectors of namespaces.
pub fn namespace_selector() -> impl Strategy<Value = Selector> {
    let by = |key: &'static str, value: &'static str| {
        Selector::from(&Labels::from([(key.into(), value.into())]))
    };
    let lacks = Requirement {
        key: "team".into(),
        operator: Operator::DoesNotExist,
    };
    prop_oneof![
        Just(Selector::everything()),
        Just(by("team", "x")),
        Just(by("kubernetes.io/metadata.name", "b")),
        Just(Selector::new(&Labels::new(), [lacks])),
    ]
}

/// Mostly in force.
pub fn mode() -> impl Strategy<Value = PolicyMode> {
    prop_oneof![4 => Just(PolicyMode::Enforce), 1 => Just(PolicyMode::Audit)]
}

fn policy() -> impl Strategy<Value = NetworkPolicy> {
    let rules = || option::weighted(0.6, vec(rule(), 0..3));
    let modes = prop_oneof![3 => Just(None), 1 => mode().prop_map(Some)];
    (namespace(), selector(), modes, rules(), rules()).prop_map(
        |(namespace, pods, mode, ingress, egress)| NetworkPolicy {
            key: ObjectKey::new(namespace, "np"),
            pods,
            mode,
            ingress,
            egress,
        },
    )
}

fn rule() -> impl Strategy<Value = Rule> {
    let peers = prop_oneof![1 => Just(Peers::Any), 4 => vec(peer(), 0..3).prop_map(Peers::Only)];
    (peers, ports()).prop_map(|(peers, ports)| Rule { peers, ports })
}

/// Ports of a rule.
pub fn ports() -> impl Strategy<Value = Ports> {
    prop_oneof![1 => Just(Ports::Any), 3 => vec(port_match(), 0..3).prop_map(Ports::Only)]
}

/// A peer of a rule.
pub fn peer() -> impl Strategy<Value = Peer> {
    let scope = prop_oneof![
        Just(NamespaceScope::Own),
        namespace_selector().prop_map(NamespaceScope::Matching),
    ];
    let pods = (scope, selector()).prop_map(|(namespaces, pods)| Peer::Pods { namespaces, pods });
    let block = select(vec![
        ("0.0.0.0/0", vec!["10.0.0.0/8", "10.0.1.0/24"]),
        (
            "10.0.0.0/8",
            vec!["10.0.1.0/24", "10.0.1.4/32", "10.0.2.0/24"],
        ),
        ("10.0.1.0/24", vec!["10.0.1.4/32", "10.0.1.0/25"]),
        ("10.0.1.4/32", vec![]),
        ("203.0.113.0/24", vec!["203.0.113.0/25"]),
        ("::/0", vec!["fd00::/16", "2001:db8::/32"]),
        ("fd00::/16", vec!["fd00:0:0:1::/64"]),
        ("fd00:0:0:1::/64", vec!["fd00:0:0:1::4/128"]),
    ]);
    let block = block.prop_flat_map(|(cidr, inner)| {
        let most = inner.len();
        let except = prop::sample::subsequence(inner, 0..=most);
        except.prop_map(move |except| Peer::Block {
            cidr: net(cidr),
            except: except.into_iter().map(net).collect(),
        })
    });
    prop_oneof![pods, block]
}

/// The prefix that a text states.
pub fn net(text: &str) -> IpNet {
    text.parse().expect("a prefix")
}

fn port_match() -> impl Strategy<Value = PortMatch> {
    let protocol = select(vec![
        Protocol::Tcp,
        Protocol::Tcp,
        Protocol::Udp,
        Protocol::Sctp,
    ]);
    let range = prop_oneof![
        1 => Just(PortRange::All),
        3 => select(vec![53u16, 80, 8080]).prop_map(|port| PortRange::Numbers(port, port)),
        2 => select(vec![(80u16, 443u16), (0, 53), (8080, 65535), (81, 80)]).prop_map(|(a, b)| PortRange::Numbers(a, b)),
        3 => select(vec!["web", "dns"]).prop_map(|name| PortRange::Named(name.into())),
    ];
    (protocol, range).prop_map(|(protocol, range)| PortMatch { protocol, range })
}
