use super::*;

fn table() -> IdTable {
    let mut ids = IdTable::new(Capacities {
        backends: 4,
        slots: 8,
        ..Capacities::default()
    });
    ids.begin();
    ids
}

fn id(ids: &mut IdTable, kind: IdKind, name: &str) -> u32 {
    ids.id(kind, name, || name.to_owned()).unwrap()
}

#[test]
fn a_thing_keeps_its_number() {
    let mut ids = table();
    let first = id(&mut ids, IdKind::Frontend, "a");
    assert_ne!(first, id(&mut ids, IdKind::Frontend, "b"));
    ids.begin();
    assert_eq!(id(&mut ids, IdKind::Frontend, "a"), first);
    assert_eq!(
        ids.name(IdKind::Frontend, first).map(|name| &**name),
        Some("a")
    );
    assert_eq!(ids.in_use().len(), 1, "b is retired");
}

#[test]
fn a_retired_number_is_free_only_after_the_plan() {
    let mut ids = table();
    (0..3).for_each(|n| assert_eq!(id(&mut ids, IdKind::Backend4, &format!("old{n}")), n + 1));
    ids.begin();
    id(&mut ids, IdKind::Backend4, "old0");
    let error = ids.id(IdKind::Backend4, "new", String::new).unwrap_err();
    assert_eq!(
        error,
        CapacityError::Map {
            map: MapId::Backends4,
            need: 5,
            capacity: 4
        }
    );
    assert!(error.to_string().contains("backends4"), "{error}");
    ids.settle(Arc::default());
    assert_eq!(id(&mut ids, IdKind::Backend4, "new"), 2);
}

#[test]
fn a_retired_thing_that_comes_back_has_its_number() {
    let mut ids = table();
    let old = id(&mut ids, IdKind::Rule, "a");
    ids.begin();
    ids.begin();
    assert_eq!(id(&mut ids, IdKind::Rule, "a"), old);
}

#[test]
fn generations_tell_filled_from_emptied() {
    let mut ids = table();
    let index = id(&mut ids, IdKind::Backend4, "a");
    assert_eq!(ids.generation(0, index), 1);
    assert_eq!(ids.generation(0, index), 1);
    ids.begin();
    ids.settle(Arc::default());
    (0..3).for_each(|n| {
        id(&mut ids, IdKind::Backend4, &format!("n{n}"));
    });
    assert_eq!(ids.generation(0, index), 3);
    assert_eq!(emptied(3), 4);
}

#[test]
fn numbers_go_on_after_a_restart() {
    let mut before = table();
    let numbers: Vec<_> = ["a", "b", "c"]
        .map(|name| id(&mut before, IdKind::Identity, name))
        .into();
    let block = before.span(IdKind::Block, "block", 3).unwrap();
    let mut after = table();
    after.restore(&before.in_use(), BTreeMap::from([((0, 1), 6)]));
    after.begin();
    assert_eq!(after.span(IdKind::Block, "block", 3).unwrap(), block);
    assert_eq!(id(&mut after, IdKind::Identity, "d"), 4);
    let again: Vec<_> = ["a", "b", "c"]
        .map(|name| id(&mut after, IdKind::Identity, name))
        .into();
    assert_eq!(again, numbers);
    assert_eq!(after.generation(0, 1), 7);
}

#[test]
fn contradictory_entries_are_left_out() {
    let mut ids = table();
    let entry = |low, kind, id, count| {
        (
            IdKey {
                high: 0,
                low,
                kind,
                reserved: 0,
            },
            IdVal { id, count },
        )
    };
    let entries = [
        entry(1, IdKind::Block as u32, 1, 4),
        entry(2, IdKind::Block as u32, 3, 2),
        entry(3, IdKind::Block as u32, 7, 2),
        entry(4, 99, 1, 1),
    ];
    ids.restore(&entries.into(), BTreeMap::new());
    assert_eq!(ids.entries.len(), 1);
}
