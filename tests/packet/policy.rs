//! Policy: who may send what to whom.

use std::net::IpAddr;

use dataplane_common::{
    abi::{identity_flags, subject_state},
    net::proto::{SCTP, TCP, UDP},
    verdict::DropReason::{self, PolicyEgress, PolicyIngress},
};

use crate::{
    rules::{Peer, Rules},
    seen::At,
    world::*,
};

/// A client's end of a flow.
const FROM: End = (CLIENT, 40_000);
/// Whom it dials.
const TO: End = (SERVER, 8080);

both_families! {
    /// A pod that nobody's rules allow anything gets nothing and sends nothing, of any protocol.
    fn default_deny(w: Redirect) {
        let closed = w.allow(&[]);
        for (isolated, reason) in [(SERVER, PolicyIngress), (CLIENT, PolicyEgress)] {
            match reason {
                PolicyIngress => w.isolate_ingress(isolated, closed),
                _ => w.isolate_egress(isolated, closed),
            }
            w.next_epoch();
            for proto in [TCP, UDP, SCTP, 47] {
                w.send(At::FromPod(CLIENT), &w.first(proto, FROM, TO)).drops(reason);
            }
            w.send(At::FromPod(CLIENT), &w.echo(false, CLIENT, SERVER, 5)).drops(reason);
        }
    }

    /// Rules name identities; others stay out.
    fn by_identity(w: Redirect) {
        let ingress = w.allow(&[(Peer::Of(CLIENT), 21), (Peer::Of(REMOTE), 22)]);
        w.isolate_ingress(SERVER, ingress);
        for proto in [TCP, UDP, SCTP] {
            let _ = w.send(At::FromPod(CLIENT), &w.first(proto, FROM, TO)).redirected();
            w.send(At::FromPod(THIRD), &w.first(proto, (THIRD, 9), TO)).drops(PolicyIngress);
            let remote = w.first(proto, (REMOTE, 9), TO);
            w.send(At::ToPod(SERVER, None), &remote).passes(&remote);
            w.send(At::ToPod(SERVER, None), &w.first(proto, (Host::Remote(2), 9), TO)).drops(PolicyIngress);
            assert_eq!(w.flow(proto, (REMOTE, 9), TO).expect("a flow").ingress_rule, 22);
        }
        let egress = w.allow(&[(Peer::Of(SERVER), 31)]);
        w.isolate_egress(CLIENT, egress);
        w.next_epoch();
        let _ = w.send(At::FromPod(CLIENT), &w.tcp(SYN, (CLIENT, 41_000), TO)).redirected();
        let flow = w.flow(TCP, (CLIENT, 41_000), TO).expect("a flow");
        assert_eq!((flow.egress_rule, flow.ingress_rule), (31, 21));
        for dst in [(THIRD, 80), (REMOTE, 80), (OUTSIDE, 80)] {
            w.send(At::FromPod(CLIENT), &w.tcp(SYN, FROM, dst)).drops(PolicyEgress);
        }
    }

    /// Without redirection the hook of the sender judges both ends.
    fn by_the_stack_too(w: Stack) {
        let ingress = w.allow(&[(Peer::Of(CLIENT), 21)]);
        w.isolate_ingress(SERVER, ingress);
        let request = w.tcp(SYN, FROM, TO);
        w.send(At::FromPod(CLIENT), &request).passes(&request);
        w.send(At::FromPod(THIRD), &w.tcp(SYN, (THIRD, 9), TO)).drops(PolicyIngress);
        w.send(At::ToPod(SERVER, Some(THIRD)), &w.tcp(SYN, (THIRD, 10), TO)).drops(PolicyIngress);
    }

    /// Rules name blocks of addresses, and their exceptions.
    fn by_cidr(w: Redirect) {
        let (block, block_bits, except, except_bits): (IpAddr, _, IpAddr, _) = match w.family {
            Family::V4 => ([198, 51, 100, 0].into(), 24, [198, 51, 100, 16].into(), 28),
            Family::V6 => (
                [0x2001, 0xdb8, 0, 0, 0, 0, 0, 0].into(), 64,
                [0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10].into(), 124,
            ),
        };
        w.cidr(block, block_bits, 5);
        w.cidr(except, except_bits, 6);
        let both = w.allow(&[(Peer::Set(5), 41)]);
        w.isolate_ingress(SERVER, both);
        w.isolate_egress(SERVER, both);
        for (number, allowed) in [(7, true), (15, true), (16, false), (31, false), (32, true), (255, true)] {
            let peer = (Host::Outside(number), 9);
            for proto in [TCP, UDP, SCTP] {
                let port = 1000 + u16::from(number);
                let seen = w.send(At::ToPod(SERVER, None), &w.first(proto, peer, TO));
                assert_eq!(seen.reason(), (!allowed).then_some(PolicyIngress), "from {number}");
                let seen = w.send(At::FromPod(SERVER), &w.first(proto, (SERVER, port), peer));
                assert_eq!(seen.reason(), (!allowed).then_some(PolicyEgress), "to {number}");
            }
        }
        w.send(At::ToPod(SERVER, None), &w.tcp(SYN, (REMOTE, 9), TO)).drops(PolicyIngress);
    }

    /// Blocks hold known addresses too; those that are marked as in none are not looked up.
    fn by_cidr_of_known(w: Redirect) {
        let (block, bits) = (w.ip(REMOTE), if w.family == Family::V4 { 24 } else { 64 });
        let block = match block {
            IpAddr::V4(ip) => IpAddr::from((u32::from(ip) & !0xff).to_be_bytes()),
            IpAddr::V6(ip) => IpAddr::from((u128::from(ip) & !0xffff).to_be_bytes()),
        };
        w.cidr(block, bits, 5);
        let ruleset = w.allow(&[(Peer::Set(5), 41)]);
        w.isolate_ingress(SERVER, ruleset);
        let request = w.udp((REMOTE, 9), TO);
        w.send(At::ToPod(SERVER, None), &request).passes(&request);
        let other = Host::Remote(2);
        w.set_identity(other, 0, 0, identity_flags::POD | identity_flags::NO_CIDR);
        w.send(At::ToPod(SERVER, None), &w.udp((other, 9), TO)).drops(PolicyIngress);
    }

    /// Rules name ports and ranges of them, each protocol its own.
    fn by_port(w: Redirect) {
        let bounds = [(0, 0), (80, 1), (81, 0), (8000, 2), (9001, 0), (65_535, 1)];
        let cases = [
            (0, false), (79, false), (80, true), (81, false), (7999, false), (8000, true),
            (9000, true), (9001, false), (65_534, false), (65_535, true),
        ];
        for proto in [TCP, UDP, SCTP] {
            let rules = Rules { rows: &[(Peer::Any, 1, 11), (Peer::Any, 2, 12)], ..Rules::default() };
            let rules = match proto {
                TCP => Rules { tcp: &bounds, ..rules },
                UDP => Rules { udp: &bounds, ..rules },
                _ => Rules { sctp: &bounds, ..rules },
            };
            let ruleset = w.rules(rules);
            w.isolate_ingress(SERVER, ruleset);
            w.next_epoch();
            for (port, allowed) in cases {
                let seen = w.send(At::FromPod(CLIENT), &w.first(proto, FROM, (SERVER, port)));
                assert_eq!(seen.reason(), (!allowed).then_some(PolicyIngress), "port {port} of {proto}");
            }
            for other in [TCP, UDP, SCTP].into_iter().filter(|other| *other != proto) {
                w.send(At::FromPod(CLIENT), &w.first(other, FROM, (SERVER, 80))).drops(PolicyIngress);
            }
            w.send(At::FromPod(CLIENT), &w.echo(false, CLIENT, SERVER, 80)).drops(PolicyIngress);
        }
    }

    /// A port is found among tens of thousands of bounds.
    fn among_many_bounds(w: Redirect) {
        let bounds: Vec<(u16, u16)> = (0..=21_845).map(|i| (i * 3, i % 2)).collect();
        let ruleset = w.rules(Rules { tcp: &bounds, rows: &[(Peer::Any, 1, 9)], ..Rules::default() });
        w.isolate_ingress(SERVER, ruleset);
        for port in [0, 1, 2, 3, 5, 6, 300, 302, 303, 32_766, 32_769, 32_771, 65_531, 65_532, 65_534, 65_535] {
            let seen = w.send(At::FromPod(CLIENT), &w.tcp(SYN, FROM, (SERVER, port)));
            let allowed = (port / 3) % 2 == 1;
            assert_eq!(seen.reason(), (!allowed).then_some(PolicyIngress), "port {port}");
        }
    }

    /// What has no ports is judged by its own class: a rule for ports is none for it.
    fn without_ports(w: Redirect) {
        let echo = w.echo(false, CLIENT, SERVER, 5);
        let tunnel = w.first(47, FROM, TO);
        let rules = Rules { tcp: &[(0, 1)], udp: &[(0, 1)], sctp: &[(0, 1)], ..Rules::default() };
        let of_ports = w.rules(Rules { other: 0, rows: &[(Peer::Any, 1, 1)], ..rules });
        let of_all = w.rules(Rules { other: 1, rows: &[(Peer::Any, 1, 1)], ..rules });
        w.isolate_ingress(SERVER, of_ports);
        w.send(At::FromPod(CLIENT), &echo).drops(PolicyIngress);
        w.send(At::FromPod(CLIENT), &tunnel).drops(PolicyIngress);
        w.isolate_ingress(SERVER, of_all);
        w.next_epoch();
        w.send(At::FromPod(CLIENT), &echo).redirects(&echo.clone().for_pod(SERVER));
        w.send(At::FromPod(CLIENT), &tunnel).redirects(&tunnel.clone().for_pod(SERVER));
    }

    /// Rules are a union, and the first of those that allow is named.
    fn rules_are_a_union(w: Redirect) {
        let addr = w.ip(CLIENT);
        w.cidr(addr, if w.family == Family::V4 { 32 } else { 128 }, 5);
        let orders = [([9, 3, 6], 3), ([2, 7, 4], 2), ([8, 7, 5], 5)];
        for (round, ([any, of, set], named)) in orders.into_iter().enumerate() {
            let rows = [(Peer::Any, any), (Peer::Of(CLIENT), of), (Peer::Set(5), set)];
            let ruleset = w.allow(&rows);
            w.isolate_ingress(SERVER, ruleset);
            let from = (CLIENT, 40_000 + round as u16);
            let _ = w.send(At::FromPod(CLIENT), &w.tcp(SYN, from, TO)).redirected();
            assert_eq!(w.flow(TCP, from, TO).expect("a flow").ingress_rule, named);
        }
    }

    /// The port that counts is the backend's, not the Service's.
    fn policy_is_past_translation(w: Redirect) {
        w.serve_plain(TCP, (VIP, 80), &[TO]);
        let rows = [(Peer::Of(CLIENT), 1, 1)];
        for (port, allowed) in [(80, false), (8080, true)] {
            let ruleset = w.rules(Rules { tcp: &[(0, 0), (port, 1), (port + 1, 0)], rows: &rows, ..Rules::default() });
            w.isolate_ingress(SERVER, ruleset);
            let rows = [(Peer::Of(SERVER), 1, 1)];
            let ruleset = w.rules(Rules { tcp: &[(0, 0), (port, 1), (port + 1, 0)], rows: &rows, ..Rules::default() });
            w.isolate_egress(CLIENT, ruleset);
            w.next_epoch();
            let seen = w.send(At::FromPod(CLIENT), &w.tcp(SYN, FROM, (VIP, 80)));
            assert_eq!(seen.is_let_through(), allowed);
        }
    }

    /// The replies of an allowed flow pass pods that may begin none.
    fn replies_follow(w: Redirect) {
        let closed = w.allow(&[]);
        w.isolate_ingress(CLIENT, closed);
        w.isolate_egress(SERVER, closed);
        for proto in [TCP, UDP, SCTP] {
            let _ = w.send(At::FromPod(CLIENT), &w.first(proto, FROM, TO)).redirected();
            let reply = w.answer(proto, TO, FROM);
            w.send(At::FromPod(SERVER), &reply).redirects(&reply.clone().for_pod(CLIENT));
            w.send(At::FromPod(SERVER), &w.first(proto, (SERVER, 9), FROM)).drops(PolicyEgress);
        }
        let out = w.udp(FROM, (OUTSIDE, 53));
        w.send(At::FromPod(CLIENT), &out).passes(&out);
        let reply = w.udp((OUTSIDE, 53), FROM);
        w.send(At::ToPod(CLIENT, None), &reply).passes(&reply);
        w.send(At::ToPod(CLIENT, None), &w.udp((OUTSIDE, 54), FROM)).drops(PolicyIngress);
    }

    /// What answers a denied flow is not judged as a flow of its own, until the denial is old.
    fn denied_flows_leave_a_tombstone(w: Redirect) {
        let closed = w.allow(&[]);
        w.isolate_ingress(SERVER, closed);
        for proto in [UDP, SCTP] {
            w.send(At::FromPod(CLIENT), &w.first(proto, FROM, TO)).drops(PolicyIngress);
            let backwards = w.first(proto, TO, FROM);
            w.send(At::FromPod(SERVER), &backwards).drops(PolicyIngress);
            w.age(proto, FROM, TO, 11);
            w.send(At::FromPod(SERVER), &backwards).redirects(&backwards.clone().for_pod(CLIENT));
        }
    }

    /// A change of policy holds for live flows with the next epoch, in both directions.
    fn a_new_epoch_judges_live_flows(w: Redirect) {
        let open = w.allow(&[(Peer::Of(CLIENT), 1)]);
        let closed = w.allow(&[]);
        w.serve_plain(TCP, (VIP, 80), &[TO]);
        w.isolate_ingress(SERVER, open);
        let request = w.tcp(SYN, FROM, (VIP, 80));
        let _ = w.send(At::FromPod(CLIENT), &request).redirected();
        let reply = w.tcp(SYN_ACK, TO, FROM);
        let restored = w.between(&reply, (VIP, 80), FROM).for_pod(CLIENT);
        w.send(At::FromPod(SERVER), &reply).redirects(&restored);
        w.isolate_ingress(SERVER, closed);
        w.next_epoch();
        w.send(At::FromPod(SERVER), &reply).drops(PolicyIngress);
        w.send(At::FromPod(CLIENT), &w.tcp(ACK, FROM, (VIP, 80))).drops(PolicyIngress);
        w.isolate_ingress(SERVER, open);
        w.next_epoch();
        w.send(At::FromPod(SERVER), &reply).redirects(&restored);
        let _ = w.send(At::FromPod(CLIENT), &w.tcp(ACK, FROM, (VIP, 80))).redirected();
    }

    /// A live flow is judged as its initiator's, whichever end's packet comes first.
    fn a_new_epoch_keeps_the_orientation(w: Redirect) {
        let _ = w.send(At::FromPod(CLIENT), &w.udp(FROM, TO)).redirected();
        let closed = w.allow(&[]);
        w.isolate_ingress(CLIENT, closed);
        w.isolate_egress(SERVER, closed);
        w.next_epoch();
        let reply = w.udp(TO, FROM);
        w.send(At::FromPod(SERVER), &reply).redirects(&reply.clone().for_pod(CLIENT));
        let direct = w.udp(FROM, TO);
        w.send(At::FromPod(CLIENT), &direct).redirects(&direct.clone().for_pod(SERVER));
    }

    /// The node's own packets pass: by their origin, not by an address that others can claim.
    fn the_node_is_exempt(w: Redirect) {
        let closed = w.allow(&[]);
        w.isolate_ingress(SERVER, closed);
        w.isolate_egress(SERVER, closed);
        let probe = w.tcp(SYN, (Host::Node, 50_000), TO);
        w.send(At::HostToPod(SERVER), &probe).passes(&probe);
        let reply = w.tcp(SYN_ACK, TO, (Host::Node, 50_000));
        w.send(At::FromPod(SERVER), &reply).passes(&reply);
        w.next_epoch();
        w.send(At::HostToPod(SERVER), &probe).passes(&probe);
        w.send(At::FromPod(SERVER), &reply).passes(&reply);
        w.send(At::ToPod(SERVER, None), &w.tcp(SYN, (Host::Node, 50_001), TO)).drops(PolicyIngress);
        w.send(At::HostToPod(SERVER), &w.tcp(SYN, (OUTSIDE, 50_002), TO)).drops(PolicyIngress);
        w.send(At::ToPod(SERVER, None), &w.tcp(SYN, (Host::OtherNode, 1), TO)).drops(PolicyIngress);
    }

    /// What a pod sends to its own node is not policed, to other nodes it is.
    fn egress_to_the_node_is_exempt(w: Redirect) {
        let closed = w.allow(&[]);
        w.isolate_egress(CLIENT, closed);
        let request = w.udp(FROM, (Host::Node, 53));
        w.send(At::FromPod(CLIENT), &request).passes(&request);
        w.send(At::FromPod(CLIENT), &w.udp(FROM, (Host::OtherNode, 53))).drops(PolicyEgress);
    }

    /// Unless the settings ask for it.
    fn egress_to_the_node_by_setting(w: Stack) {
        let closed = w.allow(&[]);
        w.isolate_egress(CLIENT, closed);
        w.send(At::FromPod(CLIENT), &w.udp(FROM, (Host::Node, 53))).drops(PolicyEgress);
    }

    /// An address that another pod has now is judged and delivered as that pod.
    fn an_address_is_used_again(w: Redirect) {
        let request = w.udp(FROM, TO);
        w.send(At::FromPod(CLIENT), &request).redirects(&request.clone().for_pod(SERVER));
        move_address(&mut w, SERVER, THIRD);
        w.next_epoch();
        w.send(At::FromPod(CLIENT), &request).redirects(&request.clone().for_pod(THIRD));
        let closed = w.allow(&[]);
        w.isolate_ingress(THIRD, closed);
        w.next_epoch();
        w.send(At::FromPod(CLIENT), &request).drops(PolicyIngress);
    }

    /// A flow that was allowed to a pod is not delivered to whoever has its address next, though no
    /// epoch has begun: not by device, and not while the new pod is closed.
    fn a_closed_pod_gets_nothing(w: Redirect) {
        let request = w.udp(FROM, TO);
        let _ = w.send(At::FromPod(CLIENT), &request).redirected();
        w.change_pod(SERVER, |pod| pod.state = subject_state::CLOSED);
        w.send(At::FromPod(CLIENT), &request).drops(DropReason::PodClosed);
        w.send(At::FromPod(THIRD), &w.udp((THIRD, 9), TO)).drops(DropReason::PodClosed);
        w.send(At::ToPod(SERVER, None), &w.udp((OUTSIDE, 9), TO)).drops(DropReason::PodClosed);
        w.send(At::FromPod(SERVER), &w.udp(TO, FROM)).drops(DropReason::PodClosed);
    }

    /// A pod that is not known yet is served, and not policed.
    fn an_unknown_pod_is_served(w: Redirect) {
        let closed = w.allow(&[]);
        w.isolate_ingress(SERVER, closed);
        w.isolate_egress(SERVER, closed);
        w.change_pod(SERVER, |pod| pod.state = subject_state::SERVICES);
        w.serve_plain(TCP, (VIP, 80), &[(THIRD, 80)]);
        let request = w.tcp(SYN, (SERVER, 9), (VIP, 80));
        w.send(At::FromPod(SERVER), &request)
            .redirects(&w.between(&request, (SERVER, 9), (THIRD, 80)).for_pod(THIRD));
        let _ = w.send(At::FromPod(CLIENT), &w.tcp(SYN, FROM, TO)).redirected();
    }

    /// Multicast is policed as what the pod sends.
    fn multicast_is_policed(w: Redirect) {
        let mut frame = w.udp(FROM, (OUTSIDE, 5353));
        frame.dst = match w.family {
            Family::V4 => [224, 0, 0, 251].into(),
            Family::V6 => [0xff02, 0, 0, 0, 0, 0, 0, 0xfb].into(),
        };
        w.send(At::FromPod(CLIENT), &frame).passes(&frame);
        let closed = w.allow(&[]);
        w.isolate_egress(CLIENT, closed);
        w.send(At::FromPod(CLIENT), &frame).drops(PolicyEgress);
        assert_eq!(w.flows(), 0);
    }

    /// What a bridge floods to an isolated pod, though it is another's, does not reach it.
    fn flooded_packets(w: Stack) {
        let flooded = w.udp((OUTSIDE, 9), (THIRD, 8080));
        w.send(At::ToPod(SERVER, None), &flooded).passes(&flooded);
        let open = w.allow(&[(Peer::Any, 1)]);
        w.isolate_ingress(SERVER, open);
        w.send(At::ToPod(SERVER, None), &flooded).drops(PolicyIngress);
        assert_eq!(w.flows(), 0);
    }

    /// With policies off nothing is judged, and pods still cannot claim others' addresses.
    fn without_policies(w: Unpoliced) {
        let closed = w.allow(&[]);
        w.isolate_ingress(SERVER, closed);
        w.isolate_egress(CLIENT, closed);
        let _ = w.send(At::FromPod(CLIENT), &w.tcp(SYN, FROM, TO)).redirected();
        let forged = w.tcp(SYN, (THIRD, 1), TO);
        w.send(At::FromPod(CLIENT), &forged).drops(DropReason::SourceSpoofed);
    }
}

/// Gives a pod's address to another pod.
pub fn move_address(w: &mut World, from: Host, to: Host) {
    let mut old = None;
    w.change_pod(from, |pod| {
        old = Some((pod.addr4, pod.addr6));
        pod.state = subject_state::CLOSED;
        (pod.addr4, pod.addr6) = Default::default();
    });
    let (addr4, addr6) = old.expect("the change is made");
    w.change_pod(to, |pod| (pod.addr4, pod.addr6) = (addr4, addr6));
    w.set_identity(from, identity_of(to), ifindex(to), 0);
}
