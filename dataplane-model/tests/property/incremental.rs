//! Policy from what earlier compiles found out is policy compiled as a whole.

use std::collections::BTreeMap;

use dataplane_common::abi::{IdKey, IdVal};
use dataplane_model::capacity::Capacities;
use dataplane_model::compile::{PolicyMemo, compile_policy};
use dataplane_model::ids::IdTable;
use dataplane_model::reconcile::Reconciler;
use dataplane_model::snapshot::*;
use dataplane_model::store::MemoryStore;
use dataplane_model::tables::Tables;
use proptest::prelude::*;
use proptest::{collection::vec, sample::Index};

use crate::cases;
use crate::names::by_name;
use sluice_generate::cluster::{node, objects};

/// What happens next.
#[derive(Clone, Debug)]
enum Step {
    Happen(Vec<Event>),
    /// A new process goes on with the maps.
    Restart,
}

/// Objects of some clusters come, change and go, a few at a time.
fn history() -> impl Strategy<Value = Vec<Step>> {
    let pool = vec(objects(), 2..4).prop_map(|worlds| worlds.concat());
    let event = (any::<Index>(), 0..10u8);
    let step = prop_oneof![
        30 => vec(event.clone(), 1..4).prop_map(Some),
        1 => vec(event, 30..60).prop_map(Some),
        1 => Just(None),
    ];
    (pool, vec(step, 1..40)).prop_map(|(pool, steps)| {
        let event = |(index, what): (Index, u8)| change(index.get(&pool).clone(), what);
        let step = |events: Option<Vec<_>>| match events {
            Some(events) => Step::Happen(events.into_iter().map(event).collect()),
            None => Step::Restart,
        };
        // All of the first cluster's objects are there at first.
        let first = pool.iter().take(pool.len() / 2).cloned();
        let first = Step::Happen(first.map(Event::Apply).collect());
        [first]
            .into_iter()
            .chain(steps.into_iter().map(step))
            .collect()
    })
}

fn change(object: Object, what: u8) -> Event {
    match (object, what) {
        (Object::Namespace(namespace), 0..3) => Event::Apply(Object::Namespace(Namespace {
            ending: true,
            ..namespace
        })),
        (Object::Pod(pod), 3) => Event::Apply(Object::Pod(Pod {
            terminal: !pod.terminal,
            ..pod
        })),
        (Object::Pod(pod), 4) => Event::Apply(Object::Pod(Pod { node: None, ..pod })),
        (object, 0..7) => Event::Apply(object),
        (object, 7) => {
            let pod_ranges = vec!["10.0.0.0/16".parse().expect("a prefix")];
            let config = NodeConfig {
                pod_ranges,
                ..node()
            };
            match object {
                Object::Node(_) => Event::Apply(Object::Config(config)),
                other => Event::Apply(other),
            }
        }
        (object, _) => match object.key() {
            Some(key) => Event::Delete(key),
            None => Event::Apply(object),
        },
    }
}

/// An agent's state, and the same numbers' policy as a whole.
struct Twins {
    state: Reconciler,
    store: MemoryStore,
    capacities: Capacities,
}

impl Twins {
    fn new(capacities: Capacities) -> Self {
        let ids = IdTable::new(capacities.clone());
        Self {
            state: Reconciler::new(Snapshot::new(node(), []), ids),
            store: MemoryStore::default(),
            capacities,
        }
    }

    fn follow(&mut self, step: Step) {
        match step {
            Step::Happen(events) => {
                for event in events {
                    self.state.fold(event);
                }
            }
            Step::Restart => {
                let (snapshot, ids) = (self.state.snapshot().clone(), self.ids());
                self.state = Reconciler::adopt(snapshot, ids, &self.store).expect("maps to read");
            }
        }
    }

    fn ids(&self) -> IdTable {
        IdTable::new(self.capacities.clone())
    }

    /// Brings the maps up to date. False if that does not fit: then nothing of policy changes.
    fn reconcile(&mut self) -> Result<bool, TestCaseError> {
        let before = self.state.tables();
        let outcome = self.state.reconcile(&mut self.store);
        prop_assert_eq!(outcome.errors, Vec::<String>::new());
        let after = self.state.tables();
        if outcome.refused.is_some() {
            prop_assert_eq!(of_policy(&after), of_policy(&before));
            return Ok(false);
        }
        keeps_numbers(&before.ids, &after.ids)?;
        let whole = compile_policy(
            self.state.snapshot(),
            &mut self.ids(),
            &mut PolicyMemo::default(),
        );
        let whole = whole.expect("it fits beside what was there");
        prop_assert_eq!(by_name(&of_policy(&after)), by_name(&whole.tables));
        prop_assert_eq!(&self.state.policy().notices, &whole.notices);
        prop_assert_eq!(self.state.reconcile(&mut self.store).operations, 0);
        Ok(true)
    }
}

