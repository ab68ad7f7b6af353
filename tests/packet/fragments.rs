//! Fragmented datagrams: later fragments share the verdict and the translation of the first.

use dataplane_common::{
    net::proto::UDP,
    verdict::DropReason::{FragmentUnknown, PolicyIngress, Truncated},
};

use crate::{
    frame::{Body, Frame},
    rules::{Peer, Rules},
    seen::At,
    world::*,
};

const FROM: End = (CLIENT, 40_000);
const TO: End = (SERVER, 8080);

both_families! {
    /// Both fragments of a request and of its reply are translated, and fit together again.
    fn through_a_service(w: Redirect) {
        w.serve_plain(UDP, (VIP, 53), &[TO]);
        let request = w.udp(FROM, (VIP, 53));
        let out = request.cut(77, 16).map(|part| w.send(At::FromPod(CLIENT), &part).redirected());
        assert_eq!(Frame::join([&out[0], &out[1]]), w.between(&request, FROM, TO).for_pod(SERVER));
        let reply = w.udp(TO, FROM);
        let out = reply.cut(78, 16).map(|part| w.send(At::FromPod(SERVER), &part).redirected());
        let want = w.between(&reply, (VIP, 53), FROM).for_pod(CLIENT);
        assert_eq!(Frame::join([&out[0], &out[1]]), want);
    }

    /// The same by the stack.
    fn through_a_service_by_the_stack(w: Stack) {
        w.serve_plain(UDP, (VIP, 53), &[TO]);
        let request = w.udp(FROM, (VIP, 53));
        let out = request.cut(77, 16).map(|part| w.send(At::FromPod(CLIENT), &part).passed());
        assert_eq!(Frame::join([&out[0], &out[1]]), w.between(&request, FROM, TO));
        for part in &out {
            w.send(At::ToPod(SERVER, Some(CLIENT)), part).passes(part);
        }
        let reply = w.udp(TO, FROM);
        let parts = reply.cut(78, 16);
        for part in &parts {
            w.send(At::FromPod(SERVER), part).passes(part);
        }
        let out = parts.map(|part| w.send(At::ToPod(CLIENT, Some(SERVER)), &part).passed());
        assert_eq!(Frame::join([&out[0], &out[1]]), w.between(&reply, (VIP, 53), FROM));
    }

    /// A later fragment before the first is nobody's; after it, it is the first one's.
    fn out_of_order(w: Redirect) {
        let [first, second] = w.udp(FROM, TO).cut(79, 16);
        w.send(At::FromPod(CLIENT), &second).drops(FragmentUnknown);
        w.send(At::ToPod(SERVER, None), &second).drops(FragmentUnknown);
        w.send(At::FromNet, &second).passes(&second);
        let _ = w.send(At::FromPod(CLIENT), &first).redirected();
        let _ = w.send(At::FromPod(CLIENT), &second).redirected();
        let [_, other] = w.udp(FROM, TO).cut(80, 16);
        w.send(At::FromPod(CLIENT), &other).drops(FragmentUnknown);
    }

    /// Policy denies all fragments of what it denies.
    fn of_a_denied_datagram(w: Redirect) {
        let ruleset = w.rules(Rules {
            udp: &[(0, 0), (8080, 1), (8081, 0)],
            rows: &[(Peer::Any, 1, 1)],
            ..Rules::default()
        });
        w.isolate_ingress(SERVER, ruleset);
        for part in w.udp(FROM, TO).cut(81, 16) {
            w.send(At::FromPod(CLIENT), &part).redirects(&part.clone().for_pod(SERVER));
        }
        for part in w.udp(FROM, (SERVER, 8081)).cut(82, 16) {
            w.send(At::FromPod(CLIENT), &part).drops(PolicyIngress);
        }
    }

    /// A first fragment too short for its ports is no way around policy.
    fn tiny_first_fragments(w: Redirect) {
        let [first, _] = w.tcp(SYN, FROM, TO).cut(83, 8);
        w.send(At::FromPod(CLIENT), &first).drops(Truncated);
    }

    /// A fragment is of the datagram of its protocol and ends only.
    fn other_protocols_fragments(w: Redirect) {
        let [first, second] = w.udp(FROM, TO).cut(84, 16);
        let _ = w.send(At::FromPod(CLIENT), &first).redirected();
        let Body::Other { data, .. } = second.body.clone() else {
            panic!("not a fragment");
        };
        let other = Frame { body: Body::Other { proto: 6, data }, ..second.clone() };
        w.send(At::FromPod(CLIENT), &other).drops(FragmentUnknown);
        let other = Frame { dst: w.ip(THIRD), ..second };
        w.send(At::FromPod(CLIENT), &other).drops(FragmentUnknown);
    }

    /// Echoes are cut too.
    fn echoes(w: Redirect) {
        for part in w.echo(false, CLIENT, SERVER, 6).cut(85, 16) {
            w.send(At::FromPod(CLIENT), &part).redirects(&part.clone().for_pod(SERVER));
        }
        for part in w.echo(true, SERVER, CLIENT, 6).cut(86, 16) {
            w.send(At::FromPod(SERVER), &part).redirects(&part.clone().for_pod(CLIENT));
        }
    }

    /// A large reply of a backend to an outside client leaves by the node's address.
    fn through_a_node_port(w: Redirect) {
        use dataplane_common::abi::scope::EXTERNAL;
        let (client, at) = ((OUTSIDE, 5_000), (Host::Node, 30_053));
        w.serve(&crate::service::Service {
            scope: EXTERNAL,
            ..crate::service::Service::new(UDP, at, &[TO])
        });
        let request = w.udp(client, at);
        let out = request.cut(87, 8).map(|part| w.send(At::FromNet, &part).redirected());
        assert_eq!(Frame::join([&out[0], &out[1]]), w.between(&request, client, TO).for_pod(SERVER));
        let reply = w.udp(TO, client);
        let out = reply.cut(88, 16).map(|part| w.send(At::FromPod(SERVER), &part).redirected());
        assert_eq!(Frame::join([&out[0], &out[1]]), w.between(&reply, at, client).routed());
    }
}
