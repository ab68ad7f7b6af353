//! Identities of pods and addresses.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use dataplane_common::abi::{IdentityVal, identity_flags};

use super::cidrs::Held;
use super::selectors::SelectorIndex;
use super::state::{Active, Block, Identity, PortName};
use super::{Fingerprint, Pods};
use crate::compile::Compiler;
use crate::ids::IdKind;
use crate::snapshot::{Labels, NamespaceScope, ObjectKey, Pod, Selector, Snapshot, Text};
use crate::tables::Family;

/// Identities of all pods, and of the nodes that rules can tell apart.
pub(super) struct Identities<'a> {
    pub(super) numbers: BTreeMap<u32, Arc<Identity>>,
    by_pod: HashMap<&'a ObjectKey, u32>,
    by_node: HashMap<&'a Text, u32>,
}

impl Identities<'_> {
    /// The pod's identity, 0 for none.
    pub(super) fn of(&self, pod: &ObjectKey) -> u32 {
        self.by_pod.get(pod).copied().unwrap_or(0)
    }

    fn of_node(&self, node: &Text) -> u32 {
        self.by_node.get(node).copied().unwrap_or(0)
    }

    /// The numbers that each active name of a port stands for somewhere.
    pub(super) fn named_ports(&self) -> BTreeMap<PortName, BTreeSet<u16>> {
        let mut named: BTreeMap<PortName, BTreeSet<u16>> = BTreeMap::new();
        for (name, port) in self.numbers.values().flat_map(|identity| &identity.ports) {
            named.entry(name.clone()).or_default().insert(*port);
        }
        named
    }
}

/// Numbers all pods' identities, and nodes'.
pub(super) fn number<'a>(
    compiler: &mut Compiler<'a>,
    pods: &Pods<'a>,
    active: &Active,
) -> Identities<'a> {
    let index = PeerIndex::new(active);
    let snapshot = compiler.snapshot;
    let mut identities = Identities {
        numbers: BTreeMap::new(),
        by_pod: HashMap::new(),
        by_node: HashMap::new(),
    };
    number_nodes(compiler, active, &mut identities);
    let mut namespaces: HashMap<&Text, Namespace<'_>> = HashMap::new();
    let mut known: HashMap<(&Text, &Labels), Vec<Fingerprint>> = HashMap::new();
    for &pod in &pods.all {
        let name = &pod.key.namespace;
        let namespace = namespaces
            .entry(name)
            .or_insert_with(|| index.namespace(name, &snapshot.namespace_labels(name)));
        let matched = known
            .entry((name, &pod.labels))
            .or_insert_with(|| namespace.matching(&pod.labels));
        let identity = Identity {
            namespace: name.clone(),
            matched: matched.clone(),
            ports: active_ports(pod, active),
        };
        let number = compiler
            .ids
            .id(IdKind::Identity, &identity, || describe(pod));
        let Some(number) = compiler.note(number) else {
            continue;
        };
        identities.by_pod.insert(&pod.key, number);
        identities
            .numbers
            .entry(number)
            .or_insert_with(|| Arc::new(identity));
    }
    identities
}

fn number_nodes<'a>(compiler: &mut Compiler<'a>, active: &Active, identities: &mut Identities<'a>) {
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
        identities.by_node.insert(name, number);
        let content = || Arc::new(identity);
        identities.numbers.entry(number).or_insert_with(content);
    }
}

fn active_ports(pod: &Pod, active: &Active) -> Vec<(PortName, u16)> {
    let named = pod.ports.iter().filter(|port| !port.name.is_empty());
    let ports = named.map(|port| ((port.protocol, port.name.clone()), port.port));
    let mut ports: Vec<_> = ports
        .filter(|(name, _)| active.names.contains(name))
        .collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

fn describe(pod: &Pod) -> String {
    let labels: Vec<_> = pod
        .labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    format!(
        "{} pods like {} ({})",
        pod.key.namespace,
        pod.key.name,
        labels.join(",")
    )
}

/// One family's identity map, where these blocks are in force.
pub(super) fn table<A: Family>(
    snapshot: &Snapshot,
    pods: &Pods<'_>,
    identities: &Identities<'_>,
    blocks: &BTreeMap<Fingerprint, Block>,
) -> BTreeMap<A, IdentityVal> {
    let held = Held::by(blocks);
    let flags_of = |addr: A, flags: u32| {
        if held.holds(addr) {
            flags
        } else {
            flags | identity_flags::NO_CIDR
        }
    };
    // Of two devices with one address, the newer has it.
    let mut devices = BTreeMap::new();
    for interface in snapshot.interfaces.values() {
        devices.extend(
            interface
                .addresses
                .iter()
                .map(|&ip| (ip, interface.ifindex)),
        );
    }
    let mut table = BTreeMap::new();
    for (&ip, pod) in &pods.by_ip {
        let Some(addr) = A::from_ip(ip) else { continue };
        let identity = identities.of(&pod.key);
        let ifindex = devices.get(&ip).copied().unwrap_or(0);
        table.insert(
            addr,
            IdentityVal {
                identity,
                ifindex,
                flags: flags_of(addr, identity_flags::POD),
            },
        );
    }
    let others = snapshot
        .nodes
        .values()
        .filter(|node| node.name != snapshot.node.name);
    let remote = others.map(|node| (&node.name, &node.addresses, identity_flags::REMOTE_NODE));
    let own = &snapshot.node;
    let own = (&own.name, &own.addresses, identity_flags::NODE);
    for (name, addresses, flags) in remote.chain([own]) {
        let value = |addr: A| IdentityVal {
            identity: identities.of_node(name),
            ifindex: 0,
            flags: flags_of(addr, flags),
        };
        let addresses = addresses.iter().filter_map(|&ip| A::from_ip(ip));
        table.extend(addresses.map(|addr| (addr, value(addr))));
    }
    table
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
        for (&print, (scope, own, pods)) in &active.selectors {
            let selectors = match (scope, own) {
                (NamespaceScope::Matching(namespaces), _) => {
                    index.matching.entry(namespaces).or_default()
                }
                (NamespaceScope::Own, Some(namespace)) => index.own.entry(namespace).or_default(),
                (NamespaceScope::Own, None) => continue,
            };
            selectors.insert(pods, print);
        }
        index
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
