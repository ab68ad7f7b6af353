//! The sweeper on real tables, and events of real packets.

use dataplane_common::abi::{Addr4, CtKey, CtVal, FlowEvent, Port, ct_flags, hook, name};
use dataplane_common::decide::conntrack::State;
use dataplane_common::net::proto;
use sluice::bpf::{Jiffies, Table};
use sluice::observe::conntrack::{self, Sweeper};
use sluice::observe::events::{Heard, Hub, Subscription};

use super::{Node, PATIENCE};

type Flows = Table<CtKey<Addr4>, CtVal<Addr4>>;

/// A flow's main entry, and its front if it has one.
struct Pair {
    main: (CtKey<Addr4>, CtVal<Addr4>),
    front: Option<(CtKey<Addr4>, CtVal<Addr4>)>,
}

fn flow(port: u16, through_frontend: bool, last_seen: u32, state: State) -> Pair {
    let (client, server, vip) = (Addr4(1), Addr4(2), Addr4(3));
    let (from, to) = (Port::new(port), Port::new(80));
    let entry = |dst: Addr4, other: Addr4, flags: u16| {
        let (key, source_is_b) = CtKey::sorted(client, dst, from, to, proto::TCP);
        let value = CtVal {
            nat_src: client,
            nat_src_port: from,
            nat_dst: other,
            nat_dst_port: to,
            flags: flags
                | if source_is_b {
                    ct_flags::INITIATOR_IS_B
                } else {
                    0
                },
            state: state as u8,
            last_seen,
            ..CtVal::default()
        };
        (key, value)
    };
    if through_frontend {
        Pair {
            main: entry(server, vip, ct_flags::DNAT),
            front: Some(entry(vip, server, ct_flags::FRONT)),
        }
    } else {
        Pair {
            main: entry(server, server, 0),
            front: None,
        }
    }
}

fn put(flows: &Flows, pair: &Pair) {
    for (key, value) in pair.front.iter().chain([&pair.main]) {
        flows.put(key, value).unwrap();
    }
}

fn sweep_all(sweeper: &mut Sweeper, now: u32) -> usize {
    let mut removed = 0;
    loop {
        let sweep = sweeper.step_at(now, 64).unwrap();
        removed += sweep.removed;
        if sweep.pass_ended {
            return removed;
        }
    }
}

#[test]
fn flows_that_are_over_go_with_their_fronts() {
    let node = Node::new();
    let dataplane = node.load().unwrap();
    let maps = dataplane.maps();
    let flows: Flows = maps.table(name::CONNTRACK[0]).unwrap();
    let hz = 250u32;
    let now = 5 * hz;
    let old = now.wrapping_sub(200 * hz);
    for port in 1..=200 {
        put(&flows, &flow(port, true, old, State::TimeWait));
        put(&flows, &flow(port + 1_000, false, old, State::New));
    }
    let live = flow(5_000, true, now, State::Established);
    put(&flows, &live);
    // A front that its main entry has left, and a main that another client has taken over.
    let orphan = flow(6_000, true, now, State::Established).front.unwrap();
    flows.put(&orphan.0, &orphan.1).unwrap();
    let mut half_open = flow(7_000, false, now, State::New);
    half_open.main.1.flags |= ct_flags::HALF_OPEN;
    half_open.main.1.initiator_ifindex = 70_000;
    put(&flows, &half_open);
    let counts: Table<u32, u32> = maps.table(name::HALF_OPEN).unwrap();
    counts.put(&3, &99).unwrap();

    let mut sweeper = Sweeper::new(maps, hz, Default::default()).unwrap();
    assert_eq!(sweep_all(&mut sweeper, now), 200 * 2 + 200 + 1);
    let mut left: Vec<_> = flows
        .entries()
        .unwrap()
        .into_iter()
        .map(|(key, _)| key)
        .collect();
    left.sort();
    let mut expected = vec![live.main.0, live.front.unwrap().0, half_open.main.0];
    expected.sort();
    assert_eq!(left, expected);
    assert_eq!(counts.get(&3).unwrap(), Some(0));
    assert_eq!(counts.get(&(70_000 & 65_535)).unwrap(), Some(1));
    assert_eq!(counts.get(&65_536).unwrap(), Some(1), "the total");
    assert_eq!(conntrack::list(maps, now, hz).unwrap().len(), 2);
    assert_eq!(sweep_all(&mut sweeper, now), 0, "nothing more");
}

#[tokio::test]
async fn verdicts_are_told_while_someone_listens() {
    let node = Node::new();
    let dataplane = node.load().unwrap();
    node.attach(&dataplane);
    let listeners: Table<u32, u32> = dataplane.maps().table(name::LISTENERS).unwrap();
    // As an agent leaves it that was killed.
    listeners.put(&0, &3).unwrap();
    let hub = Hub::new(dataplane.maps()).unwrap();
    assert_eq!(listeners.get(&0).unwrap(), Some(0));
    let mut subscription = hub.subscribe().unwrap();
    let second = hub.subscribe().unwrap();
    assert_eq!(listeners.get(&0).unwrap(), Some(2));
    drop(second);

    node.netns
        .ip([
            "addr add 10.1.0.1/32 dev pod0",
            "route add 10.1.0.2/32 dev pod0",
        ])
        .unwrap();
    node.far.ip(["addr add 10.1.0.2/24 dev eth0"]).unwrap();
    let socket = node
        .far
        .run(|| std::net::UdpSocket::bind(("10.1.0.2", 4_000)).unwrap());
    socket.send_to(b"hello", ("10.1.0.1", 4_001)).unwrap();
    let event = heard(&mut subscription).await;
    assert_eq!(
        (event.src_port.number(), event.dst_port.number()),
        (4_000, 4_001)
    );
    assert_eq!(
        (event.hook, event.ifindex),
        (hook::FROM_POD, node.index(super::POD))
    );
    assert_eq!(event.reason, 0);
    drop(subscription);
    assert_eq!(listeners.get(&0).unwrap(), Some(0));
    // Whoever listens later hears what comes later.
    socket.send_to(b"hello", ("10.1.0.1", 4_002)).unwrap();
    let mut later = hub.subscribe().unwrap();
    assert_eq!(listeners.get(&0).unwrap(), Some(1));
    socket.send_to(b"hello", ("10.1.0.1", 4_003)).unwrap();
    assert_eq!(heard(&mut later).await.dst_port.number(), 4_003);

    let now = Jiffies::new().unwrap().now_low().unwrap();
    let flows = conntrack::list(dataplane.maps(), now, sluice::bpf::kernel_hz().unwrap()).unwrap();
    let udp: Vec<_> = flows.iter().filter(|flow| flow.protocol == "UDP").collect();
    assert_eq!(udp.len(), 3);
    assert_eq!(udp[0].client.to_string(), "10.1.0.2:4000");
    assert!(udp[0].idle_secs < 10, "the clock is the programs'");
}

/// The next verdict on a datagram.
async fn heard(subscription: &mut Subscription) -> FlowEvent {
    let next = async {
        loop {
            match subscription.next().await {
                Some(Heard::Event(event)) if event.proto == proto::UDP => return event,
                Some(_) => {}
                None => panic!("the hub has ended"),
            }
        }
    };
    tokio::time::timeout(PATIENCE, next).await.unwrap()
}
