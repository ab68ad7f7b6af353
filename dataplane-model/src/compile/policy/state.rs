//! What numbers of rulesets, identities and sets mean, and the rows that follow.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

use dataplane_common::abi::{RowKey, RowVal, peer};

use ipnet::IpNet;

use super::Fingerprint;
use crate::ids::fingerprint;
use crate::snapshot::{DomainPattern, NamespaceScope, Protocol, Selector, Text};

/// What the numbers of the policy maps mean.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PolicyState {
    pub(super) rulesets: BTreeMap<u32, Arc<Ruleset>>,
    pub(super) identities: BTreeMap<u32, Arc<Identity>>,
    pub(super) sets: BTreeMap<u32, Arc<CidrSet>>,
    pub(super) blocks: BTreeMap<Fingerprint, Block>,
    /// Where an address that nobody knows may be a pod's; empty if no ruleset asks for that.
    pub(super) pod_ranges: BTreeSet<IpNet>,
    pub(super) active: Arc<Active>,
}

/// The name of a port, with its protocol.
pub(super) type PortName = (Protocol, Text);

/// What peers are told apart by.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Active {
    /// Selectors by what they are hashed to.
    pub(super) selectors: BTreeMap<Fingerprint, (NamespaceScope, Option<Text>, Selector)>,
    /// Selectors of nodes.
    pub(super) nodes: BTreeMap<Fingerprint, Selector>,
    /// Names of ports in egress rules.
    pub(super) names: BTreeSet<PortName>,
}

/// A ruleset's rules, with their ports as classes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Ruleset {
    /// NetworkPolicies isolate its pods.
    pub(super) isolates: bool,
    /// Some rule has domain names.
    pub(super) has_domains: bool,
    pub(super) rules: Vec<ClassedRule>,
}

/// A rule within a ruleset.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct ClassedRule {
    /// Its claim.
    pub(super) says: RowVal,
    /// What is said of peers that may be its own and are unknown.
    pub(super) unknown: Unknown,
    /// It matches every peer.
    pub(super) any: bool,
    /// Selectors of its peers, pods and nodes.
    pub(super) selectors: Vec<Fingerprint>,
    /// Blocks of its peers.
    pub(super) blocks: Vec<Fingerprint>,
    /// Classes that it matches.
    pub(super) classes: Vec<u16>,
    /// Named ports of egress rules: the class of each number that a name stands for somewhere.
    pub(super) named: Vec<(PortName, BTreeMap<u16, u16>)>,
}

/// What a rule says of peers that nobody knows.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Unknown {
    /// Which: [`peer::UNKNOWN_POD`], [`peer::UNKNOWN_NODE`].
    pub(super) peers: Vec<u32>,
    /// What.
    pub(super) says: RowVal,
    /// Of which classes.
    pub(super) classes: Vec<u16>,
}

/// An identity: what policies can tell of a pod, or of a node.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Identity {
    /// Empty for a node.
    pub(super) namespace: Text,
    /// Active selectors that choose it, sorted.
    pub(super) matched: Vec<Fingerprint>,
    /// Its ports with active names, sorted.
    pub(super) ports: Vec<(PortName, u16)>,
}

/// A set of blocks: those that hold an address, sorted.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct CidrSet {
    pub(super) blocks: Vec<Fingerprint>,
}

/// A block of addresses, or the addresses of domain names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Block {
    pub(super) cidrs: BTreeSet<IpNet>,
    pub(super) except: Vec<IpNet>,
    /// The names.
    pub(super) domain: Option<DomainPattern>,
}

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(domain) = &self.domain {
            return domain.fmt(f);
        }
        for cidr in &self.cidrs {
            cidr.fmt(f)?;
        }
        for (index, except) in self.except.iter().enumerate() {
            write!(f, "{}{except}", if index == 0 { " except " } else { " " })?;
        }
        Ok(())
    }
}

impl Active {
    /// Adds a selector of pods, of a policy in `namespace` if that has one.
    pub(super) fn insert(
        &mut self,
        namespace: Option<&Text>,
        scope: &NamespaceScope,
        pods: &Selector,
    ) {
        let own = matches!(scope, NamespaceScope::Own).then_some(namespace);
        self.selectors
            .entry(selector_print(namespace, scope, pods))
            .or_insert_with(|| (scope.clone(), own.flatten().cloned(), pods.clone()));
    }

