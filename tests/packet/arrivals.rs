//! Flows that come in by an uplink for a pod of this node itself: from other nodes, and from outside.

use dataplane_common::{
    abi::{ct_flags, identity_flags},
    net::proto::{SCTP, TCP, UDP},
    verdict::DropReason::{OutsideSpoofed, PolicyEgress, PolicyIngress},
};

use crate::{rules::Peer, seen::At, world::*};

/// The end that comes in.
const FROM: End = (REMOTE, 40_000);
/// The pod's.
const TO: End = (SERVER, 8080);
/// An outside client that no route leads to.
const UNREACHABLE: Host = Host::Outside(201);

both_families! {
    /// They go from device to device in both directions, from their first packet on.
    fn past_the_stack(w: Redirect) {
        for proto in [TCP, UDP, SCTP] {
            for from in [FROM, (OUTSIDE, 5_000)] {
                let (request, reply) = (w.first(proto, from, TO), w.answer(proto, TO, from));
                for _ in 0..2 {
                    w.send(At::FromNet, &request).redirects(&request.clone().for_pod(SERVER));
                    w.send(At::FromPod(SERVER), &reply).redirects(&reply.clone().routed());
                    w.send(At::ToNet(SERVER), &reply).passes(&reply);
                }
                let flow = w.flow(proto, from, TO).expect("a flow");
                let want = ct_flags::OUTSIDE | ct_flags::REDIRECT | ct_flags::REPLIED;
                assert_eq!(flow.flags & !ct_flags::INITIATOR_IS_B, want);
            }
        }
        assert_eq!((w.flows(), w.half_open_total()), (6, 0));
    }

    /// With everything through the stack, they are opened where they reach the pod; and so beside another
    /// implementation of Services, which may have translated them.
    fn by_the_stack(w: Stack) {
        are_opened_at_the_pod(&w);
    }

    /// As above.
    fn beside_another_implementation(w: Beside) {
        are_opened_at_the_pod(&w);
    }

    /// Policy forbids them at the uplink, and lets a live flow go no further when it changes.
    fn policy_is_asked_at_the_uplink(w: Redirect) {
        let open = w.allow(&[(Peer::Of(REMOTE), 1)]);
        let closed = w.allow(&[]);
        for proto in [TCP, UDP, SCTP] {
            let (request, reply) = (w.first(proto, FROM, TO), w.answer(proto, TO, FROM));
            w.isolate_ingress(SERVER, open);
            w.next_epoch();
            w.send(At::FromNet, &w.first(proto, (OUTSIDE, 9), TO)).drops(PolicyIngress);
            w.send(At::FromNet, &request).redirects(&request.clone().for_pod(SERVER));
            w.isolate_ingress(SERVER, closed);
            w.next_epoch();
            w.send(At::FromNet, &request).drops(PolicyIngress);
            w.send(At::FromPod(SERVER), &reply).drops(PolicyIngress);
        }
    }

    /// A sender whose address a pod of this node has now is judged as that pod, and answered there.
    fn from_who_is_here_now(w: Redirect) {
        for proto in [TCP, UDP, SCTP] {
            let request = w.first(proto, FROM, TO);
            w.send(At::FromNet, &request).redirects(&request.clone().for_pod(SERVER));
        }
        let (here, v4, v6) = (ifindex(THIRD), World::address(Family::V4, REMOTE), World::address(Family::V6, REMOTE));
        w.change_pod(THIRD, |pod| (pod.addr4, pod.addr6) = (addr4(v4), addr6(v6)));
        w.set_identity(REMOTE, identity_of(THIRD), here, identity_flags::POD);
        let open = w.allow(&[(Peer::Of(SERVER), 1)]);
        let closed = w.allow(&[]);
        for proto in [TCP, UDP, SCTP] {
            let (request, reply) = (w.first(proto, FROM, TO), w.answer(proto, TO, FROM));
            w.isolate_egress(THIRD, closed);
            w.next_epoch();
            w.send(At::FromPod(THIRD), &request).drops(PolicyEgress);
            w.isolate_egress(THIRD, open);
            w.next_epoch();
            w.send(At::FromPod(THIRD), &request).redirects(&request.clone().for_pod(SERVER));
            w.send(At::FromPod(SERVER), &reply).redirects(&reply.clone().for_pod(THIRD));
            w.send(At::FromNet, &request).drops(OutsideSpoofed);
        }
    }

    /// What the lookup of routes finds no way for is the stack's to send, or to refuse.
    fn an_answer_without_a_route_is_left_to_the_stack(w: Redirect) {
        let from = (UNREACHABLE, 5_000);
        let (request, reply) = (w.udp(from, TO), w.udp(TO, from));
        w.send(At::FromNet, &request).redirects(&request.clone().for_pod(SERVER));
        w.send(At::FromPod(SERVER), &reply).passes(&reply);
    }

    /// A connection whose beginning nobody saw here is not opened at the uplink.
    fn amid_a_connection(w: Redirect) {
        let frame = w.tcp(ACK, FROM, TO);
        w.send(At::FromNet, &frame).passes(&frame);
        assert_eq!(w.flows(), 0);
    }
}

fn are_opened_at_the_pod(w: &World) {
    for proto in [TCP, UDP, SCTP] {
        let (request, reply) = (w.first(proto, FROM, TO), w.answer(proto, TO, FROM));
        w.send(At::FromNet, &request).passes(&request);
        assert!(w.flow(proto, FROM, TO).is_none());
        w.send(At::ToPod(SERVER, None), &request).passes(&request);
        w.send(At::FromPod(SERVER), &reply).passes(&reply);
    }
}
