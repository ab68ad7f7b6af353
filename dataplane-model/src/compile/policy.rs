//! Identities, rulesets, rows and CIDR sets.
//!
//! Only policies that select a pod of this node count, of all tiers. Each pair of pod and direction gets a ruleset
//! that its content names; each pod of the cluster gets an identity that says which of those rulesets'
//! selectors choose it. A row says whether a ruleset lets an identity, or an address in a set of
//! CIDRs, use a class of ports. Rulesets, identities and sets never change: other content is another
//! number.

mod cidrs;
mod identities;
mod ports;
mod rulesets;
mod selected;
mod selectors;
mod state;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{Compiler, Notice};
use crate::snapshot::{Direction, ObjectKey, Pod, Snapshot};
use selected::Selected;
pub use state::PolicyState;
use state::rows;

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
    /// Its ruleset for what it receives, 0 if no policy concerns that.
    pub(super) ingress: u32,
    /// Its ruleset for what it sends, 0 if no policy concerns that.
    pub(super) egress: u32,
    /// What `ingress` were without audit, 0 if that is no other.
    pub(super) audited_ingress: u32,
    /// What `egress` were without audit, 0 if that is no other.
    pub(super) audited_egress: u32,
    /// Domain names decide what it may reach.
    pub(super) has_domains: bool,
}

/// Fills the policy maps but for the subjects.
pub(super) fn compile<'a>(compiler: &mut Compiler<'a>) -> PodPolicies<'a> {
    let pods = Pods::new(compiler);
    let selected = Selected::new(&pods, compiler.snapshot);
    let active = selected.active();
    let identities = identities::number(compiler, &pods, &active);
    let snapshot = compiler.snapshot;
    let blocks = selected.blocks(snapshot);
    let tables = &mut compiler.desired.tables;
    tables.v4.identities = identities::table(snapshot, &pods, &identities, &blocks);
    tables.v6.identities = identities::table(snapshot, &pods, &identities, &blocks);
    let named = identities.named_ports();
    let mut rulesets = rulesets::Rulesets::new(compiler, &named);
    let mut policies = BTreeMap::new();
    for (pod, concerning) in &selected.pods {
        let [ingress, egress] = &concerning.enforced;
        let [audited_ingress, audited_egress] = &concerning.audited;
        let egress = rulesets.number(pod, Direction::Egress, egress);
        let audited_egress = rulesets.number(pod, Direction::Egress, audited_egress);
        let policy = PodPolicy {
            identity: identities.of(&pod.key),
            ingress: rulesets.number(pod, Direction::Ingress, ingress),
            egress,
            has_domains: [egress, audited_egress]
                .iter()
                .any(|&ruleset| rulesets.has_domains(ruleset)),
            audited_ingress: rulesets.number(pod, Direction::Ingress, audited_ingress),
            audited_egress,
        };
        policies.insert(&pod.key, policy);
    }
    let rulesets = rulesets.finish();
    let asks = rulesets
        .values()
        .any(|ruleset| ruleset.asks_for_unknown_pods());
    let mut state = PolicyState {
        rulesets,
        identities: identities.numbers,
        sets: BTreeMap::new(),
        blocks,
        pod_ranges: pod_ranges(snapshot, asks),
        active: Arc::new(active),
    };
    let mut sets = BTreeMap::new();
    compiler.desired.tables.v4.cidrs = cidrs::table(compiler, &state, &mut sets);
    compiler.desired.tables.v6.cidrs = cidrs::table(compiler, &state, &mut sets);
    state.sets = sets;
    notices(compiler, &selected);
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
    if both.blocks != desired.blocks || both.pod_ranges != desired.pod_ranges {
        let mut sets = BTreeMap::new();
        compiler.desired.transition.v4.cidrs = cidrs::table(compiler, &both, &mut sets);
        compiler.desired.transition.v6.cidrs = cidrs::table(compiler, &both, &mut sets);
        both.sets.extend(sets);
    }
    if both.active != desired.active || both.blocks != desired.blocks {
        let pods = Pods::new(compiler);
        let identities = identities::number(compiler, &pods, &both.active);
        let snapshot = compiler.snapshot;
        let between = &mut compiler.desired.transition;
        let blocks = &both.blocks;
        between.v4.identities = identities::table(snapshot, &pods, &identities, blocks);
        between.v6.identities = identities::table(snapshot, &pods, &identities, blocks);
        both.identities.extend(identities.numbers);
    }
    let mut between = rows(&both);
    between.retain(|key, _| !compiler.desired.tables.rows.contains_key(key));
    compiler.desired.transition.rows = between;
    compiler.desired.meanwhile = Arc::new(both);
}

/// Prefixes in which an address that nobody knows may be a pod's, if any ruleset asks for that.
fn pod_ranges(snapshot: &Snapshot, asks: bool) -> BTreeSet<IpNet> {
    let mut ranges = snapshot.pod_ranges();
    if !asks {
        return BTreeSet::new();
    }
    if ranges.is_empty() {
        ranges.insert(Ipv4Net::default().into());
        ranges.insert(Ipv6Net::default().into());
    }
    ranges
}

/// What owners of policies should know.
fn notices(compiler: &mut Compiler<'_>, selected: &Selected<'_>) {
    let notices = &mut compiler.desired.notices;
    for (second, first) in selected.ties() {
        notices.push(Notice {
            object: second.to_string(),
            text: format!(
                "it has the priority of {first}, whose rules come first: which does is undefined, so give them different ones"
            ),
            reason: "PriorityConflict",
        });
    }
    notices.extend(compiler.snapshot.orphans().map(|pod| Notice {
        object: format!("Namespace {}", pod.namespace),
        text: format!(
            "policies that isolated the pod {} were gone before the agent's start, and the namespace ends: until it is gone, the pod is isolated in the same directions and allowed nothing",
            pod.name
        ),
        reason: "PolicyGone",
    }));
    if !compiler.snapshot.node.has_dns_proxy {
        let named = selected.rules().filter(|(_, of)| of.has_domains());
        notices.extend(named.map(|(direction, of)| Notice {
            object: of.policy.key().to_string(),
            text: format!(
                "{} rule {}: its domain names match nothing: the agent needs CAP_SYS_ADMIN for the DNS proxy",
                direction.name(),
                of.index + 1
            ),
            reason: "NoDnsProxy",
        }));
    }
    if !compiler.snapshot.pod_ranges().is_empty() {
        return;
    }
    let unsure = selected
        .rules()
        .filter(|(direction, of)| of.denies_pods(*direction));
    notices.extend(unsure.map(|(direction, of)| Notice {
        object: of.policy.key().to_string(),
        text: format!(
            "{} rule {}: the ranges of pods' addresses are not known, so every address that is no known pod's or node's is denied too: set clusterCIDR, or podCIDRs of the nodes",
            direction.name(),
            of.index + 1
        ),
        reason: "PodRangesUnknown",
    }));
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
