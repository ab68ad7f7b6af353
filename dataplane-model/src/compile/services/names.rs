//! What the numbers that Services hold stand for, for people. Names are made when somebody asks: most
//! nodes never need them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use dataplane_common::abi::{Addr4, Addr6, ServiceKey, ServiceVal, scope, service_flags};

use super::{Services, service_port_key, source_set_key};
use crate::ids::{IdKind, IdTable};
use crate::snapshot::{Service, ServicePort, Snapshot};
use crate::tables::Family;

/// Names by kind and number.
#[derive(Clone, Debug)]
pub struct ServiceNames<'a> {
    ports: HashMap<u32, (&'a Service, &'a ServicePort)>,
    names: BTreeMap<(IdKind, u32), Arc<str>>,
}

impl<'a> ServiceNames<'a> {
    /// Of Service ports and source ranges.
    pub fn new(snapshot: &'a Snapshot, ids: &IdTable) -> Self {
        let mut ports = HashMap::new();
        let mut names = BTreeMap::new();
        for service in snapshot.services.values().map(AsRef::as_ref) {
            for port in &service.ports {
                let Some(number) = ids.get(&service_port_key(&service.key, port)) else {
                    continue;
                };
                let name = format!("{}:{}/{}", service.key, port.port, port.protocol);
                names.insert((IdKind::ServicePort, number.id), name.into());
                ports.insert(number.id, (service, port));
            }
            let sets = [
                source_set_key::<Addr4>(&service.key),
                source_set_key::<Addr6>(&service.key),
            ];
            for set in sets.iter().filter_map(|key| ids.get(key)) {
                let name = format!("source ranges of {}", service.key);
                names.insert((IdKind::SourceSet, set.id), name.into());
            }
        }
        Self { ports, names }
    }

    /// Adds those of frontends.
    pub fn add<A: Family>(
        &mut self,
        frontends: impl IntoIterator<Item = (ServiceKey<A>, ServiceVal)>,
    ) {
        for (key, value) in frontends {
            if let Some(&(service, port)) = self.ports.get(&value.service_port) {
                let name = frontend_name(service, port, &key, value.flags);
                let number = (IdKind::Frontend, value.frontend);
                self.names.insert(number, name.into());
            }
        }
    }

    /// The name of a number.
    pub fn name(&self, kind: IdKind, number: u32) -> Option<&Arc<str>> {
        self.names.get(&(kind, number))
    }

    /// All names of a kind, by number.
    pub fn of(&self, kind: IdKind) -> BTreeMap<u32, Arc<str>> {
        let of_kind = self.names.range((kind, 0)..=(kind, u32::MAX));
        of_kind
            .map(|(&(_, number), name)| (number, Arc::clone(name)))
            .collect()
    }
}

impl Services {
    /// Names of the numbers that Services hold.
    pub fn names<'a>(&self, snapshot: &'a Snapshot, ids: &IdTable) -> ServiceNames<'a> {
        let mut names = ServiceNames::new(snapshot, ids);
        names.add(self.frontends::<Addr4>());
        names.add(self.frontends::<Addr6>());
        names
    }
}

fn frontend_name<A>(
    service: &Service,
    port: &ServicePort,
    key: &ServiceKey<A>,
    flags: u16,
) -> String {
    let service = &service.key;
    let of_node = flags & service_flags::NODE_ADDRESS != 0;
    match of_node || key.scope == scope::LOOPBACK {
        _ if key.proto == 0 => format!("{service}: other ports"),
        false => format!("{service}:{}", port.port),
        true => format!("{service}:{} (node port {})", port.port, key.port.number()),
    }
}
