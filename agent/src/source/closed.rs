//! What stands in for policies that have not the form of their kind: they never mean that there is none,
//! nor that the version before is still meant.

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::core::{NetworkPolicy, NetworkPolicySpec};
use super::schema::{LabelSelector, ObjectMeta};
use super::tiers::TierPolicy;
use super::{Kind, Object, ObjectKey};

/// The stand-in for a policy with this `metadata` and `spec`; `None` for other kinds. It has the
/// annotations, which may say that it is not in force.
///
/// A NetworkPolicy isolates the same pods, or all of its namespace, and allows nothing. Of a policy of a
/// tier, each part is closed by itself when it is converted.
pub fn policy(key: &ObjectKey, metadata: &Value, spec: Value) -> Option<Object> {
    let metadata = ObjectMeta {
        name: Some(key.name.clone()),
        namespace: (!key.namespace.is_empty()).then(|| key.namespace.clone()),
        annotations: part(metadata, "annotations").unwrap_or_default(),
        ..ObjectMeta::default()
    };
    let tier = |metadata, spec| {
        Box::new(TierPolicy {
            metadata,
            spec,
            ..TierPolicy::default()
        })
    };
    Some(match key.kind {
        Kind::NetworkPolicy => Object::NetworkPolicy(Box::new(NetworkPolicy {
            metadata,
            spec: isolating(&spec),
            ..NetworkPolicy::default()
        })),
        Kind::ClusterNetworkPolicy => Object::ClusterNetworkPolicy(tier(metadata, spec)),
        Kind::AdminNetworkPolicy => Object::AdminNetworkPolicy(tier(metadata, spec)),
        Kind::BaselineAdminNetworkPolicy => {
            Object::BaselineAdminNetworkPolicy(tier(metadata, spec))
        }
        _ => return None,
    })
}

/// What holds because of a stand-in, in one line.
pub fn effect(policy: &Object) -> &'static str {
    match policy {
        Object::NetworkPolicy(_) => "until it can be read, it allows its pods nothing",
        _ => "what can be read of it is in force, and the rest is closed",
    }
}

fn part<T: DeserializeOwned>(of: &Value, name: &str) -> Option<T> {
    T::deserialize(of.get(name)?).ok()
}

fn isolating(spec: &Value) -> NetworkPolicySpec {
    let both = || vec!["Ingress".to_owned(), "Egress".to_owned()];
    NetworkPolicySpec {
        pod_selector: part::<LabelSelector>(spec, "podSelector").unwrap_or_default(),
        policy_types: part(spec, "policyTypes").unwrap_or_else(both),
        ..NetworkPolicySpec::default()
    }
}
