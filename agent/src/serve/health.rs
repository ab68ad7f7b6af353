//! Is the proxy well, and should the node get traffic? Answers as kube-proxy's (KEP-3836).

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use tokio::time::Instant;

use crate::metrics::FAMILIES;

/// What the answers follow from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Health {
    /// When the oldest change came that is not in force.
    pub oldest_change: Option<Instant>,
    /// When the maps were last brought up to date; `None` before the first time.
    pub last_updated: Option<Timestamp>,
    /// This node by its Node object.
    pub node: NodeState,
}

/// A node by its Node object.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum NodeState {
    /// There has been none.
    #[default]
    Unknown,
    /// It stays.
    Stays,
    /// It is being deleted or is about to be, or its object is gone.
    Leaves,
}

/// The answer's body.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    last_updated: String,
    current_time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    node_eligible: Option<bool>,
    healthy: bool,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    status: BTreeMap<&'static str, Proxier>,
}

/// The proxy for one family of addresses.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Proxier {
    last_updated: String,
    healthy: bool,
}

impl Health {
    /// True unless a change waits for longer than `timeout`.
    pub fn is_well(&self, now: Instant, timeout: Duration) -> bool {
        let late = |since: Instant| now.saturating_duration_since(since) >= timeout;
        self.last_updated.is_none() || !self.oldest_change.is_some_and(late)
    }

    /// True if load balancers may send traffic to the node.
    pub fn is_eligible(&self) -> bool {
        match self.node {
            NodeState::Stays => true,
            NodeState::Leaves => false,
            NodeState::Unknown => self.last_updated.is_some(),
        }
    }

    /// The answer to a probe and whether it is a good one; `eligible` is for those that ask for the
    /// node, too.
    pub fn report(
        &self,
        (now, time): (Instant, Timestamp),
        timeout: Duration,
        eligible: Option<bool>,
    ) -> (bool, Report) {
        let healthy = self.is_well(now, timeout);
        let good = healthy && eligible != Some(false);
        // Go's zero time.
        let updated = || match self.last_updated {
            Some(updated) => updated.to_string(),
            None => "0001-01-01T00:00:00Z".to_owned(),
        };
        let proxier = Proxier {
            last_updated: updated(),
            healthy,
        };
        let families = self.last_updated.is_some().then_some(FAMILIES);
        let status = families.into_iter().flatten();
        let report = Report {
            // As kube-proxy has it: who is well was updated just now.
            last_updated: if good { time.to_string() } else { updated() },
            current_time: time.to_string(),
            node_eligible: eligible,
            healthy,
            status: status.map(|family| (family, proxier.clone())).collect(),
        };
        (good, report)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(60);

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    fn known(oldest_change: Option<Instant>) -> Health {
        Health {
            oldest_change,
            last_updated: Some(at(100)),
            node: NodeState::Stays,
        }
    }

    #[test]
    fn a_change_may_wait_for_the_timeout() {
        let since = Instant::now();
        let health = known(Some(since));
        assert!(health.is_well(since + TIMEOUT - Duration::from_secs(1), TIMEOUT));
        assert!(!health.is_well(since + TIMEOUT, TIMEOUT));
        assert!(known(None).is_well(since + 9 * TIMEOUT, TIMEOUT));
        let starting = Health {
            last_updated: None,
            ..health
        };
        assert!(starting.is_well(since + 9 * TIMEOUT, TIMEOUT));
    }

    #[test]
    fn a_node_that_leaves_is_not_eligible_and_one_unknown_is_once_in_sync() {
        let with = |node| Health {
            node,
            ..known(None)
        };
        assert!(with(NodeState::Stays).is_eligible() && with(NodeState::Unknown).is_eligible());
        assert!(!with(NodeState::Leaves).is_eligible());
        assert!(!Health::default().is_eligible());
    }

    #[test]
    fn the_body_is_kube_proxys() {
        let now = Instant::now();
        let (good, report) = known(None).report((now, at(160)), TIMEOUT, Some(true));
        let json = serde_json::to_value(report).expect("JSON");
        let proxier = serde_json::json!({"lastUpdated": "1970-01-01T00:01:40Z", "healthy": true});
        let expected = serde_json::json!({
            "lastUpdated": "1970-01-01T00:02:40Z",
            "currentTime": "1970-01-01T00:02:40Z",
            "nodeEligible": true,
            "healthy": true,
            "status": {"IPv4": proxier, "IPv6": proxier},
        });
        assert!(good);
        assert_eq!(json, expected);
        let ill = known(Some(now - TIMEOUT));
        let (good, report) = ill.report((now, at(160)), TIMEOUT, None);
        let json = serde_json::to_value(report).expect("JSON");
        assert!(!good && json["healthy"] == false && json.get("nodeEligible").is_none());
        assert_eq!(json["lastUpdated"], "1970-01-01T00:01:40Z");
    }
}
