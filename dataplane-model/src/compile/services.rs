//! Frontends, blocks of backends and weighted classes.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::IpAddr;

use dataplane_common::abi::{
    BackendVal, ClassVal, MAX_CLASSES, Port, ServiceKey, ServiceVal, SlotVal, SourceRangeKey,
    backend_flags, service_flags,
};
use dataplane_common::decide::balance::thresholds;

use super::Compiler;
use super::choose::choose;
use super::endpoints::{Index, Target};
use super::frontends::{Frontend, frontends, source_ranges};
use super::routes::Routes;
use crate::capacity::CapacityError;
use crate::ids::{IdKind, fingerprint};
use crate::snapshot::{RouteClass, RouteRule, RouteTarget, Service, ServicePort, TrafficPolicy};
use crate::tables::Family;

/// Fills the Service maps of one family.
pub(super) fn compile<A: Family>(
    compiler: &mut Compiler<'_>,
    index: &Index<'_>,
    routes: &Routes<'_>,
) {
    let snapshot = compiler.snapshot;
    for service in snapshot
        .services
        .values()
        .filter(|service| service.is_served())
    {
        for port in &service.ports {
            let frontends = frontends::<A>(&snapshot.node, service, port);
            if frontends.is_empty() {
                continue;
            }
            if let Err(error) = (Unit {
                compiler,
                index,
                service,
                port,
            })
            .compile(frontends, routes.rule(service, port))
            {
                compiler.errors.push(error);
            }
        }
    }
}

/// One port of a Service.
struct Unit<'c, 'a, 's> {
    compiler: &'c mut Compiler<'a>,
    index: &'c Index<'s>,
    service: &'c Service,
    port: &'c ServicePort,
}

/// Who serves a frontend: a block, or classes with a block each.
#[derive(Clone, Copy, Default)]
struct Serving {
    base: u32,
    count: u16,
    class_base: u32,
    classes: u16,
    /// Hash of the block's members, or of the classes.
    content: (u64, u64),
}

impl<'s> Unit<'_, '_, 's> {
    fn compile<A: Family>(
        &mut self,
        frontends: Vec<Frontend<A>>,
        rule: Option<&RouteRule>,
    ) -> Result<(), CapacityError> {
        let service_port = self.number()?;
        let source_set = self.source_set::<A>()?;
        let node = &self.compiler.snapshot.node;
        let own: Vec<_> = self
            .index
            .targets(self.service, self.port)
            .into_iter()
            .filter(is_of::<A>)
            .collect();
        let classes: Option<Vec<_>> = rule.map(|rule| {
            let targets = rule
                .classes()
                .iter()
                .map(|class| (class.weight, self.class_targets::<A>(class)));
            targets.collect()
        });
        let routed = classes.iter().flatten().flat_map(|(_, targets)| targets);
        let backends = self.backends::<A>(
            service_port,
            own.iter().chain(routed).filter(|target| target.is_usable()),
        )?;
        let mut servings: BTreeMap<bool, Serving> = BTreeMap::new();
        for frontend in frontends {
            let Some(policy) = frontend.policy else {
                self.frontend(
                    [service_port, source_set],
                    frontend,
                    Serving::default(),
                    false,
                )?;
                continue;
            };
            let is_local = policy == TrafficPolicy::Local;
            let serving = match servings.get(&is_local) {
                Some(&serving) => serving,
                None => {
                    let serving = match &classes {
                        Some(classes) => self.classes(classes, policy, &backends)?,
                        None => self.block(&choose(node, &own, policy), &backends)?,
                    };
                    servings.insert(is_local, serving);
                    serving
                }
            };
            let has_any = match &classes {
                Some(classes) => classes
                    .iter()
                    .any(|(_, targets)| !choose(node, targets, TrafficPolicy::Cluster).is_empty()),
                None => !choose(node, &own, TrafficPolicy::Cluster).is_empty(),
            };
            self.frontend(
                [service_port, source_set],
                frontend,
                serving,
                is_local && has_any,
            )?;
        }
        Ok(())
    }

    fn number(&mut self) -> Result<u32, CapacityError> {
        let (key, port) = (&self.service.key, self.port);
        let name = || format!("{key}:{}/{}", port.port, port.protocol);
        self.compiler.ids.id(
            IdKind::ServicePort,
            &(key, &port.name, port.port, port.protocol),
            name,
        )
    }

