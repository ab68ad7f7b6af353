//! By a setting, flows that policy has allowed stay allowed.

use dataplane_common::{abi::subject_state, net::proto::TCP, verdict::DropReason::PolicyIngress};

use crate::{policy::move_address, rules::Peer, seen::At, world::*};

const FROM: End = (CLIENT, 40_000);
const TO: End = (SERVER, 8080);

both_families! {
    /// New flows are judged by the new policy, and denied ones again.
    fn what_was_allowed_stays(w: Tight) {
        let open = w.allow(&[(Peer::Of(CLIENT), 1)]);
        let closed = w.allow(&[]);
        w.isolate_ingress(SERVER, open);
        let _ = w.send(At::FromPod(CLIENT), &w.tcp(SYN, FROM, TO)).redirected();
        let _ = w.send(At::FromPod(SERVER), &w.tcp(SYN_ACK, TO, FROM)).redirected();
        w.isolate_ingress(SERVER, closed);
        w.next_epoch();
        let _ = w.send(At::FromPod(CLIENT), &w.tcp(ACK, FROM, TO)).redirected();
        let _ = w.send(At::FromPod(SERVER), &w.tcp(ACK, TO, FROM)).redirected();
        let later = w.tcp(SYN, (CLIENT, 40_001), TO);
        w.send(At::FromPod(CLIENT), &later).drops(PolicyIngress);
        w.isolate_ingress(SERVER, open);
        w.next_epoch();
        let _ = w.send(At::FromPod(CLIENT), &later).redirected();
    }

    /// What began before a pod was known was never judged for it.
    fn what_nobody_judged_is_judged(w: Tight) {
        w.change_pod(SERVER, |subject| subject.state = subject_state::SERVICES);
        let _ = w.send(At::FromPod(CLIENT), &w.tcp(SYN, FROM, TO)).redirected();
        let _ = w.send(At::FromPod(SERVER), &w.tcp(SYN_ACK, TO, FROM)).redirected();
        let open = w.allow(&[(Peer::Of(CLIENT), 1)]);
        let closed = w.allow(&[]);
        w.change_pod(SERVER, |subject| subject.state = subject_state::MANAGED);
        w.isolate_ingress(SERVER, closed);
        w.next_epoch();
        w.send(At::FromPod(SERVER), &w.tcp(ACK, TO, FROM)).drops(PolicyIngress);
        w.isolate_ingress(SERVER, open);
        w.next_epoch();
        let _ = w.send(At::FromPod(SERVER), &w.tcp(ACK, TO, FROM)).redirected();
        w.isolate_ingress(SERVER, closed);
        w.next_epoch();
        let _ = w.send(At::FromPod(SERVER), &w.tcp(ACK, TO, FROM)).redirected();
        assert_eq!(w.flow(TCP, FROM, TO).expect("a flow").denied, 0);
    }

    /// An address that another pod has now is judged as that pod.
    fn another_pod_is_judged(w: Tight) {
        let request = w.udp(FROM, TO);
        w.send(At::FromPod(CLIENT), &request).redirects(&request.clone().for_pod(SERVER));
        let closed = w.allow(&[]);
        w.isolate_ingress(THIRD, closed);
        move_address(&mut w, SERVER, THIRD);
        w.next_epoch();
        w.send(At::FromPod(CLIENT), &request).drops(PolicyIngress);
    }
}
