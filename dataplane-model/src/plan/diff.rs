//! The order of a plan.

use std::collections::{BTreeMap, BTreeSet};

use dataplane_common::abi::{Abi, Addr4, Addr6, CidrKey, CidrVal, bytes_of, from_bytes};

use super::builder::Builder;
use super::subjects;
use crate::capacity::CapacityError;
use crate::compile::Desired;
use crate::ids::IdTable;
use crate::store::Written;
use crate::tables::{Cell, Family, MapId, TableVisitor};

/// Adds all operations, in order: those before Services and those after them.
pub(super) fn build(
    desired: &Desired,
    written: &Written,
    ids: &IdTable,
    [first, last]: &mut [Builder; 2],
) {
    let mut before = Builder::default();
    policy_puts(desired, written, ids, &mut before);
    let mut after = Builder::default();
    policy_removals(desired, written, &mut after);
    let policy_changes = !before.is_empty() || !after.is_empty();
    let is_even = written.epoch.is_multiple_of(2);

    put_changed(desired, written, MapId::Ids, first);
    put_transition(desired, written, MapId::Ids, first);
    if policy_changes && is_even {
        first.put(MapId::Epoch, &0u32, &written.epoch.wrapping_add(1));
    }
    first.append(before);
    last.append(after);
    if policy_changes || !is_even {
        last.put(MapId::Epoch, &0u32, &(written.epoch | 1).wrapping_add(1));
    }
    remove_absent(desired, written, MapId::Ids, last);
    remove_transition(desired, written, MapId::Ids, last);
}

/// Checks that each map holds what is desired, what is needed meanwhile and what is removed later.
pub(super) fn check_capacity(
    desired: &Desired,
    written: &Written,
    ids: &IdTable,
) -> Result<(), Vec<CapacityError>> {
    let (capacities, services) = (ids.capacities(), ids.held().count());
    let mut errors = Vec::new();
    let of_policy = |map: &MapId| !map.is_array() && !map.is_service();
    for map in MapId::ALL.into_iter().filter(of_policy) {
        let mut gone = CountLeftOnly(0);
        written.tables.visit(map, &desired.tables, &mut gone);
        let mut transient = CountLeftOnly(0);
        desired
            .transition
            .visit(map, &desired.tables, &mut transient);
        let of_services = if map == MapId::Ids { services } else { 0 };
        let need = (desired.tables.len(map) + gone.0 + transient.0 + of_services) as u64;
        let capacity = capacities.of(map);
        if need > u64::from(capacity) {
            errors.push(CapacityError::Map {
                map,
                need,
                capacity,
            });
        }
    }
    if errors.is_empty() {
        Ok(())
    } else {
        Err(errors)
    }
}

fn policy_puts(desired: &Desired, written: &Written, ids: &IdTable, plan: &mut Builder) {
    for map in [MapId::PortBounds, MapId::Rulesets, MapId::Rows] {
        put_changed(desired, written, map, plan);
    }
    put_transition(desired, written, MapId::Rows, plan);
    cidr_puts::<Addr4>(desired, written, plan);
    cidr_puts::<Addr6>(desired, written, plan);
    subjects::exchange(desired, written, ids, plan);
}

fn policy_removals(desired: &Desired, written: &Written, plan: &mut Builder) {
    for map in [MapId::Identities4, MapId::Identities6] {
        remove_absent(desired, written, map, plan);
    }
    subjects::remove(desired, written, plan);
    cidr_removals::<Addr4>(desired, written, plan);
    cidr_removals::<Addr6>(desired, written, plan);
    for map in [MapId::Rows, MapId::Rulesets, MapId::PortBounds] {
        remove_absent(desired, written, map, plan);
    }
    remove_transition(desired, written, MapId::Rows, plan);
}

/// Prefixes of the transition, else the desired ones. Longest first: an exception stands before the
/// block that it is an exception of.
fn cidr_puts<A: Family>(desired: &Desired, written: &Written, plan: &mut Builder)
where
    CidrKey<A>: Abi,
{
    let written = &A::tables(&written.tables).cidrs;
    for (key, value) in first_cidrs::<A>(desired).iter().rev() {
        if written.get(key) != Some(value) {
            plan.put(A::CIDRS, key, value);
        }
    }
}

/// From the transition's prefixes to the desired ones. Shortest first, as the map is sorted: an
/// exception outlives its block.
fn cidr_removals<A: Family>(desired: &Desired, written: &Written, plan: &mut Builder)
where
    CidrKey<A>: Abi,
{
    let first = first_cidrs::<A>(desired);
    let last = &A::tables(&desired.tables).cidrs;
    for (key, value) in last {
        if first.get(key) != Some(value) {
            plan.put(A::CIDRS, key, value);
        }
    }
    let written = &A::tables(&written.tables).cidrs;
    let present: BTreeSet<_> = written.keys().chain(first.keys()).collect();
    for key in present.into_iter().filter(|key| !last.contains_key(key)) {
        plan.delete(A::CIDRS, key);
    }
}

