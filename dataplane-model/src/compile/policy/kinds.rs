//! Kinds of pods: those that no policy can tell apart. What a compile finds out of one is kept for the
//! next.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::{Index, IndexMut};
use std::sync::Arc;

use dataplane_common::abi::IdKey;

use super::Fingerprint;
use super::selected::{Concerning, Policy, Selecting};
use super::selectors::SelectorIndex;
use super::state::{Identity, PortName};
use crate::snapshot::{
    ClusterPolicy, ContainerPort, Labels, NetworkPolicy, ObjectKey, Pod, Snapshot, Text,
};

/// So many kinds go through all selectors one by one; for more an index is made.
pub(super) const FEW: usize = 4;
/// Policies that changed at once: for more, all kinds are looked at anew.
const MANY: usize = 64;

/// What policies can tell of a pod.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Like {
    pub(super) namespace: Text,
    pub(super) labels: Labels,
    pub(super) ports: Vec<ContainerPort>,
}

impl Like {
    /// Numbers of the ports with this name.
    pub(super) fn named_ports(&self, name: &PortName) -> impl Iterator<Item = u16> {
        let wanted = self.ports.iter();
        let wanted = wanted.filter(|port| port.protocol == name.0 && port.name == name.1);
        wanted
            .filter(|port| !port.name.is_empty())
            .map(|port| port.port)
    }
}

/// Pods that are alike.
#[derive(Clone, Debug)]
pub(super) struct Kind {
    pub(super) like: Arc<Like>,
    /// Active selectors that choose them, sorted; `None` if that is to be found out.
    pub(super) matched: Option<Vec<Fingerprint>>,
    /// Their identity, with its number.
    pub(super) identity: Option<Numbered>,
    /// Policies that select them, by their keys; `None` if that is to be found out, or none is on this
    /// node.
    matching: Option<Vec<Policy>>,
    /// The same in order.
    pub(super) concerning: Concerning,
}

/// An identity with its number.
#[derive(Clone, Debug)]
pub(super) struct Numbered {
    pub(super) key: IdKey,
    pub(super) number: u32,
    pub(super) content: Arc<Identity>,
}

/// What selectors see of a namespace.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Space {
    /// Its labels, its name among them.
    pub(super) labels: Labels,
    is_audited: bool,
}

/// All kinds that there are pods of.
#[derive(Clone, Debug, Default)]
pub(super) struct Kinds {
    all: Vec<Kind>,
    by_like: HashMap<Arc<Like>, usize>,
    spaces: HashMap<Text, Space>,
    policies: Policies,
    /// Each once, whatever kinds have it.
    selecting: HashSet<Arc<Selecting>>,
}

impl Index<usize> for Kinds {
    type Output = Kind;

    fn index(&self, place: usize) -> &Kind {
        &self.all[place]
    }
}

impl IndexMut<usize> for Kinds {
    fn index_mut(&mut self, place: usize) -> &mut Kind {
        &mut self.all[place]
    }
}

impl Kinds {
    /// The place of a pod's kind.
    pub(super) fn of(&mut self, pod: &Pod) -> usize {
        let like = Like {
            namespace: pod.key.namespace.clone(),
            labels: pod.labels.clone(),
            ports: pod.ports.clone(),
        };
        if let Some(&place) = self.by_like.get(&like) {
            return place;
        }
        let like = Arc::new(like);
        self.by_like.insert(like.clone(), self.all.len());
        self.all.push(Kind {
            like,
            matched: None,
            identity: None,
            matching: None,
            concerning: Concerning::default(),
        });
        self.all.len() - 1
    }

    /// Drops kinds without pods, if they are many. `of_pods` are the kinds of all pods.
    pub(super) fn tidy(&mut self, of_pods: &mut [usize]) {
        let used: HashSet<usize> = of_pods.iter().copied().collect();
        if self.all.len() < 2 * used.len() + MANY {
            return;
        }
        let mut places = HashMap::new();
        let all = std::mem::take(&mut self.all);
        for (old, kind) in all.into_iter().enumerate() {
            if used.contains(&old) {
                places.insert(old, self.all.len());
                self.all.push(kind);
            }
        }
        let like = self.all.iter().map(|kind| kind.like.clone());
        self.by_like = like.zip(0..).collect();
        for kind in of_pods {
            *kind = places[kind];
        }
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = &Kind> {
        self.all.iter()
    }

    /// All of them.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Kind> {
        self.all.iter_mut()
    }

