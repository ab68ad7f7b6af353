//! Folding an event in, and what it changed.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{
    ClusterPolicyKey, EndpointSlice, Event, Interface, Key, Kind, NodeConfig, Object, ObjectKey,
    Pod, PolicyMode, Route, RouteKind, Snapshot, Text,
};

/// What an event changed, with the object as it was before (`None`: there was none). The snapshot has
/// it as it is now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// This node.
    Config(Box<NodeConfig>),
    /// A node, and this node as it was before.
    Node(Box<NodeConfig>),
    /// A namespace.
    Namespace(Text),
    /// A pod.
    Pod(ObjectKey, Option<Box<Pod>>),
    /// A Service.
    Service(ObjectKey),
    /// An EndpointSlice.
    Slice(ObjectKey, Option<EndpointSlice>),
    /// A NetworkPolicy.
    Policy(ObjectKey),
    /// A policy of a tier.
    ClusterPolicy(ClusterPolicyKey),
    /// A route.
    Route((RouteKind, ObjectKey), Option<Route>),
    /// A domain name.
    Domain(Text),
    /// A device.
    Interface(u32, Option<Interface>),
    /// A source has delivered its first list.
    InSync(Kind),
}

impl Change {
    /// True if identities, rulesets or subjects may depend on it.
    pub fn concerns_policy(&self) -> bool {
        !matches!(self, Self::Service(_) | Self::Slice(..) | Self::Route(..))
    }
}

impl Snapshot {
    /// Folds an event in. Says what changed; `None` if nothing did.
    pub fn fold(&mut self, event: Event) -> Option<Change> {
        match event {
            Event::Apply(object) => self.insert(object),
            Event::Delete(key) => self.remove(key),
            Event::InSync(kind) => self.awaited.remove(&kind).then_some(Change::InSync(kind)),
        }
    }

    fn insert(&mut self, object: Object) -> Option<Change> {
        match object {
            Object::Config(config) => {
                let old = std::mem::replace(&mut self.node, config);
                self.follow_own_node();
                (old != self.node).then(|| Change::Config(Box::new(old)))
            }
            Object::Node(node) => {
                put(&mut self.nodes, node.name.clone(), node)?;
                Some(self.node_changed())
            }
            Object::Namespace(namespace) => {
                let freed = self.mark_namespace(&namespace.name, namespace.ending);
                let name = namespace.name;
                let mode_changed = match namespace.mode {
                    PolicyMode::Audit => self.audited.insert(name.clone()),
                    PolicyMode::Enforce => self.audited.remove(&name),
                };
                let put = put(&mut self.namespaces, name.clone(), namespace.labels);
                (put.is_some() || mode_changed || freed).then_some(Change::Namespace(name))
            }
            Object::Pod(pod) => put(&mut self.pods, pod.key.clone(), pod)
                .map(|(key, old)| Change::Pod(key, old.map(Box::new))),
            Object::Service(mut service) => {
                service.key = self.shared(&self.services, service.key);
                service.shrink();
                // Nodes of the tree are half empty, and a Service is large.
                put(&mut self.services, service.key.clone(), Box::new(service))
                    .map(|(key, _)| Change::Service(key))
            }
            Object::Slice(mut slice) => {
                slice.key = self.shared(&self.slices, slice.key);
                slice.service = self.shared(&self.services, slice.service);
                put(&mut self.slices, slice.key.clone(), slice)
                    .map(|(key, old)| Change::Slice(key, old))
            }
            Object::Policy(policy) => {
                self.keep_no_more(&policy.key);
                put(&mut self.policies, policy.key.clone(), Arc::new(policy))
                    .map(|(key, _)| Change::Policy(key))
            }
            Object::ClusterPolicy(policy) => put(
                &mut self.cluster_policies,
                policy.key.clone(),
                Arc::new(policy),
            )
            .map(|(key, _)| Change::ClusterPolicy(key)),
            Object::Route(route) => put(&mut self.routes, (route.kind, route.key.clone()), route)
                .map(|(key, old)| Change::Route(key, old)),
            Object::Domain(domain) => put(&mut self.domains, domain.name, domain.addresses)
                .map(|(name, _)| Change::Domain(name)),
            Object::Interface(interface) => put(&mut self.interfaces, interface.ifindex, interface)
                .map(|(ifindex, old)| Change::Interface(ifindex, old)),
        }
    }

    fn remove(&mut self, key: Key) -> Option<Change> {
        Some(match key {
            Key::Node(name) => {
                self.nodes.remove(&name)?;
                self.node_changed()
            }
            Key::Namespace(name) => {
                self.namespaces.remove(&name)?;
                self.audited.remove(&name);
                self.mark_namespace(&name, false);
                Change::Namespace(name)
            }
            Key::Pod(key) => {
                let old = self.pods.remove(&key)?;
                self.let_go(&key.namespace);
                Change::Pod(key, Some(Box::new(old)))
            }
            Key::Service(key) => {
                self.services.remove(&key)?;
                Change::Service(key)
            }
            Key::Slice(key) => {
                let old = self.slices.remove(&key)?;
                Change::Slice(key, Some(old))
            }
            Key::Policy(key) => {
                if self.keeps(&key) {
                    return None;
                }
                self.policies.remove(&key)?;
                Change::Policy(key)
            }
            Key::ClusterPolicy(key) => {
                self.cluster_policies.remove(&key)?;
                Change::ClusterPolicy(key)
            }
            Key::Route(kind, key) => {
                let place = (kind, key);
                let old = self.routes.remove(&place)?;
                Change::Route(place, Some(old))
            }
            Key::Domain(name) => {
                self.domains.remove(&name)?;
                Change::Domain(name)
            }
            Key::Interface(ifindex) => {
                let old = self.interfaces.remove(&ifindex)?;
                Change::Interface(ifindex, Some(old))
            }
        })
    }
}

impl Snapshot {
    /// The key as it is known already, or with its namespace's name as that is known: what is equal
    /// and kept for long is kept once.
    fn shared<V>(&self, known: &BTreeMap<ObjectKey, V>, key: ObjectKey) -> ObjectKey {
        if let Some((known, _)) = known.get_key_value(&key) {
            return known.clone();
        }
        match self.namespaces.get_key_value(&key.namespace) {
            Some((namespace, _)) => ObjectKey::new(namespace.clone(), key.name.clone()),
            None => key,
        }
    }

    fn node_changed(&mut self) -> Change {
        let old = Box::new(self.node.clone());
        self.follow_own_node();
        Change::Node(old)
    }
}

/// The key and what was there before; `None` if nothing changes.
fn put<K: Ord + Clone, V: PartialEq>(
    map: &mut BTreeMap<K, V>,
    key: K,
    value: V,
) -> Option<(K, Option<V>)> {
    if map.get(&key) == Some(&value) {
        return None;
    }
    let old = map.insert(key.clone(), value);
    Some((key, old))
}
