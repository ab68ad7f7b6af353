//! Beside another implementation of Services: it translates between our hooks, and policy is asked of the backend that it
//! chose.

use dataplane_common::{
    net::proto::{SCTP, TCP, UDP},
    verdict::DropReason::{PolicyEgress, PolicyIngress},
};

use crate::{rules::Peer, seen::At, service::Service, world::*};

/// A client's end of a flow.
const FROM: End = (CLIENT, 40_000);
/// The frontend that it dials.
const DIALLED: End = (VIP, 80);
/// A backend on this node.
const HERE: End = (SERVER, 8080);
/// A backend on another node.
const THERE: End = (REMOTE, 8080);

/// A Service of every protocol, whose backends are chosen by somebody else.
fn serve(w: &mut World) {
    for proto in [TCP, UDP, SCTP] {
        w.serve(&Service::new(proto, DIALLED, &[HERE, THERE]));
    }
}

both_families! {
    /// Nothing is translated here, and the frontend's address is not taken for a peer.
    fn a_frontend_is_no_peer(w: Beside) {
        serve(&mut w);
        let rules = w.allow(&[(Peer::Of(SERVER), 31)]);
        w.isolate_egress(CLIENT, rules);
        w.next_epoch();
        for proto in [TCP, UDP, SCTP] {
            let request = w.first(proto, FROM, DIALLED);
            w.send(At::FromPod(CLIENT), &request).passes(&request);
        }
        // What is no frontend is a peer.
        w.send(At::FromPod(CLIENT), &w.tcp(SYN, FROM, (VIP, 81))).drops(PolicyEgress);
        w.send(At::FromPod(CLIENT), &w.tcp(SYN, FROM, (OUTSIDE, 80))).drops(PolicyEgress);
    }

    /// Of a backend on this node both ends are asked where it receives.
    fn a_backend_on_this_node(w: Beside) {
        serve(&mut w);
        let egress = w.allow(&[(Peer::Of(SERVER), 31)]);
        w.isolate_egress(CLIENT, egress);
        let ingress = w.allow(&[(Peer::Of(CLIENT), 21), (Peer::Of(THIRD), 22)]);
        w.isolate_ingress(SERVER, ingress);
        let none = w.allow(&[]);
        w.isolate_egress(THIRD, none);
        w.next_epoch();
        for proto in [TCP, UDP, SCTP] {
            for client in [CLIENT, THIRD] {
                let request = w.first(proto, (client, 40_000), DIALLED);
                w.send(At::FromPod(client), &request).passes(&request);
            }
            let translated = w.first(proto, FROM, HERE);
            w.send(At::ToPod(SERVER, Some(CLIENT)), &translated).passes(&translated);
            let flow = w.flow(proto, FROM, HERE).expect("a flow");
            assert_eq!((flow.egress_rule, flow.ingress_rule), (31, 21));
            let other = w.first(proto, (THIRD, 40_000), HERE);
            w.send(At::ToPod(SERVER, Some(THIRD)), &other).drops(PolicyEgress);
        }
        w.isolate_ingress(SERVER, none);
        w.next_epoch();
        w.send(At::ToPod(SERVER, Some(CLIENT)), &w.tcp(SYN, FROM, HERE)).drops(PolicyIngress);
    }

    /// Of a backend on another node the sender is asked where the packet leaves.
    fn a_backend_on_another_node(w: Beside) {
        serve(&mut w);
        let rules = w.allow(&[(Peer::Of(SERVER), 31)]);
        w.isolate_egress(CLIENT, rules);
        w.next_epoch();
        for proto in [TCP, UDP, SCTP] {
            w.send(At::ToNet(CLIENT), &w.first(proto, FROM, THERE)).drops(PolicyEgress);
        }
        let rules = w.allow(&[(Peer::Of(REMOTE), 32)]);
        w.isolate_egress(CLIENT, rules);
        w.next_epoch();
        for proto in [TCP, UDP, SCTP] {
            let request = w.first(proto, FROM, THERE);
            w.send(At::ToNet(CLIENT), &request).passes(&request);
            assert_eq!(w.flow(proto, FROM, THERE).expect("a flow").egress_rule, 32);
            let answer = w.answer(proto, THERE, FROM);
            w.send(At::FromNet, &answer).passes(&answer);
        }
    }

    /// An answer in the frontend's name reaches a pod that may receive nothing else.
    fn an_answer_is_no_flow_of_its_own(w: Beside) {
        serve(&mut w);
        let none = w.allow(&[]);
        w.isolate_ingress(CLIENT, none);
        w.next_epoch();
        for proto in [TCP, UDP, SCTP] {
            let request = w.first(proto, FROM, DIALLED);
            w.send(At::FromPod(CLIENT), &request).passes(&request);
            let answer = w.answer(proto, DIALLED, FROM);
            w.send(At::ToPod(CLIENT, None), &answer).passes(&answer);
        }
        w.send(At::ToPod(CLIENT, None), &w.udp(DIALLED, (CLIENT, 40_001))).drops(PolicyIngress);
    }

    /// A change of policy cuts the live flow where the backend is seen, and only there.
    fn a_live_flow_is_asked_again(w: Beside) {
        serve(&mut w);
        let (request, translated) = (w.tcp(SYN, FROM, DIALLED), w.tcp(SYN, FROM, THERE));
        w.send(At::FromPod(CLIENT), &request).passes(&request);
        w.send(At::ToNet(CLIENT), &translated).passes(&translated);
        let none = w.allow(&[]);
        w.isolate_egress(CLIENT, none);
        w.next_epoch();
        let (request, translated) = (w.tcp(ACK, FROM, DIALLED), w.tcp(ACK, FROM, THERE));
        w.send(At::FromPod(CLIENT), &request).passes(&request);
        w.send(At::ToNet(CLIENT), &translated).drops(PolicyEgress);
    }

    /// What the node itself sends, and what pods of other nodes send through it, is nobody's egress here.
    fn others_packets_leave_as_they_are(w: Beside) {
        serve(&mut w);
        for (at, from) in [(At::HostToNet, (Host::Node, 9)), (At::ToNet(CLIENT), (OUTSIDE, 9))] {
            let packet = w.tcp(SYN, from, THERE);
            w.send(at, &packet).passes(&packet);
            assert!(w.flow(TCP, from, THERE).is_none(), "{at:?}");
        }
    }
}