fn first_cidrs<A: Family>(desired: &Desired) -> &BTreeMap<CidrKey<A>, CidrVal> {
    let transition = &A::tables(&desired.transition).cidrs;
    if transition.is_empty() {
        &A::tables(&desired.tables).cidrs
    } else {
        transition
    }
}

fn put_changed(desired: &Desired, written: &Written, map: MapId, plan: &mut Builder) {
    desired
        .tables
        .visit(map, &written.tables, &mut PutChanged(plan));
}

fn put_transition(desired: &Desired, written: &Written, map: MapId, plan: &mut Builder) {
    desired
        .transition
        .visit(map, &written.tables, &mut PutChanged(plan));
}

fn remove_absent(desired: &Desired, written: &Written, map: MapId, plan: &mut Builder) {
    desired
        .tables
        .visit(map, &written.tables, &mut RemoveAbsent(plan));
}

/// Deletes what only the transition had; what was written before it goes with what is absent.
fn remove_transition(desired: &Desired, written: &Written, map: MapId, plan: &mut Builder) {
    written
        .tables
        .visit(map, &desired.transition, &mut RemoveAbsent(plan));
}

/// The entries of a table, each with what another has at its key. A walk along both costs less than to
/// look each key up, unless there are few.
fn beside<'a, K: Ord, V>(
    table: &'a BTreeMap<K, V>,
    other: &'a BTreeMap<K, V>,
) -> impl Iterator<Item = (&'a K, &'a V, Option<&'a V>)> {
    let are_few = table.len() * 16 < other.len();
    let mut others = other.iter().peekable();
    table.iter().map(move |(key, value)| {
        let beside = if are_few {
            other.get(key)
        } else {
            while others.next_if(|(before, _)| *before < key).is_some() {}
            others
                .next_if(|(same, _)| *same == key)
                .map(|(_, value)| value)
        };
        (key, value, beside)
    })
}

/// Writes what the right-hand table has not, or has otherwise.
struct PutChanged<'a>(&'a mut Builder);

impl TableVisitor for PutChanged<'_> {
    fn visit<K: Cell + Ord, V: Cell>(
        &mut self,
        map: MapId,
        left: &BTreeMap<K, V>,
        right: &BTreeMap<K, V>,
    ) {
        for (key, value, other) in beside(left, right) {
            if other != Some(value) {
                self.0.put(map, key, value);
            }
        }
    }
}

/// Removes what only the right-hand table has: deletes it from hashes, and forgets places of arrays.
struct RemoveAbsent<'a>(&'a mut Builder);

impl TableVisitor for RemoveAbsent<'_> {
    fn visit<K: Cell + Ord, V: Cell>(
        &mut self,
        map: MapId,
        left: &BTreeMap<K, V>,
        right: &BTreeMap<K, V>,
    ) {
        let alone = beside(right, left).filter(|(_, _, other)| other.is_none());
        for (key, ..) in alone {
            if !map.is_array() {
                self.0.delete(map, key);
            } else if let Some(place) = from_bytes(bytes_of(key)) {
                self.0.forget(map, place);
            }
        }
    }
}

/// Counts what only the left-hand table has.
struct CountLeftOnly(usize);

impl TableVisitor for CountLeftOnly {
    fn visit<K: Cell + Ord, V: Cell>(
        &mut self,
        _: MapId,
        left: &BTreeMap<K, V>,
        right: &BTreeMap<K, V>,
    ) {
        let alone = beside(left, right).filter(|(_, _, other)| other.is_none());
        self.0 = alone.count();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_beside_what_the_other_table_has() {
        let table = BTreeMap::from([(1, 'a'), (4, 'b'), (9, 'c')]);
        let near = BTreeMap::from([(0, 'x'), (1, 'y'), (5, 'z'), (9, 'c')]);
        let far: BTreeMap<i32, char> = (0..100).map(|key| (key * 3, 'f')).collect();
        let of = |other: &BTreeMap<i32, char>| -> Vec<Option<char>> {
            let all = beside(&table, other);
            all.map(|(_, _, other)| other.copied()).collect()
        };
        assert_eq!(of(&near), [Some('y'), None, Some('c')]);
        assert_eq!(of(&far), [None, None, Some('f')]);
        assert_eq!(of(&BTreeMap::new()), [None; 3]);
    }
}
