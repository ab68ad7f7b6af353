//! Policies in audit: what they would do is counted and told, and changes nothing.

use dataplane_common::{
    abi::{action::DENY, audit_count, ct_flags, name},
    net::proto::TCP,
    verdict::DropReason::{PolicyEgress, PolicyIngress},
};

use crate::{
    rules::{Peer, Tiered},
    seen::At,
    service::Service,
    world::*,
};

const FROM: End = (CLIENT, 40_000);
const TO: End = (SERVER, 8080);

both_families! {
    /// A new flow that policies in audit would deny passes, is counted, and is told with their rule.
    fn new_flows(w: Redirect) {
        let deny = w.tiers(&[Tiered::admin(1, DENY, Peer::Of(CLIENT))]);
        w.change_pod(SERVER, |subject| subject.audited_ingress = deny);
        w.kernel.write_at(name::LISTENERS, 0, &1u32);
        let before = counts(&w);
        let _ = w.send(At::FromPod(CLIENT), &w.tcp(SYN, FROM, TO)).redirected();
        let _ = w.send(At::FromPod(SERVER), &w.tcp(SYN_ACK, TO, FROM)).redirected();
        let _ = w.send(At::FromPod(THIRD), &w.tcp(SYN, (THIRD, 1), TO)).redirected();
        assert_eq!(since(&w, before), [0, 1, 0, 0]);
        let told: Vec<_> = w.kernel.events().iter().map(|it| (it.reason, it.audit, it.audit_rule)).collect();
        assert_eq!(told, [(0, PolicyIngress as u32, 101), (0, 0, 0)]);
        let closed = w.allow(&[]);
        w.change_pod(CLIENT, |subject| subject.audited_egress = closed);
        let before = counts(&w);
        let _ = w.send(At::FromPod(CLIENT), &w.udp(FROM, TO)).redirected();
        assert_eq!(since(&w, before), [1, 0, 0, 0]);
        let told: Vec<_> = w.kernel.events().iter().map(|it| (it.reason, it.audit, it.audit_rule)).collect();
        assert_eq!(told, [(0, PolicyEgress as u32, 0)]);
    }

    /// What is in force decides: what it denies is not asked again.
    fn what_is_in_force_decides(w: Redirect) {
        let (closed, open) = (w.allow(&[]), w.allow(&[(Peer::Any, 1)]));
        w.isolate_ingress(SERVER, closed);
        w.change_pod(SERVER, |subject| subject.audited_ingress = open);
        w.change_pod(CLIENT, |subject| subject.audited_egress = closed);
        let before = counts(&w);
        w.send(At::FromPod(CLIENT), &w.tcp(SYN, FROM, TO)).drops(PolicyIngress);
        assert_eq!(since(&w, before), [0; 4]);
    }

    /// Beside another implementation of Services a sender is asked where the chosen backend is seen.
    fn backends_that_others_choose(w: Beside) {
        w.serve(&Service::new(TCP, (VIP, 80), &[TO]));
        let closed = w.allow(&[]);
        w.change_pod(CLIENT, |subject| subject.audited_egress = closed);
        let before = counts(&w);
        let dialled = w.tcp(SYN, FROM, (VIP, 80));
        w.send(At::FromPod(CLIENT), &dialled).passes(&dialled);
        assert_eq!(since(&w, before), [0; 4]);
        let translated = w.tcp(SYN, FROM, TO);
        w.send(At::ToPod(SERVER, Some(CLIENT)), &translated).passes(&translated);
        assert_eq!(since(&w, before), [1, 0, 0, 0]);
    }

    /// A live flow that policies in audit would cut goes on, and is counted and told once.
    fn live_flows(w: Redirect) {
        let _ = w.send(At::FromPod(CLIENT), &w.tcp(SYN, FROM, TO)).redirected();
        let _ = w.send(At::FromPod(SERVER), &w.tcp(SYN_ACK, TO, FROM)).redirected();
        let closed = w.allow(&[]);
        w.change_pod(SERVER, |subject| subject.audited_ingress = closed);
        w.kernel.write_at(name::LISTENERS, 0, &1u32);
        let before = counts(&w);
        for _ in 0..2 {
            w.next_epoch();
            let _ = w.send(At::FromPod(SERVER), &w.tcp(ACK, TO, FROM)).redirected();
            let _ = w.send(At::FromPod(CLIENT), &w.tcp(ACK, FROM, TO)).redirected();
        }
        assert_eq!(since(&w, before), [0, 0, 0, 1]);
        let told: Vec<_> = w.kernel.events().iter().map(|it| (it.reason, it.audit)).collect();
        assert_eq!(told, [(0, PolicyIngress as u32)]);
        w.change_pod(SERVER, |subject| subject.audited_ingress = 0);
        w.next_epoch();
        let _ = w.send(At::FromPod(CLIENT), &w.tcp(ACK, FROM, TO)).redirected();
        assert_eq!(w.flow(TCP, FROM, TO).expect("a flow").flags & ct_flags::AUDIT, 0);
        assert_eq!(since(&w, before), [0, 0, 0, 1]);
    }
}

fn counts(w: &World) -> [u64; 4] {
    use audit_count::{LIVE_EGRESS, LIVE_INGRESS, NEW_EGRESS, NEW_INGRESS};
    let places = [NEW_EGRESS, NEW_INGRESS, LIVE_EGRESS, LIVE_INGRESS];
    places.map(|place| w.kernel.sum(name::AUDITS, place))
}

fn since(w: &World, before: [u64; 4]) -> [u64; 4] {
    let now = counts(w);
    [0, 1, 2, 3].map(|place| now[place] - before[place])
}
