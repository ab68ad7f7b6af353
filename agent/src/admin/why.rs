//! Why policies let a connection pass, or do not, with names.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use dataplane_common::net::proto;
use dataplane_model::eval::Packet;
use dataplane_model::explain::{self, End, Explanation, Outcome, Step};
use dataplane_model::snapshot::{ObjectKey, Pod, Protocol, RuleAction, Snapshot};
use serde::{Deserialize, Serialize};

use super::names::{endpoint, protocol};
use crate::convert::Converter;
use crate::source::manifests;

/// Who is at one end of a connection.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Who {
    /// A pod.
    Pod {
        /// Its namespace.
        namespace: Option<String>,
        /// Its name.
        name: String,
    },
    /// Whoever has an address.
    Address(IpAddr),
}

/// What is to be explained.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Explain {
    /// Who sends.
    pub from: Who,
    /// Who receives.
    pub to: Who,
    /// Number or name of the port there.
    pub port: Option<String>,
    /// `TCP`, `UDP`, `SCTP` or `ICMP`.
    pub protocol: String,
    /// Namespace of pods that are given without one.
    pub namespace: String,
    /// Names and texts of manifests that are taken as if they were in force too.
    pub manifests: Vec<(String, String)>,
}

/// What policies say of a connection.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Why {
    /// Source address.
    pub source: String,
    /// Its pod.
    pub source_pod: Option<String>,
    /// Destination address and port.
    pub destination: String,
    /// Its pod.
    pub destination_pod: Option<String>,
    /// Protocol.
    pub protocol: String,
    /// `allowed` or `denied`.
    pub verdict: String,
    /// At the pod that sends.
    pub egress: Option<EndWhy>,
    /// At the pod that receives.
    pub ingress: Option<EndWhy>,
    /// What is to be known beside.
    pub notes: Vec<String>,
}

/// What policies say at one end.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndWhy {
    /// The pod there.
    pub pod: String,
    /// `allowed` or `denied`.
    pub verdict: String,
    /// The rule that decides, if one does.
    pub rule: Option<String>,
    /// Why, in one line.
    pub reason: String,
    /// NetworkPolicies that isolate the pod in this direction.
    pub isolated_by: Vec<String>,
    /// For a default deny: the rules that came nearest, and what they miss.
    pub nearest: Vec<String>,
    /// All rules in the order in which they are asked.
    pub asked: Vec<StepWhy>,
    /// The same if the policies in audit were in force too, if one is about the pod.
    pub audit: Option<Box<EndWhy>>,
}

/// A rule that is asked.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StepWhy {
    /// `Admin`, `NetworkPolicy` or `Baseline`.
    pub tier: String,
    /// The policy.
    pub policy: String,
    /// The rule's place, from 1 on.
    pub rule: usize,
    /// Its name; empty for none.
    pub name: String,
    /// What it does.
    pub action: String,
    /// Its peers.
    pub peers: String,
    /// Its ports.
    pub ports: String,
    /// `decides`, `passes`, `other peer`, `other port` or `not asked`.
    pub outcome: String,
}

/// What an explanation comes from.
pub(super) struct Known {
    /// What policies depend on.
    pub(super) snapshot: Snapshot,
    /// What is to be known beside.
    pub(super) notes: Vec<String>,
}

/// Explains a connection for each family of addresses that both ends have.
pub(super) fn explain(mut known: Known, asked: &Explain) -> Result<Vec<Why>, String> {
    for (name, text) in &asked.manifests {
        known.suppose(name, text)?;
    }
    let snapshot = &known.snapshot;
    let sources = addresses(snapshot, &asked.from, &asked.namespace)?;
    let targets = addresses(snapshot, &asked.to, &asked.namespace)?;
    let mut all = Vec::new();
    for &src in &sources {
        for &dst in targets.iter().filter(|dst| dst.is_ipv4() == src.is_ipv4()) {
            let packet = packet(snapshot, asked, src, dst)?;
            let explained = explain::explain(snapshot, &packet).map_err(|errors| {
                let texts: Vec<_> = errors.iter().map(ToString::to_string).collect();
                texts.join("; ")
            })?;
            all.push(why(&packet, &explained, &known.notes));
        }
    }
    if all.is_empty() {
        return Err("the two have no addresses of one family".to_owned());
    }
    Ok(all)
}

impl Known {
    /// Takes manifests as if they were in force.
    fn suppose(&mut self, name: &str, text: &str) -> Result<(), String> {
        let read = manifests::read_text(Path::new(name), text);
        if let Some(problem) = read.problems.first() {
            return Err(problem.to_string());
        }
        if read.changes.is_empty() {
            return Err(format!("{name}: no object that the agent has a use for"));
        }
        let mut converter = Converter::default();
        for change in read.changes {
            for event in converter.convert(change) {
                self.snapshot.apply(event);
            }
        }
        self.notes
            .extend(converter.problems().map(ToString::to_string));
        self.notes.push(format!("as if {name} were in force"));
        Ok(())
    }
}

fn addresses(snapshot: &Snapshot, who: &Who, default: &str) -> Result<Vec<IpAddr>, String> {
    let (namespace, name) = match who {
        Who::Address(address) => return Ok(vec![*address]),
        Who::Pod { namespace, name } => (namespace.as_deref().unwrap_or(default), name),
    };
    let key = ObjectKey::new(namespace, name.as_str());
    let pod = snapshot.pods.get(&key).ok_or_else(|| {
        format!("there is no pod {key}: name its namespace with -n or as NAMESPACE/NAME, or give an address")
    })?;
    if pod.host_network {
        return Err(format!(
            "the pod {key} is on its node's network, which no policy is about: give an address to explain the other end"
        ));
    }
    if pod.ips.is_empty() || pod.terminal {
        return Err(format!(
            "the pod {key} has no address now: wait until it runs"
        ));
    }
    Ok(pod.ips.clone())
}

