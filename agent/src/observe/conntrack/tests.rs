use std::net::{Ipv4Addr, Ipv6Addr};

use dataplane_common::net::proto;

use super::{list::decode, *};

const HZ: u32 = 250;

type Entry = (CtKey<Addr4>, CtVal<Addr4>);

fn v4(last: u8) -> Addr4 {
    Ipv4Addr::new(10, 0, 0, last).into()
}

/// A flow of 10.0.0.9:4000 through the frontend 10.0.0.200:80 to 10.0.0.1:8080.
fn through_a_frontend() -> (Entry, Entry) {
    let ports = |a, b| (Port::new(a), Port::new(b));
    let (client, dialled) = ports(4_000, 80);
    let (_, served) = ports(0, 8_080);
    let (main, main_b) = CtKey::sorted(v4(9), v4(1), client, served, proto::TCP);
    let (front, front_b) = CtKey::sorted(v4(9), v4(200), client, dialled, proto::TCP);
    let orientation = |b: bool| if b { ct_flags::INITIATOR_IS_B } else { 0 };
    let main_value = CtVal {
        nat_src: v4(9),
        nat_src_port: client,
        nat_dst: v4(200),
        nat_dst_port: dialled,
        flags: orientation(main_b) | ct_flags::DNAT | ct_flags::REPLIED,
        state: State::Established as u8,
        frontend: 7,
        last_seen: 1_000,
        ..CtVal::default()
    };
    let front_value = CtVal {
        nat_src: v4(9),
        nat_src_port: client,
        nat_dst: v4(1),
        nat_dst_port: served,
        flags: orientation(front_b) | ct_flags::FRONT,
        frontend: 7,
        ..CtVal::default()
    };
    ((main, main_value), (front, front_value))
}

#[test]
fn main_and_front_find_each_other() {
    let ((main_key, main), (key, front)) = through_a_frontend();
    assert_eq!(front_key(&main_key, &main), Some(key));
    assert_eq!(other_tuple(&front).key(key.proto), main_key);
    assert!(belongs(&key, &front, &main));
    let mut taken_over = main;
    taken_over.nat_src_port = Port::new(4_001);
    assert!(!belongs(&key, &front, &taken_over));
}

#[test]
fn a_displaced_direct_flows_front_is_in_layer_1() {
    let ((key, mut main), _) = through_a_frontend();
    main.flags = (main.flags & !ct_flags::DNAT) | ct_flags::SNAT;
    assert_eq!(front_key(&key, &main).map(|key| key.layer), Some(1));
    main.flags &= !ct_flags::SNAT;
    assert_eq!(front_key(&key, &main), None);
}

#[test]
fn a_flow_is_told_from_its_main_entry() {
    let ((key, main), (front_key, front)) = through_a_frontend();
    let flow = decode(&key, &main, 1_000 + 5 * HZ, HZ).expect("it lives");
    assert_eq!(flow.protocol, "TCP");
    assert_eq!(flow.client.to_string(), "10.0.0.9:4000");
    assert_eq!(flow.destination.to_string(), "10.0.0.200:80");
    assert_eq!(flow.responder.to_string(), "10.0.0.1:8080");
    assert_eq!((flow.source, flow.denied), (None, None));
    assert_eq!(flow.state, FlowState::Established);
    assert_eq!((flow.idle_secs, flow.expires_secs), (5, 86_395));
    assert_eq!(decode(&front_key, &front, 1_000, HZ), None);
    assert_eq!(decode(&key, &main, 1_000 + 90_000 * HZ, HZ), None, "over");
    let ahead = decode(&key, &main, 990, HZ).expect("it lives");
    assert_eq!(ahead.idle_secs, 0, "another CPU's clock is ahead");
}

#[test]
fn addresses_keep_their_family() {
    let inside: Ipv6Addr = "::ffff:10.0.0.1".parse().expect("literal");
    let (key, _) = CtKey::sorted(
        Addr6::from(inside),
        Addr6::from(Ipv6Addr::LOCALHOST),
        Port::new(1),
        Port::new(2),
        proto::UDP,
    );
    let value = CtVal {
        nat_src: key.a,
        nat_dst: key.b,
        denied: 7,
        ..CtVal::default()
    };
    let flow = decode(&key, &value, 0, HZ).expect("it lives");
    assert!(flow.client.is_ipv6() && flow.responder.is_ipv6());
    assert_eq!(flow.denied, Some("policy-egress"));
}
