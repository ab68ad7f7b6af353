//! The cluster under test.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::thread;

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, setns};
use serde_json::Value;
use sluice_lab::workload::{Load, LoadSpec};

/// Names of the nodes.
pub const NODES: [&str; 2] = ["n1", "n2"];
/// The machine outside the cluster.
pub const OUTSIDE: &str = "ext";
/// The machine of the control plane.
pub const CONTROL_PLANE: &str = "cp";

/// The cluster that `SLUICE_CLUSTER` describes.
pub struct Cluster(Value);

/// The cluster.
pub fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| {
        let file = std::env::var_os("SLUICE_CLUSTER").expect(
            "SLUICE_CLUSTER names no cluster: run `cargo xtask test --only cluster`, or name a cluster's state.json",
        );
        let text = fs::read_to_string(&file).expect("the cluster is up");
        Cluster(serde_json::from_str(&text).expect("what describes a cluster is JSON"))
    })
}

impl Cluster {
    /// Whether Sluice serves its Services.
    pub fn has_sluice(&self) -> bool {
        self.0["proxy"] == "sluice"
    }

    /// The first process of a machine.
    fn holder(&self, machine: &str) -> u64 {
        let machines = self.0["machines"].as_array().expect("machines");
        let found = machines.iter().find(|known| known["name"] == machine);
        found
            .and_then(|known| known["pid"].as_u64())
            .unwrap_or_else(|| panic!("there is no machine {machine}"))
    }

    /// A command that runs on a machine.
    pub fn on(&self, machine: &str, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args(["--target", &self.holder(machine).to_string()])
            .args([
                "--mount", "--uts", "--ipc", "--net", "--pid", "--wd=/", "--",
            ])
            .arg(program);
        command
    }

    /// What a program on a machine writes.
    pub fn run(&self, machine: &str, words: &[&str]) -> Result<String> {
        output(self.on(machine, words[0]).args(&words[1..]), "")
    }

    /// What kubectl writes.
    pub fn kubectl(&self, words: &[&str]) -> Result<String> {
        self.kubectl_with(words, "")
    }

    /// What kubectl writes when it reads `input`.
    pub fn kubectl_with(&self, words: &[&str], input: &str) -> Result<String> {
        let text = |name: &str| self.0[name].as_str().expect("a path").to_owned();
        let mut command = self.on(CONTROL_PLANE, &text("kubectl"));
        command
            .arg(format!("--kubeconfig={}", text("kubeconfig")))
            .args(words);
        output(&mut command, input)
    }

    /// Where processes of a machine send from.
    pub fn host(&self, machine: &str) -> Client {
        Client {
            name: machine.into(),
            netns: format!("/proc/{}/ns/net", self.holder(machine)).into(),
        }
    }

    /// Where a pod sends from.
    pub fn pod(&self, namespace: &str, pod: &str) -> Result<Client> {
        let path = "jsonpath={.spec.nodeName} {.status.podIP}";
        let found = self.kubectl(&["get", "pod", "-n", namespace, pod, "-o", path])?;
        let (node, address) = found
            .split_once(' ')
            .filter(|(_, address)| !address.is_empty())
            .with_context(|| format!("{pod} has no address yet: wait until it runs"))?;
        let folder = format!("/proc/{}/root/run/netns", self.holder(node));
        for entry in fs::read_dir(&folder)? {
            let client = Client {
                name: format!("{pod} on {node}"),
                netns: entry?.path(),
            };
            let inside =
                client.run(|| output(Command::new("ip").args(["-4", "-o", "addr"]), ""))?;
            if inside.contains(&format!(" {address}/")) {
                return Ok(client);
            }
        }
        bail!("no namespace of {node} has the address {address} of {pod}")
    }
}

/// Somewhere that traffic comes from.
#[derive(Debug, Clone)]
pub struct Client {
    /// For messages.
    pub name: String,
    netns: PathBuf,
}

impl Client {
    /// Does something in its network namespace.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                let file = File::open(&self.netns).expect("the namespace is there");
                assert_ne!(file.metadata().expect("its inode").ino(), 0);
                setns(file, CloneFlags::CLONE_NEWNET).expect("root may enter a namespace");
                work()
            });
            inside
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Starts a load.
    pub fn load(&self, spec: LoadSpec) -> Load {
        self.run(|| Load::here(spec))
    }
}

/// Runs a program to its end; its output, or an error with what it said.
fn output(command: &mut Command, input: &str) -> Result<String> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {command:?}"))?;
    let mut pipe = child.stdin.take().context("no pipe")?;
    // A program that does not read its input closes the pipe early.
    let _ = pipe.write_all(input.as_bytes());
    drop(pipe);
    let done = child.wait_with_output()?;
    if !done.status.success() {
        bail!(
            "{command:?}: {}: {}",
            done.status,
            String::from_utf8_lossy(&done.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}
