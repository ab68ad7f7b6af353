//! ClusterIP Services from pods.

use dataplane_common::{
    abi::{ct_flags, service_flags},
    net::proto::{DESTINATION_OPTIONS, HOP_BY_HOP, TCP, UDP},
    verdict::DropReason,
};

use crate::{
    frame::{Body, Frame, Problem},
    seen::At,
    service::Service,
    world::*,
};

/// A client's end of a flow.
const FROM: End = (CLIENT, 40_000);

both_families! {
    /// A backend of this node gets the request by redirection, and its reply is the Service's.
    fn same_node_is_redirected(w: Redirect) {
        for proto in [TCP, UDP] {
            let frontend = w.serve_plain(proto, (VIP, 80), &[(SERVER, 8080)]);
            let request = w.first(proto, FROM, (VIP, 80));
            w.send_summed(At::FromPod(CLIENT), &request)
                .redirects(&w.between(&request, FROM, (SERVER, 8080)).for_pod(SERVER));
            let flow = w.flow(proto, FROM, (SERVER, 8080)).expect("a main entry");
            assert_eq!(flow.frontend, frontend);
            assert_eq!(flow.flags & ct_flags::REPLIED, 0);
            let reply = w.answer(proto, (SERVER, 8080), FROM);
            w.send_summed(At::FromPod(SERVER), &reply)
                .redirects(&w.between(&reply, (VIP, 80), FROM).for_pod(CLIENT));
            let flow = w.flow(proto, FROM, (SERVER, 8080)).expect("a main entry");
            assert_ne!(flow.flags & ct_flags::REPLIED, 0);
            assert_eq!(w.flow(proto, FROM, (VIP, 80)).expect("a front entry").flags & ct_flags::FRONT, ct_flags::FRONT);
        }
    }

    /// A datagram without checksum stays one; IPv6 has none without.
    fn a_missing_udp_checksum_stays_missing(w: Redirect) {
        if w.family == Family::V6 {
            return;
        }
        w.serve_plain(UDP, (VIP, 53), &[(SERVER, 5353)]);
        let bare = |frame: Frame| match frame.body {
            Body::Udp { src, dst, data, .. } => Frame { body: Body::Udp { src, dst, data, summed: false }, ..frame },
            _ => frame,
        };
        let request = bare(w.udp(FROM, (VIP, 53)));
        w.send(At::FromPod(CLIENT), &request)
            .redirects(&w.between(&request, FROM, (SERVER, 5353)).for_pod(SERVER));
        let reply = bare(w.udp((SERVER, 5353), FROM));
        w.send(At::FromPod(SERVER), &reply)
            .redirects(&w.between(&reply, (VIP, 53), FROM).for_pod(CLIENT));
    }

    /// Without redirection a request is translated where it begins, and its reply where it ends.
    fn same_node_by_the_stack(w: Stack) {
        for proto in [TCP, UDP] {
            w.serve_plain(proto, (VIP, 80), &[(SERVER, 8080)]);
            let request = w.first(proto, FROM, (VIP, 80));
            let inside = w.between(&request, FROM, (SERVER, 8080));
            w.send_summed(At::FromPod(CLIENT), &request).passes(&inside);
            let inside = inside.routed();
            w.send(At::ToPod(SERVER, Some(CLIENT)), &inside).passes(&inside);
            let reply = w.answer(proto, (SERVER, 8080), FROM);
            w.send(At::FromPod(SERVER), &reply).passes(&reply);
            let reply = reply.routed();
            w.send_summed(At::ToPod(CLIENT, Some(SERVER)), &reply)
                .passes(&w.between(&reply, (VIP, 80), FROM));
        }
    }

    /// A backend of another node is reached through the stack.
    fn another_node_by_the_stack(w: Redirect) {
        for proto in [TCP, UDP] {
            w.serve_plain(proto, (VIP, 80), &[(REMOTE, 8080)]);
            let request = w.first(proto, FROM, (VIP, 80));
            let inside = w.between(&request, FROM, (REMOTE, 8080));
            w.send(At::FromPod(CLIENT), &request).passes(&inside);
            let inside = inside.routed();
            w.send(At::ToNet(CLIENT), &inside).passes(&inside);
            let reply = w.answer(proto, (REMOTE, 8080), FROM);
            w.send(At::FromNet, &reply).passes(&reply);
            w.send(At::ToPod(CLIENT, None), &reply)
                .passes(&w.between(&reply, (VIP, 80), FROM));
        }
    }

    /// A pod that is its own backend sees the Service as its peer, on both sides, policy or not.
    fn hairpin(w: Redirect) {
        let closed = w.allow(&[]);
        w.isolate_ingress(CLIENT, closed);
        w.isolate_egress(CLIENT, closed);
        hairpin_by_redirection(&mut w);
    }

    /// A hairpin is redirected even where nothing else is: the stack would not have it.
    fn hairpin_without_redirection(w: Stack) {
        hairpin_by_redirection(&mut w);
    }

    /// Each port of a Service is its own frontend; other ports of its address are nobody's.
    fn several_ports(w: Redirect) {
        w.serve_plain(TCP, (VIP, 80), &[(SERVER, 8080)]);
        w.serve_plain(TCP, (VIP, 443), &[(THIRD, 8443)]);
        w.serve_plain(UDP, (VIP, 80), &[(THIRD, 9090)]);
        let cases = [
            (TCP, 80, (SERVER, 8080)),
            (TCP, 443, (THIRD, 8443)),
            (UDP, 80, (THIRD, 9090)),
        ];
        for (proto, port, backend) in cases {
            let request = w.first(proto, FROM, (VIP, port));
            w.send(At::FromPod(CLIENT), &request)
                .redirects(&w.between(&request, FROM, backend).for_pod(backend.0));
        }
        let request = w.first(TCP, FROM, (VIP, 81));
        w.send(At::FromPod(CLIENT), &request).passes(&request);
    }

    /// Nobody serves: TCP gets a reset, UDP an unreachable port, at once and without an entry.
    fn no_endpoint_is_refused(w: Redirect) {
        for proto in [TCP, UDP] {
            w.serve_plain(proto, (VIP, 80), &[]);
            let request = w.first(proto, FROM, (VIP, 80));
            let refusal = match proto {
                TCP => w.reset_of(&request, 0, 1001, RST | ACK),
                _ => request.error(request.dst, Problem::Port, 8).turned(),
            };
            w.send(At::FromPod(CLIENT), &request).refused(DropReason::NoBackend, &refusal);
        }
        assert_eq!(w.flows(), 0);
    }

    /// A traffic policy that leaves no backend drops instead of refusing.
    fn no_local_endpoint_is_dropped(w: Redirect) {
        for proto in [TCP, UDP] {
            let flags = service_flags::DROP_IF_EMPTY;
            w.serve(&Service { flags, ..Service::new(proto, (VIP, 80), &[]) });
            w.send(At::FromPod(CLIENT), &w.first(proto, FROM, (VIP, 80)))
                .drops(DropReason::NoLocalBackend);
        }
        assert_eq!(w.flows(), 0);
    }

    /// A connection that nobody knows is reset; a reset is not answered.
    fn amid_an_unknown_connection(w: Redirect) {
        w.serve_plain(TCP, (VIP, 80), &[(SERVER, 8080)]);
        let amid = w.tcp(ACK, FROM, (VIP, 80));
        let refusal = w.reset_of(&amid, 2000, 0, RST);
        w.send(At::FromPod(CLIENT), &amid).refused(DropReason::NoConnection, &refusal);
        w.send(At::FromPod(CLIENT), &w.tcp(RST, FROM, (VIP, 80))).drops(DropReason::NoConnection);
        assert_eq!(w.flows(), 0);
    }

    /// A refusal that cannot be built where the packet stands is a drop, counted once.
    fn refused_behind_options(w: Redirect) {
        w.serve_plain(UDP, (VIP, 80), &[]);
        let request = with_options(w.udp(FROM, (VIP, 80)));
        w.send(At::FromPod(CLIENT), &request).drops(DropReason::NoBackend);
    }

    /// Options and extension headers stay, and what is behind them is translated.
    fn behind_options(w: Redirect) {
        for proto in [TCP, UDP] {
            w.serve_plain(proto, (VIP, 80), &[(SERVER, 8080)]);
            let request = with_options(w.first(proto, FROM, (VIP, 80)));
            w.send_summed(At::FromPod(CLIENT), &request)
                .redirects(&w.between(&request, FROM, (SERVER, 8080)).for_pod(SERVER));
            let reply = with_options(w.answer(proto, (SERVER, 8080), FROM));
            w.send_summed(At::FromPod(SERVER), &reply)
                .redirects(&w.between(&reply, (VIP, 80), FROM).for_pod(CLIENT));
        }
    }

    /// The node's own packets that no socket hook saw are translated on their way out.
    fn the_node_as_a_client(w: Redirect) {
        let from = (Host::Node, 40_000);
        w.serve_plain(TCP, (VIP, 80), &[(SERVER, 8080)]);
        let closed = w.allow(&[]);
        w.isolate_ingress(SERVER, closed);
        let request = w.first(TCP, from, (VIP, 80));
        let inside = w.between(&request, from, (SERVER, 8080)).for_pod(SERVER);
        w.send(At::HostToNet, &request).redirects(&inside);
        w.send(At::HostToPod(SERVER), &inside).passes(&inside);
        let reply = w.answer(TCP, (SERVER, 8080), from);
        w.send(At::FromPod(SERVER), &reply).passes(&w.between(&reply, (VIP, 80), from));
    }

    /// With services that are forwarded for others, an uplink's egress has nothing to do.
    fn forwarded_packets_leave_as_they_are(w: Redirect) {
        w.serve_plain(TCP, (VIP, 80), &[(SERVER, 8080)]);
        let request = w.first(TCP, FROM, (VIP, 80));
        w.send(At::ToNet(CLIENT), &request).passes(&request);
    }
}

