use dataplane_common::abi::{Addr4, BackendVal, Port};

use super::*;
use crate::capacity::Capacities;
use crate::compile::compile;
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
        let desired = compile(&self.snapshot, &mut self.ids)?;
        Plan::new(&desired, &self.written, &self.ids)
    }

    fn run(&mut self) -> Result<Plan, ApplyError<BudgetSpent>> {
        let plan = self.plan().unwrap();
        plan.apply(&mut self.store, &mut self.written, &mut self.ids)?;
        Ok(plan)
    }
}

fn service(backends: &[u8]) -> [Object; 2] {
    let key = ObjectKey::new("shop", "web");
    let port = ServicePort {
        name: "".into(),
        protocol: Protocol::Tcp,
        port: 80,
        target: TargetPort::Number(8080),
        node_port: None,
    };
    let endpoint = |&low: &u8| Endpoint {
        address: [10, 0, 0, low].into(),
        ready: true,
        serving: true,
        terminating: false,
        place: None,
    };
    let slice = EndpointSlice {
        key: ObjectKey::new("shop", "web-x"),
        service: key.clone(),
        ports: vec![SlicePort {
            name: "".into(),
            protocol: Protocol::Tcp,
            port: 8080,
        }],
        endpoints: backends.iter().map(endpoint).collect(),
    };
    let service = Service {
        cluster_ips: vec![[10, 96, 0, 1].into()],
        ports: vec![port],
        ..Service::new(key)
    };
    [Object::Service(service), Object::Slice(slice)]
}

fn with_service(world: &mut World, backends: &[u8]) {
    service(backends).into_iter().for_each(|object| {
        world.apply(object);
    });
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
        .iter()
        .map(|step| (step.map(), step.action()))
        .collect()
}

#[test]
fn a_service_is_written_from_its_backends_up() {
    let mut world = World::new(Capacities::default());
    with_service(&mut world, &[1, 2]);
    let plan = world.run().unwrap();
    let put = |map| (map, Action::Put);
    assert_eq!(
        order(&plan),
        [MapId::Ids, MapId::Backends4, MapId::Slots, MapId::Services4].map(put)
    );
}

#[test]
fn a_backend_is_emptied_after_its_frontend_changed() {
    let mut world = World::new(Capacities::default());
    with_service(&mut world, &[1, 2]);
    world.run().unwrap();
    with_service(&mut world, &[2]);
    let plan = world.run().unwrap();
    let expected = [
        (MapId::Ids, Action::Put),
        (MapId::Slots, Action::Put),
        (MapId::Services4, Action::Put),
        (MapId::Backends4, Action::Put),
        (MapId::Ids, Action::Delete),
    ];
    assert_eq!(order(&plan), expected);
    let emptied: BackendVal<Addr4> = world.store.get(MapId::Backends4, &1u32).unwrap();
    assert_eq!(
        emptied,
        BackendVal {
            generation: 2,
            ..BackendVal::default()
        }
    );
    let kept: BackendVal<Addr4> = world.store.get(MapId::Backends4, &2u32).unwrap();
    assert_eq!((kept.port, kept.generation), (Port::new(8080), 1));
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
    with_service(&mut world, &[9]);
    world.run().unwrap();
    assert_eq!(world.written.epoch, 2, "Services are not policy");
}

#[test]
fn what_failed_is_pending() {
    let mut world = World::new(Capacities::default());
    with_service(&mut world, &[1, 2, 3]);
    let whole = world.plan().unwrap().len();
    world.store.budget = Some(7);
    let error = world.run().unwrap_err();
    assert_eq!((error.map, error.pending), (MapId::Backends4, whole - 7));
    assert!(
        error
            .to_string()
            .starts_with("Put in map backends4 failed: no operations are left;"),
        "{error}"
    );
    world.store.budget = None;
    assert_eq!(world.run().unwrap().len(), whole - 7);
    assert!(world.run().unwrap().is_empty());
}

#[test]
fn a_change_that_does_not_fit_is_not_begun() {
    let mut world = World::new(Capacities {
        services: 4,
        ..Capacities::default()
    });
    with_service(&mut world, &[1]);
    world.run().unwrap();
    let before = world.store.clone();
    let [Object::Service(service), _] = service(&[1]) else {
        panic!("a Service")
    };
    let second = Service {
        key: ObjectKey::new("shop", "second"),
        cluster_ips: vec![[10, 96, 0, 2].into()],
        ..service
    };
    world.apply(Object::Service(second));
    let errors = world.plan().unwrap_err();
    assert_eq!(
        errors,
        [CapacityError::Map {
            map: MapId::Services4,
            need: 8,
            capacity: 4
        }]
    );
    assert_eq!(world.store, before);
    world
        .snapshot
        .apply(Event::Delete(Key::Service(ObjectKey::new(
            "shop", "second",
        ))));
    assert!(
        world.plan().unwrap().is_empty(),
        "what was in force still is"
    );
}

#[test]
fn an_entry_that_went_wrong_is_put_right_after_a_fresh_look() {
    let mut world = World::new(Capacities::default());
    with_service(&mut world, &[1]);
    world.run().unwrap();
    let wrong = BackendVal::<Addr4> {
        service_port: 7,
        generation: 9,
        ..BackendVal::default()
    };
    world.store.corrupt(MapId::Backends4, &1u32, &wrong);
    (world.written, world.ids) = Written::adopt(&world.store, IdTable::default()).unwrap();
    assert_eq!(
        order(&world.run().unwrap()),
        [(MapId::Backends4, Action::Put)]
    );
    assert!(world.run().unwrap().is_empty());
}
