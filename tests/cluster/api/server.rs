//! An API server on loopback, for tests.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use sluice::source::api::Access;
use sluice_lab::kube::apiserver::{self, Place};

/// The server; it ends with this.
pub struct ApiServer(apiserver::ApiServer);

impl ApiServer {
    /// Starts it and waits until it is ready.
    pub fn start(flags: &[&str]) -> Self {
        Self(apiserver::ApiServer::start(Place::loopback(), flags).expect("an API server"))
    }

    /// Starts the API server after [`Self::stop`].
    pub fn run(&mut self) {
        self.0.run().expect("the API server again");
    }

    /// Ends the API server; etcd keeps what it held.
    pub fn stop(&mut self) {
        self.0.stop();
    }

    /// Its address.
    pub fn address(&self) -> SocketAddr {
        self.0.address()
    }

    /// Access by another address, as a proxy's.
    pub fn access(&self, address: SocketAddr) -> Access {
        Access {
            kubeconfig: Some(self.0.kubeconfig(address).expect("a kubeconfig")),
            api_server: None,
        }
    }

    /// Applies a manifest.
    pub fn apply(&self, manifest: &str) {
        let file = self.dir().join("manifest.yaml");
        fs::write(&file, manifest).expect("a manifest");
        self.kubectl(&["apply", "--server-side", "-f", &file.display().to_string()]);
    }

    /// Runs kubectl.
    pub fn kubectl(&self, arguments: &[&str]) -> String {
        self.0.kubectl(arguments).expect("kubectl")
    }

    /// Where its files are.
    pub fn dir(&self) -> &Path {
        self.0.dir()
    }
}
