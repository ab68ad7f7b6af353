//! Identities, rulesets, rows and CIDR sets.
//!
//! Only policies that select a pod of this node count. Each pair of pod and direction gets a ruleset
//! that its content names; each pod of the cluster gets an identity that says which of those rulesets'
//! selectors choose it. A row says whether a ruleset lets an identity, or an address in a set of
//! CIDRs, use a class of ports. Rulesets, identities and sets never change: other content is another
//! number.

mod cidrs;
mod identities;
mod ports;
mod rulesets;
mod selectors;
mod state;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::Compiler;
use crate::snapshot::{
    Direction, NetworkPolicy, ObjectKey, Peer, Peers, Pod, PortRange, Ports, Protocol, Rule, Text,
};
use selectors::SelectorIndex;
pub use state::PolicyState;
use state::{Active, Block, rows};

/// A hash that stands for a selector or a block in rulesets, identities and sets.
type Fingerprint = (u64, u64);

/// What subjects need to know.
#[derive(Default)]
pub(super) struct PodPolicies<'a> {
    /// Policy of each pod of this node, by its key.
    pub(super) pods: BTreeMap<&'a ObjectKey, PodPolicy>,
    /// Those pods by address.
    pub(super) by_ip: HashMap<IpAddr, &'a Pod>,
}

/// Numbers of one pod.
#[derive(Clone, Copy, Default)]
pub(super) struct PodPolicy {
    /// Its identity.
    pub(super) identity: u32,
    /// Its ruleset for what it receives, 0 if it is not isolated.
    pub(super) ingress: u32,
    /// Its ruleset for what it sends, 0 if it is not isolated.
    pub(super) egress: u32,
}

/// Fills the policy maps but for the subjects.
pub(super) fn compile<'a>(compiler: &mut Compiler<'a>) -> PodPolicies<'a> {
    let pods = Pods::new(compiler);
    let selected = Selected::new(&pods, &compiler.snapshot.policies);
    let active = selected.active();
    let identities = identities::number(compiler, &pods, &active);
    let snapshot = compiler.snapshot;
    compiler.desired.tables.v4.identities = identities::table(snapshot, &pods, &identities);
    compiler.desired.tables.v6.identities = identities::table(snapshot, &pods, &identities);
    let named = identities.named_ports();
    let mut rulesets = rulesets::Rulesets::new(compiler, &named);
    let mut policies = BTreeMap::new();
    for (pod, [ingress, egress]) in &selected.pods {
        let policy = PodPolicy {
            identity: identities.of(&pod.key),
            ingress: rulesets.number(pod, Direction::Ingress, ingress),
            egress: rulesets.number(pod, Direction::Egress, egress),
        };
        policies.insert(&pod.key, policy);
    }
    let rulesets = rulesets.finish();
    let blocks = selected.blocks();
    let mut sets = BTreeMap::new();
    compiler.desired.tables.v4.cidrs = cidrs::table(compiler, &blocks, &mut sets);
    compiler.desired.tables.v6.cidrs = cidrs::table(compiler, &blocks, &mut sets);
    let state = PolicyState {
        rulesets,
        identities: identities.numbers,
        sets,
        blocks,
        active: Arc::new(active),
    };
    compiler.desired.tables.rows = rows(&state);
    compiler.desired.policy = Arc::new(state);
    PodPolicies {
        pods: policies,
        by_ip: by_ip(&pods.local, &HashSet::new()),
    }
}

/// Fills the maps for the change from the policy in force to the desired one. Meanwhile a pod may have
/// a ruleset of either, so addresses are told apart by the selectors and blocks of both, and rows
/// join what goes with what comes. The numbers of what goes stay reserved until the change is done.
pub(super) fn transition(compiler: &mut Compiler<'_>) {
    let desired = compiler.desired.policy.clone();
    let mut both = desired.joined(&compiler.ids.applied);
    if both == *desired {
        compiler.desired.meanwhile = desired;
        return;
    }
    if both.blocks != desired.blocks {
        let mut sets = BTreeMap::new();
        compiler.desired.transition.v4.cidrs = cidrs::table(compiler, &both.blocks, &mut sets);
        compiler.desired.transition.v6.cidrs = cidrs::table(compiler, &both.blocks, &mut sets);
        both.sets.extend(sets);
    }
    if both.active != desired.active {
        let pods = Pods::new(compiler);
        let identities = identities::number(compiler, &pods, &both.active);
        let snapshot = compiler.snapshot;
        compiler.desired.transition.v4.identities = identities::table(snapshot, &pods, &identities);
        compiler.desired.transition.v6.identities = identities::table(snapshot, &pods, &identities);
        both.identities.extend(identities.numbers);
    }
    let mut between = rows(&both);
    between.retain(|key, _| !compiler.desired.tables.rows.contains_key(key));
    compiler.desired.transition.rows = between;
    compiler.desired.meanwhile = Arc::new(both);
}

/// Pods that policies see.
struct Pods<'a> {
    /// All of the cluster.
    all: Vec<&'a Pod>,
    /// Those of this node.
    local: Vec<&'a Pod>,
    by_ip: HashMap<IpAddr, &'a Pod>,
}

