//! Services as the maps have them: blocks of backends, local ones first, replaced as a whole.

use std::collections::BTreeMap;

use dataplane_common::{
    abi::{
        BackendVal, ClassVal, Port, ServiceKey, ServiceVal, SlotVal, backend_flags, name, scope,
    },
    decide::balance::thresholds,
};

use crate::world::{End, Family, Host, World, addr4, addr6};

/// A frontend and what serves it.
#[derive(Clone, Debug)]
pub struct Service {
    /// Address and port.
    pub at: End,
    /// IP protocol number.
    pub proto: u8,
    /// `scope`.
    pub scope: u8,
    /// Who serves it.
    pub backends: Vec<End>,
    /// Weights and who serves each; instead of `backends`.
    pub classes: Vec<(u32, Vec<End>)>,
    /// `service_flags`.
    pub flags: u16,
    /// Seconds of client affinity.
    pub affinity: u32,
    /// The set of source ranges that clients must be in; 0 for none.
    pub source_set: u32,
    /// The number of a frontend whose Service port it shares; 0: it has its own.
    pub shares: u32,
}

impl Service {
    /// A frontend for pods and the node itself.
    pub fn new(proto: u8, at: End, backends: &[End]) -> Service {
        Service {
            at,
            proto,
            scope: scope::INTERNAL,
            backends: backends.to_vec(),
            classes: vec![],
            flags: 0,
            affinity: 0,
            source_set: 0,
            shares: 0,
        }
    }
}

/// What has been given out so far.
#[derive(Default)]
pub struct Known {
    frontends: BTreeMap<(End, u8, u8), u32>,
    backends: BTreeMap<(u32, End), u32>,
    generations: BTreeMap<u32, u32>,
    slots: u32,
    classes: u32,
}

impl World {
    /// Writes a frontend, in place of what it was. Its number: also that of its own Service port.
    pub fn serve(&mut self, service: &Service) -> u32 {
        let count = self.known.frontends.len() as u32 + 1;
        let key = (service.at, service.proto, service.scope);
        let number = *self.known.frontends.entry(key).or_insert(count);
        let service_port = if service.shares == 0 {
            number
        } else {
            service.shares
        };
        let all = service
            .classes
            .iter()
            .flat_map(|(_, ends)| ends)
            .chain(&service.backends);
        let all: Vec<End> = all.copied().collect();
        self.drop_backends(service_port, &all);
        let (base, count) = self.block(service_port, &service.backends);
        let class_base = self.known.classes;
        let weights: Vec<u32> = service.classes.iter().map(|(weight, _)| *weight).collect();
        let limits = thresholds::<16>(&weights).unwrap_or_default();
        for ((_, ends), threshold) in service.classes.iter().zip(limits) {
            let (base, count) = self.block(service_port, ends);
            let class = ClassVal {
                threshold,
                base,
                count,
                reserved: 0,
            };
            let at = self.known.classes;
            self.known.classes += 1;
            self.kernel.write_at(name::CLASSES, at, &class);
        }
        let value = ServiceVal {
            frontend: number,
            service_port,
            base,
            class_base,
            affinity_secs: service.affinity,
            source_set: service.source_set,
            count,
            classes: service.classes.len() as u16,
            flags: service.flags,
            reserved: 0,
        };
        let (port, proto, scope) = (Port::new(service.at.1), service.proto, service.scope);
        let addr = self.ip(service.at.0);
        let map = self.of(name::SERVICES);
        match self.family {
            Family::V4 => {
                let key = ServiceKey {
                    addr: addr4(addr),
                    port,
                    proto,
                    scope,
                    reserved: 0,
                };
                self.kernel.write(map, &key, &value);
            }
            Family::V6 => {
                let key = ServiceKey {
                    addr: addr6(addr),
                    port,
                    proto,
                    scope,
                    reserved: 0,
                };
                self.kernel.write(map, &key, &value);
            }
        }
        number
    }

    /// Writes the plainest of frontends.
    pub fn serve_plain(&mut self, proto: u8, at: End, backends: &[End]) -> u32 {
        self.serve(&Service::new(proto, at, backends))
    }

    /// Writes a block of backends: its base and its length.
    fn block(&mut self, service_port: u32, ends: &[End]) -> (u32, u16) {
        let base = self.known.slots;
        self.known.slots += ends.len() as u32;
        let (local, remote): (Vec<End>, Vec<End>) =
            ends.iter().partition(|(host, _)| is_here(*host));
        for (place, end) in (base..).zip(local.iter().chain(&remote)) {
            let backend = self.backend(service_port, *end);
            self.kernel
                .write_at(name::SLOTS, place, &SlotVal { backend });
        }
        (base, ends.len() as u16)
    }

    /// The place of a backend, filled if it was not.
    fn backend(&mut self, service_port: u32, end: End) -> u32 {
        if let Some(place) = self.known.backends.get(&(service_port, end)) {
            return *place;
        }
        let place = self.known.generations.len() as u32;
        self.known.backends.insert((service_port, end), place);
        self.fill(place, service_port, end);
        place
    }

    /// Empties the places of a Service port's backends that are not among `kept`.
    fn drop_backends(&mut self, service_port: u32, kept: &[End]) {
        let gone: Vec<((u32, End), u32)> = (self.known.backends.iter())
            .filter(|((owner, end), _)| *owner == service_port && !kept.contains(end))
            .map(|(key, place)| (*key, *place))
            .collect();
        for (key, place) in gone {
            self.known.backends.remove(&key);
            self.fill(place, 0, key.1);
        }
    }

    fn fill(&mut self, place: u32, service_port: u32, (host, port): End) {
        let generation = *self
            .known
            .generations
            .entry(place)
            .and_modify(|g| *g += 1)
            .or_insert(1);
        let flags = if is_here(host) {
            backend_flags::LOCAL
        } else {
            0
        };
        let port = Port::new(port);
        let addr = self.ip(host);
        let map = self.of(name::BACKENDS);
        match self.family {
            Family::V4 => {
                let addr = addr4(addr);
                let value = BackendVal {
                    addr,
                    service_port,
                    generation,
                    port,
                    flags,
                    reserved: 0,
                };
                self.kernel.write_at(map, place, &value);
            }
            Family::V6 => {
                let addr = addr6(addr);
                let value = BackendVal {
                    addr,
                    service_port,
                    generation,
                    port,
                    flags,
                    reserved: 0,
                };
                self.kernel.write_at(map, place, &value);
            }
        }
    }
}

fn is_here(host: Host) -> bool {
    matches!(host, Host::Pod(_) | Host::Node)
}
