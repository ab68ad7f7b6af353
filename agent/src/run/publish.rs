//! What the agent's task tells to those who answer over HTTP.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use dataplane_model::compile::Services;
use dataplane_model::snapshot::{
    Event, Key, Object, ObjectKey, Service, Snapshot, Text, TrafficPolicy,
};
use dataplane_model::tables::MapId;
use jiff::Timestamp;
use tokio::sync::watch;

use super::engine::Engine;
use crate::dns::names::Names;
use crate::metrics::{Changed, FAMILIES, Metrics};
use crate::observe::sample::MapCounts;
use crate::serve::{Check, Checks, Health, NodeState};
use crate::source::{Change, Object as Raw};

/// When the pods or the Service of a slice changed (set by the controller of EndpointSlices).
const TRIGGER: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// Keeps what others may ask for up to date.
pub struct Publisher {
    metrics: Arc<Metrics>,
    health: watch::Sender<Health>,
    checks: watch::Sender<Arc<Checks>>,
    maps: watch::Sender<MapCounts>,
    started: Timestamp,
    node: NodeState,
    last_updated: Option<Timestamp>,
    done: u64,
    /// Changes of endpoints that are not in force yet: family and time.
    triggers: Vec<(&'static str, Timestamp)>,
    /// Services for whom it matters what is on this node.
    local: BTreeMap<ObjectKey, Local>,
    /// The sum of what those lack.
    missing: Missing,
    /// Services that something happened to since the last plan.
    dirty: BTreeSet<ObjectKey>,
    addresses_changed: bool,
}

/// What this node has of a Service that asks for endpoints on it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Local {
    check: Option<Check>,
    missing: Missing,
}

/// Service ports that have endpoints, but none here: internal and external policy, by family.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Missing([[usize; 2]; 2]);

/// The other ends of what a [`Publisher`] tells.
pub struct Published {
    /// Health.
    pub health: watch::Receiver<Health>,
    /// Health checks of Services.
    pub checks: watch::Receiver<Arc<Checks>>,
    /// Entries and capacity of the maps that the agent writes.
    pub maps: watch::Receiver<MapCounts>,
}

impl Publisher {
    /// Nothing is known yet.
    pub fn new(metrics: Arc<Metrics>) -> (Self, Published) {
        let (health, health_seen) = watch::channel(Health::default());
        let (checks, checks_seen) = watch::channel(Arc::default());
        let (maps, maps_seen) = watch::channel(MapCounts::default());
        let publisher = Self {
            metrics,
            health,
            checks,
            maps,
            started: Timestamp::now(),
            node: NodeState::default(),
            last_updated: None,
            done: 0,
            triggers: Vec::new(),
            local: BTreeMap::new(),
            missing: Missing::default(),
            dirty: BTreeSet::new(),
            addresses_changed: true,
        };
        let published = Published {
            health: health_seen,
            checks: checks_seen,
            maps: maps_seen,
        };
        (publisher, published)
    }

    /// An object as a source has it, before it is converted.
    pub fn read(&mut self, change: &Change) {
        let now = now_secs();
        match change {
            Change::Apply { object, .. } => match &**object {
                Raw::Service(_) => self.metrics.changed(Changed::Service, now),
                Raw::EndpointSlice(slice) => {
                    self.metrics.changed(Changed::Endpoints, now);
                    let given = slice.metadata.annotations.get(TRIGGER);
                    let time = given.and_then(|text| text.parse::<Timestamp>().ok());
                    let family = FAMILIES
                        .into_iter()
                        .find(|name| *name == slice.address_type);
                    // What was there before the agent is not its doing.
                    if let (Some(time), Some(family)) = (time, family)
                        && time > self.started
                    {
                        self.triggers.push((family, time));
                    }
                }
                _ => {}
            },
            Change::Delete(key) => match key.kind {
                crate::source::Kind::Service => self.metrics.changed(Changed::Service, now),
                crate::source::Kind::EndpointSlice => {
                    self.metrics.changed(Changed::Endpoints, now);
                }
                _ => {}
            },
        }
    }

    /// An event that is about to be folded into the snapshot.
    pub fn seen(&mut self, event: &Event, snapshot: &Snapshot) {
        let before = |key: &ObjectKey| snapshot.slices.get(key).map(|slice| slice.service.clone());
        match event {
            Event::Apply(Object::Node(node)) if node.name == snapshot.node.name => {
                self.node = if node.leaving {
                    NodeState::Leaves
                } else {
                    NodeState::Stays
                };
                self.addresses_changed = true;
            }
            Event::Delete(Key::Node(name)) if *name == snapshot.node.name => {
                self.node = NodeState::Leaves;
            }
            Event::Apply(Object::Service(service)) => {
                self.dirty.insert(service.key.clone());
            }
            Event::Delete(Key::Service(key)) => {
                self.dirty.insert(key.clone());
            }
            Event::Apply(Object::Slice(slice)) => {
                self.dirty.insert(slice.service.clone());
                self.dirty.extend(before(&slice.key));
            }
            Event::Delete(Key::Slice(key)) => self.dirty.extend(before(key)),
            Event::Apply(Object::Pod(pod)) => self.pods_changed(&pod.key.namespace, snapshot),
            Event::Delete(Key::Pod(key)) => self.pods_changed(&key.namespace, snapshot),
            Event::Apply(Object::Config(_)) => {
                self.addresses_changed = true;
                self.dirty.extend(self.local.keys().cloned());
            }
            // Endpoints that name no node are here if a device has their address.
            Event::Apply(Object::Interface(_)) | Event::Delete(Key::Interface(_))
                if !snapshot.node.slices_only =>
            {
                self.dirty.extend(self.local.keys().cloned());
            }
            _ => {}
        }
    }

