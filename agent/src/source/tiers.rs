//! Policies of the tiers as they are written: ClusterNetworkPolicy, AdminNetworkPolicy and
//! BaselineAdminNetworkPolicy (policy.networking.k8s.io).
//!
//! Their rules are kept as they came: a rule with a field that nobody knows may mean more or less than
//! what is known of it, and must be closed, not read without that field.

use serde_json::Value;

use super::schema::{ObjectMeta, schema};

schema! {
    /// A policy of any of the three kinds.
    TierPolicy {
        /// `metadata`.
        metadata: ObjectMeta,
        /// `spec`.
        spec: TierPolicySpec,
    }
    unused { api_version, kind, status }

    /// The `spec` of such a policy.
    TierPolicySpec {
        /// `Admin` or `Baseline`; the other kinds than ClusterNetworkPolicy have their own.
        tier: Option<String>,
        /// From 0 to 1000; a BaselineAdminNetworkPolicy has none.
        priority: Option<i64>,
        /// The pods it is about.
        subject: Value,
        /// Rules for what they receive.
        ingress: Vec<Value>,
        /// Rules for what they send.
        egress: Vec<Value>,
    }
}
