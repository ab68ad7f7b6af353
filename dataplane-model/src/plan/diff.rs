//! The order of a plan.

use std::collections::BTreeMap;

use dataplane_common::abi::{Abi, BackendVal};

use super::builder::Builder;
use super::{exceeds, subjects};
use crate::capacity::{Capacities, CapacityError};
use crate::compile::Desired;
use crate::ids::{IdTable, emptied};
use crate::store::Written;
use crate::tables::{Cell, Family, MapId, TableVisitor};

/// Adds all operations, in order.
pub(super) fn build(desired: &Desired, written: &Written, ids: &IdTable, plan: &mut Builder) {
    let mut before = Builder::default();
    policy_puts(desired, written, ids, &mut before);
    let mut after = Builder::default();
    policy_removals(desired, written, &mut after);
    let policy_changes = !before.is_empty() || !after.is_empty();

    put_changed(desired, written, MapId::Ids, plan);
    if policy_changes && written.epoch.is_multiple_of(2) {
        plan.put(MapId::Epoch, &0u32, &written.epoch.wrapping_add(1));
    }
    // A new pod is policed before it is a backend, and is one no more before its rules go.
    plan.append(before);
    services(desired, written, plan);
    plan.append(after);
    if policy_changes || !written.epoch.is_multiple_of(2) {
        plan.put(MapId::Epoch, &0u32, &((written.epoch | 1).wrapping_add(1)));
    }
    remove_absent(desired, written, MapId::Ids, plan);
}

/// Checks that each map holds what is desired together with what is written and removed later.
pub(super) fn check_capacity(
    desired: &Desired,
    written: &Written,
    capacities: &Capacities,
) -> Result<(), Vec<CapacityError>> {
    let mut errors = Vec::new();
    for map in MapId::ALL.into_iter().filter(|map| !map.is_array()) {
        let mut count = CountBoth(0);
        desired.tables.visit(map, &written.tables, &mut count);
        let transition = if map == MapId::Rows {
            desired.transition.len()
        } else {
            0
        };
        errors.extend(exceeds(map, count.0 + transition, capacities));
    }
    if errors.is_empty() {
        Ok(())
    } else {
        Err(errors)
    }
}

fn services(desired: &Desired, written: &Written, plan: &mut Builder) {
    for map in [
        MapId::Backends4,
        MapId::Backends6,
        MapId::Slots,
        MapId::Classes,
        MapId::Services4,
        MapId::Services6,
    ] {
        put_changed(desired, written, map, plan);
    }
    for map in [
        MapId::Services4,
        MapId::Services6,
        MapId::Classes,
        MapId::Slots,
    ] {
        remove_absent(desired, written, map, plan);
    }
    empty_backends(
        &desired.tables.v4.backends,
        &written.tables.v4.backends,
        plan,
    );
    empty_backends(
        &desired.tables.v6.backends,
        &written.tables.v6.backends,
        plan,
    );
}

fn policy_puts(desired: &Desired, written: &Written, ids: &IdTable, plan: &mut Builder) {
    for map in [MapId::PortBounds, MapId::Rulesets, MapId::Rows] {
        put_changed(desired, written, map, plan);
    }
    let rows = &written.tables.rows;
    for (key, row) in desired
        .transition
        .iter()
        .filter(|&(key, row)| rows.get(key) != Some(row))
    {
        plan.put(MapId::Rows, key, row);
    }
    // Longest prefixes first: an exception stands before the block that it is an exception of.
    cidrs(
        &desired.tables.v4.cidrs,
        &written.tables.v4.cidrs,
        MapId::Cidrs4,
        plan,
    );
    cidrs(
        &desired.tables.v6.cidrs,
        &written.tables.v6.cidrs,
        MapId::Cidrs6,
        plan,
    );
    subjects::exchange(desired, written, ids, plan);
}

fn policy_removals(desired: &Desired, written: &Written, plan: &mut Builder) {
    for map in [MapId::Identities4, MapId::Identities6] {
        remove_absent(desired, written, map, plan);
    }
    subjects::remove(desired, written, plan);
    // Shortest first, as the map is sorted: an exception outlives its block.
    for map in [
        MapId::Cidrs4,
        MapId::Cidrs6,
        MapId::Rows,
        MapId::Rulesets,
        MapId::PortBounds,
    ] {
        remove_absent(desired, written, map, plan);
    }
    for key in desired
        .transition
        .keys()
        .filter(|key| !written.tables.rows.contains_key(key))
    {
        plan.delete(MapId::Rows, key);
    }
}

fn cidrs<K: Cell + Ord, V: Cell>(
    desired: &BTreeMap<K, V>,
    written: &BTreeMap<K, V>,
    map: MapId,
    plan: &mut Builder,
) {
    for (key, value) in desired
        .iter()
        .rev()
        .filter(|&(key, value)| written.get(key) != Some(value))
    {
        plan.put(map, key, value);
    }
}

/// An emptied backend keeps a generation, so that flows and affinities see that it is gone.
fn empty_backends<A: Family>(
    desired: &BTreeMap<u32, BackendVal<A>>,
    written: &BTreeMap<u32, BackendVal<A>>,
    plan: &mut Builder,
) where
    BackendVal<A>: Abi + Default,
{
    for (index, backend) in written
        .iter()
        .filter(|(index, _)| !desired.contains_key(index))
    {
        let empty = BackendVal {
            generation: emptied(backend.generation),
            ..BackendVal::<A>::default()
        };
        plan.put(A::BACKENDS, index, &empty);
    }
}

fn put_changed(desired: &Desired, written: &Written, map: MapId, plan: &mut Builder) {
    desired
        .tables
        .visit(map, &written.tables, &mut PutChanged(plan));
}

fn remove_absent(desired: &Desired, written: &Written, map: MapId, plan: &mut Builder) {
    desired
        .tables
        .visit(map, &written.tables, &mut RemoveAbsent(plan));
}

struct PutChanged<'a>(&'a mut Builder);

impl TableVisitor for PutChanged<'_> {
    fn visit<K: Cell + Ord, V: Cell>(
        &mut self,
        map: MapId,
        desired: &BTreeMap<K, V>,
        written: &BTreeMap<K, V>,
    ) {
        for (key, value) in desired
            .iter()
            .filter(|&(key, value)| written.get(key) != Some(value))
        {
            self.0.put(map, key, value);
        }
    }
}

/// Deletes from hashes. Places of arrays that nothing points to any more are forgotten.
struct RemoveAbsent<'a>(&'a mut Builder);

impl TableVisitor for RemoveAbsent<'_> {
    fn visit<K: Cell + Ord, V: Cell>(
        &mut self,
        map: MapId,
        desired: &BTreeMap<K, V>,
        written: &BTreeMap<K, V>,
    ) {
        for key in written.keys().filter(|key| !desired.contains_key(key)) {
            if !map.is_array() {
                self.0.delete(map, key);
            } else if let Some(place) =
                dataplane_common::abi::from_bytes(dataplane_common::abi::bytes_of(key))
            {
                self.0.forget(map, place);
            }
        }
    }
}

struct CountBoth(usize);

impl TableVisitor for CountBoth {
    fn visit<K: Cell + Ord, V: Cell>(
        &mut self,
        _: MapId,
        desired: &BTreeMap<K, V>,
        written: &BTreeMap<K, V>,
    ) {
        self.0 = desired.len()
            + written
                .keys()
                .filter(|key| !desired.contains_key(key))
                .count();
    }
}
