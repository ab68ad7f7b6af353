//! Prints how long it takes from objects to maps at a size, how long one change takes, and how much
//! memory the state needs.
//!
//! `cargo run --release -p dataplane-model --example compile_time -- [SERVICES] [ENDPOINTS EACH]
//! [POLICIES] [PODS] [OF THEM ON THIS NODE]`

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use dataplane_model::capacity::Capacities;
use dataplane_model::ids::IdTable;
use dataplane_model::reconcile::Reconciler;
use dataplane_model::snapshot::*;
use dataplane_model::store::NoMaps;
use dataplane_model::tables::MapId;

const NAMESPACES: usize = 20;
/// Changes that a time is taken of.
const CHANGES: usize = 1_000;

fn main() {
    let sizes: Vec<usize> = std::env::args()
        .skip(1)
        .filter_map(|text| text.parse().ok())
        .collect();
    let size = |place: usize, usual: usize| sizes.get(place).copied().unwrap_or(usual);
    let (services, endpoints) = (size(0, 10_000), size(1, 10));
    let (policies, pods) = (size(2, 0), size(3, 0));
    let here = size(4, pods);
    println!(
        "{services} Services of {endpoints} endpoints, {policies} policies, {pods} pods, {here} of them here"
    );

    let before = resident();
    let mut snapshot = cluster(services, endpoints, policies);
    add_pods(&mut snapshot, pods, here);
    println!("snapshot               {:>9} KiB", resident() - before);
    let mut state = Reconciler::new(snapshot, IdTable::new(capacities(services * endpoints)));
    let start = Instant::now();
    let outcome = state.reconcile(&mut NoMaps);
    let took = millis(start.elapsed());
    assert!(outcome.errors.is_empty() && outcome.refused.is_none());
    println!(
        "first                  {took:>9} ms  {} operations",
        outcome.operations
    );
    println!("state and snapshot     {:>9} KiB", resident() - before);

    if services > 0 {
        time("one endpoint changed", CHANGES, &mut state, |round| {
            let slice = slice(round % services, endpoints, 1 + round / services);
            vec![Object::Slice(slice)]
        });
    }
    if policies > 0 {
        policy_changes(&mut state, pods);
    }
    for map in MapId::ALL {
        println!("{:16} {}", map.name(), state.used(map));
    }
}

/// Times single changes of what policy depends on.
fn policy_changes(state: &mut Reconciler, pods: usize) {
    let count = CHANGES / 10;
    time("one policy changed", count, state, |round| {
        vec![Object::Policy(policy(0, 9090 + (round % 2) as u16))]
    });
    let [denies, allows] = turns(count, state);
    print("a policy allows nobody", denies);
    print("a policy allows pods", allows);
    time("labels of a namespace", count, state, |round| {
        let team = format!("team{}", round % 2);
        vec![Object::Namespace(Namespace {
            name: namespace(0).into(),
            labels: [("team".into(), team.into())].into(),
            ..Namespace::default()
        })]
    });
    if pods == 0 {
        return;
    }
    time("labels of a pod", count, state, |round| {
        let labels = app(round + 1);
        vec![Object::Pod(Pod { labels, ..pod(0) })]
    });
    time("a new pod elsewhere", count, state, |round| {
        let node = Some("node1".into());
        let pod = pod(pods + round);
        vec![Object::Pod(Pod { node, ..pod })]
    });
    time("a new pod here", count, state, |round| {
        let index = pods + count + round;
        vec![Object::Interface(device(index)), Object::Pod(pod(index))]
    });
}

/// Times one policy whose peers are nobody and somebody in turns, apart.
fn turns(count: usize, state: &mut Reconciler) -> [Vec<Duration>; 2] {
    let mut times = [Vec::new(), Vec::new()];
    let peers = [Labels::from([("app".into(), "nobody".into())]), app(10)];
    for round in 0..2 * count {
        let peer = Peer::Pods {
            namespaces: NamespaceScope::Own,
            pods: Selector::from(&peers[round % 2]),
        };
        let rule = Rule {
            peers: Peers::Only(vec![peer]),
            ports: Ports::Any,
        };
        let policy = NetworkPolicy {
            ingress: Some(vec![rule]),
            ..policy(0, 8080)
        };
        times[round % 2].push(took(state, vec![Object::Policy(policy)]));
    }
    times
}

/// Times rounds that each begin with some changes.
fn time(
    what: &str,
    count: usize,
    state: &mut Reconciler,
    mut changes: impl FnMut(usize) -> Vec<Object>,
) {
    let times = (0..count).map(|round| took(state, changes(round)));
    print(what, times.collect());
}

/// How long a round takes that begins with these changes.
fn took(state: &mut Reconciler, changes: Vec<Object>) -> Duration {
    let start = Instant::now();
    for change in changes {
        state.fold(Event::Apply(change));
    }
    let outcome = state.reconcile(&mut NoMaps);
    let took = start.elapsed();
    assert!(outcome.errors.is_empty() && outcome.refused.is_none());
    took
}

fn print(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |percent: usize| millis(times[(times.len() - 1) * percent / 100]);
    println!("{what:22} {:>9} ms p50  {} ms p99", at(50), at(99));
}

fn device(index: usize) -> Interface {
    Interface {
        ifindex: index as u32 + 10,
        addresses: vec![pod_ip(index)],
        ..Interface::default()
    }
}

/// Room for this many endpoints, old and new.
fn capacities(endpoints: usize) -> Capacities {
    let room = (endpoints as u32 * 2).max(1 << 19);
    Capacities {
        services: room,
        slots: room,
        backends: room,
        ..Capacities::default()
    }
}

