//! An API server that holds the pods and policies that are measured.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use serde_json::Value;

use super::set::PEERS;
use super::side::{member, peer};
use crate::bench::control::objects::create_node;
use crate::kube::api::{Api, Write};
use crate::kube::apiserver::{ApiServer, Place};
use crate::kube::objects::PodManifest;
use crate::topology::{Cluster, Pod};

/// Where namespaced policies are.
pub const POLICIES: &str = "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies";
/// Where those of the tiers are.
pub const CLUSTER_POLICIES: &str = "/apis/policy.networking.k8s.io/v1alpha2/clusternetworkpolicies";
/// Where pods are.
const PODS: &str = "/api/v1/namespaces/default/pods";

/// The server and a client of it. It ends with this.
pub struct Server {
    /// The server.
    pub server: ApiServer,
    /// The client.
    pub api: Api,
    /// A kubeconfig for others.
    pub kubeconfig: PathBuf,
}

impl Server {
    /// Starts one outside the nodes of a cluster, without objects of its own.
    ///
    /// # Errors
    /// A program is missing or does not start.
    pub fn start(cluster: &Cluster) -> Result<Server> {
        let place = Place {
            netns: Some(Arc::clone(cluster.outside())),
            address: cluster.outside_addrs().v4,
        };
        eprintln!("starting etcd and kube-apiserver");
        let server = ApiServer::start(place, &["--max-requests-inflight=1000"])?;
        let kubeconfig = server.kubeconfig(server.address())?;
        let api = Api::new(cluster.outside(), &kubeconfig)?;
        Ok(Server {
            server,
            api,
            kubeconfig,
        })
    }

    /// Creates the node of the two measured pods, them, and the first of the peers.
    ///
    /// # Errors
    /// The server refuses one.
    pub fn fill_pods(&self, [client, server]: [&Pod; 2], peers: u32) -> Result<()> {
        self.api.write(create_node(client.node()))?;
        let near = [member(client, "client"), member(server, "server")];
        let far = (0..peers.min(PEERS)).map(peer);
        let all: Vec<PodManifest> = near.into_iter().chain(far).collect();
        let created = all.clone();
        self.api.write_all(
            created
                .into_iter()
                .map(|pod| Write::create(PODS, pod.object())),
        )?;
        self.api.write_all(all.into_iter().map(|pod| {
            let status = format!("{PODS}/{}/status", pod.name);
            Write::replace(&status, pod.object())
        }))
    }
}

/// Creates a policy, of either kind.
pub fn create(policy: Value) -> Write {
    let collection = match policy["kind"].as_str() {
        Some("NetworkPolicy") => POLICIES,
        _ => CLUSTER_POLICIES,
    };
    Write::create(collection, policy)
}
