//! The early program of uplinks (XDP): it relays as the tc program would, and leaves all else as it
//! is, with the flow entered at most once.

use dataplane_common::{
    abi::{XdpDevice, name, scope, service_flags, xdp_count, xdp_mode},
    net::proto::{TCP, UDP},
    verdict::DropReason,
};

use crate::{
    errors::source_port,
    frame::{Body, Frame, Problem},
    netns::{UPLINK, UPLINK_MAC},
    seen::At,
    service::Service,
    world::*,
};

const FROM: End = (OUTSIDE, 5_000);
const AT: End = (Host::Node, 30_080);
const PASS: u32 = 2;
const TRANSMIT: u32 = 3;

both_families! {
    /// Requests and replies of a flow to another node leave as the tc program sends them, by the
    /// device they came by, addressed to the next router.
    fn relays_as_tc_does(w: Redirect) {
        for proto in [TCP, UDP] {
            serve(&mut w, proto, &[(REMOTE, 8080)]);
            let request = w.first(proto, FROM, AT);
            let before = w.relayed();
            let out = relayed(&w, &request);
            assert_eq!(w.relayed(), before + 1);
            let by_tc = w.send(At::FromNet, &request).redirected();
            assert_eq!(between_hosts(&out), between_hosts(&by_tc));
            assert_eq!((out.from, out.to), (UPLINK_MAC, next_hop(2)));
            let reply = w.answer(proto, (REMOTE, 8080), (Host::Node, source_port(&out)));
            let back = relayed(&w, &reply);
            let by_tc = w.send(At::FromNet, &reply).redirected();
            assert_eq!(between_hosts(&back), between_hosts(&by_tc));
            assert_eq!((back.from, back.to), (UPLINK_MAC, next_hop(254)));
        }
        assert_eq!(w.half_open_total(), 0);
    }

    /// A datagram without checksum keeps to that (RFC 768); IPv6 has no such datagrams.
    fn no_checksum_stays_none(w: Redirect) {
        serve(&mut w, UDP, &[(REMOTE, 8080)]);
        let mut request = w.udp(FROM, AT);
        let Body::Udp { summed, .. } = &mut request.body else { panic!("a datagram") };
        *summed = w.family == Family::V6;
        let out = relayed(&w, &request);
        let by_tc = w.send(At::FromNet, &request).redirected();
        assert_eq!(between_hosts(&out), between_hosts(&by_tc));
    }

    /// A link without padding, as a veth, has frames shorter than a TCP header asks for.
    fn the_shortest_datagrams_are_relayed(w: Redirect) {
        serve(&mut w, UDP, &[(REMOTE, 8080)]);
        for length in [0, 1, 7] {
            let mut request = w.udp(FROM, AT);
            let Body::Udp { data, .. } = &mut request.body else { panic!("a datagram") };
            data.truncate(length);
            let out = relayed(&w, &request);
            let by_tc = w.send(At::FromNet, &request).redirected();
            assert_eq!(between_hosts(&out), between_hosts(&by_tc));
        }
    }

    /// A backend of this node: the flow is entered, the frame is the tc program's.
    fn local_backends_are_left_to_tc(w: Redirect) {
        for proto in [TCP, UDP] {
            serve(&mut w, proto, &[(SERVER, 8080)]);
            let request = w.first(proto, FROM, AT);
            left(&w, &request);
            let flows = w.flows();
            w.send(At::FromNet, &request)
                .redirects(&w.between(&request, FROM, (SERVER, 8080)).for_pod(SERVER));
            assert_eq!(w.flows(), flows, "the flow was there");
        }
    }

    /// With both programs in a row, backends here and elsewhere have the same shares: nothing is
    /// drawn twice.
    fn flows_are_drawn_once(w: Redirect) {
        serve(&mut w, UDP, &[(SERVER, 8080), (REMOTE, 8080)]);
        let elsewhere = (0..200)
            .filter(|n| {
                let request = w.udp((OUTSIDE, 5_000 + n), AT);
                let (action, _) = w.early(&request);
                if action == PASS {
                    let _ = w.send(At::FromNet, &request).redirected();
                }
                action == TRANSMIT
            })
            .count();
        assert!((92..=108).contains(&elsewhere), "{elsewhere} of 200");
    }

    /// The share of a class without backends is refused by the tc program, as often as without this
    /// one.
    fn an_empty_class_keeps_its_share(w: Redirect) {
        let classes = vec![(50, vec![]), (50, vec![(REMOTE, 8080)])];
        let flags = service_flags::SNAT_REMOTE;
        put_on_uplink(&w);
        w.serve(&Service { classes, flags, scope: scope::EXTERNAL, ..Service::new(UDP, AT, &[]) });
        let refused = (0..200)
            .filter(|n| {
                let request = w.udp((OUTSIDE, 5_000 + n), AT);
                if w.early(&request).0 == TRANSMIT {
                    return false;
                }
                let reason = w.send(At::FromNet, &request).refusal();
                assert_eq!(reason, Some(DropReason::NoBackend));
                true
            })
            .count();
        assert!((85..=115).contains(&refused), "{refused} of 200");
    }

    /// What is not plainly a frontend's, or cannot be relayed as it is, is left as it is.
    fn the_rest_is_left_to_tc(w: Redirect) {
        serve(&mut w, TCP, &[(REMOTE, 8080)]);
        serve(&mut w, UDP, &[(REMOTE, 8080)]);
        let whole = w.udp(FROM, AT);
        let [first, later] = whole.cut(9, 16);
        let mut last_hop = w.tcp(SYN, FROM, AT);
        last_hop.ttl = 1;
        let mut large = w.udp(FROM, AT);
        let Body::Udp { data, .. } = &mut large.body else { panic!("a datagram") };
        *data = vec![5; 1_480];
        for frame in [
            w.tcp(SYN, FROM, (Host::Node, 22)),
            w.tcp(ACK, FROM, AT),
            w.tcp(SYN, (CLIENT, 5_000), AT),
            w.echo(false, OUTSIDE, Host::Node, 9),
            whole.error(w.ip(OUTSIDE), Problem::Port, 8),
            first,
            later,
            last_hop,
            large,
        ] {
            left(&w, &frame);
        }
        // The last hop's and the large one's backends were drawn: each has two entries.
        assert_eq!(w.flows(), 4);
    }

    /// A frame to another host's hardware address, or of another VLAN: a switch floods them. No
    /// flow is entered.
    fn frames_of_others_are_left_to_tc(w: Redirect) {
        serve(&mut w, TCP, &[(REMOTE, 8080)]);
        let frame = w.tcp(SYN, FROM, AT);
        for to in [[0x0a, 0, 0, 0, 8, 2], [0x0b, 0, 0, 0, 8, 1], [0xff; 6]] {
            let bytes = Frame { to, ..frame.clone() }.bytes();
            assert_eq!(w.kernel.run_early(&bytes), (PASS, bytes.clone()), "{to:02x?}");
        }
        let mut tagged = at_uplink(&frame).bytes();
        tagged.splice(12..12, [0x81, 0, 0, 7]);
        assert_eq!(w.kernel.run_early(&tagged), (PASS, tagged.clone()));
        assert_eq!(w.flows(), 0);
        relayed(&w, &frame);
    }

    /// A neighbour that is not known yet is the kernel's to find.
    fn an_unknown_neighbour_is_left_to_tc(w: Redirect) {
        let far = Host::Remote(200);
        serve(&mut w, TCP, &[(far, 8080)]);
        left(&w, &w.tcp(SYN, FROM, AT));
        assert_eq!(w.flows(), 2, "entered, with its front");
    }
}

