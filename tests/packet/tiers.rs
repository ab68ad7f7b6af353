//! Policy in tiers: Admin, NetworkPolicies, Baseline.

use std::net::IpAddr;

use dataplane_common::{
    abi::{
        action::{ACCEPT, DENY, PASS},
        name,
    },
    net::proto::{SCTP, TCP, UDP},
    verdict::DropReason::{PolicyEgress, PolicyIngress},
};

use crate::{
    frame::Problem,
    rules::{Peer, Rules, Tiered},
    seen::At,
    world::*,
};

/// A client's end of a flow.
const FROM: End = (CLIENT, 40_000);
/// Whom it dials.
const TO: End = (SERVER, 8080);

both_families! {
    /// Admin is asked first, then NetworkPolicies or, where none isolates, Baseline.
    fn in_order(w: Redirect) {
        let any = Peer::Any;
        let allow: &[_] = &[(any, 0, 300)];
        let tiers = |admin: Option<u32>, baseline: Option<u32>| -> Vec<Tiered> {
            let admin = admin.map(|action| Tiered::admin(1, action, any));
            admin.into_iter().chain(baseline.map(|action| Tiered::baseline(1, action, any))).collect()
        };
        // What Admin says, what the NetworkPolicies allow if any isolates, what Baseline says: verdict, rule.
        let cases = [
            (None, None, None, true, 0),
            (None, Some(&[][..]), None, false, 0),
            (None, Some(allow), None, true, 300),
            (None, None, Some(DENY), false, 201),
            (None, None, Some(ACCEPT), true, 201),
            (None, None, Some(PASS), true, 0),
            (Some(ACCEPT), Some(&[][..]), None, true, 101),
            (Some(ACCEPT), None, Some(DENY), true, 101),
            (Some(DENY), Some(allow), None, false, 101),
            (Some(DENY), None, Some(ACCEPT), false, 101),
            (Some(PASS), Some(allow), None, true, 300),
            (Some(PASS), Some(&[][..]), None, false, 0),
            (Some(PASS), None, Some(DENY), false, 201),
            (Some(PASS), None, None, true, 0),
        ];
        for (round, (admin, isolated, baseline, allowed, rule)) in cases.into_iter().enumerate() {
            let tiers = tiers(admin, baseline);
            let rows = isolated.unwrap_or_default();
            let ruleset = w.rules(Rules { rows, tiers: &tiers, open: isolated.is_none(), ..Rules::default() });
            for proto in [TCP, UDP, SCTP] {
                let from = (CLIENT, 41_000 + round as u16);
                w.isolate_egress(CLIENT, 0);
                w.isolate_ingress(SERVER, ruleset);
                w.next_epoch();
                let seen = w.send(At::FromPod(CLIENT), &w.first(proto, from, TO));
                assert_eq!(seen.reason(), (!allowed).then_some(PolicyIngress), "case {round}");
                assert_eq!(w.flow(proto, from, TO).expect("a flow").ingress_rule, rule, "case {round}");
                w.isolate_ingress(SERVER, 0);
                w.isolate_egress(CLIENT, ruleset);
                w.next_epoch();
                let seen = w.send(At::FromPod(CLIENT), &w.first(proto, from, TO));
                assert_eq!(seen.reason(), (!allowed).then_some(PolicyEgress), "case {round}");
                assert_eq!(w.flow(proto, from, TO).expect("a flow").egress_rule, rule, "case {round}");
            }
        }
    }

    /// The first rule of a tier decides, whichever of the rows has it.
    fn the_first_of_all_rows(w: Redirect) {
        let addr = w.ip(CLIENT);
        w.cidr(addr, if w.family == Family::V4 { 32 } else { 128 }, 5);
        let peers = [Peer::Any, Peer::Of(CLIENT), Peer::Set(5)];
        for (round, first) in peers.into_iter().enumerate() {
            let others = peers.into_iter().enumerate().filter(|(index, _)| *index != round);
            let others = others.map(|(index, peer)| Tiered::admin(2 + index as u32, ACCEPT, peer));
            let tiers: Vec<_> = [Tiered::admin(1, DENY, first)].into_iter().chain(others).collect();
            let ruleset = w.tiers(&tiers);
            w.isolate_ingress(SERVER, ruleset);
            let from = (CLIENT, 42_000 + round as u16);
            w.send(At::FromPod(CLIENT), &w.tcp(SYN, from, TO)).drops(PolicyIngress);
            assert_eq!(w.flow(TCP, from, TO).expect("a flow").ingress_rule, 101);
        }
    }

    /// A denial names its rule in events as in flows.
    fn denials_have_names(w: Redirect) {
        let ruleset = w.tiers(&[Tiered::baseline(7, DENY, Peer::Of(CLIENT))]);
        w.isolate_ingress(SERVER, ruleset);
        w.kernel.write_at(name::LISTENERS, 0, &1u32);
        w.send(At::FromPod(CLIENT), &w.udp(FROM, TO)).drops(PolicyIngress);
        let events = w.kernel.events();
        assert_eq!(events.len(), 1, "{events:?}");
        assert_eq!((events[0].egress_rule, events[0].ingress_rule), (0, 207));
    }

    /// What the node sends to its pods is not policed, by no tier.
    fn from_the_own_node(w: Redirect) {
        let ruleset = w.tiers(&[Tiered::admin(1, DENY, Peer::Any)]);
        w.isolate_ingress(SERVER, ruleset);
        let probe = w.tcp(SYN, (Host::Node, 50_000), TO);
        w.send(At::HostToPod(SERVER), &probe).passes(&probe);
        w.send(At::ToPod(SERVER, None), &w.tcp(SYN, (Host::OtherNode, 1), TO)).drops(PolicyIngress);
    }

    /// What a pod sends to its own node is policed by the tiers, and not by NetworkPolicies.
    fn to_the_own_node(w: Redirect) {
        let node = (Host::Node, 53);
        let dns = w.udp(FROM, node);
        let pass = w.rules(Rules { tiers: &[Tiered::admin(1, PASS, Peer::Any)], ..Rules::default() });
        w.isolate_egress(CLIENT, pass);
        w.send(At::FromPod(CLIENT), &dns).passes(&dns);
        let deny = [Tiered::admin(1, DENY, Peer::Of(Host::Node))];
        let deny = w.rules(Rules { tiers: &deny, ..Rules::default() });
        w.isolate_egress(CLIENT, deny);
        w.next_epoch();
        w.send(At::FromPod(CLIENT), &dns).drops(PolicyEgress);
        let baseline = w.tiers(&[Tiered::baseline(1, DENY, Peer::Of(Host::Node))]);
        w.isolate_egress(CLIENT, baseline);
        w.next_epoch();
        w.send(At::FromPod(CLIENT), &dns).drops(PolicyEgress);
    }

    /// Nodes are peers like pods.
    fn to_other_nodes(w: Redirect) {
        let other = (Host::OtherNode, 443);
        let ruleset = w.rules(Rules {
            tiers: &[Tiered::admin(1, ACCEPT, Peer::Of(Host::OtherNode)), Tiered::admin(2, DENY, Peer::Any)],
            ..Rules::default()
        });
        w.isolate_egress(CLIENT, ruleset);
        let allowed = w.tcp(SYN, FROM, other);
        w.send(At::FromPod(CLIENT), &allowed).passes(&allowed);
        w.send(At::FromPod(CLIENT), &w.tcp(SYN, FROM, (OUTSIDE, 443))).drops(PolicyEgress);
    }

    /// A pod that reaches itself through a Service is policed by the tiers, in both directions, and not
    /// by NetworkPolicies.
    fn hairpins(w: Redirect) {
        w.serve_plain(TCP, (VIP, 80), &[(CLIENT, 8080)]);
        let closed = w.allow(&[]);
        w.isolate_egress(CLIENT, closed);
        w.isolate_ingress(CLIENT, closed);
        let _ = w.send(At::FromPod(CLIENT), &w.tcp(SYN, FROM, (VIP, 80))).redirected();
        let deny = w.rules(Rules { tiers: &[Tiered::admin(1, DENY, Peer::Of(CLIENT))], ..Rules::default() });
        for (egress, ingress, reason) in [(deny, closed, PolicyEgress), (closed, deny, PolicyIngress)] {
            w.isolate_egress(CLIENT, egress);
            w.isolate_ingress(CLIENT, ingress);
            w.next_epoch();
            let from = (CLIENT, FROM.1 + 1);
            w.send(At::FromPod(CLIENT), &w.tcp(SYN, from, (VIP, 80))).drops(reason);
        }
    }

    /// Unless the settings ask for it: then NetworkPolicies police it too.
    fn hairpins_by_setting(w: Stack) {
        w.serve_plain(TCP, (VIP, 80), &[(CLIENT, 8080)]);
        let closed = w.allow(&[]);
        w.isolate_ingress(CLIENT, closed);
        w.send(At::FromPod(CLIENT), &w.tcp(SYN, FROM, (VIP, 80))).drops(PolicyIngress);
    }

    /// Networks match what has no ports too.
    fn networks_match_icmp(w: Redirect) {
        let net: IpAddr = if w.family == Family::V4 {
            [198, 51, 100, 0].into()
        } else {
            [0x2001, 0xdb8, 0, 0, 0, 0, 0, 0].into()
        };
        w.cidr(net, if w.family == Family::V4 { 24 } else { 64 }, 5);
        let ruleset = w.tiers(&[Tiered::admin(1, DENY, Peer::Set(5))]);
        w.isolate_egress(CLIENT, ruleset);
        w.send(At::FromPod(CLIENT), &w.echo(false, CLIENT, OUTSIDE, 5)).drops(PolicyEgress);
        w.send(At::FromPod(CLIENT), &w.first(47, FROM, (OUTSIDE, 0))).drops(PolicyEgress);
        let echo = w.echo(false, CLIENT, REMOTE, 5);
        w.send(At::FromPod(CLIENT), &echo).passes(&echo);
    }

    /// An error about an accepted flow passes, whoever sends it; the sender could not begin a flow.
    fn errors_of_accepted_flows(w: Redirect) {
        let ruleset = w.tiers(&[Tiered::admin(1, ACCEPT, Peer::Of(CLIENT)), Tiered::admin(2, DENY, Peer::Any)]);
        w.isolate_ingress(SERVER, ruleset);
        let closed = w.tiers(&[Tiered::admin(1, DENY, Peer::Any)]);
        w.isolate_egress(SERVER, closed);
        w.isolate_ingress(CLIENT, closed);
        let request = w.udp(FROM, TO);
        let _ = w.send(At::FromPod(CLIENT), &request).redirected();
        for problem in [Problem::Port, Problem::TooBig, Problem::Expired] {
            let error = request.error(w.ip(SERVER), problem, 8).of_pod(SERVER);
            w.send_summed(At::FromPod(SERVER), &error).redirects(&error.clone().for_pod(CLIENT));
        }
        w.send(At::FromPod(SERVER), &w.echo(false, SERVER, CLIENT, 1)).drops(PolicyEgress);
    }

    /// An address in the pods' ranges that nobody knows may be a pod: rules that deny pods deny it.
    fn unknown_pods(w: Redirect) {
        let (range, bits): (IpAddr, _) = if w.family == Family::V4 {
            ([198, 51, 100, 0].into(), 25)
        } else {
            ([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0].into(), 121)
        };
        w.pod_range(range, bits);
        let unknown = Tiered::admin(1, DENY, Peer::Unknown);
        let ruleset = w.tiers(&[unknown, Tiered::admin(1, DENY, Peer::Of(REMOTE))]);
        w.isolate_ingress(SERVER, ruleset);
        w.isolate_egress(SERVER, ruleset);
        let outside = w.tcp(SYN, (Host::Outside(200), 9), TO);
        w.send(At::ToPod(SERVER, None), &outside).passes(&outside);
        w.send(At::ToPod(SERVER, None), &w.tcp(SYN, (Host::Outside(100), 9), TO)).drops(PolicyIngress);
        w.send(At::FromPod(SERVER), &w.tcp(SYN, (SERVER, 9), (Host::Outside(100), 9))).drops(PolicyEgress);
        w.send(At::ToPod(SERVER, None), &w.tcp(SYN, (REMOTE, 9), TO)).drops(PolicyIngress);
        let known = w.tcp(SYN, (Host::Remote(2), 9), TO);
        w.send(At::ToPod(SERVER, None), &known).passes(&known);
    }

    /// A ruleset that isolates nobody denies nothing that has no port class of its own.
    fn multicast(w: Redirect) {
        let mut frame = w.udp(FROM, (OUTSIDE, 5353));
        frame.dst = match w.family {
            Family::V4 => [224, 0, 0, 251].into(),
            Family::V6 => [0xff02, 0, 0, 0, 0, 0, 0, 0xfb].into(),
        };
        let ruleset = w.tiers(&[Tiered::admin(1, DENY, Peer::Of(SERVER))]);
        w.isolate_egress(CLIENT, ruleset);
        w.send(At::FromPod(CLIENT), &frame).passes(&frame);
        let ruleset = w.tiers(&[Tiered::baseline(1, DENY, Peer::Any)]);
        w.isolate_egress(CLIENT, ruleset);
        w.send(At::FromPod(CLIENT), &frame).drops(PolicyEgress);
    }

    /// Tiers are asked of live flows too, in both directions.
    fn a_new_epoch_judges_live_flows(w: Redirect) {
        let request = w.tcp(SYN, FROM, TO);
        let _ = w.send(At::FromPod(CLIENT), &request).redirected();
        let reply = w.tcp(SYN_ACK, TO, FROM);
        let _ = w.send(At::FromPod(SERVER), &reply).redirected();
        let ruleset = w.tiers(&[Tiered::baseline(1, DENY, Peer::Of(CLIENT))]);
        w.isolate_ingress(SERVER, ruleset);
        w.next_epoch();
        w.send(At::FromPod(SERVER), &reply).drops(PolicyIngress);
        w.send(At::FromPod(CLIENT), &w.tcp(ACK, FROM, TO)).drops(PolicyIngress);
    }
}
