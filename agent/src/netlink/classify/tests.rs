use std::net::IpAddr;

use super::*;
use crate::netlink::Route;

#[derive(Default)]
struct Net(NetState);

impl Net {
    fn link(mut self, ifindex: u32, kind: LinkKind, change: impl FnOnce(&mut Link)) -> Self {
        let mut link = Link {
            name: format!("dev{ifindex}"),
            kind,
            up: true,
            ethernet: true,
            mtu: 1500,
            ..Link::default()
        };
        change(&mut link);
        self.0.links.insert(ifindex, link);
        self
    }

    fn veth(self, ifindex: u32) -> Self {
        self.link(ifindex, LinkKind::Veth, |link| {
            link.peer = Some(2);
            link.peer_netns = Some(ifindex as i32);
        })
    }

    fn port(self, ifindex: u32, bridge: u32) -> Self {
        let mut net = self.veth(ifindex);
        let link = net.0.links.get_mut(&ifindex).expect("just made");
        link.controller = Some(bridge);
        net
    }

    fn address(mut self, ifindex: u32, address: &str, prefix: u8) -> Self {
        let address: IpAddr = address.parse().expect("literal");
        self.0.addresses.insert((ifindex, address, prefix));
        self
    }

    fn route(mut self, destination: &str, prefix: u8, gateway: bool, ifindex: u32) -> Self {
        self.0.routes.insert(Route {
            destination: destination.parse().expect("literal"),
            prefix,
            gateway,
            ifindex,
        });
        self
    }

    fn roles(&self) -> Vec<(u32, Role)> {
        classify(&self.0, &[]).into_iter().collect()
    }
}

#[test]
fn a_node_in_a_container_with_point_to_point_pods() {
    let net = Net::default()
        .link(1, LinkKind::Loopback, |_| {})
        .address(1, "127.0.0.1", 8)
        .veth(2)
        .address(2, "172.18.0.2", 16)
        .address(2, "fe80::1", 64)
        .route("0.0.0.0", 0, true, 2)
        .veth(3)
        .address(3, "10.244.1.1", 32)
        .address(3, "fe80::2", 64)
        .route("10.244.1.5", 32, false, 3)
        .veth(4);
    assert_eq!(
        net.roles(),
        [
            (1, Role::Other),
            (2, Role::Uplink),
            (3, Role::Pod),
            (4, Role::Pod)
        ]
    );
}

#[test]
fn an_uplink_without_default_route_has_its_networks_address() {
    let net = Net::default().veth(2).address(2, "fd00::2", 64).veth(3);
    assert_eq!(net.roles(), [(2, Role::Uplink), (3, Role::Pod)]);
}

#[test]
fn a_bridge_of_pods_is_no_uplink_before_or_after_its_first_pod() {
    let bridge = || {
        Net::default()
            .link(2, LinkKind::Plain, |_| {})
            .address(2, "192.0.2.7", 24)
            .link(3, LinkKind::Bridge, |_| {})
            .address(3, "10.244.1.1", 24)
            .route("10.244.1.0", 24, false, 3)
    };
    assert_eq!(bridge().roles(), [(2, Role::Uplink), (3, Role::Other)]);
    assert_eq!(
        bridge().port(4, 3).roles(),
        [(2, Role::Uplink), (3, Role::Other), (4, Role::Pod)]
    );
}

#[test]
fn pods_on_the_bridge_that_leads_out_make_its_other_ports_uplinks() {
    let net = Net::default()
        .link(2, LinkKind::Bridge, |_| {})
        .address(2, "192.0.2.7", 24)
        .route("0.0.0.0", 0, true, 2)
        .link(3, LinkKind::Plain, |link| link.controller = Some(2))
        .port(4, 2);
    assert_eq!(
        net.roles(),
        [(2, Role::Other), (3, Role::Uplink), (4, Role::Pod)]
    );
}

#[test]
fn the_host_of_a_bridge_without_pods_leads_out_by_it() {
    let net = Net::default()
        .link(2, LinkKind::Bridge, |_| {})
        .address(2, "192.0.2.7", 24)
        .route("0.0.0.0", 0, true, 2)
        .link(3, LinkKind::Plain, |link| link.controller = Some(2));
    assert_eq!(net.roles(), [(2, Role::Uplink), (3, Role::Other)]);
}

#[test]
fn overlays_lead_out_and_inert_devices_do_not() {
    let net = Net::default()
        .link(2, LinkKind::Overlay, |_| {})
        .link(3, LinkKind::Overlay, |link| link.up = false)
        .link(4, LinkKind::Inert, |_| {})
        .address(4, "169.254.20.10", 32)
        .address(4, "10.96.0.10", 32);
    assert_eq!(
        net.roles(),
        [(2, Role::Uplink), (3, Role::Other), (4, Role::Other)]
    );
}

#[test]
fn a_route_to_another_nodes_pods_makes_an_uplink() {
    let net = Net::default()
        .veth(2)
        .route("10.244.2.0", 24, true, 2)
        .veth(3)
        .route("fd00:1::5", 128, false, 3);
    assert_eq!(net.roles(), [(2, Role::Uplink), (3, Role::Pod)]);
}

#[test]
fn named_uplinks_are_the_only_ones() {
    let net = Net::default()
        .veth(2)
        .address(2, "172.18.0.2", 16)
        .veth(3)
        .link(4, LinkKind::Plain, |_| {})
        .address(4, "192.0.2.1", 24);
    let roles: Vec<_> = classify(&net.0, &["dev3".into()]).into_values().collect();
    assert_eq!(roles, [Role::Pod, Role::Uplink, Role::Other]);
}

#[test]
fn a_pair_within_the_namespace_is_nobodys() {
    let net = Net::default().link(2, LinkKind::Veth, |link| link.peer = Some(3));
    assert_eq!(net.roles(), [(2, Role::Other)]);
}