    /// Adds a selector of nodes.
    pub(super) fn insert_nodes(&mut self, nodes: &Selector) {
        self.nodes.insert(nodes_print(nodes), nodes.clone());
    }
}

/// What stands for a pod peer of a policy in `namespace`.
pub(super) fn selector_print(
    namespace: Option<&Text>,
    scope: &NamespaceScope,
    pods: &Selector,
) -> Fingerprint {
    let own = matches!(scope, NamespaceScope::Own).then_some(namespace);
    fingerprint(&(own.flatten(), scope, pods))
}

/// What stands for a node peer.
pub(super) fn nodes_print(nodes: &Selector) -> Fingerprint {
    fingerprint(&("nodes", nodes))
}

impl Identity {
    /// Of nodes that these selectors choose; those that none does have no number.
    pub(super) fn of_node(matched: Vec<Fingerprint>) -> Self {
        Self {
            namespace: Text::from(""),
            matched,
            ports: Vec::new(),
        }
    }
}

impl Ruleset {
    /// True if it says something of pods that nobody knows.
    pub(super) fn asks_for_unknown_pods(&self) -> bool {
        let asks = |rule: &ClassedRule| rule.unknown.peers.contains(&peer::UNKNOWN_POD);
        self.rules.iter().any(asks)
    }
}

impl PolicyState {
    /// True if identity `old` here and `new` there can be one pod whose labels and ports are the same:
    /// they differ only in what is asked of pods.
    pub(crate) fn same_peer(&self, old: u32, other: &PolicyState, new: u32) -> bool {
        let none = Identity::of_node(Vec::new());
        let of = |state: &PolicyState, number: u32| match number {
            0 => Some(none.clone()),
            number => state.identities.get(&number).map(|known| (**known).clone()),
        };
        let (Some(a), Some(b)) = (of(self, old), of(other, new)) else {
            return false;
        };
        let known = |active: &Active, print: &Fingerprint| {
            active.selectors.contains_key(print) || active.nodes.contains_key(print)
        };
        let keeps = |from: &Identity, active: &Active, to: &Identity| {
            from.matched
                .iter()
                .all(|print| !known(active, print) || to.matched.contains(print))
                && from
                    .ports
                    .iter()
                    .all(|port| !active.names.contains(&port.0) || to.ports.contains(port))
        };
        a.namespace == b.namespace && keeps(&a, &other.active, &b) && keeps(&b, &self.active, &a)
    }

    /// The blocks of both: a domain name has the addresses of both.
    fn joined_blocks(&self, other: &PolicyState) -> BTreeMap<Fingerprint, Block> {
        let mut blocks = self.blocks.clone();
        for (&print, block) in &other.blocks {
            let known = blocks.entry(print).or_insert_with(|| block.clone());
            known.cidrs.extend(&block.cidrs);
        }
        blocks
    }

    /// Domain names that rules in force ask for.
    pub fn domains(&self) -> impl Iterator<Item = &DomainPattern> {
        self.blocks
            .values()
            .filter_map(|block| block.domain.as_ref())
    }

    /// Everything of both.
    pub(super) fn joined(&self, other: &PolicyState) -> PolicyState {
        fn join<K: Ord + Copy, T: Clone>(a: &BTreeMap<K, T>, b: &BTreeMap<K, T>) -> BTreeMap<K, T> {
            a.iter()
                .chain(b)
                .map(|(&key, value)| (key, value.clone()))
                .collect()
        }
        PolicyState {
            rulesets: join(&self.rulesets, &other.rulesets),
            identities: join(&self.identities, &other.identities),
            sets: join(&self.sets, &other.sets),
            blocks: self.joined_blocks(other),
            pod_ranges: &self.pod_ranges | &other.pod_ranges,
            active: Arc::new(Active {
                selectors: join(&self.active.selectors, &other.active.selectors),
                nodes: join(&self.active.nodes, &other.active.nodes),
                names: &self.active.names | &other.active.names,
            }),
        }
    }
}

