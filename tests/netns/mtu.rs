//! Routes that not every packet fits: bulk transfers through Services learn how much does.

use std::net::IpAddr;

use sluice_lab::netns::Netns;
use sluice_lab::topology::{Dual, Family};

use crate::bulk::{self, NODE_PORTS, PORT, transfer};
use crate::world::{World, at, vip};

/// Octets of a packet, from its network header on, that the narrow routes let through.
const NARROW: u32 = 1_300;

/// TCP of a namespace knows the path of its open connection.
#[track_caller]
fn assert_learned(netns: &Netns, what: &str) {
    let open = ["-Htin", "state", "established"];
    let text = netns.command("ss", &open).unwrap();
    assert!(text.contains(&format!("pmtu:{NARROW}")), "{what}: {text}");
}

/// Where a way is narrow.
#[derive(Clone, Copy, Debug)]
enum At {
    /// At its beginning: the node's own route.
    Node,
    /// Behind it: at a router, which is the switch.
    Router,
}

impl At {
    /// Makes the way from a node to `prefix` narrow. It leads by a gateway, or is of the link.
    fn narrow(self, world: &World, node: u8, prefix: &str, gateway: Option<IpAddr>) {
        let cluster = world.plane.cluster();
        let node = cluster.node(node).netns();
        let by = |link: &str| match gateway {
            Some(gateway) => format!("via {gateway}"),
            None => format!("dev {link}"),
        };
        let narrow = |netns: &Netns, by: String| {
            netns.ip([format!("route replace {prefix} {by} mtu lock {NARROW}")])
        };
        match self {
            At::Node => narrow(node, by("eth0")).unwrap(),
            At::Router => {
                let family = if prefix.contains(':') {
                    Family::V6
                } else {
                    Family::V4
                };
                let switch = cluster.switch_addrs().ip(family);
                // A router that tells of shorter ways would be passed by.
                let quiet = ["all", "br0"].map(|of| format!("net/ipv4/conf/{of}/send_redirects"));
                let quiet = quiet.each_ref().map(|key| (key.as_str(), "0"));
                cluster.underlay().sysctl(&quiet).unwrap();
                narrow(cluster.underlay(), by("br0")).unwrap();
                node.ip([format!("route replace {prefix} via {switch}")])
                    .unwrap();
            }
        }
    }
}

/// The prefixes of single addresses.
fn alone(addrs: Dual) -> [String; 2] {
    [format!("{}/32", addrs.v4), format!("{}/128", addrs.v6)]
}

fn narrow_ways_between_nodes_are_learned_by_both_ends(place: At) {
    let world = bulk::world(&[]);
    for (node, other) in [(1, 2), (2, 1)] {
        let other = world.plane.cluster().node(other);
        let gateways = other.addrs().both();
        for (prefix, gateway) in other.pod_cidrs().iter().zip(gateways) {
            place.narrow(&world, node, prefix, Some(gateway));
        }
        for prefix in alone(other.addrs()) {
            place.narrow(&world, node, &prefix, None);
        }
    }
    let far = world.plane.pod("far").netns();
    for (client, ends) in [
        (world.client(1), at(vip(2), PORT)),
        (world.outside(), world.node_at(1, NODE_PORTS + 2)),
    ] {
        for to in ends {
            let what = format!("{} to {to}, narrow at {place:?}", client.name);
            let _open = transfer(&client, to);
            assert_learned(&client.netns, &what);
            assert_learned(far, &what);
        }
    }
}

#[test]
fn narrow_routes_between_nodes_are_learned_by_both_ends() {
    narrow_ways_between_nodes_are_learned_by_both_ends(At::Node);
}

#[test]
fn narrow_links_between_nodes_are_learned_by_both_ends() {
    narrow_ways_between_nodes_are_learned_by_both_ends(At::Router);
}

fn narrow_ways_to_a_client_outside_are_learned_by_backends(place: At) {
    let world = bulk::world(&[]);
    let outside = world.outside();
    for prefix in alone(outside.addrs) {
        place.narrow(&world, 1, &prefix, None);
    }
    for (app, port) in [("near", NODE_PORTS + 1), ("far", NODE_PORTS + 2)] {
        for to in world.node_at(1, port) {
            let _open = transfer(&outside, to);
            let netns = world.plane.pod(app).netns();
            assert_learned(netns, &format!("{app} by {to}, narrow at {place:?}"));
        }
    }
}

#[test]
fn a_narrow_route_to_a_client_outside_is_learned_by_backends() {
    narrow_ways_to_a_client_outside_are_learned_by_backends(At::Node);
}

#[test]
fn a_narrow_link_to_a_client_outside_is_learned_by_backends() {
    narrow_ways_to_a_client_outside_are_learned_by_backends(At::Router);
}
