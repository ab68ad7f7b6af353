//! Identities, rulesets, rows and CIDR sets.
//!
//! Only policies that select a pod of this node count, of all tiers. Each pair of pod and direction gets a ruleset
//! that its content names; each pod of the cluster gets an identity that says which of those rulesets'
//! selectors choose it. A row says whether a ruleset lets an identity, or an address in a set of
//! CIDRs, use a class of ports. Rulesets, identities and sets never change: other content is another
//! number.

mod asked;
mod cidrs;
mod identities;
mod kinds;
mod ports;
mod rows;
mod rulesets;
mod selected;
mod selectors;
mod state;

use std::cell::LazyCell;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use dataplane_common::abi::{RowKey, RowVal};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{Compiler, Notice};
use crate::snapshot::{ObjectKey, Pod, Snapshot};
use asked::InForce;
use identities::Identities;
use kinds::Kinds;
use rulesets::{Compiled, Rulesets};
use selected::Selecting;
pub use state::PolicyState;

/// A hash that stands for a selector or a block in rulesets, identities and sets.
type Fingerprint = (u64, u64);

/// What earlier compiles found out. The next one takes over what still holds, so that a change costs
/// what it concerns; it comes to the same as without.
#[derive(Clone, Debug, Default)]
pub struct PolicyMemo {
    /// Pods that policies see, in the snapshot's order, with their kinds.
    pods: Vec<(ObjectKey, usize)>,
    /// Pods that changed since.
    changed: HashSet<ObjectKey>,
    kinds: Kinds,
    in_force: InForce,
    rulesets: rulesets::Known,
    state: Arc<PolicyState>,
    rows: BTreeMap<RowKey, RowVal>,
}

impl PolicyMemo {
    /// Notes that a pod is there, is gone, or is another than before. All else is found out.
    pub fn pod_changed(&mut self, pod: ObjectKey) {
        self.changed.insert(pod);
    }
}

/// What subjects need to know.
pub(super) struct PodPolicies<'a> {
    /// Policy of each pod of this node, by its key.
    pub(super) pods: BTreeMap<&'a ObjectKey, PodPolicy>,
    /// Those pods by address.
    pub(super) by_ip: HashMap<IpAddr, &'a Pod>,
    all: Pods<'a>,
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
pub(super) fn compile<'a>(compiler: &mut Compiler<'a>, memo: &mut PolicyMemo) -> PodPolicies<'a> {
    let snapshot = compiler.snapshot;
    let pods = Pods::new(compiler, memo);
    let kinds = &mut memo.kinds;
    kinds.see_namespaces(snapshot);
    let here = pods.kinds_here();
    kinds.see_policies(snapshot, &here);
    let before = memo.in_force.active.clone();
    let concerning = here.iter().flat_map(|&kind| kinds[kind].concerning.all());
    memo.in_force.see(concerning);
    let active = memo.in_force.active.clone();
    let identities = identities::number(compiler, &pods, kinds, &before, &active);
    let blocks = memo.in_force.blocks(snapshot);
    let tables = &mut compiler.desired.tables;
    tables.v4.identities = identities::table(snapshot, &pods, &identities, &blocks);
    tables.v6.identities = identities::table(snapshot, &pods, &identities, &blocks);
    let named = identities.named_ports();
    let mut rulesets = Rulesets::new(compiler, &named, &mut memo.rulesets);
    let policies: HashMap<usize, PodPolicy> = here
        .iter()
        .map(|&kind| (kind, of_kind(kinds, kind, &identities, &mut rulesets)))
        .collect();
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
        active,
    };
    let mut sets = BTreeMap::new();
    compiler.desired.tables.v4.cidrs = cidrs::table(compiler, &state, &mut sets);
    compiler.desired.tables.v6.cidrs = cidrs::table(compiler, &state, &mut sets);
    state.sets = sets;
    let enforced = here
        .iter()
        .flat_map(|&kind| &kinds[kind].concerning.enforced);
    notices(compiler, &memo.in_force, enforced.flatten());
    state.renew(&memo.state, &mut memo.rows);
    compiler.desired.tables.rows = memo.rows.clone();
    memo.state = Arc::new(state);
    compiler.desired.policy = memo.state.clone();
    kinds.forget_unused();
    let local = pods.local();
    let by_ip = by_ip(pods.local()).into_iter();
    PodPolicies {
        pods: local
            .map(|one| (&one.pod.key, policies[&one.kind]))
            .collect(),
        by_ip: by_ip.map(|(ip, one)| (ip, one.pod)).collect(),
        all: pods,
    }
}

fn of_kind(
    kinds: &Kinds,
    kind: usize,
    identities: &Identities<'_>,
    rulesets: &mut Rulesets<'_, '_>,
) -> PodPolicy {
    let (like, concerning) = (&kinds[kind].like, &kinds[kind].concerning);
    let mut of = |selecting: &Option<Arc<Selecting>>| {
        let selecting = selecting.as_ref();
        selecting.and_then(|selecting| rulesets.of(like, selecting))
    };
    let [ingress, egress] = concerning.enforced.each_ref().map(&mut of);
    let [audited_ingress, audited_egress] = concerning.audited.each_ref().map(&mut of);
    let number = |compiled: &Option<Arc<Compiled>>| compiled.as_ref().map_or(0, |of| of.number);
    let sent = [&egress, &audited_egress].into_iter().flatten();
    PodPolicy {
        identity: identities.of(kind),
        ingress: number(&ingress),
        egress: number(&egress),
        audited_ingress: number(&audited_ingress),
        audited_egress: number(&audited_egress),
        has_domains: sent.into_iter().any(|of| of.content.has_domains),
    }
}

