//! Exchanging pods' rulesets and identities.
//!
//! Two things a verdict depends on change one entry at a time: the ruleset of the pod that is judged
//! (its subject) and the identity of its peer (an address). So there are three phases:
//!
//! 1. addresses get identities that tell apart what the rulesets of both states ask for;
//! 2. subjects get their rulesets: first directions that become isolated, then those that go from one
//!    ruleset to another, last those that are isolated no more, and new pods;
//! 3. addresses get the identities that the new rulesets ask for, and new addresses theirs.
//!
//! Between phases 1 and 2, an old ruleset judges a peer as it is now. That is the old state's own
//! answer as long as the peer's labels are the same. If they changed, or if the address went to another
//! pod, comes or goes, the answer might allow what neither state does: such a peer is an unknown one
//! until phase 3, unless no pod goes from one ruleset to another.

use std::collections::BTreeMap;

use dataplane_common::abi::{Addr4, Addr6, IdentityVal, Subject, identity_flags, peer};

use super::builder::Builder;
use crate::compile::Desired;
use crate::ids::IdTable;
use crate::store::Written;
use crate::tables::{Family, MapId, Tables};

/// Adds all changes of subjects and identities but removals.
pub(super) fn exchange(desired: &Desired, written: &Written, ids: &IdTable, plan: &mut Builder) {
    let before = by_device(&written.tables);
    let wanted = by_device(&desired.tables);
    let swings = wanted.iter().any(|(ifindex, &(_, subject))| {
        before
            .get(ifindex)
            .is_some_and(|&(_, old)| swings(old, subject))
    });
    let exchange = Exchange {
        desired,
        written,
        ids,
        before,
        holds: swings,
    };
    let held = (
        exchange.hold_addresses::<Addr4>(plan),
        exchange.hold_addresses::<Addr6>(plan),
    );
    let mut last = exchange
        .before
        .iter()
        .map(|(&ifindex, &(place, subject))| (ifindex, (place, *subject)))
        .collect();
    // The overflow first: who loses its place is never without an entry.
    let mut wanted: Vec<_> = wanted.into_iter().collect();
    wanted.sort_by_key(|(_, (place, _))| (place.0 == MapId::Subjects, place.1));
    for pass in [Pass::Isolate, Pass::Exchange, Pass::Release] {
        exchange.run(pass, &wanted, &mut last, plan);
    }
    exchange.release_addresses(&held.0, plan);
    exchange.release_addresses(&held.1, plan);
}

