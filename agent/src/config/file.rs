//! Settings as they are asked for: by a file, by flags, by the environment.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Error, capacities};
use crate::args::AgentArgs;
use crate::kubeproxy::Configuration;
use crate::yaml::{Fault, Node};

/// The settings file. What is absent is not asked for.
#[derive(Clone, PartialEq, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[allow(missing_docs, reason = "the fields are those of `Settings`")]
pub struct File {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub manifests: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kubeconfig: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_server: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bpffs: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup_root: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub socket: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub services: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forwarding: Option<String>,
    #[serde(rename = "socketLB", skip_serializing_if = "Option::is_none")]
    pub socket_lb: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub police_node_egress: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub police_hairpin: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub live_flows: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub icmp_errors_per_second: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flow_events_per_second: Option<u32>,
    #[serde(rename = "clusterCIDR", skip_serializing_if = "Option::is_none")]
    pub cluster_cidr: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_port_addresses: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub localhost_node_ports: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub masquerade_all: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uplinks: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub xdp: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snat_ports: Option<String>,
    pub half_open: HalfOpen,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub map_capacities: BTreeMap<String, u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cni_install: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cni_bin_dir: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cni_conf_dir: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthz_bind_address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics_bind_address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bind_address_hard_fail: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health_timeout_secs: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy_mode: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oom_score_adj: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_format: Option<String>,
}

/// Limits of unanswered flows.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[allow(missing_docs, reason = "the fields are those of `Settings`")]
pub struct HalfOpen {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_pod: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total: Option<u32>,
}

impl File {
    /// The flags and the environment; `socket` is the command line's global flag.
    ///
    /// # Errors
    ///
    /// A capacity that is not one.
    pub fn from_args(args: AgentArgs, socket: Option<PathBuf>) -> Result<Self, Error> {
        let capacities = args.map_capacity.unwrap_or_default();
        Ok(Self {
            manifests: args.manifests,
            kubeconfig: args.kubeconfig,
            api_server: args.api_server,
            node_name: args.node_name.filter(|name| !name.is_empty()),
            bpffs: args.bpffs,
            cgroup_root: args.cgroup_root,
            socket,
            services: args.services,
            policy: args.policy,
            forwarding: args.forwarding,
            socket_lb: args.socket_lb,
            node_port_addresses: args.node_port_addresses,
            uplinks: args.uplinks,
            xdp: args.xdp,
            snat_ports: args.snat_ports,
            map_capacities: capacities::from_flags(&capacities)?,
            cni_install: args.cni_install.then_some(true),
            cni_bin_dir: args.cni_bin_dir,
            cni_conf_dir: args.cni_conf_dir,
            log: args.log,
            ..Self::default()
        })
    }

    /// What `above` asks for, else what this does.
    pub fn under(self, above: Self) -> Self {
        macro_rules! each {
            ($($field:ident),* $(,)?) => {
                Self {
                    half_open: HalfOpen {
                        per_pod: above.half_open.per_pod.or(self.half_open.per_pod),
                        total: above.half_open.total.or(self.half_open.total),
                    },
                    map_capacities: {
                        let mut capacities = self.map_capacities;
                        capacities.extend(above.map_capacities);
                        capacities
                    },
                    $($field: above.$field.or(self.$field),)*
                }
            };
        }
        each! {
            manifests, kubeconfig, api_server, node_name, bpffs, cgroup_root, socket, services, policy, forwarding,
            socket_lb, police_node_egress, police_hairpin, cluster_cidr, node_port_addresses, localhost_node_ports, masquerade_all, uplinks, xdp,
            snat_ports, cni_install, cni_bin_dir, cni_conf_dir,
            live_flows, icmp_errors_per_second, flow_events_per_second,
            healthz_bind_address, metrics_bind_address, bind_address_hard_fail,
            health_timeout_secs, proxy_mode, oom_score_adj, log, log_format,
        }
    }
}

/// What a settings file holds.
#[derive(Debug)]
pub enum Text {
    /// Our own settings.
    Own(Box<File>),
    /// kube-proxy's.
    KubeProxy(Box<Configuration>),
}

/// Reads a settings file: one that has an `apiVersion` or a `kind` is kube-proxy's.
///
/// # Errors
///
/// The first fault, with line and field.
pub fn read(text: &str) -> Result<Text, Fault> {
    let is_empty = |line: &str| line.trim().is_empty() || line.trim_start().starts_with('#');
    if text.lines().all(is_empty) {
        return Ok(Text::Own(Box::default()));
    }
    let node = Node::parse(text)?;
    if node.get("apiVersion").is_some() || node.get("kind").is_some() {
        return Ok(Text::KubeProxy(Box::new(node.read()?.value)));
    }
    Ok(Text::Own(Box::new(node.read()?.value)))
}
