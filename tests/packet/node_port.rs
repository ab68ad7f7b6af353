//! NodePorts: clients outside, backends here and on other nodes.

use dataplane_common::{
    abi::{ct_flags, scope, service_flags},
    net::proto::{TCP, UDP},
    verdict::DropReason,
};

use crate::{kernel::SNAT_FIRST, netns::UPLINK, rules::Peer, seen::At, service::Service, world::*};

/// A client's end of a flow.
const FROM: End = (OUTSIDE, 5_000);
/// The NodePort.
const AT: End = (Host::Node, 30_080);

both_families! {
    /// A backend of this node sees the client's address; its reply leaves with the node's.
    fn to_a_backend_of_this_node(w: Redirect) {
        for proto in [TCP, UDP] {
            serve(&mut w, proto, &[(SERVER, 8080)]);
            let request = w.first(proto, FROM, AT);
            w.send_summed(At::FromNet, &request)
                .redirects(&w.between(&request, FROM, (SERVER, 8080)).for_pod(SERVER));
            let reply = w.answer(proto, (SERVER, 8080), FROM);
            w.send(At::FromPod(SERVER), &reply).redirects(&w.between(&reply, AT, FROM).routed());
            assert_eq!(w.half_open(UPLINK), 0, "the uplink is no pod");
            assert_eq!(w.half_open_total(), 0);
        }
    }

    /// Without redirection the reply is translated where it leaves the node.
    fn to_a_backend_of_this_node_by_the_stack(w: Stack) {
        for proto in [TCP, UDP] {
            serve(&mut w, proto, &[(SERVER, 8080)]);
            let request = w.first(proto, FROM, AT);
            let inside = w.between(&request, FROM, (SERVER, 8080));
            w.send(At::FromNet, &request).passes(&inside);
            let inside = inside.routed();
            w.send(At::ToPod(SERVER, None), &inside).passes(&inside);
            let reply = w.answer(proto, (SERVER, 8080), FROM);
            w.send(At::FromPod(SERVER), &reply).passes(&reply);
            let reply = reply.routed();
            w.send(At::ToNet(SERVER), &reply).passes(&w.between(&reply, AT, FROM));
        }
    }

    /// A backend of another node sees this node, at a port of its own, and answers by it.
    fn to_a_backend_of_another_node(w: Redirect) {
        to_another_node(&mut w);
    }

    /// The same where nothing else is redirected: the stack drops what comes from its own address.
    fn to_a_backend_of_another_node_by_the_stack(w: Stack) {
        to_another_node(&mut w);
    }

    /// A client that keeps its port keeps the node's port for it.
    fn a_flow_keeps_its_port(w: Redirect) {
        serve(&mut w, UDP, &[(REMOTE, 8080)]);
        let request = w.udp(FROM, AT);
        let first = w.send(At::FromNet, &request).redirected();
        w.send(At::FromNet, &request).redirects(&first);
    }

    /// Nobody serves: the client is told.
    fn no_endpoint_is_refused(w: Redirect) {
        for proto in [TCP, UDP] {
            serve(&mut w, proto, &[]);
            let request = w.first(proto, FROM, AT);
            w.send(At::FromNet, &request).refused(DropReason::NoBackend, &w.refusal_of(&request));
        }
    }

    /// What is for the node itself, or for nobody, is left alone.
    fn other_traffic_passes(w: Redirect) {
        serve(&mut w, TCP, &[(SERVER, 8080)]);
        for frame in [
            w.tcp(SYN, FROM, (Host::Node, 22)),
            w.tcp(ACK, FROM, (Host::Node, 22)),
            w.udp(FROM, AT),
            w.tcp(ACK, FROM, (SERVER, 8080)),
            w.echo(false, OUTSIDE, SERVER, 9),
            w.echo(false, OUTSIDE, Host::Node, 9),
        ] {
            w.send(At::FromNet, &frame).passes(&frame);
        }
        assert_eq!(w.flows(), 0);
    }

    /// A ClusterIP is not open to the outside.
    fn a_cluster_ip_is_internal(w: Redirect) {
        w.serve_plain(TCP, (VIP, 80), &[(SERVER, 8080)]);
        let request = w.tcp(SYN, FROM, (VIP, 80));
        w.send(At::FromNet, &request).passes(&request);
    }

    /// The backend's policy is asked about the client.
    fn policy_sees_the_client(w: Redirect) {
        let open = w.allow(&[(Peer::Set(5), 7)]);
        w.isolate_ingress(SERVER, open);
        serve(&mut w, TCP, &[(SERVER, 8080)]);
        w.send(At::FromNet, &w.tcp(SYN, FROM, AT)).drops(DropReason::PolicyIngress);
        w.cidr(w.ip(OUTSIDE), if w.family == Family::V4 { 32 } else { 128 }, 5);
        w.next_epoch();
        let _ = w.send(At::FromNet, &w.tcp(SYN, FROM, AT)).redirected();
    }

    /// A packet from outside that claims to be of a pod of this node, or of the node, is none.
    fn claimed_sources_are_dropped(w: Redirect) {
        serve(&mut w, TCP, &[(SERVER, 8080)]);
        let only_client = w.allow(&[(Peer::Of(CLIENT), 1)]);
        w.isolate_ingress(SERVER, only_client);
        for dst in [AT, (SERVER, 8080), (THIRD, 8080)] {
            w.send(At::FromNet, &w.tcp(SYN, (CLIENT, 5_000), dst)).drops(DropReason::OutsideSpoofed);
        }
        w.send(At::FromNet, &w.tcp(SYN, (Host::Node, 5_000), AT)).drops(DropReason::OutsideSpoofed);
        assert_eq!(w.flows(), 0);
    }

    /// A live flow of a pod cannot be joined from outside.
    fn live_flows_are_not_joined_from_outside(w: Redirect) {
        let from = (CLIENT, 40_000);
        let request = w.udp(from, (SERVER, 8080));
        let _ = w.send(At::FromPod(CLIENT), &request).redirected();
        w.send(At::FromNet, &request).drops(DropReason::OutsideSpoofed);
        w.send(At::FromNet, &w.udp((SERVER, 8080), from)).drops(DropReason::OutsideSpoofed);
    }

    /// A pod may dial a NodePort too.
    fn from_a_pod(w: Redirect) {
        w.serve_plain(TCP, AT, &[(SERVER, 8080)]);
        let from = (CLIENT, 40_000);
        let request = w.tcp(SYN, from, AT);
        w.send(At::FromPod(CLIENT), &request)
            .redirects(&w.between(&request, from, (SERVER, 8080)).for_pod(SERVER));
        let reply = w.tcp(SYN_ACK, (SERVER, 8080), from);
        w.send(At::FromPod(SERVER), &reply).redirects(&w.between(&reply, AT, from).for_pod(CLIENT));
    }
}