fn hairpin_by_redirection(w: &mut World) {
    for proto in [TCP, UDP] {
        w.serve_plain(proto, (VIP, 80), &[(CLIENT, 8080)]);
        let request = w.first(proto, FROM, (VIP, 80));
        let inside = w
            .between(&request, (VIP, FROM.1), (CLIENT, 8080))
            .for_pod(CLIENT);
        w.send(At::FromPod(CLIENT), &request).redirects(&inside);
        let reply = w.answer(proto, (CLIENT, 8080), (CLIENT, FROM.1));
        let reply = w.between(&reply, (CLIENT, 8080), (VIP, FROM.1));
        w.send(At::FromPod(CLIENT), &reply)
            .redirects(&w.between(&reply, (VIP, 80), FROM).for_pod(CLIENT));
    }
}

/// The frame with IPv4 options or IPv6 extension headers.
fn with_options(frame: Frame) -> Frame {
    if frame.src.is_ipv4() {
        // Router alert (RFC 2113), and three times no operation.
        return Frame {
            options: vec![0x94, 4, 0, 0, 1, 1, 1, 0],
            ..frame
        };
    }
    let padding = vec![0, 1, 4, 0, 0, 0, 0];
    Frame {
        extensions: vec![
            (HOP_BY_HOP, padding.clone()),
            (DESTINATION_OPTIONS, padding),
        ],
        ..frame
    }
}
