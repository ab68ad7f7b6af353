//! What numbers of rulesets, identities and sets mean.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use dataplane_common::abi::{RowVal, peer};

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
    pub(super) blocks: BTreeMap<Fingerprint, Arc<Block>>,
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
    pub(super) selectors: BTreeMap<Fingerprint, Arc<PeerSelector>>,
    /// Selectors of nodes.
    pub(super) nodes: BTreeMap<Fingerprint, Selector>,
    /// Names of ports in egress rules.
    pub(super) names: BTreeSet<PortName>,
}

/// A selector of pods in the peers of a policy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct PeerSelector {
    /// Of which namespaces.
    pub(super) scope: NamespaceScope,
    /// The policy's namespace, if `scope` is that.
    pub(super) own: Option<Text>,
    /// Of which labels.
    pub(super) pods: Selector,
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
    /// What this has and another has not.
    pub(super) fn without(&self, other: &Self) -> Self {
        fn rest<V: Clone>(
            a: &BTreeMap<Fingerprint, V>,
            b: &BTreeMap<Fingerprint, V>,
        ) -> BTreeMap<Fingerprint, V> {
            let rest = a.iter().filter(|(print, _)| !b.contains_key(print));
            rest.map(|(&print, value)| (print, value.clone())).collect()
        }
        Self {
            selectors: rest(&self.selectors, &other.selectors),
            nodes: rest(&self.nodes, &other.nodes),
            names: &self.names - &other.names,
        }
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
    fn joined_blocks(&self, other: &PolicyState) -> BTreeMap<Fingerprint, Arc<Block>> {
        let mut blocks = self.blocks.clone();
        for (&print, block) in &other.blocks {
            let known = blocks.entry(print).or_insert_with(|| block.clone());
            if known.cidrs != block.cidrs {
                Arc::make_mut(known).cidrs.extend(&block.cidrs);
            }
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
            let mut all = a.clone();
            all.append(&mut b.clone());
            all
        }
        PolicyState {
            rulesets: join(&self.rulesets, &other.rulesets),
            identities: join(&self.identities, &other.identities),
            sets: join(&self.sets, &other.sets),
            blocks: self.joined_blocks(other),
            pod_ranges: &self.pod_ranges | &other.pod_ranges,
            active: if self.active == other.active {
                self.active.clone()
            } else {
                Arc::new(Active {
                    selectors: join(&self.active.selectors, &other.active.selectors),
                    nodes: join(&self.active.nodes, &other.active.nodes),
                    names: &self.active.names | &other.active.names,
                })
            },
        }
    }
}
