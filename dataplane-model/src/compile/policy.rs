//! Identities, rulesets, rows and CIDR sets.
//!
//! Only policies that select a pod of this node count, of all tiers. Each pair of pod and direction gets a ruleset
//! that its content names; each pod of the cluster gets an identity that says which of those rulesets'
//! selectors choose it. A row says whether a ruleset lets an identity, or an address in a set of
//! CIDRs, use a class of ports. Rulesets, identities and sets never change: other content is another
//! number.

mod addresses;
mod asked;
mod cidrs;
mod identities;
mod kinds;
mod pods;
mod ports;
mod rows;
mod rulesets;
mod selected;
mod selectors;
mod state;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use dataplane_common::abi::{RowKey, RowVal};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{Compiler, Notice};
use crate::snapshot::{Change, Direction, ObjectKey, Snapshot};
use asked::InForce;
use identities::Identities;
use kinds::Kinds;
use pods::{KnownPods, Pods};
use rulesets::{Compiled, Rulesets};
use selected::{RuleOf, Selecting};
pub use state::PolicyState;

/// A hash that stands for a selector or a block in rulesets, identities and sets.
type Fingerprint = (u64, u64);

/// What earlier compiles found out. The next one takes over what still holds, so that a change costs
/// what it concerns; it comes to the same as without.
#[derive(Clone, Debug, Default)]
pub struct PolicyMemo {
    pods: KnownPods,
    kinds: Kinds,
    placed: addresses::Placed,
    in_force: InForce,
    rulesets: rulesets::Known,
    state: Arc<PolicyState>,
    rows: BTreeMap<RowKey, RowVal>,
}

impl PolicyMemo {
    /// Notes what changed in the snapshot. Each change of pods, devices and nodes has to be noted; all else
    /// is found out.
    pub fn note(&mut self, change: &Change) {
        self.pods.note(change);
    }
}

/// What subjects need to know.
pub(super) struct PodPolicies {
    /// Policy of each kind that there are pods of on this node.
    of_kind: HashMap<usize, PodPolicy>,
    pods: Arc<Pods>,
}

impl PodPolicies {
    /// Policy of a pod of this node.
    pub(super) fn of(&self, pod: &ObjectKey) -> Option<&PodPolicy> {
        let seen = self.pods.get(pod)?;
        self.of_kind.get(&seen.kind).filter(|_| seen.is_local)
    }

    /// The pod of this node with an address, and its policy.
    pub(super) fn at(&self, ip: IpAddr) -> Option<(&ObjectKey, &PodPolicy)> {
        let seen = self.pods.local_at(ip)?;
        Some((&seen.key, self.of_kind.get(&seen.kind)?))
    }
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
pub(super) fn compile(compiler: &mut Compiler<'_>, memo: &mut PolicyMemo) -> PodPolicies {
    let snapshot = compiler.snapshot;
    let kinds = &mut memo.kinds;
    let pods = memo.pods.see(snapshot, kinds);
    kinds.see_namespaces(snapshot);
    let here = &pods.kinds_here;
    kinds.see_policies(snapshot, here);
    let before = memo.in_force.active.clone();
    let concerning = here.iter().flat_map(|&kind| kinds[kind].concerning.all());
    memo.in_force.see(concerning);
    let active = memo.in_force.active.clone();
    let identities = identities::number(compiler, &pods, kinds, &before, &active);
    let blocks = memo.in_force.blocks(snapshot);
    let tables = &mut compiler.desired.tables;
    (tables.v4.identities, tables.v6.identities) =
        (memo.placed).tables(snapshot, &pods, &identities, &blocks);
    let named = identities.named_ports();
    let mut rulesets = Rulesets::new(compiler, &named, &mut memo.rulesets);
    let of_kind = here
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
    PodPolicies { of_kind, pods }
}

fn of_kind(
    kinds: &Kinds,
    kind: usize,
    identities: &Identities,
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
pub(super) fn transition(compiler: &mut Compiler<'_>, policies: &PodPolicies, memo: &PolicyMemo) {
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
        let (pods, kinds) = (&policies.pods, &memo.kinds);
        let gone = both.active.without(&desired.active);
        let identities = identities::number_with(compiler, pods, kinds, &both.active, &gone);
        if !memo.placed.are_of(pods, &identities, &both.blocks) {
            let between = &mut compiler.desired.transition;
            (between.v4.identities, between.v6.identities) =
                addresses::tables(compiler.snapshot, pods, &identities, &both.blocks);
        }
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
    let of_rule = |direction: Direction, of: &RuleOf<'_>, reason, text: &str| Notice {
        object: of.policy.key().to_string(),
        text: format!("{} rule {}: {text}", direction.name(), of.index + 1),
        reason,
    };
    if !compiler.snapshot.node.has_dns_proxy {
        let named = in_force.rules().filter(|(_, of)| of.has_domains());
        let text =
            "its domain names match nothing: the agent needs CAP_SYS_ADMIN for the DNS proxy";
        notices.extend(named.map(|(direction, of)| of_rule(direction, &of, "NoDnsProxy", text)));
    }
    if compiler.snapshot.pod_ranges().is_empty() {
        let unsure = in_force
            .rules()
            .filter(|(direction, of)| of.denies_pods(*direction));
        let text = "the ranges of pods' addresses are not known, so every address that is no known pod's or node's is denied too: set clusterCIDR, or podCIDRs of the nodes";
        notices.extend(
            unsure.map(|(direction, of)| of_rule(direction, &of, "PodRangesUnknown", text)),
        );
    }
}
