//! Random policies over real packets: each pod to each other, on every port, by TCP and UDP in both
//! families, while policies and labels change. What arrives is what the oracle lets pass.
//!
//! `SLUICE_SEED` repeats a run from the seed that its failure names; `SLUICE_LONG` asks for more.

mod objects;
mod place;

use std::{collections::BTreeSet, net::IpAddr, path::Path, time::Duration};

use dataplane_model::{
    oracle,
    snapshot::{NodeConfig, Protocol, Snapshot},
};
use serde_json::Value;
use sluice::{convert::Converter, source::manifests};
use sluice_generate::dice::{Dice, given_seed, new_seed};
use sluice_lab::{
    kube::{Plane, objects::namespace},
    topology::{Cluster, Cni},
    wait,
};

use self::place::{Arrival, Place};

/// Ports that every pod listens on; the second has the name `web`.
const PORTS: [u16; 3] = [80, 8080, 9000];
/// Sets of policies that are tried, and how many with `SLUICE_LONG`.
const ROUNDS: [usize; 2] = [100, 4_000];
/// How long the packets may take to be as the oracle says, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

struct World {
    plane: Plane,
    places: Vec<Place>,
    teams: Vec<Option<&'static str>>,
    blocks: Vec<String>,
    attempt: u32,
}

#[test]
fn packets_arrive_where_the_oracle_lets_them() {
    let seed = given_seed("SLUICE_SEED").unwrap_or_else(new_seed);
    eprintln!("SLUICE_SEED={seed}");
    let rounds = ROUNDS[usize::from(std::env::var_os("SLUICE_LONG").is_some())];
    let mut dice = Dice::new(seed);
    let mut world = World::new(&mut dice);
    let mut allowed = 0;
    for round in 0..rounds {
        let policies = world.change(&mut dice);
        match world.settle() {
            Ok(arrived) => allowed += arrived,
            Err(difference) => {
                let policies = Value::from(policies);
                panic!("seed {seed}, round {round}: {difference:#}\n{policies:#}");
            }
        }
    }
    let all = rounds * place::all(world.places.len()).count();
    eprintln!("{allowed} of {all} packets were allowed");
    assert!(
        (all / 10..all * 9 / 10).contains(&allowed),
        "policies of all kinds meet"
    );
}

impl World {
    fn new(dice: &mut Dice) -> World {
        let plane = Plane::new(Cluster::of(&[Cni::Ptp, Cni::Bridge]).unwrap()).unwrap();
        let place = |number: usize| {
            let node = 1 + (number % 2) as u8;
            Place::new(
                plane.cluster(),
                node,
                number,
                objects::NAMESPACES[number / 2],
            )
        };
        let places: Vec<Place> = (0..2 * objects::NAMESPACES.len()).map(place).collect();
        let one = |place: &Place| {
            place.addrs().map(|ip| match ip {
                IpAddr::V4(ip) => format!("{ip}/32"),
                IpAddr::V6(ip) => format!("{ip}/128"),
            })
        };
        let nodes = plane.cluster().nodes();
        let ranges = nodes.iter().flat_map(|node| node.pod_cidrs());
        let mut world = World {
            blocks: places.iter().flat_map(one).chain(ranges).collect(),
            teams: vec![None; objects::NAMESPACES.len()],
            plane,
            places,
            attempt: 0,
        };
        for pod in 0..world.places.len() {
            world.relabel_pod(pod, dice);
        }
        for number in 0..world.teams.len() {
            world.relabel_namespace(number, dice);
        }
        world.plane.start_agents().unwrap();
        world
    }

    /// Writes other policies, and now and then other labels.
    fn change(&mut self, dice: &mut Dice) -> Vec<Value> {
        let policies = objects::policies(dice, &self.blocks);
        self.plane.manifests.write("policies", &policies).unwrap();
        if dice.once_in(3) {
            let pod = dice.below(self.places.len());
            self.relabel_pod(pod, dice);
        }
        if dice.once_in(5) {
            let number = dice.below(self.teams.len());
            self.relabel_namespace(number, dice);
        }
        policies
    }

    fn relabel_pod(&mut self, pod: usize, dice: &mut Dice) {
        let app = (!dice.once_in(5)).then(|| dice.pick(&objects::APPS));
        let object = self.places[pod].object(app);
        let name = format!("pod-{pod}");
        self.plane.manifests.write(&name, &[object]).unwrap();
    }

    fn relabel_namespace(&mut self, number: usize, dice: &mut Dice) {
        self.teams[number] = (!dice.once_in(3)).then(|| dice.pick(&objects::TEAMS));
        let name = objects::NAMESPACES[number];
        let labels: Vec<_> = self.teams[number]
            .map(|team| ("team", team))
            .into_iter()
            .collect();
        let object = namespace(name, &labels);
        self.plane
            .manifests
            .write(&format!("namespace-{name}"), &[object])
            .unwrap();
    }

    /// Sends until what arrives is what the oracle lets pass. Returns how much that is.
    fn settle(&mut self) -> anyhow::Result<usize> {
        let expected = self.expected(self.plane.manifests.dir());
        wait::until(PATIENCE, "the packets to be as the oracle says", || {
            self.attempt += 1;
            let cluster = self.plane.cluster();
            let arrived = place::exchange(&self.places, cluster, self.attempt, &expected);
            if arrived == expected {
                return Ok(arrived.len());
            }
            let missing: Vec<_> = expected.difference(&arrived).collect();
            let forbidden: Vec<_> = arrived.difference(&expected).collect();
            Err(format!("missing: {missing:?}\nforbidden: {forbidden:?}"))
        })
    }

    /// What the oracle lets pass, of the objects in a folder.
    fn expected(&self, folder: &Path) -> BTreeSet<Arrival> {
        let contents = manifests::read_once(folder).unwrap();
        let mut converter = Converter::default();
        let mut snapshot = Snapshot::new(NodeConfig::default(), []);
        for change in contents.changes {
            for event in converter.convert(change) {
                snapshot.apply(event);
            }
        }
        assert_eq!(contents.problems.len(), 0, "{:?}", contents.problems);
        assert_eq!(
            converter.problems().count(),
            0,
            "every policy is well-formed"
        );
        let places = &self.places;
        let allowed = place::all(places.len()).filter(|arrival| {
            let [src, dst] = [arrival.from, arrival.to].map(|n| places[n].addrs()[arrival.family]);
            let protocol = if arrival.tcp {
                Protocol::Tcp
            } else {
                Protocol::Udp
            };
            oracle::judge(&snapshot, src, dst, Some(protocol), PORTS[arrival.port]).is_allowed()
        });
        allowed.collect()
    }
}
