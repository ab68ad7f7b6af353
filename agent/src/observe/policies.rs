//! Which version of each policy is in force on this node.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::source::{Change, ObjectKey};

/// The policies; their copies are one.
#[derive(Clone, Debug, Default)]
pub struct InForce(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// Read and not in force yet; `None`: gone.
    coming: BTreeMap<ObjectKey, Option<i64>>,
    /// `metadata.generation` of each, 0 for one without.
    in_force: BTreeMap<ObjectKey, i64>,
}

impl InForce {
    /// A change came from a source.
    pub fn read(&self, change: &Change) {
        let (key, generation) = match change {
            Change::Apply { object, .. } if object.kind().is_policy() => {
                let generation = object.metadata().generation.unwrap_or_default();
                (object.key(), Some(generation))
            }
            Change::Delete(key) if key.kind.is_policy() => (key.clone(), None),
            Change::Apply { .. } | Change::Delete(_) => return,
        };
        self.state().coming.insert(key, generation);
    }

    /// All that was read is in force.
    pub fn settled(&self) {
        let mut state = self.state();
        for (key, generation) in std::mem::take(&mut state.coming) {
            match generation {
                Some(generation) => state.in_force.insert(key, generation),
                None => state.in_force.remove(&key),
            };
        }
    }

    /// The generation of a policy that is in force; `None` if none is.
    pub fn generation(&self, policy: &ObjectKey) -> Option<i64> {
        self.state().in_force.get(policy).copied()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Collector for InForce {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut family = encoder.encode_descriptor(
            "sluice_policy_enforced_generation",
            "The version of a policy that is in force on this node, by its metadata.generation",
            None,
            MetricType::Gauge,
        )?;
        for (key, generation) in &self.state().in_force {
            let labels = [
                ("kind", key.kind.name()),
                ("namespace", key.namespace.as_str()),
                ("policy", key.name.as_str()),
            ];
            ConstGauge::new(*generation).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Kind;
    use crate::source::manifests::fixture::changes;

    fn policy(generation: i64) -> Vec<Change> {
        let text = format!(
            "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: p, generation: {generation}}}\n"
        );
        changes("p.yaml".as_ref(), &text)
    }

    #[test]
    fn the_version_before_is_in_force_until_all_has_settled() {
        let policies = InForce::default();
        let key = ObjectKey::new(Kind::NetworkPolicy, None, "p");
        let read = |changes: Vec<Change>| changes.iter().for_each(|change| policies.read(change));
        read(policy(3));
        assert_eq!(policies.generation(&key), None);
        policies.settled();
        assert_eq!(policies.generation(&key), Some(3));
        read(policy(4));
        assert_eq!(policies.generation(&key), Some(3));
        policies.settled();
        assert_eq!(policies.generation(&key), Some(4));
        read(vec![Change::Delete(key.clone())]);
        assert_eq!(policies.generation(&key), Some(4));
        policies.settled();
        assert_eq!(policies.generation(&key), None);
    }
}