/// Fills the maps for the change from the policy in force to the desired one. Meanwhile a pod may have
/// a ruleset of either, so addresses are told apart by the selectors and blocks of both, and rows
/// join what goes with what comes. The numbers of what goes stay reserved until the change is done.
pub(super) fn transition<'a>(
    compiler: &mut Compiler<'a>,
    policies: &PodPolicies<'a>,
    memo: &PolicyMemo,
) {
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
        let (pods, kinds) = (&policies.all, &memo.kinds);
        let gone = both.active.without(&desired.active);
        let identities = identities::number_with(compiler, pods, kinds, &both.active, &gone);
        let snapshot = compiler.snapshot;
        let between = &mut compiler.desired.transition;
        let blocks = &both.blocks;
        between.v4.identities = identities::table(snapshot, pods, &identities, blocks);
        between.v6.identities = identities::table(snapshot, pods, &identities, blocks);
        both.identities.extend(identities.numbers);
    }
    let mut between = both.rows_beyond(&desired);
    between.retain(|(key, _)| !compiler.desired.tables.rows.contains_key(key));
    compiler.desired.transition.rows = between.into_iter().collect();
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
fn notices<'s>(
    compiler: &mut Compiler<'_>,
    in_force: &InForce,
    enforced: impl Iterator<Item = &'s Arc<Selecting>>,
) {
    let notices = &mut compiler.desired.notices;
    for (second, first) in asked::ties(enforced) {
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
        let named = in_force.rules().filter(|(_, of)| of.has_domains());
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
    let unsure = in_force
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

/// A pod that policies see.
#[derive(Clone, Copy)]
struct Seen<'a> {
    pod: &'a Pod,
    /// The place of its kind.
    kind: usize,
    /// It is of this node.
    is_local: bool,
}

/// Pods that policies see.
struct Pods<'a> {
    /// All of the cluster.
    all: Vec<Seen<'a>>,
    by_ip: HashMap<IpAddr, Seen<'a>>,
}

impl<'a> Pods<'a> {
    fn new(compiler: &Compiler<'a>, memo: &mut PolicyMemo) -> Self {
        let snapshot = compiler.snapshot;
        memo.see_pods(snapshot);
        let devices = LazyCell::new(|| {
            let devices = snapshot.interfaces.values();
            let addresses = devices.flat_map(|device| &device.addresses);
            addresses.collect::<HashSet<_>>()
        });
        let has_device = |pod: &Pod| pod.ips.iter().any(|ip| devices.contains(ip));
        let is_local = |pod: &Pod| {
            pod.node
                .as_ref()
                .map_or_else(|| has_device(pod), |node| *node == snapshot.node.name)
        };
        let pods = snapshot.pods.values().filter(|pod| pod.is_policy_pod());
        let kinds = memo.pods.iter().map(|&(_, kind)| kind);
        let all: Vec<_> = pods
            .zip(kinds)
            .map(|(pod, kind)| Seen {
                pod,
                kind,
                is_local: is_local(pod),
            })
            .collect();
        let by_ip = by_ip(all.iter().copied());
        Self { all, by_ip }
    }

    fn local(&self) -> impl Iterator<Item = Seen<'a>> {
        self.all.iter().copied().filter(|seen| seen.is_local)
    }

    /// All kinds, each with its first pod.
    fn kinds(&self) -> impl Iterator<Item = (usize, &'a Pod)> {
        let mut known = HashSet::new();
        let first = self.all.iter().filter(move |one| known.insert(one.kind));
        first.map(|one| (one.kind, one.pod))
    }

    /// Kinds of pods of this node.
    fn kinds_here(&self) -> Vec<usize> {
        let mut known = HashSet::new();
        let kinds = self.local().map(|one| one.kind);
        kinds.filter(|kind| known.insert(*kind)).collect()
    }
}

impl PolicyMemo {
    /// Looks at all pods again, and finds the kinds of those that changed.
    fn see_pods(&mut self, snapshot: &Snapshot) {
        let mut before = std::mem::take(&mut self.pods).into_iter().peekable();
        let changed = std::mem::take(&mut self.changed);
        let pods = snapshot.pods.values().filter(|pod| pod.is_policy_pod());
        for pod in pods {
            while before.next_if(|(key, _)| *key < pod.key).is_some() {}
            let known = before.next_if(|(key, _)| *key == pod.key);
            let known = known.filter(|(key, _)| !changed.contains(key));
            let known = known.unwrap_or_else(|| (pod.key.clone(), self.kinds.of(pod)));
            self.pods.push(known);
        }
        self.kinds.tidy(&mut self.pods);
    }
}

/// Pods by address. Of two pods with one address, the one that stays has it, then the one of this
/// node, then the first by name.
fn by_ip<'a>(pods: impl Iterator<Item = Seen<'a>>) -> HashMap<IpAddr, Seen<'a>> {
    let rank = |one: &Seen<'_>| (one.pod.terminating, !one.is_local);
    let mut by_ip: HashMap<IpAddr, Seen<'_>> = HashMap::new();
    for one in pods {
        for &ip in &one.pod.ips {
            let owner = by_ip.entry(ip).or_insert(one);
            if rank(&one) < rank(owner) {
                *owner = one;
            }
        }
    }
    by_ip
}
