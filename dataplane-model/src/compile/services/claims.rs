//! Which Service gets an address and port that several of them claim.
//!
//! An address that the API server has allocated goes before one that a user wrote, so that nobody takes
//! another's traffic by naming its address (CVE-2020-8554); then the older Service goes first, then
//! the first by name.

use std::collections::{BTreeSet, HashSet};

use dataplane_common::abi::{Port, ServiceKey, scope};

use super::depend::Marks;
use super::maps::Side;
use crate::compile::Notice;
use crate::snapshot::{NodeConfig, ObjectKey, Protocol, Service, Snapshot};
use crate::tables::Family;

/// Smaller goes first.
type Rank<'a> = (bool, Option<i64>, &'a ObjectKey);

fn rank<'a, A: Family>(node: &NodeConfig, service: &'a Service, key: &ServiceKey<A>) -> Rank<'a> {
    let given = !is_allocated(node, service, key);
    (given, service.created, &service.key)
}

/// True for a cluster IP and for node ports; false for addresses of load balancers and external ones.
fn is_allocated<A: Family>(node: &NodeConfig, service: &Service, key: &ServiceKey<A>) -> bool {
    let ip = key.addr.to_ip();
    let of_node = || {
        let number = Some(key.port.number());
        let mut ports = service.ports.iter();
        ports.any(|port| port.node_port == number && port.protocol.number() == key.proto)
            && node.nodeport_ips().any(|own| own == ip)
    };
    key.scope == scope::LOOPBACK || service.cluster_ips.contains(&ip) || of_node()
}

/// What stands for the ports that nobody has at an address: who has it has the address as cluster IP.
fn other_ports<A: Family>(key: &ServiceKey<A>) -> ServiceKey<A> {
    ServiceKey {
        port: Port::new(0),
        proto: 0,
        ..*key
    }
}

impl<A: Family> Side<A> {
    /// True if a Service has the best claim to a frontend; otherwise it waits for it from now on.
    pub(super) fn may_have(
        &mut self,
        snapshot: &Snapshot,
        service: &Service,
        key: &ServiceKey<A>,
        waiters: &mut HashSet<ObjectKey>,
    ) -> bool {
        let is_left = self.left_to(snapshot, service, key).is_some();
        if is_left {
            let waiting = self.waiting.entry(*key).or_default();
            waiting.insert(service.key.clone());
            waiters.insert(service.key.clone());
        }
        !is_left
    }

    /// The Service that a frontend is left to, if another has the better claim.
    fn left_to(
        &self,
        snapshot: &Snapshot,
        service: &Service,
        key: &ServiceKey<A>,
    ) -> Option<&ObjectKey> {
        let holder = |key: &ServiceKey<A>| {
            let front = self.frontends.get(key)?;
            (front.owner != service.key && !front.is_orphan()).then_some(&front.owner)
        };
        let own = rank(&snapshot.node, service, key);
        let (is_given, _, _) = own;
        if is_given && let Some(owner) = holder(&other_ports(key)) {
            return Some(owner);
        }
        let owner = holder(key)?;
        let other = snapshot.services.get(owner)?;
        (rank(&snapshot.node, other, key) < own).then_some(owner)
    }

    /// Notes that a Service has a frontend from now on, and marks those that it takes something from,
    /// or that have a better claim. Returns the Service that had it until now.
    pub(super) fn claim(
        &mut self,
        snapshot: &Snapshot,
        service: &Service,
        key: &ServiceKey<A>,
        marks: &mut Marks,
    ) -> Option<ObjectKey> {
        let own = rank(&snapshot.node, service, key);
        let before = self.frontends.get(key).map(|front| &front.owner);
        let is_new = before != Some(&service.key);
        let before = before.filter(|key| is_new && !key.name.is_empty()).cloned();
        marks.dirty.extend(before.clone());
        if is_new && key.proto == 0 {
            let given = self.given.get(&key.addr).into_iter().flatten();
            marks
                .dirty
                .extend(given.filter(|given| **given != service.key).cloned());
        }
        let (is_given, _, _) = own;
        if is_given {
            let given = self.given.entry(key.addr).or_default();
            given.insert(service.key.clone());
        }
        let waiting = self.waiting.get(key).into_iter().flatten();
        let better = waiting.filter(|waiting| {
            let other = snapshot.services.get(*waiting);
            other.is_some_and(|other| rank(&snapshot.node, other, key) < own)
        });
        marks.dirty.extend(better.cloned());
        before
    }

    /// Notes that a Service has a frontend no more, and marks those that wait for it.
    pub(super) fn unclaim(&mut self, key: &ServiceKey<A>, marks: &mut Marks) {
        if key.proto != 0 {
            let waiting = self.waiting.get(key).into_iter().flatten();
            marks.dirty.extend(waiting.cloned());
            return;
        }
        let first = ServiceKey {
            addr: key.addr,
            ..ServiceKey::default()
        };
        let waiting = self.waiting.range(first..);
        let waiting = waiting.take_while(|(other, _)| other.addr == key.addr);
        marks
            .dirty
            .extend(waiting.flat_map(|(_, services)| services).cloned());
    }

    /// Notes that a Service has no frontend at an address any more.
    pub(super) fn leave(&mut self, addr: A, service: &ObjectKey) {
        if let Some(given) = self.given.get_mut(&addr) {
            given.remove(service);
            if given.is_empty() {
                self.given.remove(&addr);
            }
        }
    }

    /// The Service waits for nothing any more, until it says so again.
    pub(super) fn stop_waiting(&mut self, key: &ObjectKey) {
        self.waiting
            .retain(|_, services: &mut BTreeSet<ObjectKey>| {
                services.remove(key);
                !services.is_empty()
            });
    }

    /// Frontends that a Service wants and another has.
    pub(super) fn contested(&self) -> impl Iterator<Item = Notice> {
        // Who has an address refuses its other ports: nobody needs to know.
        let ports = self.waiting.iter().filter(|(key, _)| key.proto != 0);
        ports.flat_map(|(key, services)| {
            let (ip, port) = (key.addr.to_ip(), key.port.number());
            let protocol = Protocol::ALL.into_iter().find(|p| p.number() == key.proto);
            let protocol = protocol.map_or("", Protocol::name);
            let front = self.frontends.get(key);
            let front = front.or_else(|| self.frontends.get(&other_ports(key)));
            let holder = front.map(|front| &front.owner);
            let holder = holder.map_or_else(|| "another".to_owned(), ToString::to_string);
            services.iter().map(move |service| Notice {
                object: format!("Service {service}"),
                text: format!(
                    "{ip} port {port}/{protocol} is left to Service {holder}, which has the better claim: \
                     an allocated address goes before a given one, then the older Service"
                ),
                reason: "AddressConflict",
            })
        })
    }
}
