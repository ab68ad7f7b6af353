//! XDP on the nodes' uplinks, by the driver.
//!
//! A veth hands over what its peer's namespace sent as it is: with the checksum yet to be made, if
//! the sender leaves that to a device. So the senders make their own here. And veth sends a frame
//! back only to a peer that runs XDP too.

use aya::programs::{Xdp, XdpMode};
use aya::{Ebpf, EbpfLoader};
use dataplane_common::abi::name;
use sluice::bpf;
use sluice_lab::workload::client;
use sluice_lab::workload::udp::UdpClient;

use crate::nodeport::{PORT, UDP_PORT, service};
use crate::world::{PATIENCE, REQUEST, World, same_family};
use sluice_lab::netns::Netns;
use sluice_lab::wait;

fn set(netns: &Netns, device: &str, feature: &str, value: &str) {
    netns
        .command("ethtool", &["-K", device, feature, value])
        .unwrap();
}

/// Has a device run the early program with empty maps: it lets everything pass.
fn run_idle_program(netns: &Netns, device: &str) -> Ebpf {
    let mut loader = EbpfLoader::new();
    for pair in [
        name::CONNTRACK,
        name::SERVICES,
        name::BACKENDS,
        name::AFFINITY,
    ] {
        for map in pair {
            loader.map_max_entries(map, 16);
        }
    }
    let mut ebpf = loader.load(bpf::object().unwrap()).unwrap();
    let program: &mut Xdp = ebpf.program_mut(bpf::EARLY).unwrap().try_into().unwrap();
    program.load().unwrap();
    netns.run(|| program.attach(device, XdpMode::Driver).unwrap());
    ebpf
}

/// The world, and what is to outlive it.
fn world(mode: &str) -> (World, Vec<Ebpf>) {
    let mut world = World::with_args(&["--xdp", mode]);
    world.pod("web-2", 2, &[("app", "web")]);
    let cluster = world.plane.cluster();
    let idle = [1, 2].map(|node| run_idle_program(cluster.underlay(), &format!("node-{node}")));
    set(cluster.outside(), "eth0", "tx", "off");
    set(world.plane.pod("web-2").netns(), "eth0", "tx", "off");
    world.apply(&service("web"));
    (world, idle.into())
}

/// Frames that node 1 has relayed, and how.
fn relayed(world: &World) -> (u64, String) {
    let status = world.plane.agents[0].status().unwrap();
    let attached = &status["attachments"];
    let mode = attached["xdp"]["eth0"].as_str().unwrap_or_default();
    (attached["xdpFrames"].as_u64().unwrap(), mode.to_owned())
}

fn a_backend_of_another_node_is_served(mode: &str) {
    let (world, _idle) = world(mode);
    let outside = world.outside();
    assert_eq!(relayed(&world).1, mode);
    for to in world.node_at(1, PORT) {
        outside.eventually_gets(to);
        let (before, _) = relayed(&world);
        let tally = outside.load([to], 200);
        assert_eq!(
            (tally.answered(), tally.failures()),
            (200, 0),
            "{to}: {}",
            tally.failure_kinds()
        );
        let answer = outside.get(to).unwrap();
        assert_eq!(answer.name, "web-2");
        assert_eq!(answer.peer.ip(), same_family(world.host(1).addrs, to.ip()));
        // A connection has at least five frames each way, one of which may wait for a neighbour.
        let (after, _) = relayed(&world);
        assert!(after - before > 1_900, "{to}: {} frames", after - before);
        outside
            .netns
            .run(|| client::get(to, "/pad/3000000", REQUEST))
            .unwrap_or_else(|error| panic!("{to}: {error}"));
    }
    for to in world.node_at(1, UDP_PORT) {
        let (before, _) = relayed(&world);
        for _ in 0..20 {
            let asked = outside
                .netns
                .run(|| UdpClient::open(to, false)?.ask(REQUEST));
            assert_eq!(asked.unwrap().name, "web-2", "{to}");
        }
        let (after, _) = relayed(&world);
        assert!(after - before >= 38, "{to}: {} frames", after - before);
    }
}

#[test]
fn a_backend_of_another_node_is_served_by_the_driver() {
    a_backend_of_another_node_is_served("native");
}

#[test]
fn a_backend_of_another_node_is_served_by_the_kernel_in_the_drivers_place() {
    a_backend_of_another_node_is_served("generic");
}

#[test]
fn a_veth_runs_no_xdp_of_itself_and_cleanup_takes_it_off() {
    let mut world = World::with_args(&["--xdp", "native"]);
    assert_eq!(relayed(&world).1, "native");
    let has_xdp = |world: &World| {
        let node = world.plane.cluster().node(1).netns();
        let text = node.command("ip", &["link", "show", "eth0"]).unwrap();
        text.contains("xdp")
    };
    assert!(has_xdp(&world));
    let agent = &mut world.plane.agents[0];
    agent.terminate().unwrap();
    assert!(has_xdp(&world), "it goes on without the agent");
    world.plane.agents[0].cleanup().unwrap();
    wait::until_true(PATIENCE, "the program to go", || !has_xdp(&world)).unwrap();
    let world = World::new();
    assert!(!has_xdp(&world));
    assert_eq!(relayed(&world).1, "off");
}
