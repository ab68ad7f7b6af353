//! The machines and the network between them.
//!
//! A cluster's network lies wholly inside its namespaces, so all clusters use the same addresses.

use std::process::Command;

use anyhow::Result;

use super::{machine::Machine, state::State};
use crate::process;

/// Name of the control plane's machine.
pub const CONTROL_PLANE: &str = "cp";
/// Name of the machine outside the cluster.
pub const OUTSIDE: &str = "ext";
/// Addresses of the API server and of DNS's backend.
pub const API: [&str; 2] = ["172.30.0.1", "fd30::1"];
/// Blocks of ClusterIPs.
pub const SERVICES: [&str; 2] = ["10.96.0.0/16", "fd96::/112"];
/// The ClusterIPs of DNS.
pub const DNS: [&str; 2] = ["10.96.0.10", "fd96::a"];
/// Blocks of all pods.
pub const PODS: [&str; 2] = ["10.244.0.0/16", "fd44::/16"];

/// Addresses of a machine on the network between machines.
pub fn addresses(number: u8) -> [String; 2] {
    [format!("172.30.0.{number}"), format!("fd30::{number}")]
}

/// The last part of a node's addresses.
pub fn place(node: u8) -> u8 {
    10 + node
}

/// Blocks of a node's pods.
pub fn pods(node: u8) -> [String; 2] {
    [format!("10.244.{node}.0/24"), format!("fd44:{node}::/64")]
}

/// Name of a node and its machine.
pub fn node_name(node: u8) -> String {
    format!("n{node}")
}

/// Makes namespaces, links, addresses and routes, and starts the machines.
pub fn make(state: &mut State) -> Result<()> {
    let hub = namespace(state, CONTROL_PLANE)?;
    on(&hub, "link add br0 type bridge")?;
    for address in with_lengths(&API.map(String::from)) {
        on(&hub, &format!("addr add {address} dev br0 nodad"))?;
    }
    on(&hub, "link set br0 up")?;
    host(state, &hub, OUTSIDE, 200)?;
    for node in state.nodes() {
        host(state, &hub, &node_name(node), place(node))?;
    }
    routes_to_pods(state, &hub)?;
    for machine in [CONTROL_PLANE.to_owned(), OUTSIDE.to_owned()]
        .into_iter()
        .chain(state.nodes().map(node_name))
    {
        let netns = netns(state, &machine);
        state
            .machines
            .push(Machine::start(&machine, &netns, &state.log(&machine))?);
        state.save()?;
    }
    for node in state.nodes() {
        forwarding(state.machine(&node_name(node))?)?;
    }
    Ok(())
}

/// Name of a machine's network namespace.
fn netns(state: &State, machine: &str) -> String {
    format!("kc-{}-{machine}", state.name)
}

fn namespace(state: &mut State, machine: &str) -> Result<String> {
    let name = netns(state, machine);
    state.namespaces.push(name.clone());
    state.save()?;
    ip(&["netns", "add", &name])?;
    on(&name, "link set lo up")?;
    Ok(name)
}

/// A namespace with an uplink to the bridge.
fn host(state: &mut State, hub: &str, machine: &str, number: u8) -> Result<()> {
    let name = namespace(state, machine)?;
    on(
        hub,
        &format!("link add v-{machine} type veth peer name eth0 netns {name}"),
    )?;
    on(hub, &format!("link set v-{machine} master br0 up"))?;
    for address in with_lengths(&addresses(number)) {
        on(&name, &format!("addr add {address} dev eth0 nodad"))?;
    }
    on(&name, "link set eth0 up")?;
    for gateway in API {
        on(&name, &format!("route add default via {gateway}"))?;
    }
    Ok(())
}

fn routes_to_pods(state: &State, hub: &str) -> Result<()> {
    for node in state.nodes() {
        let others = state.nodes().filter(|other| *other != node);
        let machines = others.map(|other| netns(state, &node_name(other)));
        for name in machines.chain([hub.to_owned()]) {
            for (block, gateway) in pods(node).iter().zip(addresses(place(node))) {
                on(&name, &format!("route add {block} via {gateway}"))?;
            }
        }
    }
    Ok(())
}

fn forwarding(machine: &Machine) -> Result<()> {
    process::output(machine.command("sysctl").args([
        "--quiet",
        "--write",
        "net.ipv4.ip_forward=1",
        "net.ipv6.conf.all.forwarding=1",
        "net.ipv4.conf.all.rp_filter=0",
        // Else a gateway does not answer its pod's first packets: the kernel still looks for another one with its address.
        "net.ipv6.conf.default.accept_dad=0",
    ]))?;
    // Only where the kernel has the module: then kube-proxy wants what crosses a bridge too.
    const BRIDGES: &str = "/proc/sys/net/bridge/bridge-nf-call-iptables";
    if std::path::Path::new(BRIDGES).exists() {
        process::output(machine.command("sysctl").args([
            "--quiet",
            "--write",
            "net.bridge.bridge-nf-call-iptables=1",
            "net.bridge.bridge-nf-call-ip6tables=1",
        ]))?;
    }
    Ok(())
}

fn with_lengths(addresses: &[String; 2]) -> [String; 2] {
    [
        format!("{}/24", addresses[0]),
        format!("{}/64", addresses[1]),
    ]
}

fn on(namespace: &str, words: &str) -> Result<()> {
    let mut all = vec!["-n", namespace];
    all.extend(words.split(' '));
    ip(&all)
}

fn ip(words: &[&str]) -> Result<()> {
    process::output(Command::new("ip").args(words)).map(|_| ())
}
