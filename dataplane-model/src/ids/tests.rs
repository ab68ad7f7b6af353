use super::*;

fn table() -> IdTable {
    let mut ids = IdTable::new(Capacities {
        rulesets: 4,
        port_bounds: 8,
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
    let first = id(&mut ids, IdKind::Rule, "a");
    assert_ne!(first, id(&mut ids, IdKind::Rule, "b"));
    ids.begin();
    assert_eq!(id(&mut ids, IdKind::Rule, "a"), first);
    assert_eq!(ids.name(IdKind::Rule, first).map(|name| &**name), Some("a"));
    assert_eq!(ids.in_use().len(), 1, "b is retired");
}

#[test]
fn a_retired_number_is_free_only_after_the_plan() {
    let mut ids = table();
    (0..3).for_each(|n| assert_eq!(id(&mut ids, IdKind::Ruleset, &format!("old{n}")), n + 1));
    ids.begin();
    id(&mut ids, IdKind::Ruleset, "old0");
    let error = ids.id(IdKind::Ruleset, "new", String::new).unwrap_err();
    assert_eq!(
        error,
        CapacityError::Map {
            map: MapId::Rulesets,
            need: 5,
            capacity: 4
        }
    );
    assert!(error.to_string().contains("rulesets"), "{error}");
    ids.settle(Arc::default());
    assert_eq!(id(&mut ids, IdKind::Ruleset, "new"), 2);
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
fn what_a_service_holds_outlives_compiles_of_policy() {
    let mut ids = table();
    let held = key(IdKind::Frontend, "web");
    assert_eq!(ids.hold(held).unwrap(), (1, true));
    ids.begin();
    ids.settle(Arc::default());
    assert_eq!(ids.hold(held).unwrap(), (1, false));
    assert_eq!(ids.in_use().len(), 0, "it is no number of policy");
    ids.release(held);
    assert_eq!(ids.len(), 0);
}

#[test]
fn what_no_service_holds_after_a_restart_is_known() {
    let mut before = table();
    let [web, gone] = ["web", "gone"].map(|name| key(IdKind::ServicePort, name));
    before.hold(web).unwrap();
    before.hold(gone).unwrap();
    let mut after = table();
    after.restore(before.held());
    assert_eq!(after.hold(web).unwrap(), (1, false));
    assert_eq!(after.unheld().collect::<Vec<_>>(), [gone]);
}

#[test]
fn numbers_go_on_after_a_restart() {
    let mut before = table();
    let numbers: Vec<_> = ["a", "b", "c"]
        .map(|name| id(&mut before, IdKind::Identity, name))
        .into();
    let block = before.span_of(key(IdKind::PortSpan, "block"), 3).unwrap();
    let mut after = table();
    after.restore(before.in_use());
    after.begin();
    assert_eq!(
        after.span_of(key(IdKind::PortSpan, "block"), 3).unwrap(),
        block
    );
    assert_eq!(id(&mut after, IdKind::Identity, "d"), 4);
    let again: Vec<_> = ["a", "b", "c"]
        .map(|name| id(&mut after, IdKind::Identity, name))
        .into();
    assert_eq!(again, numbers);
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
        entry(1, IdKind::PortSpan as u32, 1, 4),
        entry(2, IdKind::PortSpan as u32, 3, 2),
        entry(3, IdKind::PortSpan as u32, 7, 2),
        entry(4, 99, 1, 1),
    ];
    ids.restore(entries);
    assert_eq!(ids.entries.len(), 1);
}
