use std::net::IpAddr;

use dataplane_common::abi::{Addr4, BackendVal, scope};
use dataplane_common::net::proto;

use super::*;
use crate::eval;
use crate::reconcile::{Outcome, Reconciler};
use crate::snapshot::*;
use crate::store::MemoryStore;
use crate::tables::MapId;

struct World {
    state: Reconciler,
    store: MemoryStore,
}

impl World {
    fn new(capacities: Capacities) -> Self {
        let node = NodeConfig {
            name: "here".into(),
            ..NodeConfig::default()
        };
        let state = Reconciler::new(Snapshot::new(node, []), IdTable::new(capacities));
        Self {
            state,
            store: MemoryStore::default(),
        }
    }

    /// A Service with a slice of these backends.
    fn serve(&mut self, name: &str, low: u8, backends: &[u8]) -> Outcome {
        self.serve_as(Protocol::Tcp, name, low, backends)
    }

    fn serve_as(&mut self, protocol: Protocol, name: &str, low: u8, backends: &[u8]) -> Outcome {
        service(protocol, name, low, backends)
            .into_iter()
            .for_each(|object| {
                self.state.fold(Event::Apply(object));
            });
        self.run()
    }

    fn remove(&mut self, name: &str) -> Outcome {
        let key = ObjectKey::new("shop", name);
        self.state.fold(Event::Delete(Key::Service(key)));
        self.run()
    }

    fn run(&mut self) -> Outcome {
        self.state.reconcile(&mut self.store)
    }

    /// Last bytes of the backends behind 10.96.0.`low`, as the maps have them.
    fn backends(&self, low: u8) -> Option<Vec<u8>> {
        let vip = IpAddr::from([10, 96, 0, low]);
        let tables = self.store.tables();
        let serving = eval::serving(&tables, vip, 80, proto::TCP, scope::INTERNAL)?;
        let last = |ip: IpAddr| match ip {
            IpAddr::V4(ip) => ip.octets()[3],
            IpAddr::V6(ip) => ip.octets()[15],
        };
        Some(
            serving
                .backends
                .iter()
                .map(|share| last(share.addr))
                .collect(),
        )
    }

    fn index(&self, low: u8) -> Option<(u32, u32)> {
        let backends = self.store.tables().v4.backends;
        let found = backends
            .into_iter()
            .find(|(_, backend)| IpAddr::V4(backend.addr.into()) == IpAddr::from([10, 0, 0, low]));
        found.map(|(index, backend)| (index, backend.generation))
    }
}

fn service(protocol: Protocol, name: &str, low: u8, backends: &[u8]) -> [Object; 2] {
    let key = ObjectKey::new("shop", name);
    let port = ServicePort {
        name: "".into(),
        protocol,
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
        key: ObjectKey::new("shop", format!("{name}-x")),
        service: key.clone(),
        ports: vec![SlicePort {
            name: "".into(),
            protocol,
            port: 8080,
        }],
        endpoints: backends.iter().map(endpoint).collect(),
    };
    let service = Service {
        cluster_ips: vec![[10, 96, 0, low].into()],
        ports: vec![port],
        ..Service::new(key)
    };
    [Object::Service(service), Object::Slice(slice)]
}

#[test]
fn a_change_concerns_its_service_only() {
    let mut world = World::new(Capacities::default());
    world.serve("a", 1, &[1, 2]);
    world.serve("b", 2, &[3, 4]);
    let before = world.state.tables();
    let outcome = world.serve("b", 2, &[3]);
    // A block of one, the frontend's value for clients of either place, and the emptied backend.
    assert_eq!(outcome.operations, 4);
    assert_eq!(world.backends(1), Some(vec![1, 2]));
    assert_eq!(world.backends(2), Some(vec![3]));
    assert_ne!(world.state.tables(), before);
    assert_eq!(world.run().operations, 0);
}

#[test]
fn an_endpoint_keeps_its_index_whatever_others_do() {
    let mut world = World::new(Capacities::default());
    world.serve("a", 1, &[1, 2, 3]);
    let before = world.index(2);
    world.serve("a", 1, &[2, 3, 4]);
    assert_eq!(world.index(2), before);
}