/// Adds the removal of subjects that are gone. Their devices are closed from then on.
pub(super) fn remove(desired: &Desired, written: &Written, plan: &mut Builder) {
    for ifindex in written.tables.subjects_overflow.keys() {
        if !desired.tables.subjects_overflow.contains_key(ifindex) {
            plan.delete(MapId::SubjectsOverflow, ifindex);
        }
    }
    for place in written.tables.subjects.keys() {
        if !desired.tables.subjects.contains_key(place) {
            plan.put(MapId::Subjects, place, &Subject::default());
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Pass {
    Isolate,
    Exchange,
    Release,
}

/// The map and key that hold a subject.
type Place = (MapId, u32);

struct Exchange<'a> {
    desired: &'a Desired,
    written: &'a Written,
    ids: &'a IdTable,
    before: BTreeMap<u32, (Place, &'a Subject)>,
    holds: bool,
}

impl Exchange<'_> {
    fn run(
        &self,
        pass: Pass,
        subjects: &[(u32, (Place, &Subject))],
        last: &mut BTreeMap<u32, (Place, Subject)>,
        plan: &mut Builder,
    ) {
        for &(ifindex, (place, wanted)) in subjects {
            let Some(value) = self.value_in(pass, ifindex, wanted) else {
                continue;
            };
            if last.insert(ifindex, (place, value)) != Some((place, value)) {
                plan.put(place.0, &place.1, &value);
            }
        }
    }

    /// The subject's value after a pass; `None` if the pass does not concern it.
    fn value_in(&self, pass: Pass, ifindex: u32, wanted: &Subject) -> Option<Subject> {
        let Some(&(_, old)) = self.before.get(&ifindex) else {
            // A new subject: its device was closed until now.
            return (pass == Pass::Release).then_some(*wanted);
        };
        let isolated = |old: u32, wanted: u32| if old == 0 { wanted } else { old };
        let exchanged = |old: u32, wanted: u32| if wanted == 0 { old } else { wanted };
        match pass {
            Pass::Isolate => {
                let ingress = isolated(old.ingress, wanted.ingress);
                let egress = isolated(old.egress, wanted.egress);
                let changes = (ingress, egress) != (old.ingress, old.egress);
                changes.then_some(Subject {
                    ingress,
                    egress,
                    ..*wanted
                })
            }
            Pass::Exchange => {
                let ingress = exchanged(old.ingress, wanted.ingress);
                let egress = exchanged(old.egress, wanted.egress);
                Some(Subject {
                    ingress,
                    egress,
                    ..*wanted
                })
            }
            Pass::Release => Some(*wanted),
        }
    }

    /// True if the pod behind an address with identity `old` may be another than the one that has
    /// identity `first` meanwhile.
    fn is_held(&self, old: u32, first: u32) -> bool {
        let applied = &self.ids.applied;
        self.holds && old != first && !applied.same_peer(old, &self.desired.meanwhile, first)
    }

    /// Phase 1. Returns the known addresses as they are then.
    fn hold_addresses<A: Family>(&self, plan: &mut Builder) -> BTreeMap<A, IdentityVal> {
        let wanted = &A::tables(&self.desired.tables).identities;
        let transition = &A::tables(&self.desired.transition).identities;
        let first = if transition.is_empty() {
            wanted
        } else {
            transition
        };
        let mut present = A::tables(&self.written.tables).identities.clone();
        for (addr, old) in &mut present {
            let value = match first.get(addr) {
                Some(first) if !self.is_held(old.identity, first.identity) => *first,
                None if !self.holds => continue,
                _ => unknown(old),
            };
            if value != *old {
                plan.put(A::IDENTITIES, addr, &value);
                *old = value;
            }
        }
        for (addr, wanted) in wanted.iter().filter(|_| self.holds) {
            present.entry(*addr).or_insert_with(|| {
                let value = IdentityVal {
                    ifindex: 0,
                    ..unknown(wanted)
                };
                plan.put(A::IDENTITIES, addr, &value);
                value
            });
        }
        present
    }

    /// Phase 3.
    fn release_addresses<A: Family>(&self, present: &BTreeMap<A, IdentityVal>, plan: &mut Builder) {
        for (addr, wanted) in &A::tables(&self.desired.tables).identities {
            if present.get(addr) != Some(wanted) {
                plan.put(A::IDENTITIES, addr, wanted);
            }
        }
    }
}

/// Whom rules that accept do not match, and rules that deny do. Blocks of either state may hold it.
fn unknown(known: &IdentityVal) -> IdentityVal {
    let identity = if known.flags & identity_flags::POD != 0 {
        peer::UNKNOWN_POD
    } else {
        peer::UNKNOWN_NODE
    };
    IdentityVal {
        identity,
        flags: known.flags & !identity_flags::NO_CIDR,
        ..*known
    }
}

fn swings(old: &Subject, wanted: &Subject) -> bool {
    let swings = |old: u32, wanted: u32| old != 0 && wanted != 0 && old != wanted;
    swings(old.ingress, wanted.ingress) || swings(old.egress, wanted.egress)
}

fn by_device(tables: &Tables) -> BTreeMap<u32, (Place, &Subject)> {
    let overflow = tables
        .subjects_overflow
        .iter()
        .map(|(&key, subject)| (MapId::SubjectsOverflow, key, subject));
    let places = tables
        .subjects
        .iter()
        .map(|(&key, subject)| (MapId::Subjects, key, subject));
    // The array wins, as in the kernel's look-up.
    overflow
        .chain(places)
        .map(|(map, key, subject)| (subject.ifindex, ((map, key), subject)))
        .collect()
}
