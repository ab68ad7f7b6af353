//! A node: container runtime, network plugin and kubelet.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result};

use super::{
    Cni, images,
    machine::Machine,
    network::{self, DNS, node_name},
    programs::{CNI_PLUGINS, NODE_PLUGINS, Programs},
    state::State,
    step,
};
use crate::process;

/// The container runtime's socket on a node.
const RUNTIME: &str = "/run/containerd/containerd.sock";

/// Starts the container runtime of a node and gives it the images.
pub fn start_runtime(
    state: &State,
    programs: &Programs,
    node: u8,
    images: &[PathBuf],
) -> Result<()> {
    let name = node_name(node);
    let machine = state.machine(&name)?;
    let folder = state.dir(&name);
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let network = folder.join("10-kc.conflist");
    fs::write(&network, network_list(state.cni, node))?;
    process::output(
        machine
            .command("cp")
            .arg(&network)
            .arg("/etc/cni/net.d/10-kc.conflist"),
    )?;
    let settings = folder.join("containerd.toml");
    fs::write(&settings, runtime_settings())?;
    let mut runtime = Command::new(programs.containerd("containerd"));
    runtime.arg("--config").arg(&settings);
    // It looks for its shims beside the programs on PATH.
    process::prepend_path(&mut runtime, &programs.containerd_dir())?;
    machine.spawn(
        "containerd",
        &state.log(&format!("containerd-{name}")),
        &runtime,
    )?;
    let what = format!("the container runtime of {name} does not answer");
    step::until(&what, Duration::from_secs(60), || {
        process::output(ctr(machine, programs).args(["leases", "list"]))
            .map(|_| ())
            .map_err(|error| format!("{error:#}"))
    })?;
    import(state, programs, node, images)
}

/// Gives images to a node.
pub fn import(state: &State, programs: &Programs, node: u8, images: &[PathBuf]) -> Result<()> {
    let machine = state.machine(&node_name(node))?;
    for image in images {
        process::output(ctr(machine, programs).args(["images", "import"]).arg(image))?;
    }
    Ok(())
}

fn ctr(machine: &Machine, programs: &Programs) -> Command {
    let mut command = machine.command(programs.containerd("ctr"));
    command.args(["--address", RUNTIME, "--namespace", "k8s.io"]);
    command
}

/// Starts the kubelet of a node.
pub fn start_kubelet(state: &State, programs: &Programs, node: u8) -> Result<()> {
    let name = node_name(node);
    for root in cgroup_roots(state, node) {
        fs::create_dir_all(&root).with_context(|| format!("cannot create {}", root.display()))?;
    }
    let settings = state.dir(&name).join("kubelet.yaml");
    fs::write(&settings, kubelet_settings(state, node))?;
    let mut kubelet = Command::new(programs.kubernetes("kubelet"));
    kubelet
        .arg(format!("--config={}", settings.display()))
        .arg(format!(
            "--kubeconfig={}",
            state.dir("kubelet.conf").display()
        ))
        .arg(format!("--hostname-override={name}"))
        .arg(format!(
            "--node-ip={}",
            network::addresses(network::place(node)).join(",")
        ))
        .arg(format!(
            "--node-labels=topology.kubernetes.io/zone=zone-{node}"
        ))
        .arg("--v=2");
    state
        .machine(&name)?
        .spawn("kubelet", &state.log(&format!("kubelet-{name}")), &kubelet)
}

/// Writes into the nodes' objects which addresses their pods have, as a cloud or the controllers would.
pub fn tell_ranges(state: &State) -> Result<()> {
    for node in state.nodes() {
        let ranges = network::pods(node);
        let spec = serde_json::json!({"spec": {"podCIDR": ranges[0], "podCIDRs": ranges}});
        process::output(
            state
                .kubectl()?
                .args(["patch", "node", &node_name(node), "--patch"])
                .arg(spec.to_string()),
        )?;
    }
    Ok(())
}

/// Waits until every node is ready.
pub fn wait_until_ready(state: &State) -> Result<()> {
    for node in state.nodes() {
        let name = node_name(node);
        let what = format!("node {name} is not ready");
        step::until(&what, Duration::from_secs(60), || {
            let status = r#"jsonpath={.status.conditions[?(@.type=="Ready")].status}"#;
            let mut kubectl = state.kubectl().map_err(|error| format!("{error:#}"))?;
            match process::output(kubectl.args(["get", "node", &name, "--output", status])) {
                Ok(said) if said == "True" => Ok(()),
                Ok(said) => Err(format!("its condition is '{said}'")),
                Err(error) => Err(format!("{error:#}")),
            }
        })?;
    }
    Ok(())
}

