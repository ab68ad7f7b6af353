//! Pods that claim to be others: as senders, as owners of hardware addresses, as routers.

use std::net::IpAddr;

use dataplane_common::{
    abi::subject_state,
    net::icmpv6,
    verdict::DropReason::{self, NeighbourSpoofed, PolicyIngress, RogueNeighbour, SourceSpoofed},
};

use crate::{
    frame::{Body, Frame},
    kernel::Mode,
    seen::At,
    world::*,
};

const FROM: End = (CLIENT, 40_000);
const TO: End = (SERVER, 8080);

both_families! {
    /// A pod sends from its own address only, whatever it sends.
    fn other_sources(w: Redirect) {
        for claimed in [SERVER, REMOTE, OUTSIDE, Host::Node, VIP] {
            for frame in [
                w.tcp(SYN, (claimed, 1), TO),
                w.tcp(RST, (claimed, 1), TO),
                w.udp((claimed, 1), TO),
                w.first(132, (claimed, 1), TO),
                w.echo(false, claimed, SERVER, 1),
                w.echo(true, claimed, SERVER, 1),
                w.udp((claimed, 1), (VIP, 80)),
            ] {
                w.send(At::FromPod(CLIENT), &frame).drops(SourceSpoofed);
            }
        }
        assert_eq!(w.flows(), 0);
        let own = w.udp(FROM, TO);
        let _ = w.send(At::FromPod(CLIENT), &own).redirected();
    }

    /// A pod that is not known yet is not checked.
    fn unknown_pods_are_not_checked(w: Redirect) {
        w.change_pod(CLIENT, |pod| pod.state = subject_state::SERVICES);
        let frame = w.udp((OUTSIDE, 1), (Host::Node, 2));
        w.send(At::FromPod(CLIENT), &frame).passes(&frame);
    }

    /// A device without an entry is closed, both ways.
    fn devices_without_a_pod(w: Redirect) {
        w.change_pod(CLIENT, |pod| pod.ifindex = 0);
        w.send(At::FromPod(CLIENT), &w.udp(FROM, TO)).drops(DropReason::PodClosed);
        w.send(At::ToPod(CLIENT, None), &w.udp(TO, FROM)).drops(DropReason::PodClosed);
        w.send(At::HostToPod(CLIENT), &w.udp((Host::Node, 1), FROM)).drops(DropReason::PodClosed);
        let arp = arp(&w, CLIENT, SERVER, 1);
        w.send_bytes(At::FromPod(CLIENT), &arp).drops(DropReason::PodClosed);
    }

    /// Link-local and unspecified sources stay on the link: nobody else's policy meets them.
    fn link_scope_sources_stay_on_the_link(w: Redirect) {
        if w.family == Family::V4 {
            return;
        }
        for src in [LINK_LOCAL, UNSPECIFIED] {
            let frame = Frame { src, ..w.udp(FROM, TO) };
            w.send(At::FromPod(CLIENT), &frame).drops(SourceSpoofed);
            let frame = Frame { src, ..w.udp(FROM, (OUTSIDE, 53)) };
            w.send(At::FromPod(CLIENT), &frame).drops(SourceSpoofed);
        }
    }

    /// An isolated pod's link-local address is no way around its policy.
    fn link_local_destinations_are_policed(w: Stack) {
        if w.family == Family::V4 {
            return;
        }
        let peer = IpAddr::from([0xfe80, 0, 0, 0, 0, 0, 0, 0xbb]);
        let frame = Frame { src: peer, dst: LINK_LOCAL, ..w.udp((THIRD, 9), TO) };
        w.send(At::ToPod(SERVER, Some(THIRD)), &frame).passes(&frame);
        let closed = w.allow(&[]);
        w.isolate_ingress(SERVER, closed);
        w.send(At::ToPod(SERVER, Some(THIRD)), &frame).drops(PolicyIngress);
        // What answers the pod's own packets does reach it.
        let own = Frame { src: LINK_LOCAL, dst: peer, ..w.udp(TO, (THIRD, 9)) };
        w.send(At::FromPod(SERVER), &own).passes(&own);
        w.send(At::ToPod(SERVER, Some(THIRD)), &frame).passes(&frame);
    }
}

