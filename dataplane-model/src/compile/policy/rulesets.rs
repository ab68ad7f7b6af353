//! Rulesets: what one direction of a pod allows, shared by all pods with the same rules.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use dataplane_common::abi::{PortBound, PortSpan, RulesetVal, ruleset_flags};

use super::cidrs::block_print;
use super::ports::{Classes, RulePorts, classes};
use super::state::{ClassedRule, PortName, Ruleset, selector_print};
use super::{Selecting, listed, names};
use crate::capacity::CapacityError;
use crate::compile::Compiler;
use crate::ids::IdKind;
use crate::snapshot::{
    Direction, NetworkPolicy, ObjectKey, Peer, Peers, Pod, PortRange, Ports, Protocol, Rule, Text,
};

/// Numbers rulesets and fills their maps.
pub(super) struct Rulesets<'c, 'a> {
    compiler: &'c mut Compiler<'a>,
    /// Numbers that names of ports stand for at peers.
    named: &'c BTreeMap<PortName, BTreeSet<u16>>,
    known: HashMap<Cause<'a>, u32>,
    numbers: BTreeMap<u32, Arc<Ruleset>>,
}

/// What a ruleset comes from: policies, and the numbers of the pod's named ports that they name.
type Cause<'a> = (Direction, Vec<&'a ObjectKey>, Vec<(PortName, u16)>);

impl<'c, 'a> Rulesets<'c, 'a> {
    /// No rulesets yet.
    pub(super) fn new(
        compiler: &'c mut Compiler<'a>,
        named: &'c BTreeMap<PortName, BTreeSet<u16>>,
    ) -> Self {
        Self {
            compiler,
            named,
            known: HashMap::new(),
            numbers: BTreeMap::new(),
        }
    }

    /// The pod's ruleset, 0 if no policy isolates it.
    pub(super) fn number(
        &mut self,
        pod: &Pod,
        direction: Direction,
        policies: &Selecting<'a>,
    ) -> u32 {
        if policies.is_empty() {
            return 0;
        }
        let ports = match direction {
            Direction::Ingress => own_ports(pod, policies),
            Direction::Egress => Vec::new(),
        };
        let cause: Cause<'a> = (
            direction,
            policies.iter().map(|policy| &policy.key).collect(),
            ports,
        );
        if let Some(&number) = self.known.get(&cause) {
            return number;
        }
        let number = self.compile(direction, policies, &cause.2);
        let number = self.compiler.note(number).unwrap_or(0);
        self.known.insert(cause, number);
        number
    }

    /// All rulesets by number.
    pub(super) fn finish(self) -> BTreeMap<u32, Arc<Ruleset>> {
        self.numbers
    }

    fn compile(
        &mut self,
        direction: Direction,
        policies: &[&'a NetworkPolicy],
        own_ports: &[(PortName, u16)],
    ) -> Result<u32, CapacityError> {
        let rules: Vec<(&NetworkPolicy, usize, &Rule)> = policies
            .iter()
            .flat_map(|policy| {
                let rules = policy.rules(direction).unwrap_or(&[]).iter().enumerate();
                rules.map(move |(index, rule)| (*policy, index, rule))
            })
            .collect();
        let ports: Vec<_> = rules
            .iter()
            .map(|(_, _, rule)| rule_ports(rule, direction, own_ports))
            .collect();
        let keys: Vec<_> = policies.iter().map(|policy| &policy.key).collect();
        let describe = || {
            let keys: Vec<_> = keys.iter().map(|key| key.to_string()).collect();
            format!(
                "{} of pods that {} selects",
                direction.name(),
                keys.join(", ")
            )
        };
        let classes = classes(&ports, self.named).map_err(|need| CapacityError::PortClasses {
            ruleset: describe(),
            need,
        })?;
        let mut classed = Vec::new();
        for (place, (policy, index, rule)) in rules.iter().enumerate() {
            let content = (&policy.key, direction, index);
            let name = || format!("{} {} rule {}", policy.key, direction.name(), index + 1);
            let number = self.compiler.ids.id(IdKind::Rule, &content, name)?;
            classed.push(self.classed(number, policy, rule, &ports[place], &classes, place));
        }
        let content: Vec<_> = rules
            .iter()
            .map(|(policy, index, rule)| (&policy.key, index, rule))
            .collect();
        let content = (direction, &keys, content, &ports, &classes.bounds);
        let number = self.compiler.ids.id(IdKind::Ruleset, &content, describe)?;
        let value = self.value(&classed, &classes)?;
        self.compiler.desired.tables.rulesets.insert(number, value);
        self.numbers
            .insert(number, Arc::new(Ruleset { rules: classed }));
        Ok(number)
    }

    fn classed(
        &self,
        number: u32,
        policy: &NetworkPolicy,
        rule: &Rule,
        ports: &RulePorts,
        classes: &Classes,
        place: usize,
    ) -> ClassedRule {
        let (mut selectors, mut blocks) = (BTreeSet::new(), BTreeSet::new());
        for peer in listed(rule) {
            match peer {
                Peer::Pods { namespaces, pods } => {
                    selectors.insert(selector_print(&policy.key.namespace, namespaces, pods));
                }
                Peer::Block { cidr, except } => {
                    blocks.insert(block_print(cidr, except));
                }
            }
        }
        let class_of =
            |name: &PortName, port: u16| Some((port, *classes.of_port.get(&(name.0, port))?));
        let numbers = |name: &PortName| {
            self.named
                .get(name)
                .into_iter()
                .flatten()
                .copied()
                .collect::<Vec<_>>()
        };
        let named = ports.named.iter().map(|name| {
            let numbers = numbers(name)
                .into_iter()
                .filter_map(|port| class_of(name, port));
            (name.clone(), numbers.collect())
        });
        ClassedRule {
            number,
            any: rule.peers == Peers::Any,
            selectors: selectors.into_iter().collect(),
            blocks: blocks.into_iter().collect(),
            classes: classes.of_rule.get(place).cloned().unwrap_or_default(),
            named: named.collect(),
        }
    }

    fn value(
        &mut self,
        rules: &[ClassedRule],
        classes: &Classes,
    ) -> Result<RulesetVal, CapacityError> {
        let [tcp, udp, sctp] = &classes.bounds;
        let uses_cidrs = rules.iter().any(|rule| !rule.blocks.is_empty());
        let uses_identities = rules
            .iter()
            .any(|rule| !rule.selectors.is_empty() || !rule.named.is_empty());
        let flag = |set: bool, bit: u16| if set { bit } else { 0 };
        Ok(RulesetVal {
            tcp: self.span(tcp)?,
            udp: self.span(udp)?,
            sctp: self.span(sctp)?,
            other_class: classes.other,
            flags: flag(uses_cidrs, ruleset_flags::CIDRS)
                | flag(uses_identities, ruleset_flags::IDENTITIES),
        })
    }

    fn span(&mut self, bounds: &[(u16, u16)]) -> Result<PortSpan, CapacityError> {
        let count = bounds.len() as u32;
        let base = self.compiler.ids.span(IdKind::PortSpan, bounds, count)?;
        let values = bounds
            .iter()
            .map(|&(start, class)| PortBound { start, class });
        self.compiler
            .desired
            .tables
            .port_bounds
            .extend((base..).zip(values));
        Ok(PortSpan { base, count })
    }
}

