//! Which policies concern which pods of this node.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use super::selectors::SelectorIndex;
use super::state::{Active, Block, PortName};
use super::{Fingerprint, Pods, cidrs};
use crate::snapshot::{
    ClusterPolicy, ClusterPolicyKey, Direction, Labels, NetworkPolicy, ObjectKey, Peer, Peers, Pod,
    PolicyMode, PortRange, Ports, Rule, RuleAction, Snapshot, Text, Tier,
};

/// A policy, whatever its tier.
#[derive(Clone, Copy)]
pub(super) enum Policy<'a> {
    /// Of the tier Admin or Baseline.
    Cluster(&'a ClusterPolicy),
    /// Between them.
    Namespaced(&'a NetworkPolicy),
}

/// Which policy.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum PolicyKey<'a> {
    Cluster(&'a ClusterPolicyKey),
    Namespaced(&'a ObjectKey),
}

/// A rule of a policy.
#[derive(Clone, Copy)]
pub(super) struct RuleOf<'a> {
    pub(super) policy: Policy<'a>,
    /// Its place in the policy's list, from 0 on.
    pub(super) index: usize,
    /// Its own name; empty for none.
    pub(super) name: &'a str,
    pub(super) action: RuleAction,
    pub(super) rule: &'a Rule,
}

impl<'a> Policy<'a> {
    pub(super) fn key(self) -> PolicyKey<'a> {
        match self {
            Self::Cluster(policy) => PolicyKey::Cluster(&policy.key),
            Self::Namespaced(policy) => PolicyKey::Namespaced(&policy.key),
        }
    }

    /// The namespace that it belongs to.
    pub(super) fn namespace(self) -> Option<&'a Text> {
        match self {
            Self::Cluster(_) => None,
            Self::Namespaced(policy) => Some(&policy.key.namespace),
        }
    }

    fn is_audited(self, snapshot: &Snapshot) -> bool {
        match self {
            Self::Cluster(policy) => policy.mode == PolicyMode::Audit,
            Self::Namespaced(policy) => snapshot.is_audited(policy),
        }
    }

    /// The tier, but for NetworkPolicies.
    pub(super) fn tier(self) -> Option<Tier> {
        match self {
            Self::Cluster(policy) => Some(policy.tier),
            Self::Namespaced(_) => None,
        }
    }

    /// Its rules, in their order. Those of NetworkPolicies accept.
    pub(super) fn rules(self, direction: Direction) -> Vec<RuleOf<'a>> {
        let of = |index, name, action, rule| RuleOf {
            policy: self,
            index,
            name,
            action,
            rule,
        };
        match self {
            Self::Cluster(policy) => {
                let rules = policy.rules(direction).iter().enumerate();
                let of = |(index, rule): (usize, &'a crate::snapshot::TierRule)| {
                    of(index, &*rule.name, rule.action, &rule.matches)
                };
                rules.map(of).collect()
            }
            Self::Namespaced(policy) => {
                let rules = policy.rules(direction).unwrap_or(&[]).iter().enumerate();
                let of = |(index, rule)| of(index, "", RuleAction::Accept, rule);
                rules.map(of).collect()
            }
        }
    }

    fn concerns(self, direction: Direction) -> bool {
        match self {
            Self::Cluster(policy) => !policy.rules(direction).is_empty(),
            Self::Namespaced(policy) => policy.rules(direction).is_some(),
        }
    }

    /// Its place in its tier.
    fn precedence(self) -> (i16, PolicyKey<'a>) {
        match self {
            Self::Cluster(policy) => (policy.priority, self.key()),
            Self::Namespaced(_) => (0, self.key()),
        }
    }
}

impl RuleOf<'_> {
    /// True if whoever may be a pod must be denied, since the rule may be about that pod: by its labels,
    /// or by the name of a port.
    pub(super) fn denies_pods(&self, direction: Direction) -> bool {
        let is_pods = |peer: &Peer| matches!(peer, Peer::Pods { .. });
        let by_name = direction == Direction::Egress
            && self.rule.peers == Peers::Any
            && names(self.rule).next().is_some();
        self.action != RuleAction::Accept && (by_name || listed(self.rule).iter().any(is_pods))
    }

    /// True if it has domain names.
    pub(super) fn has_domains(&self) -> bool {
        let domain = |peer: &Peer| matches!(peer, Peer::Domain(_));
        listed(self.rule).iter().any(domain)
    }

    /// The same for nodes.
    pub(super) fn denies_nodes(&self) -> bool {
        let nodes = |peer: &Peer| matches!(peer, Peer::Nodes(_));
        self.action != RuleAction::Accept && listed(self.rule).iter().any(nodes)
    }
}

