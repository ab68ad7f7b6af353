//! Which devices are pods', and which lead out of the node.

use super::{
    ByIndex, NetState,
    state::{Link, LinkKind, is_routable},
};

/// What a device is to the dataplane.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// The host side of a pod's veth.
    Pod,
    /// It leads to other nodes or clients.
    Uplink,
    /// Neither.
    Other,
}

/// Tells every device's role. `uplinks` names the uplinks; empty: they are found.
///
/// A node may itself be a container whose uplink is a veth. So a veth whose other end is in
/// another namespace is a pod's unless it carries an address of a network that more than one
/// host is on, or routes by a gateway lead through it: a pod's has at most a host address (the
/// gateway's, as CNI `ptp` sets it), and routes to the pod itself.
pub fn classify(state: &NetState, uplinks: &[String]) -> ByIndex<Role> {
    let mut roles: ByIndex<Role> = state
        .links
        .iter()
        .map(|(&ifindex, link)| (ifindex, role(state, ifindex, link, uplinks)))
        .collect();
    if uplinks.is_empty() {
        open_bridges(state, &mut roles);
    }
    roles
}

fn role(state: &NetState, ifindex: u32, link: &Link, uplinks: &[String]) -> Role {
    let is_uplink = if uplinks.is_empty() {
        leads_out(state, ifindex, link)
    } else {
        uplinks.contains(&link.name)
    };
    match link.kind {
        LinkKind::Loopback | LinkKind::Inert => Role::Other,
        _ if is_uplink => Role::Uplink,
        LinkKind::Veth if link.peer_netns.is_some() => Role::Pod,
        _ => Role::Other,
    }
}

fn leads_out(state: &NetState, ifindex: u32, link: &Link) -> bool {
    let mut routes = state.routes.iter().filter(|route| route.ifindex == ifindex);
    let by_gateway = routes.any(|route| route.gateway || route.prefix == 0);
    let mut addresses = state.addresses.iter().filter(|entry| entry.0 == ifindex);
    let in_network = addresses.any(|&(_, address, prefix)| {
        let bits = if address.is_ipv4() { 32 } else { 128 };
        is_routable(address) && prefix < bits
    });
    match link.kind {
        LinkKind::Overlay => link.up,
        // A bridge's own address is its pods' gateway.
        LinkKind::Bridge => by_gateway,
        LinkKind::Veth => link.controller.is_none() && (by_gateway || in_network),
        LinkKind::Plain => {
            let has_address = state
                .addresses
                .iter()
                .any(|&(index, address, _)| index == ifindex && is_routable(address));
            by_gateway || has_address
        }
        LinkKind::Loopback | LinkKind::Inert => false,
    }
}

/// Where pods are ports of the bridge that leads out, its other ports are the uplinks: a packet
/// between two pods passes the bridge, but is not the network's.
fn open_bridges(state: &NetState, roles: &mut ByIndex<Role>) {
    let ports = |bridge: u32| {
        state
            .links
            .iter()
            .filter(move |(_, link)| link.controller == Some(bridge))
            .map(|(&ifindex, _)| ifindex)
    };
    let bridges = state
        .links
        .iter()
        .filter(|(_, link)| link.kind == LinkKind::Bridge);
    for (&bridge, _) in bridges {
        let has_pods = ports(bridge).any(|port| roles.get(&port) == Some(&Role::Pod));
        if !has_pods || roles.get(&bridge) != Some(&Role::Uplink) {
            continue;
        }
        let others: Vec<u32> = ports(bridge)
            .filter(|port| roles.get(port) == Some(&Role::Other))
            .collect();
        if others.is_empty() {
            continue;
        }
        roles.insert(bridge, Role::Other);
        roles.extend(others.into_iter().map(|port| (port, Role::Uplink)));
    }
}

#[cfg(test)]
mod tests;