fn packet(
    snapshot: &Snapshot,
    asked: &Explain,
    src: IpAddr,
    dst: IpAddr,
) -> Result<Packet, String> {
    let of = |proto, port| Packet {
        src,
        dst,
        proto,
        port,
    };
    if asked.protocol == "ICMP" {
        let proto = if dst.is_ipv4() {
            proto::ICMP
        } else {
            proto::ICMPV6
        };
        return Ok(of(proto, 0));
    }
    let transport = Protocol::ALL.into_iter();
    let transport = transport
        .into_iter()
        .find(|one| one.name() == asked.protocol);
    let transport = transport.ok_or_else(|| {
        format!(
            "{} is no protocol: write TCP, UDP, SCTP or ICMP",
            asked.protocol
        )
    })?;
    let port = asked.port.as_deref();
    let port = port.ok_or("give a port, as in POD:80 or POD:53/UDP; POD/ICMP has none")?;
    let number = match port.parse::<u16>() {
        Ok(number) => number,
        Err(_) => named_port(snapshot, dst, port, transport)?,
    };
    Ok(of(transport.number(), number))
}

fn named_port(
    snapshot: &Snapshot,
    dst: IpAddr,
    name: &str,
    transport: Protocol,
) -> Result<u16, String> {
    let mut pods = snapshot.pods.values();
    let pod = pods.find(|pod: &&Pod| pod.is_policy_pod() && pod.ips.contains(&dst));
    let port = pod.and_then(|pod| pod.named_ports(name, transport).next());
    port.ok_or_else(|| format!("{dst} has no container port {name}/{transport}: give its number"))
}

fn why(packet: &Packet, explained: &Explanation, notes: &[String]) -> Why {
    let pod = |end: &Option<End>| end.as_ref().map(|end| end.pod.to_string());
    let mut notes = notes.to_vec();
    let ends = [&explained.egress, &explained.ingress];
    let ends = ends.into_iter().flatten();
    let ends = ends.flat_map(|end| [Some(end), end.audit.as_deref()]);
    let differing = ends.flatten().filter(|end| !end.agrees);
    notes.extend(differing.map(|end| {
        format!(
            "at {}, the rules read one by one come to another verdict than their maps: report this",
            end.pod
        )
    }));
    Why {
        source: packet.src.to_string(),
        source_pod: pod(&explained.egress),
        destination: endpoint(packet.dst, dataplane_common::abi::Port::new(packet.port)),
        destination_pod: pod(&explained.ingress),
        protocol: protocol(packet.proto),
        verdict: verdict(explained.is_allowed()),
        egress: explained.egress.as_ref().map(end_why),
        ingress: explained.ingress.as_ref().map(end_why),
        notes,
    }
}

fn verdict(allowed: bool) -> String {
    if allowed { "allowed" } else { "denied" }.to_owned()
}

fn end_why(end: &End) -> EndWhy {
    let isolated_by: Vec<_> = end.isolated_by.iter().map(ToString::to_string).collect();
    let reason = match (&end.rule, end.exempt) {
        (Some(rule), _) => format!("by {rule}"),
        (None, _) if !end.allowed => format!(
            "isolated by {}, and none of their rules allows it",
            isolated_by.join(", ")
        ),
        (None, Some(exempt)) => exempt.to_owned(),
        (None, None) if end.asked.is_empty() => "no policy is about it".to_owned(),
        (None, None) => "no rule is against it".to_owned(),
    };
    let nearest = end.nearest().into_iter().map(|step| {
        let missed = match step.outcome {
            Outcome::OtherPort => format!("the peer is right, the port is none of {}", step.ports),
            _ => format!("its peers are {}", step.peers),
        };
        format!("{} rule {}: {missed}", step.policy, step.rule)
    });
    EndWhy {
        pod: end.pod.to_string(),
        verdict: verdict(end.allowed),
        rule: end.rule.as_ref().map(ToString::to_string),
        reason,
        nearest: nearest.collect(),
        isolated_by,
        asked: end.asked.iter().map(step_why).collect(),
        audit: end.audit.as_ref().map(|end| Box::new(end_why(end))),
    }
}

fn step_why(step: &Step) -> StepWhy {
    let action = match (step.tier, step.action) {
        (None, _) => "Allow",
        (_, RuleAction::Accept) => "Accept",
        (_, RuleAction::Deny) => "Deny",
        (_, RuleAction::Pass) => "Pass",
    };
    let outcome = match step.outcome {
        Outcome::OtherPeer => "other peer",
        Outcome::OtherPort => "other port",
        Outcome::Decides => "decides",
        Outcome::Passes => "passes",
        Outcome::NotAsked => "not asked",
    };
    StepWhy {
        tier: step
            .tier
            .map_or("NetworkPolicy", |tier| tier.name())
            .to_owned(),
        policy: step.policy.clone(),
        rule: step.rule,
        name: step.name.clone(),
        action: action.to_owned(),
        peers: step.peers.clone(),
        ports: step.ports.clone(),
        outcome: outcome.to_owned(),
    }
}

/// What to ask for in place of a Service's address: policies judge the backend that is chosen.
pub(super) fn of_frontend(target: SocketAddr, service: &str, backends: &[SocketAddr]) -> String {
    let backends: Vec<_> = backends.iter().map(ToString::to_string).collect();
    let one_of = if backends.is_empty() {
        "it has none now".to_owned()
    } else {
        format!("give one of {}", backends.join(" "))
    };
    format!(
        "{target} is an address of the Service {service}: policies judge the backend that it chooses, and {one_of}"
    )
}

#[cfg(test)]
mod tests;
