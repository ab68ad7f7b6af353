//! Which backend a flow gets: evenly, by weight, by affinity.

use std::collections::BTreeMap;

use dataplane_common::{
    abi::{scope, service_flags},
    net::proto::{TCP, UDP},
    verdict::DropReason,
};

use crate::{seen::At, service::Service, world::*};

const FOURTH: Host = Host::Pod(4);

both_families! {
    /// A thousand connections spread evenly over three backends.
    fn evenly(w: Redirect) {
        let backends = [(SERVER, 8080), (THIRD, 8080), (FOURTH, 8080)];
        w.serve_plain(TCP, (VIP, 80), &backends);
        let shares = shares(&w, 1_000);
        assert!(backends.iter().all(|(host, _)| (313..=353).contains(&shares[host])), "{shares:?}");
    }

    /// Weights hold whatever the numbers of replicas are; a class of weight 0 gets nothing.
    fn by_weight(w: Redirect) {
        let class = |weight, hosts: &[Host]| (weight, hosts.iter().map(|host| (*host, 8080)).collect());
        let cases = [
            (vec![class(90, &[SERVER]), class(10, &[THIRD, FOURTH])], SERVER, 880..=920),
            (vec![class(50, &[SERVER]), class(50, &[THIRD, FOURTH])], SERVER, 480..=520),
            (vec![class(0, &[SERVER]), class(100, &[THIRD])], THIRD, 1000..=1000),
            (vec![class(100, &[SERVER]), class(0, &[THIRD])], SERVER, 1000..=1000),
        ];
        for (round, (classes, host, want)) in cases.into_iter().enumerate() {
            let at = (VIP, 80 + round as u16);
            w.serve(&Service { classes, ..Service::new(TCP, at, &[]) });
            let shares = shares_at(&w, at, 1_000);
            assert!(want.contains(&shares[&host]), "{shares:?}, and {host:?} was to have {want:?}");
        }
    }

    /// The share of a class without backends is refused, not given to others.
    fn an_empty_class_is_refused(w: Redirect) {
        let classes = vec![(50, vec![]), (50, vec![(SERVER, 8080)])];
        w.serve(&Service { classes, ..Service::new(UDP, (VIP, 53), &[]) });
        let refused = (0..100)
            .filter(|n| {
                let request = w.udp((CLIENT, 40_000 + n), (VIP, 53));
                let seen = w.send(At::FromPod(CLIENT), &request);
                seen.refusal() == Some(DropReason::NoBackend)
            })
            .count();
        assert!((40..=60).contains(&refused), "{refused} of 100");
        let classes = vec![(1, vec![])];
        let flags = service_flags::DROP_IF_EMPTY;
        w.serve(&Service { classes, flags, ..Service::new(UDP, (VIP, 54), &[]) });
        w.send(At::FromPod(CLIENT), &w.udp((CLIENT, 4000), (VIP, 54)))
            .drops(DropReason::NoLocalBackend);
    }

    /// A client keeps its backend while the affinity lasts, whatever its ports.
    fn affinity_keeps_a_backend(w: Redirect) {
        let backends = [(SERVER, 8080), (THIRD, 8080), (FOURTH, 8080)];
        let service = Service { affinity: 600, ..Service::new(TCP, (VIP, 80), &backends) };
        w.serve(&service);
        let shares = shares(&w, 30);
        assert_eq!(shares.len(), 1, "{shares:?}");
    }

    /// An affinity that was not used for its time is over.
    fn affinity_expires(w: Redirect) {
        let backends = [(SERVER, 8080), (THIRD, 8080), (FOURTH, 8080)];
        w.serve(&Service { affinity: 600, ..Service::new(TCP, (VIP, 80), &backends) });
        let hosts: Vec<Host> = (0..20)
            .map(|n| {
                let host = backend_of(&w, (CLIENT, 40_000 + n), (VIP, 80));
                w.age_affinity(CLIENT, 1, 601);
                host
            })
            .collect();
        assert!(hosts.iter().any(|host| *host != hosts[0]), "always {:?}", hosts[0]);
    }

    /// An affinity ends with its backend, and begins anew with the next one.
    fn affinity_ends_with_its_backend(w: Redirect) {
        let mut backends = vec![(SERVER, 8080), (THIRD, 8080), (FOURTH, 8080)];
        let service = |backends: &[End]| Service { affinity: 600, ..Service::new(TCP, (VIP, 80), backends) };
        w.serve(&service(&backends));
        for port in [40_000, 41_000] {
            let gone = backend_of(&w, (CLIENT, port), (VIP, 80));
            backends.retain(|(host, _)| *host != gone);
            w.serve(&service(&backends));
            let shares: Vec<Host> =
                (1..20).map(|n| backend_of(&w, (CLIENT, port + n), (VIP, 80))).collect();
            assert!(shares.iter().all(|host| *host == shares[0] && *host != gone), "{shares:?}");
        }
    }

    /// All addresses of a Service port share its affinity, for pods and for clients outside.
    fn affinity_is_shared_by_the_addresses_of_a_port(w: Redirect) {
        let backends = [(SERVER, 8080), (THIRD, 8080), (FOURTH, 8080)];
        let other = (Host::Vip(11), 8443);
        let port = w.serve(&Service { affinity: 600, ..Service::new(TCP, (VIP, 80), &backends) });
        for (at, scope) in [(other, scope::INTERNAL), ((VIP, 80), scope::EXTERNAL), (other, scope::EXTERNAL)] {
            w.serve(&Service { affinity: 600, scope, shares: port, ..Service::new(TCP, at, &backends) });
        }
        for client in [Host::Pod(1), Host::Pod(5), Host::Pod(6)] {
            let first = backend_of(&w, (client, 40_000), (VIP, 80));
            for n in 1..8 {
                let at = if n % 2 == 0 { (VIP, 80) } else { other };
                assert_eq!(backend_of(&w, (client, 40_000 + n), at), first);
            }
        }
        for n in 0..4 {
            let far = |port| (Host::Outside(20 + n), port);
            let outside = |from, at| w.send(At::FromNet, &w.tcp(SYN, from, at)).redirected().dst;
            assert_eq!(outside(far(1), (VIP, 80)), outside(far(2), other));
        }
    }

    /// The longest affinity lasts a day, and is refreshed by each connection.
    fn affinity_of_a_day(w: Redirect) {
        const DAY: u32 = 86_400;
        let backends = [(SERVER, 8080), (THIRD, 8080), (FOURTH, 8080)];
        w.serve(&Service { affinity: DAY, ..Service::new(TCP, (VIP, 80), &backends) });
        let first = backend_of(&w, (CLIENT, 40_000), (VIP, 80));
        for n in 1..20 {
            w.age_affinity(CLIENT, 1, DAY - 1);
            assert_eq!(backend_of(&w, (CLIENT, 40_000 + n), (VIP, 80)), first);
        }
        let others = (20..40).filter(|n| {
            w.age_affinity(CLIENT, 1, DAY + 1);
            backend_of(&w, (CLIENT, 40_000 + n), (VIP, 80)) != first
        });
        assert_ne!(others.count(), 0, "always the same");
    }

    /// The ports of a Service have affinities of their own; so have clients.
    fn affinity_is_per_port_and_client(w: Redirect) {
        let backends = [(SERVER, 8080), (THIRD, 8080)];
        for port in [80, 81, 82, 83, 84, 85] {
            w.serve(&Service { affinity: 600, ..Service::new(TCP, (VIP, port), &backends) });
        }
        let hosts: Vec<Host> = [80, 81, 82, 83, 84, 85]
            .map(|port| backend_of(&w, (CLIENT, 40_000), (VIP, port)))
            .to_vec();
        assert!(hosts.iter().any(|host| *host != hosts[0]), "one backend for six ports");
    }
}

/// The backend of a new connection.
fn backend_of(w: &World, from: End, at: End) -> Host {
    let out = w
        .send(At::FromPod(from.0), &w.tcp(SYN, from, at))
        .redirected();
    (2..=6)
        .map(Host::Pod)
        .find(|host| w.ip(*host) == out.dst)
        .expect("a backend of this node")
}

fn shares(w: &World, count: u16) -> BTreeMap<Host, u32> {
    shares_at(w, (VIP, 80), count)
}

fn shares_at(w: &World, at: End, count: u16) -> BTreeMap<Host, u32> {
    let mut shares = BTreeMap::new();
    for n in 0..count {
        *shares
            .entry(backend_of(w, (CLIENT, 20_000 + n), at))
            .or_default() += 1;
    }
    shares
}
