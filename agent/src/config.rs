//! The agent's settings: flag, else environment, else file, else default.

mod capacities;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use serde::Deserialize;

use crate::args::AgentArgs;
use crate::yaml::{Fault, Node};
pub use capacities::model_capacities;

/// Where the pins are by default.
pub const DEFAULT_BPFFS: &str = "/sys/fs/bpf/sluice";
/// Where the agent's socket is by default.
pub const DEFAULT_SOCKET: &str = "/run/sluice/agent.sock";
/// Above what Linux gives out to sockets (`net.ipv4.ip_local_port_range`) by default.
const DEFAULT_SNAT: (u16, u16) = (61_000, 65_535);
const DEFAULT_HALF_OPEN: (u32, u32) = (4_096, 65_536);

/// The settings in force.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// Folder of manifests.
    pub manifests: PathBuf,
    /// Name of this node.
    pub node_name: String,
    /// Directory of the pins.
    pub bpffs: PathBuf,
    /// Root of the cgroup v2 tree; `None`: it is found.
    pub cgroup_root: Option<PathBuf>,
    /// The agent's socket.
    pub socket: PathBuf,
    /// Services are translated.
    pub services: bool,
    /// Policies are enforced.
    pub policy: bool,
    /// Same-node traffic passes by the host's stack.
    pub redirect: bool,
    /// Services are translated at the sockets of the host's processes.
    pub socket_lb: bool,
    /// Traffic from a pod to its own node is policed.
    pub police_node_egress: bool,
    /// Blocks of the node's addresses that serve NodePorts; none: all addresses do.
    pub node_port_addresses: Vec<IpNet>,
    /// Names of the uplinks; none: they are found.
    pub uplinks: Vec<String>,
    /// First and last port for translated sources.
    pub snat_ports: (u16, u16),
    /// Unanswered new flows that a pod, and the node, may have.
    pub half_open: (u32, u32),
    /// Capacities of maps by their names in the kernel, where they are not the default.
    pub capacities: BTreeMap<String, u32>,
    /// What to log.
    pub log: String,
}

/// Why the settings cannot be used.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("the settings in {}: {message}; name another file with --config", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        message: String,
    },
    /// A setting has a value it cannot have.
    #[error("{name}: {message}")]
    Value {
        /// The setting's name.
        name: &'static str,
        /// What is wrong and what would cure it.
        message: String,
    },
}

fn bad(name: &'static str, message: impl Into<String>) -> Error {
    Error::Value {
        name,
        message: message.into(),
    }
}

/// The settings as they stand in a file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct File {
    manifests: Option<PathBuf>,
    node_name: Option<String>,
    bpffs: Option<PathBuf>,
    cgroup_root: Option<PathBuf>,
    socket: Option<PathBuf>,
    services: Option<String>,
    policy: Option<String>,
    forwarding: Option<String>,
    #[serde(rename = "socketLB")]
    socket_lb: Option<String>,
    police_node_egress: Option<bool>,
    node_port_addresses: Option<Vec<String>>,
    uplinks: Option<Vec<String>>,
    snat_ports: Option<String>,
    half_open: HalfOpen,
    map_capacities: BTreeMap<String, u32>,
    log: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct HalfOpen {
    per_pod: Option<u32>,
    total: Option<u32>,
}

impl Settings {
    /// The settings of a command line; `socket` is its global flag.
    ///
    /// # Errors
    ///
    /// A setting that is missing, unknown or cannot be used.
    pub fn load(args: &AgentArgs, socket: Option<PathBuf>) -> Result<Self, Error> {
        let file = args
            .config
            .as_deref()
            .map_or_else(|| Ok(File::default()), read)?;
        Self::merge(args.clone(), socket, file, host_name)
    }