/// Tells the early program of its device.
fn put_on_uplink(w: &World) {
    let device = XdpDevice {
        mode: xdp_mode::NATIVE,
        mac: UPLINK_MAC,
        reserved: 0,
    };
    w.kernel.write(name::XDP_DEVICES, &UPLINK, &device);
}

fn serve(w: &mut World, proto: u8, backends: &[End]) {
    put_on_uplink(w);
    let flags = service_flags::SNAT_REMOTE | service_flags::NODE_ADDRESS;
    w.serve(&Service {
        flags,
        scope: scope::EXTERNAL,
        ..Service::new(proto, AT, backends)
    });
}

#[track_caller]
fn relayed(w: &World, frame: &Frame) -> Frame {
    let (action, bytes) = w.early(frame);
    assert_eq!(action, TRANSMIT, "{frame:?}");
    Frame::read(&bytes)
        .unwrap_or_else(|error| panic!("{frame:?} came out as {bytes:02x?}: {error}"))
}

#[track_caller]
fn left(w: &World, frame: &Frame) {
    let relayed = w.relayed();
    let (action, bytes) = w.early(frame);
    assert_eq!(
        (action, bytes),
        (PASS, at_uplink(frame).bytes()),
        "{frame:?}"
    );
    assert_eq!(w.relayed(), relayed);
}

/// The frame as it reaches the uplink: addressed to it.
fn at_uplink(frame: &Frame) -> Frame {
    Frame {
        to: UPLINK_MAC,
        ..frame.clone()
    }
}

/// The frame without what the link adds: the tc program's is addressed after it.
fn between_hosts(frame: &Frame) -> Frame {
    Frame {
        to: [0; 6],
        from: [0; 6],
        ..frame.clone()
    }
}

fn next_hop(last: u8) -> [u8; 6] {
    [0x0a, 0, 0, 0, 8, last]
}

impl World {
    /// Gives a frame to the early program: its action, and the frame as it left it.
    fn early(&self, frame: &Frame) -> (u32, Vec<u8>) {
        self.kernel.run_early(&at_uplink(frame).bytes())
    }

    /// Frames that the early program has sent back.
    fn relayed(&self) -> u64 {
        self.kernel.early_count(xdp_count::SENT_BACK)
    }
}
