//! Who reaches a Service's addresses, as whom: source ranges, clients outside, ports that no Service
//! defines, masquerading; and what becomes of connections whose backend is gone.

use dataplane_common::{
    abi::{ct_flags, scope, service_flags},
    net::proto::{TCP, UDP},
    verdict::DropReason,
};

use crate::{frame::Problem, kernel::SNAT_FIRST, seen::At, service::Service, world::*};

/// A pod's end of a flow.
const FROM: End = (CLIENT, 40_000);
/// An outside client's.
const FAR: End = (OUTSIDE, 5_000);
/// The Service.
const AT: End = (VIP, 80);
/// Its backend of this node.
const TO: End = (SERVER, 8080);

both_families! {
    /// Only clients within the ranges are served, from pods, from outside, and the node itself.
    fn source_ranges_drop_other_clients(w: Redirect) {
        for proto in [TCP, UDP] {
            for scope in [scope::INTERNAL, scope::EXTERNAL] {
                let ranged = Service { flags: service_flags::SOURCE_RANGES, source_set: 3, scope, ..Service::new(proto, AT, &[TO]) };
                w.serve(&ranged);
            }
        }
        let full = if w.family == Family::V4 { 32 } else { 128 };
        // Another Service's ranges are none of this one.
        w.source_range(4, CLIENT, 8);
        let clients = [(At::FromPod(CLIENT), FROM), (At::FromNet, FAR), (At::HostToNet, (Host::Node, 41_000))];
        for (at, from) in clients {
            for proto in [TCP, UDP] {
                w.send(at, &w.first(proto, from, AT)).drops(DropReason::SourceRange);
            }
        }
        assert_eq!((w.flows(), w.half_open_total()), (0, 0));
        for (at, from) in clients {
            w.source_range(3, from.0, full);
            for proto in [TCP, UDP] {
                let request = w.first(proto, from, AT);
                w.send(at, &request).redirects(&w.between(&request, from, TO).for_pod(SERVER));
            }
        }
        w.send(At::FromPod(THIRD), &w.first(TCP, (THIRD, 9), AT)).drops(DropReason::SourceRange);
    }

    /// Flows that are open stay so when the ranges change.
    fn source_ranges_are_for_new_flows(w: Redirect) {
        w.serve_plain(UDP, AT, &[TO]);
        let request = w.udp(FROM, AT);
        let out = w.send(At::FromPod(CLIENT), &request).redirected();
        w.serve(&Service { flags: service_flags::SOURCE_RANGES, ..Service::new(UDP, AT, &[TO]) });
        w.send(At::FromPod(CLIENT), &request).redirects(&out);
        w.send(At::FromPod(THIRD), &w.udp((THIRD, 9), AT)).drops(DropReason::SourceRange);
    }

    /// A cluster address that is open to the outside serves it like a node port does.
    fn a_cluster_address_from_outside(w: Redirect) {
        for proto in [TCP, UDP] {
            let service = |backends: &[End]| Service { scope: scope::EXTERNAL, flags: service_flags::SNAT_REMOTE, ..Service::new(proto, AT, backends) };
            w.serve(&service(&[TO]));
            let request = w.first(proto, FAR, AT);
            w.send(At::FromNet, &request).redirects(&w.between(&request, FAR, TO).for_pod(SERVER));
            let reply = w.answer(proto, TO, FAR);
            w.send(At::FromPod(SERVER), &reply).redirects(&w.between(&reply, AT, FAR).routed());
            w.serve(&service(&[(REMOTE, 8080)]));
            let far = (OUTSIDE, 5_001);
            let request = w.first(proto, far, AT);
            let out = w.send(At::FromNet, &request).redirected();
            let own = (Host::Node, out.src_port());
            assert_eq!(out, w.between(&request, own, (REMOTE, 8080)).routed());
            let reply = w.answer(proto, (REMOTE, 8080), own);
            w.send(At::FromNet, &reply).redirects(&w.between(&reply, AT, far).routed());
        }
    }

    /// A port that no Service defines is refused, and an echo has nobody to answer it.
    fn undefined_ports_of_a_cluster_address(w: Redirect) {
        w.serve_plain(TCP, AT, &[TO]);
        let any = |scope| Service { scope, ..Service::new(0, (VIP, 0), &[]) };
        w.serve(&any(scope::INTERNAL));
        w.serve(&any(scope::EXTERNAL));
        for (at, from) in [(At::FromPod(CLIENT), FROM), (At::FromNet, FAR)] {
            let syn = w.tcp(SYN, from, (VIP, 81));
            w.send(at, &syn).refused(DropReason::NoBackend, &w.reset_of(&syn, 0, 1001, RST | ACK));
            let datagram = w.udp(from, AT);
            w.send(at, &datagram)
                .refused(DropReason::NoBackend, &datagram.error(datagram.dst, Problem::Port, 8).turned());
            w.send(at, &w.echo(false, from.0, VIP, 9)).drops(DropReason::NoFrontend);
        }
        w.send(At::HostToNet, &w.echo(false, Host::Node, VIP, 9)).drops(DropReason::NoFrontend);
        w.send(At::HostToNet, &w.tcp(SYN, (Host::Node, 9), (VIP, 81))).drops(DropReason::NoBackend);
        let request = w.tcp(SYN, FROM, AT);
        w.send(At::FromPod(CLIENT), &request).redirects(&w.between(&request, FROM, TO).for_pod(SERVER));
    }

    /// With masquerading for all, backends see this node, wherever they are; the client's policy is
    /// asked about the client.
    fn masquerade_all(w: Redirect) {
        for proto in [TCP, UDP] {
            for (n, backend) in [TO, (REMOTE, 8080)].into_iter().enumerate() {
                let from = (CLIENT, 40_000 + n as u16);
                w.serve(&Service { flags: service_flags::SNAT_ALWAYS, ..Service::new(proto, AT, &[backend]) });
                let request = w.first(proto, from, AT);
                let out = w.send(At::FromPod(CLIENT), &request).redirected();
                let own = (Host::Node, out.src_port());
                assert!((SNAT_FIRST..SNAT_FIRST + 4_000).contains(&own.1), "port {}", own.1);
                let want = w.between(&request, own, backend);
                let reply = w.answer(proto, backend, own);
                let (want, at) = if backend == TO {
                    (want.for_pod(SERVER), At::FromPod(SERVER))
                } else {
                    (want.routed(), At::FromNet)
                };
                assert_eq!(out, want);
                w.send(at, &reply).redirects(&w.between(&reply, AT, from).for_pod(CLIENT));
                w.send(At::FromPod(CLIENT), &request).redirects(&out);
            }
        }
    }

    /// A pod that is its own backend sees the Service as its peer then, too.
    fn masquerade_all_of_a_hairpin(w: Redirect) {
        w.serve(&Service { flags: service_flags::SNAT_ALWAYS, ..Service::new(TCP, AT, &[(CLIENT, 8080)]) });
        let request = w.tcp(SYN, FROM, AT);
        w.send(At::FromPod(CLIENT), &request)
            .redirects(&w.between(&request, (VIP, FROM.1), (CLIENT, 8080)).for_pod(CLIENT));
    }

    /// A connection whose backend is gone is reset, at both ends, if its Service asks for it.
    fn connections_are_reset_with_their_backend(w: Redirect) {
        let service = |backends: &[End]| Service { flags: service_flags::RESET_ON_REMOVED, ..Service::new(TCP, AT, backends) };
        w.serve(&service(&[TO]));
        let _ = w.send(At::FromPod(CLIENT), &w.tcp(SYN, FROM, AT)).redirected();
        let _ = w.send(At::FromPod(SERVER), &w.tcp(SYN_ACK, TO, FROM)).redirected();
        assert_ne!(w.flow(TCP, FROM, TO).expect("a flow").flags & ct_flags::RESETS, 0);
        let amid = w.tcp(ACK, FROM, AT);
        let _ = w.send(At::FromPod(CLIENT), &amid).redirected();
        w.serve(&service(&[(THIRD, 8080)]));
        let back = w.tcp(ACK, TO, FROM);
        for (at, frame) in [(At::FromPod(CLIENT), &amid), (At::FromPod(SERVER), &back), (At::FromPod(CLIENT), &amid)] {
            w.send(at, frame).refused(DropReason::BackendRemoved, &w.reset_of(frame, 2000, 0, RST));
        }
        w.send(At::FromPod(CLIENT), &w.tcp(RST, FROM, AT)).drops(DropReason::BackendRemoved);
        let syn = w.tcp(SYN, FROM, AT);
        w.send(At::FromPod(CLIENT), &syn).redirects(&w.between(&syn, FROM, (THIRD, 8080)).for_pod(THIRD));
    }

    /// The same for a client outside and a backend on another node.
    fn outside_connections_are_reset_with_their_backend(w: Redirect) {
        let flags = service_flags::RESET_ON_REMOVED | service_flags::SNAT_REMOTE;
        let service = |backends: &[End]| Service { flags, scope: scope::EXTERNAL, ..Service::new(TCP, AT, backends) };
        w.serve(&service(&[(REMOTE, 8080)]));
        let out = w.send(At::FromNet, &w.tcp(SYN, FAR, AT)).redirected();
        w.serve(&service(&[]));
        let amid = w.tcp(ACK, FAR, AT);
        let back = w.tcp(ACK, (REMOTE, 8080), (Host::Node, out.src_port()));
        for frame in [&amid, &back] {
            let told = w.reset_of(frame, 2000, 0, RST);
            w.send(At::FromNet, frame).refused(DropReason::BackendRemoved, &told);
            // It leaves by the device that the other end's packet came by.
            w.send(At::HostToNet, &told).passes(&told);
        }
    }

    /// A pinned client leaves a backend that its frontend does not use any more, and stays with one
    /// whose place in the block has changed.
    fn affinity_is_to_backends_of_the_frontend(w: Redirect) {
        let fourth = Host::Pod(4);
        let class = |weight, hosts: &[Host]| (weight, hosts.iter().map(|host| (*host, 8080)).collect());
        let service = |classes| Service { classes, affinity: 600, ..Service::new(TCP, AT, &[]) };
        w.serve(&Service { backends: vec![TO], ..service(vec![class(100, &[SERVER])]) });
        assert_eq!(backend_of(&w, 1), w.ip(SERVER));
        let mut grown = service(vec![class(1, &[THIRD]), class(1, &[fourth]), class(1, &[SERVER])]);
        grown.backends = vec![(THIRD, 8080), (fourth, 8080), TO];
        w.serve(&grown);
        for n in 2..12 {
            assert_eq!(backend_of(&w, n), w.ip(SERVER), "connection {n}");
        }
        let mut drained = service(vec![class(0, &[SERVER]), class(1, &[THIRD])]);
        drained.backends = vec![(THIRD, 8080)];
        w.serve(&drained);
        for n in 12..22 {
            assert_eq!(backend_of(&w, n), w.ip(THIRD), "connection {n}");
        }
    }
}

/// The backend's address of a new connection of the client.
fn backend_of(w: &World, n: u16) -> std::net::IpAddr {
    let syn = w.tcp(SYN, (CLIENT, 30_000 + n), AT);
    w.send(At::FromPod(CLIENT), &syn).redirected().dst
}
