//! From events to maps, in rounds: what is known of the cluster, and what of it is in force.

use std::sync::Arc;

use dataplane_common::abi::Subject;

use crate::compile::{Desired, Notice, PolicyMemo, Round, Services, compile_policy};
use crate::eval;
use crate::gone::Gone;
use crate::ids::IdTable;
use crate::plan::Plan;
use crate::snapshot::{Event, Snapshot};
use crate::store::{MapStore, Written};
use crate::tables::{MapId, Tables};

/// The state of the cluster as it is known, and of the maps as they were written.
///
/// Services are kept one by one ([`Services`]). Policy is compiled when something that it depends on
/// changed, from what earlier compiles found out ([`PolicyMemo`]). Either goes on when the other cannot.
#[derive(Clone, Debug)]
pub struct Reconciler {
    snapshot: Snapshot,
    ids: IdTable,
    services: Services,
    written: Written,
    policy: Arc<Desired>,
    policy_memo: PolicyMemo,
    policy_changed: bool,
    /// Policy as it is does not fit.
    policy_refused: Option<Refusal>,
    /// No round has run yet.
    is_new: bool,
}

/// Why policy was refused.
#[derive(Clone, Debug)]
struct Refusal {
    text: String,
    /// Numbers that were in use: when there are less, it may fit.
    used: usize,
}

/// What a round did.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Outcome {
    /// Entries that were to be written and removed.
    pub operations: usize,
    /// Why something is not in force that is to be tried again.
    pub errors: Vec<String>,
    /// What does not fit, of Services or of policy: it waits until something makes room.
    pub refused: Option<String>,
}

impl Reconciler {
    /// For maps that are empty.
    pub fn new(snapshot: Snapshot, ids: IdTable) -> Self {
        let services = Services::new(ids.capacities());
        Self::with(snapshot, ids, services, Written::default())
    }

    /// Goes on from what the maps hold.
    ///
    /// # Errors
    ///
    /// A map cannot be read.
    pub fn adopt<S: MapStore>(
        snapshot: Snapshot,
        mut ids: IdTable,
        store: &S,
    ) -> Result<Self, S::Error> {
        let written = Written::adopt(store, &mut ids)?;
        let services = Services::adopt(store, &ids)?;
        Ok(Self::with(snapshot, ids, services, written))
    }

    fn with(snapshot: Snapshot, ids: IdTable, mut services: Services, written: Written) -> Self {
        services.note_all(&snapshot);
        Self {
            snapshot,
            ids,
            services,
            written,
            policy: Arc::default(),
            policy_memo: PolicyMemo::default(),
            policy_changed: true,
            policy_refused: None,
            is_new: true,
        }
    }

    /// Folds an event in. Returns false if nothing changed.
    pub fn fold(&mut self, event: Event) -> bool {
        let Some(change) = self.snapshot.fold(event) else {
            return false;
        };
        if change.concerns_policy() {
            self.policy_changed = true;
            self.policy_refused = None;
        }
        self.policy_memo.note(&change);
        self.services.note(&self.snapshot, &change);
        true
    }

    /// Brings the maps to what the snapshot asks for. Nothing is done until every source is in sync:
    /// what is in force stays, and nothing is taken as gone because it has not been read yet.
    ///
    /// A new pod is policed before it is a backend, and is one no more before its rules go. What fails
    /// is tried again in the next round; what it does not concern goes on.
    pub fn reconcile<S: MapStore>(&mut self, store: &mut S) -> Outcome {
        let mut outcome = Outcome::default();
        if !self.snapshot.is_in_sync() {
            return outcome;
        }
        if std::mem::take(&mut self.is_new) {
            self.snapshot.keep_isolated(self.written.isolated());
        }
        let plan = self.policy_plan(&mut outcome);
        let begun = plan.map(|plan| {
            let result = plan.begin(store, &mut self.written);
            (plan, result.map_err(|error| error.to_string()))
        });
        let services = self
            .services
            .reconcile(&self.snapshot, &mut self.ids, store);
        match begun {
            None => {}
            Some((_, Err(error))) => outcome.errors.push(error),
            Some((plan, Ok(()))) => {
                let ids = &mut self.ids;
                match plan.finish(store, &mut self.written, ids) {
                    Ok(()) => self.policy_changed = false,
                    Err(error) => outcome.errors.push(error.to_string()),
                }
            }
        }
        self.add(services, &mut outcome);
        outcome
    }

    /// True if policy is to be compiled: it changed, and there is hope that it fits.
    fn is_policy_due(&self) -> bool {
        let is_full = |refusal: &Refusal| self.ids.len() >= refusal.used;
        self.policy_changed && !self.policy_refused.as_ref().is_some_and(is_full)
    }

    /// The plan for policy, if that changed and fits.
    fn policy_plan(&mut self, outcome: &mut Outcome) -> Option<Plan> {
        if !self.is_policy_due() {
            return None;
        }
        self.policy_refused = None;
        let memo = &mut self.policy_memo;
        let desired = compile_policy(&self.snapshot, &mut self.ids, memo);
        let plan = desired.and_then(|desired| {
            let plan = Plan::new(&desired, &self.written, &self.ids)?;
            self.policy = Arc::new(desired);
            Ok(plan)
        });
        match plan {
            Ok(plan) => {
                outcome.operations += plan.len();
                Some(plan)
            }
            Err(errors) => {
                let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
                self.policy_refused = Some(Refusal {
                    text: texts.join("; "),
                    used: self.ids.len(),
                });
                None
            }
        }
    }

