//! Port classes: groups of ports that a ruleset's rules do not tell apart.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::state::PortName;
use crate::snapshot::Protocol;

/// What a rule says of ports, names resolved as far as its own pod can.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub(super) struct RulePorts {
    /// Every protocol and port.
    pub(super) all: bool,
    /// Runs of ports, both ends included.
    pub(super) runs: Vec<(Protocol, u16, u16)>,
    /// Names that stand for another number at each peer.
    pub(super) named: Vec<PortName>,
}

/// The classes of a ruleset.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Classes {
    /// For TCP, UDP and SCTP: first port of each run of one class, and the class. The first is 0.
    pub(super) bounds: [Vec<(u16, u16)>; 3],
    /// How many there are; they are numbered from 1 on.
    pub(super) count: u16,
    /// Class of what has no ports.
    pub(super) other: u16,
    /// Classes that each rule allows, whoever the peer is.
    pub(super) of_rule: Vec<Vec<u16>>,
    /// Class of each port that is a class of its own, since some peer has a name for it.
    pub(super) of_port: HashMap<(Protocol, u16), u16>,
}

/// Rules that allow a port, and the port itself if a name stands for it.
type Signature = (Vec<usize>, Option<(Protocol, u16)>);

/// The classes of these rules; `named` lists the numbers that names stand for. `Err` with the number of
/// classes if a 16-bit number cannot tell them apart.
pub(super) fn classes(
    rules: &[RulePorts],
    named: &BTreeMap<PortName, BTreeSet<u16>>,
) -> Result<Classes, usize> {
    let mut numbers: BTreeMap<Signature, usize> = BTreeMap::new();
    // Class 0 is none, so that no boundary is all zeros.
    let mut class = |signature: Signature| {
        let next = numbers.len() + 1;
        *numbers.entry(signature).or_insert(next)
    };
    let all: BTreeSet<usize> = (0..rules.len()).filter(|&rule| rules[rule].all).collect();
    let other = class((all.iter().copied().collect(), None));
    let mut bounds: [Vec<(u16, usize)>; 3] = Default::default();
    for (protocol, bounds) in Protocol::ALL.into_iter().zip(&mut bounds) {
        let single = single_ports(rules, named, protocol);
        for (start, allowing) in sweep(rules, &single, &all, protocol) {
            let own = single.contains(&start).then_some((protocol, start));
            let class = class((allowing, own));
            if bounds.last().is_none_or(|&(_, last)| last != class) {
                bounds.push((start, class));
            }
        }
    }
    let count = numbers.len();
    if count > usize::from(u16::MAX) {
        return Err(count);
    }
    let mut of_rule = vec![Vec::new(); rules.len()];
    let mut of_port = HashMap::new();
    for ((allowing, own), number) in numbers {
        allowing
            .into_iter()
            .for_each(|rule| of_rule[rule].push(number as u16));
        of_port.extend(own.map(|port| (port, number as u16)));
    }
    let bounds = bounds.map(|bounds| {
        bounds
            .into_iter()
            .map(|(start, class)| (start, class as u16))
            .collect()
    });
    Ok(Classes {
        bounds,
        count: count as u16,
        other: other as u16,
        of_rule,
        of_port,
    })
}

/// Ports of a protocol that a name in these rules stands for at some peer.
fn single_ports(
    rules: &[RulePorts],
    named: &BTreeMap<PortName, BTreeSet<u16>>,
    protocol: Protocol,
) -> BTreeSet<u16> {
    let names = rules
        .iter()
        .flat_map(|rule| &rule.named)
        .filter(|name| name.0 == protocol);
    names
        .filter_map(|name| named.get(name))
        .flatten()
        .copied()
        .collect()
}

