use std::{collections::BTreeSet, sync::Arc};

use super::*;
use crate::netlink::{Link, LinkKind, Route};

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 5];

fn ip(text: &str) -> IpAddr {
    text.parse().expect("literal")
}

fn state() -> NetState {
    let mut state = NetState::default();
    let veth = |controller| Link {
        name: "veth5".into(),
        kind: LinkKind::Veth,
        controller,
        mtu: 1500,
        qdisc: "noqueue".into(),
        mac: [6; 6],
        ..Link::default()
    };
    state.links.insert(5, veth(None));
    state.links.insert(6, veth(Some(9)));
    state.links.insert(9, Link::default());
    state
}

#[test]
fn routes_to_single_addresses_win_over_what_the_pod_says() {
    let mut state = state();
    state.routes.insert(Route {
        destination: ip("10.244.1.5"),
        prefix: 32,
        gateway: false,
        ifindex: 5,
    });
    state.routes.insert(Route {
        destination: ip("fe80::1"),
        prefix: 128,
        gateway: false,
        ifindex: 5,
    });
    // The gateway's address on the device makes a route too.
    state.addresses.insert((5, ip("fd00::1"), 128));
    state.routes.insert(Route {
        destination: ip("fd00::1"),
        prefix: 128,
        gateway: false,
        ifindex: 5,
    });
    let mut inside = Inside {
        addresses: BTreeSet::from([ip("10.244.9.9"), ip("fd00::5")]),
        mac: MAC,
    };
    prefer(&mut inside, routed_addresses(&state, 5));
    assert_eq!(
        inside.addresses,
        BTreeSet::from([ip("10.244.1.5"), ip("fd00::5")])
    );
    assert!(routed_addresses(&state, 6).is_empty());
}

#[test]
fn a_bridge_port_is_known_by_its_learned_address() {
    let known = [
        (9, MAC, ip("10.244.1.6")),
        (9, [7; 6], ip("10.244.1.7")),
        (5, [8; 6], ip("10.244.1.5")),
    ];
    let found = match_neighbours(&state(), &[5, 6], &[(6, MAC)], &known);
    let expected = |mac, address| Inside {
        addresses: BTreeSet::from([ip(address)]),
        mac,
    };
    assert_eq!(found[&5], expected([8; 6], "10.244.1.5"));
    assert_eq!(found[&6], expected(MAC, "10.244.1.6"));
}

#[test]
fn redirects_need_a_device_that_nothing_else_works_on() {
    let ok = |change: fn(&mut NetState, &mut Settings), largest| {
        let (mut state, mut settings) = (state(), Settings::default());
        change(&mut state, &mut settings);
        let inside = Inside::default();
        interface(&state, &settings, 5, &inside, largest, false)
            .expect("it exists")
            .redirect_ok
    };
    fn link(state: &mut NetState) -> &mut Link {
        state.links.get_mut(&5).expect("it exists")
    }
    assert!(ok(|_, _| {}, 1500));
    assert!(!ok(|_, _| {}, 9000), "another pod's packets are larger");
    assert!(!ok(|state, _| link(state).qdisc = "tbf".into(), 1500));
    assert!(!ok(
        |state, _| state.ingress_qdiscs = BTreeSet::from([(5, false)]),
        1500
    ));
    assert!(!ok(
        |_, settings| settings.foreign_egress = Arc::new(|ifindex| ifindex == 5),
        1500
    ));
    assert!(ok(
        |state, settings| {
            state.ingress_qdiscs.insert((5, true));
            settings.own_clsact = true;
        },
        1500
    ));
}
