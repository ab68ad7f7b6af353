//! Whether the kernel's maps say what the policies say, with names.

use std::sync::Arc;

use dataplane_model::snapshot::{Direction, PolicyMode, Snapshot};
use dataplane_model::store::read_policy;
use dataplane_model::verify::{self, Difference};
use serde::{Deserialize, Serialize};

use super::names::{Names, endpoint, protocol};
use crate::bpf::Store;

/// What was found.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Verified {
    /// The node whose maps were read.
    pub node: String,
    /// Verdicts that were compared.
    pub compared: u64,
    /// Those that differ, up to a number.
    pub differences: Vec<Differing>,
    /// How many there are beyond those.
    pub more: u64,
}

/// A verdict that differs.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Differing {
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
    /// `ingress` or `egress`: the end at which they differ.
    pub direction: String,
    /// Policies in audit were taken as if they were in force.
    pub audit: bool,
    /// What the policies say.
    pub policies: String,
    /// What the maps say.
    pub maps: String,
}

/// What is needed to find out.
pub(super) struct Verification {
    pub(super) snapshot: Snapshot,
    pub(super) store: Store,
    /// The policy epoch of the snapshot.
    pub(super) epoch: u32,
    pub(super) names: Arc<Names>,
}

impl Verification {
    /// Reads the maps and compares.
    pub(super) fn run(self) -> Result<Verified, String> {
        let read = || read_policy(&self.store).map_err(|error| error.to_string());
        let (tables, before) = read()?;
        let (_, after) = read()?;
        if (before, after) != (self.epoch, self.epoch) {
            return Err("policy changed meanwhile: ask again".to_owned());
        }
        let report = verify::verify(&self.snapshot, &tables);
        let differences = report.differences.iter();
        Ok(Verified {
            node: self.snapshot.node.name.to_string(),
            compared: report.compared,
            differences: differences.map(|one| self.differing(one)).collect(),
            more: report.more,
        })
    }

    fn differing(&self, difference: &Difference) -> Differing {
        let packet = &difference.packet;
        let maps = match difference.actual {
            None => "allowed: no policy concerns the pod".to_owned(),
            Some(decision) => {
                let verdict = if decision.allowed != 0 {
                    "allowed"
                } else {
                    "denied"
                };
                match self.names.rule(decision.rule) {
                    Some(rule) => format!("{verdict} by {rule}"),
                    None => format!("{verdict} by no rule"),
                }
            }
        };
        Differing {
            source: packet.src.to_string(),
            source_pod: self.names.owner(packet.src),
            destination: endpoint(packet.dst, dataplane_common::abi::Port::new(packet.port)),
            destination_pod: self.names.owner(packet.dst),
            protocol: protocol(packet.proto),
            direction: difference.direction.name().to_owned(),
            audit: difference.mode == PolicyMode::Audit,
            policies: policies(difference),
            maps,
        }
    }
}

/// What the policies say, and which of them.
fn policies(difference: &Difference) -> String {
    let (side, direction) = (&difference.expected, difference.direction);
    let rule = |policy: &dyn std::fmt::Display, place: usize| {
        format!("{policy} {} rule {}", Direction::name(direction), place + 1)
    };
    if let Some(ruling) = &side.ruling {
        let verdict = if ruling.accepts { "allowed" } else { "denied" };
        return format!("{verdict} by {}", rule(&ruling.policy, ruling.place));
    }
    let isolated_by: Vec<_> = side.isolated_by.iter().map(ToString::to_string).collect();
    match (side.allowed_by.first(), side.is_allowed()) {
        (Some((policy, place)), _) => format!("allowed by {}", rule(policy, *place)),
        (None, true) => "allowed: nothing is against it".to_owned(),
        (None, false) => format!("denied: isolated by {}", isolated_by.join(", ")),
    }
}
