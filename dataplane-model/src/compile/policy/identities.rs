//! Identities of pods and nodes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::Fingerprint;
use super::kinds::{FEW, Kind, Kinds, Like, Numbered, Space};
use super::pods::Pods;
use super::selectors::SelectorIndex;
use super::state::{Active, Identity, PeerSelector, PortName};
use crate::compile::Compiler;
use crate::ids::{self, IdKind};
use crate::snapshot::{Labels, NamespaceScope, ObjectKey, Pod, Selector, Text};

/// Identities of all pods, and of the nodes that rules can tell apart.
#[derive(Default)]
pub(super) struct Identities {
    pub(super) numbers: BTreeMap<u32, Arc<Identity>>,
    /// By the places of kinds, 0 for none.
    pub(super) by_kind: Vec<u32>,
    pub(super) by_node: HashMap<Text, u32>,
}

impl Identities {
    /// Room for all kinds.
    fn new(kinds: &Kinds) -> Self {
        Self {
            by_kind: vec![0; kinds.iter().len()],
            ..Self::default()
        }
    }

    /// The identity of a kind of pods, 0 for none.
    pub(super) fn of(&self, kind: usize) -> u32 {
        self.by_kind[kind]
    }

    /// The identity of a node, 0 for none.
    pub(super) fn of_node(&self, node: &Text) -> u32 {
        self.by_node.get(node).copied().unwrap_or(0)
    }

    /// The numbers that each active name of a port stands for somewhere.
    pub(super) fn named_ports(&self) -> BTreeMap<PortName, BTreeSet<u16>> {
        let mut named: BTreeMap<PortName, BTreeSet<u16>> = BTreeMap::new();
        for (name, port) in self.numbers.values().flat_map(|identity| &identity.ports) {
            match named.get_mut(name) {
                Some(ports) => ports.insert(*port),
                None => named.insert(name.clone(), [*port].into()).is_none(),
            };
        }
        named
    }

    fn add(&mut self, kind: usize, numbered: &Numbered) {
        self.by_kind[kind] = numbered.number;
        let content = || numbered.content.clone();
        self.numbers.entry(numbered.number).or_insert_with(content);
    }
}

/// Numbers the identities of all kinds that there are pods of, and nodes'. `before` is what peers were
/// told apart by when the kinds were looked at last.
pub(super) fn number(
    compiler: &mut Compiler<'_>,
    pods: &Pods,
    kinds: &mut Kinds,
    before: &Active,
    active: &Active,
) -> Identities {
    let mut identities = Identities::new(kinds);
    number_nodes(compiler, active, &mut identities);
    if active != before {
        exchange(kinds, before, active);
    }
    find_out(kinds, active);
    for (place, pod) in pods.kinds() {
        let kind = &mut kinds[place];
        let known = kind.identity.take();
        let known = known.filter(|known| {
            let is_same = kind.matched.as_ref() == Some(&known.content.matched)
                && active_ports(&kind.like, active) == known.content.ports;
            is_same && compiler.ids.keep(&known.key, known.number)
        });
        let numbered = known.or_else(|| {
            let content = Identity {
                namespace: kind.like.namespace.clone(),
                matched: kind.matched.clone().unwrap_or_default(),
                ports: active_ports(&kind.like, active),
            };
            new_number(compiler, content, pod)
        });
        if let Some(numbered) = &numbered {
            identities.add(place, numbered);
        }
        kind.identity = numbered;
    }
    identities
}

/// The same while selectors that are in force no more still tell peers apart.
pub(super) fn number_with(
    compiler: &mut Compiler<'_>,
    pods: &Pods,
    kinds: &Kinds,
    both: &Active,
    gone: &Active,
) -> Identities {
    let mut identities = Identities::new(kinds);
    number_nodes(compiler, both, &mut identities);
    let index = PeerIndex::new(gone);
    let spaces = index.spaces(kinds);
    for (place, pod) in pods.kinds() {
        let kind = &kinds[place];
        let Some(known) = &kind.identity else {
            continue;
        };
        let mut also = spaces[&kind.like.namespace].matching(&kind.like.labels);
        let ports = active_ports(&kind.like, both);
        if also.is_empty() && ports == known.content.ports {
            identities.add(place, known);
            continue;
        }
        also.extend(&known.content.matched);
        also.sort_unstable();
        let content = Identity {
            namespace: kind.like.namespace.clone(),
            matched: also,
            ports,
        };
        if let Some(numbered) = new_number(compiler, content, pod) {
            identities.add(place, &numbered);
        }
    }
    identities
}

fn new_number(compiler: &mut Compiler<'_>, content: Identity, pod: &ObjectKey) -> Option<Numbered> {
    let key = ids::key(IdKind::Identity, &content);
    let snapshot = compiler.snapshot;
    let number = (compiler.ids).id_of(key, || describe(pod, snapshot.pods.get(pod)));
    Some(Numbered {
        key,
        number: compiler.note(number)?,
        content: Arc::new(content),
    })
}

/// Takes selectors that are gone from what chooses kinds, and adds new ones.
fn exchange(kinds: &mut Kinds, before: &Active, active: &Active) {
    let (gone, fresh) = (before.without(active), active.without(before));
    let index = PeerIndex::new(&fresh);
    let chosen: Vec<Vec<Fingerprint>> = {
        let spaces = index.spaces(kinds);
        let all = kinds.iter();
        all.map(|kind| spaces[&kind.like.namespace].matching(&kind.like.labels))
            .collect()
    };
    for (kind, chosen) in kinds.iter_mut().zip(chosen) {
        let Some(matched) = &mut kind.matched else {
            continue;
        };
        if !gone.selectors.is_empty() {
            matched.retain(|print| !gone.selectors.contains_key(print));
        }
        if !chosen.is_empty() {
            matched.extend(chosen);
            matched.sort_unstable();
        }
    }
}

