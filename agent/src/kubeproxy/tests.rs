use clap::Parser;

use super::*;
use crate::args::{Cli, Command};
use crate::config::{Loaded, Settings};

/// What kubeadm 1.36 writes.
const KUBEADM: &str = include_str!("tests/kubeadm.yaml");
/// A file with a value in every field.
const FULL: &str = include_str!("tests/full.yaml");

fn load(text: &str, flags: &[&str]) -> Result<Loaded, String> {
    let folder = std::env::temp_dir().join(format!(
        "sluice-kubeproxy-{}-{:?}",
        std::process::id(),
        std::thread::current().id()
    ));
    std::fs::create_dir_all(&folder).expect("a folder");
    let path = folder.join("config.conf");
    std::fs::write(&path, text).expect("a file");
    let line = ["sluice", "agent", "--manifests", "/m", "--config"];
    let path_text = path.display().to_string();
    let line = line.into_iter().chain([path_text.as_str()]);
    let loaded = parsed(line.chain(flags.iter().copied()));
    std::fs::remove_dir_all(&folder).expect("the folder goes");
    loaded
}

fn flags(flags: &[&str]) -> Result<Loaded, String> {
    let line = ["sluice", "agent", "--manifests", "/m"];
    parsed(line.into_iter().chain(flags.iter().copied()))
}

fn parsed<'a>(line: impl Iterator<Item = &'a str>) -> Result<Loaded, String> {
    let cli = Cli::try_parse_from(line).map_err(|error| error.to_string())?;
    let Command::Agent(args) = cli.command else {
        panic!("not the agent");
    };
    Settings::load(&args, None).map_err(|error| error.to_string())
}

#[test]
fn what_kubeadm_writes_is_taken_without_a_warning() {
    let Loaded { settings, warning } = load(KUBEADM, &["--hostname-override=Node-7"]).unwrap();
    assert_eq!(settings.node_name, "node-7");
    assert_eq!(settings.healthz.unwrap().to_string(), "0.0.0.0:10256");
    assert_eq!(settings.metrics.unwrap().to_string(), "127.0.0.1:10249");
    assert!(!settings.node_port_addresses.primary && !settings.masquerade_all);
    assert_eq!(settings.proxy_mode, "sluice");
    assert_eq!(warning, None);
}

#[test]
fn each_field_is_known_and_each_that_does_nothing_is_named_once() {
    let Loaded { settings, warning } = load(FULL, &[]).unwrap();
    assert!(settings.masquerade_all && settings.bind_hard_fail && settings.log_json);
    assert!(settings.node_port_addresses.primary);
    assert_eq!(settings.node_name, "n1");
    assert_eq!(settings.healthz.unwrap().to_string(), "[::]:10256");
    assert_eq!(settings.metrics.unwrap().to_string(), "[::1]:10249");
    assert_eq!(settings.health_timeout.as_secs(), 80);
    assert_eq!(settings.proxy_mode, "nftables");
    assert_eq!(
        (settings.oom_score_adj, settings.log.as_str()),
        (Some(-998), "debug")
    );
    let warning = warning.unwrap();
    for field in effect::FIELDS.iter().filter(|field| !field.path.is_empty()) {
        let expected = usize::from(matches!(field.effect, effect::Effect::Ignored(_)));
        let named = format!("{} (", field.path);
        assert_eq!(
            warning.matches(&named).count(),
            expected,
            "{named} in {warning}"
        );
    }
}

#[test]
fn the_file_names_its_fields_as_the_table_does() {
    let config: Configuration = crate::yaml::Node::parse(FULL)
        .unwrap()
        .read()
        .unwrap()
        .value;
    let tree = serde_json::to_value(config).unwrap();
    let mut paths = Vec::new();
    leaves(&tree, "", &mut paths);
    let known = |path: &String| {
        let mut fields = effect::FIELDS.iter();
        fields.any(|field| field.path == path || path.starts_with(&format!("{}.", field.path)))
    };
    let unknown: Vec<_> = paths.iter().filter(|path| !known(path)).collect();
    assert_eq!(unknown, ["apiVersion", "kind"]);
}

fn leaves(tree: &serde_json::Value, path: &str, paths: &mut Vec<String>) {
    match tree {
        serde_json::Value::Object(fields) => {
            for (name, value) in fields {
                let separator = if path.is_empty() { "" } else { "." };
                leaves(value, &format!("{path}{separator}{name}"), paths);
            }
        }
        _ => paths.push(path.to_owned()),
    }
}

#[test]
fn unknown_fields_and_versions_are_errors_that_name_file_line_and_field() {
    let head = format!("apiVersion: {API_VERSION}\nkind: {KIND}\n");
    for (text, expected) in [
        (
            format!("{head}clusterCidr: 10.0.0.0/8\n"),
            "line 3: unknown field `clusterCidr`",
        ),
        (
            format!("{head}iptables:\n  syncperiod: 3s\n"),
            "line 4: iptables: unknown field `syncperiod`",
        ),
        (
            format!("{head}iptables:\n  syncPeriod: 3\n"),
            "line 4: iptables.syncPeriod: \"3\" is not a duration",
        ),
        (
            format!("{head}mode: userspace\n"),
            "mode: \"userspace\" is not known",
        ),
        (
            format!("{head}bindAddress: here\n"),
            "bindAddress: \"here\" is not an IP address",
        ),
        (
            "kind: KubeProxyConfiguration\n".to_owned(),
            "write kubeproxy.config.k8s.io/v1alpha1",
        ),
        (
            "apiVersion: v1\nkind: ConfigMap\n".to_owned(),
            "or neither for Sluice's own settings",
        ),
    ] {
        let error = load(&text, &[]).unwrap_err();
        assert!(
            error.contains(expected) && error.contains("config.conf"),
            "{error}"
        );
    }
    let text = format!("{head}nodePortAddresses: [10.0.0.1]\n");
    let error = load(&text, &[]).unwrap_err();
    assert!(
        error.contains("nodePortAddresses: \"10.0.0.1\" is not a block"),
        "{error}"
    );
}

