//! Devices that are closed while packets are under way.

use dataplane_common::{
    abi::{identity_flags, subject_state},
    net::proto::UDP,
    verdict::DropReason,
};

use crate::{seen::At, world::*};

/// A client's end of a flow.
const FROM: End = (CLIENT, 40_000);
/// Whom it dials.
const TO: End = (SERVER, 8080);

both_families! {
    /// What the pod's own hook let in before the device was closed is denied where it is judged.
    fn what_a_closed_pod_has_sent_is_denied(w: Stack) {
        w.change_pod(CLIENT, |pod| pod.state = subject_state::CLOSED);
        w.send(At::ToPod(SERVER, Some(CLIENT)), &w.udp(FROM, TO)).drops(DropReason::PodClosed);
        let denied = w.flow(UDP, FROM, TO).expect("a tombstone").denied;
        assert_eq!(denied, DropReason::PodClosed as u8);
        w.change_pod(CLIENT, |pod| pod.state = subject_state::MANAGED);
        w.next_epoch();
        w.send(At::ToPod(SERVER, Some(CLIENT)), &w.udp(FROM, TO)).passes(&w.udp(FROM, TO));
    }

    /// A device without an entry is closed.
    fn what_a_pod_without_an_entry_has_sent_is_denied(w: Stack) {
        w.set_identity(REMOTE, 0, 77, identity_flags::POD);
        w.send(At::ToPod(SERVER, None), &w.udp((REMOTE, 40_000), TO)).drops(DropReason::PodClosed);
    }

    /// A live flow that was allowed is not taken along.
    fn a_flow_ends_with_its_pod(w: Stack) {
        let request = w.udp(FROM, TO);
        w.send(At::ToPod(SERVER, Some(CLIENT)), &request).passes(&request);
        w.change_pod(CLIENT, |pod| pod.state = subject_state::CLOSED);
        w.next_epoch();
        w.send(At::ToPod(SERVER, Some(CLIENT)), &request).drops(DropReason::PodClosed);
    }
}
