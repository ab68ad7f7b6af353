//! Packets that do not fit the route that the programs would send them by: their senders are told how
//! much does, in terms of what they sent.

use dataplane_common::{
    abi::{scope, service_flags},
    net::proto::{TCP, UDP},
    verdict::DropReason::TooBig,
};

use crate::{
    frame::{Body, Frame, Problem},
    seen::At,
    service::Service,
    world::*,
};

/// Behind routes that 1400 octets fit.
const NARROW: Host = Host::Remote(100);
const FAR_CLIENT: Host = Host::Outside(100);

const FROM: End = (OUTSIDE, 5_000);
const AT: End = (Host::Node, 30_080);

both_families! {
    /// A request of an outside client to another node: an error by the address it is for.
    fn clients_are_told(w: Redirect) {
        for proto in [TCP, UDP] {
            serve(&mut w, proto, (NARROW, 8080));
            let _ = w.send(At::FromNet, &w.first(proto, FROM, AT)).redirected();
            for whole in [true, false] {
                let request = large(&w, proto, FROM, AT, whole);
                w.send(At::FromNet, &request).refused(TooBig, &told(&w, &request, Host::Node, proto));
            }
            let mut fitting = large(&w, proto, FROM, AT, true);
            shorten(&mut fitting, 1_400);
            let _ = w.send(At::FromNet, &fitting).redirected();
        }
    }

    /// A reply of a pod to an outside client.
    fn backends_are_told(w: Redirect) {
        for proto in [TCP, UDP] {
            let from = (FAR_CLIENT, 5_000);
            serve(&mut w, proto, (SERVER, 8080));
            let _ = w.send(At::FromNet, &w.first(proto, from, AT)).redirected();
            let reply = large(&w, proto, (SERVER, 8080), from, true);
            w.send(At::FromPod(SERVER), &reply).refused(TooBig, &told(&w, &reply, FAR_CLIENT, proto));
        }
    }

    /// A reply of a pod that the client dialled by its own address.
    fn pods_are_told(w: Redirect) {
        for proto in [TCP, UDP] {
            let (from, to) = ((FAR_CLIENT, 5_000), (SERVER, 8080));
            let _ = w.send(At::FromNet, &w.first(proto, from, to)).redirected();
            let reply = large(&w, proto, to, from, true);
            w.send(At::FromPod(SERVER), &reply).refused(TooBig, &told(&w, &reply, FAR_CLIENT, proto));
        }
    }

    /// What the stack may cut up goes there as it is, and is translated behind it. In IPv6 it may
    /// not.
    fn the_stack_cuts_up_replies(w: Redirect) {
        let from = (FAR_CLIENT, 5_000);
        serve(&mut w, UDP, (SERVER, 8080));
        let _ = w.send(At::FromNet, &w.udp(from, AT)).redirected();
        let reply = large(&w, UDP, (SERVER, 8080), from, false);
        let seen = w.send(At::FromPod(SERVER), &reply);
        if w.family == Family::V6 {
            seen.refused(TooBig, &told(&w, &reply, FAR_CLIENT, UDP));
            return;
        }
        seen.passes(&reply);
        let parts = reply.cut(9, 1_200);
        let out = parts.each_ref().map(|part| w.send(At::ToNet(SERVER), part).passed());
        let sent = Frame::join([&out[0], &out[1]]);
        let want = large(&w, UDP, AT, from, false);
        assert_eq!(sent, Frame { to: sent.to, from: sent.from, ..want });
    }

    /// A request of this host, by the socket's own device.
    fn the_host_is_told(w: Redirect) {
        for proto in [TCP, UDP] {
            let from = (Host::Node, 5_000);
            w.serve_plain(proto, (VIP, 80), &[(NARROW, 8080)]);
            let _ = w.send(At::HostToNet, &w.first(proto, from, (VIP, 80))).redirected();
            let request = large(&w, proto, from, (VIP, 80), true);
            w.send(At::HostToNet, &request).refused(TooBig, &told(&w, &request, VIP, proto));
        }
    }

    /// What a device cuts into segments is measured by them.
    fn segments_are_measured(w: Redirect) {
        for proto in [TCP, UDP] {
            serve(&mut w, proto, (NARROW, 8080));
            let _ = w.send(At::FromNet, &w.first(proto, FROM, AT)).redirected();
            let headers = match (w.family, proto) {
                (Family::V4, TCP) => 40,
                (Family::V4, _) => 28,
                (Family::V6, TCP) => 60,
                (Family::V6, _) => 48,
            };
            let request = large(&w, proto, FROM, AT, true);
            let fits = 1_400 - headers;
            let _ = w.send_segmented(At::FromNet, &request, fits).redirected();
            w.send_segmented(At::FromNet, &request, fits + 1)
                .refused(TooBig, &told(&w, &request, Host::Node, proto));
        }
    }
}

fn serve(w: &mut World, proto: u8, backend: End) {
    let flags = service_flags::SNAT_REMOTE | service_flags::NODE_ADDRESS;
    w.serve(&Service {
        flags,
        scope: scope::EXTERNAL,
        ..Service::new(proto, AT, &[backend])
    });
}

/// A packet of a flow, of more than 1400 octets.
fn large(w: &World, proto: u8, src: End, dst: End, whole: bool) -> Frame {
    let mut frame = match proto {
        TCP => w.tcp(ACK, src, dst),
        _ => w.udp(src, dst),
    };
    *data(&mut frame) = vec![7; 1_600];
    Frame { whole, ..frame }
}

/// Cuts the payload so that the packet is of a length.
fn shorten(frame: &mut Frame, length: usize) {
    let excess = frame.packet().len() - length;
    let data = data(frame);
    data.truncate(data.len() - excess);
}

fn data(frame: &mut Frame) -> &mut Vec<u8> {
    match &mut frame.body {
        Body::Tcp(tcp) => &mut tcp.data,
        Body::Udp { data, .. } => data,
        other => panic!("no payload: {other:?}"),
    }
}

/// The error about a packet.
fn told(w: &World, frame: &Frame, by: Host, proto: u8) -> Frame {
    let octets = if proto == TCP { 20 } else { 8 };
    frame.error(w.ip(by), Problem::TooBig, octets).turned()
}
