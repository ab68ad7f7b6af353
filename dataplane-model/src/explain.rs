//! Why policies let a flow pass, or do not: the verdict of the compiled tables, and the rules that were
//! asked on the way to it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use dataplane_common::decide::policy::Decision;

use crate::capacity::CapacityError;
use crate::compile::{PolicyMemo, compile_policy};
use crate::eval::{self, Packet};
use crate::ids::{IdKind, IdTable};
use crate::oracle::{Asked, Flow};
use crate::snapshot::{
    Direction, Interface, NamespaceScope, NodeConfig, ObjectKey, Peer, Peers, Pod, PolicyMode,
    PortRange, Ports, Protocol, Rule, RuleAction, Snapshot, Tier,
};

/// A verdict at both ends. `None`: no pod with its own network is there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Explanation {
    /// By what the sender may send.
    pub egress: Option<End>,
    /// By what the receiver may receive.
    pub ingress: Option<End>,
}

/// One end of a flow.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct End {
    /// The pod there.
    pub pod: ObjectKey,
    /// It may pass.
    pub allowed: bool,
    /// The rule that decides, as verdicts name it.
    pub rule: Option<Arc<str>>,
    /// NetworkPolicies that isolate the pod in this direction.
    pub isolated_by: Vec<ObjectKey>,
    /// Why NetworkPolicies, or all policies, are not asked.
    pub exempt: Option<&'static str>,
    /// Rules in the order in which they are asked.
    pub asked: Vec<Step>,
    /// The rules, read one by one, come to the verdict of the compiled tables.
    pub agrees: bool,
    /// The same if the policies in audit were in force too; `None` if none of them is about the pod.
    pub audit: Option<Box<End>>,
}

/// A rule that is asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Step {
    /// The tier of its policy; `None` for a NetworkPolicy.
    pub tier: Option<Tier>,
    /// Its policy; of a tier, with the priority.
    pub policy: String,
    /// Its place in it, from 1 on.
    pub rule: usize,
    /// Its name; empty for none.
    pub name: String,
    /// What it does.
    pub action: RuleAction,
    /// Its peers, for people.
    pub peers: String,
    /// Its ports, for people.
    pub ports: String,
    /// How it fares.
    pub outcome: Outcome,
}

/// How a rule fares.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The other end is none of its peers.
    OtherPeer,
    /// The other end is one of its peers, the port none of its ports.
    OtherPort,
    /// It decides.
    Decides,
    /// It matches and leaves the decision to the next tier.
    Passes,
    /// It is not asked: the decision was made before.
    NotAsked,
}

impl Explanation {
    /// True if neither end forbids the flow.
    pub fn is_allowed(&self) -> bool {
        let ends = [&self.egress, &self.ingress];
        ends.into_iter().flatten().all(|end| end.allowed)
    }
}

impl End {
    /// Of a default deny: the rules that came nearest, which are those whose peer is right; all, if none
    /// has the right peer.
    pub fn nearest(&self) -> Vec<&Step> {
        let is_default_deny = !self.allowed && self.rule.is_none();
        let missed = |outcome: Outcome| {
            let steps = self.asked.iter().filter(|step| step.tier.is_none());
            let missed = steps.filter(move |step| step.outcome == outcome);
            missed.filter(|_| is_default_deny).collect::<Vec<_>>()
        };
        let right_peer = missed(Outcome::OtherPort);
        if right_peer.is_empty() {
            return missed(Outcome::OtherPeer);
        }
        right_peer
    }
}

/// Explains what policies say of a packet, wherever its ends are.
///
/// # Errors
///
/// The policies of an end do not fit in maps of the usual size.
pub fn explain(snapshot: &Snapshot, packet: &Packet) -> Result<Explanation, Vec<CapacityError>> {
    let ends = Direction::ALL.map(|direction| end(snapshot, packet, direction));
    let [ingress, egress] = ends;
    Ok(Explanation {
        egress: egress?,
        ingress: ingress?,
    })
}

fn end(
    snapshot: &Snapshot,
    packet: &Packet,
    direction: Direction,
) -> Result<Option<End>, Vec<CapacityError>> {
    let subject = match direction {
        Direction::Ingress => packet.dst,
        Direction::Egress => packet.src,
    };
    let Some(pod) = flow(snapshot, packet, PolicyMode::Enforce).pod(subject) else {
        return Ok(None);
    };
    let view = view(snapshot, pod, [packet.src, packet.dst]);
    let mut ids = IdTable::default();
    let compiled = compile_policy(&view, &mut ids, &mut PolicyMemo::default())?;
    let end = |mode| {
        let judged = eval::judge_with(&compiled.tables, packet, (&view.node).into(), mode);
        let decision = judged.and_then(|judged| match direction {
            Direction::Ingress => judged.ingress,
            Direction::Egress => judged.egress,
        });
        let decision = decision.unwrap_or(Decision::UNISOLATED);
        let flow = flow(&view, packet, mode);
        let exempt = exempt(&view.node, packet, direction);
        let asked = match exempt {
            Some((_, true)) => Vec::new(),
            _ => flow.asked(direction),
        };
        let isolating = flow.isolating(pod, direction).into_iter();
        let isolated_by: Vec<_> = isolating.map(|(policy, _)| policy.key.clone()).collect();
        let (asked, allowed) = walk(&asked, !isolated_by.is_empty(), exempt.is_some());
        End {
            pod: pod.key.clone(),
            allowed: decision.allowed != 0,
            rule: ids.name(IdKind::Rule, decision.rule).cloned(),
            isolated_by,
            exempt: exempt.map(|(why, _)| why),
            asked,
            agrees: allowed == (decision.allowed != 0),
            audit: None,
        }
    };
    let subject = eval::subject(&compiled.tables, DEVICE);
    let audited = subject.is_some_and(|subject| eval::rulesets(subject, direction).1 != 0);
    Ok(Some(End {
        audit: audited.then(|| Box::new(end(PolicyMode::Audit))),
        ..end(PolicyMode::Enforce)
    }))
}

