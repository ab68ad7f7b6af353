//! Source ports of ours: which one a flow gets, and what happens when none is left.

use dataplane_common::{
    abi::{scope, service_flags},
    decide::conntrack::State,
    net::proto::{SCTP, TCP, UDP},
    verdict::DropReason,
};

use crate::{
    kernel::{SNAT_FIRST, TIGHT_SNAT_COUNT},
    seen::At,
    service::Service,
    world::*,
};

/// The NodePort.
const AT: End = (Host::Node, 30_080);
/// Its backend.
const TO: End = (REMOTE, 8080);

both_families! {
    /// When all ports towards a backend are taken, a new flow is refused, and the old ones live.
    fn ports_run_out(w: Tight) {
        for proto in [TCP, UDP, SCTP] {
            serve(&mut w, proto);
            let mut ports: Vec<u16> = (0..TIGHT_SNAT_COUNT).map(|n| open(&w, proto, n)).collect();
            ports.sort_unstable();
            let all: Vec<u16> = (SNAT_FIRST..SNAT_FIRST + TIGHT_SNAT_COUNT).collect();
            assert_eq!(ports, all, "each port once");
            let more = w.first(proto, client(100), AT);
            let entries = w.flows();
            w.send(At::FromNet, &more).refused(DropReason::SnatExhausted, &w.refusal_of(&more));
            assert_eq!((w.flows(), w.half_open_total()), (entries, 0), "what was not opened is not counted");
            for n in 0..TIGHT_SNAT_COUNT {
                let _ = w.send(At::FromNet, &w.first(proto, client(n), AT)).redirected();
            }
        }
    }

    /// The same for a pod whose own tuple is taken.
    fn ports_of_pods_run_out(w: Tight) {
        let (from, to) = ((CLIENT, 40_000), (SERVER, 8080));
        for proto in [TCP, UDP, SCTP] {
            for n in 0..=TIGHT_SNAT_COUNT as u8 {
                let at = (Host::Vip(10 + n), 80);
                w.serve_plain(proto, at, &[to]);
                let request = w.first(proto, from, at);
                let port = w.send(At::FromPod(CLIENT), &request).redirected().src_port();
                assert_eq!(port == from.1, n == 0);
                let reply = w.answer(proto, to, (CLIENT, port));
                w.send(At::FromPod(SERVER), &reply).redirects(&w.between(&reply, at, from).for_pod(CLIENT));
            }
            w.serve_plain(proto, (Host::Vip(30), 80), &[to]);
            let more = w.first(proto, from, (Host::Vip(30), 80));
            w.send(At::FromPod(CLIENT), &more).refused(DropReason::TupleClash, &w.refusal_of(&more));
        }
    }

    /// A port whose connection was reset, or closed by the client first, is free at once; one whose backend
    /// closed first is taken by another client only when no other is left; one whose connection lives is
    /// never taken.
    fn ports_of_closed_connections(w: Tight) {
        serve(&mut w, TCP);
        let ports: Vec<u16> = (0..TIGHT_SNAT_COUNT).map(|n| open(&w, TCP, n)).collect();
        let state = |n: usize| State::from_number(w.flow(TCP, TO, (Host::Node, ports[n])).expect("a flow").state);
        let _ = w.send(At::FromNet, &w.tcp(FIN, TO, (Host::Node, ports[0]))).redirected();
        let _ = w.send(At::FromNet, &w.tcp(FIN, client(0), AT)).redirected();
        assert_eq!(state(0), State::TimeWait);
        for round in 0..8 {
            let _ = w.send(At::FromNet, &w.tcp(RST, TO, (Host::Node, ports[1]))).redirected();
            assert_eq!(state(1), State::Reset);
            assert_eq!(open(&w, TCP, 10 + round), ports[1], "round {round}");
            let _ = w.send(At::FromNet, &w.tcp(FIN, client(10 + round), AT)).redirected();
            let _ = w.send(At::FromNet, &w.tcp(FIN, TO, (Host::Node, ports[1]))).redirected();
            assert_eq!(state(1), State::TimeWait);
            assert_eq!(open(&w, TCP, 30 + round), ports[1], "round {round}");
        }
        assert_eq!(open(&w, TCP, 20), ports[0], "its backend closed it, but it is the last one");
        let more = w.tcp(SYN, client(21), AT);
        w.send(At::FromNet, &more).refused(DropReason::SnatExhausted, &w.refusal_of(&more));
        for n in [2, 3] {
            let reply = w.tcp(ACK, TO, (Host::Node, ports[n]));
            w.send(At::FromNet, &reply).redirects(&w.between(&reply, AT, client(n as u16)).routed());
        }
    }

    /// A client that has closed its connection and begins anew is served, though no other port is left.
    fn a_client_reuses_its_closed_connection(w: Tight) {
        serve(&mut w, TCP);
        let ports: Vec<u16> = (0..TIGHT_SNAT_COUNT).map(|n| open(&w, TCP, n)).collect();
        let _ = w.send(At::FromNet, &w.tcp(FIN, client(0), AT)).redirected();
        let _ = w.send(At::FromNet, &w.tcp(FIN, TO, (Host::Node, ports[0]))).redirected();
        assert_eq!(open(&w, TCP, 0), ports[0]);
    }

    /// With a range nearly full, a flow still finds a port that is free.
    fn a_nearly_full_range(w: Redirect) {
        serve(&mut w, UDP);
        for n in 0..3_800 {
            let from = (Host::Outside((n / 2_000) as u8 + 1), 10_000 + n % 2_000);
            let _ = w.send(At::FromNet, &w.udp(from, AT)).redirected();
        }
    }
}

fn serve(w: &mut World, proto: u8) {
    let flags = service_flags::SNAT_REMOTE | service_flags::NODE_ADDRESS;
    w.serve(&Service {
        flags,
        scope: scope::EXTERNAL,
        ..Service::new(proto, AT, &[TO])
    });
}

fn client(n: u16) -> End {
    (OUTSIDE, 5_000 + n)
}

/// Opens a flow of a client and answers it: the port it gets.
fn open(w: &World, proto: u8, n: u16) -> u16 {
    let request = w.first(proto, client(n), AT);
    let port = w.send(At::FromNet, &request).redirected().src_port();
    let reply = w.answer(proto, TO, (Host::Node, port));
    w.send(At::FromNet, &reply)
        .redirects(&w.between(&reply, AT, client(n)).routed());
    port
}
