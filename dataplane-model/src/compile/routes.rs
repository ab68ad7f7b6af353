//! Which route takes a Service port's connections.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::Notice;
use crate::snapshot::{
    ObjectKey, Protocol, Route, RouteKind, RouteRule, RouteTarget, Service, ServicePort, Snapshot,
};

/// Rules by parent Service, in order of precedence, and what they refer to.
#[derive(Clone, Debug, Default)]
pub(super) struct Routes {
    by_service: HashMap<ObjectKey, Vec<Candidate>>,
    /// Parents by the Services that their rules send connections to.
    referrers: BTreeMap<ObjectKey, BTreeSet<ObjectKey>>,
    /// Routes that cannot be followed.
    pub(super) notices: Vec<Notice>,
}

/// A rule of a route, and the port of the Service that it is for.
#[derive(Clone, Debug)]
struct Candidate {
    port: Option<u16>,
    route: (RouteKind, ObjectKey),
    rule: usize,
}

impl Routes {
    /// Sorts all routes: by kind, then the oldest, then by namespace and name, then in their own order.
    pub(super) fn new(snapshot: &Snapshot) -> Self {
        let mut routes: Vec<&Route> = snapshot.routes.values().collect();
        routes.sort_by_key(|route| (route.kind, route.created, &route.key));
        let mut all = Self::default();
        for route in routes {
            for (rule, content) in route.rules.iter().enumerate() {
                for parent in &content.parents {
                    if !reaches_all_clients(route, &parent.service) {
                        all.notices.push(consumer_route(route, &parent.service));
                        continue;
                    }
                    for target in content.classes().iter().filter_map(|c| c.target.service()) {
                        let parents = all.referrers.entry(target.clone()).or_default();
                        parents.insert(parent.service.clone());
                    }
                    let rules = all.by_service.entry(parent.service.clone()).or_default();
                    rules.push(Candidate {
                        port: parent.port,
                        route: (route.kind, route.key.clone()),
                        rule,
                    });
                }
            }
        }
        all
    }

    /// The rule for a Service's port, if a route takes it.
    pub(super) fn rule<'a>(
        &self,
        snapshot: &'a Snapshot,
        service: &Service,
        port: &ServicePort,
    ) -> Option<&'a RouteRule> {
        let takes = |candidate: &&Candidate| {
            candidate.port.is_none_or(|number| number == port.port)
                && carries(candidate.route.0, port.protocol)
        };
        let candidate = self.by_service.get(&service.key)?.iter().find(takes)?;
        snapshot
            .routes
            .get(&candidate.route)?
            .rules
            .get(candidate.rule)
    }

    /// Services whose routes send connections to this one.
    pub(super) fn referrers(&self, service: &ObjectKey) -> impl Iterator<Item = &ObjectKey> {
        self.referrers.get(service).into_iter().flatten()
    }

    /// Services whose routes choose pods by their labels, with the Service that they choose from.
    pub(super) fn subsets<'a>(
        &'a self,
        snapshot: &'a Snapshot,
    ) -> impl Iterator<Item = (&'a ObjectKey, &'a ObjectKey)> {
        self.by_service.iter().flat_map(|(parent, candidates)| {
            let rules = candidates.iter().filter_map(|candidate| {
                let route = snapshot.routes.get(&candidate.route)?;
                route.rules.get(candidate.rule)
            });
            let targets = rules
                .flat_map(RouteRule::classes)
                .map(|class| &class.target);
            targets.filter_map(move |target| match target {
                RouteTarget::Subset { service, .. } => Some((parent, service)),
                _ => None,
            })
        })
    }
}

/// A Gateway API route in another namespace than its Service's is for clients of its own namespace
/// only, which a frontend's one value cannot tell apart.
fn reaches_all_clients(route: &Route, service: &ObjectKey) -> bool {
    route.kind == RouteKind::VirtualService || route.key.namespace == service.namespace
}

fn consumer_route(route: &Route, service: &ObjectKey) -> Notice {
    Notice {
        object: format!("{} {}", route.kind.name(), route.key),
        text: format!(
            "its Service {service} is in another namespace; routes for the clients of one namespace are not \
             supported, so it is not used: move it to namespace {}",
            service.namespace
        ),
        reason: "RouteNotSupported",
    }
}

fn carries(kind: RouteKind, protocol: Protocol) -> bool {
    match kind {
        RouteKind::Udp => protocol == Protocol::Udp,
        RouteKind::Grpc
        | RouteKind::Http
        | RouteKind::Tls
        | RouteKind::Tcp
        | RouteKind::VirtualService => protocol == Protocol::Tcp,
    }
}
