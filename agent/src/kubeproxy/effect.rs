//! What becomes of each field and flag of kube-proxy.

use serde_json::Value;

/// A field of the configuration file, its flag, and what becomes of them.
pub struct Field {
    /// Path in the file; empty for a flag without field.
    pub path: &'static str,
    /// The flag's name without dashes; empty for a field without flag.
    pub flag: &'static str,
    /// What the flag's value looks like.
    pub form: Form,
    /// What becomes of it.
    pub effect: Effect,
}

/// What a flag's value looks like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// Any text.
    Text,
    /// `true` or `false`; without a value, `true`.
    Bool,
    /// A number.
    Number,
    /// Texts with commas between them.
    List,
}

/// What becomes of a field.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effect {
    /// It does here what it does in kube-proxy, or what comes closest to it.
    Kept,
    /// What it asks for holds whatever its value is.
    Moot,
    /// It does nothing, for this reason.
    Ignored(&'static str),
}

use Effect::{Ignored, Kept, Moot};
use Form::{Bool, List, Number, Text};

const fn field(path: &'static str, flag: &'static str, form: Form, effect: Effect) -> Field {
    Field {
        path,
        flag,
        form,
        effect,
    }
}

const NO_RULES: Effect = Ignored("there are no rules to write: changes go to maps at once");
const NO_IPVS: Effect = Ignored("there is no IPVS");
const NO_MARK: Effect = Ignored("no packet is marked");
const WINDOWS: Effect = Ignored("for Windows");
const OWN_TABLE: Effect =
    Ignored("flows are tracked in Sluice's own table: see mapCapacities and its fixed time-outs");
const OWN_CLIENT: Effect = Ignored("the client of the API server has no such limit");
const LOCAL: Effect = Moot;