const LINK_LOCAL: IpAddr = IpAddr::V6(std::net::Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1));
const UNSPECIFIED: IpAddr = IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED);

/// ARP from a pod speaks for its own address; it reaches pods from anybody.
#[test]
fn arp_speaks_for_its_sender() {
    let w = World::new(Mode::Redirect, Family::V4);
    for operation in [1, 2] {
        for (claimed, want) in [
            (CLIENT, None),
            (SERVER, Some(NeighbourSpoofed)),
            (Host::Node, Some(NeighbourSpoofed)),
            (VIP, Some(NeighbourSpoofed)),
        ] {
            let frame = arp(&w, claimed, SERVER, operation);
            assert_eq!(
                w.send_bytes(At::FromPod(CLIENT), &frame).reason(),
                want,
                "{claimed:?}"
            );
            assert_eq!(w.send_bytes(At::ToPod(SERVER, None), &frame).reason(), None);
        }
        let mut probe = arp(&w, CLIENT, SERVER, operation);
        probe[28..32].fill(0);
        assert_eq!(
            w.send_bytes(At::FromPod(CLIENT), &probe).reason(),
            None,
            "a probe (RFC 5227)"
        );
    }
    let frame = arp(&w, CLIENT, SERVER, 1);
    for length in 14..frame.len() {
        let seen = w.send_bytes(At::FromPod(CLIENT), &frame[..length]);
        assert_eq!(
            seen.reason(),
            Some(DropReason::Truncated),
            "{length} octets"
        );
    }
}

/// Neighbour discovery from a pod: solicitations and its own advertisements pass, those of others
/// do not, nor those of routers (CVE-2020-10749).
#[test]
fn neighbour_discovery_speaks_for_its_sender() {
    let w = World::new(Mode::Redirect, Family::V6);
    let all_nodes = IpAddr::from([0xff02, 0, 0, 0, 0, 0, 0, 1]);
    let cases = [
        (
            "router solicitation",
            133,
            LINK_LOCAL,
            LINK_LOCAL,
            255,
            None,
        ),
        (
            "router advertisement",
            icmpv6::ROUTER_ADVERTISEMENT,
            LINK_LOCAL,
            LINK_LOCAL,
            255,
            Some(RogueNeighbour),
        ),
        (
            "router advertisement from a global address",
            134,
            w.ip(CLIENT),
            LINK_LOCAL,
            255,
            Some(RogueNeighbour),
        ),
        ("solicitation", 135, w.ip(CLIENT), w.ip(SERVER), 255, None),
        (
            "solicitation of a link-local source",
            135,
            LINK_LOCAL,
            w.ip(SERVER),
            255,
            None,
        ),
        (
            "duplicate address detection",
            135,
            UNSPECIFIED,
            w.ip(CLIENT),
            255,
            None,
        ),
        (
            "duplicate address detection, link-local",
            135,
            UNSPECIFIED,
            LINK_LOCAL,
            255,
            None,
        ),
        (
            "detection of another's address",
            135,
            UNSPECIFIED,
            w.ip(SERVER),
            255,
            Some(NeighbourSpoofed),
        ),
        (
            "own advertisement",
            136,
            w.ip(CLIENT),
            w.ip(CLIENT),
            255,
            None,
        ),
        (
            "own advertisement of a link-local address",
            136,
            LINK_LOCAL,
            LINK_LOCAL,
            255,
            None,
        ),
        (
            "advertisement of another pod",
            136,
            w.ip(CLIENT),
            w.ip(SERVER),
            255,
            Some(NeighbourSpoofed),
        ),
        (
            "advertisement of the node",
            136,
            LINK_LOCAL,
            w.ip(Host::Node),
            255,
            Some(NeighbourSpoofed),
        ),
        (
            "redirect",
            icmpv6::REDIRECT,
            LINK_LOCAL,
            w.ip(SERVER),
            255,
            Some(RogueNeighbour),
        ),
        (
            "forged source",
            136,
            w.ip(SERVER),
            w.ip(SERVER),
            255,
            Some(SourceSpoofed),
        ),
        (
            "solicitation that was routed",
            135,
            w.ip(CLIENT),
            w.ip(SERVER),
            254,
            Some(RogueNeighbour),
        ),
        (
            "advertisement that was routed",
            136,
            w.ip(CLIENT),
            w.ip(CLIENT),
            64,
            Some(RogueNeighbour),
        ),
        ("listener report", 143, LINK_LOCAL, LINK_LOCAL, 1, None),
        (
            "listener report without a source",
            143,
            UNSPECIFIED,
            LINK_LOCAL,
            1,
            None,
        ),
        (
            "listener report of a global source",
            143,
            w.ip(CLIENT),
            LINK_LOCAL,
            1,
            Some(RogueNeighbour),
        ),
    ];
    for (what, kind, src, target, ttl, want) in cases {
        let mut data = match target {
            IpAddr::V6(target) => target.octets().to_vec(),
            IpAddr::V4(_) => panic!("no IPv4 here"),
        };
        data.extend([2, 1, 0x0a, 0, 0, 0, 1, 1]);
        let body = Body::Icmp {
            kind,
            code: 0,
            info: 0,
            data,
        };
        let frame = Frame {
            src,
            dst: all_nodes,
            ttl,
            ..w.frame(CLIENT, SERVER, body)
        };
        assert_eq!(w.send(At::FromPod(CLIENT), &frame).reason(), want, "{what}");
        if ttl == 255 {
            let bytes = frame.bytes();
            for length in 54..bytes.len() - 8 {
                let seen = w.send_bytes(At::FromPod(CLIENT), &bytes[..length]);
                assert!(
                    !seen.is_let_through() || kind == 133,
                    "{what} of {length} octets"
                );
            }
        }
    }
}

