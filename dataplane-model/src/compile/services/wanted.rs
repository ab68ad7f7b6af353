//! What a Service asks for, before anything has a number.

use std::collections::BTreeMap;

use dataplane_common::abi::{MAX_CLASSES, Port, ServiceKey, backend_flags};
use dataplane_common::decide::balance::thresholds;
use ipnet::IpNet;

use super::super::choose::choose;
use super::super::endpoints::{Index, Target};
use super::super::frontends::{Frontend, frontends, source_ranges};
use super::super::routes::Routes;
use crate::capacity::CapacityError;
use crate::snapshot::{
    NodeConfig, RouteClass, RouteTarget, Service, ServicePort, Snapshot, TrafficPolicy,
};
use crate::tables::Family;

/// One port of a Service, for one family.
pub(super) struct Wanted<'a, A> {
    /// The Service.
    pub(super) service: &'a Service,
    /// Its port.
    pub(super) port: &'a ServicePort,
    /// All that may carry connections, new or old, by address and port.
    pub(super) backends: Vec<WantedBackend<A>>,
    /// Who serves, by traffic policy.
    pub(super) servings: Vec<WantedServing>,
    /// Where clients dial.
    pub(super) frontends: Vec<WantedFrontend<A>>,
    /// The clients that load balancers' addresses are for; `None`: all.
    pub(super) source_ranges: Option<Vec<IpNet>>,
}

/// A backend.
#[derive(Clone, Copy)]
pub(super) struct WantedBackend<A> {
    pub(super) addr: A,
    pub(super) port: Port,
    /// [`backend_flags`].
    pub(super) flags: u16,
}

/// A block, or classes with a block each and one of all of them.
#[derive(Default)]
pub(super) struct WantedServing {
    pub(super) block: WantedBlock,
    /// Classes by rising thresholds.
    pub(super) classes: Vec<(u32, WantedBlock)>,
}

/// A list of backends, those of this node first.
#[derive(Default)]
pub(super) struct WantedBlock {
    /// Places in [`Wanted::backends`].
    pub(super) members: Vec<u32>,
}

/// A frontend.
pub(super) struct WantedFrontend<A> {
    pub(super) frontend: Frontend<A>,
    /// Place in [`Wanted::servings`]; `None`: clients are refused.
    pub(super) serving: Option<usize>,
    /// It drops what nobody may serve, because somebody elsewhere could.
    pub(super) drops: bool,
}

/// What a Service's ports ask for in one family, without the frontends that it may not have.
///
/// # Errors
///
/// [`CapacityError::Block`].
pub(super) fn wanted<'a, A: Family>(
    snapshot: &'a Snapshot,
    index: &Index<'a>,
    routes: &Routes,
    service: &'a Service,
    mut may_have: impl FnMut(&ServiceKey<A>) -> bool,
) -> Result<Vec<Wanted<'a, A>>, CapacityError> {
    let mut all = Vec::new();
    for port in &service.ports {
        let mut frontends = frontends::<A>(&snapshot.node, service, port);
        frontends.retain(|frontend| may_have(&frontend.key()));
        if !frontends.is_empty() {
            let endpoints = Endpoints::<A>::new(snapshot, index, routes, service, port);
            all.push(endpoints.wanted(frontends)?);
        }
    }
    Ok(all)
}

/// Who may serve a port.
struct Endpoints<'a, A> {
    node: &'a NodeConfig,
    service: &'a Service,
    port: &'a ServicePort,
    own: Vec<Target<'a>>,
    /// Weights and targets of a route's classes.
    classes: Option<Vec<(u32, Vec<Target<'a>>)>>,
    backends: Vec<WantedBackend<A>>,
}

impl<'a, A: Family> Endpoints<'a, A> {
    fn new(
        snapshot: &'a Snapshot,
        index: &Index<'a>,
        routes: &Routes,
        service: &'a Service,
        port: &'a ServicePort,
    ) -> Self {
        let mut own = index.targets(service, port);
        own.retain(is_of::<A>);
        let rule = routes.rule(snapshot, service, port);
        let classes = rule.map(|rule| {
            let targets = rule.classes().iter().map(|class| {
                let targets = class_targets::<A>(snapshot, index, port, class);
                (class.weight, targets)
            });
            targets.collect::<Vec<_>>()
        });
        let routed = classes.iter().flatten().flat_map(|(_, targets)| targets);
        let usable = own
            .iter()
            .chain(routed)
            .filter(|target| target.is_usable())
            .filter_map(backend::<A>);
        let mut backends = Vec::with_capacity(own.len());
        backends.extend(usable);
        backends.sort_by_key(place);
        backends.dedup_by_key(|backend| place(backend));
        Self {
            node: &snapshot.node,
            service,
            port,
            own,
            classes,
            backends,
        }
    }