/// All of them, in the order of kube-proxy's types.
#[rustfmt::skip]
pub const FIELDS: &[Field] = &[
    field("featureGates", "feature-gates", Text, Ignored("Sluice has no feature gates")),
    field("clientConnection.kubeconfig", "", Text, Kept),
    field("clientConnection.acceptContentTypes", "", Text, Ignored("the API is read as JSON")),
    field("clientConnection.contentType", "kube-api-content-type", Text, Ignored("the API is read as JSON")),
    field("clientConnection.qps", "kube-api-qps", Number, OWN_CLIENT),
    field("clientConnection.burst", "kube-api-burst", Number, OWN_CLIENT),
    field("logging.format", "logging-format", Text, Kept),
    field("logging.flushFrequency", "log-flush-frequency", Text, Moot),
    field("logging.verbosity", "v", Number, Kept),
    field("logging.vmodule", "vmodule", Text, Ignored("use --log, as in sluice::run=debug")),
    field("logging.options", "", Text, Moot),
    field("hostnameOverride", "hostname-override", Text, Kept),
    field("bindAddress", "bind-address", Text, Kept),
    field("healthzBindAddress", "healthz-bind-address", Text, Kept),
    field("metricsBindAddress", "metrics-bind-address", Text, Kept),
    field("bindAddressHardFail", "bind-address-hard-fail", Bool, Kept),
    field("enableProfiling", "profiling", Bool, Ignored("there is no /debug/pprof")),
    field("showHiddenMetricsForVersion", "show-hidden-metrics-for-version", Text, Ignored("no metric is hidden")),
    field("mode", "proxy-mode", Text, Kept),
    field("iptables.masqueradeBit", "iptables-masquerade-bit", Number, NO_MARK),
    field("iptables.masqueradeAll", "masquerade-all", Bool, Kept),
    field("iptables.localhostNodePorts", "iptables-localhost-nodeports", Bool, Kept),
    field("iptables.syncPeriod", "iptables-sync-period", Text, Kept),
    field("iptables.minSyncPeriod", "iptables-min-sync-period", Text, NO_RULES),
    field("ipvs.syncPeriod", "ipvs-sync-period", Text, Kept),
    field("ipvs.minSyncPeriod", "ipvs-min-sync-period", Text, NO_RULES),
    field("ipvs.scheduler", "ipvs-scheduler", Text, NO_IPVS),
    field("ipvs.excludeCIDRs", "ipvs-exclude-cidrs", List, NO_IPVS),
    field("ipvs.strictARP", "ipvs-strict-arp", Bool, NO_IPVS),
    field("ipvs.tcpTimeout", "ipvs-tcp-timeout", Text, NO_IPVS),
    field("ipvs.tcpFinTimeout", "ipvs-tcpfin-timeout", Text, NO_IPVS),
    field("ipvs.udpTimeout", "ipvs-udp-timeout", Text, NO_IPVS),
    field("nftables.masqueradeBit", "", Number, NO_MARK),
    field("nftables.masqueradeAll", "", Bool, Kept),
    field("nftables.syncPeriod", "", Text, Kept),
    field("nftables.minSyncPeriod", "", Text, NO_RULES),
    field("winkernel.networkName", "", Text, WINDOWS),
    field("winkernel.sourceVip", "", Text, WINDOWS),
    field("winkernel.enableDSR", "", Bool, WINDOWS),
    field("winkernel.rootHnsEndpointName", "", Text, WINDOWS),
    field("winkernel.forwardHealthCheckVip", "", Bool, WINDOWS),
    field("detectLocalMode", "detect-local-mode", Text, LOCAL),
    field("detectLocal.bridgeInterface", "pod-bridge-interface", Text, LOCAL),
    field("detectLocal.interfaceNamePrefix", "pod-interface-name-prefix", Text, LOCAL),
    field("clusterCIDR", "cluster-cidr", Text, Kept),
    field("nodePortAddresses", "nodeport-addresses", List, Kept),
    field("oomScoreAdj", "oom-score-adj", Number, Kept),
    field("conntrack.maxPerCore", "conntrack-max-per-core", Number, OWN_TABLE),
    field("conntrack.min", "conntrack-min", Number, OWN_TABLE),
    field("conntrack.tcpEstablishedTimeout", "conntrack-tcp-timeout-established", Text, OWN_TABLE),
    field("conntrack.tcpCloseWaitTimeout", "conntrack-tcp-timeout-close-wait", Text, OWN_TABLE),
    field("conntrack.tcpBeLiberal", "conntrack-tcp-be-liberal", Bool, Moot),
    field("conntrack.udpTimeout", "conntrack-udp-timeout", Text, OWN_TABLE),
    field("conntrack.udpStreamTimeout", "conntrack-udp-timeout-stream", Text, OWN_TABLE),
    field("configSyncPeriod", "config-sync-period", Text, Ignored("the API is watched, not read anew")),
    field("portRange", "", Text, Ignored("kube-proxy does not use it either")),
    field("windowsRunAsService", "", Bool, WINDOWS),
    field("", "master", Text, Kept),
    field("", "healthz-port", Number, Ignored("deprecated: use --healthz-bind-address")),
    field("", "metrics-port", Number, Ignored("deprecated: use --metrics-bind-address")),
];

/// Fields of a configuration that ask for something and do nothing, by path.
pub fn ignored(config: &Value) -> Vec<(&'static Field, &'static str)> {
    let asked = FIELDS.iter().filter(|field| asks(config, field.path));
    asked
        .filter_map(|field| match field.effect {
            Ignored(why) => Some((field, why)),
            Kept | Moot => None,
        })
        .collect()
}

/// True if the field has a value that is not the one of Go for nothing.
fn asks(config: &Value, path: &str) -> bool {
    let found = path
        .split('.')
        .try_fold(config, |value, name| value.get(name));
    match found {
        None | Some(Value::Null) => false,
        Some(Value::Bool(value)) => *value,
        Some(Value::Number(number)) => number.as_f64() != Some(0.0),
        Some(Value::String(text)) => !matches!(text.as_str(), "" | "0" | "0s"),
        Some(Value::Array(items)) => !items.is_empty(),
        Some(Value::Object(entries)) => !entries.is_empty(),
    }
}