fn flow<'a>(snapshot: &'a Snapshot, packet: &Packet, mode: PolicyMode) -> Flow<'a> {
    Flow {
        snapshot,
        src: packet.src,
        dst: packet.dst,
        protocol: Protocol::ALL
            .into_iter()
            .find(|one| one.number() == packet.proto),
        port: packet.port,
        mode,
    }
}

/// The device of the pod that is explained.
const DEVICE: u32 = 1;

/// What there is to be known for a verdict at one pod, as its own node sees it.
fn view(snapshot: &Snapshot, pod: &Pod, ips: [IpAddr; 2]) -> Snapshot {
    let mut view = snapshot.of_policy();
    view.pods
        .retain(|_, pod| pod.ips.iter().any(|ip| ips.contains(ip)));
    if let Some(name) = pod.node.as_ref().filter(|name| **name != view.node.name) {
        let node = view.nodes.get(name);
        view.node = NodeConfig {
            name: name.clone(),
            addresses: node.map(|node| node.addresses.clone()).unwrap_or_default(),
            pod_ranges: view.node.pod_ranges.clone(),
            police_node_egress: view.node.police_node_egress,
            police_hairpin: view.node.police_hairpin,
            ..NodeConfig::default()
        };
    }
    let device = Interface {
        ifindex: DEVICE,
        addresses: pod.ips.clone(),
        ..Interface::default()
    };
    view.interfaces = BTreeMap::from([(device.ifindex, device)]);
    view
}

/// Why NetworkPolicies are not asked, and whether no policy is.
fn exempt(
    node: &NodeConfig,
    packet: &Packet,
    direction: Direction,
) -> Option<(&'static str, bool)> {
    let is_own = |ip: IpAddr| node.addresses.contains(&ip);
    if direction == Direction::Ingress && is_own(packet.src) {
        return Some(("what a node sends to its own pods is never policed", true));
    }
    if packet.src == packet.dst && !node.police_hairpin {
        return Some((
            "NetworkPolicies do not police what a pod sends to itself",
            false,
        ));
    }
    let to_node = direction == Direction::Egress && is_own(packet.dst);
    (to_node && !node.police_node_egress).then_some((
        "NetworkPolicies do not police what a pod sends to its own node",
        false,
    ))
}

/// How each rule fares, and whether the flow may pass.
fn walk(asked: &[Asked<'_>], isolated: bool, exempt: bool) -> (Vec<Step>, bool) {
    let mut decided = None;
    // The tier that a rule has passed.
    let mut passed = None;
    let mut steps = Vec::new();
    for asked in asked {
        let tier = asked.policy.ok().map(|policy| policy.tier);
        let skipped =
            decided.is_some() || (passed.is_some() && passed == tier) || (tier.is_none() && exempt);
        let outcome = if skipped {
            Outcome::NotAsked
        } else if !asked.peer {
            Outcome::OtherPeer
        } else if !asked.ports {
            Outcome::OtherPort
        } else if asked.action == RuleAction::Pass && !asked.closed {
            passed = tier;
            Outcome::Passes
        } else {
            decided = Some(asked.action == RuleAction::Accept);
            Outcome::Decides
        };
        steps.push(step(asked, tier, outcome));
    }
    (steps, decided.unwrap_or(!isolated || exempt))
}

fn step(asked: &Asked<'_>, tier: Option<Tier>, outcome: Outcome) -> Step {
    Step {
        tier,
        policy: match asked.policy {
            Ok(policy) => policy.title(),
            Err(policy) => policy.key.to_string(),
        },
        rule: asked.place + 1,
        name: asked.name.to_owned(),
        action: asked.action,
        peers: peers(asked.rule),
        ports: ports(asked.rule),
        outcome,
    }
}

/// The peers of a rule, for people.
pub fn peers(rule: &Rule) -> String {
    let Peers::Only(peers) = &rule.peers else {
        return "anyone".to_owned();
    };
    let named = peers.iter().map(|peer| match peer {
        Peer::Pods { namespaces, pods } => match namespaces {
            NamespaceScope::Own => format!("pods {pods} of its namespace"),
            NamespaceScope::Matching(namespaces) => {
                format!("pods {pods} in namespaces {namespaces}")
            }
        },
        Peer::Nodes(nodes) => format!("nodes {nodes}"),
        Peer::Domain(names) => format!("what {names} resolves to"),
        Peer::Block { cidr, except } => {
            let except: Vec<_> = except.iter().map(ToString::to_string).collect();
            match except.is_empty() {
                true => cidr.to_string(),
                false => format!("{cidr} except {}", except.join(" ")),
            }
        }
    });
    listed(named.collect(), "nobody")
}

/// The ports of a rule, for people.
pub fn ports(rule: &Rule) -> String {
    let Ports::Only(ports) = &rule.ports else {
        return "any port".to_owned();
    };
    let named = ports.iter().map(|port| {
        let protocol = port.protocol;
        match &port.range {
            PortRange::All => format!("any/{protocol}"),
            PortRange::Numbers(first, last) if first == last => format!("{first}/{protocol}"),
            PortRange::Numbers(first, last) => format!("{first}-{last}/{protocol}"),
            PortRange::Named(name) => format!("{name}/{protocol}"),
        }
    });
    listed(named.collect(), "no port")
}

fn listed(names: Vec<String>, none: &str) -> String {
    if names.is_empty() {
        return none.to_owned();
    }
    names.join(", ")
}

#[cfg(test)]
mod tests;
