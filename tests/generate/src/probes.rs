//! Which packets to try on a cluster.

use std::net::IpAddr;

use dataplane_model::snapshot::{Protocol, Snapshot};

use crate::cluster::{PORTS, outside};

/// Every pair of addresses of one family, of which at least one is a pod's.
pub fn pairs(snapshot: &Snapshot) -> Vec<(IpAddr, IpAddr)> {
    let mut pods: Vec<IpAddr> = snapshot
        .pods
        .values()
        .flat_map(|pod| pod.ips.iter().copied())
        .collect();
    pods.sort_unstable();
    pods.dedup();
    let others = outside();
    let all: Vec<_> = pods.iter().chain(&others).copied().collect();
    let inbound = all
        .iter()
        .flat_map(|&src| pods.iter().map(move |&dst| (src, dst)));
    let outbound = pods
        .iter()
        .flat_map(|&src| others.iter().map(move |&dst| (src, dst)));
    inbound
        .chain(outbound)
        .filter(|(src, dst)| src.is_ipv4() == dst.is_ipv4())
        .collect()
}

/// Protocols and ports that packets are tried with.
pub fn services() -> Vec<(Option<Protocol>, u16)> {
    let with_ports = Protocol::ALL
        .into_iter()
        .flat_map(|protocol| PORTS.map(|port| (Some(protocol), port)));
    with_ports.chain([(None, 0)]).collect()
}

/// True if the address belongs to a pod whose device is on this node: only its ends are judged here.
pub fn is_here(snapshot: &Snapshot, address: IpAddr) -> bool {
    snapshot
        .interfaces
        .values()
        .any(|device| device.addresses.contains(&address))
}
