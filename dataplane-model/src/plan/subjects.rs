//! Exchanging pods' rulesets and identities.
//!
//! Two things a verdict depends on change one entry at a time: the ruleset of the pod that is judged
//! (its subject) and the identity of its peer (an address). Between an old ruleset and a new identity, an answer is the old rules' about the peer as it is now.
//! That is the old state's own answer as long as the peer's labels are the same. For a peer whose
//! labels changed, or whose address went to another pod, it might allow what neither state does; such
//! a peer has identity 0 while rulesets are exchanged.
//!
//! In order:
//!
//! 1. peers that changed get identity 0, if some pod goes from one ruleset to another;
//! 2. isolate: directions that become isolated get their ruleset;
//! 3. exchange: directions go from one ruleset to another;
//! 4. release: directions that are isolated no more get none, and new pods their entry;
//! 5. addresses get their identities.

use std::collections::BTreeMap;

use dataplane_common::abi::{Addr4, Addr6, IdentityVal, Subject};

use super::builder::Builder;
use crate::compile::Desired;
use crate::ids::IdTable;
use crate::store::Written;
use crate::tables::{Family, MapId, Tables};

/// Adds all changes of subjects and identities but removals.
pub(super) fn exchange(desired: &Desired, written: &Written, ids: &IdTable, plan: &mut Builder) {
    let before = by_device(&written.tables);
    let swings = by_device(&desired.tables)
        .iter()
        .any(|(ifindex, &(_, subject))| {
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
    exchange.hold_addresses::<Addr4>(plan);
    exchange.hold_addresses::<Addr6>(plan);
    let mut last = exchange
        .before
        .iter()
        .map(|(&ifindex, &(place, subject))| (ifindex, (place, *subject)))
        .collect();
    for pass in [Pass::Isolate, Pass::Exchange, Pass::Release] {
        exchange.run(pass, &mut last, plan);
    }
    exchange.release_addresses::<Addr4>(plan);
    exchange.release_addresses::<Addr6>(plan);
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
    fn run(&self, pass: Pass, last: &mut BTreeMap<u32, (Place, Subject)>, plan: &mut Builder) {
        let wanted = by_device(&self.desired.tables);
        // The overflow first: who loses its place is never without an entry.
        let mut subjects: Vec<_> = wanted.iter().collect();
        subjects.sort_by_key(|(_, (place, _))| (place.0 == MapId::Subjects, place.1));
        for (&ifindex, &(place, wanted)) in subjects {
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

    fn is_held(&self, old: u32, wanted: u32) -> bool {
        self.holds
            && old != wanted
            && old != 0
            && !self
                .ids
                .applied
                .same_peer(old, &self.desired.policy, wanted)
    }

    fn hold_addresses<A: Family>(&self, plan: &mut Builder) {
        let written = &A::tables(&self.written.tables).identities;
        for (addr, wanted) in &A::tables(&self.desired.tables).identities {
            if let Some(old) = written.get(addr)
                && self.is_held(old.identity, wanted.identity)
            {
                plan.put(
                    A::IDENTITIES,
                    addr,
                    &IdentityVal {
                        identity: 0,
                        ..*old
                    },
                );
            }
        }
    }

    fn release_addresses<A: Family>(&self, plan: &mut Builder) {
        let written = &A::tables(&self.written.tables).identities;
        for (addr, wanted) in &A::tables(&self.desired.tables).identities {
            if written.get(addr) != Some(wanted) {
                plan.put(A::IDENTITIES, addr, wanted);
            }
        }
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
