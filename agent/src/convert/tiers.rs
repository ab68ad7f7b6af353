//! ClusterNetworkPolicies, AdminNetworkPolicies and BaselineAdminNetworkPolicies.
//!
//! A rule that cannot be understood in full is closed, as the API asks for: one that accepts matches
//! nothing, any other denies everyone. The other rules of the policy hold.

use std::collections::BTreeMap;

use dataplane_model::snapshot::{
    ClusterPolicy, ClusterPolicyKey, ClusterPolicyKind, Direction, Peers, Ports, Rule, RuleAction,
    Selector, Tier, TierRule,
};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::fields::{self, Fault, Note};
use super::peers;
use crate::source::ObjectKey;
use crate::source::schema::{LabelSelector, LabelSelectorRequirement};
use crate::source::tiers::TierPolicy;

/// The highest priority number.
const LAST_PRIORITY: i64 = 1000;

/// A policy of a tier.
///
/// # Errors
///
/// Its tier, priority or subject cannot be understood.
pub fn policy(
    kind: ClusterPolicyKind,
    key: &ObjectKey,
    policy: &TierPolicy,
    notes: &mut Vec<Note>,
) -> Result<ClusterPolicy, Fault> {
    let spec = &policy.spec;
    let (namespaces, pods) = subject(&spec.subject)?;
    let mut rules = |direction: Direction, list: &[Value]| {
        let rules = list.iter().enumerate();
        let rules = rules.map(|(index, value)| {
            let field = format!("spec.{}[{index}]", direction.name());
            rule(kind, direction, &field, value, notes)
        });
        rules.collect()
    };
    Ok(ClusterPolicy {
        key: ClusterPolicyKey::new(kind, key.name.as_str()),
        tier: tier(kind, spec.tier.as_deref())?,
        priority: priority(kind, spec.priority)?,
        namespaces,
        pods,
        ingress: rules(Direction::Ingress, &spec.ingress),
        egress: rules(Direction::Egress, &spec.egress),
    })
}

fn tier(kind: ClusterPolicyKind, given: Option<&str>) -> Result<Tier, Fault> {
    match (kind, given) {
        (ClusterPolicyKind::Admin, _) | (ClusterPolicyKind::Cluster, Some("Admin")) => {
            Ok(Tier::Admin)
        }
        (ClusterPolicyKind::Baseline, _) | (ClusterPolicyKind::Cluster, Some("Baseline")) => {
            Ok(Tier::Baseline)
        }
        (ClusterPolicyKind::Cluster, other) => Err(Fault::new(
            "spec.tier",
            format!(
                "{:?} is not a tier: write Admin or Baseline",
                other.unwrap_or_default()
            ),
        )),
    }
}

fn priority(kind: ClusterPolicyKind, given: Option<i64>) -> Result<u16, Fault> {
    if kind == ClusterPolicyKind::Baseline {
        return Ok(ClusterPolicy::LAST);
    }
    let number = given.filter(|number| (0..=LAST_PRIORITY).contains(number));
    let number = number.and_then(|number| u16::try_from(number).ok());
    number.ok_or_else(|| {
        Fault::new(
            "spec.priority",
            format!("give one from 0, asked first, to {LAST_PRIORITY}"),
        )
    })
}

/// Namespaces, and pods in them.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Pods {
    namespace_selector: ExactSelector,
    pod_selector: ExactSelector,
}

impl Pods {
    /// The selectors of namespaces and pods.
    pub(super) fn selectors(&self, field: &str) -> Result<(Selector, Selector), Fault> {
        Ok((
            self.namespace_selector
                .selector(&format!("{field}.namespaceSelector"))?,
            self.pod_selector
                .selector(&format!("{field}.podSelector"))?,
        ))
    }
}

/// A label selector without fields that nobody knows: without them it might select more.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct ExactSelector {
    match_labels: Option<BTreeMap<String, String>>,
    match_expressions: Option<Vec<ExactRequirement>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExactRequirement {
    key: String,
    operator: String,
    values: Option<Vec<String>>,
}

impl ExactSelector {
    /// The model's selector.
    pub(super) fn selector(&self, field: &str) -> Result<Selector, Fault> {
        let expressions = self.match_expressions.iter().flatten();
        let selector = LabelSelector {
            match_labels: self.match_labels.clone().unwrap_or_default(),
            match_expressions: expressions
                .map(|one| LabelSelectorRequirement {
                    key: one.key.clone(),
                    operator: one.operator.clone(),
                    values: one.values.clone().unwrap_or_default(),
                })
                .collect(),
        };
        fields::selector(field, &selector)
    }
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Subject {
    namespaces: Option<ExactSelector>,
    pods: Option<Pods>,
}

fn subject(value: &Value) -> Result<(Selector, Selector), Fault> {
    let field = "spec.subject";
    let Subject { namespaces, pods } = read(field, value)?;
    match (namespaces, pods) {
        (Some(selector), None) => {
            let namespaces = selector.selector(&format!("{field}.namespaces"))?;
            Ok((namespaces, Selector::everything()))
        }
        (None, Some(pods)) => pods.selectors(&format!("{field}.pods")),
        (Some(_), Some(_)) | (None, None) => Err(Fault::new(
            field,
            "write either namespaces or pods; namespaces: {} are all pods",
        )),
    }
}

/// A rule as it is written. `to` and `from` exclude each other, and so do `protocols` and `ports`.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct RawRule {
    name: String,
    action: String,
    from: Option<Vec<Value>>,
    to: Option<Vec<Value>>,
    protocols: Option<Vec<Value>>,
    ports: Option<Vec<Value>>,
}

