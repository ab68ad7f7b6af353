//! The agent's settings: flag, else environment, else file, else default.

mod capacities;
mod effective;
mod file;
mod reload;
mod room;
mod values;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use crate::args::AgentArgs;
use crate::bpf::XdpSetting;
use crate::kubeproxy::Given;
use crate::source::api::{Access, Census};
pub use capacities::model_capacities;
pub use file::File;
pub use reload::Reload;
pub use values::{NodePorts, node_ports};

/// Where the pins are by default.
pub const DEFAULT_BPFFS: &str = "/sys/fs/bpf/sluice";
/// Where the agent's socket is by default.
pub const DEFAULT_SOCKET: &str = "/run/sluice/agent.sock";
/// Where container runtimes look for plugins.
pub const DEFAULT_CNI_BIN: &str = "/opt/cni/bin";
/// Where container runtimes look for network configurations.
pub const DEFAULT_CNI_CONF: &str = "/etc/cni/net.d";
/// Above what Linux gives out to sockets (`net.ipv4.ip_local_port_range`) by default.
const DEFAULT_SNAT: (u16, u16) = (61_000, 65_535);
const DEFAULT_ICMP_ERRORS: u32 = 100;
const DEFAULT_FLOW_EVENTS: u32 = 1_000;
const DEFAULT_HALF_OPEN: (u32, u32) = (4_096, 65_536);
/// Where kube-proxy answers by default.
const HEALTHZ: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 10_256);
const METRICS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 10_249);
/// Two of kube-proxy's default sync periods.
const DEFAULT_HEALTH_TIMEOUT: Duration = Duration::from_secs(60);

/// The settings in force.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// Where objects come from.
    pub source: SourceSettings,
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
    /// NetworkPolicies police traffic from a pod to its own node.
    pub police_node_egress: bool,
    /// NetworkPolicies police traffic of a pod to itself through a Service.
    pub police_hairpin: bool,
    /// Flows that were allowed stay so when policy changes.
    pub keep_flows: bool,
    /// ICMP errors that one sender may get in a second.
    pub icmp_errors: u32,
    /// Flow events that the node may send in a second, each CPU its share.
    pub flow_events: u32,
    /// Prefixes that all pods' addresses are in; none: those of the nodes count alone.
    pub cluster_cidrs: Vec<IpNet>,
    /// The node's addresses that serve NodePorts.
    pub node_port_addresses: NodePorts,
    /// Node ports are served to the node's own sockets at 127.0.0.1, too.
    pub localhost_node_ports: bool,
    /// All that is sent to a cluster IP gets the node's source address.
    pub masquerade_all: bool,
    /// Names of the uplinks; none: they are found.
    pub uplinks: Vec<String>,
    /// Which uplinks run the early program.
    pub xdp: XdpSetting,
    /// First and last port for translated sources.
    pub snat_ports: (u16, u16),
    /// Unanswered new flows that a pod, and the node, may have.
    pub half_open: (u32, u32),
    /// Capacities of maps by the settings' names, where they are not the default.
    pub map_capacities: BTreeMap<String, u32>,
    /// The CNI plugin is installed, and kept so: in which directories.
    pub cni: Option<CniDirs>,
    /// Where `/healthz` and `/livez` are answered; `None`: nowhere.
    pub healthz: Option<SocketAddr>,
    /// Where `/metrics` and the like are answered; `None`: nowhere.
    pub metrics: Option<SocketAddr>,
    /// The agent ends if it cannot listen there.
    pub bind_hard_fail: bool,
    /// How long a change may wait before the agent counts as ill.
    pub health_timeout: Duration,
    /// What `/proxyMode` answers.
    pub proxy_mode: String,
    /// The kernel's inclination to end the agent when memory is short; `None`: as it is.
    pub oom_score_adj: Option<i32>,
    /// What to log.
    pub log: String,
    /// Logs are JSON, one object a line.
    pub log_json: bool,
}

