//! One client port for several flows, at one time or one after the other.

use dataplane_common::{
    abi::{scope, service_flags},
    decide::conntrack::State,
    net::proto::{SCTP, TCP, UDP},
};

use crate::{seen::At, service::Service, world::*};

/// The Service.
const AT: End = (VIP, 80);
/// Another one.
const AT2: End = (Host::Vip(11), 80);
/// The backend of both.
const TO: End = (SERVER, 8080);
/// Another backend.
const ELSE: End = (THIRD, 8080);

both_families! {
    /// One client port through two Services to one backend: both flows live, each with its own peer, for
    /// pods, for clients outside and for the node itself.
    fn two_services_and_one_backend(w: Redirect) {
        let clients = [
            (At::FromPod(CLIENT), (CLIENT, 40_000), scope::INTERNAL),
            (At::FromNet, (OUTSIDE, 5_000), scope::EXTERNAL),
            (At::HostToNet, (Host::Node, 41_000), scope::INTERNAL),
        ];
        for proto in [TCP, UDP, SCTP] {
            for (at, from, scope) in clients {
                let flags = service_flags::SNAT_REMOTE;
                let requests = [AT, AT2].map(|dialled| {
                    w.serve(&Service { scope, flags, ..Service::new(proto, dialled, &[TO]) });
                    (dialled, w.first(proto, from, dialled))
                });
                for _ in 0..2 {
                    let ports = requests.each_ref().map(|(dialled, request)| {
                        let out = w.send(at, request).redirected();
                        let port = out.src_port();
                        assert_eq!(out, w.between(request, (from.0, port), TO).for_pod(SERVER));
                        let reply = w.answer(proto, TO, (from.0, port));
                        let back = w.send(At::FromPod(SERVER), &reply).frame();
                        let want = w.between(&reply, *dialled, from);
                        assert_eq!((back.src, back.dst, back.body), (want.src, want.dst, want.body));
                        port
                    });
                    assert!(ports[0] == from.1 && ports[1] != from.1, "{ports:?}");
                }
            }
        }
    }

    /// A client port that is used again after its connection has ended gets a backend of today, though
    /// that of the old connection still serves another Service.
    fn a_used_port_is_balanced_anew(w: Redirect) {
        let from = (CLIENT, 40_000);
        let closed = |by_client: u8, by_server: u8| [(true, by_client), (false, by_server)];
        for (round, ends) in [closed(FIN, FIN), closed(ACK, RST), closed(RST, ACK)].into_iter().enumerate() {
            w.serve_plain(TCP, AT2, &[TO, ELSE]);
            w.serve_plain(TCP, AT, &[TO]);
            let syn = w.tcp(SYN, from, AT);
            w.send(At::FromPod(CLIENT), &syn).redirects(&w.between(&syn, from, TO).for_pod(SERVER));
            let _ = w.send(At::FromPod(SERVER), &w.tcp(SYN_ACK, TO, from)).redirected();
            for (is_client, flags) in ends {
                let (at, frame) = if is_client {
                    (At::FromPod(CLIENT), w.tcp(flags, from, AT))
                } else {
                    (At::FromPod(SERVER), w.tcp(flags, TO, from))
                };
                let _ = w.send(at, &frame).redirected();
            }
            w.serve_plain(TCP, AT, &[ELSE]);
            w.send(At::FromPod(CLIENT), &syn).redirects(&w.between(&syn, from, ELSE).for_pod(THIRD));
            let reply = w.tcp(SYN_ACK, ELSE, from);
            w.send(At::FromPod(THIRD), &reply).redirects(&w.between(&reply, AT, from).for_pod(CLIENT));
            let flow = w.flow(TCP, from, ELSE).expect("a main entry");
            assert_eq!(State::from_number(flow.state), State::Established, "round {round}");
            let _ = w.send(At::FromPod(CLIENT), &w.tcp(RST, from, AT)).redirected();
        }
    }

    /// So does a datagram flow that was idle for its time.
    fn an_idle_flow_is_balanced_anew(w: Redirect) {
        let from = (CLIENT, 40_000);
        for proto in [UDP, SCTP] {
            w.serve_plain(proto, AT, &[TO]);
            let first = w.first(proto, from, AT);
            let _ = w.send(At::FromPod(CLIENT), &first).redirected();
            w.age(proto, from, TO, 31);
            w.serve_plain(proto, AT, &[ELSE]);
            w.send(At::FromPod(CLIENT), &first).redirects(&w.between(&first, from, ELSE).for_pod(THIRD));
        }
    }

    /// A client port that was used for a direct flow is none of it through a Service, and back.
    fn a_direct_flow_and_then_a_service(w: Redirect) {
        let from = (CLIENT, 40_000);
        w.serve_plain(TCP, AT, &[TO]);
        for dialled in [TO, AT, TO, AT] {
            let syn = w.tcp(SYN, from, dialled);
            w.send(At::FromPod(CLIENT), &syn).redirects(&w.between(&syn, from, TO).for_pod(SERVER));
            let reply = w.tcp(SYN_ACK, TO, from);
            w.send(At::FromPod(SERVER), &reply).redirects(&w.between(&reply, dialled, from).for_pod(CLIENT));
            let _ = w.send(At::FromPod(CLIENT), &w.tcp(RST, from, dialled)).redirected();
        }
    }
}