/// Removes the control groups of a node's containers.
pub fn remove_cgroups(state: &State, node: u8) {
    for root in cgroup_roots(state, node) {
        // The kernel may still be burying processes: an empty folder that stays does no harm, and the next cluster uses it.
        remove_tree(&root);
    }
}

fn remove_tree(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path());
        }
    }
    let _ = fs::remove_dir(dir);
}

/// Where the containers of a node are, in each hierarchy of control groups.
fn cgroup_roots(state: &State, node: u8) -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    hierarchies(&mounts)
        .into_iter()
        .map(|place| place.join(cgroup(state, node)))
        .collect()
}

fn cgroup(state: &State, node: u8) -> String {
    format!("kc-{}-{}", state.name, node_name(node))
}

/// Where control groups are mounted, by `/proc/mounts`.
fn hierarchies(mounts: &str) -> Vec<PathBuf> {
    mounts
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ').skip(1);
            let place = words.next()?;
            ["cgroup", "cgroup2"]
                .contains(&words.next()?)
                .then(|| PathBuf::from(place))
        })
        .collect()
}

fn network_list(cni: Cni, node: u8) -> String {
    let [v4, v6] = network::pods(node);
    let device = match cni {
        Cni::Ptp => r#""type":"ptp","ipMasq":false,"mtu":1500"#,
        Cni::Bridge => {
            r#""type":"bridge","bridge":"cni0","isGateway":true,"ipMasq":false,"hairpinMode":true,"mtu":1500"#
        }
    };
    format!(
        r#"{{"cniVersion":"1.0.0","name":"kc","plugins":[
 {{{device},"ipam":{{"type":"host-local","dataDir":"/run/cni-ipam","ranges":[[{{"subnet":"{v4}"}}],[{{"subnet":"{v6}"}}]],
  "routes":[{{"dst":"0.0.0.0/0"}},{{"dst":"::/0"}}]}}}},
 {{"type":"portmap","capabilities":{{"portMappings":true}},"snat":true}}]}}
"#
    )
}

fn runtime_settings() -> String {
    format!(
        r#"version = 3
[grpc]
  address = "{RUNTIME}"
[plugins.'io.containerd.cri.v1.images']
  snapshotter = "overlayfs"
[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = "{}"
[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = true
  [plugins.'io.containerd.cri.v1.runtime'.cni]
    bin_dirs = ["{CNI_PLUGINS}", "{NODE_PLUGINS}"]
  [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
      BinaryName = "/usr/sbin/runc"
      SystemdCgroup = false
"#,
        images::PAUSE
    )
}

fn kubelet_settings(state: &State, node: u8) -> String {
    format!(
        r#"apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
failCgroupV1: false
cgroupDriver: cgroupfs
cgroupRoot: /{}
cgroupsPerQOS: false
enforceNodeAllocatable: []
failSwapOn: false
containerRuntimeEndpoint: unix://{RUNTIME}
authentication: {{anonymous: {{enabled: true}}, webhook: {{enabled: false}}}}
authorization: {{mode: AlwaysAllow}}
clusterDNS: ["{}"]
clusterDomain: cluster.local
resolvConf: /etc/resolv.conf
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
evictionHard: {{memory.available: "100Mi"}}
"#,
        cgroup(state, node),
        DNS[0]
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_families_are_in_the_network_list() {
        for cni in [Cni::Ptp, Cni::Bridge] {
            let list: serde_json::Value = serde_json::from_str(&network_list(cni, 2)).unwrap();
            let ranges = &list["plugins"][0]["ipam"]["ranges"];
            assert_eq!(ranges[0][0]["subnet"], "10.244.2.0/24");
            assert_eq!(ranges[1][0]["subnet"], "fd44:2::/64");
        }
    }

    #[test]
    fn every_hierarchy_of_control_groups_counts() {
        let mounts = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        let places = ["/sys/fs/cgroup/cpu", "/sys/fs/cgroup/unified"].map(PathBuf::from);
        assert_eq!(hierarchies(mounts), places);
    }
}