fn serve(w: &mut World, proto: u8, backends: &[End]) {
    let flags = service_flags::SNAT_REMOTE | service_flags::NODE_ADDRESS;
    w.serve(&Service {
        flags,
        scope: scope::EXTERNAL,
        ..Service::new(proto, AT, backends)
    });
}

fn to_another_node(w: &mut World) {
    for proto in [TCP, UDP] {
        serve(w, proto, &[(REMOTE, 8080)]);
        let request = w.first(proto, FROM, AT);
        let out = w.send(At::FromNet, &request).redirected();
        let port = out.src_port();
        assert!(
            (SNAT_FIRST..SNAT_FIRST + 4_000).contains(&port),
            "port {port} is not of the range"
        );
        assert_eq!(
            out,
            w.between(&request, (Host::Node, port), (REMOTE, 8080))
                .routed()
        );
        w.send(At::HostToNet, &out).passes(&out);
        let reply = w.answer(proto, (REMOTE, 8080), (Host::Node, port));
        w.send(At::FromNet, &reply)
            .redirects(&w.between(&reply, AT, FROM).routed());
        let flow = w
            .flow(proto, (REMOTE, 8080), (Host::Node, port))
            .expect("a main entry");
        let want = ct_flags::DNAT | ct_flags::SNAT | ct_flags::OUTSIDE | ct_flags::REPLIED;
        assert_eq!(flow.flags & want, want);
    }
}
