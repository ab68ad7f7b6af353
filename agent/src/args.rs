//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::config::{DEFAULT_BPFFS, DEFAULT_CNI_BIN, DEFAULT_CNI_CONF, DEFAULT_SOCKET};
use crate::kubeproxy::Flags;
pub use policy::{ExplainArgs, PolicyCommand, WaitArgs};

mod policy;

/// An eBPF dataplane for Kubernetes nodes.
#[derive(Debug, Parser)]
#[command(name = "sluice", version, propagate_version = true)]
pub struct Cli {
    /// Socket of the agent.
    #[arg(long, global = true, value_name = "FILE", env = "SLUICE_SOCKET")]
    pub socket: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

impl Cli {
    /// The socket, or where it is by default.
    pub fn socket(&self) -> PathBuf {
        self.socket.clone().unwrap_or_else(|| DEFAULT_SOCKET.into())
    }
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the node agent.
    Agent(Box<AgentArgs>),
    /// Show the state of the agent and its dataplane.
    Status(OutputArgs),
    /// Services and the backends that serve them.
    #[command(subcommand)]
    Service(ServiceCommand),
    /// Check that this host can run Sluice, or, with --services, that Services answer.
    Check(CheckArgs),
    /// Policies: what is in force, and why.
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Flows that are tracked.
    #[command(subcommand)]
    Conntrack(ConntrackCommand),
    /// Show verdicts as they are made.
    Flow(FlowArgs),
    /// The CNI plugin on this host.
    #[command(subcommand)]
    Cni(CniCommand),
    /// Detach the programs and remove maps and pins: every trace in the kernel.
    Cleanup(CleanupArgs),
    /// Compile manifests and print the maps, without touching the kernel.
    Dump(DumpArgs),
    /// The agent's settings.
    #[command(subcommand)]
    Config(ConfigCommand),
}

/// Commands about settings.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print settings as YAML, as a file for --config.
    Print {
        /// All settings that an agent with these flags and this environment would have; without it,
        /// only those that somebody asked for.
        #[arg(long)]
        effective: bool,
        /// The agent's flags.
        #[command(flatten)]
        agent: Box<AgentArgs>,
    },
}

/// Commands about the CNI plugin.
#[derive(Debug, Subcommand)]
pub enum CniCommand {
    /// Remove what an agent with --cni-install put on this host; pods start without it from then on.
    Uninstall {
        /// Directory of the host's CNI plugins.
        #[arg(long, value_name = "DIR", env = "SLUICE_CNI_BIN_DIR", default_value = DEFAULT_CNI_BIN)]
        cni_bin_dir: PathBuf,
        /// Directory of the host's network configurations.
        #[arg(long, value_name = "DIR", env = "SLUICE_CNI_CONF_DIR", default_value = DEFAULT_CNI_CONF)]
        cni_conf_dir: PathBuf,
    },
}

/// Commands about Services.
#[derive(Debug, Subcommand)]
pub enum ServiceCommand {
    /// List the frontends and who serves them.
    List {
        /// Only those of this namespace.
        #[arg(short, long, value_name = "NAMESPACE")]
        namespace: Option<String>,
        /// How to print.
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Show which endpoints serve a Service on this node, and why the others do not.
    Show {
        /// Its name.
        name: String,
        /// Its namespace.
        #[arg(short, long, value_name = "NAMESPACE", default_value = "default")]
        namespace: String,
        /// How to print.
        #[command(flatten)]
        output: OutputArgs,
    },
}

/// What to check.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Ask the agent, and connect to each address of each Service from here.
    #[arg(long)]
    pub services: bool,
    /// Directory for pins that is to be on a BPF file system.
    #[arg(long, value_name = "DIR", env = "SLUICE_BPFFS", default_value = DEFAULT_BPFFS)]
    pub bpffs: PathBuf,
    /// Mount a BPF file system here, if there is none, and check nothing.
    #[arg(long, value_name = "DIR", conflicts_with = "services")]
    pub mount_bpffs: Option<PathBuf>,
    /// How to print.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Commands about conntrack.
#[derive(Debug, Subcommand)]
pub enum ConntrackCommand {
    /// List the flows.
    List {
        /// Most flows to list; 0 for all.
        #[arg(long, default_value_t = 1_000, value_name = "N")]
        limit: usize,
        /// How to print.
        #[command(flatten)]
        output: OutputArgs,
    },
}

/// How to print.
#[derive(Clone, Copy, Debug, Args)]
pub struct OutputArgs {
    /// Form of the output.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub output: Output,
}

/// Forms of output.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Output {
    /// Columns, for people.
    Table,
    /// More columns, where there are more.
    Wide,
    /// JSON.
    #[value(alias = "jsonl")]
    Json,
    /// YAML.
    Yaml,
}

/// Which flows to show.
#[derive(Debug, Args)]
pub struct FlowArgs {
    /// End after N verdicts; without it, go on until interrupted.
    #[arg(long, value_name = "N")]
    pub count: Option<usize>,
    /// Only what passed, or only what did not.
    #[arg(long, value_enum)]
    pub verdict: Option<VerdictFilter>,
    /// Only flows from or to this pod, as NAME or NAMESPACE/NAME.
    #[arg(long, value_name = "POD")]
    pub pod: Option<String>,
    /// Only flows from or to a pod of this namespace.
    #[arg(short, long, value_name = "NAMESPACE")]
    pub namespace: Option<String>,
    /// Only what was dropped for this reason, as in `policy-ingress`.
    #[arg(long, value_name = "REASON")]
    pub reason: Option<String>,
    /// How to print: JSON is one object a line.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Verdicts to show.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum VerdictFilter {
    /// What passed.
    Allowed,
    /// What did not.
    Dropped,
    /// What passed and policies in audit would drop.
    Audit,
}