/// The pod's named ports that rules of these policies name.
fn own_ports(pod: &Pod, policies: &[&NetworkPolicy]) -> Vec<(PortName, u16)> {
    let rules = policies
        .iter()
        .filter_map(|policy| policy.rules(Direction::Ingress))
        .flatten();
    let wanted: BTreeSet<PortName> = rules.flat_map(names).collect();
    let numbers = |(protocol, name): PortName| {
        let numbers: BTreeSet<u16> = pod.named_ports(&name, protocol).collect();
        numbers
            .into_iter()
            .map(move |port| ((protocol, name.clone()), port))
            .collect::<Vec<_>>()
    };
    wanted.into_iter().flat_map(numbers).collect()
}

fn rule_ports(rule: &Rule, direction: Direction, own_ports: &[(PortName, u16)]) -> RulePorts {
    let Ports::Only(matches) = &rule.ports else {
        return RulePorts {
            all: true,
            ..RulePorts::default()
        };
    };
    let mut ports = RulePorts::default();
    for matched in matches {
        let protocol = matched.protocol;
        match &matched.range {
            PortRange::All => ports.runs.push((protocol, 0, u16::MAX)),
            // An end before the start is no port at all.
            PortRange::Numbers(first, last) if first > last => {}
            PortRange::Numbers(first, last) => ports.runs.push((protocol, *first, *last)),
            PortRange::Named(name) if direction == Direction::Egress => {
                ports.named.push((protocol, name.clone()))
            }
            PortRange::Named(name) => ports.runs.extend(resolve(own_ports, protocol, name)),
        }
    }
    ports
}

fn resolve(
    own_ports: &[(PortName, u16)],
    protocol: Protocol,
    name: &Text,
) -> impl Iterator<Item = (Protocol, u16, u16)> {
    let named = own_ports
        .iter()
        .filter(move |((of, own), _)| *of == protocol && own == name);
    named.map(move |&(_, port)| (protocol, port, port))
}
