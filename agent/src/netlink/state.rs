//! What is known of the namespace: plain data, made from netlink messages.

use std::{collections::BTreeSet, net::IpAddr};

use rtnetlink::packet_route::{
    AddressFamily,
    address::{AddressAttribute, AddressMessage},
    link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage},
    route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteType},
};

use super::ByIndex;

/// Devices, addresses and routes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct NetState {
    /// Devices by index.
    pub links: ByIndex<Link>,
    /// Device, address and prefix length.
    pub addresses: BTreeSet<(u32, IpAddr, u8)>,
    /// Routes of the main table.
    pub routes: BTreeSet<Route>,
    /// Devices with a qdisc on their ingress, or a clsact one.
    pub ingress_qdiscs: BTreeSet<(u32, bool)>,
}

/// A device.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Link {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: LinkKind,
    /// It is up.
    pub up: bool,
    /// Its packets have Ethernet headers.
    pub ethernet: bool,
    /// The bridge or bond it is a port of.
    pub controller: Option<u32>,
    /// Index of a veth's other end, in its namespace.
    pub peer: Option<u32>,
    /// The other end's namespace by its id in this one; `None` if it is this one.
    pub peer_netns: Option<i32>,
    /// Hardware address.
    pub mac: [u8; 6],
    /// MTU.
    pub mtu: u32,
    /// Root qdisc.
    pub qdisc: String,
}

/// Kinds of devices, as far as they matter.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum LinkKind {
    /// Hardware, bond, VLAN, macvlan and the like.
    #[default]
    Plain,
    /// The loopback device.
    Loopback,
    /// One end of a pair.
    Veth,
    /// A bridge.
    Bridge,
    /// A tunnel to other nodes.
    Overlay,
    /// Nothing goes through it (dummy, ifb) or it stands for others (vrf).
    Inert,
}

/// A route of the main table.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Route {
    /// Destination; the unspecified address for a default route.
    pub destination: IpAddr,
    /// Its prefix length.
    pub prefix: u8,
    /// It leads to a gateway.
    pub gateway: bool,
    /// The device.
    pub ifindex: u32,
}

impl Route {
    /// True if it leads to a single address.
    pub fn is_host(&self) -> bool {
        self.prefix == if self.destination.is_ipv4() { 32 } else { 128 }
    }
}

impl NetState {
    /// The node's own addresses.
    pub fn node_addresses(&self) -> BTreeSet<IpAddr> {
        let addresses = self.addresses.iter().map(|&(_, address, _)| address);
        addresses.filter(|address| is_routable(*address)).collect()
    }
}

/// True unless it is a loopback, link-local, multicast or unspecified address.
pub(super) fn is_routable(address: IpAddr) -> bool {
    let local = match address {
        IpAddr::V4(address) => address.is_link_local() || address.is_broadcast(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    !(local || address.is_loopback() || address.is_multicast() || address.is_unspecified())
}

/// A device and its index.
pub(super) fn link(message: LinkMessage) -> (u32, Link) {
    let flags = message.header.flags;
    let mut link = Link {
        up: flags.contains(LinkFlags::Up),
        ethernet: message.header.link_layer_type == LinkLayerType::Ether,
        ..Link::default()
    };
    if flags.contains(LinkFlags::Loopback) {
        link.kind = LinkKind::Loopback;
    }
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            LinkAttribute::Qdisc(qdisc) => link.qdisc = qdisc,
            LinkAttribute::Controller(index) => link.controller = (index != 0).then_some(index),
            LinkAttribute::Link(index) => link.peer = (index != 0).then_some(index),
            LinkAttribute::LinkNetNsId(id) => link.peer_netns = (id >= 0).then_some(id),
            LinkAttribute::Address(mac) => link.mac = mac.try_into().unwrap_or_default(),
            LinkAttribute::LinkInfo(infos) => {
                for info in infos {
                    if let LinkInfo::Kind(kind) = info {
                        link.kind = kind_of(&kind);
                    }
                }
            }
            _ => {}
        }
    }
    (message.header.index, link)
}

fn kind_of(kind: &InfoKind) -> LinkKind {
    match kind {
        InfoKind::Veth => LinkKind::Veth,
        InfoKind::Bridge => LinkKind::Bridge,
        InfoKind::Dummy | InfoKind::Ifb | InfoKind::Nlmon | InfoKind::Vrf => LinkKind::Inert,
        InfoKind::Vxlan
        | InfoKind::Geneve
        | InfoKind::GreTap
        | InfoKind::GreTap6
        | InfoKind::GreTun
        | InfoKind::GreTun6
        | InfoKind::IpIp
        | InfoKind::Ip6Tnl
        | InfoKind::SitTun
        | InfoKind::Wireguard
        | InfoKind::Vti
        | InfoKind::Vti6
        | InfoKind::Xfrm => LinkKind::Overlay,
        _ => LinkKind::Plain,
    }
}

/// A device's address.
pub(super) fn address(message: &AddressMessage) -> Option<(u32, IpAddr, u8)> {
    let pick = |local: bool| {
        message
            .attributes
            .iter()
            .find_map(|attribute| match attribute {
                AddressAttribute::Local(address) if local => Some(*address),
                AddressAttribute::Address(address) if !local => Some(*address),
                _ => None,
            })
    };
    // On a point-to-point device `Address` is the other end's.
    let address = pick(true).or_else(|| pick(false))?;
    Some((message.header.index, address, message.header.prefix_len))
}

/// The routes of a message: one, or one for each next hop.
pub(super) fn routes(message: &RouteMessage) -> Vec<Route> {
    let header = &message.header;
    if header.table != RouteHeader::RT_TABLE_MAIN || header.kind != RouteType::Unicast {
        return Vec::new();
    }
    let unspecified = match header.address_family {
        AddressFamily::Inet => IpAddr::from([0; 4]),
        AddressFamily::Inet6 => IpAddr::from([0; 16]),
        _ => return Vec::new(),
    };
    let (mut destination, mut hops) = (unspecified, Vec::new());
    let (mut gateway, mut ifindex) = (false, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(address)) => {
                destination = (*address).into();
            }
            RouteAttribute::Destination(RouteAddress::Inet6(address)) => {
                destination = (*address).into();
            }
            RouteAttribute::Gateway(_) | RouteAttribute::Via(_) => gateway = true,
            RouteAttribute::Oif(index) => ifindex = Some(*index),
            RouteAttribute::MultiPath(next) => hops.extend(next.iter().map(|hop| {
                let through = |attribute: &RouteAttribute| {
                    matches!(
                        attribute,
                        RouteAttribute::Gateway(_) | RouteAttribute::Via(_)
                    )
                };
                (hop.interface_index, hop.attributes.iter().any(through))
            })),
            _ => {}
        }
    }
    hops.extend(ifindex.map(|index| (index, gateway)));
    hops.into_iter()
        .map(|(ifindex, gateway)| Route {
            destination,
            prefix: header.destination_prefix_length,
            gateway,
            ifindex,
        })
        .collect()
}
