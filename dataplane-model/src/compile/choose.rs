//! Which of a Service port's endpoints take new connections.
//!
//! Clients are served out of one of two sets, by the traffic policy that holds for them. Each set
//! falls back by itself from ready endpoints to those that still serve while they terminate
//! (KEP-1669). Hints narrow the cluster set alone (KEP-2433, KEP-3015).

use super::endpoints::Target;
use crate::snapshot::{NodeConfig, Text, TrafficPolicy};

/// The endpoints that take new connections of one kind of client, those of this node first.
pub(super) fn choose<'a>(
    node: &NodeConfig,
    targets: &[Target<'a>],
    policy: TrafficPolicy,
) -> Vec<Target<'a>> {
    let hints = match policy {
        TrafficPolicy::Cluster => Hints::in_force(node, targets),
        TrafficPolicy::Local => Hints::None,
    };
    let in_scope = |target: &Target<'_>| policy == TrafficPolicy::Cluster || target.local;
    let any_ready = targets
        .iter()
        .any(|target| in_scope(target) && target.ready);
    let serves = |target: &&Target<'_>| {
        in_scope(target)
            && match any_ready {
                true => target.ready && hints.admit(target),
                false => target.serving && target.terminating,
            }
    };
    let mut chosen = Vec::with_capacity(targets.len());
    chosen.extend(targets.iter().filter(serves).copied());
    chosen.sort_by_key(|target| !target.local);
    chosen
}

/// Hints that hold for this node's clients.
enum Hints<'n> {
    /// Every endpoint is for them.
    None,
    /// Those whose hints name this node.
    Node(&'n Text),
    /// Those whose hints name this node's zone.
    Zone(&'n Text),
}

impl<'n> Hints<'n> {
    /// Hints of a kind hold if every ready endpoint has some and one of them is for us; those of
    /// nodes come before those of zones.
    fn in_force(node: &'n NodeConfig, targets: &[Target<'_>]) -> Self {
        let hold = |hints: Self| {
            let mut ready = targets.iter().filter(|target| target.ready);
            let all = ready.clone().all(|target| !hints.of(target).is_empty());
            (all && ready.any(|target| hints.admit(target))).then_some(hints)
        };
        let zone = || node.zone.as_ref().map(Self::Zone).and_then(hold);
        hold(Self::Node(&node.name))
            .or_else(zone)
            .unwrap_or(Self::None)
    }

    /// The hints of this kind that an endpoint has.
    fn of<'a>(&self, target: &Target<'a>) -> &'a [Text] {
        match (self, target.place) {
            (Self::None, _) | (_, None) => &[],
            (Self::Node(_), Some(place)) => &place.nodes,
            (Self::Zone(_), Some(place)) => &place.zones,
        }
    }

    fn admit(&self, target: &Target<'_>) -> bool {
        match *self {
            Self::None => true,
            Self::Node(name) | Self::Zone(name) => self.of(target).contains(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::Place;

    fn node() -> NodeConfig {
        NodeConfig {
            name: "here".into(),
            zone: Some("z".into()),
            ..NodeConfig::default()
        }
    }

    fn place(nodes: &[&str], zones: &[&str]) -> Place {
        let texts = |names: &[&str]| names.iter().map(|&name| name.into()).collect();
        Place {
            node: None,
            zones: texts(zones),
            nodes: texts(nodes),
        }
    }

    /// A ready endpoint on another node, by its number.
    fn ready(number: u8, place: &Place) -> Target<'_> {
        Target {
            addr: [10, 0, 0, number].into(),
            port: 80,
            ready: true,
            serving: true,
            terminating: false,
            local: false,
            place: Some(place),
            pod: None,
        }
    }

    fn numbers(targets: &[Target<'_>], policy: TrafficPolicy) -> Vec<u16> {
        let chosen = choose(&node(), targets, policy);
        chosen.iter().map(|target| last(target)).collect()
    }

    fn last(target: &Target<'_>) -> u16 {
        match target.addr {
            std::net::IpAddr::V4(addr) => u16::from(addr.octets()[3]),
            std::net::IpAddr::V6(addr) => addr.segments()[7],
        }
    }

    fn terminating(target: Target<'_>) -> Target<'_> {
        Target {
            ready: false,
            terminating: true,
            ..target
        }
    }

    use TrafficPolicy::{Cluster, Local};

    #[test]
    fn node_hints_come_before_zone_hints() {
        let (ours, near, far) = (
            place(&["here"], &["y"]),
            place(&["there"], &["z"]),
            place(&["there"], &["y"]),
        );
        assert_eq!(numbers(&[ready(1, &ours), ready(2, &near)], Cluster), [1]);
        assert_eq!(numbers(&[ready(2, &near), ready(3, &far)], Cluster), [2]);
        assert_eq!(numbers(&[ready(3, &far), ready(4, &far)], Cluster), [3, 4]);
    }

    #[test]
    fn hints_hold_only_if_every_ready_endpoint_has_them() {
        let (ours, near, none) = (place(&["here"], &[]), place(&[], &["z"]), place(&[], &[]));
        assert_eq!(
            numbers(&[ready(1, &ours), ready(2, &none)], Cluster),
            [1, 2]
        );
        assert_eq!(
            numbers(&[ready(1, &near), ready(2, &none)], Cluster),
            [1, 2]
        );
        let gone = terminating(ready(2, &none));
        assert_eq!(numbers(&[ready(1, &near), gone], Cluster), [1]);
    }

    #[test]
    fn hints_of_endpoints_that_are_not_ready_count_for_nothing() {
        let (near, far) = (place(&[], &["z"]), place(&[], &["y"]));
        let gone = terminating(ready(1, &near));
        assert_eq!(numbers(&[gone, ready(2, &far)], Cluster), [2]);
        assert_eq!(
            numbers(&[gone, terminating(ready(2, &far))], Cluster),
            [1, 2]
        );
    }

    #[test]
    fn hints_do_not_narrow_the_local_set() {
        let (ours, far) = (place(&["here"], &[]), place(&["there"], &[]));
        let here = Target {
            local: true,
            ..ready(2, &far)
        };
        assert_eq!(numbers(&[ready(1, &ours), here], Local), [2]);
        assert_eq!(numbers(&[ready(1, &ours), here], Cluster), [1]);
    }

    #[test]
    fn each_set_falls_back_by_itself() {
        let none = place(&[], &[]);
        let here = Target {
            local: true,
            ..terminating(ready(1, &none))
        };
        let there = ready(2, &none);
        assert_eq!(numbers(&[here, there], Cluster), [2]);
        assert_eq!(numbers(&[here, there], Local), [1]);
        let dead = Target {
            serving: false,
            ..here
        };
        assert_eq!(numbers(&[dead, there], Local), [0; 0]);
    }

    #[test]
    fn an_endpoint_published_as_ready_counts_while_it_terminates() {
        let none = place(&[], &[]);
        let published = Target {
            terminating: true,
            ..ready(1, &none)
        };
        assert_eq!(numbers(&[published, ready(2, &none)], Cluster), [1, 2]);
    }
}
