//! Policies of the tiers as they are written: ClusterNetworkPolicy, AdminNetworkPolicy and
//! BaselineAdminNetworkPolicy (policy.networking.k8s.io).
//!
//! What they say is kept as it came: a rule with a field that nobody knows may mean more or less than
//! what is known of it, and must be closed, not read without that field; and a part that has not the form
//! of its field must not hide the others.

use serde_json::Value;

use super::schema::{ObjectMeta, schema};

schema! {
    /// A policy of any of the three kinds.
    TierPolicy {
        /// `metadata`.
        metadata: ObjectMeta,
        /// `spec`.
        spec: Value,
        /// `status`.
        status: Value,
    }
    unused { api_version, kind }
}
