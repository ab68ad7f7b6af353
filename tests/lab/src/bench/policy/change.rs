//! One policy changed among many, from a real API server to the packets; and what many cost the agent.

use std::mem::size_of;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use dataplane_common::abi::{
    Addr4, CidrKey, CidrVal, IdKey, IdVal, IdentityVal, PortBound, RowKey, RowVal, RulesetVal,
    Subject, name,
};
use serde_json::{Value, json};

use super::kube_router::{KubeRouter, Program};
use super::objects::{CLUSTER_POLICIES, POLICIES, create, fill_pods};
use super::probe::{Flow, PORT};
use super::set::{PEERS, Set};
use crate::agent::Agent;
use crate::bench::control::process::{AGENT_ARGS, Log, Memory};
use crate::bench::server::Server;
use crate::kube::api::{Api, Write};
use crate::topology::{Cluster, Cni, Node};
use crate::wait;

/// How often the policy is changed to each side.
const CHANGES: u32 = 100;
/// How long all changes may take; one to each side is waited for, however long it takes.
const ALL_CHANGES: Duration = Duration::from_secs(120);
/// How long one change may take.
const IN_FORCE: Duration = Duration::from_secs(60);
/// The same for kube-router, which programs everything anew.
const IN_FORCE_BY_KUBE_ROUTER: Duration = Duration::from_secs(600);
/// How long the agent may take to program all.
const PROGRAMMED: Duration = Duration::from_secs(120);
/// How long the API server may take until it serves a kind that it has just learnt.
const SERVED: Duration = Duration::from_secs(30);
/// Where definitions of kinds are.
const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

/// Times of changes, in ms: from the request's start to the packets, and from the API server's reply.
pub type Times = [Vec<f64>; 2];

/// What was measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Changed {
    /// From all sources in sync to the maps, with all policies, in ms.
    pub maps_ms: f64,
    /// From the arrival of a change's bytes to the end of its writing, in ms.
    pub rounds_ms: Vec<f64>,
    /// To the first datagram.
    pub allow_ms: Times,
    /// To the last datagram.
    pub deny_ms: Times,
    /// The agent's own memory for each policy, in bytes.
    pub memory: f64,
    /// Bytes in the maps for each policy.
    pub maps: f64,
}

/// Measures with a set of policies, all for the pods of one node or spread over the cluster.
///
/// # Errors
/// A program is missing, or something does not work.
pub fn measure(set: Set, spread: bool) -> Result<Changed> {
    let cluster = Cluster::new(1, Cni::Ptp)?;
    let node = Arc::clone(cluster.node(1));
    let [client, server] = ["client", "server"].map(|name| cluster.add_pod(1, name));
    let (client, server) = (client?, server?);
    let Server {
        server: api_server,
        api,
        kubeconfig,
    } = &Server::start(&cluster)?;
    api.write(Write::create(DEFINITIONS, definition()))?;
    fill_pods(api, [&client, &server], PEERS)?;
    let (empty, _, mut agent) = start(&node, kubeconfig)?;
    agent.terminate()?;
    wait::until(SERVED, "the kind of the tiers to be served", || {
        api_server.kubectl(&["get", "--raw", CLUSTER_POLICIES])
    })?;
    fill_policies(api, set, spread)?;
    let (full, log, mut agent) = start(&node, kubeconfig)?;
    let per_policy = |bytes: f64| bytes / f64::from(set.count);
    let maps = map_bytes(&agent.status()?)?;
    let flow = Flow::start(&client, &server, IN_FORCE)?;
    flow.ensure_open()?;
    let before = Log::of(&agent)?.rounds.len();
    let [deny_ms, allow_ms] = toggle(api, &flow)?;
    let rounds_ms = Log::of(&agent)?.rounds.split_off(before);
    drop(flow);
    agent.terminate()?;
    Ok(Changed {
        maps_ms: log.maps_ms.unwrap_or_default(),
        rounds_ms,
        allow_ms,
        deny_ms,
        memory: per_policy((full.own as f64 - empty.own as f64) * 1_024.0),
        maps: per_policy(maps),
    })
}

/// Changes one policy of a set under kube-router; its times to close and to open the flow, as those of
/// [`Changed`].
///
/// # Errors
/// A program is missing, or something does not work.
pub fn under_kube_router(program: &Program, set: Set, spread: bool) -> Result<[Times; 2]> {
    let cluster = Cluster::new(1, Cni::Ptp)?;
    let [client, server] = ["client", "server"].map(|name| cluster.add_pod(1, name));
    let pods = [client?, server?];
    let filled = Server::start(&cluster)?;
    fill_pods(&filled.api, pods.each_ref(), PEERS)?;
    fill_policies(&filled.api, set, spread)?;
    let mut kube_router = KubeRouter::start(program, cluster.node(1), filled)?;
    kube_router.await_settled(&pods)?;
    let flow = Flow::start(&pods[0], &pods[1], IN_FORCE_BY_KUBE_ROUTER)?;
    flow.ensure_open()?;
    toggle(kube_router.api(), &flow)
}