/// Directories of the host's CNI.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CniDirs {
    /// The plugins.
    pub bin: PathBuf,
    /// The network configurations.
    pub conf: PathBuf,
}

/// Where objects come from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SourceSettings {
    /// A folder of manifests.
    Manifests(PathBuf),
    /// An API server.
    Api(Access),
}

/// Settings that were read, and what is to be said about them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Loaded {
    /// The settings in force.
    pub settings: Settings,
    /// What was asked for and does nothing.
    pub warning: Option<String>,
}

/// Why the settings cannot be used.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("the settings in {}: {message}; correct it or name another file with --config", path.display())]
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
    /// A flag of kube-proxy's has a value it cannot have.
    #[error("--{flag}: {message}")]
    Flag {
        /// The flag's name.
        flag: &'static str,
        /// What is wrong.
        message: String,
    },
}

fn bad(name: &'static str, message: impl Into<String>) -> Error {
    Error::Value {
        name,
        message: message.into(),
    }
}

impl Settings {
    /// The settings of a command line; `socket` is its global flag.
    ///
    /// # Errors
    ///
    /// A setting that is missing, unknown or cannot be used.
    pub fn load(args: &AgentArgs, socket: Option<PathBuf>) -> Result<Loaded, Error> {
        let given = given(args)?;
        let warning = given.warning();
        let flags = File::from_args(args.clone(), socket)?;
        let file = given.file.under(flags).under(given.above);
        let settings = Self::new(file, Surroundings::of_process())?;
        Ok(Loaded { settings, warning })
    }

    /// The settings that the command line, the environment and the file ask for.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or a flag has a value that it cannot have.
    pub fn asked(args: &AgentArgs, socket: Option<PathBuf>) -> Result<File, Error> {
        let given = given(args)?;
        let flags = File::from_args(args.clone(), socket)?;
        Ok(given.file.under(flags).under(given.above))
    }

    /// Capacities by the maps' names in the kernel, where they are not the default. What a cluster has
    /// fits, if that is known.
    pub fn capacities(&self, census: Option<&Census>) -> BTreeMap<String, u32> {
        match census {
            Some(census) => capacities::of_maps(&room::for_cluster(&self.map_capacities, census)),
            None => capacities::of_maps(&self.map_capacities),
        }
    }

    /// A new device's pod starts only when its policy is in force: until then nothing passes.
    pub fn closes_unknown(&self) -> bool {
        self.policy && self.cni.is_some()
    }