/// Walks over a protocol's ports: where each run begins, and the rules that allow it.
fn sweep(
    rules: &[RulePorts],
    single: &BTreeSet<u16>,
    all: &BTreeSet<usize>,
    protocol: Protocol,
) -> Vec<(u16, Vec<usize>)> {
    let mut changes: BTreeMap<u32, Vec<(usize, bool)>> = BTreeMap::from([(0, Vec::new())]);
    for (rule, ports) in rules.iter().enumerate() {
        for &(_, first, last) in ports.runs.iter().filter(|run| run.0 == protocol) {
            changes.entry(first.into()).or_default().push((rule, true));
            changes
                .entry(u32::from(last) + 1)
                .or_default()
                .push((rule, false));
        }
    }
    for &port in single {
        changes.entry(port.into()).or_default();
        changes.entry(u32::from(port) + 1).or_default();
    }
    // A rule may list a port twice: it allows while any of its runs is open.
    let mut open: BTreeMap<usize, u32> = all.iter().map(|&rule| (rule, 1)).collect();
    let mut runs = Vec::new();
    for (start, changes) in changes {
        for (rule, opens) in changes {
            let depth = open.entry(rule).or_insert(0);
            *depth = if opens { *depth + 1 } else { *depth - 1 };
        }
        open.retain(|_, depth| *depth > 0);
        if let Ok(start) = u16::try_from(start) {
            runs.push((start, open.keys().copied().collect()));
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs(runs: &[(Protocol, u16, u16)]) -> RulePorts {
        RulePorts {
            runs: runs.to_vec(),
            ..RulePorts::default()
        }
    }

    fn class_of(classes: &Classes, protocol: usize, port: u16) -> u16 {
        classes.bounds[protocol]
            .iter()
            .rev()
            .find(|(start, _)| *start <= port)
            .unwrap()
            .1
    }

    #[test]
    fn a_rule_without_ports_is_in_every_class() {
        let all = RulePorts {
            all: true,
            ..RulePorts::default()
        };
        let classes = classes(&[all], &BTreeMap::new()).unwrap();
        assert_eq!(classes.bounds, [vec![(0, 1)], vec![(0, 1)], vec![(0, 1)]]);
        assert_eq!((classes.other, classes.of_rule), (1, vec![vec![1]]));
    }

    #[test]
    fn ports_are_told_apart_by_the_rules_that_allow_them() {
        let rules = [
            runs(&[(Protocol::Tcp, 80, 80)]),
            runs(&[(Protocol::Tcp, 80, 90), (Protocol::Udp, 0, 65535)]),
        ];
        let classes = classes(&rules, &BTreeMap::new()).unwrap();
        let tcp = |port| class_of(&classes, 0, port);
        assert_eq!([tcp(0), tcp(79), tcp(91), tcp(65535)], [classes.other; 4]);
        assert_ne!(tcp(80), tcp(81));
        assert_eq!(tcp(81), tcp(90));
        assert_eq!(
            class_of(&classes, 1, 53),
            tcp(81),
            "the same rules allow it"
        );
        assert_eq!(classes.of_rule[0], [tcp(80)]);
        assert_eq!(classes.of_rule[1].len(), 2);
    }

    #[test]
    fn the_first_and_the_last_port_are_ports() {
        let classes = classes(
            &[runs(&[
                (Protocol::Sctp, 0, 0),
                (Protocol::Sctp, 65535, 65535),
            ])],
            &BTreeMap::new(),
        )
        .unwrap();
        let sctp = |port| class_of(&classes, 2, port);
        assert_eq!(sctp(0), sctp(65535));
        assert_eq!([sctp(1), sctp(65534)], [classes.other; 2]);
    }

    #[test]
    fn overlapping_runs_of_one_rule_are_one() {
        let rules = [runs(&[
            (Protocol::Tcp, 10, 20),
            (Protocol::Tcp, 15, 30),
            (Protocol::Tcp, 15, 15),
        ])];
        let classes = classes(&rules, &BTreeMap::new()).unwrap();
        assert_eq!(classes.bounds[0].len(), 3);
        assert_eq!(class_of(&classes, 0, 25), class_of(&classes, 0, 10));
    }

    #[test]
    fn a_named_port_is_a_class_of_its_own() {
        let name = (Protocol::Tcp, "web".into());
        let rule = RulePorts {
            named: vec![name.clone()],
            ..RulePorts::default()
        };
        let named = BTreeMap::from([(name, [80, 8080].into())]);
        let classes = classes(&[rule], &named).unwrap();
        let tcp = |port| class_of(&classes, 0, port);
        assert_ne!(tcp(80), tcp(8080));
        assert_eq!(tcp(81), classes.other);
        assert_eq!(classes.of_port[&(Protocol::Tcp, 80)], tcp(80));
        assert_eq!(
            class_of(&classes, 1, 80),
            classes.other,
            "the name is of a TCP port"
        );
        assert_eq!(classes.of_rule, [vec![]]);
    }
}
