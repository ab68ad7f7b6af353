//! Flow events: told only when someone listens.

use std::net::IpAddr;

use dataplane_common::{
    abi::{Addr6, DropKey, DropVal, FlowEvent, Port, event_count, hook, name},
    net::proto::TCP,
    verdict::DropReason,
};

use crate::{frame::Problem, rules::Peer, seen::At, world::*};

const FROM: End = (CLIENT, 40_000);
const TO: End = (SERVER, 8080);

both_families! {
    /// The first packet of a flow is told with its hook, rules, frontend and backend; later ones,
    /// and all packets while nobody listens, are not.
    fn of_an_allowed_flow(w: Redirect) {
        let frontend = w.serve_plain(TCP, (VIP, 80), &[TO]);
        let ingress = w.allow(&[(Peer::Of(CLIENT), 21)]);
        let egress = w.allow(&[(Peer::Of(SERVER), 31)]);
        w.isolate_ingress(SERVER, ingress);
        w.isolate_egress(CLIENT, egress);
        let _ = w.send(At::FromPod(CLIENT), &w.tcp(SYN, (CLIENT, 1), (VIP, 80))).redirected();
        assert_eq!(w.kernel.events(), [], "nobody listens");
        listen(&mut w);
        let _ = w.send(At::FromPod(CLIENT), &w.tcp(SYN, FROM, (VIP, 80))).redirected();
        let events = w.kernel.events();
        assert_eq!(events.len(), 1, "{events:?}");
        let want = FlowEvent {
            time: events[0].time,
            src: mapped(w.ip(CLIENT)),
            dst: mapped(w.ip(VIP)),
            backend: mapped(w.ip(SERVER)),
            src_port: Port::new(40_000),
            dst_port: Port::new(80),
            backend_port: Port::new(8080),
            proto: TCP,
            hook: hook::FROM_POD,
            reason: 0,
            ifindex: ifindex(CLIENT),
            egress_rule: 31,
            ingress_rule: 21,
            frontend,
            packets: 1,
            skipped: 0,
            audit: 0,
            audit_rule: 0,
            reserved: 0,
        };
        assert_eq!(events, [want]);
        assert_ne!(want.time, 0);
        let _ = w.send(At::FromPod(CLIENT), &w.tcp(ACK, FROM, (VIP, 80))).redirected();
        let _ = w.send(At::FromPod(SERVER), &w.tcp(SYN_ACK, TO, FROM)).redirected();
        assert_eq!(w.kernel.events(), []);
    }

    /// A denied flow is told with its reason, at each hook that drops its packets.
    fn of_a_denied_flow(w: Redirect) {
        let closed = w.allow(&[]);
        w.isolate_ingress(SERVER, closed);
        listen(&mut w);
        let cases = [
            (At::FromPod(CLIENT), w.udp(FROM, TO), hook::FROM_POD, ifindex(CLIENT)),
            (At::FromPod(SERVER), w.udp(TO, FROM), hook::FROM_POD, ifindex(SERVER)),
            (At::ToPod(SERVER, None), w.udp((OUTSIDE, 9), TO), hook::TO_POD, ifindex(SERVER)),
        ];
        for (at, frame, hook, device) in cases {
            w.send(at, &frame).drops(DropReason::PolicyIngress);
            let events = w.kernel.events();
            assert_eq!(events.len(), 1, "{at:?}: {events:?}");
            let event = events[0];
            let reason = DropReason::from_code(event.reason);
            assert_eq!((event.hook, reason, event.ifindex), (hook, Some(DropReason::PolicyIngress), device));
            assert_eq!((event.src, event.dst), (mapped(frame.src), mapped(frame.dst)));
            assert_eq!((event.egress_rule, event.ingress_rule, event.frontend), (0, 0, 0));
        }
    }

    /// A refusal is told too, and so is a connection that nobody knows.
    fn of_what_opens_no_flow(w: Redirect) {
        w.serve_plain(TCP, (VIP, 80), &[]);
        listen(&mut w);
        let _ = w.send(At::FromPod(CLIENT), &w.tcp(SYN, FROM, (VIP, 80))).refusal();
        let _ = w.send(At::FromPod(CLIENT), &w.tcp(ACK, FROM, TO)).reason();
        let reasons: Vec<_> =
            w.kernel.events().iter().map(|event| DropReason::from_code(event.reason)).collect();
        assert_eq!(reasons, [Some(DropReason::NoBackend), Some(DropReason::NoConnection)]);
    }

    /// What is dropped before it has a flow is told once, with its one reason.
    fn of_what_has_no_flow(w: Redirect) {
        let closed = w.allow(&[]);
        w.isolate_egress(THIRD, closed);
        listen(&mut w);
        let spoofed = w.udp((THIRD, 1), TO).of_pod(CLIENT);
        let [_, later] = w.udp(FROM, TO).cut(81, 16);
        let error = w.udp(TO, FROM).error(w.ip(CLIENT), Problem::Port, 8).of_pod(CLIENT);
        let flooded = w.udp((OUTSIDE, 7), (THIRD, 8080));
        let claimed = w.udp((SERVER, 5_000), (VIP, 80));
        w.isolate_ingress(SERVER, closed);
        let cases = [
            (At::FromPod(CLIENT), spoofed, DropReason::SourceSpoofed),
            (At::FromPod(CLIENT), later, DropReason::FragmentUnknown),
            (At::FromPod(CLIENT), error, DropReason::IcmpUnrelated),
            (At::FromNet, claimed, DropReason::OutsideSpoofed),
            (At::ToPod(SERVER, None), flooded, DropReason::PolicyIngress),
        ];
        for (at, frame, reason) in cases {
            w.send(at, &frame).drops(reason);
            let events = w.kernel.events();
            assert_eq!(events.len(), 1, "{at:?}: {events:?}");
            assert_eq!(DropReason::from_code(events[0].reason), Some(reason));
            assert_eq!((events[0].src, events[0].dst), (mapped(frame.src), mapped(frame.dst)));
        }
    }

    /// A packet that cannot be read is told without addresses.
    fn of_what_cannot_be_read(w: Redirect) {
        listen(&mut w);
        let _ = w.send(At::FromPod(CLIENT), &w.udp(FROM, TO)).redirected();
        let _ = w.kernel.events();
        let mut bytes = w.udp(FROM, TO).bytes();
        bytes.truncate(bytes.len() - 4);
        w.send_bytes(At::FromPod(CLIENT), &bytes).drops(DropReason::Truncated);
        let events = w.kernel.events();
        assert_eq!(events.len(), 1, "{events:?}");
        assert_eq!(DropReason::from_code(events[0].reason), Some(DropReason::Truncated));
        let nowhere = if w.family == Family::V4 { "0.0.0.0" } else { "::" };
        let nowhere = mapped(nowhere.parse().expect("an address"));
        assert_eq!((events[0].src, events[0].dst), (nowhere, nowhere));
    }

    /// Dropped packets are told with those like them: at once, then with the number of those since.
    fn drops_are_joined(w: Redirect) {
        let closed = w.allow(&[]);
        w.isolate_ingress(SERVER, closed);
        listen(&mut w);
        let spoofed = w.udp((THIRD, 1), TO).of_pod(CLIENT);
        let mut round = |packets| {
            for client in 0..3 {
                let denied = w.udp((CLIENT, FROM.1 + client), TO);
                w.send(At::FromPod(CLIENT), &denied).drops(DropReason::PolicyIngress);
                w.send(At::FromPod(CLIENT), &spoofed).drops(DropReason::SourceSpoofed);
            }
            let told = w.kernel.events().into_iter();
            let told: Vec<_> = told.map(|it| (DropReason::from_code(it.reason), it.packets)).collect();
            let pair = [DropReason::PolicyIngress, DropReason::SourceSpoofed];
            assert_eq!(told, pair.map(|reason| (Some(reason), packets)));
            for key in w.kernel.keys::<DropKey>(name::TOLD) {
                let val: DropVal = w.kernel.read(name::TOLD, &key).expect("a key of the map");
                w.kernel.write(name::TOLD, &key, &DropVal { told: 0, ..val });
            }
        };
        round(1);
        round(3);
        round(3);
    }

    /// Events have a budget; each tells how many there were not before it.
    fn too_many(w: Tight) {
        const SENT: u16 = 1_500;
        listen(&mut w);
        let count = |w: &World, what| w.kernel.sum(name::EVENT_COUNTS, what);
        let before = [event_count::SENT, event_count::SAMPLED].map(|what| count(&w, what));
        for port in 1..=SENT {
            let spoofed = w.udp((THIRD, 1), (SERVER, port)).of_pod(CLIENT);
            w.send(At::FromPod(CLIENT), &spoofed).drops(DropReason::SourceSpoofed);
        }
        let events = w.kernel.events();
        let sent = count(&w, event_count::SENT) - before[0];
        let sampled = count(&w, event_count::SAMPLED) - before[1];
        assert_eq!((events.len() as u64, sent + sampled), (sent, SENT.into()));
        assert!(sampled > 0, "{sent} events");
        let told: u64 = events.iter().map(|event| u64::from(event.skipped)).sum();
        assert_eq!(told + w.kernel.sum(name::EVENT_BUDGET, 1), sampled);
    }
}

fn listen(w: &mut World) {
    w.kernel.write_at(name::LISTENERS, 0, &1u32);
}

fn mapped(ip: IpAddr) -> Addr6 {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().into(),
        IpAddr::V6(ip) => ip.into(),
    }
}
