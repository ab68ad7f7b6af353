//! What serves Services.

use std::{fs, process::Command};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{
    images,
    network::{self, PODS, node_name},
    programs::{NODE_PLUGINS, Programs},
    state::State,
};
use crate::{process, workspace};

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

/// Where the installed manifests are, and what the overlay over them is made in.
const MANIFESTS: &str = "deploy/manifests";

/// Installs the agent as its users do, and waits until it is ready on every node.
pub fn start_sluice(state: &State) -> Result<()> {
    let overlay = state.dir("sluice");
    let base = overlay.join("base");
    fs::create_dir_all(&base).with_context(|| format!("cannot create {}", base.display()))?;
    let manifests = workspace::root().join(MANIFESTS);
    process::run(Command::new("cp").arg("-rT").args([&manifests, &base]))?;
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    let cgroups = unified(&mounts).context("no cgroup v2 hierarchy is mounted")?;
    let file = overlay.join("kustomization.yaml");
    fs::write(&file, changes(cgroups).to_string())
        .with_context(|| format!("cannot write {}", file.display()))?;
    process::output(
        state
            .kubectl()?
            .args(["apply", "--kustomize"])
            .arg(&overlay),
    )?;
    let words = ["rollout", "status", "daemonset/sluice", "--timeout=120s"];
    process::output(
        state
            .kubectl()?
            .args(["--namespace=kube-system"])
            .args(words),
    )
    .map(|_| ())
}

/// What differs from the manifests: the image of this build, the API server's address before Services work, and control groups of a
/// machine that still has version 1 beside version 2.
fn changes(cgroups: &str) -> Value {
    let (name, tag) = images::AGENT
        .rsplit_once(':')
        .unwrap_or((images::AGENT, "latest"));
    let server = format!("https://{}:6443", network::API[0]);
    let variable = |name: &str, value: &str| json!({"name": name, "value": value});
    let variables = [
        variable("SLUICE_API_SERVER", &server),
        variable("SLUICE_CNI_INSTALL", "true"),
        variable("SLUICE_CNI_BIN_DIR", "/host/cni/bin"),
        variable("SLUICE_CNI_CONF_DIR", "/host/cni/net.d"),
    ];
    let mount = |name: &str, place: &str| json!({"name": name, "mountPath": place});
    let mounts = [
        mount("cni-bin", "/host/cni/bin"),
        mount("cni-conf", "/host/cni/net.d"),
    ];
    let volume = |name: &str, path: &str, kind: &str| json!({"name": name, "hostPath": {"path": path, "type": kind}});
    let volumes = [
        volume("cgroup", cgroups, "Directory"),
        volume("cni-bin", NODE_PLUGINS, "DirectoryOrCreate"),
        volume("cni-conf", "/etc/cni/net.d", "DirectoryOrCreate"),
    ];
    let pod = json!({
        "containers": [{"name": "agent", "env": variables, "volumeMounts": mounts}],
        "volumes": volumes,
    });
    let patch = json!({
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": "sluice", "namespace": "kube-system"},
        "spec": {"template": {"spec": pod}},
    });
    json!({
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": ["base"],
        "images": [{"name": "sluice", "newName": name, "newTag": tag}],
        "patches": [{"patch": patch.to_string()}],
    })
}

/// Where control groups of version 2 are mounted, by `/proc/mounts`.
fn unified(mounts: &str) -> Option<&str> {
    mounts.lines().find_map(|line| {
        let mut words = line.split(' ').skip(1);
        let place = words.next()?;
        (words.next()? == "cgroup2").then_some(place)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_version_of_control_groups_is_found() {
        let mounts = "cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(unified(mounts), Some("/sys/fs/cgroup/unified"));
        assert_eq!(unified("proc /proc proc rw 0 0"), None);
    }
}
