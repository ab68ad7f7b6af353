//! The pods and policies that are measured, in an API server.

use anyhow::Result;
use serde_json::Value;

use super::set::PEERS;
use super::side::{member, peer};
use crate::bench::control::objects::create_node;
use crate::kube::api::{Api, Write};
use crate::kube::objects::PodManifest;
use crate::topology::Pod;

/// Where namespaced policies are.
pub const POLICIES: &str = "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies";
/// Where those of the tiers are.
pub const CLUSTER_POLICIES: &str = "/apis/policy.networking.k8s.io/v1alpha2/clusternetworkpolicies";
/// Where pods are.
const PODS: &str = "/api/v1/namespaces/default/pods";

/// Creates the node of the two measured pods, them, and the first of the peers.
///
/// # Errors
/// The server refuses one.
pub fn fill_pods(api: &Api, [client, server]: [&Pod; 2], peers: u32) -> Result<()> {
    api.write(create_node(client.node()))?;
    let near = [member(client, "client"), member(server, "server")];
    let far = (0..peers.min(PEERS)).map(peer);
    let all: Vec<PodManifest> = near.into_iter().chain(far).collect();
    let created = all.clone();
    api.write_all(
        created
            .into_iter()
            .map(|pod| Write::create(PODS, pod.object())),
    )?;
    api.write_all(all.into_iter().map(|pod| {
        let status = format!("{PODS}/{}/status", pod.name);
        Write::replace(&status, pod.object())
    }))
}

/// Creates a policy, of either kind.
pub fn create(policy: Value) -> Write {
    let collection = match policy["kind"].as_str() {
        Some("NetworkPolicy") => POLICIES,
        _ => CLUSTER_POLICIES,
    };
    Write::create(collection, policy)
}
