//! From objects as they are read to the model's events.
//!
//! An object that cannot be understood hurts only itself: the version before it stays in force. A policy
//! never does, for it would say what its author no longer means: a NetworkPolicy is taken without the
//! parts that cannot be understood, which makes it allow less; of a policy of a tier, each such rule is
//! closed, or all of them if it cannot be told whom they are about or when they are asked.

pub mod fields;
mod gateway;
mod istio;
mod mode;
mod nodes;
mod peers;
mod plain;
mod policies;
mod services;
mod shared;
mod slices;
mod tiers;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use dataplane_model::snapshot::{self as model, ClusterPolicyKind, Event, Key, RouteKind};
use tracing::{info, warn};

use crate::source::routes::DestinationRule;
use crate::source::tiers::TierPolicy;
use crate::source::{Change, Kind, Object, ObjectKey, Origin, Problem};
use fields::{Fault, Note};
use plain::{Plain, key_in_force};
use shared::Common;

pub use nodes::NAMESPACE_NAME_LABEL;

/// What is said of everything that only a proxy for HTTP could do.
const L7_PROXY: &str = "needs the L7 proxy, which is not available yet";

/// Converts changes, and knows what is wrong with the objects now.
#[derive(Debug, Default)]
pub struct Converter {
    /// Objects that are not plain.
    known: BTreeMap<ObjectKey, Known>,
    plain: Plain,
    /// How many objects each namespace has.
    members: BTreeMap<String, usize>,
    /// Namespaces in force, declared or implied by their objects.
    namespaces: BTreeSet<String>,
    common: Common,
    /// Objects that could not be understood, since this was last asked for.
    fresh: Vec<Problem>,
}

#[derive(Debug, Default)]
struct Known {
    origin: Origin,
    /// The last version, where it is needed to convert others or to convert it again.
    object: Option<Arc<Object>>,
    /// The key under which some version is in force.
    in_force: Option<Key>,
    problems: Vec<Problem>,
}

impl Converter {
    /// The events that follow from a change.
    pub fn convert(&mut self, change: Change) -> Vec<Event> {
        let mut events = Vec::new();
        match change {
            Change::Apply { object, origin } => self.apply(&object, origin, &mut events),
            Change::Delete(key) => self.delete(&key, &mut events),
        }
        events
    }

    /// What could not be understood since the last call.
    pub fn take_fresh(&mut self) -> Vec<Problem> {
        std::mem::take(&mut self.fresh)
    }

