//! What a configuration of kube-proxy means here.

use std::net::IpAddr;
use std::time::Duration;

use super::duration::GoDuration;
use super::effect::ignored;
use super::{API_VERSION, Configuration, Given, KIND};
use crate::config::File;

/// Ports of kube-proxy, for an address without one.
const HEALTHZ_PORT: u16 = 10_256;
const METRICS_PORT: u16 = 10_249;
/// The verbosity from which on kube-proxy logs what is of interest to debugging only.
const DEBUG: u32 = 4;
const TRACE: u32 = 6;

impl Configuration {
    /// What the file asks for.
    ///
    /// # Errors
    ///
    /// It is of another version, or a value is not one that its field can have.
    pub fn given(&self) -> Result<Given, String> {
        let is = |found: &Option<String>, wanted: &str| found.as_deref() == Some(wanted);
        if !is(&self.api_version, API_VERSION) || !is(&self.kind, KIND) {
            let of = |text: &Option<String>| text.clone().unwrap_or_default();
            return Err(format!(
                "apiVersion {:?}, kind {:?}: write {API_VERSION} and {KIND}, or neither for Sluice's own settings",
                of(&self.api_version),
                of(&self.kind)
            ));
        }
        let tree = serde_json::to_value(self).map_err(|error| error.to_string())?;
        let ignored = ignored(&tree).into_iter();
        Ok(Given {
            file: self.settings()?,
            above: File::default(),
            ignored: ignored
                .map(|(field, why)| (field.path.to_owned(), why))
                .collect(),
        })
    }

    /// The settings that the fields stand for.
    ///
    /// # Errors
    ///
    /// A value that its field cannot have.
    pub fn settings(&self) -> Result<File, String> {
        let logging = self.logging.clone().unwrap_or_default();
        let bind_address = self.bind_family()?;
        let connection = self.client_connection.clone().unwrap_or_default();
        Ok(File {
            kubeconfig: connection
                .kubeconfig
                .filter(|path| !path.is_empty())
                .map(Into::into),
            node_name: self.node_name()?,
            node_port_addresses: self.node_port_addresses(),
            localhost_node_ports: self.localhost_node_ports(),
            masquerade_all: self.masquerade_all(),
            cluster_cidr: self.cluster_cidr.clone().filter(|text| !text.is_empty()),
            healthz_bind_address: address(
                &self.healthz_bind_address,
                bind_address.map(|is_v4| if is_v4 { "0.0.0.0" } else { "[::]" }),
                HEALTHZ_PORT,
            ),
            metrics_bind_address: address(
                &self.metrics_bind_address,
                bind_address.map(|is_v4| if is_v4 { "127.0.0.1" } else { "[::1]" }),
                METRICS_PORT,
            ),
            bind_address_hard_fail: self.bind_address_hard_fail,
            health_timeout_secs: self.health_timeout_secs()?,
            proxy_mode: self.proxy_mode()?,
            oom_score_adj: self.oom_score_adj,
            log: logging.verbosity.map(level),
            log_format: logging.format.filter(|format| !format.is_empty()),
            ..File::default()
        })
    }

    fn mode(&self) -> &str {
        match self.mode.as_deref() {
            None | Some("") => "iptables",
            Some(mode) => mode,
        }
    }

    fn proxy_mode(&self) -> Result<Option<String>, String> {
        match self.mode.as_deref() {
            None | Some("") => Ok(None),
            Some(mode @ ("iptables" | "ipvs" | "nftables")) => Ok(Some(mode.to_owned())),
            Some(mode) => Err(format!(
                "mode: {mode:?} is not known: write iptables, ipvs or nftables, or nothing"
            )),
        }
    }

    fn node_name(&self) -> Result<Option<String>, String> {
        match self.hostname_override.as_deref() {
            None | Some("") => Ok(None),
            Some(name) if name.trim().is_empty() => {
                Err("hostnameOverride: only spaces: write the node's name".to_owned())
            }
            Some(name) => Ok(Some(name.trim().to_lowercase())),
        }
    }

    /// Whether `bindAddress` is an IPv4 address.
    fn bind_family(&self) -> Result<Option<bool>, String> {
        let Some(text) = self.bind_address.as_deref().filter(|text| !text.is_empty()) else {
            return Ok(None);
        };
        let ip: IpAddr = text
            .parse()
            .map_err(|_| format!("bindAddress: {text:?} is not an IP address"))?;
        Ok(Some(ip.is_ipv4()))
    }

    /// With nftables, kube-proxy serves node ports on the node's primary addresses by default.
    fn node_port_addresses(&self) -> Option<Vec<String>> {
        let given = self.node_port_addresses.clone();
        match given.filter(|list| !list.is_empty()) {
            None if self.mode() == "nftables" => Some(vec!["primary".to_owned()]),
            given => given,
        }
    }

    /// Only the mode iptables has a say in it.
    fn localhost_node_ports(&self) -> Option<bool> {
        let asked = self.iptables.as_ref()?.localhost_node_ports;
        asked.filter(|_| self.mode() == "iptables")
    }

    fn masquerade_all(&self) -> Option<bool> {
        if self.mode() == "nftables" {
            self.nftables.as_ref()?.masquerade_all
        } else {
            self.iptables.as_ref()?.masquerade_all
        }
    }

    /// A change may wait for two periods before the proxy counts as ill.
    fn health_timeout_secs(&self) -> Result<Option<u32>, String> {
        let period = match self.mode() {
            "nftables" => self.nftables.as_ref().and_then(|mode| mode.sync_period),
            "ipvs" => self.ipvs.as_ref().and_then(|mode| mode.sync_period),
            _ => self.iptables.as_ref().and_then(|mode| mode.sync_period),
        };
        let Some(GoDuration(period)) = period.filter(|period| !period.0.is_zero()) else {
            return Ok(None);
        };
        let timeout = period.saturating_mul(2).max(Duration::from_secs(1));
        u32::try_from(timeout.as_secs())
            .map(Some)
            .map_err(|_| "syncPeriod: too long: write one like 30s".to_owned())
    }
}

/// A bind address as our settings have it; `default` is there if `bindAddress` is.
fn address(given: &Option<String>, default: Option<&str>, port: u16) -> Option<String> {
    match given.as_deref() {
        None | Some("") => default.map(|host| format!("{host}:{port}")),
        Some(text) => Some(text.to_owned()),
    }
}

fn level(verbosity: u32) -> String {
    match verbosity {
        ..DEBUG => "info",
        DEBUG..TRACE => "debug",
        TRACE.. => "trace",
    }
    .to_owned()
}