/// Writes the policies of a set, and those that let the probing flow pass.
fn fill_policies(api: &Api, set: Set, spread: bool) -> Result<()> {
    eprintln!("filling the API server with {} policies", set.count);
    api.write_all(set.objects(spread).map(create))?;
    // Twice, as the client's egress is isolated too.
    api.write(create(opened("probe-egress", false, "server")))?;
    api.write(create(opened("probe", true, "client")))?;
    Ok(())
}

/// Defines ClusterNetworkPolicies, as far as the agent cares.
fn definition() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": "clusternetworkpolicies.policy.networking.k8s.io",
            "annotations": { "api-approved.kubernetes.io": "unapproved, for a benchmark" },
        },
        "spec": {
            "group": "policy.networking.k8s.io",
            "scope": "Cluster",
            "names": {
                "kind": "ClusterNetworkPolicy",
                "listKind": "ClusterNetworkPolicyList",
                "plural": "clusternetworkpolicies",
                "singular": "clusternetworkpolicy",
            },
            "versions": [{
                "name": "v1alpha2",
                "served": true,
                "storage": true,
                "schema": { "openAPIV3Schema": {
                    "type": "object",
                    "x-kubernetes-preserve-unknown-fields": true,
                } },
            }],
        },
    })
}

/// Starts an agent; returns its memory and log once everything is programmed.
fn start(node: &Arc<Node>, kubeconfig: &Path) -> Result<(Memory, Log, Agent)> {
    let mut agent = Agent::on_api(node, kubeconfig).with_args(&AGENT_ARGS);
    std::fs::write(agent.log(), "")?;
    agent.start_only()?;
    agent.wait_in_sync(PROGRAMMED)?;
    let process = agent.id().context("the agent does not run")?;
    let memory = Memory::settled(process)?;
    let log = Log::of(&agent)?;
    Ok((memory, log, agent))
}

/// A policy for the probing flow: from or to pods `app: PEER`.
fn opened(name: &str, ingress: bool, peer: &str) -> Value {
    let (subject, direction, field, side) = if ingress {
        ("server", "Ingress", "ingress", "from")
    } else {
        ("client", "Egress", "egress", "to")
    };
    let peer = json!({ "podSelector": { "matchLabels": { "app": peer } } });
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": { "name": name, "namespace": "default" },
        "spec": {
            "podSelector": { "matchLabels": { "app": subject } },
            "policyTypes": [direction],
            field: [{ side: [peer], "ports": [{ "protocol": "UDP", "port": PORT }] }],
        },
    })
}

/// Closes and opens the flow in turn; the times of both, from the request and from the reply.
fn toggle(api: &Api, flow: &Flow) -> Result<[Times; 2]> {
    let begun = Instant::now();
    let mut times = [const { [const { Vec::new() }; 2] }; 2];
    for number in 0..2 * CHANGES {
        let opens = number % 2 == 1;
        if number > 0 && !opens && begun.elapsed() > ALL_CHANGES {
            break;
        }
        // Changes that come apart, at no fixed distance.
        std::thread::sleep(Duration::from_millis(5 + u64::from(number * 7 % 23)));
        if opens {
            flow.forget();
        }
        let peer = if opens { "client" } else { "nobody" };
        let sent = Instant::now();
        let path = format!("{POLICIES}/probe");
        let replied = api.write(Write::replace(&path, opened("probe", true, peer)))?;
        let effect = if opens { flow.opened() } else { flow.closed() }?;
        if effect < sent {
            bail!("a change came into force before it was made");
        }
        let of = &mut times[usize::from(opens)];
        of[0].push((effect - sent).as_secs_f64() * 1e3);
        let after = effect.saturating_duration_since(replied);
        let before = replied.saturating_duration_since(effect);
        of[1].push((after.as_secs_f64() - before.as_secs_f64()) * 1e3);
    }
    Ok(times)
}

/// Bytes of keys and values in the maps of policy.
fn map_bytes(status: &Value) -> Result<f64> {
    let entry = |map: &str| -> Option<usize> {
        let sizes = [
            (name::ROWS, size_of::<(RowKey, RowVal)>()),
            (name::PORT_BOUNDS, size_of::<PortBound>()),
            (name::RULESETS, size_of::<RulesetVal>()),
            (name::CIDRS[0], size_of::<(CidrKey<Addr4>, CidrVal)>()),
            (name::IDENTITIES[0], size_of::<(Addr4, IdentityVal)>()),
            (name::SUBJECTS, size_of::<Subject>()),
            (name::IDS, size_of::<(IdKey, IdVal)>()),
        ];
        sizes.iter().find(|(known, _)| *known == map).map(|of| of.1)
    };
    let maps = status["maps"].as_array().context("a status without maps")?;
    let bytes = maps.iter().filter_map(|map| {
        let size = entry(map["name"].as_str()?)?;
        Some(map["entries"].as_u64()? as f64 * size as f64)
    });
    Ok(bytes.sum())
}
