//! What goes over the agent's socket: one JSON object a line, a request and its response; the
//! response to [`Request::Flows`] goes on until one side closes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::why::Explain;
use crate::cni::protocol::Ask;
use crate::source::manifests::Skipped;
use crate::source::{ObjectKey, Problem};

/// What the agent is asked for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case")]
pub enum Request {
    /// A [`Status`].
    Status,
    /// A list of [`Frontend`].
    Services,
    /// A [`ServiceDetail`](super::explain::ServiceDetail).
    Service {
        /// The Service's namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// A list of [`Policy`].
    Policies,
    /// A list of [`Why`](super::why::Why).
    Explain(Box<Explain>),
    /// A [`PolicyState`](super::wait::PolicyState).
    Policy {
        /// The policy.
        policy: ObjectKey,
    },
    /// A [`Verified`](super::verify::Verified).
    Verify,
    /// A [`Conntrack`].
    Conntrack {
        /// Most flows to list; 0 for all.
        limit: usize,
    },
    /// A stream of [`Flow`], as they are judged from now on.
    Flows,
    /// What the CNI plugin asks for; an [`Answer`](crate::cni::protocol::Answer).
    Cni(Ask),
}

/// A response, or one item of a stream.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Response<T> {
    /// What was asked for.
    Ok(T),
    /// Why it cannot be had.
    Error(String),
}

/// The state of the agent and its dataplane.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Version of the agent.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// Name of the node.
    pub node: String,
    /// Seconds since the agent's start.
    pub uptime_secs: u64,
    /// Every source has delivered its first list, and what follows from it is in force.
    pub in_sync: bool,
    /// Kinds whose first list is awaited.
    pub awaited: Vec<String>,
    /// Where objects come from.
    #[serde(default)]
    pub source: SourceStatus,
    /// Modes by setting.
    pub modes: BTreeMap<String, String>,
    /// Devices and cgroups with programs.
    pub attachments: Attachments,
    /// Objects in force, by kind.
    pub objects: BTreeMap<String, usize>,
    /// The maps.
    pub maps: Vec<MapUse>,
    /// Packets dropped, by reason, since the maps were made.
    pub drops: BTreeMap<String, u64>,
    /// The writing of maps.
    pub plans: Plans,
    /// What is wrong with documents and objects, or to be known about them.
    pub problems: Vec<Problem>,
    /// What cannot be served as its object asks for.
    pub notices: Vec<String>,
    /// Documents of kinds that the agent has no use for.
    pub skipped: Vec<Skipped>,
}

/// Where objects come from.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SourceStatus {
    /// The folder of manifests, or the API server's URL.
    pub place: String,
    /// The address of the API server that it is connected to.
    pub connected: Option<String>,
    /// What is watched at an API server.
    pub kinds: Vec<WatchedKind>,
}

/// A kind that is watched.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WatchedKind {
    /// The kind.
    pub kind: String,
    /// `starting`, `listing`, `following`, `retrying` or `not served`.
    pub state: String,
    /// Its first full list was complete.
    pub synced: bool,
    /// Objects known.
    pub objects: usize,
    /// Full lists since the start.
    pub lists: u64,
    /// Events since the start, bookmarks among them.
    pub events: u64,
    /// Seconds since the last one.
    pub last_event_secs_ago: Option<u64>,
    /// Requests that failed since the start.
    pub failures: u64,
    /// Why the last one failed, until one succeeds.
    pub failure: Option<String>,
    /// Objects that cannot be read now.
    pub bad_objects: usize,
}

/// What the programs are attached to.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attachments {
    /// `tcx` or `clsact`.
    pub mode: String,
    /// Devices of pods.
    pub pods: Vec<PodDevice>,
    /// Names of uplinks.
    pub uplinks: Vec<String>,
    /// How uplinks run the early program, by name: `native`, `generic`, or `off` and why.
    #[serde(default)]
    pub xdp: BTreeMap<String, String>,
    /// Frames that the early program relayed since the maps were made.
    #[serde(default)]
    pub xdp_frames: u64,
    /// What failed, by device, and will be tried again.
    pub failures: BTreeMap<String, String>,
    /// Devices whose programs were in place at the agent's start.
    pub adopted: usize,
}

/// The host side of a pod's device.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodDevice {
    /// Its name.
    pub name: String,
    /// Its index.
    pub ifindex: u32,
    /// Addresses of the pod's end.
    pub addresses: Vec<String>,
    /// The pod, once it is known.
    pub pod: Option<String>,
}

/// How full a map is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MapUse {
    /// Its name.
    pub name: String,
    /// Entries in use.
    pub entries: u64,
    /// Entries it has room for.
    pub capacity: u64,
}