    /// Numbers and writes the set of addresses that may use the load balancer's; 0: all may.
    fn source_set<A: Family>(&mut self) -> Result<u32, CapacityError> {
        let Some(ranges) = source_ranges::<A>(&self.compiler.snapshot.node, self.service) else {
            return Ok(0);
        };
        let name = || format!("source ranges of {}", self.service.key);
        let set = self
            .compiler
            .ids
            .id(IdKind::SourceSet, &(A::INDEX, &ranges), name)?;
        let table = &mut A::tables_mut(&mut self.compiler.desired.tables).source_ranges;
        for range in ranges {
            if let Some(addr) = A::from_ip(range.addr()) {
                table.insert(
                    SourceRangeKey::of_source_set(set, addr, range.prefix_len().into()),
                    1,
                );
            }
        }
        Ok(set)
    }

    /// Numbers and writes the backends, by address and port.
    fn backends<'t, A: Family>(
        &mut self,
        service_port: u32,
        targets: impl Iterator<Item = &'t Target<'s>>,
    ) -> Result<BTreeMap<(IpAddr, u16), u32>, CapacityError>
    where
        's: 't,
    {
        let kind = if A::INDEX == 0 {
            IdKind::Backend4
        } else {
            IdKind::Backend6
        };
        let mut indices = BTreeMap::new();
        for target in targets {
            let Some(addr) = A::from_ip(target.addr) else {
                continue;
            };
            let owner = (
                &self.service.key,
                &self.port.name,
                self.port.port,
                self.port.protocol,
            );
            let index = self
                .compiler
                .ids
                .span(kind, &(owner, target.addr, target.port), 1)?;
            let backend = BackendVal {
                addr,
                service_port,
                generation: self.compiler.ids.generation(A::INDEX, index),
                port: Port::new(target.port),
                flags: flag(target.local, backend_flags::LOCAL)
                    | flag(!target.ready, backend_flags::TERMINATING),
                reserved: 0,
            };
            A::tables_mut(&mut self.compiler.desired.tables)
                .backends
                .insert(index, backend);
            indices.insert((target.addr, target.port), index);
        }
        Ok(indices)
    }

    fn block(
        &mut self,
        chosen: &[Target<'_>],
        backends: &BTreeMap<(IpAddr, u16), u32>,
    ) -> Result<Serving, CapacityError> {
        if chosen.is_empty() {
            return Ok(Serving::default());
        }
        let too_many = |_| CapacityError::Block {
            service: self.service.key.to_string(),
            need: chosen.len(),
        };
        let count = u16::try_from(chosen.len()).map_err(too_many)?;
        let owner = (
            &self.service.key,
            &self.port.name,
            self.port.port,
            self.port.protocol,
        );
        let members: Vec<_> = chosen
            .iter()
            .map(|target| (target.addr, target.port))
            .collect();
        let content = (owner, &members);
        let base = self
            .compiler
            .ids
            .span(IdKind::Block, &content, u32::from(count))?;
        for (place, member) in (base..).zip(&members) {
            let backend = backends.get(member).copied().unwrap_or_default();
            self.compiler
                .desired
                .tables
                .slots
                .insert(place, SlotVal { backend });
        }
        Ok(Serving {
            base,
            count,
            content: fingerprint(&content),
            ..Serving::default()
        })
    }

    /// Classes with a share each, and a block of all their backends.
    fn classes(
        &mut self,
        classes: &[(u32, Vec<Target<'_>>)],
        policy: TrafficPolicy,
        backends: &BTreeMap<(IpAddr, u16), u32>,
    ) -> Result<Serving, CapacityError> {
        let shares: Vec<_> = classes.iter().filter(|(weight, _)| *weight > 0).collect();
        let weights: Vec<_> = shares.iter().map(|(weight, _)| *weight).collect();
        let Some(thresholds) = thresholds::<MAX_CLASSES>(&weights) else {
            return Ok(Serving::default());
        };
        let (mut values, mut content) = (Vec::new(), Vec::new());
        let mut all = BTreeMap::new();
        for ((_, targets), threshold) in shares.iter().zip(thresholds) {
            let chosen = choose(&self.compiler.snapshot.node, targets, policy);
            let block = self.block(&chosen, backends)?;
            content.push((threshold, block.content));
            values.push(ClassVal {
                threshold,
                base: block.base,
                count: block.count,
                reserved: 0,
            });
            all.extend(
                chosen
                    .into_iter()
                    .map(|target| ((!target.local, target.addr, target.port), target)),
            );
        }
        let union = self.block(&all.into_values().collect::<Vec<_>>(), backends)?;
        let class_base =
            self.compiler
                .ids
                .span(IdKind::ClassBlock, &content, values.len() as u32)?;
        self.compiler
            .desired
            .tables
            .classes
            .extend((class_base..).zip(values));
        let classes = content.len() as u16;
        Ok(Serving {
            class_base,
            classes,
            content: fingerprint(&content),
            ..union
        })
    }

    fn class_targets<A: Family>(&self, class: &RouteClass) -> Vec<Target<'s>> {
        let (key, port, any_of) = match &class.target {
            RouteTarget::Service { service, port } => (service, port, None),
            RouteTarget::Subset {
                service,
                port,
                any_of,
            } => (service, port, Some(any_of)),
            RouteTarget::Invalid => return Vec::new(),
        };
        let number = port.unwrap_or(self.port.port);
        let service = self.index.service(key);
        let of_port =
            |port: &&ServicePort| port.port == number && port.protocol == self.port.protocol;
        let Some((service, port)) = service.and_then(|s| Some((s, s.ports.iter().find(of_port)?)))
        else {
            return Vec::new();
        };
        let in_subset = |target: &Target<'_>| match (any_of, target.pod) {
            (None, _) => true,
            (Some(any_of), Some(pod)) => {
                any_of.iter().any(|selector| selector.matches(&pod.labels))
            }
            (Some(_), None) => false,
        };
        let targets = self.index.targets(service, port).into_iter();
        targets.filter(is_of::<A>).filter(in_subset).collect()
    }

    fn frontend<A: Family>(
        &mut self,
        [service_port, source_set]: [u32; 2],
        frontend: Frontend<A>,
        serving: Serving,
        drops: bool,
    ) -> Result<(), CapacityError> {
        let (service, port) = (self.service, self.port);
        let content = (
            &service.key,
            frontend.addr.to_ip(),
            frontend.port,
            port.protocol,
        );
        let name = || match frontend.flags & service_flags::NODE_ADDRESS {
            _ if frontend.proto == 0 => format!("{}: other ports", service.key),
            0 => format!("{}:{}", service.key, port.port),
            _ => format!(
                "{}:{} (node port {})",
                service.key, port.port, frontend.port
            ),
        };
        let number = self.compiler.ids.id(IdKind::Frontend, &content, name)?;
        let key = ServiceKey {
            addr: frontend.addr,
            port: Port::new(frontend.port),
            proto: frontend.proto,
            scope: frontend.scope,
            reserved: 0,
        };
        let value = ServiceVal {
            frontend: number,
            service_port,
            base: serving.base,
            class_base: serving.class_base,
            affinity_secs: service.affinity_secs.unwrap_or(0),
            source_set: match frontend.flags & service_flags::SOURCE_RANGES {
                0 => 0,
                _ => source_set,
            },
            count: serving.count,
            classes: serving.classes,
            flags: frontend.flags | flag(drops, service_flags::DROP_IF_EMPTY),
            reserved: 0,
        };
        let services = &mut A::tables_mut(&mut self.compiler.desired.tables).services;
        match services.entry(key) {
            Entry::Vacant(place) => {
                place.insert(value);
            }
            Entry::Occupied(_) => {
                let (ip, number) = (frontend.addr.to_ip(), frontend.port);
                let protocol = port.protocol;
                let text = format!(
                    "{ip} port {number}/{protocol} belongs to another Service already and is left to it"
                );
                self.compiler
                    .notice(format!("Service {}", service.key), text);
            }
        }
        Ok(())
    }
}

fn is_of<A: Family>(target: &Target<'_>) -> bool {
    A::from_ip(target.addr).is_some()
}

fn flag(set: bool, bit: u16) -> u16 {
    if set { bit } else { 0 }
}