/// Neighbour discovery and listener reports are no way around policy: what is not of the link is
/// judged as any packet is.
#[test]
fn neighbour_discovery_carries_nothing_off_the_link() {
    let mut w = World::new(Mode::Stack, Family::V6);
    let closed = w.allow(&[]);
    w.isolate_egress(CLIENT, closed);
    w.isolate_ingress(SERVER, closed);
    for (kind, ttl) in [
        (133, 64),
        (135, 64),
        (136, 64),
        (143, 64),
        (143, 1),
        (131, 64),
    ] {
        let body = Body::Icmp {
            kind,
            code: 0,
            info: 0,
            data: vec![0x5a; 64],
        };
        let frame = Frame {
            ttl,
            ..w.frame(CLIENT, OUTSIDE, body)
        };
        assert!(
            !w.send(At::FromPod(CLIENT), &frame).is_let_through(),
            "type {kind} from the pod"
        );
        let frame = Frame {
            src: w.ip(OUTSIDE),
            dst: w.ip(SERVER),
            ..frame
        };
        assert!(
            !w.send(At::ToPod(SERVER, None), &frame).is_let_through(),
            "type {kind} to the pod"
        );
    }
    for kind in 133..=136 {
        let body = Body::Icmp {
            kind,
            code: 0,
            info: 0,
            data: vec![0x5a; 64],
        };
        let frame = Frame {
            ttl: 255,
            ..w.frame(CLIENT, OUTSIDE, body)
        };
        w.send(At::ToNet(CLIENT), &frame).passes(&frame);
        w.send(At::ToNet(CLIENT), &frame.clone().routed())
            .drops(RogueNeighbour);
        w.send(At::HostToNet, &frame.clone().routed())
            .passes(&frame.routed());
    }
}

/// An ARP packet (RFC 826).
fn arp(w: &World, sender: Host, target: Host, operation: u8) -> Vec<u8> {
    let mut frame = w.udp(FROM, TO).bytes()[..12].to_vec();
    frame.extend([0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, operation]);
    for host in [sender, target] {
        frame.extend([0x0a, 0, 0, 0, 1, 1]);
        match w.ip(host) {
            IpAddr::V4(ip) => frame.extend(ip.octets()),
            IpAddr::V6(_) => frame.extend([0; 4]),
        }
    }
    frame
}