/// What of a rule is told even if the rest cannot be understood.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Head {
    name: String,
    action: String,
}

fn rule(
    kind: ClusterPolicyKind,
    direction: Direction,
    field: &str,
    value: &Value,
    notes: &mut Vec<Note>,
) -> TierRule {
    let head = Head::deserialize(value).unwrap_or_default();
    // What an unknown action would do is unknown too: it may be to deny.
    let action = action(kind, field, &head.action);
    let closed_action = action
        .as_ref()
        .map_or(RuleAction::Deny, |action| match action {
            RuleAction::Accept => RuleAction::Accept,
            RuleAction::Deny | RuleAction::Pass => RuleAction::Deny,
        });
    let read = action.and_then(|action| {
        let raw: RawRule = read(field, value)?;
        let matches = matches(kind, direction, action, field, &raw, notes)?;
        Ok((action, matches))
    });
    let (action, matches) = read.unwrap_or_else(|fault| {
        let effect = match closed_action {
            RuleAction::Accept => "the rule accepts nothing",
            RuleAction::Deny | RuleAction::Pass => "the rule denies everyone",
        };
        notes.push(Note::new(fault.field, fault.message, effect));
        (closed_action, closed(closed_action))
    });
    TierRule {
        name: head.name.into(),
        action,
        matches,
    }
}

fn action(kind: ClusterPolicyKind, field: &str, given: &str) -> Result<RuleAction, Fault> {
    let known: &[(&str, RuleAction)] = match kind {
        ClusterPolicyKind::Cluster => &[
            ("Accept", RuleAction::Accept),
            ("Deny", RuleAction::Deny),
            ("Pass", RuleAction::Pass),
        ],
        ClusterPolicyKind::Admin => &[
            ("Allow", RuleAction::Accept),
            ("Deny", RuleAction::Deny),
            ("Pass", RuleAction::Pass),
        ],
        ClusterPolicyKind::Baseline => &[("Allow", RuleAction::Accept), ("Deny", RuleAction::Deny)],
    };
    let found = known.iter().find(|(name, _)| *name == given);
    found.map(|&(_, action)| action).ok_or_else(|| {
        let names: Vec<_> = known.iter().map(|(name, _)| *name).collect();
        Fault::new(
            format!("{field}.action"),
            format!("{given:?} is not an action: write {}", names.join(" or ")),
        )
    })
}

/// What stands for what a rule matches that cannot be understood.
fn closed(action: RuleAction) -> Rule {
    let peers = match action {
        RuleAction::Accept => Peers::Only(Vec::new()),
        RuleAction::Deny | RuleAction::Pass => Peers::Any,
    };
    Rule {
        peers,
        ports: Ports::Any,
    }
}

fn matches(
    kind: ClusterPolicyKind,
    direction: Direction,
    action: RuleAction,
    field: &str,
    raw: &RawRule,
    notes: &mut Vec<Note>,
) -> Result<Rule, Fault> {
    let (side, listed, other) = match direction {
        Direction::Ingress => ("from", &raw.from, &raw.to),
        Direction::Egress => ("to", &raw.to, &raw.from),
    };
    let listed = listed.as_deref().unwrap_or_default();
    if listed.is_empty() || other.is_some() {
        return Err(Fault::new(
            format!("{field}.{side}"),
            "give at least one peer here, and none of the other direction",
        ));
    }
    let mut peers = Vec::new();
    for (index, value) in listed.iter().enumerate() {
        let field = format!("{field}.{side}[{index}]");
        peers.extend(peers::peers(direction, action, &field, value, notes)?);
    }
    let (name, ports, other) = match kind {
        ClusterPolicyKind::Cluster => ("protocols", &raw.protocols, &raw.ports),
        ClusterPolicyKind::Admin | ClusterPolicyKind::Baseline => {
            ("ports", &raw.ports, &raw.protocols)
        }
    };
    if other.is_some() {
        return Err(Fault::new(field, format!("this kind has {name} instead")));
    }
    let field = format!("{field}.{name}");
    let ports = match ports {
        None => Ports::Any,
        Some(list) if list.is_empty() => {
            return Err(Fault::new(field, "empty: leave it out for all of them"));
        }
        Some(list) => {
            let mut matched = Vec::new();
            for (index, value) in list.iter().enumerate() {
                let field = format!("{field}[{index}]");
                matched.extend(match kind {
                    ClusterPolicyKind::Cluster => peers::protocol(&field, value)?,
                    ClusterPolicyKind::Admin | ClusterPolicyKind::Baseline => {
                        peers::port(&field, value)?
                    }
                });
            }
            Ports::Only(matched)
        }
    };
    Ok(Rule {
        peers: Peers::Only(peers),
        ports,
    })
}

/// Reads a part that must have no field that is not known.
pub(super) fn read<T: DeserializeOwned>(field: &str, value: &Value) -> Result<T, Fault> {
    T::deserialize(value)
        .map_err(|error| Fault::new(field, format!("cannot be understood: {error}")))
}
