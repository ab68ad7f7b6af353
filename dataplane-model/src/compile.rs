//! From a snapshot to the contents of the maps.
//!
//! The result depends on the snapshot and on the numbers in the id table, never on earlier events.

mod choose;
mod endpoints;
mod frontends;
mod policy;
mod routes;
mod services;
mod subjects;

use std::fmt;
use std::sync::Arc;

use crate::capacity::CapacityError;
use crate::ids::IdTable;
use crate::snapshot::Snapshot;
use crate::store::NoMaps;
use crate::tables::Tables;
pub use policy::{PolicyMemo, PolicyState};
pub use services::{Presence, Round, ServiceNames, Services, Sided};

/// What the maps should hold.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Desired {
    /// Contents of the maps.
    pub tables: Tables,
    /// Rows, prefixes, identities and numbers of the time while pods and addresses change over from the
    /// policy in force. Prefixes and identities, where there are any, stand for those of `tables` until
    /// then.
    pub transition: Tables,
    /// What the numbers of rulesets, identities and CIDR sets in `tables` mean.
    pub policy: Arc<PolicyState>,
    /// The same for `tables` and `transition` together.
    pub meanwhile: Arc<PolicyState>,
    /// Every source was in sync: what is not here is gone.
    pub complete: bool,
    /// Objects that could not be served as they ask for.
    pub notices: Vec<Notice>,
}

/// Something that the owner of an object should know.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Notice {
    /// Kind, namespace and name of the object.
    pub object: String,
    /// What is wrong, and what is done about it.
    pub text: String,
    /// What is wrong in one word, in CamelCase, for machines.
    pub reason: &'static str,
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.object, self.text)
    }
}

/// Compiles a snapshot as if nothing had been before: what a history of changes has to come to.
///
/// # Errors
///
/// What does not fit in the maps.
pub fn compile(snapshot: &Snapshot, ids: &mut IdTable) -> Result<Desired, Vec<CapacityError>> {
    let mut services = Services::new(ids.capacities());
    services.note_all(snapshot);
    services.reconcile(snapshot, ids, &mut NoMaps);
    if !services.refused().is_empty() {
        let mut errors: Vec<_> = services.refused().values().cloned().collect();
        errors.sort_unstable();
        errors.dedup();
        return Err(errors);
    }
    let mut desired = compile_policy(snapshot, ids, &mut PolicyMemo::default())?;
    services.fill(ids, &mut desired.tables);
    desired.notices.extend(services.notices());
    desired.notices.sort_unstable();
    desired.notices.dedup();
    Ok(desired)
}

/// Compiles what pods, namespaces, policies and devices ask for, from what earlier compiles of the same
/// numbers found out.
///
/// # Errors
///
/// What does not fit in the maps. Nothing of the change should be applied then; the id table is as
/// good as before.
pub fn compile_policy(
    snapshot: &Snapshot,
    ids: &mut IdTable,
    memo: &mut PolicyMemo,
) -> Result<Desired, Vec<CapacityError>> {
    // What was found out before an error may have numbers that it is not to keep.
    let mut known = std::mem::take(memo);
    ids.begin();
    let mut compiler = Compiler {
        snapshot,
        ids,
        desired: Desired {
            complete: snapshot.is_in_sync(),
            ..Desired::default()
        },
        errors: Vec::new(),
    };
    let policy = policy::compile(&mut compiler, &mut known);
    subjects::compile(&mut compiler, &policy);
    let desired = compiler.finish(&policy, &known)?;
    // Without policies there is little to find out, and pods may be many.
    if !snapshot.policies.is_empty() || !snapshot.cluster_policies.is_empty() {
        *memo = known;
    }
    Ok(desired)
}

/// A compile under way.
struct Compiler<'a> {
    snapshot: &'a Snapshot,
    ids: &'a mut IdTable,
    desired: Desired,
    errors: Vec<CapacityError>,
}

impl Compiler<'_> {
    /// The value, or `None` after noting why there is none.
    fn note<T>(&mut self, result: Result<T, CapacityError>) -> Option<T> {
        result.map_err(|error| self.errors.push(error)).ok()
    }

    fn finish(
        mut self,
        policies: &policy::PodPolicies,
        memo: &PolicyMemo,
    ) -> Result<Desired, Vec<CapacityError>> {
        if self.errors.is_empty() {
            self.desired.tables.ids = self.ids.in_use();
            policy::transition(&mut self, policies, memo);
            self.desired.transition.ids = self.ids.in_use_beyond(&self.desired.tables.ids);
        }
        if self.errors.is_empty() {
            self.desired.notices.sort_unstable();
            self.desired.notices.dedup();
            return Ok(self.desired);
        }
        self.errors.sort_unstable();
        // Of each map that is full, the greatest need.
        self.errors.reverse();
        self.errors.dedup_by_key(|error| match error {
            CapacityError::Map { map, .. } => (Some(*map), String::new()),
            other => (None, other.to_string()),
        });
        Err(self.errors)
    }
}

#[cfg(test)]
mod tests;