    fn add(&self, round: Round, outcome: &mut Outcome) {
        outcome.operations += round.operations;
        if let Some(failure) = round.failure {
            outcome.errors.push(format!(
                "{failure} ({} Services are tried again)",
                round.failed
            ));
        }
        let mut texts = Vec::new();
        texts.extend(
            (self.policy_refused.iter()).map(|refusal| format!("policy: {}", refusal.text)),
        );
        let refused = self.services.refused();
        if let Some((service, error)) = refused.first_key_value() {
            let others = match refused.len() - 1 {
                0 => String::new(),
                others => format!(" and {others} others"),
            };
            texts.push(format!("Service {service}{others}: {error}"));
        }
        outcome.refused = (!texts.is_empty()).then(|| texts.join("; "));
    }

    /// Backends that are needed no more since the last call, and end sockets of the host. To be asked
    /// for after a round without errors.
    pub fn take_gone(&mut self) -> Vec<Gone> {
        self.services.take_gone()
    }

    /// The snapshot.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// The numbers.
    pub fn ids(&self) -> &IdTable {
        &self.ids
    }

    /// Services as they are served.
    pub fn services(&self) -> &Services {
        &self.services
    }

    /// Policy as it is to be.
    pub fn policy(&self) -> &Desired {
        &self.policy
    }

    /// A device's entry as it was written, once all that policy asks for is; `None` until then.
    pub fn subject(&self, ifindex: u32) -> Option<&Subject> {
        let subject = eval::subject(&self.written.tables, ifindex)?;
        (!self.policy_changed).then_some(subject)
    }

    /// True unless policy changed and the change may still come into force.
    pub fn is_policy_settled(&self) -> bool {
        !self.policy_changed || self.policy_refused.is_some()
    }

    /// The policy epoch as it was written.
    pub fn epoch(&self) -> u32 {
        self.written.epoch
    }

    /// True if all that is known of policy is in force.
    pub fn is_policy_in_force(&self) -> bool {
        !self.policy_changed
    }

    /// Changes that are not in force: Services, and policy as one.
    pub fn pending(&self) -> usize {
        self.services.pending() + usize::from(self.policy_changed)
    }

    /// Entries of a map that are in use.
    pub fn used(&self, map: MapId) -> usize {
        match map {
            MapId::Ids => self.ids.len(),
            map if map.is_service() => self.services.used(map),
            map => self.written.tables.len(map),
        }
    }

    /// What owners of objects should know.
    pub fn notices(&self) -> Vec<Notice> {
        let mut notices = self.services.notices();
        notices.extend(self.policy.notices.iter().cloned());
        notices.extend(self.policy_refused.iter().map(|refusal| Notice {
            object: format!("Node {}", self.snapshot.node.name),
            text: format!(
                "policy does not fit and what was in force stays: {}",
                refusal.text
            ),
            reason: "CapacityExceeded",
        }));
        notices.sort_unstable();
        notices
    }

    /// All maps as they are recorded, as tables.
    pub fn tables(&self) -> Tables {
        let mut tables = self.written.tables.clone();
        self.services.fill(&self.ids, &mut tables);
        tables
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capacity::Capacities;
    use crate::snapshot::{
        Key, Kind, Labels, NetworkPolicy, NodeConfig, Object, ObjectKey, Selector, Service,
    };
    use crate::store::MemoryStore;

    fn policy(index: usize) -> Object {
        Object::Policy(NetworkPolicy {
            key: ObjectKey::new("shop", format!("p{index}")),
            pods: Selector::from(&Labels::new()),
            mode: None,
            ingress: Some(Vec::new()),
            egress: None,
        })
    }

    fn pod() -> [Object; 2] {
        use crate::snapshot::{Interface, Pod};
        let address = [10, 0, 0, 1].into();
        let device = Interface {
            ifindex: 7,
            addresses: vec![address],
            ..Interface::default()
        };
        let pod = Pod {
            ips: vec![address],
            node: Some("here".into()),
            ..Pod::new(ObjectKey::new("shop", "web"))
        };
        [Object::Interface(device), Object::Pod(pod)]
    }

    #[test]
    fn policy_that_does_not_fit_waits_until_something_makes_room() {
        let capacities = Capacities {
            rulesets: 1,
            ..Capacities::default()
        };
        let node = NodeConfig {
            name: "here".into(),
            ..NodeConfig::default()
        };
        let ids = IdTable::new(capacities);
        let mut state = Reconciler::new(Snapshot::new(node, Kind::ALL), ids);
        let mut store = MemoryStore::default();
        let in_sync = Kind::ALL.map(Event::InSync);
        let objects = pod().into_iter().chain([policy(0)]).map(Event::Apply);
        for event in objects.chain(in_sync) {
            state.fold(event);
        }
        let outcome = state.reconcile(&mut store);
        assert_eq!(outcome.errors, Vec::<String>::new());
        let refused = outcome.refused.expect("one place of two that it needs");
        assert!(refused.starts_with("policy: map rulesets"), "{refused}");
        let told = |state: &Reconciler| {
            let notices = state.notices().into_iter();
            notices
                .filter(|notice| notice.object == "Node here")
                .count()
        };
        assert_eq!((told(&state), state.pending()), (1, 1));
        // What does not concern it is no reason to try again.
        assert!(!state.is_policy_due());
        state.fold(Event::Apply(Object::Service(Service::new(ObjectKey::new(
            "shop", "web",
        )))));
        assert!(!state.is_policy_due());
        assert_eq!(state.reconcile(&mut store).refused, Some(refused));
        let key = ObjectKey::new("shop", "p0");
        state.fold(Event::Delete(Key::Policy(key)));
        assert!(state.is_policy_due());
        assert_eq!(state.reconcile(&mut store).refused, None);
        assert_eq!((told(&state), state.pending()), (0, 0));
    }
}
