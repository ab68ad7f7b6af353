//! Limits: half-open flows, room for flows, and ICMP errors.

use dataplane_common::{
    abi::{capacity, name},
    net::proto::{TCP, UDP},
    verdict::DropReason::{ConntrackFull, HalfOpenLimit, NoBackend},
};

use crate::{
    kernel::{TIGHT_CONNTRACK, TIGHT_PER_POD, TIGHT_TOTAL},
    seen::At,
    world::*,
};

const TO: End = (SERVER, 8080);

both_families! {
    /// A pod has so many unanswered flows at a time; an answer makes room, and so does time.
    fn half_open_flows_of_a_pod(w: Tight) {
        for proto in [TCP, UDP] {
            let from = |n: u32| (CLIENT, 40_000 + n as u16);
            for n in 0..TIGHT_PER_POD {
                let _ = w.send(At::FromPod(CLIENT), &w.first(proto, from(n), TO)).redirected();
            }
            assert_eq!(w.half_open(ifindex(CLIENT)), TIGHT_PER_POD);
            let more = w.first(proto, from(TIGHT_PER_POD), TO);
            w.send(At::FromPod(CLIENT), &more).drops(HalfOpenLimit);
            let again = w.first(proto, from(0), TO);
            w.send(At::FromPod(CLIENT), &again).redirects(&again.clone().for_pod(SERVER));
            for n in 0..TIGHT_PER_POD {
                let _ = w.send(At::FromPod(SERVER), &w.answer(proto, TO, from(n))).redirected();
            }
            assert_eq!((w.half_open(ifindex(CLIENT)), w.half_open_total()), (0, 0));
            let _ = w.send(At::FromPod(CLIENT), &more).redirected();
            w.age(proto, from(TIGHT_PER_POD), TO, 61);
            let _ = w.send(At::FromPod(CLIENT), &more).redirected();
            assert_eq!(w.half_open(ifindex(CLIENT)), 1, "the old one is not counted any more");
            let _ = w.send(At::FromPod(SERVER), &w.answer(proto, TO, from(TIGHT_PER_POD))).redirected();
        }
    }

    /// The node has a limit too, for all its pods and for clients from outside.
    fn half_open_flows_of_the_node(w: Tight) {
        let pods = [CLIENT, THIRD];
        for n in 0..TIGHT_TOTAL {
            let from = (pods[n as usize % 2], 40_000 + n as u16);
            let _ = w.send(At::FromPod(from.0), &w.udp(from, TO)).redirected();
        }
        w.send(At::FromPod(Host::Pod(4)), &w.udp((Host::Pod(4), 9), TO)).drops(HalfOpenLimit);
        w.send(At::ToPod(SERVER, None), &w.udp((OUTSIDE, 9), TO)).drops(HalfOpenLimit);
        assert_eq!(w.half_open_total(), TIGHT_TOTAL);
        let _ = w.send(At::FromPod(SERVER), &w.udp(TO, (CLIENT, 40_000))).redirected();
        let _ = w.send(At::ToPod(SERVER, None), &w.udp((OUTSIDE, 9), TO)).passed();
    }

    /// A count that has gone astray, an answer having been taken off twice, closes nothing.
    fn a_count_below_zero(w: Tight) {
        for place in [ifindex(CLIENT), capacity::HALF_OPEN - 1] {
            w.kernel.write(name::HALF_OPEN, &place, &u32::MAX);
        }
        let _ = w.send(At::FromPod(CLIENT), &w.udp((CLIENT, 40_000), TO)).redirected();
        assert_eq!((w.half_open(ifindex(CLIENT)), w.half_open_total()), (0, 0));
    }

    /// A sender gets so many ICMP errors at a time: what it does not get is counted, others get theirs,
    /// and resets are none.
    fn errors_to_a_sender(w: Tight) {
        const BURST: u32 = 50;
        for place in 0..capacity::ERROR_BUDGETS {
            w.kernel.write(name::ERROR_BUDGETS, &place, &0u64);
        }
        for proto in [TCP, UDP] {
            w.serve_plain(proto, (VIP, 80), &[]);
        }
        let held = |w: &World| w.kernel.sum(name::ERRORS_HELD, NoBackend as u32);
        let before = held(&w);
        let ask = |w: &World, proto, from: Host| {
            w.send(At::FromPod(from), &w.first(proto, (from, 9), (VIP, 80)))
        };
        for _ in 0..BURST {
            assert_eq!(ask(&w, UDP, CLIENT).refusal(), Some(NoBackend));
        }
        assert_eq!(held(&w), before);
        for _ in 0..3 {
            ask(&w, UDP, CLIENT).drops(NoBackend);
        }
        assert_eq!(held(&w), before + 3);
        assert_eq!(ask(&w, UDP, THIRD).refusal(), Some(NoBackend));
        assert_eq!(ask(&w, TCP, CLIENT).refusal(), Some(NoBackend));
    }

    /// When there is no room for flows, new ones are dropped and counted, and the others live.
    fn a_full_table(w: Tight) {
        w.serve_plain(UDP, (VIP, 53), &[TO]);
        let from = |n: u32| (CLIENT, 1_000 + n as u16);
        let open = |n| {
            let _ = w.send(At::FromPod(CLIENT), &w.udp(from(n), TO)).redirected();
            let _ = w.send(At::FromPod(SERVER), &w.udp(TO, from(n))).redirected();
        };
        // The last place is enough for a direct flow, not for one through a frontend.
        (0..TIGHT_CONNTRACK - 1).for_each(open);
        w.send(At::FromPod(CLIENT), &w.udp((CLIENT, 50_000), (VIP, 53))).drops(ConntrackFull);
        assert_eq!((w.half_open(ifindex(CLIENT)), w.half_open_total()), (0, 0));
        open(TIGHT_CONNTRACK);
        w.send(At::FromPod(CLIENT), &w.udp((CLIENT, 50_000), TO)).drops(ConntrackFull);
        assert_eq!((w.half_open(ifindex(CLIENT)), w.half_open_total()), (0, 0));
        for n in 0..TIGHT_CONNTRACK - 1 {
            let _ = w.send(At::FromPod(SERVER), &w.udp(TO, from(n))).redirected();
        }
        assert_eq!(w.flows(), TIGHT_CONNTRACK as usize);
    }
}
