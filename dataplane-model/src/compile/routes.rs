//! Which route takes a Service port's connections.

use std::collections::HashMap;

use super::Notice;
use crate::snapshot::{
    ObjectKey, Protocol, Route, RouteKind, RouteRule, Service, ServicePort, Snapshot,
};

/// Rules by parent Service, in order of precedence.
pub(super) struct Routes<'a> {
    by_service: HashMap<&'a ObjectKey, Vec<Candidate<'a>>>,
}

/// A rule, the kind of its route, and the port of the Service that it is for.
type Candidate<'a> = (Option<u16>, RouteKind, &'a RouteRule);

impl<'a> Routes<'a> {
    /// Sorts all routes: by kind, then the oldest, then by namespace and name, then in their own order.
    pub(super) fn new(snapshot: &'a Snapshot, notices: &mut Vec<Notice>) -> Self {
        let mut routes: Vec<&Route> = snapshot.routes.values().collect();
        routes.sort_by_key(|route| (route.kind, route.created, &route.key));
        let mut by_service: HashMap<_, Vec<_>> = HashMap::new();
        for route in routes {
            for rule in &route.rules {
                for parent in &rule.parents {
                    if reaches_all_clients(route, &parent.service) {
                        by_service.entry(&parent.service).or_default().push((
                            parent.port,
                            route.kind,
                            rule,
                        ));
                    } else {
                        notices.push(consumer_route(route, &parent.service));
                    }
                }
            }
        }
        Self { by_service }
    }

    /// The rule for a Service's port, if a route takes it.
    pub(super) fn rule(&self, service: &Service, port: &ServicePort) -> Option<&'a RouteRule> {
        let takes = |&&(parent_port, kind, _): &&Candidate<'_>| {
            parent_port.is_none_or(|number| number == port.port) && carries(kind, port.protocol)
        };
        self.by_service
            .get(&service.key)?
            .iter()
            .find(takes)
            .map(|&(_, _, rule)| rule)
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
