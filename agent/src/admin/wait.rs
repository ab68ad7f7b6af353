//! Whether a policy is in force, here and where to ask on other nodes.

use std::net::SocketAddr;

use dataplane_model::snapshot::Snapshot;
use serde::{Deserialize, Serialize};

use crate::config::Settings;
use crate::source::ObjectKey;

/// A policy as this node has it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyState {
    /// What is in force here.
    pub here: PolicyOnNode,
    /// `metadata.generation` as the API server has it now; `None` if there is no such policy, or no API
    /// server.
    pub generation: Option<i64>,
    /// Other nodes, and where their agents answer.
    pub others: Vec<Other>,
    /// Why other nodes cannot be asked.
    pub alone: Option<String>,
    /// What is wrong with the policy, as this node reads it.
    pub problems: Vec<String>,
}

/// The version of a policy that is in force on a node.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyOnNode {
    /// The node.
    pub node: String,
    /// Its `metadata.generation`, 0 for one without; `None` if none is in force.
    pub generation: Option<i64>,
}

/// Another node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Other {
    /// Its name.
    pub node: String,
    /// Where its agent answers, if its settings are this one's.
    pub address: SocketAddr,
}

/// Where the agents of other nodes answer.
pub(super) fn others(snapshot: &Snapshot, settings: &Settings) -> Result<Vec<Other>, String> {
    let health = settings.healthz;
    let health =
        health.ok_or("the setting healthzBindAddress is empty: only this node can be asked")?;
    if health.ip().is_loopback() {
        return Err(format!(
            "healthzBindAddress is {health}: only this node can be asked"
        ));
    }
    let nodes = snapshot.nodes.values();
    let others = nodes.filter(|node| *node.name != *settings.node_name);
    let others = others.filter_map(|node| {
        let mut addresses = node.internal_ips.iter().chain(&node.addresses);
        Some(Other {
            node: node.name.to_string(),
            address: SocketAddr::new(*addresses.next()?, health.port()),
        })
    });
    Ok(others.collect())
}

/// The path under which an agent answers for a policy.
pub fn path(policy: &ObjectKey) -> String {
    let ObjectKey {
        kind,
        namespace,
        name,
    } = policy;
    match namespace.as_str() {
        "" => format!("/policy/{kind}/{name}"),
        namespace => format!("/policy/{kind}/{namespace}/{name}"),
    }
}
