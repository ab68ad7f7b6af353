//! Frames that end early, contradict themselves, or are of another kind.

use dataplane_common::{
    net::proto::{
        AUTHENTICATION, DESTINATION_OPTIONS, FRAGMENT, HOP_BY_HOP, ROUTING, SCTP, TCP, UDP,
    },
    verdict::DropReason::{self, PolicyIngress, Truncated},
};

use crate::{
    frame::{Frame, Problem},
    rules::{Peer, Rules},
    seen::At,
    world::*,
};

const FROM: End = (CLIENT, 40_000);
const TO: End = (SERVER, 8080);

both_families! {
    /// However little is left of a frame, it gets no further than the whole one would.
    fn every_prefix_of_a_frame(w: Redirect) {
        w.serve_plain(TCP, (VIP, 80), &[TO]);
        w.serve_plain(UDP, (VIP, 80), &[TO]);
        let _ = w.send(At::FromPod(CLIENT), &w.tcp(SYN, FROM, TO)).redirected();
        let quoted = w.tcp(SYN, FROM, TO);
        let frames = [
            w.tcp(SYN, FROM, (VIP, 80)),
            w.udp(FROM, (VIP, 80)),
            w.tcp(ACK, FROM, TO),
            w.first(SCTP, FROM, TO),
            w.echo(false, CLIENT, SERVER, 3),
            with_headers(&w, w.tcp(SYN, FROM, (VIP, 80))),
            with_headers(&w, w.udp(FROM, TO)),
            quoted.error(w.ip(SERVER), Problem::Port, 28).of_pod(SERVER),
        ];
        for frame in &frames {
            let whole = frame.bytes();
            for length in shortest(&w)..whole.len() {
                for at in [At::FromPod(CLIENT), At::FromPod(SERVER), At::ToPod(SERVER, None)] {
                    let seen = w.send_bytes(at, &whole[..length]);
                    let reason = seen.reason();
                    assert!(reason.is_some(), "{at:?} let {length} octets through of {frame:?}");
                }
                for at in [At::FromNet, At::ToNet(CLIENT), At::HostToNet] {
                    assert_eq!(w.send_bytes(at, &whole[..length]).reason(), None, "{at:?}");
                }
            }
        }
        assert_eq!(w.flows(), 1, "what was cut opened nothing");
    }

    /// An isolated pod gets no part of what its policy denies.
    fn every_prefix_of_a_denied_frame(w: Stack) {
        let ruleset = w.rules(Rules { tcp: &[(0, 1)], rows: &[(Peer::Any, 1, 1)], ..Rules::default() });
        w.isolate_ingress(SERVER, ruleset);
        for frame in [w.udp((OUTSIDE, 9), TO), with_headers(&w, w.udp((OUTSIDE, 9), TO)), w.echo(false, OUTSIDE, SERVER, 1)] {
            let whole = frame.bytes();
            for length in shortest(&w)..whole.len() {
                let seen = w.send_bytes(At::ToPod(SERVER, None), &whole[..length]);
                assert!(seen.reason().is_some(), "{length} octets of {frame:?}");
            }
        }
    }

    /// A length field that says more than there is, or less than the headers take.
    fn lengths_that_contradict(w: Redirect) {
        let (at, header) = match w.family {
            Family::V4 => (16, 20),
            Family::V6 => (18, 0),
        };
        for frame in [w.tcp(SYN, FROM, TO), w.udp(FROM, TO), w.first(SCTP, FROM, TO)] {
            let whole = frame.bytes();
            let own = u16::from_be_bytes([whole[at], whole[at + 1]]);
            for length in [header, header + 1, header + 7, own + 1, own + 100, u16::MAX] {
                let mut bytes = whole.clone();
                bytes[at..at + 2].copy_from_slice(&length.to_be_bytes());
                w.send_bytes(At::FromPod(CLIENT), &bytes).drops(Truncated);
                assert_eq!(w.send_bytes(At::FromNet, &bytes).reason(), None, "not ours to judge");
            }
        }
        assert_eq!(w.flows(), 0);
    }

    /// Octets behind the packet are padding: they stay, and are no part of it.
    fn padding_behind_the_packet(w: Redirect) {
        w.serve_plain(UDP, (VIP, 80), &[TO]);
        let request = w.udp(FROM, (VIP, 80));
        let mut bytes = request.bytes();
        bytes.extend([0xee; 9]);
        let out = w.send_bytes(At::FromPod(CLIENT), &bytes).redirected_bytes();
        let want = w.between(&request, FROM, TO).for_pod(SERVER).bytes();
        assert_eq!(out, [&want[..], &[0xee; 9]].concat());
    }

    /// Header fields that are not of the protocol.
    fn broken_headers(w: Redirect) {
        let whole = w.tcp(SYN, FROM, TO).bytes();
        let with = |at: usize, octet: u8| {
            let mut bytes = whole.clone();
            bytes[at] = octet;
            bytes
        };
        let broken: &[u8] = match w.family {
            Family::V4 => &[0x05, 0x15, 0x65, 0x40, 0x41, 0x44],
            Family::V6 => &[0x00, 0x40, 0x50, 0x70, 0xf0],
        };
        for octet in broken {
            w.send_bytes(At::FromPod(CLIENT), &with(14, *octet)).drops(DropReason::Malformed);
            let net = w.send_bytes(At::FromNet, &with(14, *octet));
            assert_eq!(net.reason(), None, "not ours to judge");
        }
    }

    /// Protocols that are neither IP nor ARP pass pods that nobody isolates.
    fn other_ethertypes(w: Redirect) {
        let mut frame = w.tcp(SYN, FROM, TO).bytes();
        for kind in [[0x88, 0xcc], [0x81, 0x00], [0x88, 0x47], [0x00, 0x2e]] {
            frame[12..14].copy_from_slice(&kind);
            let closed = w.allow(&[]);
            for pod in [CLIENT, SERVER] {
                w.change_pod(pod, |pod| (pod.ingress, pod.egress) = (0, 0));
            }
            assert_eq!(w.send_bytes(At::FromPod(CLIENT), &frame).reason(), None);
            assert_eq!(w.send_bytes(At::ToPod(SERVER, None), &frame).reason(), None);
            w.isolate_egress(CLIENT, closed);
            w.isolate_ingress(SERVER, closed);
            let unknown = DropReason::UnknownEthertype;
            w.send_bytes(At::FromPod(CLIENT), &frame).drops(unknown);
            w.send_bytes(At::ToPod(SERVER, None), &frame).drops(unknown);
            assert_eq!(w.send_bytes(At::FromNet, &frame).reason(), None);
        }
    }

    /// The other family is policed too: rules for one open nothing in the other.
    fn options_do_not_hide_ports(w: Redirect) {
        let ruleset = w.rules(Rules {
            tcp: &[(0, 0), (8080, 1), (8081, 0)],
            rows: &[(Peer::Any, 1, 1)],
            ..Rules::default()
        });
        w.isolate_ingress(SERVER, ruleset);
        let allowed = with_headers(&w, w.tcp(SYN, FROM, TO));
        w.send(At::FromPod(CLIENT), &allowed).redirects(&allowed.clone().for_pod(SERVER));
        w.send(At::FromPod(CLIENT), &with_headers(&w, w.tcp(SYN, FROM, (SERVER, 8081)))).drops(PolicyIngress);
        w.send(At::FromPod(CLIENT), &with_headers(&w, w.udp(FROM, TO))).drops(PolicyIngress);
    }

    /// All kinds of extension headers are followed, as many as the standard knows.
    fn chains_of_extension_headers(w: Redirect) {
        if w.family == Family::V4 {
            return;
        }
        let options = |octets: usize| [vec![(octets / 8 - 1) as u8], vec![0; octets - 2]].concat();
        // Authentication counts its length in words less two (RFC 4302).
        let authentication = [vec![4], vec![0; 22]].concat();
        let chain = [
            (HOP_BY_HOP, options(8)),
            (DESTINATION_OPTIONS, options(16)),
            (ROUTING, options(8)),
            (AUTHENTICATION, authentication),
            (DESTINATION_OPTIONS, options(24)),
            (DESTINATION_OPTIONS, options(8)),
        ];
        w.serve_plain(TCP, (VIP, 80), &[TO]);
        let ports = |n: usize| (CLIENT, 40_000 + n as u16);
        for count in 1..=chain.len() {
            let request = Frame { extensions: chain[..count].to_vec(), ..w.tcp(SYN, ports(count), (VIP, 80)) };
            w.send_summed(At::FromPod(CLIENT), &request)
                .redirects(&w.between(&request, ports(count), TO).for_pod(SERVER));
        }
        let endless = [&chain[..], &chain[..1]].concat();
        let frame = Frame { extensions: endless, ..w.tcp(SYN, FROM, TO) };
        w.send(At::FromPod(CLIENT), &frame).drops(DropReason::ExtensionHeader);
        let long = Frame { extensions: vec![(DESTINATION_OPTIONS, options(2040))], ..w.tcp(SYN, FROM, TO) };
        assert!(!w.send(At::FromPod(CLIENT), &long).is_let_through());
        assert_eq!(FRAGMENT, 44);
    }

    /// Frames whose headers are not all in linear memory are read all the same.
    fn headers_in_paged_memory(w: Redirect) {
        w.serve_plain(TCP, (VIP, 80), &[TO]);
        let request = with_headers(&w, w.tcp(SYN, FROM, (VIP, 80)));
        let want = w.between(&request, FROM, TO).for_pod(SERVER);
        for linear in [14, 20, 34, 54, 60, 70] {
            match w.send_linear(At::FromPod(CLIENT), &request, linear) {
                Some(seen) => seen.redirects(&want),
                None => return assert!(!kernel_has_paged_test_runs(), "this kernel can do it"),
            }
        }
    }
}

/// The shortest frame that the kernel runs a program on: it wants the network header whole.
fn shortest(w: &World) -> usize {
    match w.family {
        Family::V4 => 34,
        Family::V6 => 54,
    }
}

/// Since 6.19 a test run may be given a frame that is not linear.
fn kernel_has_paged_test_runs() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("a release");
    let mut numbers = release
        .split(['.', '-'])
        .map(|part| part.parse::<u32>().unwrap_or(0));
    (numbers.next(), numbers.next()) >= (Some(6), Some(19))
}

fn with_headers(w: &World, frame: Frame) -> Frame {
    match w.family {
        Family::V4 => Frame {
            options: vec![1; 20],
            ..frame
        },
        Family::V6 => Frame {
            extensions: vec![
                (HOP_BY_HOP, vec![0, 1, 4, 0, 0, 0, 0]),
                (
                    DESTINATION_OPTIONS,
                    vec![1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
                ),
            ],
            ..frame
        },
    }
}
