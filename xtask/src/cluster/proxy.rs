//! What serves Services.

use std::{path::Path, process::Command, time::Duration};

use anyhow::Result;

use super::{
    network::{PODS, node_name},
    programs::Programs,
    state::State,
    step,
};
use crate::{process, workspace};

/// What the agent may do, and nothing more: the capabilities of its DaemonSet.
const CAPABILITIES: &str = "-all,+bpf,+net_admin,+perfmon";

/// Starts kube-proxy on every node.
pub fn start_kube_proxy(state: &State, programs: &Programs, mode: &str) -> Result<()> {
    for node in state.nodes() {
        let name = node_name(node);
        let mut proxy = Command::new(programs.kubernetes("kube-proxy"));
        proxy
            .arg(format!("--kubeconfig={}", state.kubeconfig.display()))
            .arg(format!("--hostname-override={name}"))
            .arg(format!("--proxy-mode={mode}"))
            .arg(format!("--cluster-cidr={}", PODS.join(",")))
            .args(["--conntrack-max-per-core=0", "--v=2"]);
        state.machine(&name)?.spawn(
            "kube-proxy",
            &state.log(&format!("kube-proxy-{name}")),
            &proxy,
        )?;
    }
    Ok(())
}

/// What the agent's account may do, as it is installed.
const ACCOUNT: [&str; 3] = ["serviceaccount", "clusterrole", "clusterrolebinding"];

/// Starts the agent on every node, with its own capabilities only, and waits until it answers.
pub fn start_sluice(state: &State, agent: &Path) -> Result<()> {
    for name in ACCOUNT {
        let file = workspace::root().join(format!("deploy/manifests/{name}.yaml"));
        process::output(state.kubectl()?.arg("apply").arg("--filename").arg(file))?;
    }
    for node in state.nodes() {
        let name = node_name(node);
        let mut sluice = Command::new("setpriv");
        sluice
            .arg(format!("--bounding-set={CAPABILITIES}"))
            .args(["--no-new-privs", "--"])
            .arg(agent)
            .arg("agent")
            .arg(format!("--node-name={name}"))
            .arg(format!(
                "--kubeconfig={}",
                state.dir("sluice.conf").display()
            ));
        state
            .machine(&name)?
            .spawn("sluice", &state.log(&format!("sluice-{name}")), &sluice)?;
    }
    for node in state.nodes() {
        let name = node_name(node);
        let what = format!("the agent of {name} does not answer");
        step::until(&what, Duration::from_secs(30), || {
            let machine = state.machine(&name).map_err(|error| format!("{error:#}"))?;
            process::output(machine.command(agent).args(["status", "--output=json"]))
                .map(|_| ())
                .map_err(|error| format!("{error:#}"))
        })?;
    }
    Ok(())
}
