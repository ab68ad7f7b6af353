//! ICMP errors: they go the way of the flow that they are about, translated inside and outside.

use dataplane_common::{
    abi::{scope, service_flags},
    net::proto::{TCP, UDP},
    verdict::DropReason::{HopLimit, IcmpUnrelated, PolicyIngress},
};

use crate::{
    frame::{Body, Frame, Problem},
    seen::At,
    service::Service,
    world::*,
};

const FROM: End = (CLIENT, 40_000);
const TO: End = (SERVER, 8080);
const AT: End = (Host::Node, 30_080);
const OUT: End = (OUTSIDE, 5_000);

/// How much errors quote of a packet's payload: the least, a header, and more.
const QUOTES: [usize; 3] = [8, 20, 60];
const PROBLEMS: [Problem; 3] = [Problem::Port, Problem::TooBig, Problem::Expired];

both_families! {
    /// Without translation they pass as they are, both ways.
    fn of_direct_flows(w: Redirect) {
        each(|proto, problem, octets| {
            let request = w.first(proto, FROM, TO);
            let reply = w.answer(proto, TO, FROM);
            let _ = w.send(At::FromPod(CLIENT), &request).redirected();
            let error = request.error(w.ip(SERVER), problem, octets).of_pod(SERVER);
            w.send_summed(At::FromPod(SERVER), &error).redirects(&error.clone().for_pod(CLIENT));
            let error = reply.error(w.ip(CLIENT), problem, octets).of_pod(CLIENT);
            w.send_summed(At::FromPod(CLIENT), &error).redirects(&error.clone().for_pod(SERVER));
        });
    }

    /// A backend's error about a request is the Service's about what its client sent, and back.
    fn of_services(w: Redirect) {
        serve_both(&mut w);
        each(|proto, problem, octets| {
            let request = w.first(proto, FROM, (VIP, 80));
            let inside = w.send(At::FromPod(CLIENT), &request).redirected();
            let error = inside.error(w.ip(SERVER), problem, octets).of_pod(SERVER);
            let want = request.error(w.ip(VIP), problem, octets).for_pod(CLIENT);
            w.send_summed(At::FromPod(SERVER), &error).redirects(&want);
            let reply = w.answer(proto, TO, FROM);
            let outside = w.send(At::FromPod(SERVER), &reply).redirected();
            let error = outside.error(w.ip(CLIENT), problem, octets).of_pod(CLIENT);
            let want = reply.error(w.ip(CLIENT), problem, octets).for_pod(SERVER);
            w.send_summed(At::FromPod(CLIENT), &error).redirects(&want);
        });
    }

    /// By the stack they are translated where requests and replies are.
    fn of_services_by_the_stack(w: Stack) {
        serve_both(&mut w);
        each(|proto, problem, octets| {
            let request = w.first(proto, FROM, (VIP, 80));
            let inside = w.send(At::FromPod(CLIENT), &request).passed();
            let error = inside.error(w.ip(SERVER), problem, octets).of_pod(SERVER);
            w.send(At::FromPod(SERVER), &error).passes(&error);
            let want = Frame { to: error.to, from: error.from, ..request.error(w.ip(VIP), problem, octets) };
            w.send_summed(At::ToPod(CLIENT, Some(SERVER)), &error).passes(&want);
            let by_router = inside.error(w.ip(Host::Node), problem, octets);
            let want = Frame { to: by_router.to, from: by_router.from, ..request.error(w.ip(Host::Node), problem, octets) };
            w.send_summed(At::HostToPod(CLIENT), &by_router).passes(&want);
        });
    }

    /// A router's error about a request to another node is translated at the client.
    fn from_a_router(w: Redirect) {
        for proto in [TCP, UDP] {
            w.serve_plain(proto, (VIP, 80), &[(REMOTE, 8080)]);
        }
        each(|proto, problem, octets| {
            let request = w.first(proto, FROM, (VIP, 80));
            let inside = w.send(At::FromPod(CLIENT), &request).passed();
            let error = inside.error(w.ip(OUTSIDE), problem, octets);
            w.send(At::FromNet, &error).passes(&error);
            w.send_summed(At::ToPod(CLIENT, None), &error).passes(&request.error(w.ip(OUTSIDE), problem, octets));
        });
    }

    /// Through a NodePort with a translated source: to the client, and to the backend.
    fn of_node_ports(w: Redirect) {
        let flags = service_flags::SNAT_REMOTE;
        for proto in [TCP, UDP] {
            let service = Service::new(proto, AT, &[(REMOTE, 8080)]);
            w.serve(&Service { flags, scope: scope::EXTERNAL, ..service });
        }
        each(|proto, problem, octets| {
            let request = w.first(proto, OUT, AT);
            let inside = w.send(At::FromNet, &request).redirected();
            let sent = Frame { ttl: inside.ttl, ..request.clone() };
            for (by, seen_as) in [(REMOTE, Host::Node), (Host::OtherNode, Host::OtherNode)] {
                let error = inside.error(w.ip(by), problem, octets);
                let want = sent.error(w.ip(seen_as), problem, octets).routed();
                w.send(At::FromNet, &error).redirects(&want);
            }
            let reply = w.answer(proto, (REMOTE, 8080), (Host::Node, source_port(&inside)));
            let outside = w.send(At::FromNet, &reply).redirected();
            let sent = Frame { ttl: outside.ttl, ..reply.clone() };
            let error = outside.error(w.ip(OUTSIDE), problem, octets);
            let want = sent.error(w.ip(Host::Node), problem, octets).routed();
            w.send(At::FromNet, &error).redirects(&want);
        });
    }

    /// To a backend of this node: the client's errors reach it, and its own leave as the node's.
    fn of_node_ports_of_this_node(w: Redirect) {
        for proto in [TCP, UDP] {
            w.serve(&Service { scope: scope::EXTERNAL, ..Service::new(proto, AT, &[TO]) });
        }
        each(|proto, problem, octets| {
            let request = w.first(proto, OUT, AT);
            let inside = w.send(At::FromNet, &request).redirected();
            let error = inside.error(w.ip(SERVER), problem, octets).of_pod(SERVER);
            let want = request.error(w.ip(Host::Node), problem, octets).of_pod(SERVER).routed();
            w.send(At::FromPod(SERVER), &error).redirects(&want);
            let reply = w.answer(proto, TO, OUT);
            let outside = w.send(At::FromPod(SERVER), &reply).redirected();
            let sent = Frame { ttl: outside.ttl, ..reply.clone() };
            let error = outside.error(w.ip(OUTSIDE), problem, octets);
            let want = sent.error(w.ip(OUTSIDE), problem, octets).for_pod(SERVER);
            w.send_summed(At::FromNet, &error).redirects(&want);
        });
    }

    /// Of a pod that is its own backend: both ends know the other as the Service's address.
    fn of_hairpins(w: Redirect) {
        for proto in [TCP, UDP] {
            w.serve_plain(proto, (VIP, 80), &[(CLIENT, 8080)]);
        }
        each(|proto, problem, octets| {
            let request = w.first(proto, FROM, (VIP, 80));
            let inside = w.send(At::FromPod(CLIENT), &request).redirected();
            let error = inside.error(w.ip(CLIENT), problem, octets).of_pod(CLIENT);
            let want = request.error(w.ip(VIP), problem, octets).for_pod(CLIENT);
            w.send_summed(At::FromPod(CLIENT), &error).redirects(&want);
            let reply = w.answer(proto, (CLIENT, 8080), (CLIENT, FROM.1));
            let reply = w.between(&reply, (CLIENT, 8080), (VIP, FROM.1));
            let outside = w.send(At::FromPod(CLIENT), &reply).redirected();
            let error = outside.error(w.ip(CLIENT), problem, octets).of_pod(CLIENT);
            let want = reply.error(w.ip(VIP), problem, octets).for_pod(CLIENT);
            w.send_summed(At::FromPod(CLIENT), &error).redirects(&want);
        });
    }

    /// Of the host's own flows: to it from the pod's hook, and from it by the uplink's.
    fn of_the_hosts_flows(w: Redirect) {
        serve_both(&mut w);
        each(|proto, problem, octets| {
            let from = (Host::Node, 41_000);
            let request = w.first(proto, from, (VIP, 80));
            let inside = w.send(At::HostToNet, &request).redirected();
            let error = inside.error(w.ip(SERVER), problem, octets).of_pod(SERVER);
            let want = request.error(w.ip(VIP), problem, octets).of_pod(SERVER);
            w.send_summed(At::FromPod(SERVER), &error).passes(&want);
            let reply = w.answer(proto, TO, from);
            let outside = w.send(At::FromPod(SERVER), &reply).passed();
            let error = outside.error(w.ip(Host::Node), problem, octets);
            let want = reply.error(w.ip(Host::Node), problem, octets).for_pod(SERVER);
            w.send_summed(At::HostToNet, &error).redirects(&want);
        });
    }

    /// About packets at their last hop, where a router would tell of it: by the address that was
    /// asked, about what was sent.
    fn at_the_last_hop(w: Redirect) {
        for (at, backend) in [((Host::Node, 30_080), REMOTE), ((Host::Node, 30_081), SERVER)] {
            for proto in [TCP, UDP] {
                let service = Service::new(proto, at, &[(backend, 8080)]);
                let flags = service_flags::SNAT_REMOTE;
                w.serve(&Service { flags, scope: scope::EXTERNAL, ..service });
                let request = w.first(proto, OUT, at);
                let inside = w.send(At::FromNet, &request).redirected();
                let reply = match backend {
                    SERVER => w.answer(proto, (SERVER, 8080), OUT),
                    _ => w.answer(proto, (REMOTE, 8080), (Host::Node, source_port(&inside))),
                };
                let from = if backend == SERVER { At::FromPod(SERVER) } else { At::FromNet };
                for (at, sent) in [(At::FromNet, request), (from, reply)] {
                    let last = Frame { ttl: 1, ..sent };
                    if matches!(at, At::FromNet) && backend == SERVER {
                        // It is no further hop to a pod of this node.
                        let _ = w.send(at, &last).redirected();
                        continue;
                    }
                    let octets = if proto == TCP { 20 } else { 8 };
                    let told = last.error(last.dst, Problem::Expired, octets).turned();
                    w.send(at, &last).refused(HopLimit, &told);
                }
            }
        }
    }

    /// A quote that no packet of the flow was like belongs to no flow: neither of its backend's
    /// sight in its client's terms, nor with other ports or addresses.
    fn forged_quotes(w: Redirect) {
        serve_both(&mut w);
        each(|proto, problem, octets| {
            let request = w.first(proto, FROM, (VIP, 80));
            let inside = w.send(At::FromPod(CLIENT), &request).redirected();
            for quoted in [
                w.first(proto, FROM, (SERVER, 8081)),
                w.first(proto, (CLIENT, 40_001), TO),
                w.first(proto, (THIRD, FROM.1), TO),
                request,
            ] {
                let forged = quoted.error(w.ip(SERVER), problem, octets).of_pod(SERVER);
                w.send(At::FromPod(SERVER), &forged).drops(IcmpUnrelated);
            }
            let error = inside.error(w.ip(SERVER), problem, octets).of_pod(SERVER);
            let _ = w.send(At::FromPod(SERVER), &error).redirected();
        });
    }

    /// Errors pass pods that may begin nothing: they belong to what was allowed.
    fn of_allowed_flows_of_isolated_pods(w: Redirect) {
        let request = w.udp(FROM, TO);
        let _ = w.send(At::FromPod(CLIENT), &request).redirected();
        let closed = w.allow(&[]);
        w.isolate_ingress(CLIENT, closed);
        w.isolate_egress(SERVER, closed);
        let error = request.error(w.ip(SERVER), Problem::Port, 8).of_pod(SERVER);
        w.send(At::FromPod(SERVER), &error).redirects(&error.clone().for_pod(CLIENT));
    }

    /// Errors about nothing that is known, or about a flow that was denied.
    fn unrelated(w: Redirect) {
        let request = w.udp(FROM, TO);
        let error = request.error(w.ip(SERVER), Problem::Port, 8).of_pod(SERVER);
        w.send(At::FromPod(SERVER), &error).drops(IcmpUnrelated);
        w.send(At::ToPod(CLIENT, None), &error).drops(IcmpUnrelated);
        w.send(At::FromNet, &error).passes(&error);
        let closed = w.allow(&[]);
        w.isolate_ingress(SERVER, closed);
        w.send(At::FromPod(CLIENT), &request).drops(PolicyIngress);
        w.send(At::FromPod(SERVER), &error).drops(PolicyIngress);
        assert_eq!(w.flows(), 1);
    }

    /// Errors that carry a known flow's packet to somebody else, or from somebody who has no part in
    /// it, are no way around policy.
    fn forged(w: Redirect) {
        let request = w.udp(FROM, TO);
        let _ = w.send(At::FromPod(CLIENT), &request).redirected();
        let error = request.error(w.ip(SERVER), Problem::Port, 8).of_pod(SERVER);
        for dst in [THIRD, OUTSIDE, SERVER, REMOTE] {
            let elsewhere = Frame { dst: w.ip(dst), ..error.clone() };
            w.send(At::FromPod(SERVER), &elsewhere).drops(IcmpUnrelated);
        }
        let by_another = request.error(w.ip(THIRD), Problem::TooBig, 8).of_pod(THIRD);
        w.send(At::FromPod(THIRD), &by_another).drops(IcmpUnrelated);
        w.send(At::FromPod(SERVER), &error).redirects(&error.clone().for_pod(CLIENT));
    }

    /// Errors about later fragments say nothing of ports.
    fn about_fragments(w: Redirect) {
        let [first, second] = w.udp(FROM, TO).cut(9, 16);
        let _ = w.send(At::FromPod(CLIENT), &first).redirected();
        let error = second.error(w.ip(SERVER), Problem::Expired, 8).of_pod(SERVER);
        w.send(At::FromPod(SERVER), &error).drops(IcmpUnrelated);
        let error = first.error(w.ip(SERVER), Problem::Expired, 8).of_pod(SERVER);
        w.send(At::FromPod(SERVER), &error).redirects(&error.clone().for_pod(CLIENT));
    }

    /// Errors about echoes.
    fn about_echoes(w: Redirect) {
        let request = w.echo(false, CLIENT, SERVER, 8);
        let _ = w.send(At::FromPod(CLIENT), &request).redirected();
        let error = request.error(w.ip(SERVER), Problem::Expired, 8).of_pod(SERVER);
        w.send(At::FromPod(SERVER), &error).redirects(&error.clone().for_pod(CLIENT));
    }
}

pub fn source_port(frame: &Frame) -> u16 {
    match &frame.body {
        Body::Tcp(tcp) => tcp.src,
        Body::Udp { src, .. } => *src,
        other => panic!("no ports: {other:?}"),
    }
}

fn serve_both(w: &mut World) {
    for proto in [TCP, UDP] {
        w.serve_plain(proto, (VIP, 80), &[TO]);
    }
}

fn each(check: impl Fn(u8, Problem, usize)) {
    for proto in [TCP, UDP] {
        for problem in PROBLEMS {
            for octets in QUOTES {
                check(proto, problem, octets);
            }
        }
    }
}
