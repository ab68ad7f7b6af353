//! What a cluster consists of, as recorded on disk.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::{Cni, Proxy, Up, machine::Machine, network, node, programs::Programs};
use crate::process;

/// Where clusters keep keys, settings and logs.
const HOME: &str = "/var/tmp/sluice-cluster";

/// A cluster.
#[derive(Debug, Serialize, Deserialize)]
pub struct State {
    /// Its name.
    pub name: String,
    /// Its folder.
    pub root: PathBuf,
    /// How many nodes.
    pub nodes: u8,
    /// What serves Services.
    pub proxy: Proxy,
    /// How pods are connected.
    pub cni: Cni,
    /// kubectl of the cluster's version.
    pub kubectl: PathBuf,
    /// Settings of kubectl for an administrator.
    pub kubeconfig: PathBuf,
    /// Network namespaces, recorded before they are made.
    pub namespaces: Vec<String>,
    /// Machines.
    pub machines: Vec<Machine>,
}

impl State {
    /// A new one, with an empty folder.
    pub fn create(up: &Up, programs: &Programs) -> Result<Self> {
        let root = root_of(&up.which.name);
        for dir in ["pki", "log"] {
            let dir = root.join(dir);
            fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        }
        let state = Self {
            name: up.which.name.clone(),
            nodes: up.nodes,
            proxy: up.proxy,
            cni: up.cni,
            kubectl: programs.kubernetes("kubectl"),
            kubeconfig: root.join("admin.conf"),
            root,
            namespaces: Vec::new(),
            machines: Vec::new(),
        };
        state.save()?;
        Ok(state)
    }

    /// The recorded cluster of a name.
    ///
    /// # Errors
    /// If there is none.
    pub fn load(name: &str) -> Result<Self> {
        let file = file_of(name);
        let Ok(text) = fs::read_to_string(&file) else {
            bail!("there is no cluster {name}: `cargo xtask cluster up --name {name}` starts one");
        };
        serde_json::from_str(&text).with_context(|| format!("cannot read {}", file.display()))
    }

    /// Writes it down.
    pub fn save(&self) -> Result<()> {
        let file = self.file();
        fs::write(&file, serde_json::to_string_pretty(self)?)
            .with_context(|| format!("cannot write {}", file.display()))
    }

    /// The file it is written to.
    pub fn file(&self) -> PathBuf {
        file_of(&self.name)
    }

    /// A folder or file of its own.
    pub fn dir(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// The log of a program.
    pub fn log(&self, name: &str) -> PathBuf {
        self.root.join("log").join(format!("{name}.log"))
    }

    /// The machine of a name.
    pub fn machine(&self, name: &str) -> Result<&Machine> {
        self.machines
            .iter()
            .find(|machine| machine.name == name)
            .with_context(|| format!("cluster {} has no machine {name}", self.name))
    }

    /// The numbers of its nodes.
    pub fn nodes(&self) -> impl Iterator<Item = u8> + use<> {
        1..=self.nodes
    }

    /// kubectl beside the API server.
    pub fn kubectl(&self) -> Result<Command> {
        let mut command = self.machine(network::CONTROL_PLANE)?.command(&self.kubectl);
        command.arg(format!("--kubeconfig={}", self.kubeconfig.display()));
        Ok(command)
    }

    /// How a person calls kubectl.
    pub fn kubectl_words(&self) -> String {
        self.kubectl()
            .map(|command| process::describe(&command))
            .unwrap_or_default()
    }

    /// Applies objects given as YAML.
    pub fn apply(&self, name: &str, yaml: &str) -> Result<()> {
        let file = self.dir(&format!("{name}.yaml"));
        fs::write(&file, yaml).with_context(|| format!("cannot write {}", file.display()))?;
        process::output(self.kubectl()?.args(["apply", "--filename"]).arg(&file))?;
        Ok(())
    }
}

/// Stops a cluster and removes what it left; silent if there is none.
pub fn down(name: &str) -> Result<()> {
    if !file_of(name).is_file() {
        return remove(&root_of(name));
    }
    let state = State::load(name)?;
    for machine in &state.machines {
        machine.stop()?;
    }
    for namespace in &state.namespaces {
        if Path::new("/run/netns").join(namespace).exists() {
            process::output(Command::new("ip").args(["netns", "delete", namespace]))?;
        }
    }
    for number in state.nodes() {
        node::remove_cgroups(&state, number);
    }
    remove(&state.root)?;
    eprintln!("cluster {name} is down");
    Ok(())
}

/// Prints every cluster.
pub fn status() -> Result<()> {
    let mut any = false;
    for entry in fs::read_dir(HOME).into_iter().flatten().flatten() {
        let Some(state) = entry
            .file_name()
            .to_str()
            .and_then(|name| State::load(name).ok())
        else {
            continue;
        };
        any = true;
        println!(
            "cluster {}: {} nodes, proxy {:?}, CNI {:?}, {}",
            state.name,
            state.nodes,
            state.proxy,
            state.cni,
            state.root.display()
        );
        for machine in &state.machines {
            let mut words = Vec::new();
            for (name, runs) in machine.programs() {
                words.push(if runs {
                    name
                } else {
                    format!("{name} (ended)")
                });
            }
            let what = if machine.is_up() { "up" } else { "down" };
            println!("  {} {what}: {}", machine.name, words.join(", "));
        }
        println!("  kubectl: {}", state.kubectl_words());
    }
    if !any {
        println!("no cluster");
    }
    Ok(())
}

fn remove(dir: &Path) -> Result<()> {
    if dir.exists() {
        fs::remove_dir_all(dir).with_context(|| format!("cannot remove {}", dir.display()))?;
    }
    Ok(())
}

/// The folder of a cluster.
pub fn root_of(name: &str) -> PathBuf {
    Path::new(HOME).join(name)
}

/// The file that describes a cluster.
pub fn file_of(name: &str) -> PathBuf {
    root_of(name).join("state.json")
}