    /// What selectors see of the kind's namespace.
    pub(super) fn space(&self, kind: &Kind) -> &Space {
        &self.spaces[&kind.like.namespace]
    }

    /// All namespaces that there are pods in.
    pub(super) fn spaces(&self) -> &HashMap<Text, Space> {
        &self.spaces
    }

    /// Looks at namespaces: what is known of kinds in those that changed holds no more.
    pub(super) fn see_namespaces(&mut self, snapshot: &Snapshot) {
        let mut spaces = HashMap::new();
        for kind in &mut self.all {
            let name = &kind.like.namespace;
            let space = spaces.entry(name.clone()).or_insert_with(|| {
                let space = Space {
                    labels: snapshot.namespace_labels(name),
                    is_audited: snapshot.audited.contains(name),
                };
                let is_same = self.spaces.get(name) == Some(&space);
                (space, is_same)
            });
            if !space.1 {
                (kind.matched, kind.matching) = (None, None);
            }
        }
        let spaces = spaces.into_iter();
        self.spaces = spaces.map(|(name, (space, _))| (name, space)).collect();
    }

    /// Finds out which policies concern the kinds of pods that are on this node.
    pub(super) fn see_policies(&mut self, snapshot: &Snapshot, here: &[usize]) {
        let changes = self.policies.see(snapshot);
        let here: BTreeSet<usize> = here.iter().copied().collect();
        let mut stale = Vec::new();
        let mut unknown: BTreeMap<Text, Vec<usize>> = BTreeMap::new();
        for (place, kind) in self.all.iter_mut().enumerate() {
            if !here.contains(&place) || changes.len() > MANY {
                kind.matching = None;
            }
            let Some(matching) = &mut kind.matching else {
                kind.concerning = Concerning::default();
                if here.contains(&place) {
                    let namespace = kind.like.namespace.clone();
                    unknown.entry(namespace).or_default().push(place);
                    stale.push(place);
                }
                continue;
            };
            let space = &self.spaces[&kind.like.namespace];
            let concern = changes.iter();
            let concern = concern.filter(|change| change.apply(&kind.like, space, matching));
            if concern.count() > 0 {
                stale.push(place);
            }
        }
        for (namespace, kinds) in unknown {
            self.look_up(snapshot, &namespace, &kinds);
        }
        self.put_in_order(snapshot, &stale);
    }

    fn look_up(&mut self, snapshot: &Snapshot, namespace: &Text, kinds: &[usize]) {
        let labels = &self.spaces[namespace].labels;
        let first = ObjectKey::new(namespace.clone(), "");
        let own = snapshot.policies.range(first..);
        let own = own.take_while(|(key, _)| key.namespace == *namespace);
        let own: Vec<_> = own.map(|(_, policy)| policy).collect();
        let cluster = snapshot.cluster_policies.values();
        let cluster: Vec<_> = cluster
            .filter(|policy| policy.namespaces.matches(labels))
            .collect();
        let selectors = cluster.iter().map(|policy| &policy.pods);
        let selectors: Vec<_> = selectors
            .chain(own.iter().map(|policy| &policy.pods))
            .collect();
        let policy = |number: usize| match cluster.get(number) {
            Some(policy) => Policy::Cluster(Arc::clone(policy)),
            None => Policy::Namespaced(Arc::clone(own[number - cluster.len()])),
        };
        let mut index = SelectorIndex::default();
        if kinds.len() > FEW {
            let numbered = selectors.iter().zip(0usize..);
            numbered.for_each(|(selector, number)| index.insert(selector, number));
        }
        for &place in kinds {
            let kind = &mut self.all[place];
            let labels = &kind.like.labels;
            let mut found: Vec<usize> = if kinds.len() > FEW {
                index.matching(labels)
            } else {
                let chosen = |number: &usize| selectors[*number].matches(labels);
                (0..selectors.len()).filter(chosen).collect()
            };
            found.sort_unstable();
            kind.matching = Some(found.into_iter().map(policy).collect());
        }
    }

