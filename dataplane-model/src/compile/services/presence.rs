//! What of a Service's endpoints is on this node: for health checks of load balancers, and counts.

use std::collections::BTreeSet;

use super::Services;
use crate::compile::endpoints::{Index, Target};
use crate::snapshot::{Service, Snapshot};

/// What of a Service's endpoints is on this node.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Presence {
    /// Addresses of ready endpoints here: IPv4, IPv6.
    pub ready: [usize; 2],
    /// Ports with endpoints that take connections, none of which is here: IPv4, IPv6.
    pub elsewhere: [usize; 2],
}

impl Services {
    /// What of a Service's endpoints is on this node; its cost is that of this Service's endpoints.
    pub fn presence(&self, snapshot: &Snapshot, service: &Service) -> Presence {
        let index = Index::new(snapshot, &self.depend.slices);
        let mut presence = Presence::default();
        let mut here = BTreeSet::new();
        for port in &service.ports {
            let targets = index.targets(service, port);
            let ready = targets.iter().filter(|target| target.local && target.ready);
            here.extend(ready.map(|target| target.addr));
            for (is_v6, count) in [false, true].into_iter().zip(&mut presence.elsewhere) {
                let takes = |target: &&Target<'_>| {
                    target.addr.is_ipv6() == is_v6
                        && (target.ready || (target.serving && target.terminating))
                };
                let mut taking = targets.iter().filter(takes).peekable();
                let some = taking.peek().is_some();
                *count += usize::from(some && !taking.any(|target| target.local));
            }
        }
        for ip in here {
            presence.ready[usize::from(ip.is_ipv6())] += 1;
        }
        presence
    }
}