    /// The settings in force, given those that somebody asked for.
    fn new(file: File, surroundings: Surroundings) -> Result<Self, Error> {
        let source = match file.manifests {
            Some(folder) => SourceSettings::Manifests(folder),
            None => SourceSettings::Api(access(
                file.kubeconfig.or(surroundings.kubeconfig),
                file.api_server,
                surroundings.in_pod,
            )?),
        };
        let given_name = file.node_name.filter(|name| !name.is_empty());
        let node_name = given_name.or(surroundings.host_name).ok_or_else(|| {
            bad(
                "nodeName",
                "missing, and the host has no name: give it with --node-name or NODE_NAME",
            )
        })?;
        let choice = values::choose;
        Ok(Self {
            source,
            node_name,
            bpffs: file.bpffs.unwrap_or_else(|| DEFAULT_BPFFS.into()),
            cgroup_root: file.cgroup_root,
            socket: file.socket.unwrap_or_else(|| DEFAULT_SOCKET.into()),
            services: choice("services", file.services, ["on", "off"])?,
            policy: choice("policy", file.policy, ["enforce", "off"])?,
            redirect: choice("forwarding", file.forwarding, ["redirect", "stack"])?,
            socket_lb: choice("socketLB", file.socket_lb, ["host", "off"])?,
            police_node_egress: file.police_node_egress.unwrap_or(false),
            police_hairpin: file.police_hairpin.unwrap_or(false),
            keep_flows: !choice("liveFlows", file.live_flows, ["recheck", "keep"])?,
            icmp_errors: file.icmp_errors_per_second.unwrap_or(DEFAULT_ICMP_ERRORS),
            flow_events: file.flow_events_per_second.unwrap_or(DEFAULT_FLOW_EVENTS),
            cluster_cidrs: values::cluster_cidrs(file.cluster_cidr.as_deref())?,
            node_port_addresses: values::node_ports(&file.node_port_addresses.unwrap_or_default())?,
            localhost_node_ports: file.localhost_node_ports.unwrap_or(true),
            masquerade_all: file.masquerade_all.unwrap_or(false),
            uplinks: file.uplinks.unwrap_or_default(),
            xdp: values::xdp(file.xdp.as_deref())?,
            snat_ports: values::snat_ports(file.snat_ports.as_deref())?,
            half_open: values::half_open(&file.half_open)?,
            map_capacities: capacities::checked(file.map_capacities)?,
            cni: file.cni_install.unwrap_or(false).then(|| CniDirs {
                bin: file.cni_bin_dir.unwrap_or_else(|| DEFAULT_CNI_BIN.into()),
                conf: file.cni_conf_dir.unwrap_or_else(|| DEFAULT_CNI_CONF.into()),
            }),
            healthz: values::bind("healthzBindAddress", file.healthz_bind_address, HEALTHZ)?,
            metrics: values::bind("metricsBindAddress", file.metrics_bind_address, METRICS)?,
            bind_hard_fail: file.bind_address_hard_fail.unwrap_or(false),
            health_timeout: values::health_timeout(file.health_timeout_secs)?,
            proxy_mode: file.proxy_mode.unwrap_or_else(|| "sluice".to_owned()),
            oom_score_adj: values::oom_score_adj(file.oom_score_adj)?,
            log: file.log.unwrap_or_else(|| "info".to_owned()),
            log_json: !choice("logFormat", file.log_format, ["text", "json"])?,
        })
    }
}

/// The settings of the file, and what kube-proxy's flags ask for above it.
fn given(args: &AgentArgs) -> Result<Given, Error> {
    let Some(path) = args.config.as_deref() else {
        return args.kube_proxy.above(File::default());
    };
    let failed = |message: String| Error::File {
        path: path.to_owned(),
        message,
    };
    let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
    let read = file::read(&text).map_err(|fault| failed(fault.to_string()))?;
    match read {
        file::Text::Own(file) => args.kube_proxy.above(*file),
        file::Text::KubeProxy(config) => {
            let given = config.given().map_err(failed)?;
            args.kube_proxy.beside(given)
        }
    }
}

/// What the settings depend on beside flags and files.
#[derive(Debug, Default)]
struct Surroundings {
    host_name: Option<String>,
    /// `KUBECONFIG`.
    kubeconfig: Option<PathBuf>,
    /// It runs in a pod.
    in_pod: bool,
}

impl Surroundings {
    fn of_process() -> Self {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        Self {
            host_name: host_name(),
            kubeconfig: variable("KUBECONFIG").map(PathBuf::from),
            in_pod: variable("KUBERNETES_SERVICE_HOST").is_some(),
        }
    }
}

fn access(
    kubeconfig: Option<PathBuf>,
    api_server: Option<String>,
    in_pod: bool,
) -> Result<Access, Error> {
    // A pod may do without the environment, if it is told where the server is.
    if kubeconfig.is_none() && api_server.is_none() && !in_pod {
        return Err(bad(
            "kubeconfig",
            "missing, and this is not a pod: name the API server's with --kubeconfig FILE, \
             or a folder of manifests with --manifests DIR",
        ));
    }
    Ok(Access {
        kubeconfig,
        api_server,
    })
}

fn host_name() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    // Kubernetes names nodes in lower case.
    let name = name.trim().to_lowercase();
    (!name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests;