#[test]
fn an_emptied_place_shows_another_generation() {
    let mut world = World::new(Capacities::default());
    world.serve("a", 1, &[1, 2]);
    let (index, generation) = world.index(1).unwrap();
    assert_eq!(generation, 1);
    world.serve("a", 1, &[2]);
    let emptied: BackendVal<Addr4> = world.store.get(MapId::Backends4, &index).unwrap();
    let expected = BackendVal {
        generation: 2,
        ..BackendVal::default()
    };
    assert_eq!(emptied, expected);
    world.serve("a", 1, &[2, 9]);
    assert_eq!(world.index(9), Some((index, 3)));
}

#[test]
fn what_does_not_fit_is_refused_by_name_and_others_go_on() {
    let mut world = World::new(Capacities {
        backends: 6,
        ..Capacities::default()
    });
    world.serve("a", 1, &[1, 2]);
    let outcome = world.serve("b", 2, &[3, 4, 5, 6]);
    assert_eq!(
        outcome.refused.as_deref(),
        Some(
            "Service shop/b: map backends4 needs 7 entries and has room for 6: raise its capacity or \
             remove objects"
        )
    );
    assert_eq!(world.backends(2), None);
    assert_eq!(world.serve("c", 3, &[7]).errors, Vec::<String>::new());
    assert_eq!(world.backends(3), Some(vec![7]));
    // Room comes, and nobody has to say so.
    let outcome = world.remove("a");
    assert_eq!(outcome.refused, None);
    assert_eq!(world.backends(2), Some(vec![3, 4, 5, 6]));
}

#[test]
fn a_change_that_does_not_fit_leaves_what_was_there() {
    let mut world = World::new(Capacities {
        backends: 4,
        ..Capacities::default()
    });
    world.serve("a", 1, &[1, 2]);
    let before = world.store.clone();
    assert!(world.serve("a", 1, &[1, 2, 3, 4]).refused.is_some());
    assert_eq!(world.store, before);
    assert_eq!(world.serve("a", 1, &[2, 3]).refused, None);
    assert_eq!(world.backends(1), Some(vec![2, 3]));
}

#[test]
fn a_failed_write_keeps_the_old_backends_and_is_tried_again() {
    let mut world = World::new(Capacities::default());
    world.serve("a", 1, &[1, 2]);
    for budget in 0..4 {
        let mut cut = World {
            state: world.state.clone(),
            store: world.store.clone(),
        };
        cut.store.budget = Some(budget);
        let outcome = cut.serve("a", 1, &[3, 4, 5]);
        assert_eq!(outcome.errors.len(), 1, "{outcome:?}");
        assert_eq!(cut.backends(1), Some(vec![1, 2]));
        assert_eq!(cut.state.pending(), 1);
        cut.store.budget = None;
        assert_eq!(cut.run().errors, Vec::<String>::new());
        assert_eq!(cut.backends(1), Some(vec![3, 4, 5]));
        assert_eq!(cut.index(1), None, "the old ones are emptied");
        assert_eq!(cut.state.used(MapId::Slots), 3);
        assert_eq!(cut.run().operations, 0);
    }
}

#[test]
fn a_cluster_ip_is_nobody_elses_whoever_is_there_first() {
    let mut world = World::new(Capacities::default());
    let claim = |name: &str, port: u16, created| {
        let mut objects = service(Protocol::Tcp, name, 9, &[9]);
        if let Object::Service(service) = &mut objects[0] {
            service.external_ips = vec![[10, 96, 0, 1].into()];
            service.ports[0].port = port;
            service.created = created;
        }
        objects.map(Event::Apply)
    };
    // The older Service, the first by name, and a port that the cluster IP's Service does not have.
    for event in [claim("a", 80, None), claim("c", 81, None)].concat() {
        world.state.fold(event);
    }
    world.run();
    assert_eq!(world.backends(1), Some(vec![9]));
    world.serve("b", 1, &[2]);
    assert_eq!(world.backends(1), Some(vec![2]));
    let at = |world: &World, port| {
        let vip = IpAddr::from([10, 96, 0, 1]);
        eval::serving(
            &world.store.tables(),
            vip,
            port,
            proto::TCP,
            scope::INTERNAL,
        )
        .is_some()
    };
    assert!(!at(&world, 81));
    let notices = world.state.notices();
    let told: Vec<_> = notices.iter().map(|notice| &*notice.object).collect();
    assert_eq!(told, ["Service shop/a", "Service shop/c"]);
    assert!(
        notices[0]
            .text
            .contains("10.96.0.1 port 80/TCP is left to Service shop/b")
    );
    assert_eq!(world.run().operations, 0);
    world.remove("b");
    assert!(at(&world, 80) && at(&world, 81));
    assert_eq!(world.state.notices(), []);
}