impl fmt::Display for PolicyKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cluster(key) => key.fmt(f),
            Self::Namespaced(key) => key.fmt(f),
        }
    }
}

/// Policies that concern a direction of a pod, in the order in which they are asked: Admin, then
/// NetworkPolicies, or Baseline if there are none.
pub(super) type Selecting<'a> = Vec<Policy<'a>>;

/// Policies that concern a pod, for ingress and egress.
#[derive(Clone)]
pub(super) struct Concerning<'a> {
    /// Those in force.
    pub(super) enforced: [Selecting<'a>; 2],
    /// Those that were in force without audit; empty where there is no difference.
    pub(super) audited: [Selecting<'a>; 2],
}

impl<'a> Concerning<'a> {
    fn of(matching: &[Policy<'a>], snapshot: &Snapshot) -> Self {
        let in_force = matching.iter().copied();
        let in_force: Vec<_> = in_force
            .filter(|policy| !policy.is_audited(snapshot))
            .collect();
        let differs = |direction| {
            let mut policies = matching.iter();
            policies.any(|policy| policy.is_audited(snapshot) && policy.concerns(direction))
        };
        Self {
            enforced: Direction::ALL.map(|direction| in_order(&in_force, direction)),
            audited: Direction::ALL.map(|direction| match differs(direction) {
                true => in_order(matching, direction),
                false => Vec::new(),
            }),
        }
    }

    /// All of them, with their directions.
    fn all(&self) -> impl Iterator<Item = (Direction, Policy<'a>)> {
        [&self.enforced, &self.audited]
            .into_iter()
            .flat_map(|both| Direction::ALL.into_iter().zip(both))
            .flat_map(|(direction, policies)| policies.iter().map(move |one| (direction, *one)))
    }
}

/// Pods of this node with the policies that concern them.
pub(super) struct Selected<'a> {
    pub(super) pods: Vec<(&'a Pod, Concerning<'a>)>,
    used: BTreeMap<(PolicyKey<'a>, Direction), Policy<'a>>,
}

impl<'a> Selected<'a> {
    pub(super) fn new(pods: &Pods<'a>, snapshot: &'a Snapshot) -> Self {
        let mut index = PolicyIndex::new(snapshot);
        let mut selected = Self {
            pods: Vec::new(),
            used: BTreeMap::new(),
        };
        let mut known: HashMap<(&Text, &Labels), Concerning<'a>> = HashMap::new();
        for &pod in &pods.local {
            let policies = known
                .entry((&pod.key.namespace, &pod.labels))
                .or_insert_with(|| {
                    let matching = index.of(&pod.key.namespace).matching(&pod.labels);
                    Concerning::of(&matching, snapshot)
                });
            let used = policies.all();
            let used = used.map(|(direction, policy)| ((policy.key(), direction), policy));
            selected.used.extend(used);
            selected.pods.push((pod, policies.clone()));
        }
        selected
    }

    /// Rules in force, with the direction they belong to.
    pub(super) fn rules(&self) -> impl Iterator<Item = (Direction, RuleOf<'a>)> {
        self.used.iter().flat_map(|(&(_, direction), policy)| {
            let rules = policy.rules(direction).into_iter();
            rules.map(move |rule| (direction, rule))
        })
    }

    /// Selectors and names of ports that peers are told apart by.
    pub(super) fn active(&self) -> Active {
        let mut active = Active::default();
        for (direction, of) in self.rules() {
            for peer in listed(of.rule) {
                match peer {
                    Peer::Pods { namespaces, pods } => {
                        active.insert(of.policy.namespace(), namespaces, pods);
                    }
                    Peer::Nodes(nodes) => active.insert_nodes(nodes),
                    Peer::Block { .. } | Peer::Domain(_) => {}
                }
            }
            if direction == Direction::Egress {
                active.names.extend(names(of.rule));
            }
        }
        active
    }

    /// Blocks of addresses in force, and the addresses of domain names.
    pub(super) fn blocks(&self, snapshot: &Snapshot) -> BTreeMap<Fingerprint, Block> {
        let mut blocks = BTreeMap::new();
        for peer in self.rules().flat_map(|(_, of)| listed(of.rule)) {
            match peer {
                Peer::Block { cidr, except } => {
                    let block = Block {
                        cidrs: BTreeSet::from([cidr.trunc()]),
                        except: except.clone(),
                        domain: None,
                    };
                    blocks.insert(cidrs::block_print(cidr, except), block);
                }
                Peer::Domain(pattern) => {
                    let domains = snapshot.domains.iter();
                    let named = domains.filter(|(name, _)| pattern.matches(name));
                    let block = || Block {
                        cidrs: named
                            .flat_map(|(_, ips)| ips)
                            .map(|&ip| ip.into())
                            .collect(),
                        except: Vec::new(),
                        domain: Some(pattern.clone()),
                    };
                    let print = cidrs::domain_print(pattern);
                    blocks.entry(print).or_insert_with(block);
                }
                Peer::Pods { .. } | Peer::Nodes(_) => {}
            }
        }
        blocks
    }

    /// Policies of the tiers that leave it undefined which of them comes first.
    pub(super) fn ties(&self) -> BTreeMap<&'a ClusterPolicyKey, &'a ClusterPolicyKey> {
        let mut ties = BTreeMap::new();
        for policies in self
            .pods
            .iter()
            .flat_map(|(_, policies)| &policies.enforced)
        {
            for pair in policies.windows(2) {
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
}

/// Of the policies that select a pod, those that concern a direction.
fn in_order<'a>(matching: &[Policy<'a>], direction: Direction) -> Selecting<'a> {
    let of_tier = |tier: Option<Tier>| {
        let of_tier = matching.iter().copied();
        let of_tier = of_tier.filter(|one| one.tier() == tier && one.concerns(direction));
        let mut of_tier: Vec<_> = of_tier.collect();
        of_tier.sort_unstable_by_key(|policy| policy.precedence());
        of_tier
    };
    let mut below = of_tier(None);
    if below.is_empty() {
        below = of_tier(Some(Tier::Baseline));
    }
    let mut all = of_tier(Some(Tier::Admin));
    all.append(&mut below);
    all
}

/// Policies by the labels of the pods that they select.
struct PolicyIndex<'a> {
    snapshot: &'a Snapshot,
    namespaced: HashMap<&'a Text, Vec<&'a NetworkPolicy>>,
    by_namespace: HashMap<&'a Text, SelectorIndex<'a, Policy<'a>>>,
}

impl<'a> PolicyIndex<'a> {
    fn new(snapshot: &'a Snapshot) -> Self {
        let mut namespaced: HashMap<_, Vec<_>> = HashMap::new();
        for policy in snapshot.policies.values() {
            let of_namespace = namespaced.entry(&policy.key.namespace).or_default();
            of_namespace.push(policy);
        }
        Self {
            snapshot,
            namespaced,
            by_namespace: HashMap::new(),
        }
    }

    fn of(&mut self, namespace: &'a Text) -> &SelectorIndex<'a, Policy<'a>> {
        let (snapshot, namespaced) = (self.snapshot, &self.namespaced);
        self.by_namespace.entry(namespace).or_insert_with(|| {
            let mut index = SelectorIndex::default();
            for &policy in namespaced.get(namespace).into_iter().flatten() {
                index.insert(&policy.pods, Policy::Namespaced(policy));
            }
            let labels = snapshot.namespace_labels(namespace);
            let cluster = snapshot.cluster_policies.values();
            for policy in cluster.filter(|policy| policy.namespaces.matches(&labels)) {
                index.insert(&policy.pods, Policy::Cluster(policy));
            }
            index
        })
    }
}

/// Peers that a rule lists.
pub(super) fn listed(rule: &Rule) -> &[Peer] {
    match &rule.peers {
        Peers::Any => &[],
        Peers::Only(peers) => peers,
    }
}

/// Names of ports in a rule.
pub(super) fn names(rule: &Rule) -> impl Iterator<Item = PortName> {
    let ports = match &rule.ports {
        Ports::Any => &[] as &[_],
        Ports::Only(ports) => ports,
    };
    ports.iter().filter_map(|port| match &port.range {
        PortRange::Named(name) => Some((port.protocol, name.clone())),
        PortRange::All | PortRange::Numbers(..) => None,
    })
}