#[test]
fn flags_mean_what_their_fields_mean() {
    let given = [
        "--cluster-cidr=10.244.0.0/16,fd00::/48",
        "--detect-local-mode=ClusterCIDR",
        "--nodeport-addresses=10.0.0.0/8,fd00::/8",
        "--hostname-override=N1",
        "--masquerade-all",
        "--healthz-bind-address=127.0.0.1",
        "--metrics-bind-address=0.0.0.0:9",
        "--proxy-mode=nftables",
        "--iptables-sync-period=10s",
        "--bind-address",
        "10.0.0.1",
        "-v=4",
        "--oom-score-adj=-5",
    ];
    let Loaded { settings, warning } = flags(&given).unwrap();
    assert_eq!(warning, None);
    assert_eq!(
        (settings.node_name.as_str(), settings.log.as_str()),
        ("n1", "debug")
    );
    assert!(settings.masquerade_all && !settings.node_port_addresses.primary);
    assert_eq!(settings.node_port_addresses.blocks.len(), 2);
    assert_eq!(settings.healthz.unwrap().to_string(), "127.0.0.1:10256");
    assert_eq!(settings.metrics.unwrap().to_string(), "0.0.0.0:9");
    assert_eq!(settings.health_timeout.as_secs(), 20);
    assert_eq!(
        (settings.proxy_mode.as_str(), settings.oom_score_adj),
        ("nftables", Some(-5))
    );
}

#[test]
fn node_ports_at_localhost_can_be_turned_off_in_the_mode_iptables() {
    let at_localhost = |given: &[&str]| flags(given).unwrap().settings.localhost_node_ports;
    assert!(at_localhost(&[]));
    assert!(!at_localhost(&["--iptables-localhost-nodeports=false"]));
    let other = ["--iptables-localhost-nodeports=false", "--proxy-mode=ipvs"];
    assert!(at_localhost(&other));
    let own = load("localhostNodePorts: false\n", &[]).unwrap();
    assert!(!own.settings.localhost_node_ports);
}

#[test]
fn flags_that_do_nothing_are_named_in_one_warning() {
    let given = [
        "--ipvs-strict-arp",
        "--profiling=false",
        "--conntrack-min=7",
    ];
    let warning = flags(&given).unwrap().warning.unwrap();
    assert!(
        warning.contains("--ipvs-strict-arp (there is no IPVS)"),
        "{warning}"
    );
    assert!(warning.contains("--conntrack-min ("), "{warning}");
    assert!(!warning.contains("profiling"), "{warning}");
    for (flag, expected) in [
        (
            "--masquerade-all=maybe",
            "--masquerade-all: \"maybe\" is not true or false",
        ),
        (
            "--conntrack-min=few",
            "--conntrack-min: \"few\" is not a number",
        ),
    ] {
        let error = flags(&[flag]).unwrap_err();
        assert_eq!(error, expected);
    }
}

#[test]
fn beside_a_configuration_file_flags_are_ignored_but_for_the_name_and_logging() {
    let given = ["--masquerade-all", "--hostname-override=other", "-v", "6"];
    let Loaded { settings, warning } = load(KUBEADM, &given).unwrap();
    assert_eq!(
        (settings.node_name.as_str(), settings.log.as_str()),
        ("other", "trace")
    );
    assert!(!settings.masquerade_all);
    let expected = "--masquerade-all (kube-proxy's configuration file goes before it)";
    assert!(warning.unwrap().contains(expected));
    let own = load(
        "masqueradeAll: true\nlog: warn\n",
        &["--masquerade-all=false"],
    )
    .unwrap();
    assert!(!own.settings.masquerade_all && own.settings.log == "warn");
}

#[test]
fn every_flag_that_means_something_can_be_given() {
    let tried = [
        ("logging-format", "json"),
        ("hostname-override", "n"),
        ("bind-address", "::1"),
        ("healthz-bind-address", "[::]:1"),
        ("metrics-bind-address", "off"),
        ("bind-address-hard-fail", "true"),
        ("proxy-mode", "ipvs"),
        ("masquerade-all", "1"),
        ("iptables-localhost-nodeports", "false"),
        ("iptables-sync-period", "1s"),
        ("ipvs-sync-period", "1s"),
        ("nodeport-addresses", "primary"),
        ("cluster-cidr", "10.244.0.0/16,fd00:10:244::/56"),
        ("oom-score-adj", "0"),
        ("v", "0"),
        ("master", "https://10.0.0.1:6443"),
    ];
    for (flag, value) in tried {
        let loaded = flags(&[&format!("--{flag}={value}")]).expect(flag);
        assert_eq!(loaded.warning, None, "{flag}");
    }
    let mut kept = effect::FIELDS
        .iter()
        .filter(|field| field.effect == effect::Effect::Kept);
    let count = kept.by_ref().filter(|field| !field.flag.is_empty()).count();
    assert_eq!(count, tried.len(), "each is to be tried above");
}
