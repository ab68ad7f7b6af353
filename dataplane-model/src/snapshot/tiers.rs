//! Policies of the tiers Admin and Baseline (policy.networking.k8s.io).
//!
//! As in NetworkPolicies, an empty list selects nothing. What could not be read is closed by whoever
//! reads it: a rule that accepts loses what is unknown, one that denies or passes denies everyone.

use std::fmt;

use super::{Direction, PolicyMode, Rule, Selector, Text};

/// A ClusterNetworkPolicy, or what an AdminNetworkPolicy or a BaselineAdminNetworkPolicy says as one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClusterPolicy {
    /// Kind and name.
    pub key: ClusterPolicyKey,
    /// Its mode.
    pub mode: PolicyMode,
    /// Its tier.
    pub tier: Tier,
    /// Its place in the tier, the smallest first: from 0 to 1000, [`Self::FIRST`] or [`Self::LAST`].
    pub priority: i16,
    /// Namespaces of its subjects.
    pub namespaces: Selector,
    /// Its subjects among their pods.
    pub pods: Selector,
    /// Rules for what they receive, in their order.
    pub ingress: Vec<TierRule>,
    /// Rules for what they send, in their order.
    pub egress: Vec<TierRule>,
}

/// Which policy of a tier. Of policies with one priority, the smallest key comes first.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ClusterPolicyKey {
    /// Its kind.
    pub kind: ClusterPolicyKind,
    /// Its name.
    pub name: Text,
}

/// Kinds of policies that belong to no namespace.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum ClusterPolicyKind {
    /// ClusterNetworkPolicy.
    Cluster,
    /// AdminNetworkPolicy.
    Admin,
    /// BaselineAdminNetworkPolicy.
    Baseline,
}

/// A tier of policies, in the order in which they are asked. NetworkPolicies stand between the two.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Tier {
    /// Before NetworkPolicies.
    Admin,
    /// Where no NetworkPolicy isolates the pod in the direction.
    Baseline,
}

/// A rule of a tier.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct TierRule {
    /// Its name; empty for none.
    pub name: Text,
    /// What it does with what it matches.
    pub action: RuleAction,
    /// What it matches.
    pub matches: Rule,
}

/// What a rule does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum RuleAction {
    /// The packet may pass; nothing else is asked.
    Accept,
    /// The packet is dropped; nothing else is asked.
    Deny,
    /// The rest of the tier is not asked.
    Pass,
}

impl ClusterPolicy {
    /// The priority of what comes before all others of its tier.
    pub const FIRST: i16 = -1;
    /// The priority of what comes after all others of its tier.
    pub const LAST: i16 = 1001;

    /// Its kind and name, its tier and its priority, for people.
    pub fn title(&self) -> String {
        let priority = match self.priority {
            Self::FIRST => "first".to_owned(),
            Self::LAST => "last".to_owned(),
            number => number.to_string(),
        };
        format!("{} ({} {priority})", self.key, self.tier.name())
    }

    /// Rules of a direction.
    pub fn rules(&self, direction: Direction) -> &[TierRule] {
        match direction {
            Direction::Ingress => &self.ingress,
            Direction::Egress => &self.egress,
        }
    }
}

impl ClusterPolicyKey {
    /// From its two parts.
    pub fn new(kind: ClusterPolicyKind, name: impl Into<Text>) -> Self {
        Self {
            kind,
            name: name.into(),
        }
    }
}

impl fmt::Display for ClusterPolicyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.name(), self.name)
    }
}

impl ClusterPolicyKind {
    /// The kind's name in the API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cluster => "ClusterNetworkPolicy",
            Self::Admin => "AdminNetworkPolicy",
            Self::Baseline => "BaselineAdminNetworkPolicy",
        }
    }
}

impl Tier {
    /// The tier's name in the API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Admin => "Admin",
            Self::Baseline => "Baseline",
        }
    }
}

impl RuleAction {
    /// The action's name in the API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Accept => "Accept",
            Self::Deny => "Deny",
            Self::Pass => "Pass",
        }
    }
}