    /// Puts the policies of kinds in their order, once for all that have the same.
    fn put_in_order(&mut self, snapshot: &Snapshot, kinds: &[usize]) {
        let mut known: HashMap<&[Policy], Concerning> = HashMap::new();
        let selecting = &mut self.selecting;
        let concerning = |&place: &usize| {
            let matching = self.all[place].matching.as_deref().unwrap_or(&[]);
            let concerning = known.entry(matching).or_insert_with(|| {
                let mut concerning = Concerning::new(matching, snapshot);
                concerning.all_mut().for_each(|one| share(selecting, one));
                concerning
            });
            (place, concerning.clone())
        };
        let all: Vec<_> = kinds.iter().map(concerning).collect();
        for (place, concerning) in all {
            self.all[place].concerning = concerning;
        }
    }

    /// Drops what no kind has any more.
    pub(super) fn forget_unused(&mut self) {
        self.selecting.retain(|one| Arc::strong_count(one) > 1);
    }
}

/// Makes it the one that is known, if an equal one is.
fn share(known: &mut HashSet<Arc<Selecting>>, one: &mut Arc<Selecting>) {
    match known.get(one) {
        Some(same) => *one = same.clone(),
        None => _ = known.insert(one.clone()),
    }
}

/// All policies as they were looked at last.
#[derive(Clone, Debug, Default)]
struct Policies {
    cluster: Vec<Arc<ClusterPolicy>>,
    namespaced: Vec<Arc<NetworkPolicy>>,
}

impl Policies {
    /// Looks at them again. Says what changed.
    fn see(&mut self, snapshot: &Snapshot) -> Vec<Changed> {
        let mut changes = Vec::new();
        self.cluster = renewed(
            std::mem::take(&mut self.cluster),
            &snapshot.cluster_policies,
            |policy| &policy.key,
            Policy::Cluster,
            &mut changes,
        );
        self.namespaced = renewed(
            std::mem::take(&mut self.namespaced),
            &snapshot.policies,
            |policy| &policy.key,
            Policy::Namespaced,
            &mut changes,
        );
        changes
    }
}

/// The values of a map as they are now, in its order. Adds those to `changes` that are not the very same
/// as before.
fn renewed<K: Ord, V>(
    before: Vec<Arc<V>>,
    now: &BTreeMap<K, Arc<V>>,
    key: impl Fn(&V) -> &K,
    policy: impl Fn(Arc<V>) -> Policy,
    changes: &mut Vec<Changed>,
) -> Vec<Arc<V>> {
    let mut changed = |old: Option<Arc<V>>, new: Option<Arc<V>>| {
        let [old, new] = [old, new].map(|one| one.map(&policy));
        changes.push(Changed { old, new });
    };
    let mut before = before.into_iter().peekable();
    let mut all = Vec::with_capacity(now.len());
    for value in now.values() {
        if let Some(same) = before.next_if(|old| Arc::ptr_eq(old, value)) {
            all.push(same);
            continue;
        }
        while let Some(gone) = before.next_if(|old| key(old) < key(value)) {
            changed(Some(gone), None);
        }
        let old = before.next_if(|old| key(old) == key(value));
        if old.as_ref().is_none_or(|old| !Arc::ptr_eq(old, value)) {
            changed(old, Some(value.clone()));
        }
        all.push(value.clone());
    }
    before.for_each(|gone| changed(Some(gone), None));
    all
}

/// A policy that changed.
struct Changed {
    old: Option<Policy>,
    new: Option<Policy>,
}

impl Changed {
    /// Notes it at a kind's policies. Says whether it concerns them.
    fn apply(&self, like: &Like, space: &Space, matching: &mut Vec<Policy>) -> bool {
        let selects = |policy: &Policy| match policy {
            Policy::Cluster(policy) => {
                policy.namespaces.matches(&space.labels) && policy.pods.matches(&like.labels)
            }
            Policy::Namespaced(policy) => {
                policy.key.namespace == like.namespace && policy.pods.matches(&like.labels)
            }
        };
        let old = self.old.as_ref().filter(|old| selects(old));
        let place = old.and_then(|old| matching.iter().position(|known| known == old));
        if let Some(place) = place {
            matching.remove(place);
        }
        let new = self.new.as_ref().filter(|new| selects(new));
        if let Some(new) = new {
            let place = matching.partition_point(|known| known.key() < new.key());
            matching.insert(place, new.clone());
        }
        place.is_some() || new.is_some()
    }
}
