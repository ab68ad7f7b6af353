//! A container runtime's part: calling the CNI plugin after the one that made a pod's device.

use std::io::{ErrorKind, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

use crate::agent::{Agent, program};
use crate::topology::{Node, Pod};

/// The plugin's name.
pub const PLUGIN: &str = "sluice-cni";

/// Calls the plugin on a node.
#[derive(Clone, Debug)]
pub struct Runtime {
    node: Arc<Node>,
    program: PathBuf,
    socket: PathBuf,
    /// Version of the specification.
    pub version: String,
    /// More keys of the plugin's configuration.
    pub more: Map<String, Value>,
}

/// What a call came to.
#[derive(Clone, PartialEq, Debug)]
pub struct Outcome {
    /// It succeeded.
    pub ok: bool,
    /// What it wrote to its output: a result or an error; null for nothing.
    pub output: Value,
}

impl Outcome {
    /// The error's code; 0 for success.
    pub fn code(&self) -> u64 {
        if self.ok {
            0
        } else {
            self.output["code"].as_u64().unwrap_or(u64::MAX)
        }
    }
}

impl Runtime {
    /// A runtime on an agent's node, with this program as the plugin.
    ///
    /// # Errors
    /// The program is not found.
    pub fn new(agent: &Agent) -> Result<Runtime> {
        Ok(Runtime {
            node: agent.node().clone(),
            program: program()?,
            socket: agent.socket(),
            version: "1.1.0".to_owned(),
            more: Map::new(),
        })
    }

    /// The same with another program, as one that was installed.
    pub fn with_program(mut self, program: &Path) -> Runtime {
        self.program = program.to_owned();
        self
    }

    /// A call for a pod, `pod` of the namespace `default`.
    ///
    /// # Errors
    /// The plugin cannot be run.
    pub fn call(&self, command: &str, pod: &Pod) -> Result<Outcome> {
        let args = format!(
            "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME={};K8S_POD_UID=",
            pod.name()
        );
        let netns = pod.netns().path();
        let environment = [
            ("CNI_CONTAINERID", container(pod)),
            ("CNI_NETNS", netns.display().to_string()),
            ("CNI_IFNAME", "eth0".to_owned()),
            ("CNI_ARGS", args),
        ];
        let previous = self.previous(pod);
        self.run(command, &environment, json!({ "prevResult": previous }))
    }

    /// A call that is about no pod.
    ///
    /// # Errors
    /// The plugin cannot be run.
    pub fn call_for_none(&self, command: &str, more: Value) -> Result<Outcome> {
        self.run(command, &[], more)
    }

    /// The result of the plugin that made the pod's device.
    pub fn previous(&self, pod: &Pod) -> Value {
        let addrs = pod.addrs();
        let old = self.version.as_str() < "1.0.0";
        let ip = |address: String, family: &str| {
            let mut ip = json!({ "address": address, "interface": 1 });
            if old {
                ip["version"] = family.into();
            }
            ip
        };
        json!({
            "cniVersion": self.version,
            "interfaces": [
                { "name": pod.host_if() },
                { "name": "eth0", "sandbox": pod.netns().path() },
            ],
            "ips": [
                ip(format!("{}/24", addrs.v4), "4"),
                ip(format!("{}/64", addrs.v6), "6"),
            ],
            "dns": {},
        })
    }

    fn run(&self, command: &str, environment: &[(&str, String)], more: Value) -> Result<Outcome> {
        let mut conf = json!({
            "cniVersion": self.version,
            "name": "lab",
            "type": PLUGIN,
            "socket": self.socket,
        });
        for (key, value) in self
            .more
            .iter()
            .chain(more.as_object().into_iter().flatten())
        {
            conf[key] = value.clone();
        }
        let mut plugin = Command::new(&self.program);
        plugin
            .arg0(PLUGIN)
            .env_clear()
            .env("CNI_COMMAND", command)
            .env("CNI_PATH", "/opt/cni/bin")
            .envs(environment.iter().cloned())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit());
        let mut child = self
            .node
            .netns()
            .spawn_process(&mut plugin)
            .with_context(|| format!("cannot run {}", self.program.display()))?;
        let mut input = child.stdin.take().context("no pipe to the plugin")?;
        match input.write_all(conf.to_string().as_bytes()) {
            // As for every runtime: a plugin may answer without its configuration, and end before it was written.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
            written => written?,
        }
        drop(input);
        let done = child.wait_with_output()?;
        let output = match done.stdout.is_empty() {
            true => Value::Null,
            false => serde_json::from_slice(&done.stdout).with_context(|| {
                format!(
                    "the plugin wrote {:?}",
                    String::from_utf8_lossy(&done.stdout)
                )
            })?,
        };
        Ok(Outcome {
            ok: done.status.success(),
            output,
        })
    }
}

/// The id of a pod's sandbox.
pub fn container(pod: &Pod) -> String {
    format!("sandbox-{}", pod.name())
}
