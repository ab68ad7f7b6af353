//! The maps depend on the objects that exist, not on what happened before.

use dataplane_model::compile::compile;
use dataplane_model::ids::IdTable;
use dataplane_model::snapshot::*;
use proptest::prelude::*;

use crate::cases;
use crate::names::by_name;
use crate::world::{World, fresh_ids};
use sluice_generate::{
    changes,
    cluster::{node, objects, snapshot},
};

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
        let mut world = World::of(&old);
        for (count, event) in changes(&old, &new).into_iter().enumerate() {
            world.state.fold(event);
            if count % every == 0 {
                world.reconcile();
            }
        }
        world.reconcile();
        let fresh = compile(&snapshot(&new), &mut fresh_ids()).expect("it fits");
        prop_assert_eq!(by_name(&world.tables()), by_name(&fresh.tables));
        prop_assert_eq!(world.reachable(), world.tables());
        prop_assert_eq!(world.reconcile().operations, 0);
    }

    #[test]
    fn squashed_events_end_in_the_same_maps(old in objects(), new in shuffled()) {
        let (mut split, mut squashed) = (World::of(&old), World::of(&old));
        for event in changes(&old, &new) {
            split.state.fold(event);
            split.reconcile();
        }
        squashed.turn_into(&old, &new);
        squashed.reconcile();
        prop_assert_eq!(by_name(&split.tables()), by_name(&squashed.tables()));
    }

    #[test]
    fn a_restart_writes_nothing(old in objects(), new in objects()) {
        let mut world = World::of(&old);
        world.turn_into(&old, &new);
        world.reconcile();
        let before = world.tables();
        world.restart(snapshot(&new));
        let outcome = world.reconcile();
        prop_assert_eq!(outcome.operations, 0);
        prop_assert_eq!(world.tables(), before);
    }

    #[test]
    fn what_changed_during_a_restart_is_put_right(old in objects(), new in objects()) {
        let mut world = World::of(&old);
        world.restart(snapshot(&new));
        world.reconcile();
        let fresh = compile(&snapshot(&new), &mut fresh_ids()).expect("it fits");
        prop_assert_eq!(by_name(&world.tables()), by_name(&fresh.tables));
        prop_assert_eq!(world.reachable(), world.tables());
        prop_assert_eq!(world.reconcile().operations, 0);
    }

    #[test]
    fn nothing_is_written_before_all_sources_are_in_sync(old in objects(), new in objects()) {
        let mut world = World::of(&old);
        world.restart(Snapshot::new(node(), [Kind::Policy, Kind::Pod]));
        let store = world.store.clone();
        for (count, object) in new.into_iter().enumerate() {
            world.state.fold(Event::Apply(object));
            if count % 5 == 0 {
                world.state.reconcile(&mut world.store);
            }
        }
        world.state.fold(Event::InSync(Kind::Policy));
        world.state.reconcile(&mut world.store);
        prop_assert_eq!(&world.store, &store);
        world.state.fold(Event::InSync(Kind::Pod));
        world.reconcile();
        prop_assert_eq!(world.reachable(), world.tables());
    }
}
