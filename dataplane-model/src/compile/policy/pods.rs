//! Pods that policies see, and which of them has an address.

use std::cell::LazyCell;
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::kinds::Kinds;
use crate::snapshot::{Change, ObjectKey, Pod, Snapshot};

/// A pod that policies see.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) key: ObjectKey,
    /// The place of its kind.
    pub(super) kind: usize,
    /// It is of this node.
    pub(super) is_local: bool,
}

/// Pods that policies see. They stay the same until pods, devices or nodes change.
#[derive(Debug, Default)]
pub(super) struct Pods {
    /// All of the cluster, in the snapshot's order.
    all: Vec<Seen>,
    /// Places of those that have an address.
    by_ip: HashMap<IpAddr, usize>,
    /// The same of this node's alone.
    local_by_ip: HashMap<IpAddr, usize>,
    /// The place of each kind's first pod, in their order.
    first: Vec<usize>,
    /// Kinds of pods of this node.
    pub(super) kinds_here: Vec<usize>,
}

/// Pods as they were seen last, and what changed since.
#[derive(Clone, Debug, Default)]
pub(super) struct KnownPods {
    pods: Arc<Pods>,
    /// Nothing changed since.
    is_current: bool,
    /// Pods that changed since.
    changed: HashSet<ObjectKey>,
}

impl KnownPods {
    /// Notes a change.
    pub(super) fn note(&mut self, change: &Change) {
        match change {
            Change::Pod(key, _) => _ = self.changed.insert(key.clone()),
            Change::Config(_) | Change::Node(_) | Change::Interface(..) => {}
            _ => return,
        }
        self.is_current = false;
    }

    /// Looks at all pods again if any may have changed, and finds the kinds of those that did.
    pub(super) fn see(&mut self, snapshot: &Snapshot, kinds: &mut Kinds) -> Arc<Pods> {
        if !self.is_current {
            let changed = std::mem::take(&mut self.changed);
            let kinds = self.kinds(snapshot, &changed, kinds);
            self.pods = Arc::new(Pods::new(snapshot, &kinds));
            self.is_current = true;
        }
        self.pods.clone()
    }

    /// The kinds of all pods, in the snapshot's order.
    fn kinds(
        &self,
        snapshot: &Snapshot,
        changed: &HashSet<ObjectKey>,
        kinds: &mut Kinds,
    ) -> Vec<usize> {
        let mut before = self.pods.all.iter().peekable();
        let mut of_pods = Vec::with_capacity(self.pods.all.len());
        for pod in visible(snapshot) {
            while before.next_if(|one| one.key < pod.key).is_some() {}
            let known = before.next_if(|one| one.key == pod.key);
            let known = known.filter(|one| !changed.contains(&one.key));
            of_pods.push(known.map_or_else(|| kinds.of(pod), |one| one.kind));
        }
        kinds.tidy(&mut of_pods);
        of_pods
    }
}

fn visible(snapshot: &Snapshot) -> impl Iterator<Item = &Pod> {
    snapshot.pods.values().filter(|pod| pod.is_policy_pod())
}

impl Pods {
    /// Those of a snapshot, whose kinds are these.
    fn new(snapshot: &Snapshot, kinds: &[usize]) -> Self {
        let devices = LazyCell::new(|| {
            let devices = snapshot.interfaces.values();
            let addresses = devices.flat_map(|device| &device.addresses);
            addresses.collect::<HashSet<_>>()
        });
        let has_device = |pod: &Pod| pod.ips.iter().any(|ip| devices.contains(ip));
        let is_local = |pod: &Pod| {
            pod.node
                .as_ref()
                .map_or_else(|| has_device(pod), |node| *node == snapshot.node.name)
        };
        let pods: Vec<(&Pod, bool)> = visible(snapshot).map(|pod| (pod, is_local(pod))).collect();
        let all = pods
            .iter()
            .zip(kinds)
            .map(|(&(pod, is_local), &kind)| Seen {
                key: pod.key.clone(),
                kind,
                is_local,
            });
        let mut known = HashSet::new();
        let mut known_here = HashSet::new();
        let all: Vec<Seen> = all.collect();
        let first = (0..all.len()).filter(|&place| known.insert(all[place].kind));
        let here = all.iter().filter(|one| one.is_local).map(|one| one.kind);
        Self {
            by_ip: by_ip(&pods, |_| true),
            local_by_ip: by_ip(&pods, |is_local| is_local),
            first: first.collect(),
            kinds_here: here.filter(|kind| known_here.insert(*kind)).collect(),
            all,
        }
    }

    /// A pod by its key.
    pub(super) fn get(&self, key: &ObjectKey) -> Option<&Seen> {
        let place = self.all.binary_search_by(|one| one.key.cmp(key)).ok()?;
        Some(&self.all[place])
    }

    /// The pod of this node that has an address.
    pub(super) fn local_at(&self, ip: IpAddr) -> Option<&Seen> {
        Some(&self.all[*self.local_by_ip.get(&ip)?])
    }

    /// All addresses, each with the kind of the pod that has it.
    pub(super) fn addresses(&self) -> impl Iterator<Item = (IpAddr, usize)> {
        let all = self.by_ip.iter();
        all.map(|(&ip, &place)| (ip, self.all[place].kind))
    }

    /// All kinds, each with its first pod.
    pub(super) fn kinds(&self) -> impl Iterator<Item = (usize, &ObjectKey)> {
        let first = self.first.iter().map(|&place| &self.all[place]);
        first.map(|one| (one.kind, &one.key))
    }
}

/// Places of pods by address. Of two pods with one address, the one that stays has it, then the one of
/// this node, then the first by name.
fn by_ip(pods: &[(&Pod, bool)], is_wanted: impl Fn(bool) -> bool) -> HashMap<IpAddr, usize> {
    let rank = |place: usize| {
        let (pod, is_local) = pods[place];
        (pod.terminating, !is_local)
    };
    let mut by_ip = HashMap::new();
    for (place, (pod, is_local)) in pods.iter().enumerate() {
        if !is_wanted(*is_local) {
            continue;
        }
        for &ip in &pod.ips {
            let owner = by_ip.entry(ip).or_insert(place);
            if rank(place) < rank(*owner) {
                *owner = place;
            }
        }
    }
    by_ip
}
