//! Frontends and who serves them.

use std::net::SocketAddr;

use dataplane_common::abi::{Addr4, Addr6, ServiceKey, ServiceVal, scope, service_flags};
use dataplane_model::compile::Services;
use dataplane_model::eval::{self, ServiceMaps};
use dataplane_model::snapshot::ObjectKey;
use dataplane_model::tables::{Family, Tables};

use super::explain;
use super::names::{Names, protocol};
use super::protocol::{Backend, Class, Frontend};

/// Those of a Service.
pub(super) fn of_service(services: &Services, names: &Names, service: &ObjectKey) -> Vec<Frontend> {
    let mut rows = Rows::new(services, names, Some(service));
    rows.add::<Addr4>(services.frontends());
    rows.add::<Addr6>(services.frontends());
    rows.sorted()
}

/// All that tables have.
pub(super) fn of_tables(tables: &Tables, names: &Names) -> Vec<Frontend> {
    fn all<A: Family>(tables: &Tables) -> impl Iterator<Item = (ServiceKey<A>, ServiceVal)> {
        let services = A::tables(tables).services.iter();
        services.map(|(key, value)| (*key, *value))
    }
    let mut rows = Rows::new(tables, names, None);
    rows.add::<Addr4>(all(tables));
    rows.add::<Addr6>(all(tables));
    rows.sorted()
}

struct Rows<'a, M> {
    maps: &'a M,
    names: &'a Names,
    of: Option<&'a ObjectKey>,
    list: Vec<Frontend>,
}

impl<'a, M: ServiceMaps> Rows<'a, M> {
    fn new(maps: &'a M, names: &'a Names, of: Option<&'a ObjectKey>) -> Self {
        Self {
            maps,
            names,
            of,
            list: Vec::new(),
        }
    }

    fn add<A: Family>(&mut self, frontends: impl Iterator<Item = (ServiceKey<A>, ServiceVal)>) {
        for (key, value) in frontends {
            let name = self.names.frontend(value.frontend).unwrap_or_default();
            if self
                .of
                .is_some_and(|service| !explain::is_of(&name, service))
            {
                continue;
            }
            let (ip, port) = (key.addr.to_ip(), key.port.number());
            let Some(serving) = eval::serving(self.maps, ip, port, key.proto, key.scope) else {
                continue;
            };
            self.list.push(Frontend {
                service: name,
                frontend: format!("{}/{}", SocketAddr::new(ip, port), protocol(key.proto)),
                scope: scope::name(key.scope).to_owned(),
                classes: classes(&serving, self.names),
                affinity_secs: value.affinity_secs,
                flags: flags(value.flags),
            });
        }
    }

    fn sorted(mut self) -> Vec<Frontend> {
        self.list.sort_by(|a, b| {
            (&a.service, &a.frontend, &a.scope).cmp(&(&b.service, &b.frontend, &b.scope))
        });
        self.list
    }
}

fn classes(serving: &eval::Serving, names: &Names) -> Vec<Class> {
    let class = |share: f64, backends, dropped| Class {
        percent: (share * 10_000.0).round() / 100.0,
        backends,
        dropped,
    };
    let served = serving.backends.iter().map(|share| {
        let backend = Backend {
            address: SocketAddr::new(share.addr, share.port).to_string(),
            pod: names.owner(share.addr),
            local: names.is_local(share.addr),
        };
        class(share.share, vec![backend], false)
    });
    let unserved = [(serving.refused, false), (serving.dropped, true)];
    let unserved = unserved.into_iter().filter(|(share, _)| *share > 0.0);
    let unserved = unserved.map(|(share, dropped)| class(share, Vec::new(), dropped));
    served.chain(unserved).collect()
}

fn flags(bits: u16) -> Vec<String> {
    let known = [
        (service_flags::DROP_IF_EMPTY, "drop-if-empty"),
        (service_flags::SNAT_REMOTE, "snat-remote"),
        (service_flags::NODE_ADDRESS, "node-address"),
    ];
    let set = known.into_iter().filter(|(bit, _)| bits & bit != 0);
    set.map(|(_, name)| name.to_owned()).collect()
}

#[cfg(test)]
mod tests;