/// The writing of maps.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Plans {
    /// Plans that were written in full.
    pub done: u64,
    /// Plans that could not be made or written.
    pub failed: u64,
    /// Seconds since the last one was done.
    pub last_secs_ago: Option<u64>,
    /// Microseconds from the first change to the end of the last one's writing.
    pub last_micros: u64,
    /// Operations of the last one.
    pub last_operations: usize,
    /// Why changes are pending; they are tried again.
    pub pending: Option<String>,
    /// The policy epoch.
    pub epoch: u32,
}

/// An address and port that clients dial.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Frontend {
    /// The Service and its port, as in `default/web:80/TCP`.
    pub service: String,
    /// Address, port and protocol.
    pub frontend: String,
    /// `internal` for clients in the cluster, `external` for those outside.
    pub scope: String,
    /// Who serves it, with shares; what has no backend is refused or dropped.
    pub classes: Vec<Class>,
    /// Seconds of client affinity; 0 without.
    pub affinity_secs: u32,
    /// Flags.
    pub flags: Vec<String>,
}

/// Backends that share a weight.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Class {
    /// Share of the connections, in percent.
    pub percent: f64,
    /// The backends.
    pub backends: Vec<Backend>,
    /// Without a backend, these connections are dropped without an answer; otherwise refused.
    #[serde(default)]
    pub dropped: bool,
}

impl Eq for Class {}

/// A backend.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Backend {
    /// Address and port.
    pub address: String,
    /// The pod, if it is known.
    pub pod: Option<String>,
    /// It is on this node.
    pub local: bool,
}

/// A policy, and whom it selects on this node.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Policy {
    /// Namespace and name; of a tier, kind and name, tier and priority.
    pub policy: String,
    /// It is in audit, so not in force.
    pub audit: bool,
    /// Its pod selector, and that of their namespaces.
    pub selector: String,
    /// Rules for what pods receive; `None` if it does not concern this direction.
    pub ingress_rules: Option<usize>,
    /// Rules for what pods send; `None` if it does not concern this direction.
    pub egress_rules: Option<usize>,
    /// Pods of this node that it selects.
    pub pods: Vec<String>,
    /// Pods of the cluster that it selects.
    pub pods_in_cluster: usize,
}

/// Tracked flows.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Conntrack {
    /// The flows.
    pub flows: Vec<Tracked>,
    /// There are more.
    pub truncated: bool,
}

/// A tracked flow.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tracked {
    /// Protocol.
    pub protocol: String,
    /// Source address and port, as the client sends.
    pub source: String,
    /// Destination address and port, as the client sends.
    pub destination: String,
    /// Backend that the destination is translated to.
    pub backend: Option<String>,
    /// Address and port that the source is translated to.
    pub translated_source: Option<String>,
    /// Pod of the source.
    pub source_pod: Option<String>,
    /// Pod of the destination.
    pub destination_pod: Option<String>,
    /// The Service port dialled.
    pub service: Option<String>,
    /// State of the connection.
    pub state: String,
    /// Flags.
    pub flags: Vec<String>,
    /// Seconds since the last packet.
    pub idle_secs: u64,
    /// Rule that decided the source's egress.
    pub egress_rule: Option<String>,
    /// Rule that decided the destination's ingress.
    pub ingress_rule: Option<String>,
}

/// A verdict.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Flow {
    /// When it was heard of, by RFC 3339.
    pub time: String,
    /// `allowed`, `dropped`, or `audit`: allowed, and policies in audit would drop it.
    pub verdict: String,
    /// Why it was dropped.
    pub reason: Option<String>,
    /// The hook.
    pub hook: String,
    /// Protocol.
    pub protocol: String,
    /// Source address and port.
    pub source: String,
    /// Pod of the source.
    pub source_pod: Option<String>,
    /// Destination address and port.
    pub destination: String,
    /// Pod of the destination, or of the backend.
    pub destination_pod: Option<String>,
    /// Backend that the destination is translated to.
    pub backend: Option<String>,
    /// The Service port dialled.
    pub service: Option<String>,
    /// Rule that decided egress.
    pub egress_rule: Option<String>,
    /// Rule that decided ingress.
    pub ingress_rule: Option<String>,
    /// Why policies in audit would drop it.
    pub audit: Option<String>,
    /// The rule by which they would; without one, it is that none of them allows it.
    pub audit_rule: Option<String>,
    /// For a drop by policy, or by one in audit: the policies that isolate the pod in this direction, or would.
    pub isolated_by: Vec<String>,
    /// Packets it stands for: of dropped ones, all like it since the one before.
    pub packets: u64,
    /// Verdicts on the same CPU before this one that were left out, because there were too many.
    pub sampled_out_before: u64,
    /// Verdicts that were lost before this one, because nobody could keep up.
    pub lost_before: u64,
}
