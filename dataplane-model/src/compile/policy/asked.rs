//! What policies in force ask of peers.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::selected::{Policy, RuleOf, Selecting, listed, names};
use super::state::{Active, Block, PeerSelector, PortName, nodes_print, selector_print};
use super::{Fingerprint, cidrs};
use crate::snapshot::{
    ClusterPolicyKey, Direction, DomainPattern, NamespaceScope, Peer, Selector, Snapshot,
};

/// What policies in force ask for, each on its own and together.
#[derive(Clone, Debug, Default)]
pub(super) struct InForce {
    selecting: Vec<Arc<Selecting>>,
    of_policy: HashMap<(Policy, Direction), Arc<Asked>>,
    /// Each once in a direction.
    policies: Vec<(Policy, Direction)>,
    /// What peers are told apart by.
    pub(super) active: Arc<Active>,
    /// Blocks but for domain names.
    blocks: BTreeMap<Fingerprint, Arc<Block>>,
    domains: BTreeMap<Fingerprint, DomainPattern>,
}

/// What a policy asks of peers in a direction.
#[derive(Debug, Default)]
struct Asked {
    selectors: Vec<(Fingerprint, Arc<PeerSelector>)>,
    nodes: Vec<(Fingerprint, Selector)>,
    names: Vec<PortName>,
    blocks: Vec<(Fingerprint, Arc<Block>)>,
    domains: Vec<(Fingerprint, DomainPattern)>,
}

impl Asked {
    fn new(policy: &Policy, direction: Direction) -> Self {
        let mut asked = Self::default();
        for of in policy.rules(direction) {
            listed(of.rule)
                .iter()
                .for_each(|peer| asked.add(policy, peer));
            if direction == Direction::Egress {
                asked.names.extend(names(of.rule));
            }
        }
        asked
    }

    fn add(&mut self, policy: &Policy, peer: &Peer) {
        match peer {
            Peer::Pods { namespaces, pods } => {
                let own = matches!(namespaces, NamespaceScope::Own).then(|| policy.namespace());
                let print = selector_print(policy.namespace(), namespaces, pods);
                let selector = PeerSelector {
                    scope: namespaces.clone(),
                    own: own.flatten().cloned(),
                    pods: pods.clone(),
                };
                self.selectors.push((print, Arc::new(selector)));
            }
            Peer::Nodes(nodes) => self.nodes.push((nodes_print(nodes), nodes.clone())),
            Peer::Block { cidr, except } => {
                let block = Block {
                    cidrs: BTreeSet::from([cidr.trunc()]),
                    except: except.clone(),
                    domain: None,
                };
                let print = cidrs::block_print(cidr, except);
                self.blocks.push((print, Arc::new(block)));
            }
            Peer::Domain(pattern) => {
                let print = cidrs::domain_print(pattern);
                self.domains.push((print, pattern.clone()));
            }
        }
    }
}

impl InForce {
    /// Takes in the policies that concern pods now.
    pub(super) fn see<'a>(&mut self, concerning: impl Iterator<Item = &'a Arc<Selecting>>) {
        let mut selecting: Vec<_> = concerning.collect();
        selecting.sort_unstable_by_key(|one| Arc::as_ptr(one));
        selecting.dedup_by_key(|one| Arc::as_ptr(one));
        let both = selecting.iter().zip(&self.selecting);
        if selecting.len() == self.selecting.len()
            && both.into_iter().all(|(a, b)| Arc::ptr_eq(a, b))
        {
            return;
        }
        self.selecting = selecting.into_iter().cloned().collect();
        let mut of_policy = HashMap::new();
        self.policies.clear();
        for one in &self.selecting {
            for policy in &one.policies {
                let key = (policy.clone(), one.direction);
                if of_policy.contains_key(&key) {
                    continue;
                }
                let known = self.of_policy.remove(&key);
                let asked = known.unwrap_or_else(|| Arc::new(Asked::new(policy, one.direction)));
                of_policy.insert(key.clone(), asked);
                self.policies.push(key);
            }
        }
        self.of_policy = of_policy;
        self.join();
    }

    fn join(&mut self) {
        let all = || self.policies.iter().map(|key| &self.of_policy[key]);
        let active = Active {
            selectors: all()
                .flat_map(|asked| asked.selectors.iter().cloned())
                .collect(),
            nodes: all()
                .flat_map(|asked| asked.nodes.iter().cloned())
                .collect(),
            names: all()
                .flat_map(|asked| asked.names.iter().cloned())
                .collect(),
        };
        self.blocks = all()
            .flat_map(|asked| asked.blocks.iter().cloned())
            .collect();
        self.domains = all()
            .flat_map(|asked| asked.domains.iter().cloned())
            .collect();
        if *self.active != active {
            self.active = Arc::new(active);
        }
    }

    /// Rules in force, with the direction they belong to.
    pub(super) fn rules(&self) -> impl Iterator<Item = (Direction, RuleOf<'_>)> {
        self.policies.iter().flat_map(|(policy, direction)| {
            let rules = policy.rules(*direction).into_iter();
            rules.map(move |rule| (*direction, rule))
        })
    }

    /// Blocks of addresses in force, and the addresses of domain names.
    pub(super) fn blocks(&self, snapshot: &Snapshot) -> BTreeMap<Fingerprint, Arc<Block>> {
        let mut blocks = self.blocks.clone();
        for (&print, pattern) in &self.domains {
            let domains = snapshot.domains.iter();
            let named = domains.filter(|(name, _)| pattern.matches(name));
            let ips = named.flat_map(|(_, ips)| ips);
            let block = Block {
                cidrs: ips.map(|&ip| ip.into()).collect(),
                except: Vec::new(),
                domain: Some(pattern.clone()),
            };
            blocks.insert(print, Arc::new(block));
        }
        blocks
    }
}

/// Policies of the tiers that leave it undefined which of them comes first.
pub(super) fn ties<'a>(
    enforced: impl Iterator<Item = &'a Arc<Selecting>>,
) -> BTreeMap<&'a ClusterPolicyKey, &'a ClusterPolicyKey> {
    let mut ties = BTreeMap::new();
    let mut seen = HashSet::new();
    for one in enforced.filter(|one| seen.insert(Arc::as_ptr(one))) {
        for pair in one.policies.windows(2) {
            let [Policy::Cluster(first), Policy::Cluster(second)] = pair else {
                continue;
            };
            if (first.tier, first.priority) == (second.tier, second.priority) {
                ties.insert(&second.key, &first.key);
            }
        }
    }
    ties
}
