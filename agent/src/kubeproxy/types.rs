//! The fields of `KubeProxyConfiguration` (kubeproxy.config.k8s.io/v1alpha1, as of kube-proxy 1.36).
//!
//! Every field is typed, so that a wrong value is an error even in a field that does nothing here.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::duration::GoDuration;

/// Declares structs whose fields may all be absent or null; any other field is an error.
macro_rules! fields {
    ($(
        $(#[doc = $doc:expr])+
        $name:ident { $($(#[serde($rename:ident = $to:literal)])? $field:ident: $ty:ty,)* }
    )+) => {
        $(
            $(#[doc = $doc])+
            #[derive(Clone, PartialEq, Debug, Default, Deserialize, Serialize)]
            #[serde(rename_all = "camelCase", deny_unknown_fields, default)]
            pub struct $name {
                $(
                    #[doc = concat!("`", stringify!($field), "`")]
                    #[serde($($rename = $to,)? skip_serializing_if = "Option::is_none")]
                    pub $field: Option<$ty>,
                )*
            }
        )+
    };
}

fields! {
    /// The configuration.
    Configuration {
        api_version: String,
        kind: String,
        feature_gates: BTreeMap<String, bool>,
        client_connection: ClientConnection,
        logging: Logging,
        hostname_override: String,
        bind_address: String,
        healthz_bind_address: String,
        metrics_bind_address: String,
        bind_address_hard_fail: bool,
        enable_profiling: bool,
        show_hidden_metrics_for_version: String,
        mode: String,
        iptables: IpTables,
        ipvs: Ipvs,
        nftables: NfTables,
        winkernel: Winkernel,
        detect_local_mode: String,
        detect_local: DetectLocal,
        #[serde(rename = "clusterCIDR")]
        cluster_cidr: String,
        node_port_addresses: Vec<String>,
        oom_score_adj: i32,
        conntrack: Conntrack,
        config_sync_period: GoDuration,
        port_range: String,
        windows_run_as_service: bool,
    }

    /// How the API server is reached.
    ClientConnection {
        kubeconfig: String,
        accept_content_types: String,
        content_type: String,
        qps: f64,
        burst: i32,
    }

    /// Logging.
    Logging {
        format: String,
        flush_frequency: FlushFrequency,
        verbosity: u32,
        vmodule: Vec<VModule>,
        options: serde_json::Value,
    }

    /// Verbosity of some files.
    VModule { file_pattern: String, verbosity: u32, }

    /// The mode `iptables`.
    IpTables {
        masquerade_bit: i32,
        masquerade_all: bool,
        localhost_node_ports: bool,
        sync_period: GoDuration,
        min_sync_period: GoDuration,
    }

    /// The mode `ipvs`.
    Ipvs {
        sync_period: GoDuration,
        min_sync_period: GoDuration,
        scheduler: String,
        #[serde(rename = "excludeCIDRs")]
        exclude_cidrs: Vec<String>,
        #[serde(rename = "strictARP")]
        strict_arp: bool,
        tcp_timeout: GoDuration,
        tcp_fin_timeout: GoDuration,
        udp_timeout: GoDuration,
    }

    /// The mode `nftables`.
    NfTables {
        masquerade_bit: i32,
        masquerade_all: bool,
        sync_period: GoDuration,
        min_sync_period: GoDuration,
    }

    /// Windows.
    Winkernel {
        network_name: String,
        source_vip: String,
        #[serde(rename = "enableDSR")]
        enable_dsr: bool,
        root_hns_endpoint_name: String,
        forward_health_check_vip: bool,
    }

    /// What a local packet is recognised by.
    DetectLocal { bridge_interface: String, interface_name_prefix: String, }

    /// The kernel's own connection tracking.
    Conntrack {
        max_per_core: i32,
        min: i32,
        tcp_established_timeout: GoDuration,
        tcp_close_wait_timeout: GoDuration,
        tcp_be_liberal: bool,
        udp_timeout: GoDuration,
        udp_stream_timeout: GoDuration,
    }
}

/// A duration as text, or in nanoseconds.
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize)]
#[serde(untagged)]
pub enum FlushFrequency {
    /// Nanoseconds.
    Nanoseconds(i64),
    /// As in `5s`.
    Text(GoDuration),
}