    fn merge(
        args: AgentArgs,
        socket: Option<PathBuf>,
        file: File,
        host_name: impl FnOnce() -> Option<String>,
    ) -> Result<Self, Error> {
        let manifests = args.manifests.or(file.manifests).ok_or_else(|| {
            bad(
                "manifests",
                "missing: name the folder of manifests with --manifests DIR",
            )
        })?;
        let given_name = args
            .node_name
            .or(file.node_name)
            .filter(|name| !name.is_empty());
        let node_name = given_name.or_else(host_name).ok_or_else(|| {
            bad(
                "nodeName",
                "missing, and the host has no name: give it with --node-name or NODE_NAME",
            )
        })?;
        let choice = |name, flag: Option<String>, file: Option<String>, options: [&str; 2]| {
            choose(name, flag.or(file), options)
        };
        let mut capacities = capacities::from_map(&file.map_capacities)?;
        capacities.extend(capacities::from_flags(
            args.map_capacity.as_deref().unwrap_or_default(),
        )?);
        let prefixes = args.node_port_addresses.or(file.node_port_addresses);
        Ok(Self {
            manifests,
            node_name,
            bpffs: args
                .bpffs
                .or(file.bpffs)
                .unwrap_or_else(|| DEFAULT_BPFFS.into()),
            cgroup_root: args.cgroup_root.or(file.cgroup_root),
            socket: socket
                .or(file.socket)
                .unwrap_or_else(|| DEFAULT_SOCKET.into()),
            services: choice("services", args.services, file.services, ["on", "off"])?,
            policy: choice("policy", args.policy, file.policy, ["enforce", "off"])?,
            redirect: choice(
                "forwarding",
                args.forwarding,
                file.forwarding,
                ["redirect", "stack"],
            )?,
            socket_lb: choice("socketLB", args.socket_lb, file.socket_lb, ["host", "off"])?,
            police_node_egress: file.police_node_egress.unwrap_or(false),
            node_port_addresses: self::prefixes(&prefixes.unwrap_or_default())?,
            uplinks: args.uplinks.or(file.uplinks).unwrap_or_default(),
            snat_ports: snat_ports(args.snat_ports.or(file.snat_ports).as_deref())?,
            half_open: half_open(&file.half_open)?,
            capacities,
            log: args.log.or(file.log).unwrap_or_else(|| "info".to_owned()),
        })
    }
}

/// Blocks of addresses.
///
/// # Errors
///
/// One that is not a block.
pub fn prefixes(texts: &[String]) -> Result<Vec<IpNet>, Error> {
    let block = |text: &String| {
        text.parse::<IpNet>()
            .map(|block| block.trunc())
            .map_err(|_| {
                bad(
                    "nodePortAddresses",
                    format!("{text:?} is not a block of addresses: write one like 10.0.0.0/8"),
                )
            })
    };
    texts.iter().map(block).collect()
}

fn read(path: &Path) -> Result<File, Error> {
    let failed = |message: String| Error::File {
        path: path.to_owned(),
        message,
    };
    let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
    if text
        .lines()
        .all(|line| line.trim().is_empty() || line.trim_start().starts_with('#'))
    {
        return Ok(File::default());
    }
    parse(&text).map_err(|fault| failed(fault.to_string()))
}

fn parse(text: &str) -> Result<File, Fault> {
    Ok(Node::parse(text)?.read::<File>()?.value)
}

/// True for the first option, which is the default.
fn choose(
    name: &'static str,
    value: Option<String>,
    [first, second]: [&str; 2],
) -> Result<bool, Error> {
    match value.as_deref() {
        None => Ok(true),
        Some(value) if value == first => Ok(true),
        Some(value) if value == second => Ok(false),
        Some(value) => Err(bad(
            name,
            format!("{value:?} is not known: write {first} or {second}"),
        )),
    }
}

fn snat_ports(text: Option<&str>) -> Result<(u16, u16), Error> {
    let Some(text) = text else {
        return Ok(DEFAULT_SNAT);
    };
    let range = text.split_once('-').and_then(|(first, last)| {
        Some((
            first.trim().parse::<u16>().ok()?,
            last.trim().parse::<u16>().ok()?,
        ))
    });
    match range {
        Some((first, last)) if first >= 1_024 && first <= last => Ok((first, last)),
        _ => Err(bad(
            "snatPorts",
            format!("{text:?} is not a range: write one like 61000-65535, from 1024 on"),
        )),
    }
}

fn half_open(given: &HalfOpen) -> Result<(u32, u32), Error> {
    let per_pod = given.per_pod.unwrap_or(DEFAULT_HALF_OPEN.0);
    let total = given.total.unwrap_or(DEFAULT_HALF_OPEN.1);
    if per_pod == 0 || per_pod > total {
        return Err(bad(
            "halfOpen",
            format!("perPod {per_pod} and total {total}: give perPod at least 1 and at most total"),
        ));
    }
    Ok((per_pod, total))
}

fn host_name() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    // Kubernetes names nodes in lower case.
    let name = name.trim().to_lowercase();
    (!name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests;
