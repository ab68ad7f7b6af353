use super::*;
use crate::capacity::Capacities;
use crate::compile::{PolicyMemo, compile_policy};
use crate::snapshot::*;
use crate::store::{BudgetSpent, MemoryStore};

struct World {
    snapshot: Snapshot,
    ids: IdTable,
    store: MemoryStore,
    written: Written,
}

impl World {
    fn new(capacities: Capacities) -> Self {
        let node = NodeConfig {
            name: "here".into(),
            ..NodeConfig::default()
        };
        let snapshot = Snapshot::new(node, []);
        Self {
            snapshot,
            ids: IdTable::new(capacities),
            store: MemoryStore::default(),
            written: Written::default(),
        }
    }

    fn apply(&mut self, object: Object) -> &mut Self {
        self.snapshot.apply(Event::Apply(object));
        self
    }

    fn plan(&mut self) -> Result<Plan, Vec<CapacityError>> {
        let desired = compile_policy(&self.snapshot, &mut self.ids, &mut PolicyMemo::default())?;
        Plan::new(&desired, &self.written, &self.ids)
    }

    fn run(&mut self) -> Result<Plan, ApplyError<BudgetSpent>> {
        let plan = self.plan().unwrap();
        plan.begin(&mut self.store, &mut self.written)?;
        plan.finish(&mut self.store, &mut self.written, &mut self.ids)?;
        Ok(plan)
    }
}

fn policed_pod(world: &mut World) {
    let ips = vec![[10, 0, 0, 1].into()];
    let key = ObjectKey::new("shop", "db");
    let pod = Pod {
        ips: ips.clone(),
        node: Some("here".into()),
        ..Pod::new(key)
    };
    let rule = Rule {
        peers: Peers::Any,
        ports: Ports::Any,
    };
    let policy = NetworkPolicy {
        key: ObjectKey::new("shop", "p"),
        pods: Selector::everything(),
        mode: None,
        ingress: Some(vec![rule]),
        egress: None,
    };
    world.apply(Object::Pod(pod)).apply(Object::Policy(policy));
    world.apply(Object::Interface(Interface {
        ifindex: 10,
        addresses: ips,
        ..Interface::default()
    }));
}

fn order(plan: &Plan) -> Vec<(MapId, Action)> {
    plan.steps()
        .map(|step| (step.map(), step.action()))
        .collect()
}

#[test]
fn rules_come_before_the_pod_that_needs_them_and_go_after_it() {
    let mut world = World::new(Capacities::default());
    policed_pod(&mut world);
    let plan = world.run().unwrap();
    let puts = [
        MapId::Ids,
        MapId::Epoch,
        MapId::PortBounds,
        MapId::Rulesets,
        MapId::Rows,
        MapId::Subjects,
        MapId::Identities4,
        MapId::Epoch,
    ];
    assert_eq!(order(&plan), puts.map(|map| (map, Action::Put)));
    world.snapshot.pods.clear();
    world.snapshot.interfaces.clear();
    let plan = world.run().unwrap();
    let expected = [
        (MapId::Epoch, Action::Put),
        (MapId::Identities4, Action::Delete),
        (MapId::Subjects, Action::Put),
        (MapId::Rows, Action::Delete),
        (MapId::Epoch, Action::Put),
        (MapId::Ids, Action::Delete),
    ];
    assert_eq!(order(&plan), expected);
}

#[test]
fn the_epoch_is_odd_while_policy_changes() {
    let mut world = World::new(Capacities::default());
    policed_pod(&mut world);
    let plan = world.plan().unwrap();
    world.store.budget = Some(plan.len() - 1);
    world.run().unwrap_err();
    assert_eq!(world.written.epoch, 1);
    world.store.budget = None;
    let rest = world.run().unwrap();
    assert_eq!(
        order(&rest),
        [(MapId::Epoch, Action::Put)],
        "only the epoch was left"
    );
    assert_eq!(world.written.epoch, 2);
}

#[test]
fn what_failed_is_pending() {
    let mut world = World::new(Capacities::default());
    policed_pod(&mut world);
    let whole = world.plan().unwrap().len();
    world.store.budget = Some(2);
    let error = world.run().unwrap_err();
    assert_eq!(error.pending, whole - 2);
    assert!(
        error
            .to_string()
            .contains("failed: no operations are left;"),
        "{error}"
    );
    world.store.budget = None;
    world.run().unwrap();
    assert!(world.run().unwrap().is_empty());
}

#[test]
fn a_change_that_does_not_fit_is_not_begun() {
    let mut world = World::new(Capacities {
        rows: 0,
        ..Capacities::default()
    });
    policed_pod(&mut world);
    let errors = world.plan().unwrap_err();
    assert_eq!(
        errors,
        [CapacityError::Map {
            map: MapId::Rows,
            need: 1,
            capacity: 0
        }]
    );
    assert_eq!(world.store, MemoryStore::default());
}
