//! What `deploy/manifests` asks the cluster for is what the agent needs, and no more.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use clap::Parser;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{ConfigMap, Container, ServiceAccount};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use serde::de::DeserializeOwned;
use sluice::args::{Cli, Command};
use sluice::source::Kind;
use sluice::source::api::plural;
use sluice::yaml::Node;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../deploy/manifests")
}

/// The object of a file, which must have no field that its type does not know.
fn read<T: DeserializeOwned>(name: &str) -> T {
    let text = fs::read_to_string(folder().join(name)).expect("a manifest of this repository");
    let read = Node::parse(&text)
        .expect("a manifest of this repository")
        .read::<T>()
        .expect("a manifest of this repository");
    assert!(read.unknown.is_empty(), "{name}: {:?}", read.unknown);
    read.value
}

fn agent() -> Container {
    let set: DaemonSet = read("daemonset.yaml");
    let pod = set
        .spec
        .expect("a manifest of this repository")
        .template
        .spec
        .expect("a manifest of this repository");
    assert_eq!(pod.host_network, Some(true));
    assert_eq!(pod.service_account_name.as_deref(), Some("sluice"));
    let [agent] =
        <[Container; 1]>::try_from(pod.containers).expect("a manifest of this repository");
    agent
}

#[test]
fn every_manifest_is_of_its_type_and_in_the_kustomization() {
    let account: ServiceAccount = read("serviceaccount.yaml");
    let binding: ClusterRoleBinding = read("clusterrolebinding.yaml");
    let subject = &binding.subjects.unwrap()[0];
    assert_eq!(account.metadata.name.as_deref(), Some(&*subject.name));
    assert_eq!(account.metadata.namespace, subject.namespace);
    let listed = fs::read_to_string(folder().join("kustomization.yaml")).unwrap();
    for file in fs::read_dir(folder()).unwrap() {
        let name = file.unwrap().file_name().into_string().unwrap();
        assert!(
            name == "kustomization.yaml" || listed.contains(&format!("- {name}\n")),
            "{name}"
        );
    }
}

#[test]
fn the_role_lists_exactly_the_kinds_that_are_read_and_writes_only_events_and_conditions() {
    let role: ClusterRole = read("clusterrole.yaml");
    let mut granted = BTreeSet::new();
    for rule in role.rules.unwrap() {
        let groups = rule.api_groups.unwrap();
        for resource in rule.resources.unwrap() {
            for group in &groups {
                granted.insert((group.clone(), resource.clone(), rule.verbs.clone()));
            }
        }
    }
    let verbs = |list: [&str; 2]| list.map(str::to_owned).to_vec();
    let mut needed: BTreeSet<_> = Kind::ALL
        .into_iter()
        .map(|kind| {
            (
                kind.api().0.to_owned(),
                plural(kind).to_owned(),
                verbs(["list", "watch"]),
            )
        })
        .collect();
    let events = ("events.k8s.io".to_owned(), "events".to_owned());
    needed.insert((events.0, events.1, verbs(["create", "patch"])));
    for kind in Kind::ALL.into_iter().filter(|kind| kind.is_policy()) {
        // The status of others is nobody's to write, and NetworkPolicies have none.
        if kind != Kind::NetworkPolicy {
            let status = format!("{}/status", plural(kind));
            needed.insert((kind.api().0.to_owned(), status, vec!["patch".to_owned()]));
        }
    }
    assert_eq!(granted, needed);
}

#[test]
fn the_container_has_three_capabilities_and_writes_no_root_file_system() {
    let context = agent().security_context.unwrap();
    let capabilities = context.capabilities.unwrap();
    assert_eq!(capabilities.drop.unwrap(), ["ALL"]);
    assert_eq!(capabilities.add.unwrap(), ["BPF", "NET_ADMIN", "PERFMON"]);
    assert!(!context.privileged.unwrap_or_default());
    assert_eq!(context.allow_privilege_escalation, Some(false));
    assert_eq!(context.read_only_root_filesystem, Some(true));
}

#[test]
fn the_agent_takes_the_container_s_arguments_and_settings() {
    let agent = agent();
    let words = ["sluice".to_owned()].into_iter().chain(agent.args.unwrap());
    let cli = Cli::try_parse_from(words).unwrap();
    let Command::Agent(mut args) = cli.command else {
        panic!("{:?}", cli.command);
    };
    let config: ConfigMap = read("configmap.yaml");
    let path = std::env::temp_dir().join(format!("sluice-config-{}.yaml", std::process::id()));
    fs::write(&path, &config.data.unwrap()["config.yaml"]).unwrap();
    args.config = Some(path.clone());
    args.manifests = Some("/nowhere".into());
    args.node_name = Some("node-1".to_owned());
    let settings = sluice::config::Settings::load(&args, None);
    fs::remove_file(path).unwrap();
    assert!(settings.unwrap().settings.services);
}

#[test]
fn every_variable_of_the_container_is_one_that_the_agent_reads() {
    let command = <Cli as clap::CommandFactory>::command();
    let agent = command.find_subcommand("agent").unwrap();
    let known: Vec<_> = agent
        .get_arguments()
        .chain(command.get_arguments())
        .filter_map(|arg| arg.get_env()?.to_str())
        .collect();
    for variable in self::agent().env.unwrap() {
        assert!(known.contains(&&*variable.name), "{}", variable.name);
    }
}
