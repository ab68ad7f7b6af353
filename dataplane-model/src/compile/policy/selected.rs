//! Which policies concern which pods of this node.

use std::collections::BTreeSet;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::state::PortName;
use crate::snapshot::{
    ClusterPolicy, ClusterPolicyKey, Direction, NetworkPolicy, ObjectKey, Peer, Peers, PolicyMode,
    PortRange, Ports, Rule, RuleAction, Snapshot, Text, Tier,
};

/// A policy, whatever its tier.
#[derive(Clone, Debug)]
pub(super) enum Policy {
    /// Of the tier Admin or Baseline.
    Cluster(Arc<ClusterPolicy>),
    /// Between them.
    Namespaced(Arc<NetworkPolicy>),
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
    pub(super) policy: &'a Policy,
    /// Its place in the policy's list, from 0 on.
    pub(super) index: usize,
    /// Its own name; empty for none.
    pub(super) name: &'a str,
    pub(super) action: RuleAction,
    pub(super) rule: &'a Rule,
}

/// Equal is what is the same object as it was read once: what changed is another.
impl PartialEq for Policy {
    fn eq(&self, other: &Self) -> bool {
        self.address() == other.address()
    }
}

impl Eq for Policy {}

impl Hash for Policy {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.address().hash(state);
    }
}

impl Policy {
    fn address(&self) -> usize {
        match self {
            Self::Cluster(policy) => Arc::as_ptr(policy).addr(),
            Self::Namespaced(policy) => Arc::as_ptr(policy).addr(),
        }
    }

    pub(super) fn key(&self) -> PolicyKey<'_> {
        match self {
            Self::Cluster(policy) => PolicyKey::Cluster(&policy.key),
            Self::Namespaced(policy) => PolicyKey::Namespaced(&policy.key),
        }
    }

    /// The namespace that it belongs to.
    pub(super) fn namespace(&self) -> Option<&Text> {
        match self {
            Self::Cluster(_) => None,
            Self::Namespaced(policy) => Some(&policy.key.namespace),
        }
    }

    fn is_audited(&self, snapshot: &Snapshot) -> bool {
        match self {
            Self::Cluster(policy) => policy.mode == PolicyMode::Audit,
            Self::Namespaced(policy) => snapshot.is_audited(policy),
        }
    }

    /// The tier, but for NetworkPolicies.
    pub(super) fn tier(&self) -> Option<Tier> {
        match self {
            Self::Cluster(policy) => Some(policy.tier),
            Self::Namespaced(_) => None,
        }
    }

    /// Its rules, in their order. Those of NetworkPolicies accept.
    pub(super) fn rules(&self, direction: Direction) -> Vec<RuleOf<'_>> {
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
                let rules =
                    rules.map(|(index, rule)| of(index, &*rule.name, rule.action, &rule.matches));
                rules.collect()
            }
            Self::Namespaced(policy) => {
                let rules = policy.rules(direction).unwrap_or(&[]).iter().enumerate();
                let of = |(index, rule)| of(index, "", RuleAction::Accept, rule);
                rules.map(of).collect()
            }
        }
    }

    fn concerns(&self, direction: Direction) -> bool {
        match self {
            Self::Cluster(policy) => !policy.rules(direction).is_empty(),
            Self::Namespaced(policy) => policy.rules(direction).is_some(),
        }
    }

    /// Its place in its tier.
    fn precedence(&self) -> (i16, PolicyKey<'_>) {
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
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Selecting {
    pub(super) direction: Direction,
    pub(super) policies: Vec<Policy>,
    /// Names of the pod's own ports that their rules have.
    pub(super) own_names: BTreeSet<PortName>,
}

impl Hash for Selecting {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.direction, &self.policies).hash(state);
    }
}

impl Selecting {
    /// Of the policies that select a pod, those that concern a direction; `None` if none does.
    fn new<'a>(
        matching: impl Iterator<Item = &'a Policy> + Clone,
        direction: Direction,
    ) -> Option<Arc<Self>> {
        let of_tier = |tier: Option<Tier>| {
            let of_tier = matching.clone();
            let of_tier = of_tier.filter(|one| one.tier() == tier && one.concerns(direction));
            let mut of_tier: Vec<_> = of_tier.cloned().collect();
            of_tier.sort_unstable_by(|a, b| a.precedence().cmp(&b.precedence()));
            of_tier
        };
        let mut below = of_tier(None);
        if below.is_empty() {
            below = of_tier(Some(Tier::Baseline));
        }
        let mut policies = of_tier(Some(Tier::Admin));
        policies.append(&mut below);
        let own_names = match direction {
            Direction::Ingress => {
                let rules = policies.iter().flat_map(|policy| policy.rules(direction));
                rules.flat_map(|of| names(of.rule)).collect()
            }
            Direction::Egress => BTreeSet::new(),
        };
        (!policies.is_empty()).then(|| {
            Arc::new(Self {
                direction,
                policies,
                own_names,
            })
        })
    }
}

/// Policies that concern a pod, for ingress and egress.
#[derive(Clone, Debug, Default)]
pub(super) struct Concerning {
    /// Those in force.
    pub(super) enforced: [Option<Arc<Selecting>>; 2],
    /// Those that were in force without audit, where there is a difference.
    pub(super) audited: [Option<Arc<Selecting>>; 2],
}

impl Concerning {
    /// Of the policies that select a pod.
    pub(super) fn new(matching: &[Policy], snapshot: &Snapshot) -> Self {
        let in_force = matching
            .iter()
            .filter(|policy| !policy.is_audited(snapshot));
        let differs = |direction| {
            let mut policies = matching.iter();
            policies.any(|policy| policy.is_audited(snapshot) && policy.concerns(direction))
        };
        let audited =
            |direction| differs(direction).then(|| Selecting::new(matching.iter(), direction));
        Self {
            enforced: Direction::ALL.map(|direction| Selecting::new(in_force.clone(), direction)),
            audited: Direction::ALL.map(|direction| audited(direction).flatten()),
        }
    }

    /// All of them.
    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Selecting>> {
        self.enforced.iter().chain(&self.audited).flatten()
    }

    /// All of them.
    pub(super) fn all_mut(&mut self) -> impl Iterator<Item = &mut Arc<Selecting>> {
        let Self { enforced, audited } = self;
        enforced.iter_mut().chain(audited).flatten()
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