/// The rows between all rulesets, identities and sets. Where the row for any peer says it all, there is
/// no other.
pub(super) fn rows(state: &PolicyState) -> BTreeMap<RowKey, RowVal> {
    let peers = Peers::new(state);
    let mut rows = Vec::new();
    for (&ruleset, content) in &state.rulesets {
        let start = rows.len();
        for rule in &content.rules {
            peers.add_rows(ruleset, rule, &mut rows);
        }
        drop_covered(&mut rows, start, content.isolates);
    }
    rows.into_iter().collect()
}

/// Of a ruleset's rows: sorts them, joins those with one key, and drops those that the row for any peer
/// covers.
fn drop_covered(rows: &mut Vec<(RowKey, RowVal)>, start: usize, isolates: bool) {
    let mut own = rows.split_off(start);
    own.sort_unstable_by_key(|&(key, _)| key);
    own.dedup_by(|(key, val), (kept, into)| {
        let same = key == kept;
        if same {
            into.join(val);
        }
        same
    });
    // Rows for any peer come first in the order of keys.
    let any: BTreeMap<u16, RowVal> = own
        .iter()
        .take_while(|(key, _)| key.peer == peer::ANY)
        .map(|(key, val)| (key.class, *val))
        .collect();
    own.retain(|(key, val)| {
        let covers = |any: &RowVal| any.covers(val, isolates);
        key.peer == peer::ANY || !any.get(&key.class).is_some_and(covers)
    });
    rows.extend(own);
}

/// Identities and sets by what rules ask of them.
struct Peers<'a> {
    state: &'a PolicyState,
    by_selector: HashMap<Fingerprint, Vec<u32>>,
    by_port_name: HashMap<&'a PortName, Vec<u32>>,
    by_block: HashMap<Fingerprint, Vec<u32>>,
}

impl<'a> Peers<'a> {
    fn new(state: &'a PolicyState) -> Self {
        let mut peers = Self {
            state,
            by_selector: HashMap::new(),
            by_port_name: HashMap::new(),
            by_block: HashMap::new(),
        };
        for (&number, identity) in &state.identities {
            add_each(
                &mut peers.by_selector,
                identity.matched.iter().copied(),
                number,
            );
            let mut names: Vec<_> = identity.ports.iter().map(|(name, _)| name).collect();
            names.dedup();
            add_each(&mut peers.by_port_name, names.into_iter(), number);
        }
        for (&number, set) in &state.sets {
            add_each(
                &mut peers.by_block,
                set.blocks.iter().copied(),
                number | peer::CIDR,
            );
        }
        peers
    }

    fn add_rows(&self, ruleset: u32, rule: &ClassedRule, rows: &mut Vec<(RowKey, RowVal)>) {
        let key = |peer: u32, class: u16| RowKey {
            ruleset,
            peer,
            class,
            reserved: 0,
        };
        for &peer in &rule.unknown.peers {
            let classes = rule.unknown.classes.iter();
            rows.extend(classes.map(|&class| (key(peer, class), rule.unknown.says)));
        }
        let mut add = |peer: u32, class: u16| rows.push((key(peer, class), rule.says));
        let selected = rule
            .selectors
            .iter()
            .filter_map(|print| self.by_selector.get(print))
            .flatten();
        let blocks = rule
            .blocks
            .iter()
            .filter_map(|print| self.by_block.get(print))
            .flatten();
        let any = rule.any.then_some(&peer::ANY);
        for &peer in selected.clone().chain(blocks).chain(any) {
            rule.classes.iter().for_each(|&class| add(peer, class));
        }
        for (name, classes) in &rule.named {
            let with_name = self
                .by_port_name
                .get(name)
                .filter(|_| rule.any)
                .into_iter()
                .flatten();
            for &peer in selected.clone().chain(with_name) {
                let ports = self
                    .state
                    .identities
                    .get(&peer)
                    .into_iter()
                    .flat_map(|identity| &identity.ports);
                let own = ports
                    .filter(|(own, _)| own == name)
                    .filter_map(|(_, port)| classes.get(port));
                own.for_each(|&class| add(peer, class));
            }
        }
    }
}

fn add_each<K: Eq + Hash>(
    map: &mut HashMap<K, Vec<u32>>,
    keys: impl Iterator<Item = K>,
    number: u32,
) {
    keys.for_each(|key| map.entry(key).or_default().push(number));
}