/// What is there before and after has the same number.
fn keeps_numbers(
    before: &BTreeMap<IdKey, IdVal>,
    after: &BTreeMap<IdKey, IdVal>,
) -> Result<(), TestCaseError> {
    for (key, number) in after {
        let old = before.get(key).unwrap_or(number);
        prop_assert_eq!(old, number, "{:?}", key);
    }
    Ok(())
}

/// The tables of policy.
fn of_policy(tables: &Tables) -> Tables {
    let is_policy = |key: &IdKey| {
        use dataplane_model::ids::IdKind;
        let kinds = IdKind::ALL.into_iter();
        kinds
            .filter(|kind| !kind.is_held())
            .any(|kind| kind as u32 == key.kind)
    };
    let mut of_policy = tables.clone();
    of_policy.ids.retain(|key, _| is_policy(key));
    of_policy.v4.services.clear();
    of_policy.v6.services.clear();
    of_policy.v4.backends.clear();
    of_policy.v6.backends.clear();
    of_policy.v4.source_ranges.clear();
    of_policy.v6.source_ranges.clear();
    of_policy.slots.clear();
    of_policy.classes.clear();
    of_policy
}

fn roomy() -> Capacities {
    Capacities {
        subjects: 4,
        ..Capacities::default()
    }
}

proptest! {
    #![proptest_config(cases(96))]

    #[test]
    fn one_change_after_another_comes_to_the_whole(history in history()) {
        let mut twins = Twins::new(roomy());
        for step in history {
            twins.follow(step);
            prop_assert!(twins.reconcile()?);
        }
    }

    #[test]
    fn what_did_not_fit_leaves_no_trace(history in history(), rows in 4u32..200, rulesets in 2u32..12) {
        let mut twins = Twins::new(Capacities { rows, rulesets, ..roomy() });
        for step in history {
            twins.follow(step);
            twins.reconcile()?;
        }
        // Without policies there is room again, at least for a process that passes through nothing else.
        let snapshot = twins.state.snapshot();
        let namespaced = snapshot.policies.keys().cloned().map(Key::Policy);
        let cluster = snapshot.cluster_policies.keys().cloned().map(Key::ClusterPolicy);
        // Namespaces that end keep theirs while they have pods.
        let pods = snapshot.pods.keys().cloned().map(Key::Pod);
        let all = namespaced.chain(cluster).chain(pods).map(Event::Delete);
        let all = all.collect();
        twins.follow(Step::Happen(all));
        twins.follow(Step::Restart);
        prop_assert!(twins.reconcile()?);
    }
}

fn pod(index: usize, labels: Labels) -> Object {
    let [high, low] = (index as u16).to_be_bytes();
    Object::Pod(Pod {
        labels,
        ips: vec![[10, 1, high, low].into()],
        node: Some(node().name),
        ..Pod::new(ObjectKey::new("a", format!("p{index}")))
    })
}

fn app(index: usize) -> Labels {
    [("app".into(), format!("app{}", index % 7).into())].into()
}

fn policy(index: usize, peer: usize) -> Object {
    let peer = Peer::Pods {
        namespaces: NamespaceScope::Own,
        pods: Selector::from(&app(peer)),
    };
    Object::Policy(NetworkPolicy {
        key: ObjectKey::new("a", format!("np{index}")),
        pods: Selector::from(&app(index)),
        mode: None,
        ingress: Some(vec![Rule {
            peers: Peers::Only(vec![peer]),
            ports: Ports::Any,
        }]),
        egress: None,
    })
}

#[test]
fn many_changes_at_once_and_many_kinds_of_pods_that_come_and_go() {
    let mut twins = Twins::new(roomy());
    let mut round = |events: Vec<Event>| {
        twins.follow(Step::Happen(events));
        assert!(twins.reconcile().expect("the same"));
    };
    let policies =
        |peer: usize| (0..150).map(move |index| Event::Apply(policy(index, peer + index)));
    round(policies(0).collect());
    round(policies(1).collect());
    for index in 0..300 {
        // Each pod is of a kind of its own, and few are there at a time.
        let mut labels = app(index);
        labels.insert("job".into(), format!("{index}").into());
        let gone = ObjectKey::new("a", format!("p{}", index.saturating_sub(3)));
        round(vec![
            Event::Apply(pod(index, labels)),
            Event::Delete(Key::Pod(gone)),
        ]);
    }
    round(policies(2).collect());
    round(
        (0..150)
            .map(|index| Event::Delete(Key::Policy(ObjectKey::new("a", format!("np{index}")))))
            .collect(),
    );
}
