//! Finding what is at the other end of pods' devices.

use std::{collections::BTreeMap, net::IpAddr};

use rtnetlink::{
    Handle,
    packet_route::{
        AddressFamily,
        neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage},
    },
};

use super::{
    ByIndex, Interface, NetState, Settings,
    dump::neighbours,
    namespaces::{Inside, Namespaces, read},
    state::is_routable,
};

/// Looks for pods' addresses.
pub(super) struct Discovery {
    namespaces: Namespaces,
    /// Cleared when the kernel refuses to enter namespaces.
    may_enter: bool,
}

impl Discovery {
    pub fn new(settings: &Settings) -> Self {
        Self {
            namespaces: Namespaces::default(),
            may_enter: settings.enter_namespaces,
        }
    }

    /// Addresses and hardware addresses of the pods at these devices; a device is left out if
    /// nothing is found.
    ///
    /// Routes to single addresses come first: only the host sets them. Inside its namespace a
    /// pod with the right to do so sets any address, so that is asked for what routes do not
    /// tell. Where namespaces cannot be entered, the neighbours' tables are the last resort.
    pub async fn look(
        &mut self,
        handle: &Handle,
        state: &NetState,
        devices: &[u32],
    ) -> ByIndex<Inside> {
        let mut found = self.enter(handle, state, devices).await;
        let unseen: Vec<u32> = devices
            .iter()
            .copied()
            .filter(|device| !found.contains_key(device))
            .collect();
        if !unseen.is_empty() {
            found.extend(by_neighbours(handle, state, &unseen).await);
        }
        for &device in devices {
            let routed = routed_addresses(state, device);
            if !routed.is_empty() {
                let inside = found.entry(device).or_default();
                prefer(inside, routed);
            }
        }
        // No pod has the node's address, whatever it says.
        for inside in found.values_mut() {
            inside
                .addresses
                .retain(|address| !is_nodes(state, *address));
        }
        found
    }

    async fn enter(
        &mut self,
        handle: &Handle,
        state: &NetState,
        devices: &[u32],
    ) -> ByIndex<Inside> {
        let (mut targets, mut indices) = (Vec::new(), Vec::new());
        if !self.may_enter {
            return ByIndex::new();
        }
        for &device in devices {
            let Some((peer, namespace)) = state
                .links
                .get(&device)
                .and_then(|link| Some((link.peer?, link.peer_netns?)))
            else {
                continue;
            };
            if let Some(file) = self.namespaces.open(handle, namespace).await {
                targets.push((file, peer));
                indices.push(device);
            }
        }
        if targets.is_empty() {
            return ByIndex::new();
        }
        let mut found = ByIndex::new();
        for (device, answer) in indices.into_iter().zip(read(targets).await) {
            match answer {
                Ok(inside) => found.extend(inside.map(|inside| (device, inside))),
                Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                    self.may_enter = false;
                    tracing::warn!(
                        "pods' namespaces cannot be entered (CAP_SYS_ADMIN): their addresses are \
                         taken from routes and neighbours"
                    );
                    break;
                }
                Err(error) => tracing::debug!(device, %error, "entering a pod's namespace"),
            }
        }
        found
    }
}

/// Single addresses that are routed to the device itself. The node's own are among the routes too,
/// where it has them on the device.
fn routed_addresses(state: &NetState, device: u32) -> Vec<IpAddr> {
    let routes = state.routes.iter();
    routes
        .filter(|route| route.ifindex == device && route.is_host() && !route.gateway)
        .map(|route| route.destination)
        .filter(|address| is_routable(*address) && !is_nodes(state, *address))
        .collect()
}

fn is_nodes(state: &NetState, address: IpAddr) -> bool {
    state.addresses.iter().any(|(_, own, _)| *own == address)
}

/// Replaces the addresses of each family that has routed ones.
fn prefer(inside: &mut Inside, routed: Vec<IpAddr>) {
    let has = |v4: bool| routed.iter().any(|address| address.is_ipv4() == v4);
    let (has4, has6) = (has(true), has(false));
    inside
        .addresses
        .retain(|address| if address.is_ipv4() { !has4 } else { !has6 });
    inside.addresses.extend(routed);
}