/// What to clean up.
#[derive(Debug, Args)]
pub struct CleanupArgs {
    /// Directory of the pins.
    #[arg(long, value_name = "DIR", env = "SLUICE_BPFFS", default_value = DEFAULT_BPFFS)]
    pub bpffs: PathBuf,
}

/// What to compile.
#[derive(Debug, Args)]
pub struct DumpArgs {
    /// Folder of manifests.
    #[arg(long, value_name = "DIR")]
    pub manifests: PathBuf,
    /// Name of the node to compile for.
    #[arg(long, value_name = "NAME")]
    pub node_name: String,
    /// Only NodePort addresses in these blocks.
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    pub node_port_addresses: Vec<String>,
    /// How to print.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Settings of the agent. Each is taken from the flag, else the environment, else the file given
/// with --config, else its default.
#[derive(Clone, Debug, Default, Args)]
pub struct AgentArgs {
    /// Folder of manifests to read and watch, in place of an API server.
    #[arg(long, value_name = "DIR", env = "SLUICE_MANIFESTS")]
    pub manifests: Option<PathBuf>,
    /// Kubeconfig of the API server [default: KUBECONFIG, else what a pod is given].
    #[arg(long, value_name = "FILE", env = "SLUICE_KUBECONFIG")]
    pub kubeconfig: Option<PathBuf>,
    /// Where to reach the API server, whatever the kubeconfig or the pod's environment names.
    #[arg(long, value_name = "URL", env = "SLUICE_API_SERVER")]
    pub api_server: Option<String>,
    /// Name of this node [default: the host's name].
    #[arg(long, value_name = "NAME", env = "NODE_NAME")]
    pub node_name: Option<String>,
    /// Directory on a bpffs for pinned programs and maps [default: /sys/fs/bpf/sluice].
    #[arg(long, value_name = "DIR", env = "SLUICE_BPFFS")]
    pub bpffs: Option<PathBuf>,
    /// Root of the cgroup v2 tree [default: found].
    #[arg(long, value_name = "DIR", env = "SLUICE_CGROUP_ROOT")]
    pub cgroup_root: Option<PathBuf>,
    /// Settings as YAML: Sluice's own, or a KubeProxyConfiguration.
    #[arg(long, value_name = "FILE", env = "SLUICE_CONFIG")]
    pub config: Option<PathBuf>,
    /// Translate Services: on or off [default: on].
    #[arg(long, value_name = "MODE", env = "SLUICE_SERVICES")]
    pub services: Option<String>,
    /// Policies: enforce or off [default: enforce].
    #[arg(long, value_name = "MODE", env = "SLUICE_POLICY")]
    pub policy: Option<String>,
    /// Traffic between pods of this node: redirect, or stack [default: redirect].
    #[arg(long, value_name = "MODE", env = "SLUICE_FORWARDING")]
    pub forwarding: Option<String>,
    /// Translation at the sockets of the host's processes: host or off [default: host].
    #[arg(long, value_name = "MODE", env = "SLUICE_SOCKET_LB")]
    pub socket_lb: Option<String>,
    /// Blocks of the node's addresses that serve NodePorts, or `primary` [default: all].
    #[arg(
        long,
        value_name = "CIDR",
        value_delimiter = ',',
        env = "SLUICE_NODE_PORT_ADDRESSES"
    )]
    pub node_port_addresses: Option<Vec<String>>,
    /// Names of the uplinks [default: found].
    #[arg(
        long,
        value_name = "NAME",
        value_delimiter = ',',
        env = "SLUICE_UPLINKS"
    )]
    pub uplinks: Option<Vec<String>>,
    /// Relay outside traffic to other nodes by XDP: auto, native, generic or off [default: auto].
    #[arg(long, value_name = "MODE", env = "SLUICE_XDP")]
    pub xdp: Option<String>,
    /// Ports for translated sources, as FIRST-LAST [default: 61000-65535].
    #[arg(long, value_name = "PORTS", env = "SLUICE_SNAT_PORTS")]
    pub snat_ports: Option<String>,
    /// Capacity of a map, as NAME=ENTRIES; may be repeated.
    #[arg(
        long,
        value_name = "NAME=ENTRIES",
        value_delimiter = ',',
        env = "SLUICE_MAP_CAPACITY"
    )]
    pub map_capacity: Option<Vec<String>>,
    /// Install the CNI plugin and keep it so: no pod starts before its policy is in force.
    #[arg(long, env = "SLUICE_CNI_INSTALL")]
    pub cni_install: bool,
    /// Directory of the host's CNI plugins [default: /opt/cni/bin].
    #[arg(long, value_name = "DIR", env = "SLUICE_CNI_BIN_DIR")]
    pub cni_bin_dir: Option<PathBuf>,
    /// Directory of the host's network configurations [default: /etc/cni/net.d].
    #[arg(long, value_name = "DIR", env = "SLUICE_CNI_CONF_DIR")]
    pub cni_conf_dir: Option<PathBuf>,
    /// What to log, as in `info` or `sluice=debug` [default: info].
    #[arg(long, value_name = "FILTER", env = "SLUICE_LOG")]
    pub log: Option<String>,
    /// kube-proxy's flags.
    #[command(flatten)]
    pub kube_proxy: Flags,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_socket_may_stand_before_or_after_the_command() {
        for line in [
            ["sluice", "--socket", "/s", "status"],
            ["sluice", "status", "--socket", "/s"],
        ] {
            let cli = Cli::parse_from(line);
            assert_eq!(cli.socket(), PathBuf::from("/s"));
        }
    }
}
