//! Backends that a change of the tables removes while sockets of the host may still be connected to
//! them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use dataplane_common::abi::{Addr4, Addr6, service_flags};
use dataplane_common::net::proto;

use crate::tables::{Family, Tables};

/// A backend that is gone, and whose sockets are to end: those for datagrams always, since they would
/// go on sending to nobody; those of TCP if the Service asks for it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Gone {
    /// Address and port.
    pub backend: SocketAddr,
    /// IP protocol number: TCP or UDP.
    pub protocol: u8,
    /// Numbers of the frontends that led to it. A socket that came by another one stays.
    pub frontends: BTreeSet<u32>,
}

/// The backends that are in `old` and not in `new`, sorted.
pub fn gone(old: &Tables, new: &Tables) -> Vec<Gone> {
    let mut list = Vec::new();
    collect::<Addr4>(old, new, &mut list);
    collect::<Addr6>(old, new, &mut list);
    list.sort_unstable();
    list
}

fn collect<A: Family>(old: &Tables, new: &Tables, list: &mut Vec<Gone>) {
    let (old, new) = (A::tables(old), A::tables(new));
    let mut removed: BTreeMap<u32, Vec<SocketAddr>> = BTreeMap::new();
    for (index, backend) in &old.backends {
        let is_same = new.backends.get(index).is_some_and(|now| {
            (now.service_port, now.addr, now.port)
                == (backend.service_port, backend.addr, backend.port)
        });
        if !is_same {
            let address = SocketAddr::new(backend.addr.to_ip(), backend.port.number());
            removed
                .entry(backend.service_port)
                .or_default()
                .push(address);
        }
    }
    if removed.is_empty() {
        return;
    }
    let mut frontends: BTreeMap<(u32, u8), BTreeSet<u32>> = BTreeMap::new();
    for (key, value) in &old.services {
        let resets = value.flags & service_flags::RESET_ON_REMOVED != 0;
        let ends = key.proto == proto::UDP || (key.proto == proto::TCP && resets);
        if ends && removed.contains_key(&value.service_port) {
            frontends
                .entry((value.service_port, key.proto))
                .or_default()
                .insert(value.frontend);
        }
    }
    for ((service_port, protocol), frontends) in frontends {
        for &backend in &removed[&service_port] {
            list.push(Gone {
                backend,
                protocol,
                frontends: frontends.clone(),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use dataplane_common::abi::{BackendVal, Port, ServiceKey, ServiceVal};

    use super::*;

    fn tables(flags: u16) -> Tables {
        let mut tables = Tables::default();
        for (index, last) in [(1, 1), (2, 2)] {
            let backend = BackendVal {
                addr: Addr4::from(Ipv4Addr::new(10, 0, 0, last)),
                service_port: 7,
                port: Port::new(80),
                ..BackendVal::default()
            };
            tables.v4.backends.insert(index, backend);
        }
        for (proto, frontend) in [(proto::TCP, 30), (proto::UDP, 31)] {
            let key = ServiceKey {
                addr: Addr4::from(Ipv4Addr::new(10, 96, 0, 1)),
                port: Port::new(80),
                proto,
                ..ServiceKey::default()
            };
            let value = ServiceVal {
                frontend,
                service_port: 7,
                flags,
                ..ServiceVal::default()
            };
            tables.v4.services.insert(key, value);
        }
        tables
    }

    fn without_first(flags: u16) -> Vec<(SocketAddr, u8, Vec<u32>)> {
        let old = tables(flags);
        let mut new = old.clone();
        new.v4.backends.remove(&1);
        let list = gone(&old, &new).into_iter();
        list.map(|gone| {
            (
                gone.backend,
                gone.protocol,
                gone.frontends.into_iter().collect(),
            )
        })
        .collect()
    }

    #[test]
    fn sockets_for_datagrams_end_with_their_backend() {
        let backend: SocketAddr = "10.0.0.1:80".parse().expect("an address");
        assert_eq!(without_first(0), [(backend, proto::UDP, vec![31])]);
    }

    #[test]
    fn connections_end_where_the_service_asks_for_it() {
        let backend: SocketAddr = "10.0.0.1:80".parse().expect("an address");
        assert_eq!(
            without_first(service_flags::RESET_ON_REMOVED),
            [
                (backend, proto::TCP, vec![30]),
                (backend, proto::UDP, vec![31])
            ]
        );
    }

    #[test]
    fn a_place_that_is_taken_by_another_backend_counts_as_emptied() {
        let old = tables(0);
        let mut new = old.clone();
        let place = new.v4.backends.get_mut(&1).expect("it is there");
        place.addr = Addr4::from(Ipv4Addr::new(10, 0, 0, 9));
        assert_eq!(gone(&old, &new).len(), 1);
        assert_eq!(gone(&old, &old), []);
    }
}
