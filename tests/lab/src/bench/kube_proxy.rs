//! The real kube-proxy, on a node of the lab.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use anyhow::{Context, Result, bail};

use crate::kube::apiserver::program;
use crate::topology::Node;

/// What kube-proxy programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// nftables.
    Nftables,
    /// iptables, by the program of that name: on current systems a front of nftables.
    Iptables,
}

impl Mode {
    /// Its name in kube-proxy's settings, and of the section that is about it.
    pub fn name(self) -> &'static str {
        match self {
            Mode::Nftables => "nftables",
            Mode::Iptables => "iptables",
        }
    }
}

/// kube-proxy on a node. It ends with this.
#[derive(Debug)]
pub struct KubeProxy {
    child: Child,
}

impl KubeProxy {
    /// Starts it. It never waits before it acts on a change.
    ///
    /// # Errors
    /// It is missing, or cannot be started.
    pub fn start(node: &Arc<Node>, kubeconfig: &Path, mode: Mode) -> Result<KubeProxy> {
        let dir = node.netns().run_of().dir();
        let file = |extension: &str| dir.join(format!("kube-proxy-{}.{extension}", node.name()));
        // 0 would stand for the default, a second.
        let config = format!(
            "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nmode: {mode}\n\
             clientConnection: {{kubeconfig: {}, qps: 1000, burst: 1000}}\nhostnameOverride: {}\n\
             clusterCIDR: 10.244.0.0/16,fd44::/16\nconntrack: {{maxPerCore: 0}}\n\
             {mode}: {{minSyncPeriod: 1ms}}\n",
            kubeconfig.display(),
            node.name(),
            mode = mode.name(),
        );
        fs::write(file("yaml"), config).context("cannot write kube-proxy's settings")?;
        let log = File::create(file("log"))?;
        let mut command = Command::new(program("SLUICE_KUBE_PROXY")?);
        command.arg("--config").arg(file("yaml"));
        command.stdin(Stdio::null());
        command.stdout(log.try_clone()?).stderr(log);
        let child = node.netns().spawn_process(&mut command);
        Ok(KubeProxy {
            child: child.context("cannot run kube-proxy")?,
        })
    }

    /// Its process id.
    ///
    /// # Errors
    /// It has ended.
    pub fn id(&mut self) -> Result<u32> {
        match self.child.try_wait()? {
            Some(status) => bail!("kube-proxy ended: {status}"),
            None => Ok(self.child.id()),
        }
    }
}

impl Drop for KubeProxy {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
