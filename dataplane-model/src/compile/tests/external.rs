//! Addresses for clients outside.

use dataplane_common::abi::{Addr4, SourceRangeKey, scope, service_flags};
use dataplane_common::net::proto;

use super::services::{plain, web};
use super::*;
use crate::eval;
use crate::tables::Family;

/// The flags of the cluster IP (or another address) at port 80.
fn flags_at(desired: &Desired, address: &str, scope: u8) -> Option<u16> {
    let serving = eval::serving(&desired.tables, ip(address), 80, proto::TCP, scope);
    serving.map(|serving| serving.service.flags)
}

#[test]
fn outside_clients_of_a_cluster_ip_are_translated_to_other_nodes() {
    let desired = web([], plain());
    assert_eq!(flags_at(&desired, "10.96.0.1", scope::INTERNAL), Some(0));
    assert_eq!(
        flags_at(&desired, "10.96.0.1", scope::EXTERNAL),
        Some(service_flags::SNAT_REMOTE)
    );
}

#[test]
fn masquerading_all_is_for_cluster_ips_alone() {
    let service = Service {
        lb_ips: vec![ip("203.0.113.1")],
        ..plain()
    };
    let mut snapshot = snapshot([Object::Service(service)]);
    snapshot.node.masquerade_all = true;
    let desired = compile(&snapshot, &mut IdTable::default()).unwrap();
    let always = |address, scope| {
        flags_at(&desired, address, scope).map(|flags| flags & service_flags::SNAT_ALWAYS != 0)
    };
    for scope in [scope::INTERNAL, scope::EXTERNAL] {
        assert_eq!(always("10.96.0.1", scope), Some(true));
        assert_eq!(always("203.0.113.1", scope), Some(false));
    }
}

#[test]
fn an_external_address_that_is_the_nodes_own_is_marked() {
    let service = Service {
        external_ips: vec![ip("192.168.0.1"), ip("203.0.113.1")],
        on_backend_removed: OnRemoved::Reset,
        ..plain()
    };
    let desired = web([], service);
    let own = |address| {
        let flags = flags_at(&desired, address, scope::INTERNAL).unwrap();
        assert_ne!(flags & service_flags::RESET_ON_REMOVED, 0);
        flags & service_flags::NODE_ADDRESS != 0
    };
    assert!(own("192.168.0.1") && !own("203.0.113.1"));
}

/// Prefixes of the set that guards an address, if one does.
fn sources(desired: &Desired, address: &str) -> Option<Vec<String>> {
    let serving = eval::serving(
        &desired.tables,
        ip(address),
        80,
        proto::TCP,
        scope::EXTERNAL,
    );
    let service = serving.unwrap().service;
    assert_eq!(
        service.flags & service_flags::SOURCE_RANGES != 0,
        service.source_set != 0
    );
    let of_set = desired
        .tables
        .v4
        .source_ranges
        .keys()
        .filter(|key| key.lead == service.source_set.to_be());
    (service.source_set != 0).then(|| {
        of_set
            .map(|key| {
                format!(
                    "{}/{}",
                    key.addr.to_ip(),
                    key.prefix - SourceRangeKey::<Addr4>::LEAD_BITS
                )
            })
            .collect()
    })
}

#[test]
fn source_ranges_guard_the_addresses_of_the_load_balancer_alone() {
    let guarded = |ranges: &[&str], internal_ip: &str| {
        let service = Service {
            lb_ips: vec![ip("203.0.113.1")],
            external_ips: vec![ip("203.0.113.2")],
            source_ranges: ranges.iter().map(|range| range.parse().unwrap()).collect(),
            ..plain()
        };
        let mut snapshot = snapshot([Object::Service(service)]);
        snapshot.node.internal_ips = vec![ip(internal_ip)];
        let desired = compile(&snapshot, &mut IdTable::default()).unwrap();
        assert_eq!(sources(&desired, "203.0.113.2"), None);
        assert_eq!(sources(&desired, "10.96.0.1"), None);
        sources(&desired, "203.0.113.1")
    };
    let texts = |texts: &[&str]| {
        Some(
            texts
                .iter()
                .map(|&text| text.to_owned())
                .collect::<Vec<_>>(),
        )
    };
    let elsewhere = "192.0.2.1";
    assert_eq!(guarded(&[], elsewhere), None);
    assert_eq!(guarded(&["10.0.0.0/8"], elsewhere), texts(&["10.0.0.0/8"]));
    assert_eq!(guarded(&["10.0.0.0/8", "0.0.0.0/0"], elsewhere), None);
    assert_eq!(guarded(&["fd00::/64"], elsewhere), None, "IPv4 is open");
    let with_vip = texts(&["10.0.0.0/8", "203.0.113.1/32"]);
    assert_eq!(
        guarded(&["10.0.0.0/8"], "10.1.1.1"),
        with_vip,
        "the node may"
    );
}