/// Finds out which selectors choose the kinds of which that is not known.
fn find_out(kinds: &mut Kinds, active: &Active) {
    let unknown = kinds.iter().filter(|kind| kind.matched.is_none()).count();
    if unknown == 0 {
        return;
    }
    let chosen: Vec<_> = if unknown > FEW {
        let index = PeerIndex::new(active);
        let spaces = index.spaces(kinds);
        let of = |kind: &Kind| spaces[&kind.like.namespace].matching(&kind.like.labels);
        let all = kinds.iter();
        all.map(|kind| kind.matched.is_none().then(|| of(kind)))
            .collect()
    } else {
        let of = |kind: &Kind| {
            let chooses = |selector: &PeerSelector| selector.chooses(kind, kinds.space(kind));
            let all = active.selectors.iter();
            let chosen = all.filter(|(_, selector)| chooses(selector));
            chosen.map(|(&print, _)| print).collect()
        };
        let all = kinds.iter();
        all.map(|kind| kind.matched.is_none().then(|| of(kind)))
            .collect()
    };
    for (kind, mut chosen) in kinds.iter_mut().zip(chosen) {
        if let Some(chosen) = &mut chosen {
            chosen.sort_unstable();
        }
        kind.matched = kind.matched.take().or(chosen);
    }
}

impl PeerSelector {
    fn chooses(&self, kind: &Kind, space: &Space) -> bool {
        let reaches = match &self.scope {
            NamespaceScope::Own => self.own.as_ref() == Some(&kind.like.namespace),
            NamespaceScope::Matching(namespaces) => namespaces.matches(&space.labels),
        };
        reaches && self.pods.matches(&kind.like.labels)
    }
}

fn number_nodes(compiler: &mut Compiler<'_>, active: &Active, identities: &mut Identities) {
    let snapshot = compiler.snapshot;
    // Of this node no object may be known, and it is a node all the same.
    let unknown = Labels::new();
    let mut nodes: BTreeMap<&Text, &Labels> = BTreeMap::from([(&snapshot.node.name, &unknown)]);
    nodes.extend(
        snapshot
            .nodes
            .iter()
            .map(|(name, node)| (name, &node.labels)),
    );
    for (name, labels) in nodes {
        let matching = active
            .nodes
            .iter()
            .filter(|(_, nodes)| nodes.matches(labels));
        let identity = Identity::of_node(matching.map(|(&print, _)| print).collect());
        if identity.matched.is_empty() {
            continue;
        }
        let describe = || format!("nodes like {name}");
        let number = compiler.ids.id(IdKind::Identity, &identity, describe);
        let Some(number) = compiler.note(number) else {
            continue;
        };
        identities.by_node.insert(name.clone(), number);
        let content = || Arc::new(identity);
        identities.numbers.entry(number).or_insert_with(content);
    }
}

fn active_ports(like: &Like, active: &Active) -> Vec<(PortName, u16)> {
    let named = like.ports.iter().filter(|port| !port.name.is_empty());
    let ports = named.map(|port| ((port.protocol, port.name.clone()), port.port));
    let mut ports: Vec<_> = ports
        .filter(|(name, _)| active.names.contains(name))
        .collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

fn describe(key: &ObjectKey, pod: Option<&Pod>) -> String {
    let labels: Vec<_> = pod
        .iter()
        .flat_map(|pod| pod.labels.iter())
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    format!(
        "{} pods like {} ({})",
        key.namespace,
        key.name,
        labels.join(",")
    )
}

/// Active selectors by the namespaces that they reach.
struct PeerIndex<'a> {
    own: HashMap<&'a Text, SelectorIndex<'a, Fingerprint>>,
    matching: HashMap<&'a Selector, SelectorIndex<'a, Fingerprint>>,
}

/// Active selectors that reach one namespace.
struct Namespace<'i>(Vec<&'i SelectorIndex<'i, Fingerprint>>);

impl<'a> PeerIndex<'a> {
    fn new(active: &'a Active) -> Self {
        let mut index = Self {
            own: HashMap::new(),
            matching: HashMap::new(),
        };
        for (&print, selector) in &active.selectors {
            let selectors = match (&selector.scope, &selector.own) {
                (NamespaceScope::Matching(namespaces), _) => {
                    index.matching.entry(namespaces).or_default()
                }
                (NamespaceScope::Own, Some(namespace)) => index.own.entry(namespace).or_default(),
                (NamespaceScope::Own, None) => continue,
            };
            selectors.insert(&selector.pods, print);
        }
        index
    }

    /// All namespaces that there are pods in.
    fn spaces<'i>(&'i self, kinds: &'i Kinds) -> HashMap<&'i Text, Namespace<'i>> {
        let spaces = kinds.spaces().iter();
        spaces
            .map(|(name, space)| (name, self.namespace(name, &space.labels)))
            .collect()
    }

    fn namespace(&self, name: &Text, labels: &Labels) -> Namespace<'_> {
        let matching = self
            .matching
            .iter()
            .filter(|(namespaces, _)| namespaces.matches(labels));
        Namespace(
            self.own
                .get(name)
                .into_iter()
                .chain(matching.map(|(_, selectors)| selectors))
                .collect(),
        )
    }
}

impl Namespace<'_> {
    fn matching(&self, labels: &Labels) -> Vec<Fingerprint> {
        let mut matched: Vec<_> = self
            .0
            .iter()
            .flat_map(|selectors| selectors.matching(labels))
            .collect();
        matched.sort_unstable();
        matched
    }
}
