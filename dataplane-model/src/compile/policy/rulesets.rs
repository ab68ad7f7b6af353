//! Rulesets: what policies say of one direction of a pod, shared by all pods with the same rules.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use dataplane_common::abi::{
    Claim, PortBound, PortSpan, RowVal, RulesetVal, action, peer, ruleset_flags,
};

use super::cidrs::{block_print, domain_print};
use super::ports::{Classes, RulePorts, classes};
use super::selected::{Policy, PolicyKey, RuleOf, Selecting, listed, names};
use super::state::{ClassedRule, PortName, Ruleset, Unknown, nodes_print, selector_print};
use crate::capacity::CapacityError;
use crate::compile::Compiler;
use crate::ids::IdKind;
use crate::snapshot::{
    Direction, Peer, Peers, Pod, PortRange, Ports, Protocol, Rule, RuleAction, Text, Tier,
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
type Cause<'a> = (Direction, Vec<PolicyKey<'a>>, Vec<(PortName, u16)>);

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

    /// The pod's ruleset, 0 if no policy concerns it.
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
            policies.iter().map(|policy| policy.key()).collect(),
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

    /// True if a rule of a ruleset has domain names.
    pub(super) fn has_domains(&self, number: u32) -> bool {
        let ruleset = self.numbers.get(&number);
        ruleset.is_some_and(|ruleset| ruleset.has_domains)
    }

    /// All rulesets by number.
    pub(super) fn finish(self) -> BTreeMap<u32, Arc<Ruleset>> {
        self.numbers
    }

    fn compile(
        &mut self,
        direction: Direction,
        policies: &[Policy<'a>],
        own_ports: &[(PortName, u16)],
    ) -> Result<u32, CapacityError> {
        let rules: Vec<RuleOf<'_>> = policies
            .iter()
            .flat_map(|policy| policy.rules(direction))
            .collect();
        let ports: Vec<_> = rules
            .iter()
            .map(|of| rule_ports(of.rule, direction, own_ports))
            .collect();
        let keys: Vec<_> = policies.iter().map(|policy| policy.key()).collect();
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
        let mut places = Places::default();
        for ((of, ports), matched) in rules.iter().zip(&ports).zip(&classes.of_rule) {
            let content = (of.policy.key(), direction, of.index, of.name, of.action);
            let name = || rule_name(of, direction);
            let number = self.compiler.ids.id(IdKind::Rule, &content, name)?;
            let claim = places.claim(of, number);
            classed.push(self.classed(of, direction, claim, ports, &classes, matched));
        }
        let content: Vec<_> = rules
            .iter()
            .map(|of| (of.policy.key(), of.index, of.name, of.action, of.rule))
            .collect();
        let tiers: Vec<_> = policies.iter().map(|policy| policy.tier()).collect();
        let content = (direction, &keys, tiers, content, &ports, &classes.bounds);
        let number = self.compiler.ids.id(IdKind::Ruleset, &content, describe)?;
        let ruleset = Ruleset {
            isolates: policies.iter().any(|policy| policy.tier().is_none()),
            has_domains: rules.iter().any(RuleOf::has_domains),
            rules: classed,
        };
        let value = self.value(&ruleset, &classes)?;
        self.compiler.desired.tables.rulesets.insert(number, value);
        self.numbers.insert(number, Arc::new(ruleset));
        Ok(number)
    }

    fn classed(
        &self,
        of: &RuleOf<'_>,
        direction: Direction,
        [says, denies]: [RowVal; 2],
        ports: &RulePorts,
        classes: &Classes,
        matched: &[u16],
    ) -> ClassedRule {
        let (mut selectors, mut blocks) = (BTreeSet::new(), BTreeSet::new());
        for peer in listed(of.rule) {
            match peer {
                Peer::Pods { namespaces, pods } => {
                    selectors.insert(selector_print(of.policy.namespace(), namespaces, pods));
                }
                Peer::Nodes(nodes) => {
                    selectors.insert(nodes_print(nodes));
                }
                Peer::Block { cidr, except } => {
                    blocks.insert(block_print(cidr, except));
                }
                Peer::Domain(pattern) => {
                    blocks.insert(domain_print(pattern));
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
            says,
            unknown: unknown(of, direction, denies, ports, classes, matched),
            any: of.rule.peers == Peers::Any,
            selectors: selectors.into_iter().collect(),
            blocks: blocks.into_iter().collect(),
            classes: matched.to_vec(),
            named: named.collect(),
        }
    }

    fn value(&mut self, ruleset: &Ruleset, classes: &Classes) -> Result<RulesetVal, CapacityError> {
        let [tcp, udp, sctp] = &classes.bounds;
        let rules = &ruleset.rules;
        let uses_cidrs = rules.iter().any(|rule| !rule.blocks.is_empty());
        let uses_identities = rules
            .iter()
            .any(|rule| !rule.selectors.is_empty() || !rule.named.is_empty());
        let says_of_any = rules.iter().any(|rule| rule.any);
        let flag = |set: bool, bit: u16| if set { bit } else { 0 };
        Ok(RulesetVal {
            tcp: self.span(tcp)?,
            udp: self.span(udp)?,
            sctp: self.span(sctp)?,
            other_class: classes.other,
            flags: flag(uses_cidrs, ruleset_flags::CIDRS)
                | flag(says_of_any, ruleset_flags::ANY)
                | flag(uses_identities, ruleset_flags::IDENTITIES)
                | flag(ruleset.isolates, ruleset_flags::ISOLATES)
                | flag(ruleset.asks_for_unknown_pods(), ruleset_flags::UNKNOWN_PODS),
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

/// Places that the rules of a ruleset have in their tiers.
#[derive(Default)]
struct Places {
    admin: u32,
    below: u32,
}

impl Places {
    /// What the next rule says of its peers, and what of those who may be its peers.
    fn claim(&mut self, of: &RuleOf<'_>, number: u32) -> [RowVal; 2] {
        let is_admin = of.policy.tier() == Some(Tier::Admin);
        let place = if is_admin {
            &mut self.admin
        } else {
            &mut self.below
        };
        *place += 1;
        let action = match of.action {
            RuleAction::Accept => action::ACCEPT,
            RuleAction::Deny => action::DENY,
            RuleAction::Pass => action::PASS,
        };
        [action, action::DENY].map(|action| {
            let claim = Claim::new(*place, action, number);
            let mut says = RowVal::EMPTY;
            if is_admin {
                says.admin = claim;
            } else {
                says.below = claim;
            }
            says
        })
    }
}

/// What a rule says of peers that nobody knows: to overlook a denial is not safe.
fn unknown(
    of: &RuleOf<'_>,
    direction: Direction,
    says: RowVal,
    ports: &RulePorts,
    classes: &Classes,
    matched: &[u16],
) -> Unknown {
    let pods = of.denies_pods(direction).then_some(peer::UNKNOWN_POD);
    let nodes = of.denies_nodes().then_some(peer::UNKNOWN_NODE);
    let peers: Vec<u32> = pods.into_iter().chain(nodes).collect();
    let classes = if peers.is_empty() {
        Vec::new()
    } else if ports.named.is_empty() {
        matched.to_vec()
    } else {
        // A name may stand for any port there.
        (1..=classes.count).collect()
    };
    Unknown {
        peers,
        says,
        classes,
    }
}

fn rule_name(of: &RuleOf<'_>, direction: Direction) -> String {
    let place = format!(
        "{} {} rule {}",
        of.policy.key(),
        direction.name(),
        of.index + 1
    );
    let name = match of.name {
        "" => String::new(),
        name => format!(" {name:?}"),
    };
    match of.policy {
        Policy::Namespaced(_) => place,
        Policy::Cluster(_) => format!("{place}{name} ({})", of.action.name()),
    }
}

/// The pod's named ports that rules of these policies name.
fn own_ports(pod: &Pod, policies: &[Policy<'_>]) -> Vec<(PortName, u16)> {
    let rules = policies
        .iter()
        .flat_map(|policy| policy.rules(Direction::Ingress));
    let wanted: BTreeSet<PortName> = rules.flat_map(|of| names(of.rule)).collect();
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
