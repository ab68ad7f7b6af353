//! What devices may be asked to do for the kernel (checksums, cutting packets up, putting them
//! together) changes no octet of what Services carry.

use std::net::SocketAddr;

use sluice_lab::netns::Netns;

use crate::bulk::{self, Datagrams, NODE_PORTS, PORT};
use crate::world::{Client, World, at, vip};

/// Features of devices, as `ethtool -K` takes them.
#[derive(Clone, Copy, Default, Debug)]
struct Features {
    /// Of pods' devices.
    pods: &'static str,
    /// Of the devices of the nodes that pods are joined by.
    hosts: &'static str,
    /// Of nodes' uplinks, and of that of the client outside.
    uplinks: &'static str,
    /// Of the devices that uplinks are joined by to the switch.
    ports: &'static str,
}

/// Checksums are made by the kernel, and with them segments.
const PLAIN: &str = "tx off sg off gso off gro off";
/// Checksums are left to devices; nothing is cut up or put together.
const UNCUT: &str = "tx on sg on tso off gso off gro off";
/// Segments are cut up by the kernel, and put together again.
const JOINED: &str = "tx on sg on tso off gso on gro on";
/// Everything is left to devices.
const ALL: &str = "tx on sg on tso on gso on gro on";
/// The same, and they may put together whole datagrams.
const LISTS: &str = "tx on sg on tso on gso on gro on rx-gro-list on rx-udp-gro-forwarding on";

impl Features {
    /// The same everywhere.
    fn all(features: &'static str) -> Features {
        Features {
            pods: features,
            hosts: features,
            uplinks: features,
            ports: features,
        }
    }

    fn apply(&self, world: &World) {
        let cluster = world.plane.cluster();
        for name in ["client-1", "near", "far"] {
            let pod = world.plane.pod(name);
            set(pod.netns(), "eth0", self.pods);
            set(pod.node().netns(), pod.host_if(), self.hosts);
        }
        for node in cluster.nodes() {
            set(node.netns(), "eth0", self.uplinks);
            set(cluster.underlay(), &node.name(), self.ports);
        }
        set(cluster.outside(), "eth0", self.uplinks);
        set(cluster.underlay(), "outside", self.ports);
    }
}

fn set(netns: &Netns, device: &str, features: &str) {
    let words = ["-K", device].into_iter().chain(features.split(' '));
    let words: Vec<&str> = words.collect();
    netns.command("ethtool", &words).unwrap();
}

/// Where data goes to: a pod of the client's node and one of the other, by a Service's address and,
/// from outside, by a node port.
fn ways(world: &World) -> Vec<(Client, [SocketAddr; 2])> {
    let (client, outside) = (world.client(1), world.outside());
    vec![
        (client.clone(), at(vip(1), PORT)),
        (client, at(vip(2), PORT)),
        (outside.clone(), world.node_at(1, NODE_PORTS + 1)),
        (outside, world.node_at(1, NODE_PORTS + 2)),
    ]
}

/// Everything by every way, with each of the sets of features.
fn assert_intact(world: &World, features: &[Features], kinds: &[Datagrams]) {
    for features in features {
        features.apply(world);
        for (client, ends) in ways(world) {
            let client = Client {
                name: format!("{features:?}: {}", client.name),
                ..client
            };
            for to in ends {
                bulk::transfer(&client, to);
                for &kind in kinds {
                    bulk::transfer_datagrams(&client, to, kind);
                }
            }
        }
    }
}

#[test]
fn data_is_intact_with_every_mix_of_offloads() {
    let world = bulk::world(&[]);
    let features = [
        Features::all(ALL),
        Features::all(PLAIN),
        Features::all(UNCUT),
        Features::all(JOINED),
        Features::all(LISTS),
        Features {
            pods: PLAIN,
            ..Features::all(ALL)
        },
        Features {
            hosts: PLAIN,
            uplinks: UNCUT,
            ..Features::all(ALL)
        },
        Features {
            uplinks: PLAIN,
            ports: JOINED,
            ..Features::all(ALL)
        },
    ];
    let kinds = [Datagrams::Segmented, Datagrams::Fragmented];
    assert_intact(&world, &features, &kinds);
}

/// What reaches an XDP program on a veth must have its checksums: its senders make them, as senders
/// behind a wire do.
#[test]
fn data_is_intact_through_xdp() {
    let world = bulk::world(&["--xdp", "generic"]);
    let senders = Features {
        pods: PLAIN,
        uplinks: PLAIN,
        ..Features::all(ALL)
    };
    let features = [
        Features::all(PLAIN),
        senders,
        Features {
            ports: JOINED,
            ..senders
        },
    ];
    let kinds = [
        Datagrams::Single,
        Datagrams::Segmented,
        Datagrams::Fragmented,
    ];
    assert_intact(&world, &features, &kinds);
    let status = world.plane.agents[0].status().unwrap();
    let relayed = &status["attachments"]["xdpFrames"];
    assert!(relayed.as_u64().unwrap() > 1_000, "{relayed} relayed");
}
