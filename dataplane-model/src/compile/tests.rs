mod external;
mod policy;
mod services;
mod tiers;

use std::net::IpAddr;

use super::*;
use crate::capacity::Capacities;
use crate::snapshot::*;
use crate::tables::MapId;

/// A snapshot of node `here` with these objects.
fn snapshot(objects: impl IntoIterator<Item = Object>) -> Snapshot {
    let node = NodeConfig {
        name: "here".into(),
        addresses: vec![ip("192.168.0.1")],
        ..NodeConfig::default()
    };
    let mut snapshot = Snapshot::new(node, []);
    objects
        .into_iter()
        .for_each(|object| assert!(snapshot.apply(Event::Apply(object))));
    snapshot
}

fn compiled(objects: impl IntoIterator<Item = Object>) -> Desired {
    compile(&snapshot(objects), &mut IdTable::default()).unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn labels(text: &str) -> Labels {
    let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
    pairs
        .map(|(key, value)| (key.into(), value.into()))
        .collect()
}

/// A ready pod `shop/<name>` on a node.
fn pod(name: &str, address: &str, node: &str, of: &str) -> Pod {
    let web = ContainerPort {
        name: "web".into(),
        protocol: Protocol::Tcp,
        port: 8080,
    };
    Pod {
        labels: labels(of),
        ips: vec![ip(address)],
        node: Some(node.into()),
        ports: vec![web],
        ..Pod::new(ObjectKey::new("shop", name))
    }
}

fn device(ifindex: u32, address: &str) -> Object {
    Object::Interface(Interface {
        ifindex,
        addresses: vec![ip(address)],
        redirect_ok: true,
        ..Interface::default()
    })
}

#[test]
fn a_full_map_is_named_with_need_and_capacity() {
    let capacities = Capacities {
        backends: 3,
        ..Capacities::default()
    };
    let pods = (1..=3).map(|n| {
        Object::Pod(pod(
            &format!("p{n}"),
            &format!("10.0.0.{n}"),
            "here",
            "app=web",
        ))
    });
    let objects = pods.chain([Object::Service(services::service("web", "10.96.0.1"))]);
    let errors = compile(&snapshot(objects), &mut IdTable::new(capacities)).unwrap_err();
    assert_eq!(
        errors,
        [CapacityError::Map {
            map: MapId::Backends4,
            need: 4,
            capacity: 3
        }]
    );
    assert_eq!(
        errors[0].to_string(),
        "map backends4 needs 4 entries and has room for 3: raise its capacity or remove objects"
    );
}
