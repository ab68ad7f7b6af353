//! Prints how long a full compile, a plan and a small change take at a size.
//!
//! `cargo run --release -p dataplane-model --example compile_time -- [SERVICES] [POLICIES] [PODS]`

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dataplane_model::compile::compile;
use dataplane_model::ids::IdTable;
use dataplane_model::plan::Plan;
use dataplane_model::snapshot::*;
use dataplane_model::store::{MemoryStore, Written};
use dataplane_model::tables::MapId;

const NAMESPACES: usize = 20;

fn main() {
    let sizes: Vec<usize> = std::env::args()
        .skip(1)
        .filter_map(|text| text.parse().ok())
        .collect();
    let size = |place: usize, usual: usize| sizes.get(place).copied().unwrap_or(usual);
    let (services, policies, pods) = (size(0, 10_000), size(1, 1_000), size(2, 1_000));
    let mut snapshot = cluster(services, policies, pods);
    println!("{services} Services, {policies} policies, {pods} pods");

    let mut ids = IdTable::default();
    let (mut store, mut written) = (MemoryStore::default(), Written::default());
    for round in [
        "first compile",
        "nothing changed",
        "one endpoint changed",
        "one policy changed",
        "one pod relabelled",
    ] {
        change(&mut snapshot, round);
        let start = Instant::now();
        let desired = compile(&snapshot, &mut ids).expect("it fits");
        let compiled = start.elapsed();
        let plan = Plan::new(&desired, &written, &ids).expect("it fits");
        let planned = start.elapsed() - compiled;
        plan.apply(&mut store, &mut written, &mut ids)
            .expect("memory takes all");
        println!(
            "{round:22} compile {:>8} ms  plan {:>8} ms  {} operations",
            millis(compiled),
            millis(planned),
            plan.len()
        );
    }
    for map in MapId::ALL {
        println!("{:16} {}", map.name(), written.tables.len(map));
    }
}

fn millis(time: Duration) -> String {
    format!("{:.1}", time.as_secs_f64() * 1e3)
}

fn cluster(services: usize, policies: usize, pods: usize) -> Snapshot {
    let node = NodeConfig {
        name: "node0".into(),
        addresses: vec![Ipv4Addr::new(192, 168, 0, 1).into()],
        ..NodeConfig::default()
    };
    let mut snapshot = Snapshot::new(node, []);
    let mut add = |object| snapshot.apply(Event::Apply(object));
    for index in 0..pods {
        add(Object::Pod(pod(index)));
        add(Object::Interface(Interface {
            ifindex: index as u32 + 10,
            addresses: vec![pod_ip(index)],
            ..Interface::default()
        }));
    }
    (0..services).for_each(|index| {
        add(Object::Service(service(index)));
        add(Object::Slice(slice(index, pods)));
    });
    (0..policies).for_each(|index| {
        add(Object::Policy(policy(index, 8080)));
    });
    snapshot
}

fn change(snapshot: &mut Snapshot, round: &str) {
    let object = match round {
        "one endpoint changed" => Object::Slice(EndpointSlice {
            endpoints: slice(9, 100).endpoints,
            ..slice(0, 100)
        }),
        "one policy changed" => Object::Policy(policy(0, 9090)),
        "one pod relabelled" => {
            let pod = pod(0);
            let labels = [("app".into(), "other".into())].into();
            Object::Pod(Pod { labels, ..pod })
        }
        _ => return,
    };
    snapshot.apply(Event::Apply(object));
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

fn slice(index: usize, pods: usize) -> EndpointSlice {
    let pod = (index + 1) % pods.max(1);
    let endpoint = Endpoint {
        address: pod_ip(pod),
        ready: true,
        serving: true,
        terminating: false,
        place: Some(Arc::new(Place::on("node0"))),
    };
    EndpointSlice {
        key: ObjectKey::new(namespace(index), format!("svc{index}-x")),
        service: ObjectKey::new(namespace(index), format!("svc{index}")),
        ports: vec![SlicePort {
            name: "".into(),
            protocol: Protocol::Tcp,
            port: 8080,
        }],
        endpoints: vec![endpoint],
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