async fn by_neighbours(handle: &Handle, state: &NetState, devices: &[u32]) -> ByIndex<Inside> {
    let mut tables = Vec::new();
    for family in [
        AddressFamily::Bridge,
        AddressFamily::Inet,
        AddressFamily::Inet6,
    ] {
        match neighbours(handle, family).await {
            Ok(table) => tables.push(table),
            Err(error) => {
                tracing::debug!(%error, "reading neighbours");
                return ByIndex::new();
            }
        }
    }
    let forwarding = tables.remove(0);
    let known: Vec<Neighbour> = tables.iter().flatten().filter_map(neighbour).collect();
    let ports: Vec<(u32, [u8; 6])> = forwarding.iter().filter_map(port_entry).collect();
    match_neighbours(state, devices, &ports, &known)
}

/// A neighbour: its device, hardware address and address.
type Neighbour = (u32, [u8; 6], IpAddr);

/// What neighbours tell of devices: a bridge's port by the hardware addresses learned there and
/// the bridge's neighbours, any other device by its own neighbours.
fn match_neighbours(
    state: &NetState,
    devices: &[u32],
    ports: &[(u32, [u8; 6])],
    known: &[Neighbour],
) -> ByIndex<Inside> {
    let mut found: BTreeMap<u32, Inside> = BTreeMap::new();
    for &device in devices {
        let Some(link) = state.links.get(&device) else {
            continue;
        };
        let matching: Vec<&Neighbour> = match link.controller {
            Some(bridge) => known
                .iter()
                .filter(|(index, mac, _)| *index == bridge && ports.contains(&(device, *mac)))
                .collect(),
            None => known
                .iter()
                .filter(|(index, _, _)| *index == device)
                .collect(),
        };
        let learned = ports.iter().find(|(port, _)| *port == device);
        let mac = matching
            .first()
            .map(|(_, mac, _)| *mac)
            .or(learned.map(|(_, mac)| *mac));
        if let Some(mac) = mac {
            let addresses = matching.into_iter().map(|(_, _, address)| *address);
            let addresses = addresses.filter(|address| is_routable(*address)).collect();
            found.insert(device, Inside { addresses, mac });
        }
    }
    found
}

fn mac_of(message: &NeighbourMessage) -> Option<[u8; 6]> {
    message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            NeighbourAttribute::LinkLayerAddress(mac) => mac.as_slice().try_into().ok(),
            _ => None,
        })
}

fn neighbour(message: &NeighbourMessage) -> Option<Neighbour> {
    let address = message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => Some(IpAddr::V4(*v4)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => Some(IpAddr::V6(*v6)),
            _ => None,
        })?;
    Some((message.header.ifindex, mac_of(message)?, address))
}

/// A hardware address that was learned at a port; the port's own are permanent.
fn port_entry(message: &NeighbourMessage) -> Option<(u32, [u8; 6])> {
    use rtnetlink::packet_route::neighbour::NeighbourState;
    if message.header.state == NeighbourState::Permanent {
        return None;
    }
    Some((message.header.ifindex, mac_of(message)?))
}

/// Qdiscs that hold packets back no longer than the device does.
const PLAIN_QDISCS: [&str; 7] = ["", "noqueue", "pfifo_fast", "pfifo", "fq_codel", "fq", "mq"];

/// Puts together what is known of a pod's device. `largest_mtu` is that of all pods' devices.
pub(super) fn interface(
    state: &NetState,
    settings: &Settings,
    ifindex: u32,
    inside: &Inside,
    largest_mtu: u32,
    late: bool,
) -> Option<Interface> {
    let link = state.links.get(&ifindex)?;
    let has_ingress_qdisc = state
        .ingress_qdiscs
        .iter()
        .any(|&(device, clsact)| device == ifindex && !(clsact && settings.own_clsact));
    Some(Interface {
        ifindex,
        name: link.name.clone(),
        addresses: inside.addresses.clone(),
        mac: inside.mac,
        host_mac: link.mac,
        mtu: link.mtu,
        redirect_ok: link.mtu >= largest_mtu
            && PLAIN_QDISCS.contains(&link.qdisc.as_str())
            && !has_ingress_qdisc
            && !(settings.foreign_egress)(ifindex),
        late,
    })
}

#[cfg(test)]
mod tests;