    fn wanted(self, frontends: Vec<Frontend<A>>) -> Result<Wanted<'a, A>, CapacityError> {
        let node = self.node;
        let has_any = match &self.classes {
            Some(classes) => classes
                .iter()
                .any(|(_, targets)| !choose(node, targets, TrafficPolicy::Cluster).is_empty()),
            None => !choose(node, &self.own, TrafficPolicy::Cluster).is_empty(),
        };
        let mut servings = Vec::new();
        let mut by_policy: [Option<usize>; 2] = [None; 2];
        let mut wanted = Vec::with_capacity(frontends.len());
        for frontend in frontends {
            let is_local = frontend.policy == Some(TrafficPolicy::Local);
            let known = &mut by_policy[usize::from(is_local)];
            let serving = match (frontend.policy, *known) {
                (None, _) => None,
                (Some(_), Some(serving)) => Some(serving),
                (Some(policy), None) => {
                    servings.push(self.serving(policy)?);
                    *known = Some(servings.len() - 1);
                    *known
                }
            };
            wanted.push(WantedFrontend {
                frontend,
                serving,
                drops: is_local && has_any,
            });
        }
        Ok(Wanted {
            service: self.service,
            port: self.port,
            backends: self.backends,
            servings,
            frontends: wanted,
            source_ranges: source_ranges::<A>(node, self.service),
        })
    }

    fn serving(&self, policy: TrafficPolicy) -> Result<WantedServing, CapacityError> {
        let Some(classes) = &self.classes else {
            return Ok(WantedServing {
                block: self.block(&choose(self.node, &self.own, policy))?,
                classes: Vec::new(),
            });
        };
        let shares: Vec<_> = classes.iter().filter(|(weight, _)| *weight > 0).collect();
        let weights: Vec<_> = shares.iter().map(|(weight, _)| *weight).collect();
        let Some(thresholds) = thresholds::<MAX_CLASSES>(&weights) else {
            return Ok(WantedServing::default());
        };
        let mut blocks = Vec::new();
        let mut all = BTreeMap::new();
        for ((_, targets), threshold) in shares.iter().zip(thresholds) {
            let chosen = choose(self.node, targets, policy);
            blocks.push((threshold, self.block(&chosen)?));
            all.extend(
                chosen
                    .into_iter()
                    .map(|target| ((!target.local, target.addr, target.port), target)),
            );
        }
        Ok(WantedServing {
            block: self.block(&all.into_values().collect::<Vec<_>>())?,
            classes: blocks,
        })
    }

    fn block(&self, chosen: &[Target<'_>]) -> Result<WantedBlock, CapacityError> {
        if u16::try_from(chosen.len()).is_err() {
            return Err(CapacityError::Block {
                service: self.service.key.to_string(),
                need: chosen.len(),
            });
        }
        let find = |target: &Target<'_>| {
            let wanted = place(&backend::<A>(target)?);
            let found = self.backends.binary_search_by_key(&wanted, place);
            found.ok().map(|place| place as u32)
        };
        Ok(WantedBlock {
            members: chosen.iter().filter_map(find).collect(),
        })
    }
}

/// The endpoints of one class of a route for a port.
fn class_targets<'a, A: Family>(
    snapshot: &'a Snapshot,
    index: &Index<'a>,
    dialled: &ServicePort,
    class: &RouteClass,
) -> Vec<Target<'a>> {
    let (key, port, any_of) = match &class.target {
        RouteTarget::Service { service, port } => (service, port, None),
        RouteTarget::Subset {
            service,
            port,
            any_of,
        } => (service, port, Some(any_of)),
        RouteTarget::Invalid => return Vec::new(),
    };
    let number = port.unwrap_or(dialled.port);
    let of_port = |port: &&ServicePort| port.port == number && port.protocol == dialled.protocol;
    let service = snapshot.services.get(key);
    let Some((service, port)) = service.and_then(|s| Some((s, s.ports.iter().find(of_port)?)))
    else {
        return Vec::new();
    };
    let mut targets = index.targets(service, port);
    targets.retain(is_of::<A>);
    if let Some(any_of) = any_of {
        targets.retain(|target| {
            let pod = index.pod(service, target);
            pod.is_some_and(|pod| any_of.iter().any(|selector| selector.matches(&pod.labels)))
        });
    }
    targets
}

fn backend<A: Family>(target: &Target<'_>) -> Option<WantedBackend<A>> {
    let flag = |set: bool, bit: u16| if set { bit } else { 0 };
    Some(WantedBackend {
        addr: A::from_ip(target.addr)?,
        port: Port::new(target.port),
        flags: flag(target.local, backend_flags::LOCAL)
            | flag(!target.ready, backend_flags::TERMINATING),
    })
}

fn place<A: Copy>(backend: &WantedBackend<A>) -> (A, Port) {
    (backend.addr, backend.port)
}

fn is_of<A: Family>(target: &Target<'_>) -> bool {
    A::from_ip(target.addr).is_some()
}
