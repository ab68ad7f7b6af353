//! Queries that go through the DNS proxy.

use dataplane_common::{
    abi::{DNS_PROXY, identity_flags, service_flags::SNAT_ALWAYS, subject_flags, subject_state},
    net::proto::{SCTP, TCP, UDP},
    verdict::DropReason,
};

use crate::{seen::At, service::Service, world::*};

/// A client's end of a flow.
const FROM: End = (CLIENT, 40_000);
/// The proxy's device.
const PROXY: Host = THIRD;
/// A nameserver of another node.
const SERVER_FAR: End = (REMOTE, 53);

/// The client's queries go through the proxy.
fn proxy(w: &mut World) {
    w.change_pod(PROXY, |device| device.state = subject_state::SERVICES);
    w.set_identity(PROXY, 0, 0, identity_flags::POD);
    w.change_pod(CLIENT, |pod| {
        pod.flags |= subject_flags::DNS;
        pod.dns_proxy = ifindex(PROXY);
    });
}

both_families! {
    /// Requests are handed to the proxy, addressed to the nameserver and not masqueraded; its answers are the frontend's.
    fn queries_take_the_way_of_the_proxy(w: Redirect) {
        proxy(&mut w);
        let mut port = 40_000;
        for (proto, flags) in [(UDP, 0), (TCP, 0), (UDP, SNAT_ALWAYS), (TCP, SNAT_ALWAYS)] {
            for server in [SERVER_FAR, (SERVER, 53)] {
                let frontend = (VIP, 53);
                w.serve(&Service { flags, ..Service::new(proto, frontend, &[server]) });
                for dialled in [frontend, server] {
                    port += 1;
                    let from = (CLIENT, port);
                    let request = w.first(proto, from, dialled);
                    w.send_summed(At::FromPod(CLIENT), &request)
                        .redirects(&w.between(&request, from, server).for_pod(PROXY));
                    let answer = w.between(&w.answer(proto, (PROXY, 53), from), server, from);
                    w.send_summed(At::FromPod(PROXY), &answer)
                        .redirects(&w.between(&answer, dialled, from).for_pod(CLIENT));
                }
            }
        }
    }

    /// Where somebody else chooses a frontend's backend, policy has not judged the nameserver yet.
    fn a_frontend_of_others_is_asked_without_the_proxy(w: Beside) {
        proxy(&mut w);
        for proto in [UDP, TCP] {
            w.serve_plain(proto, (VIP, 53), &[SERVER_FAR]);
            let request = w.first(proto, FROM, (VIP, 53));
            w.send(At::FromPod(CLIENT), &request).passes(&request);
            let direct = w.first(proto, FROM, SERVER_FAR);
            w.send(At::FromPod(CLIENT), &direct).redirects(&direct.clone().for_pod(PROXY));
        }
    }

    /// Other ports, other protocols and other pods are not concerned.
    fn what_is_no_query_goes_its_way(w: Redirect) {
        proxy(&mut w);
        for (proto, from, port) in [(UDP, FROM, 54), (SCTP, FROM, 53), (UDP, (SERVER, 5_000), 53)] {
            let to = if from.0 == SERVER { CLIENT } else { SERVER };
            let packet = w.first(proto, from, (to, port));
            w.send(At::FromPod(from.0), &packet).redirects(&packet.clone().for_pod(to));
        }
    }

    /// Policy judges the nameserver, not the proxy.
    fn a_forbidden_nameserver_is_not_asked(w: Redirect) {
        proxy(&mut w);
        let closed = w.allow(&[]);
        w.isolate_egress(CLIENT, closed);
        for proto in [UDP, TCP] {
            let request = w.first(proto, FROM, SERVER_FAR);
            w.send(At::FromPod(CLIENT), &request).drops(DropReason::PolicyEgress);
        }
    }

    /// An answer that somebody else gives in the nameserver's name, or the nameserver itself to a query that
    /// the proxy keeps back, is none.
    fn only_the_proxy_answers(w: Redirect) {
        proxy(&mut w);
        for proto in [UDP, TCP] {
            let request = w.first(proto, FROM, SERVER_FAR);
            w.send(At::FromPod(CLIENT), &request).redirects(&request.clone().for_pod(PROXY));
            let answer = w.answer(proto, SERVER_FAR, FROM);
            w.send(At::FromNet, &answer).drops(DropReason::OutsideSpoofed);
            w.send(At::FromPod(SERVER), &answer).drops(DropReason::SourceSpoofed);
            w.send(At::FromPod(PROXY), &answer).redirects(&answer.clone().for_pod(CLIENT));
        }
    }

    /// A flow keeps to the proxy: while there is none, it has to wait.
    fn without_a_proxy_its_flows_are_dropped(w: Redirect) {
        let direct = w.udp((CLIENT, 41_000), (SERVER, 53));
        w.change_pod(CLIENT, |pod| pod.flags |= subject_flags::DNS);
        w.send(At::FromPod(CLIENT), &direct).redirects(&direct.clone().for_pod(SERVER));
        proxy(&mut w);
        w.send(At::FromPod(CLIENT), &direct).redirects(&direct.clone().for_pod(SERVER));
        let request = w.udp(FROM, SERVER_FAR);
        w.send(At::FromPod(CLIENT), &request).redirects(&request.clone().for_pod(PROXY));
        w.change_pod(CLIENT, |pod| pod.flags &= !subject_flags::DNS);
        w.send(At::FromPod(CLIENT), &request).redirects(&request.clone().for_pod(PROXY));
        w.change_pod(CLIENT, |pod| pod.dns_proxy = 0);
        w.send(At::FromPod(CLIENT), &request).drops(DropReason::NoDnsProxy);
    }

    /// A proxy that there will be is waited for.
    fn queries_wait_for_the_proxy(w: Redirect) {
        proxy(&mut w);
        w.change_pod(CLIENT, |pod| pod.dns_proxy = DNS_PROXY);
        for proto in [UDP, TCP] {
            let request = w.first(proto, FROM, SERVER_FAR);
            w.send(At::FromPod(CLIENT), &request).drops(DropReason::NoDnsProxy);
            let other = w.first(proto, FROM, (SERVER, 54));
            w.send(At::FromPod(CLIENT), &other).redirects(&other.clone().for_pod(SERVER));
        }
        proxy(&mut w);
        for proto in [UDP, TCP] {
            let request = w.first(proto, FROM, SERVER_FAR);
            w.send(At::FromPod(CLIENT), &request).redirects(&request.clone().for_pod(PROXY));
        }
    }
}
