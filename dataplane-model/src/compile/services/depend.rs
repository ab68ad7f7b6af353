//! Which Services an event concerns.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::ops::Bound;

use super::super::endpoints::Slices;
use super::super::routes::Routes;
use crate::snapshot::{
    Change, EndpointSlice, Interface, Labels, NodeConfig, ObjectKey, Pod, Route, Service, Snapshot,
};

/// What Services depend on.
#[derive(Clone, Debug, Default)]
pub(super) struct Dependents {
    /// Slices of each Service.
    pub(super) slices: Slices,
    /// Routes by Service.
    pub(super) routes: Routes,
    /// Services without slices that select pods.
    selecting: BTreeSet<ObjectKey>,
}

/// Services that have to be looked at.
#[derive(Clone, Debug, Default)]
pub(super) struct Marks {
    /// They have to be looked at now.
    pub(super) dirty: BTreeSet<ObjectKey>,
    /// They have an endpoint whose node is not named: its address may be behind a device.
    nodeless: BTreeSet<ObjectKey>,
}

impl Dependents {
    /// Everything is to be looked at.
    pub(super) fn note_all(&mut self, snapshot: &Snapshot, marks: &mut Marks) {
        *self = Self {
            routes: Routes::new(snapshot),
            ..Self::default()
        };
        for slice in snapshot.slices.values() {
            self.slices.insert(slice.service.clone(), slice.key.clone());
        }
        for key in snapshot.services.keys() {
            self.classify(snapshot, key);
            marks.dirty.insert(key.clone());
        }
    }

    /// Notes a change that is in the snapshot already.
    pub(super) fn note(&mut self, snapshot: &Snapshot, change: &Change, marks: &mut Marks) {
        match change {
            Change::Service(key) => {
                self.classify(snapshot, key);
                self.touch(key, marks);
            }
            Change::Slice(key, old) => self.slice(snapshot, key, old.as_ref(), marks),
            Change::Pod(key, old) => self.pod(snapshot, key, old.as_deref(), marks),
            Change::Route(key, old) => {
                self.route(snapshot, snapshot.routes.get(key), old.as_ref(), marks);
            }
            Change::Config(old) | Change::Node(old) if **old != snapshot.node => {
                config(snapshot, old, marks)
            }
            Change::Interface(ifindex, old) => {
                let new = snapshot.interfaces.get(ifindex);
                let addresses = |device: &Interface| device.addresses.clone();
                if new.map(addresses) != old.as_ref().map(addresses) {
                    let nodeless: Vec<_> = marks.nodeless.iter().cloned().collect();
                    nodeless.iter().for_each(|key| self.touch(key, marks));
                }
            }
            Change::Config(_)
            | Change::Node(_)
            | Change::Namespace(_)
            | Change::Policy(_)
            | Change::ClusterPolicy(_)
            | Change::Domain(_)
            | Change::InSync(_) => {}
        }
    }

    /// The Service, and those whose routes send connections to it, are to be looked at.
    fn touch(&self, key: &ObjectKey, marks: &mut Marks) {
        marks.dirty.extend(self.routes.referrers(key).cloned());
        marks.dirty.insert(key.clone());
    }

    fn slice(
        &mut self,
        snapshot: &Snapshot,
        key: &ObjectKey,
        old: Option<&EndpointSlice>,
        marks: &mut Marks,
    ) {
        let new = snapshot.slices.get(key);
        if let Some(old) = old.filter(|old| new.is_none_or(|new| new.service != old.service)) {
            self.slices.remove(&old.service, key);
            self.classify(snapshot, &old.service);
            self.touch(&old.service, marks);
        }
        if let Some(new) = new {
            self.slices.insert(new.service.clone(), key.clone());
            self.classify(snapshot, &new.service);
            self.touch(&new.service, marks);
        }
    }

    fn pod(&self, snapshot: &Snapshot, key: &ObjectKey, old: Option<&Pod>, marks: &mut Marks) {
        let pods = [old, snapshot.pods.get(key)];
        let labels: Vec<&Labels> = pods.into_iter().flatten().map(|pod| &pod.labels).collect();
        let first = ObjectKey::new(key.namespace.clone(), "");
        let selecting = self
            .selecting
            .range((Bound::Included(first), Bound::Unbounded))
            .take_while(|service| service.namespace == key.namespace);
        let selects = |service: &&ObjectKey| {
            let selector = snapshot.services.get(*service);
            let selector = selector.and_then(|service| service.selector.as_ref());
            selector.is_some_and(|selector| labels.iter().any(|of| contains(of, selector)))
        };
        let selected: Vec<_> = selecting.filter(selects).cloned().collect();
        selected
            .iter()
            .for_each(|service| self.touch(service, marks));
        let may_serve = |service: &ObjectKey| {
            let chosen = snapshot.services.get(service);
            service.namespace == key.namespace || chosen.is_some_and(|s| s.selector.is_none())
        };
        let subsets = self.routes.subsets(snapshot);
        let parents = subsets.filter(|(_, service)| may_serve(service));
        marks
            .dirty
            .extend(parents.map(|(parent, _)| parent.clone()));
    }

    fn route(
        &mut self,
        snapshot: &Snapshot,
        new: Option<&Route>,
        old: Option<&Route>,
        marks: &mut Marks,
    ) {
        self.routes = Routes::new(snapshot);
        let rules = [old, new]
            .into_iter()
            .flatten()
            .flat_map(|route| &route.rules);
        let parents = rules.flat_map(|rule| &rule.parents);
        marks
            .dirty
            .extend(parents.map(|parent| parent.service.clone()));
    }

    /// Notes how a Service finds its endpoints.
    fn classify(&mut self, snapshot: &Snapshot, key: &ObjectKey) {
        let selects = |service: &Service| service.selector.as_ref().is_some_and(|s| !s.is_empty());
        if !self.slices.has(key)
            && snapshot
                .services
                .get(key)
                .is_some_and(|service| selects(service))
        {
            self.selecting.insert(key.clone());
        } else {
            self.selecting.remove(key);
        }
    }
}

impl Marks {
    /// Notes whether an endpoint's place depends on devices.
    pub(super) fn set_nodeless(&mut self, key: &ObjectKey, nodeless: bool) {
        if nodeless {
            self.nodeless.insert(key.clone());
        } else if !self.nodeless.is_empty() {
            self.nodeless.remove(key);
        }
    }
}

fn config(snapshot: &Snapshot, old: &NodeConfig, marks: &mut Marks) {
    let elsewhere = NodeConfig {
        addresses: snapshot.node.addresses.clone(),
        nodeport_addresses: snapshot.node.nodeport_addresses.clone(),
        nodeport_primary: snapshot.node.nodeport_primary,
        internal_ips: snapshot.node.internal_ips.clone(),
        ..old.clone()
    };
    let only_addresses = elsewhere == snapshot.node;
    let [own, before] = [&snapshot.node, old].map(|node| &node.addresses);
    let moved = |ip: &IpAddr| own.contains(ip) != before.contains(ip);
    let concerns = |service: &Service| {
        let has_node_port = service.ports.iter().any(|port| port.node_port.is_some());
        let has_others = !service.lb_ips.is_empty() || !service.external_ips.is_empty();
        has_node_port || has_others || service.cluster_ips.iter().any(moved) || !only_addresses
    };
    let all = snapshot.services.values();
    let concerned = all.filter(|service| concerns(service));
    let concerned = concerned.map(|service| service.key.clone());
    marks.dirty.extend(concerned);
}

fn contains(labels: &Labels, selector: &Labels) -> bool {
    selector
        .iter()
        .all(|(key, value)| labels.get(key) == Some(value))
}
