//! Backends in the host's network: this node's own address, and another node's.

use dataplane_common::{
    abi::{scope, service_flags},
    net::proto::{SCTP, TCP, UDP},
};

use crate::{seen::At, service::Service, world::*};

/// The Service.
const AT: End = (VIP, 80);
/// A backend on this node.
const HERE: End = (Host::Node, 8080);
/// A backend on another node.
const THERE: End = (Host::OtherNode, 8080);
/// A pod's end of a flow.
const FROM: End = (CLIENT, 40_000);
/// An outside client's.
const FAR: End = (OUTSIDE, 5_000);

both_families! {
    /// A pod reaches the host through the stack, and the answer is the Service's.
    fn of_this_node_from_a_pod(w: Redirect) {
        from_a_pod(&mut w, 0);
    }

    /// The same where nothing is redirected.
    fn of_this_node_from_a_pod_by_the_stack(w: Stack) {
        from_a_pod(&mut w, 0);
    }

    /// Even with masquerading for all the host sees the pod: the stack takes nothing from its own address.
    fn of_this_node_with_masquerading(w: Redirect) {
        from_a_pod(&mut w, service_flags::SNAT_ALWAYS);
    }

    /// A client outside is seen as itself, by a node port and by a Service's address.
    fn of_this_node_from_outside(w: Redirect) {
        for proto in [TCP, UDP, SCTP] {
            for (dialled, own) in [((Host::Node, 30_080), service_flags::NODE_ADDRESS), (AT, 0)] {
                let flags = own | service_flags::SNAT_REMOTE;
                w.serve(&Service { flags, scope: scope::EXTERNAL, ..Service::new(proto, dialled, &[HERE]) });
                let from = (OUTSIDE, dialled.1);
                let request = w.first(proto, from, dialled);
                w.send(At::FromNet, &request).passes(&w.between(&request, from, HERE));
                let reply = w.answer(proto, HERE, from);
                w.send(At::HostToNet, &reply).passes(&w.between(&reply, dialled, from));
            }
        }
    }

    /// A pod reaches another node through the stack, as itself.
    fn of_another_node_from_a_pod(w: Redirect) {
        for proto in [TCP, UDP, SCTP] {
            w.serve_plain(proto, AT, &[THERE]);
            let request = w.first(proto, FROM, AT);
            let inside = w.between(&request, FROM, THERE);
            w.send(At::FromPod(CLIENT), &request).passes(&inside);
            w.send(At::ToNet(CLIENT), &inside.clone().routed()).passes(&inside.routed());
            let reply = w.answer(proto, THERE, FROM);
            w.send(At::FromNet, &reply).passes(&reply);
            w.send(At::ToPod(CLIENT, None), &reply).passes(&w.between(&reply, AT, FROM));
        }
    }

    /// A client outside reaches another node as this one.
    fn of_another_node_from_outside(w: Redirect) {
        for proto in [TCP, UDP, SCTP] {
            let flags = service_flags::SNAT_REMOTE;
            w.serve(&Service { flags, scope: scope::EXTERNAL, ..Service::new(proto, AT, &[THERE]) });
            let request = w.first(proto, FAR, AT);
            let out = w.send(At::FromNet, &request).redirected();
            let own = (Host::Node, out.src_port());
            assert_eq!(out, w.between(&request, own, THERE).routed());
            let reply = w.answer(proto, THERE, own);
            w.send(At::FromNet, &reply).redirects(&w.between(&reply, AT, FAR).routed());
        }
    }

    /// The node's own packets that no socket hook saw reach another node; they meet the hook again where
    /// they are sent by, and go on.
    fn of_another_node_from_the_node(w: Redirect) {
        for proto in [TCP, UDP, SCTP] {
            let from = (Host::Node, 41_000);
            w.serve_plain(proto, AT, &[THERE]);
            let request = w.first(proto, from, AT);
            let out = w.between(&request, from, THERE).routed();
            w.send(At::HostToNet, &request).redirects(&out);
            w.send(At::HostToNet, &out).passes(&out);
            let reply = w.answer(proto, THERE, from);
            w.send(At::FromNet, &reply).passes(&w.between(&reply, AT, from));
        }
    }

    /// The node's own packets that no socket hook saw reach a server on it, though they were about to
    /// leave: they come back in as the Service's, as its answers do.
    fn of_this_node_from_the_node(w: Redirect) {
        for proto in [TCP, UDP, SCTP] {
            let from = (Host::Node, 41_000);
            let stand_in = (VIP, from.1);
            w.serve_plain(proto, AT, &[HERE]);
            let request = w.first(proto, from, AT);
            let inside = w.between(&request, stand_in, HERE).returned();
            w.send(At::HostToNet, &request).redirects(&inside);
            w.send(At::FromNet, &inside).passes(&inside);
            let reply = w.answer(proto, HERE, stand_in);
            let back = w.between(&reply, AT, from).returned();
            w.send(At::HostToNet, &reply).redirects(&back);
            w.send(At::FromNet, &back).passes(&back);
        }
    }

    /// The scope of the loopback address is for sockets: no packet is served in it.
    fn loopback_node_ports_are_for_sockets(w: Redirect) {
        for proto in [TCP, UDP, SCTP] {
            w.serve(&Service { scope: scope::LOOPBACK, ..Service::new(proto, AT, &[(SERVER, 8080)]) });
            for (at, from) in [(At::FromPod(CLIENT), FROM), (At::FromNet, FAR), (At::HostToNet, (Host::Node, 41_000))] {
                let request = w.first(proto, from, AT);
                w.send(at, &request).passes(&request);
            }
        }
    }
}

fn from_a_pod(w: &mut World, flags: u16) {
    for proto in [TCP, UDP, SCTP] {
        w.serve(&Service {
            flags,
            ..Service::new(proto, AT, &[HERE])
        });
        let request = w.first(proto, FROM, AT);
        w.send(At::FromPod(CLIENT), &request)
            .passes(&w.between(&request, FROM, HERE));
        let reply = w.answer(proto, HERE, FROM);
        w.send(At::HostToPod(CLIENT), &reply)
            .passes(&w.between(&reply, AT, FROM));
    }
}
