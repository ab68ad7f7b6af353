//! The settings in force as a file that would ask for each of them.

use super::file::HalfOpen;
use super::{File, Settings, SourceSettings, values};

impl From<&Settings> for File {
    fn from(settings: &Settings) -> Self {
        let text = |on: bool, [yes, no]: [&str; 2]| Some(if on { yes } else { no }.to_owned());
        let bind = |address: Option<std::net::SocketAddr>| {
            Some(address.map_or_else(|| "off".to_owned(), |address| address.to_string()))
        };
        let (manifests, kubeconfig, api_server) = match settings.source.clone() {
            SourceSettings::Manifests(folder) => (Some(folder), None, None),
            SourceSettings::Api(access) => (None, access.kubeconfig, access.api_server),
        };
        let node_ports = &settings.node_port_addresses;
        Self {
            manifests,
            kubeconfig,
            api_server,
            node_name: Some(settings.node_name.clone()),
            bpffs: Some(settings.bpffs.clone()),
            cgroup_root: settings.cgroup_root.clone(),
            socket: Some(settings.socket.clone()),
            services: text(settings.services, ["on", "off"]),
            policy: text(settings.policy, ["enforce", "off"]),
            forwarding: text(settings.redirect, ["redirect", "stack"]),
            socket_lb: text(settings.socket_lb, ["host", "off"]),
            police_node_egress: Some(settings.police_node_egress),
            police_hairpin: Some(settings.police_hairpin),
            live_flows: text(!settings.keep_flows, ["recheck", "keep"]),
            icmp_errors_per_second: Some(settings.icmp_errors),
            flow_events_per_second: Some(settings.flow_events),
            cluster_cidr: values::joined(&settings.cluster_cidrs),
            node_port_addresses: Some(if node_ports.primary {
                vec!["primary".to_owned()]
            } else {
                node_ports.blocks.iter().map(ToString::to_string).collect()
            }),
            localhost_node_ports: Some(settings.localhost_node_ports),
            masquerade_all: Some(settings.masquerade_all),
            uplinks: Some(settings.uplinks.clone()),
            xdp: Some(super::values::xdp_name(settings.xdp).to_owned()),
            snat_ports: Some(format!(
                "{}-{}",
                settings.snat_ports.0, settings.snat_ports.1
            )),
            half_open: HalfOpen {
                per_pod: Some(settings.half_open.0),
                total: Some(settings.half_open.1),
            },
            map_capacities: settings.map_capacities.clone(),
            cni_install: Some(settings.cni.is_some()),
            cni_bin_dir: settings.cni.as_ref().map(|cni| cni.bin.clone()),
            cni_conf_dir: settings.cni.as_ref().map(|cni| cni.conf.clone()),
            healthz_bind_address: bind(settings.healthz),
            metrics_bind_address: bind(settings.metrics),
            bind_address_hard_fail: Some(settings.bind_hard_fail),
            health_timeout_secs: u32::try_from(settings.health_timeout.as_secs()).ok(),
            proxy_mode: Some(settings.proxy_mode.clone()),
            oom_score_adj: settings.oom_score_adj,
            log: Some(settings.log.clone()),
            log_format: text(!settings.log_json, ["text", "json"]),
        }
    }
}