impl<'a> Pods<'a> {
    fn new(compiler: &Compiler<'a>) -> Self {
        let snapshot = compiler.snapshot;
        let devices: HashSet<_> = snapshot
            .interfaces
            .values()
            .flat_map(|device| &device.addresses)
            .collect();
        let has_device = |pod: &Pod| pod.ips.iter().any(|ip| devices.contains(ip));
        let is_local = |pod: &Pod| {
            pod.node
                .as_ref()
                .map_or_else(|| has_device(pod), |node| *node == snapshot.node.name)
        };
        let all: Vec<_> = snapshot
            .pods
            .values()
            .filter(|pod| pod.is_policy_pod())
            .collect();
        let local: Vec<_> = all.iter().copied().filter(|pod| is_local(pod)).collect();
        let here = local.iter().map(|pod| &pod.key).collect();
        let by_ip = by_ip(&all, &here);
        Self { all, local, by_ip }
    }
}

/// Pods by address. Of two pods with one address, the one that stays has it, then the one of this
/// node, then the first by name.
fn by_ip<'a>(pods: &[&'a Pod], local: &HashSet<&ObjectKey>) -> HashMap<IpAddr, &'a Pod> {
    let rank = |pod: &Pod| (pod.terminating, !local.contains(&pod.key));
    let mut by_ip: HashMap<IpAddr, &Pod> = HashMap::new();
    for &pod in pods {
        for &ip in &pod.ips {
            let owner = by_ip.entry(ip).or_insert(pod);
            if rank(pod) < rank(owner) {
                *owner = pod;
            }
        }
    }
    by_ip
}

/// Policies that select a pod, in the order of their names.
type Selecting<'a> = Vec<&'a NetworkPolicy>;

/// Pods of this node with the policies that isolate them, for ingress and egress.
struct Selected<'a> {
    pods: Vec<(&'a Pod, [Selecting<'a>; 2])>,
    used: BTreeMap<(&'a ObjectKey, Direction), &'a NetworkPolicy>,
}

impl<'a> Selected<'a> {
    fn new(pods: &Pods<'a>, policies: &'a BTreeMap<ObjectKey, NetworkPolicy>) -> Self {
        let mut by_namespace: HashMap<&Text, SelectorIndex<'a, &'a NetworkPolicy>> = HashMap::new();
        for policy in policies.values() {
            by_namespace
                .entry(&policy.key.namespace)
                .or_default()
                .insert(&policy.pods, policy);
        }
        let mut selected = Self {
            pods: Vec::new(),
            used: BTreeMap::new(),
        };
        let mut known: HashMap<_, [Selecting<'a>; 2]> = HashMap::new();
        for &pod in &pods.local {
            let policies = known
                .entry((&pod.key.namespace, &pod.labels))
                .or_insert_with(|| {
                    let index = by_namespace.get(&pod.key.namespace);
                    let mut matching: Vec<_> = index
                        .map(|index| index.matching(&pod.labels))
                        .unwrap_or_default();
                    matching.sort_by_key(|policy| &policy.key);
                    Direction::ALL.map(|direction| {
                        matching
                            .iter()
                            .copied()
                            .filter(|policy| policy.rules(direction).is_some())
                            .collect()
                    })
                });
            for (direction, policies) in Direction::ALL.into_iter().zip(policies.iter()) {
                selected.used.extend(
                    policies
                        .iter()
                        .map(|policy| ((&policy.key, direction), *policy)),
                );
            }
            selected.pods.push((pod, policies.clone()));
        }
        selected
    }

    /// Rules in force, with the policy and direction they belong to.
    fn rules(&self) -> impl Iterator<Item = (&'a NetworkPolicy, Direction, &'a Rule)> {
        self.used.iter().flat_map(|(&(_, direction), &policy)| {
            policy
                .rules(direction)
                .unwrap_or(&[])
                .iter()
                .map(move |rule| (policy, direction, rule))
        })
    }

    /// Selectors and names of ports that peers are told apart by.
    fn active(&self) -> Active {
        let mut active = Active::default();
        for (policy, direction, rule) in self.rules() {
            for peer in listed(rule) {
                if let Peer::Pods { namespaces, pods } = peer {
                    active.insert(&policy.key.namespace, namespaces, pods);
                }
            }
            if direction == Direction::Egress {
                active.names.extend(names(rule));
            }
        }
        active
    }

    /// Blocks of addresses in force.
    fn blocks(&self) -> BTreeMap<Fingerprint, Block> {
        let mut blocks = BTreeMap::new();
        for peer in self.rules().flat_map(|(_, _, rule)| listed(rule)) {
            if let Peer::Block { cidr, except } = peer {
                let block = Block {
                    cidr: cidr.trunc(),
                    except: except.clone(),
                };
                blocks.insert(cidrs::block_print(cidr, except), block);
            }
        }
        blocks
    }
}

/// Peers that a rule lists.
fn listed(rule: &Rule) -> &[Peer] {
    match &rule.peers {
        Peers::Any => &[],
        Peers::Only(peers) => peers,
    }
}

/// Names of ports in a rule.
fn names(rule: &Rule) -> impl Iterator<Item = (Protocol, Text)> {
    let ports = match &rule.ports {
        Ports::Any => &[] as &[_],
        Ports::Only(ports) => ports,
    };
    ports.iter().filter_map(|port| match &port.range {
        PortRange::Named(name) => Some((port.protocol, name.clone())),
        PortRange::All | PortRange::Numbers(..) => None,
    })
}
