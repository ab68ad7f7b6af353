//! An API server outside the nodes of a cluster, and a client of it.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;

use crate::kube::api::Api;
use crate::kube::apiserver::{ApiServer, Place};
use crate::topology::Cluster;

/// Both. The server ends with this.
pub struct Server {
    /// The server.
    pub server: ApiServer,
    /// The client.
    pub api: Api,
    /// A kubeconfig for others.
    pub kubeconfig: PathBuf,
}

impl Server {
    /// Starts one, without objects of its own.
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
}