#[test]
fn of_two_equal_claims_the_older_service_has_it() {
    let mut world = World::new(Capacities::default());
    let claim = |name: &str, low: u8, created| {
        let mut objects = service(Protocol::Tcp, name, low, &[low]);
        if let Object::Service(service) = &mut objects[0] {
            service.lb_ips = vec![[10, 96, 0, 200].into()];
            service.created = Some(created);
        }
        objects.map(Event::Apply)
    };
    let mut apply = |name, low, created| {
        claim(name, low, created).into_iter().for_each(|event| {
            world.state.fold(event);
        });
        world.run();
        world.backends(200)
    };
    assert_eq!(apply("a", 1, 30), Some(vec![1]));
    assert_eq!(apply("b", 2, 20), Some(vec![2]));
    assert_eq!(apply("c", 3, 20), Some(vec![2]), "by name at last");
    // It is made again, and is the youngest.
    assert_eq!(apply("b", 2, 40), Some(vec![3]));
}

#[test]
fn an_address_goes_to_the_next_service_when_the_first_lets_go() {
    let mut world = World::new(Capacities::default());
    world.serve("b", 1, &[2]);
    world.serve("c", 1, &[3]);
    assert_eq!(world.backends(1), Some(vec![2]));
    world.serve("a", 1, &[1]);
    assert_eq!(world.backends(1), Some(vec![1]), "the first by name has it");
    assert_eq!(world.state.notices().len(), 2);
    world.remove("a");
    assert_eq!(world.backends(1), Some(vec![2]));
    world.remove("b");
    assert_eq!(world.backends(1), Some(vec![3]));
    assert_eq!(world.state.notices(), []);
    world.remove("c");
    assert_eq!(world.backends(1), None);
    assert_eq!(world.state.used(MapId::Services4), 0);
    assert_eq!(world.state.used(MapId::Ids), 0);
}

#[test]
fn an_entry_that_went_wrong_is_put_right_after_a_fresh_look() {
    let mut world = World::new(Capacities::default());
    world.serve("a", 1, &[1]);
    let (index, _) = world.index(1).unwrap();
    let wrong = BackendVal::<Addr4> {
        service_port: 7,
        generation: 9,
        ..BackendVal::default()
    };
    world.store.corrupt(MapId::Backends4, &index, &wrong);
    let snapshot = world.state.snapshot().clone();
    world.state = Reconciler::adopt(snapshot, IdTable::default(), &world.store).unwrap();
    world.run();
    assert_eq!(world.backends(1), Some(vec![1]));
    assert_eq!(world.run().operations, 0);
}

fn gone(world: &mut World) -> Vec<(String, u8, usize)> {
    let list = world.state.take_gone().into_iter();
    list.map(|gone| {
        (
            gone.backend.to_string(),
            gone.protocol,
            gone.frontends.len(),
        )
    })
    .collect()
}

#[test]
fn sockets_for_datagrams_end_with_their_backend() {
    let mut world = World::new(Capacities::default());
    world.serve_as(Protocol::Udp, "a", 1, &[1, 2]);
    world.serve("b", 2, &[3, 4]);
    assert_eq!(gone(&mut world), []);
    world.serve_as(Protocol::Udp, "a", 1, &[2]);
    world.serve("b", 2, &[4]);
    let expected = [("10.0.0.1:8080".to_owned(), proto::UDP, 1)];
    assert_eq!(gone(&mut world), expected, "connections drain");
    world.remove("a");
    let expected = [("10.0.0.2:8080".to_owned(), proto::UDP, 1)];
    assert_eq!(gone(&mut world), expected);
}

#[test]
fn sockets_end_whose_service_went_while_no_agent_ran() {
    let mut world = World::new(Capacities::default());
    world.serve_as(Protocol::Udp, "a", 1, &[1]);
    let nothing = Snapshot::new(NodeConfig::default(), []);
    world.state = Reconciler::adopt(nothing, IdTable::default(), &world.store).unwrap();
    world.run();
    let expected = [("10.0.0.1:8080".to_owned(), proto::UDP, 1)];
    assert_eq!(gone(&mut world), expected);
    assert_eq!(world.state.used(MapId::Backends4), 0);
}
