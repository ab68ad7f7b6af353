//! A plan that stops anywhere.

use dataplane_model::eval::{self, Judgement};
use dataplane_model::snapshot::*;
use dataplane_model::tables::Tables;
use proptest::prelude::*;
use sluice_generate::{
    cluster::{objects, snapshot},
    probes::pairs,
    services::frontends,
};

use crate::cases;
use crate::names::by_name;
use crate::verdicts::packet;
use crate::world::World;

/// Places to stop at, at most; all of a shorter plan.
const STOPS: usize = 60;

/// Ports that tell random rules apart, to save time.
const PROBES: [(Option<Protocol>, u16); 5] = [
    (Some(Protocol::Tcp), 80),
    (Some(Protocol::Tcp), 8080),
    (Some(Protocol::Udp), 53),
    (Some(Protocol::Sctp), 80),
    (None, 0),
];

/// Verdicts of all probes between all addresses of two snapshots.
fn verdicts(tables: &Tables, snapshots: [&Snapshot; 2]) -> Vec<Judgement> {
    let mut all: Vec<_> = snapshots.into_iter().flat_map(pairs).collect();
    all.sort_unstable();
    all.dedup();
    let probes = all
        .iter()
        .flat_map(|&pair| PROBES.map(|(protocol, port)| packet(pair, protocol, port)));
    probes
        .map(|packet| eval::judge(tables, &packet).expect("one family"))
        .collect()
}

fn allows(decision: Option<dataplane_common::decide::policy::Decision>) -> bool {
    decision.is_none_or(|decision| decision.allowed != 0)
}

/// In each direction, nothing is allowed that neither state allows.
fn check_policy(
    old: &[Judgement],
    new: &[Judgement],
    now: &[Judgement],
    stop: usize,
) -> Result<(), TestCaseError> {
    for (index, now) in now.iter().enumerate() {
        let (old, new) = (&old[index], &new[index]);
        let egress = !allows(now.egress) || allows(old.egress) || allows(new.egress);
        let ingress = !allows(now.ingress) || allows(old.ingress) || allows(new.ingress);
        prop_assert!(
            egress && ingress,
            "stopped at {}, probe {}: {:?}, was {:?}, will be {:?}",
            stop,
            index,
            now,
            old,
            new
        );
    }
    Ok(())
}

/// A frontend that never lacks a backend before and after does not lack one now.
fn check_services(
    old: &Tables,
    new: &Tables,
    now: &Tables,
    stop: usize,
) -> Result<(), TestCaseError> {
    for (ip, port, protocol, scope) in frontends() {
        let lacks = |tables: &Tables| {
            let serving = eval::serving(tables, ip, port, protocol.number(), scope);
            serving.map(|serving| serving.refused + serving.dropped)
        };
        if lacks(old).is_some_and(|share| share < 1e-6)
            && lacks(new).is_some_and(|share| share < 1e-6)
        {
            let now = lacks(now);
            prop_assert!(
                now.is_some_and(|share| share < 1e-6),
                "stopped at {}: {}:{} lacks {:?}",
                stop,
                ip,
                port,
                now
            );
        }
    }
    Ok(())
}

fn stops(length: usize) -> impl Iterator<Item = usize> {
    let step = length.div_ceil(STOPS).max(1);
    (0..length).step_by(step)
}

proptest! {
    #![proptest_config(cases(24))]

    #[test]
    fn a_plan_that_stops_is_safe_and_is_resumed(old in objects(), new in objects(), restart in any::<bool>()) {
        let (before, after) = (snapshot(&old), snapshot(&new));
        let mut world = World::of(&old);
        let start = world.tables();
        world.turn_into(&old, &new);
        let mut whole = world.clone();
        let operations = whole.reconcile().operations;
        let desired = whole.tables();
        let ends = [verdicts(&start, [&before, &after]), verdicts(&desired, [&before, &after])];
        for stop in stops(operations) {
            let mut cut = world.clone();
            cut.cut(stop);
            let now = cut.store.tables();
            check_policy(&ends[0], &ends[1], &verdicts(&now, [&before, &after]), stop)?;
            check_services(&start, &desired, &now, stop)?;
            if restart {
                cut.restart(after.clone());
            }
            cut.reconcile();
            prop_assert_eq!(by_name(&cut.tables()), by_name(&desired));
            prop_assert_eq!(cut.reachable(), cut.tables());
        }
    }

    #[test]
    fn what_both_states_allow_is_not_cut_while_labels_stay(old in objects(), new in objects()) {
        // The same pods; other policies and services.
        let is_policy = |object: &&Object| matches!(object, Object::Policy(_) | Object::ClusterPolicy(_) | Object::Service(_) | Object::Slice(_));
        let pods: Vec<_> = old.iter().filter(|object| !is_policy(object)).cloned().collect();
        let new: Vec<_> = pods.iter().chain(new.iter().filter(is_policy)).cloned().collect();
        let (before, after) = (snapshot(&old), snapshot(&new));
        let mut world = World::of(&old);
        let start = world.tables();
        world.turn_into(&old, &new);
        let mut whole = world.clone();
        let operations = whole.reconcile().operations;
        let both = [&before, &after];
        let (old, new) = (verdicts(&start, both), verdicts(&whole.tables(), both));
        for stop in stops(operations) {
            let mut cut = world.clone();
            cut.cut(stop);
            for (index, now) in verdicts(&cut.store.tables(), both).iter().enumerate() {
                let egress = allows(now.egress) || !allows(old[index].egress) || !allows(new[index].egress);
                let ingress = allows(now.ingress) || !allows(old[index].ingress) || !allows(new[index].ingress);
                prop_assert!(egress && ingress, "stopped at {}, probe {}: {:?}", stop, index, now);
            }
        }
    }
}
