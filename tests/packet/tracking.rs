//! Flows: their states, their ends, and flows in each other's way.

use dataplane_common::{
    abi::{scope, service_flags, subject_flags},
    decide::conntrack::State,
    net::proto::{SCTP, TCP, UDP},
    verdict::DropReason,
};

use crate::{frame::Frame, kernel::SNAT_FIRST, seen::At, service::Service, world::*};

/// A client's end of a flow.
const FROM: End = (CLIENT, 40_000);
/// Whom it dials.
const TO: End = (SERVER, 8080);
/// Another Service's address.
const VIP2: Host = Host::Vip(11);

both_families! {
    /// A connection's states from handshake to the close by both ends, and the next one after it.
    fn a_connections_life(w: Redirect) {
        let back = |flags| (flags, false);
        let steps = [
            (SYN, true, State::New),
            (SYN, true, State::New),
            (SYN_ACK, false, State::Established),
            (ACK, true, State::Established),
            (ACK, false, State::Established),
            (FIN, true, State::Closing),
            (FIN, true, State::Closing),
            (ACK, false, State::Closing),
            (FIN, false, State::TimeWait),
            (ACK, true, State::TimeWait),
            (SYN, true, State::New),
            (SYN_ACK, false, State::Established),
            (FIN, false, State::Closing),
            (FIN, true, State::TimeWait),
            (SYN, true, State::New),
            (back(RST).0, false, State::Reset),
            (SYN, true, State::New),
        ];
        for (step, (flags, forward, state)) in steps.into_iter().enumerate() {
            let (at, frame, target) = if forward {
                (At::FromPod(CLIENT), w.tcp(flags, FROM, TO), SERVER)
            } else {
                (At::FromPod(SERVER), w.tcp(flags, TO, FROM), CLIENT)
            };
            w.send(at, &frame).redirects(&frame.clone().for_pod(target));
            let flow = w.flow(TCP, FROM, TO).expect("a flow");
            assert_eq!(State::from_number(flow.state), state, "after step {step}");
        }
        assert_eq!(w.flows(), 1);
    }

    /// A flow that has been idle for its time is over; what comes then is judged by itself.
    fn idle_flows_end(w: Redirect) {
        let cases = [
            (TCP, State::New, 60),
            (TCP, State::Established, 86_400),
            (TCP, State::Closing, 3_600),
            (TCP, State::TimeWait, 120),
            (TCP, State::Reset, 10),
            (UDP, State::New, 30),
            (UDP, State::Established, 120),
            (SCTP, State::New, 30),
            (SCTP, State::Established, 210),
        ];
        let closed = w.allow(&[]);
        w.isolate_ingress(CLIENT, closed);
        for (case, (proto, state, secs)) in cases.into_iter().enumerate() {
            let from = (CLIENT, 41_000 + case as u16);
            let _ = w.send(At::FromPod(CLIENT), &w.first(proto, from, TO)).redirected();
            let amid = |src, dst| if proto == TCP { w.tcp(ACK, src, dst) } else { w.first(proto, src, dst) };
            for (idle, lives) in [(secs - 1, true), (secs + 1, false)] {
                w.change_flow(proto, from, TO, |flow| flow.state = state as u8);
                w.age(proto, from, TO, idle);
                let seen = w.send(At::FromPod(SERVER), &amid(TO, from));
                assert_eq!(seen.is_let_through(), lives, "{proto} {state:?} after {idle} s");
            }
        }
    }

    /// A datagram flow whose backend is gone moves to one that serves.
    fn datagrams_move_from_a_gone_backend(w: Redirect) {
        w.serve_plain(UDP, (VIP, 53), &[TO]);
        let request = w.udp(FROM, (VIP, 53));
        w.send(At::FromPod(CLIENT), &request)
            .redirects(&w.between(&request, FROM, TO).for_pod(SERVER));
        w.serve_plain(UDP, (VIP, 53), &[(THIRD, 8080)]);
        w.send(At::FromPod(CLIENT), &request)
            .redirects(&w.between(&request, FROM, (THIRD, 8080)).for_pod(THIRD));
        let reply = w.udp((THIRD, 8080), FROM);
        w.send(At::FromPod(THIRD), &reply)
            .redirects(&w.between(&reply, (VIP, 53), FROM).for_pod(CLIENT));
        w.serve_plain(UDP, (VIP, 53), &[]);
        assert_eq!(w.send(At::FromPod(CLIENT), &request).refusal(), Some(DropReason::NoBackend));
        w.serve_plain(UDP, (VIP, 53), &[TO]);
        w.send(At::FromPod(CLIENT), &request).redirects(&w.between(&request, FROM, TO).for_pod(SERVER));
    }

    /// The same for clients outside and for the node itself: without a backend the flow is refused, and
    /// the next backend serves it, wherever it is.
    fn datagrams_wait_for_the_next_backend(w: Redirect) {
        let clients = [
            (At::FromNet, (OUTSIDE, 5_000), scope::EXTERNAL),
            (At::HostToNet, (Host::Node, 41_000), scope::INTERNAL),
            (At::FromPod(CLIENT), FROM, scope::INTERNAL),
        ];
        for (at, from, scope) in clients {
            let flags = service_flags::SNAT_REMOTE;
            let service = |backends: &[End]| Service { scope, flags, ..Service::new(UDP, (VIP, 53), backends) };
            let request = w.udp(from, (VIP, 53));
            for host in [SERVER, REMOTE, THIRD] {
                w.serve(&service(&[(host, 8080)]));
                for _ in 0..2 {
                    let seen = w.send(at, &request);
                    assert!(seen.is_let_through(), "{at:?} to {host:?}");
                    assert_eq!(seen.frame().dst, w.ip(host), "{at:?}");
                }
                w.serve(&service(&[]));
                for _ in 0..2 {
                    let seen = w.send(at, &request);
                    if at == At::HostToNet {
                        seen.drops(DropReason::NoBackend);
                    } else {
                        seen.refused(DropReason::NoBackend, &w.refusal_of(&request));
                    }
                }
            }
        }
    }

    /// A SYN to a backend that is gone moves; a connection that stands goes on.
    fn connections_move_from_a_gone_backend(w: Redirect) {
        w.serve_plain(TCP, (VIP, 80), &[TO]);
        let syn = w.tcp(SYN, FROM, (VIP, 80));
        let _ = w.send(At::FromPod(CLIENT), &syn).redirected();
        w.serve_plain(TCP, (VIP, 80), &[(THIRD, 8080)]);
        let amid = w.tcp(ACK, FROM, (VIP, 80));
        w.send(At::FromPod(CLIENT), &amid).redirects(&w.between(&amid, FROM, TO).for_pod(SERVER));
        w.send(At::FromPod(CLIENT), &syn)
            .redirects(&w.between(&syn, FROM, (THIRD, 8080)).for_pod(THIRD));
    }

    /// A backend that came back in the same place is another one.
    fn a_place_filled_again_is_another_backend(w: Redirect) {
        w.serve_plain(UDP, (VIP, 53), &[TO, (THIRD, 8080)]);
        let request = w.udp(FROM, (VIP, 53));
        let out = w.send(At::FromPod(CLIENT), &request).redirected();
        w.serve_plain(UDP, (VIP, 53), &[]);
        let kept = if out.dst == w.ip(SERVER) { (THIRD, 8080) } else { TO };
        w.serve_plain(UDP, (VIP, 53), &[kept]);
        w.send(At::FromPod(CLIENT), &request)
            .redirects(&w.between(&request, FROM, kept).for_pod(kept.0));
    }

    /// One client port through two Services to one backend: the second gets another backend.
    fn a_taken_tuple_takes_the_next_backend(w: Redirect) {
        for proto in [TCP, UDP] {
            w.serve_plain(proto, (VIP, 80), &[TO]);
            w.serve_plain(proto, (VIP2, 80), &[TO, (THIRD, 8080)]);
            let _ = w.send(At::FromPod(CLIENT), &w.first(proto, FROM, (VIP, 80))).redirected();
            let second = w.first(proto, FROM, (VIP2, 80));
            w.send(At::FromPod(CLIENT), &second)
                .redirects(&w.between(&second, FROM, (THIRD, 8080)).for_pod(THIRD));
        }
    }

    /// But not one that policy denies: then it keeps its backend, at another port.
    fn a_taken_tuple_does_not_take_a_denied_backend(w: Redirect) {
        let closed = w.allow(&[]);
        w.isolate_ingress(THIRD, closed);
        w.serve_plain(UDP, (VIP, 80), &[TO]);
        let _ = w.send(At::FromPod(CLIENT), &w.udp(FROM, (VIP, 80))).redirected();
        w.serve_plain(UDP, (VIP2, 80), &[TO, (THIRD, 8080)]);
        for _ in 0..8 {
            let seen = w.send(At::FromPod(CLIENT), &w.udp(FROM, (VIP2, 80)));
            if seen.reason().is_none() {
                let port = seen.redirected().src_port();
                assert_ne!(port, FROM.1);
                return;
            }
            // The draw fell on the denied backend, as draws do: once that is forgotten, again.
            w.age(UDP, FROM, (THIRD, 8080), 11);
        }
        panic!("never at the backend that is allowed");
    }

    /// A connection through a Service may use its ports again once it is closed.
    fn a_closed_connection_to_a_service_makes_room(w: Redirect) {
        w.serve_plain(TCP, (VIP, 80), &[TO]);
        for last in [FIN, RST] {
            let request = |flags| w.tcp(flags, FROM, (VIP, 80));
            let inside = |flags| w.between(&request(flags), FROM, TO).for_pod(SERVER);
            w.send(At::FromPod(CLIENT), &request(SYN)).redirects(&inside(SYN));
            let _ = w.send(At::FromPod(SERVER), &w.tcp(SYN_ACK, TO, FROM)).redirected();
            let _ = w.send(At::FromPod(CLIENT), &request(FIN)).redirected();
            let _ = w.send(At::FromPod(SERVER), &w.tcp(last, TO, FROM)).redirected();
            w.send(At::FromPod(CLIENT), &request(SYN)).redirects(&inside(SYN));
            let flow = w.flow(TCP, FROM, TO).expect("a main entry");
            assert_eq!(State::from_number(flow.state), State::New);
            let _ = w.send(At::FromPod(SERVER), &w.tcp(RST, TO, FROM)).redirected();
        }
        assert_eq!(w.flows(), 2);
    }

    /// With no other backend it gets another source port, and both flows live.
    fn a_taken_tuple_changes_the_port(w: Redirect) {
        for proto in [TCP, UDP] {
            w.serve_plain(proto, (VIP, 80), &[TO]);
            w.serve_plain(proto, (VIP2, 80), &[TO]);
            let first = w.first(proto, FROM, (VIP, 80));
            let _ = w.send(At::FromPod(CLIENT), &first).redirected();
            let second = w.first(proto, FROM, (VIP2, 80));
            let port = port_beside(&w, &second, FROM);
            for (at, seen_port) in [((VIP, 80), FROM.1), ((VIP2, 80), port)] {
                let reply = w.answer(proto, TO, (CLIENT, seen_port));
                w.send(At::FromPod(SERVER), &reply)
                    .redirects(&w.between(&reply, at, FROM).for_pod(CLIENT));
            }
        }
    }

    /// A direct flow beside a translated one with the same tuple.
    fn a_direct_flow_stands_beside_a_translated_one(w: Redirect) {
        for proto in [TCP, UDP] {
            w.serve_plain(proto, (VIP, 80), &[TO]);
            let _ = w.send(At::FromPod(CLIENT), &w.first(proto, FROM, (VIP, 80))).redirected();
            let direct = w.first(proto, FROM, TO);
            let port = port_beside(&w, &direct, FROM);
            assert!(w.flow_in(1, proto, FROM, TO).is_some(), "in layer 1");
            for (src, seen_port) in [((VIP, 80), FROM.1), (TO, port)] {
                let reply = w.answer(proto, TO, (CLIENT, seen_port));
                w.send(At::FromPod(SERVER), &reply)
                    .redirects(&w.between(&reply, src, FROM).for_pod(CLIENT));
            }
        }
    }

    /// The same, by the stack: every packet of the direct flow is translated once.
    fn a_direct_flow_beside_a_translated_one_by_the_stack(w: Stack) {
        w.serve_plain(TCP, (VIP, 80), &[TO]);
        let _ = w.send(At::FromPod(CLIENT), &w.tcp(SYN, FROM, (VIP, 80))).passed();
        let direct = w.tcp(SYN, FROM, TO);
        let out = w.send(At::FromPod(CLIENT), &direct).passed();
        let port = out.src_port();
        assert_eq!(out, w.between(&direct, (CLIENT, port), TO));
        assert_ne!(port, FROM.1);
        let inside = out.routed();
        w.send(At::ToPod(SERVER, Some(CLIENT)), &inside).passes(&inside);
        let reply = w.tcp(SYN_ACK, TO, (CLIENT, port));
        w.send(At::FromPod(SERVER), &reply).passes(&reply);
        let reply = reply.routed();
        w.send(At::ToPod(CLIENT, Some(SERVER)), &reply).passes(&w.between(&reply, TO, FROM));
    }

    /// A Service's flow beside a direct one with the same tuple.
    fn a_translated_flow_beside_a_direct_one(w: Redirect) {
        w.serve_plain(TCP, (VIP, 80), &[TO]);
        let direct = w.tcp(SYN, FROM, TO);
        w.send(At::FromPod(CLIENT), &direct).redirects(&direct.clone().for_pod(SERVER));
        let port = port_beside(&w, &w.tcp(SYN, FROM, (VIP, 80)), FROM);
        for (src, seen_port) in [(TO, FROM.1), ((VIP, 80), port)] {
            let reply = w.tcp(SYN_ACK, TO, (CLIENT, seen_port));
            w.send(At::FromPod(SERVER), &reply)
                .redirects(&w.between(&reply, src, FROM).for_pod(CLIENT));
        }
    }

    /// A tuple in the way that is over makes room.
    fn a_tuple_that_is_over_makes_room(w: Redirect) {
        w.serve_plain(UDP, (VIP, 80), &[TO]);
        w.serve_plain(UDP, (VIP2, 80), &[TO]);
        let _ = w.send(At::FromPod(CLIENT), &w.udp(FROM, (VIP, 80))).redirected();
        w.age(UDP, FROM, TO, 31);
        let second = w.udp(FROM, (VIP2, 80));
        w.send(At::FromPod(CLIENT), &second).redirects(&w.between(&second, FROM, TO).for_pod(SERVER));
        let reply = w.udp(TO, FROM);
        w.send(At::FromPod(SERVER), &reply).redirects(&w.between(&reply, (VIP2, 80), FROM).for_pod(CLIENT));
    }

    /// A connection that nobody saw begin is dropped; at a pod that was attached late it is joined.
    fn connections_older_than_the_attachment(w: Redirect) {
        let amid = w.tcp(ACK, FROM, TO);
        w.send(At::FromPod(CLIENT), &amid).drops(DropReason::NoConnection);
        w.send(At::ToPod(SERVER, None), &w.tcp(ACK, (OUTSIDE, 7), TO)).drops(DropReason::NoConnection);
        w.send(At::FromPod(CLIENT), &w.tcp(SYN_ACK, FROM, TO)).drops(DropReason::NoConnection);
        w.change_pod(CLIENT, |pod| pod.flags |= subject_flags::LATE);
        w.send(At::FromPod(CLIENT), &amid).redirects(&amid.clone().for_pod(SERVER));
        let reply = w.tcp(ACK, TO, FROM);
        w.send(At::FromPod(SERVER), &reply).redirects(&reply.clone().for_pod(CLIENT));
    }

    /// A joined connection is allowed if either end might have begun it.
    fn a_joined_connection_is_allowed_either_way(w: Redirect) {
        w.change_pod(CLIENT, |pod| pod.flags |= subject_flags::LATE);
        let closed = w.allow(&[]);
        w.isolate_ingress(CLIENT, closed);
        let reply = w.tcp(ACK, TO, FROM);
        w.send(At::FromPod(SERVER), &reply).redirects(&reply.clone().for_pod(CLIENT));
        w.isolate_ingress(SERVER, closed);
        w.next_epoch();
        w.send(At::FromPod(SERVER), &reply).drops(DropReason::PolicyIngress);
    }

    /// Echoes are flows by their identifier; a reply without request is nobody's.
    fn echoes(w: Redirect) {
        let request = w.echo(false, CLIENT, SERVER, 77);
        let reply = w.echo(true, SERVER, CLIENT, 77);
        w.send(At::FromPod(SERVER), &reply).drops(DropReason::NoConnection);
        w.send(At::FromPod(CLIENT), &request).redirects(&request.clone().for_pod(SERVER));
        w.send(At::FromPod(SERVER), &reply).redirects(&reply.clone().for_pod(CLIENT));
        w.send(At::FromPod(SERVER), &w.echo(true, SERVER, CLIENT, 78)).drops(DropReason::NoConnection);
    }
}

/// Sends the first packet of a flow whose tuple is taken: the source port it gets instead.
fn port_beside(w: &World, frame: &Frame, from: End) -> u16 {
    let out = w.send_summed(At::FromPod(CLIENT), frame).redirected();
    let port = out.src_port();
    assert!(
        (SNAT_FIRST..SNAT_FIRST + 4_000).contains(&port),
        "port {port} is not of the range"
    );
    assert_eq!(out, w.between(frame, (from.0, port), TO).for_pod(SERVER));
    w.send_summed(At::FromPod(CLIENT), frame).redirects(&out);
    port
}