    /// Services without slices may be served by any pod of their namespace.
    fn pods_changed(&mut self, namespace: &Text, snapshot: &Snapshot) {
        if snapshot.node.slices_only {
            return;
        }
        let first = ObjectKey::new(namespace.clone(), "");
        let services = self.local.range(first..).map(|(key, _)| key);
        let services = services.take_while(|key| key.namespace == *namespace);
        self.dirty.extend(services.cloned());
    }

    /// The engine has tried to bring the maps up to date.
    pub fn reconciled(&mut self, engine: &Engine) {
        let history = engine.history();
        let is_done = history.done > self.done;
        let pending = history.pending.is_some();
        self.metrics
            .plans(history.done, history.failed, pending, history.in_sync);
        if is_done {
            let now = Timestamp::now();
            self.metrics
                .synced(history.last_took, self.done == 0, now_secs());
            self.done = history.done;
            self.last_updated = Some(now);
            for (family, since) in self.triggers.drain(..) {
                let secs = now.duration_since(since).as_secs_f64();
                self.metrics.programmed(family, secs.max(0.0));
            }
            self.check_services(engine.state().services(), engine.snapshot());
            self.maps.send_replace(map_counts(engine));
        }
        self.health(engine);
    }

    /// A request of the CNI plugin was answered.
    pub fn cni(&self, command: &'static str, code: u32, took: Duration) {
        self.metrics.cni(command, code, took);
    }

    /// A pod started without the CNI plugin.
    pub fn cni_without(&self) {
        self.metrics.cni_without();
    }

    /// What domain names are known.
    pub fn domains(&self, names: &Names) {
        self.metrics.domains(names.count(), names.refused());
    }

    /// Tells how the proxy is; cheap enough for each turn of the loop.
    pub fn health(&self, engine: &Engine) {
        let health = Health {
            oldest_change: engine.oldest_change(),
            last_updated: self.last_updated,
            node: self.node,
        };
        self.health.send_if_modified(|known| {
            let changed = *known != health;
            *known = health;
            changed
        });
    }

    /// Looks again at Services that something happened to, and at no others.
    fn check_services(&mut self, services: &Services, snapshot: &Snapshot) {
        for key in std::mem::take(&mut self.dirty) {
            let service = snapshot.services.get(&key).filter(|s| asks_for_local(s));
            let now = service.map(|service| look(service, services, snapshot));
            let before = match now {
                Some(local) => self.local.insert(key.clone(), local),
                None => self.local.remove(&key),
            };
            self.missing.change(before.as_ref(), now.as_ref());
            let (before, now) = (before.and_then(|l| l.check), now.and_then(|l| l.check));
            if before != now {
                self.checks
                    .send_modify(|checks| Arc::make_mut(checks).set(key, now));
            }
        }
        if std::mem::take(&mut self.addresses_changed) {
            let node = &snapshot.node;
            let some = node.nodeport_primary || !node.nodeport_addresses.is_empty();
            let addresses = some.then(|| node.nodeport_ips().collect());
            self.checks
                .send_if_modified(|checks| Arc::make_mut(checks).listen_on(addresses));
        }
        for (policy, name) in ["internal", "external"].into_iter().enumerate() {
            for (family, ip_family) in FAMILIES.into_iter().enumerate() {
                let ports = self.missing.0[policy][family];
                self.metrics.no_local(name, ip_family, ports as i64);
            }
        }
    }
}

impl Missing {
    /// A Service's share changes.
    fn change(&mut self, before: Option<&Local>, now: Option<&Local>) {
        for (policy, sums) in self.0.iter_mut().enumerate() {
            for (family, sum) in sums.iter_mut().enumerate() {
                let of = |local: Option<&Local>| local.map_or(0, |l| l.missing.0[policy][family]);
                *sum = *sum + of(now) - of(before);
            }
        }
    }
}

fn asks_for_local(service: &Service) -> bool {
    let policies = [service.internal_policy, service.external_policy];
    service.health_check_node_port.is_some() || policies.contains(&TrafficPolicy::Local)
}

/// What this node has of a Service.
fn look(service: &Service, services: &Services, snapshot: &Snapshot) -> Local {
    let presence = services.presence(snapshot, service);
    let missing = |policy: TrafficPolicy| match policy {
        TrafficPolicy::Local => presence.elsewhere,
        TrafficPolicy::Cluster => [0; 2],
    };
    Local {
        check: service.health_check_node_port.map(|port| Check {
            port,
            local: presence.ready,
        }),
        missing: Missing([
            missing(service.internal_policy),
            missing(service.external_policy),
        ]),
    }
}

fn map_counts(engine: &Engine) -> MapCounts {
    let state = engine.state();
    let ids = MapId::ALL.into_iter().filter(|&id| id != MapId::Epoch);
    ids.map(|id| {
        let capacity = engine.store().capacity(id).into();
        (id.name().to_owned(), state.used(id) as u64, capacity)
    })
    .collect()
}

fn now_secs() -> f64 {
    Timestamp::now().as_duration().as_secs_f64()
}

#[cfg(test)]
mod tests;
