//! The maps depend on the objects that exist, not on what happened before.

use dataplane_model::compile::compile;
use dataplane_model::ids::IdTable;
use dataplane_model::snapshot::*;
use proptest::prelude::*;

use crate::cases;
use crate::cluster::{node, objects, snapshot};
use crate::names::by_name;
use crate::world::World;

/// Events that turn one set of objects into another, in the order of the objects given.
fn changes(from: &Snapshot, old: &[Object], new: &[Object]) -> Vec<Event> {
    let stays = |key: &Option<Key>| new.iter().any(|object| object.key() == *key);
    let gone = old
        .iter()
        .map(Object::key)
        .filter(|key| !stays(key))
        .flatten()
        .map(Event::Delete);
    assert!(from.is_in_sync());
    gone.chain(new.iter().cloned().map(Event::Apply)).collect()
}

fn shuffled() -> impl Strategy<Value = Vec<Object>> {
    objects().prop_flat_map(|objects| Just(objects).prop_shuffle())
}

proptest! {
    #![proptest_config(cases(96))]

    #[test]
    fn the_order_of_events_does_not_matter(objects in objects(), order in any::<prop::sample::Index>()) {
        let expected = snapshot(&objects);
        let start = order.index(objects.len());
        let reversed: Vec<_> = objects.iter().rev().cloned().collect();
        let rotated = [&objects[start..], &objects[..start]].concat();
        let repeated = [&objects[..], &objects[start..], &reversed].concat();
        let tables = compile(&expected, &mut IdTable::default()).expect("it fits").tables;
        for variant in [reversed, rotated, repeated] {
            let snapshot = snapshot(&variant);
            prop_assert_eq!(&snapshot, &expected);
            prop_assert_eq!(&compile(&snapshot, &mut IdTable::default()).expect("it fits").tables, &tables);
        }
    }

    #[test]
    fn earlier_states_leave_no_trace(old in objects(), new in shuffled(), every in 1usize..20) {
        let mut world = World::new();
        let mut snapshot = snapshot(&old);
        world.reconcile(&snapshot);
        for (count, event) in changes(&snapshot, &old, &new).into_iter().enumerate() {
            snapshot.apply(event);
            if count % every == 0 {
                world.reconcile(&snapshot);
            }
        }
        let desired = world.reconcile(&snapshot);
        let fresh = compile(&crate::cluster::snapshot(&new), &mut World::new().ids).expect("it fits");
        prop_assert_eq!(by_name(&desired.tables), by_name(&fresh.tables));
        prop_assert_eq!(world.reachable(&desired), desired.tables);
    }

    #[test]
    fn squashed_events_end_in_the_same_maps(old in objects(), new in shuffled()) {
        let (mut split, mut squashed) = (World::new(), World::new());
        split.reconcile(&snapshot(&old));
        squashed.reconcile(&snapshot(&old));
        let mut snapshot = snapshot(&old);
        for event in changes(&snapshot.clone(), &old, &new) {
            snapshot.apply(event);
            // Compiled, but not applied.
            split.plan(&snapshot);
        }
        let (split, squashed) = (split.reconcile(&snapshot), squashed.reconcile(&snapshot));
        prop_assert_eq!(by_name(&split.tables), by_name(&squashed.tables));
    }

    #[test]
    fn a_restart_writes_nothing(old in objects(), new in objects()) {
        let mut world = World::new();
        world.reconcile(&snapshot(&old));
        let snapshot = snapshot(&new);
        let before = world.reconcile(&snapshot);
        world.restart();
        let (after, plan) = world.plan(&snapshot);
        prop_assert!(plan.is_empty(), "{:?}", plan);
        prop_assert_eq!(after.tables, before.tables);
    }

    #[test]
    fn nothing_is_written_before_all_sources_are_in_sync(old in objects(), new in objects()) {
        let mut world = World::new();
        world.reconcile(&snapshot(&old));
        world.restart();
        let store = world.store.clone();
        let mut partial = Snapshot::new(node(), [Kind::Policy, Kind::Pod]);
        for (count, object) in new.into_iter().enumerate() {
            partial.apply(Event::Apply(object));
            if count % 5 == 0 {
                let (_, plan) = world.plan(&partial);
                plan.apply(&mut world.store, &mut world.written, &mut world.ids).expect("there is nothing to write");
            }
        }
        prop_assert_eq!(&world.store, &store);
        partial.apply(Event::InSync(Kind::Policy));
        prop_assert!(world.plan(&partial).1.is_empty());
        partial.apply(Event::InSync(Kind::Pod));
        let desired = world.reconcile(&partial);
        prop_assert_eq!(world.reachable(&desired), desired.tables);
    }
}
