//! Which sockets end because a backend goes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use dataplane_common::abi::{Addr4, Addr6, service_flags};
use dataplane_common::net::proto;

use super::maps::{Holdings, Maps};
use crate::gone::Gone;
use crate::tables::Family;

/// Numbers of frontends whose sockets end with their backend, by Service port and protocol.
pub(super) type Ending = BTreeMap<(u32, u8), BTreeSet<u32>>;

/// The frontends among what is held, as they are before a change.
pub(super) fn ending(maps: &Maps, held: &Holdings) -> Ending {
    let mut ending = Ending::new();
    family_ending::<Addr4>(maps, held, &mut ending);
    family_ending::<Addr6>(maps, held, &mut ending);
    ending
}

fn family_ending<A: Family>(maps: &Maps, held: &Holdings, ending: &mut Ending) {
    let fronts = &A::side(maps).frontends;
    for key in &A::held(held).keys {
        let Some(front) = fronts.get(key) else {
            continue;
        };
        let value = front.value;
        let resets = value.flags & service_flags::RESET_ON_REMOVED != 0;
        if key.proto == proto::UDP || (key.proto == proto::TCP && resets) {
            let numbers = ending.entry((value.service_port, key.proto)).or_default();
            numbers.insert(value.frontend);
        }
    }
}

/// The backends among what is not needed any more that end sockets.
pub(super) fn gone(maps: &Maps, ending: &Ending, removed: &Holdings, list: &mut Vec<Gone>) {
    if !ending.is_empty() {
        family_gone::<Addr4>(maps, ending, removed, list);
        family_gone::<Addr6>(maps, ending, removed, list);
    }
}

fn family_gone<A: Family>(maps: &Maps, ending: &Ending, removed: &Holdings, list: &mut Vec<Gone>) {
    for &index in &A::held(removed).backends {
        let backend = A::side(maps).backends.get(index);
        for protocol in [proto::TCP, proto::UDP] {
            if let Some(frontends) = ending.get(&(backend.service_port, protocol)) {
                list.push(Gone {
                    backend: SocketAddr::new(backend.addr.to_ip(), backend.port.number()),
                    protocol,
                    frontends: frontends.clone(),
                });
            }
        }
    }
}
