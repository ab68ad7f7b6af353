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
use serde_json::{Map, Value};

use super::fields::{self, Fault, Note};
use super::{mode, peers};
use crate::source::ObjectKey;
use crate::source::schema::{LabelSelector, LabelSelectorRequirement};
use crate::source::tiers::TierPolicy;

/// The highest priority number.
const LAST_PRIORITY: i64 = 1000;

/// Fields of a `spec`.
const FIELDS: [&str; 5] = ["tier", "priority", "subject", "ingress", "egress"];

/// A policy, and what of it could not be understood.
pub struct Converted {
    /// The policy. It is closed if there are faults.
    pub policy: ClusterPolicy,
    /// What could not be understood of its tier, priority and subject.
    pub faults: Vec<Fault>,
}

/// A policy of a tier. One whose tier, priority or subject cannot be understood is closed: it is asked
/// as early, and about as many pods, as what can be understood of it lets it be; its rules that accept
/// match nothing, and all others deny.
pub fn policy(
    kind: ClusterPolicyKind,
    key: &ObjectKey,
    policy: &TierPolicy,
    notes: &mut Vec<Note>,
) -> Converted {
    let mut faults = Vec::new();
    let nothing = Map::new();
    let spec = policy.spec.as_object().unwrap_or_else(|| {
        faults.push(Fault::new("spec", "give its subject and its rules here"));
        &nothing
    });
    for unknown in spec.keys().filter(|name| !FIELDS.contains(&name.as_str())) {
        notes.push(Note::new(
            format!("spec.{unknown}"),
            "unknown field: correct its name or delete it",
            "it has no effect",
        ));
    }
    let part = |name: &str| spec.get(name).unwrap_or(&Value::Null);
    let tier = keep(tier(kind, part("tier")), &mut faults).unwrap_or(Tier::Admin);
    let priority = keep(priority(kind, part("priority")), &mut faults);
    let priority = priority.unwrap_or(ClusterPolicy::FIRST);
    let (namespaces, pods) = subject(part("subject"), &mut faults);
    let closed = !faults.is_empty();
    let mode = mode::of(&policy.metadata, notes).unwrap_or_default();
    let mut rules = |direction: Direction| {
        let list = match part(direction.name()) {
            Value::Null if policy.spec.is_object() => &[],
            Value::Array(list) => list.as_slice(),
            _ => {
                let field = format!("spec.{}", direction.name());
                let effect = "everyone is denied in this direction";
                notes.push(Note::new(field, "write a list of rules", effect));
                return vec![deny_everyone()];
            }
        };
        let rules = list.iter().enumerate().map(|(index, value)| {
            let field = format!("spec.{}[{index}]", direction.name());
            let rule = rule(kind, direction, &field, value, notes);
            if closed { closed_rule(rule) } else { rule }
        });
        rules.collect()
    };
    let policy = ClusterPolicy {
        key: ClusterPolicyKey::new(kind, key.name.as_str()),
        mode,
        tier,
        priority,
        namespaces,
        pods,
        ingress: rules(Direction::Ingress),
        egress: rules(Direction::Egress),
    };
    Converted { policy, faults }
}

fn keep<T>(result: Result<T, Fault>, faults: &mut Vec<Fault>) -> Option<T> {
    result.map_err(|fault| faults.push(fault)).ok()
}

fn tier(kind: ClusterPolicyKind, given: &Value) -> Result<Tier, Fault> {
    match (kind, given.as_str()) {
        (ClusterPolicyKind::Admin, _) | (ClusterPolicyKind::Cluster, Some("Admin")) => {
            Ok(Tier::Admin)
        }
        (ClusterPolicyKind::Baseline, _) | (ClusterPolicyKind::Cluster, Some("Baseline")) => {
            Ok(Tier::Baseline)
        }
        (ClusterPolicyKind::Cluster, _) => Err(Fault::new(
            "spec.tier",
            format!("{given} is not a tier: write Admin or Baseline"),
        )),
    }
}

fn priority(kind: ClusterPolicyKind, given: &Value) -> Result<i16, Fault> {
    if kind == ClusterPolicyKind::Baseline {
        return Ok(ClusterPolicy::LAST);
    }
    let number = given
        .as_i64()
        .filter(|number| (0..=LAST_PRIORITY).contains(number));
    let number = number.and_then(|number| i16::try_from(number).ok());
    number.ok_or_else(|| {
        Fault::new(
            "spec.priority",
            format!("give one from 0, asked first, to {LAST_PRIORITY}"),
        )
    })
}

/// A rule of a policy that is closed.
fn closed_rule(rule: TierRule) -> TierRule {
    match rule.action {
        RuleAction::Accept => TierRule {
            matches: closed(RuleAction::Accept),
            ..rule
        },
        RuleAction::Deny | RuleAction::Pass => TierRule {
            action: RuleAction::Deny,
            ..rule
        },
    }
}

fn deny_everyone() -> TierRule {
    TierRule {
        name: "".into(),
        action: RuleAction::Deny,
        matches: closed(RuleAction::Deny),
    }
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

/// The selectors of a subject's namespaces and pods. Of what cannot be understood, everything.
fn subject(value: &Value, faults: &mut Vec<Fault>) -> (Selector, Selector) {
    let field = "spec.subject";
    let given = value.as_object().into_iter().flatten();
    let given: Vec<_> = given.filter(|(_, value)| !value.is_null()).collect();
    match given[..] {
        [(name, value)] if name == "namespaces" => {
            let namespaces = part(format!("{field}.{name}"), value, faults);
            (namespaces, Selector::everything())
        }
        [(name, value)] if name == "pods" => {
            let selector =
                |part_of: &str| (format!("{field}.{name}.{part_of}"), value.get(part_of));
            let [namespaces, pods] = ["namespaceSelector", "podSelector"].map(selector);
            let known = value.as_object().is_some_and(|parts| parts.len() == 2);
            let both = namespaces.1.zip(pods.1).filter(|_| known);
            if both.is_none() {
                let remedy = "write namespaceSelector and podSelector, and nothing else";
                faults.push(Fault::new(format!("{field}.{name}"), remedy));
            }
            let [namespaces, pods] = [namespaces, pods].map(|(field, value)| match value {
                Some(value) => part(field, value, faults),
                None => Selector::everything(),
            });
            (namespaces, pods)
        }
        _ => {
            let remedy = "write either namespaces or pods; namespaces: {} are all pods";
            faults.push(Fault::new(field, remedy));
            (Selector::everything(), Selector::everything())
        }
    }
}

/// A selector of a subject, or everything if it cannot be understood.
fn part(field: String, value: &Value, faults: &mut Vec<Fault>) -> Selector {
    let read = read::<ExactSelector>(&field, value);
    let selector = read.and_then(|selector| selector.selector(&field));
    keep(selector, faults).unwrap_or_default()
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
        let matches = matches(kind, direction, action, field, &raw)?;
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
        peers.extend(peers::peers(direction, action, &field, value)?);
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
