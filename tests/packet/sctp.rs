//! SCTP through Services: ports are translated under a CRC32c that covers them and nothing of the
//! addresses.

use dataplane_common::{
    abi::{scope, service_flags},
    decide::conntrack::State,
    net::{
        proto::SCTP,
        sctp::{ABORT, INIT, REFLECTED_TAG, SHUTDOWN, SHUTDOWN_ACK, SHUTDOWN_COMPLETE},
    },
    verdict::DropReason,
};

use crate::{
    frame::{Body, Frame},
    seen::At,
    service::Service,
    world::*,
};

/// A client's end of an association.
const FROM: End = (CLIENT, 40_000);
/// The Service.
const AT: End = (VIP, 36_412);
/// Its backend.
const TO: End = (SERVER, 38_412);
/// A chunk of data.
const DATA: u8 = 0;

both_families! {
    /// Both directions, whatever the packet's length; the checksum is right each time.
    fn ports_are_translated(w: Redirect) {
        w.serve_plain(SCTP, AT, &[TO]);
        for length in [4, 5, 16, 255, 256, 1_000, 1_400] {
            let long = |frame: Frame| with_body(frame, |chunks, _| chunks.resize(length.max(chunks.len()), 0x5a));
            let request = long(w.sctp(INIT, FROM, AT));
            w.send(At::FromPod(CLIENT), &request).redirects(&w.between(&request, FROM, TO).for_pod(SERVER));
            let reply = long(w.sctp(INIT_ACK, TO, FROM));
            w.send(At::FromPod(SERVER), &reply).redirects(&w.between(&reply, AT, FROM).for_pod(CLIENT));
        }
    }

    /// A checksum that a device is still to compute stays 0.
    fn a_checksum_to_come_stays_out(w: Redirect) {
        w.serve_plain(SCTP, AT, &[TO]);
        let request = with_body(w.sctp(INIT, FROM, AT), |_, summed| *summed = false);
        w.send(At::FromPod(CLIENT), &request).redirects(&w.between(&request, FROM, TO).for_pod(SERVER));
    }

    /// Without redirection, and to another node.
    fn by_the_stack(w: Stack) {
        w.serve_plain(SCTP, AT, &[(REMOTE, 38_412)]);
        let request = w.sctp(INIT, FROM, AT);
        w.send(At::FromPod(CLIENT), &request).passes(&w.between(&request, FROM, (REMOTE, 38_412)));
        let reply = w.sctp(INIT_ACK, (REMOTE, 38_412), FROM);
        w.send(At::FromNet, &reply).passes(&reply);
        w.send(At::ToPod(CLIENT, None), &reply).passes(&w.between(&reply, AT, FROM));
    }

    /// A pod that is its own backend.
    fn hairpin(w: Redirect) {
        w.serve_plain(SCTP, AT, &[(CLIENT, 38_412)]);
        let request = w.sctp(INIT, FROM, AT);
        let inside = w.between(&request, (VIP, FROM.1), (CLIENT, 38_412)).for_pod(CLIENT);
        w.send(At::FromPod(CLIENT), &request).redirects(&inside);
        let reply = w.sctp(INIT_ACK, (CLIENT, 38_412), (CLIENT, FROM.1));
        let reply = w.between(&reply, (CLIENT, 38_412), (VIP, FROM.1));
        w.send(At::FromPod(CLIENT), &reply).redirects(&w.between(&reply, AT, FROM).for_pod(CLIENT));
    }

    /// The node's associations, which no socket hook sees.
    fn the_node_as_a_client(w: Redirect) {
        let from = (Host::Node, 40_000);
        w.serve_plain(SCTP, AT, &[TO]);
        let request = w.sctp(INIT, from, AT);
        w.send(At::HostToNet, &request).redirects(&w.between(&request, from, TO).for_pod(SERVER));
        let reply = w.sctp(INIT_ACK, TO, from);
        w.send(At::FromPod(SERVER), &reply).passes(&w.between(&reply, AT, from));
    }

    /// A client outside and a backend on another node: by a port of this node's.
    fn from_outside_to_another_node(w: Redirect) {
        let (at, from, to) = ((Host::Node, 30_080), (OUTSIDE, 5_000), (REMOTE, 38_412));
        let flags = service_flags::SNAT_REMOTE | service_flags::NODE_ADDRESS;
        w.serve(&Service { flags, scope: scope::EXTERNAL, ..Service::new(SCTP, at, &[to]) });
        let request = w.sctp(INIT, from, at);
        let out = w.send(At::FromNet, &request).redirected();
        let Body::Sctp { src, .. } = out.body else { panic!("{out:?}") };
        assert_eq!(out, w.between(&request, (Host::Node, src), to).routed());
        let reply = w.sctp(INIT_ACK, to, (Host::Node, src));
        w.send(At::FromNet, &reply).redirects(&w.between(&reply, at, from).routed());
    }

    /// Nobody serves: an abort with the tag that the INIT asks for.
    fn no_endpoint_is_refused(w: Redirect) {
        w.serve_plain(SCTP, AT, &[]);
        let init = w.sctp(INIT, FROM, AT);
        w.send(At::FromPod(CLIENT), &init)
            .refused(DropReason::NoBackend, &w.abort_of(&init, 0x0a0b_0c0d, 0));
        assert_eq!(w.flows(), 0);
    }

    /// Amid an unknown association: an abort with the packet's own tag; what ends one is not answered.
    fn amid_an_unknown_association(w: Redirect) {
        w.serve_plain(SCTP, AT, &[TO]);
        let data = w.sctp(DATA, FROM, AT);
        w.send(At::FromPod(CLIENT), &data)
            .refused(DropReason::NoConnection, &w.abort_of(&data, 0x0102_0304, REFLECTED_TAG));
        for chunk in [ABORT, SHUTDOWN_COMPLETE] {
            w.send(At::FromPod(CLIENT), &w.sctp(chunk, FROM, AT)).drops(DropReason::NoConnection);
        }
        assert_eq!(w.flows(), 0);
    }

    /// An association's states, and the next one in its place.
    fn an_associations_life(w: Redirect) {
        let steps = [
            (INIT, true, State::New),
            (INIT_ACK, false, State::Established),
            (DATA, true, State::Established),
            (SHUTDOWN, true, State::Closing),
            (SHUTDOWN_ACK, false, State::Closing),
            (SHUTDOWN_COMPLETE, true, State::TimeWait),
            (INIT, true, State::New),
            (ABORT, false, State::Reset),
            (INIT, true, State::New),
        ];
        for (step, (chunk, forward, state)) in steps.into_iter().enumerate() {
            let (at, frame, target) = if forward {
                (At::FromPod(CLIENT), w.sctp(chunk, FROM, TO), SERVER)
            } else {
                (At::FromPod(SERVER), w.sctp(chunk, TO, FROM), CLIENT)
            };
            w.send(at, &frame).redirects(&frame.clone().for_pod(target));
            let flow = w.flow(SCTP, FROM, TO).expect("a flow");
            assert_eq!(State::from_number(flow.state), state, "after step {step}");
        }
    }

    /// An association whose backend is gone goes on; the next INIT gets another backend.
    fn associations_drain(w: Redirect) {
        w.serve_plain(SCTP, AT, &[TO]);
        let init = w.sctp(INIT, FROM, AT);
        let _ = w.send(At::FromPod(CLIENT), &init).redirected();
        w.serve_plain(SCTP, AT, &[(THIRD, 38_412)]);
        let data = w.sctp(DATA, FROM, AT);
        w.send(At::FromPod(CLIENT), &data).redirects(&w.between(&data, FROM, TO).for_pod(SERVER));
        w.send(At::FromPod(CLIENT), &init)
            .redirects(&w.between(&init, FROM, (THIRD, 38_412)).for_pod(THIRD));
    }
}

fn with_body(mut frame: Frame, change: impl FnOnce(&mut Vec<u8>, &mut bool)) -> Frame {
    match &mut frame.body {
        Body::Sctp { chunks, summed, .. } => change(chunks, summed),
        other => panic!("no SCTP: {other:?}"),
    }
    frame
}