    /// All that is wrong with the objects, or is to be known about them.
    pub fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.known.values().flat_map(|known| &known.problems)
    }

    /// What is wrong with an object, or is to be known about it.
    pub fn problems_of(&self, key: &ObjectKey) -> &[Problem] {
        self.known.get(key).map_or(&[], |known| &known.problems)
    }

    fn apply(&mut self, object: &Arc<Object>, origin: Origin, events: &mut Vec<Event>) {
        let key = object.key();
        let is_known = self.plain.contains(&key) || self.known.contains_key(&key);
        if !is_known && key.kind.namespaced() {
            self.add_member(&key.namespace, events);
        }
        if key.kind == Kind::Namespace {
            self.namespaces.insert(key.name.clone());
        }
        let keeps = matches!(key.kind, Kind::VirtualService | Kind::DestinationRule);
        let before = self.take(&key);
        let in_force = before.as_ref().and_then(|known| known.in_force.clone());
        let known = Known {
            origin,
            object: keeps.then(|| Arc::clone(object)),
            in_force,
            problems: before.map(|known| known.problems).unwrap_or_default(),
        };
        self.known.insert(key.clone(), known);
        self.refresh(&key, object, events);
        if self
            .known
            .get(&key)
            .is_some_and(|known| known.is_plain(&key))
        {
            self.known.remove(&key);
            self.plain.insert(&key);
        }
        if key.kind == Kind::DestinationRule {
            self.refresh_virtual_services(events);
        }
    }

    /// What is known of an object, and is not from now on.
    fn take(&mut self, key: &ObjectKey) -> Option<Known> {
        if self.plain.remove(key) {
            return Some(Known {
                in_force: key_in_force(key),
                ..Known::default()
            });
        }
        self.known.remove(key)
    }

    fn delete(&mut self, key: &ObjectKey, events: &mut Vec<Event>) {
        let Some(known) = self.take(key) else {
            return;
        };
        match key.kind {
            Kind::Namespace if self.members.contains_key(&key.name) => {
                events.push(implied_namespace(&key.name));
            }
            Kind::Namespace => {
                self.namespaces.remove(&key.name);
                events.extend(known.in_force.map(Event::Delete));
            }
            _ => events.extend(known.in_force.map(Event::Delete)),
        }
        if key.kind == Kind::DestinationRule {
            self.refresh_virtual_services(events);
        }
        if key.kind.namespaced() {
            self.drop_member(&key.namespace, events);
        }
    }

    fn add_member(&mut self, namespace: &str, events: &mut Vec<Event>) {
        *self.members.entry(namespace.to_owned()).or_default() += 1;
        if self.namespaces.insert(namespace.to_owned()) {
            events.push(implied_namespace(namespace));
        }
    }

    fn drop_member(&mut self, namespace: &str, events: &mut Vec<Event>) {
        let Some(count) = self.members.get_mut(namespace) else {
            return;
        };
        *count -= 1;
        if *count > 0 {
            return;
        }
        self.members.remove(namespace);
        let declared = ObjectKey::new(Kind::Namespace, None, namespace);
        if !self.known.contains_key(&declared) && self.namespaces.remove(namespace) {
            events.push(Event::Delete(Key::Namespace(namespace.into())));
        }
    }

    fn refresh_virtual_services(&mut self, events: &mut Vec<Event>) {
        let services = self.known.iter().filter_map(|(key, known)| {
            let object = known.object.as_ref()?;
            (key.kind == Kind::VirtualService).then(|| (key.clone(), Arc::clone(object)))
        });
        for (key, object) in services.collect::<Vec<_>>() {
            self.refresh(&key, &object, events);
        }
    }

    /// Converts a known object's new version, and notes what is wrong with it.
    fn refresh(&mut self, key: &ObjectKey, object: &Object, events: &mut Vec<Event>) {
        let mut notes = Vec::new();
        let outcome = convert(
            key,
            object,
            &self.destination_rules(key),
            &mut self.common,
            &mut notes,
        );
        let Some(known) = self.known.get_mut(key) else {
            return;
        };
        let mut problems: Vec<Problem> = notes
            .into_iter()
            .map(|note| known.problem(key, note))
            .collect();
        let (faults, effect) = known.settle(outcome, events);
        let bad = faults.into_iter().map(|Fault { field, message }| {
            known.problem(
                key,
                Note {
                    field,
                    message,
                    effect: effect.to_owned(),
                },
            )
        });
        let bad: Vec<_> = bad.collect();
        for problem in bad
            .iter()
            .filter(|problem| !known.problems.contains(problem))
        {
            warn!("{problem}");
            self.fresh.push(problem.clone());
        }
        for note in problems
            .iter()
            .filter(|problem| !known.problems.contains(problem))
        {
            info!("{note}");
            if key.kind.is_policy() {
                self.fresh.push(note.clone());
            }
        }
        problems.extend(bad);
        known.problems = problems;
    }

    /// The DestinationRules, for an object that needs them.
    fn destination_rules(&self, key: &ObjectKey) -> Vec<(ObjectKey, Arc<Object>)> {
        if key.kind != Kind::VirtualService {
            return Vec::new();
        }
        let rules = self
            .known
            .iter()
            .filter(|(key, _)| key.kind == Kind::DestinationRule);
        rules
            .filter_map(|(key, known)| Some((key.clone(), Arc::clone(known.object.as_ref()?))))
            .collect()
    }
}

impl Known {
    /// True if nothing has to be remembered of it.
    fn is_plain(&self, key: &ObjectKey) -> bool {
        let ordinary = self.object.is_none() && self.problems.is_empty();
        ordinary && self.in_force.is_some() && self.in_force == key_in_force(key)
    }

    fn problem(&self, key: &ObjectKey, note: Note) -> Problem {
        Problem {
            origin: self.origin.clone(),
            object: Some(key.clone()),
            field: note.field,
            message: note.message,
            effect: note.effect,
        }
    }