/// Resident memory in KiB.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|text| text.parse().ok());
    pages.unwrap_or(0u64) * 4
}

fn millis(time: Duration) -> String {
    format!("{:.3}", time.as_secs_f64() * 1e3)
}

fn cluster(services: usize, endpoints: usize, policies: usize) -> Snapshot {
    let node = NodeConfig {
        name: "node0".into(),
        addresses: vec![Ipv4Addr::new(192, 168, 0, 1).into()],
        ..NodeConfig::default()
    };
    let mut snapshot = Snapshot::new(node, []);
    let mut add = |object| snapshot.apply(Event::Apply(object));
    for index in 0..NAMESPACES {
        add(Object::Namespace(Namespace {
            name: namespace(index).into(),
            labels: Labels::new(),
            mode: PolicyMode::Enforce,
            ending: false,
        }));
    }
    (0..services).for_each(|index| {
        add(Object::Service(service(index)));
        add(Object::Slice(slice(index, endpoints, 0)));
    });
    (0..policies).for_each(|index| {
        add(Object::Policy(policy(index, 8080)));
    });
    snapshot
}

/// Adds pods, the first `here` on this node.
fn add_pods(snapshot: &mut Snapshot, pods: usize, here: usize) {
    let mut add = |object| snapshot.apply(Event::Apply(object));
    for index in 0..here.min(pods) {
        add(Object::Pod(pod(index)));
        add(Object::Interface(device(index)));
    }
    for index in here..pods {
        let node = Some("node1".into());
        add(Object::Pod(Pod { node, ..pod(index) }));
    }
}

fn namespace(index: usize) -> String {
    format!("ns{}", index % NAMESPACES)
}

fn address(first: u8, index: usize) -> IpAddr {
    let [_, b, c, d] = (index as u32 + 1).to_be_bytes();
    Ipv4Addr::new(first, b, c, d).into()
}

fn pod_ip(index: usize) -> IpAddr {
    address(10, index)
}

fn app(index: usize) -> Labels {
    [("app".into(), format!("app{}", index % 50).into())].into()
}

fn pod(index: usize) -> Pod {
    let ports = vec![ContainerPort {
        name: "web".into(),
        protocol: Protocol::Tcp,
        port: 8080,
    }];
    let mut labels = app(index);
    labels.insert("pod-template-hash".into(), format!("{}", index / 3).into());
    Pod {
        labels,
        ips: vec![pod_ip(index)],
        node: Some("node0".into()),
        ports,
        ..Pod::new(ObjectKey::new(namespace(index), format!("pod{index}")))
    }
}

fn service(index: usize) -> Service {
    let port = ServicePort {
        name: "".into(),
        protocol: Protocol::Tcp,
        port: 80,
        target: TargetPort::Number(8080),
        node_port: None,
    };
    Service {
        cluster_ips: vec![address(172, index)],
        ports: vec![port],
        ..Service::new(ObjectKey::new(namespace(index), format!("svc{index}")))
    }
}

/// A Service's slice; the first endpoint is another in each round.
fn slice(index: usize, count: usize, round: usize) -> EndpointSlice {
    let place = std::sync::Arc::new(Place::on("node0"));
    let endpoint = |at: usize| Endpoint {
        address: match at {
            0 => address(100 + round as u8 % 20, index),
            _ => pod_ip(index * count + at),
        },
        ready: true,
        serving: true,
        terminating: false,
        place: Some(place.clone()),
    };
    EndpointSlice {
        key: ObjectKey::new(namespace(index), format!("svc{index}-x")),
        service: ObjectKey::new(namespace(index), format!("svc{index}")),
        ports: vec![SlicePort {
            name: "".into(),
            protocol: Protocol::Tcp,
            port: 8080,
        }],
        endpoints: (0..count).map(endpoint).collect(),
    }
}

fn policy(index: usize, port: u16) -> NetworkPolicy {
    let number = PortMatch {
        protocol: Protocol::Tcp,
        range: PortRange::Numbers(port, port),
    };
    let named = PortMatch {
        protocol: Protocol::Tcp,
        range: PortRange::Named("web".into()),
    };
    let own = Peer::Pods {
        namespaces: NamespaceScope::Own,
        pods: Selector::from(&app(index / NAMESPACES + 1)),
    };
    let other: Labels = [(
        "kubernetes.io/metadata.name".into(),
        namespace(index + 1).into(),
    )]
    .into();
    let other = Peer::Pods {
        namespaces: NamespaceScope::Matching(Selector::from(&other)),
        pods: Selector::everything(),
    };
    let third = (index % 250) as u8;
    let block = Peer::Block {
        cidr: format!("10.{third}.0.0/16").parse().expect("a prefix"),
        except: vec![format!("10.{third}.1.0/24").parse().expect("a prefix")],
    };
    NetworkPolicy {
        key: ObjectKey::new(namespace(index), format!("policy{index}")),
        pods: Selector::from(&app(index / NAMESPACES)),
        mode: None,
        ingress: Some(vec![
            Rule {
                peers: Peers::Only(vec![own]),
                ports: Ports::Only(vec![number.clone()]),
            },
            Rule {
                peers: Peers::Only(vec![other, block]),
                ports: Ports::Only(vec![named.clone()]),
            },
        ]),
        egress: Some(vec![Rule {
            peers: Peers::Any,
            ports: Ports::Only(vec![number, named]),
        }]),
    }
}