    /// Takes an outcome; returns what is wrong and what holds because of it.
    fn settle(&mut self, outcome: Outcome, events: &mut Vec<Event>) -> (Vec<Fault>, &'static str) {
        match outcome {
            Outcome::Object(object) => {
                self.in_force = object.key();
                events.push(Event::Apply(*object));
                (Vec::new(), "")
            }
            Outcome::Nothing => {
                events.extend(self.in_force.take().map(Event::Delete));
                (Vec::new(), "")
            }
            Outcome::Closed(faults, policy) => {
                let effect = match &*policy {
                    model::Object::ClusterPolicy(_) => {
                        "it is closed: for all pods that it may be about, its rules that accept match \
                         nothing, and all others deny"
                    }
                    _ => "its pods are isolated, and what could not be understood allows nothing",
                };
                self.in_force = policy.key();
                events.push(Event::Apply(*policy));
                (faults, effect)
            }
            Outcome::Bad(fault) if self.in_force.is_some() => {
                (vec![fault], "the version read before stays in force")
            }
            Outcome::Bad(fault) => (vec![fault], "the object does not exist for the agent"),
        }
    }
}

enum Outcome {
    Object(Box<model::Object>),
    Nothing,
    /// A policy that is closed, because of these faults.
    Closed(Vec<Fault>, Box<model::Object>),
    Bad(Fault),
}

impl Outcome {
    /// A policy that is closed if there are faults.
    fn policy(policy: model::Object, faults: Vec<Fault>) -> Self {
        let policy = Box::new(policy);
        if faults.is_empty() {
            Self::Object(policy)
        } else {
            Self::Closed(faults, policy)
        }
    }
}

fn convert(
    key: &ObjectKey,
    object: &Object,
    rules: &[(ObjectKey, Arc<Object>)],
    common: &mut Common,
    notes: &mut Vec<Note>,
) -> Outcome {
    let some = |object| Ok(Some(object));
    let route = |route: Option<model::Route>| route.map(model::Object::Route);
    let tier = |kind: ClusterPolicyKind, policy: &TierPolicy, notes: &mut Vec<Note>| {
        let read = tiers::policy(kind, key, policy, notes);
        Outcome::policy(model::Object::ClusterPolicy(read.policy), read.faults)
    };
    let converted: Result<Option<model::Object>, Fault> = match object {
        Object::Namespace(namespace) => some(model::Object::Namespace(nodes::namespace(
            &key.name,
            Some(namespace),
            notes,
        ))),
        Object::Node(node) => nodes::node(key, node).map(|node| Some(model::Object::Node(node))),
        Object::Pod(pod) => nodes::pod(key, pod).map(|pod| Some(model::Object::Pod(pod))),
        Object::Service(service) => services::service(key, service, &mut common.names, notes)
            .map(|service| service.map(model::Object::Service)),
        Object::EndpointSlice(slice) => slices::endpoint_slice(key, slice, common, notes)
            .map(|slice| slice.map(model::Object::Slice)),
        Object::NetworkPolicy(policy) => {
            let read = policies::policy(key, policy, notes);
            return Outcome::policy(model::Object::Policy(read.policy), read.faults);
        }
        Object::ClusterNetworkPolicy(policy) => {
            return tier(ClusterPolicyKind::Cluster, policy, notes);
        }
        Object::AdminNetworkPolicy(policy) => {
            return tier(ClusterPolicyKind::Admin, policy, notes);
        }
        Object::BaselineAdminNetworkPolicy(policy) => {
            return tier(ClusterPolicyKind::Baseline, policy, notes);
        }
        Object::HttpRoute(http) => gateway::http_route(key, http, notes).map(route),
        Object::TcpRoute(l4) => gateway::l4_route(key, RouteKind::Tcp, l4, notes).map(route),
        Object::UdpRoute(l4) => gateway::l4_route(key, RouteKind::Udp, l4, notes).map(route),
        Object::VirtualService(service) => {
            let rules: Vec<(&ObjectKey, &DestinationRule)> = rules
                .iter()
                .filter_map(|(key, object)| match &**object {
                    Object::DestinationRule(rule) => Some((key, &**rule)),
                    _ => None,
                })
                .collect();
            istio::virtual_service(key, service, &rules, notes).map(route)
        }
        Object::DestinationRule(rule) => istio::destination_rule(key, rule, notes).map(|()| None),
    };
    match converted {
        Ok(Some(object)) => Outcome::Object(Box::new(object)),
        Ok(None) => Outcome::Nothing,
        Err(fault) => Outcome::Bad(fault),
    }
}

fn model_key(key: &ObjectKey) -> model::ObjectKey {
    model::ObjectKey::new(key.namespace.as_str(), key.name.as_str())
}

fn implied_namespace(name: &str) -> Event {
    Event::Apply(model::Object::Namespace(nodes::namespace(
        name,
        None,
        &mut Vec::new(),
    )))
}

#[cfg(test)]
mod tests;
