//! Rulesets: what policies say of one direction of a pod, shared by all pods with the same rules.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use dataplane_common::abi::{
    Claim, IdKey, PortBound, PortSpan, RowVal, RulesetVal, action, peer, ruleset_flags,
};

use super::cidrs::{block_print, domain_print};
use super::kinds::Like;
use super::ports::{Classes, RulePorts, classes};
use super::selected::{Policy, RuleOf, Selecting, listed};
use super::state::{ClassedRule, PortName, Ruleset, Unknown, nodes_print, selector_print};
use crate::capacity::CapacityError;
use crate::compile::Compiler;
use crate::ids::{self, IdKind};
use crate::snapshot::{
    Direction, Peer, Peers, PortRange, Ports, Protocol, Rule, RuleAction, Text, Tier,
};

/// A ruleset with all that its maps hold.
#[derive(Debug)]
pub(super) struct Compiled {
    pub(super) number: u32,
    pub(super) content: Arc<Ruleset>,
    value: RulesetVal,
    bounds: Vec<(u32, PortBound)>,
    /// Its numbers, with what they are looked up by.
    keys: Vec<(IdKey, u32)>,
    /// Numbers that the names of ports in its rules stood for.
    named: BTreeMap<PortName, BTreeSet<u16>>,
}

/// What a ruleset comes from: policies, and the numbers of the pod's named ports that they name.
type Cause = (Arc<Selecting>, Vec<(PortName, u16)>);

/// As [`Cause`], by where the policies are.
type Place = (*const Selecting, Vec<(PortName, u16)>);

/// Rulesets that were in use in the last compile.
pub(super) type Known = HashMap<Cause, Arc<Compiled>>;

/// Numbers rulesets and fills their maps.
pub(super) struct Rulesets<'c, 'a> {
    compiler: &'c mut Compiler<'a>,
    /// Numbers that names of ports stand for at peers.
    named: &'c BTreeMap<PortName, BTreeSet<u16>>,
    known: &'c mut Known,
    /// Those in use.
    used: HashMap<Place, (Cause, Arc<Compiled>)>,
    numbers: BTreeMap<u32, Arc<Ruleset>>,
}

impl<'c, 'a> Rulesets<'c, 'a> {
    /// No rulesets yet.
    pub(super) fn new(
        compiler: &'c mut Compiler<'a>,
        named: &'c BTreeMap<PortName, BTreeSet<u16>>,
        known: &'c mut Known,
    ) -> Self {
        Self {
            compiler,
            named,
            known,
            used: HashMap::new(),
            numbers: BTreeMap::new(),
        }
    }

    /// The ruleset of a kind of pods; `None` if it does not fit.
    pub(super) fn of(&mut self, like: &Like, selecting: &Arc<Selecting>) -> Option<Arc<Compiled>> {
        let place = (Arc::as_ptr(selecting), own_ports(like, selecting));
        if let Some((_, used)) = self.used.get(&place) {
            return Some(used.clone());
        }
        let cause = (selecting.clone(), place.1.clone());
        let known = self.known.remove(&cause);
        let known = known.filter(|known| self.takes_over(known));
        let compiled = match known {
            Some(known) => known,
            None => {
                let compiled = self.compile(selecting, &cause.1);
                Arc::new(self.compiler.note(compiled)?)
            }
        };
        self.add(&compiled);
        self.used.insert(place, (cause, compiled.clone()));
        Some(compiled)
    }

    /// All rulesets by number.
    pub(super) fn finish(self) -> BTreeMap<u32, Arc<Ruleset>> {
        *self.known = self.used.into_values().collect();
        self.numbers
    }

    /// True if what was compiled earlier still holds; its numbers are kept then.
    fn takes_over(&mut self, known: &Compiled) -> bool {
        let mut names = known.named.iter();
        names.all(|(name, numbers)| self.named.get(name).unwrap_or(&BTreeSet::new()) == numbers)
            && known
                .keys
                .iter()
                .all(|(key, number)| self.compiler.ids.keep(key, *number))
    }

    fn add(&mut self, compiled: &Compiled) {
        let tables = &mut self.compiler.desired.tables;
        tables.rulesets.insert(compiled.number, compiled.value);
        tables.port_bounds.extend(compiled.bounds.iter().copied());
        self.numbers
            .insert(compiled.number, compiled.content.clone());
    }

    fn compile(
        &mut self,
        selecting: &Selecting,
        own_ports: &[(PortName, u16)],
    ) -> Result<Compiled, CapacityError> {
        let (direction, policies) = (selecting.direction, &selecting.policies);
        let rules: Vec<RuleOf<'_>> = policies
            .iter()
            .flat_map(|policy| policy.rules(direction))
            .collect();
        let ports: Vec<_> = rules
            .iter()
            .map(|of| rule_ports(of.rule, direction, own_ports))
            .collect();
        let describe = || describe(selecting);
        let classes = classes(&ports, self.named).map_err(|need| CapacityError::PortClasses {
            ruleset: describe(),
            need,
        })?;
        let mut keys = Vec::new();
        let mut classed = Vec::new();
        let mut places = Places::default();
        for ((of, ports), matched) in rules.iter().zip(&ports).zip(&classes.of_rule) {
            let content = (of.policy.key(), direction, of.index, of.name, of.action);
            let key = ids::key(IdKind::Rule, &content);
            let number = self.compiler.ids.id_of(key, || rule_name(of, direction))?;
            keys.push((key, number));
            let claim = places.claim(of, number);
            classed.push(self.classed(of, direction, claim, ports, &classes, matched));
        }
        let content: Vec<_> = rules
            .iter()
            .map(|of| (of.policy.key(), of.index, of.name, of.action, of.rule))
            .collect();
        let of_policies: Vec<_> = policies.iter().map(Policy::key).collect();
        let tiers: Vec<_> = policies.iter().map(Policy::tier).collect();
        let content = (
            direction,
            &of_policies,
            tiers,
            content,
            &ports,
            &classes.bounds,
        );
        let key = ids::key(IdKind::Ruleset, &content);
        let number = self.compiler.ids.id_of(key, describe)?;
        keys.push((key, number));
        let content = Ruleset {
            isolates: policies.iter().any(|policy| policy.tier().is_none()),
            has_domains: rules.iter().any(RuleOf::has_domains),
            rules: classed,
        };
        let mut bounds = Vec::new();
        let value = self.value(&content, &classes, &mut keys, &mut bounds)?;
        let names = ports.iter().flat_map(|ports| &ports.named);
        let named = names.map(|name| {
            let numbers = self.named.get(name).cloned();
            (name.clone(), numbers.unwrap_or_default())
        });
        Ok(Compiled {
            number,
            content: Arc::new(content),
            value,
            bounds,
            keys,
            named: named.collect(),
        })
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

    fn value(
        &mut self,
        ruleset: &Ruleset,
        classes: &Classes,
        keys: &mut Vec<(IdKey, u32)>,
        bounds: &mut Vec<(u32, PortBound)>,
    ) -> Result<RulesetVal, CapacityError> {
        let mut span = |of: &[(u16, u16)]| {
            let key = ids::key(IdKind::PortSpan, of);
            let count = of.len() as u32;
            let base = self.compiler.ids.span_of(key, count)?;
            keys.push((key, base));
            let values = of.iter().map(|&(start, class)| PortBound { start, class });
            bounds.extend((base..).zip(values));
            Ok::<_, CapacityError>(PortSpan { base, count })
        };
        let [tcp, udp, sctp] = &classes.bounds;
        let rules = &ruleset.rules;
        let uses_cidrs = rules.iter().any(|rule| !rule.blocks.is_empty());
        let uses_identities = rules
            .iter()
            .any(|rule| !rule.selectors.is_empty() || !rule.named.is_empty());
        let says_of_any = rules.iter().any(|rule| rule.any);
        let flag = |set: bool, bit: u16| if set { bit } else { 0 };
        Ok(RulesetVal {
            tcp: span(tcp)?,
            udp: span(udp)?,
            sctp: span(sctp)?,
            other_class: classes.other,
            flags: flag(uses_cidrs, ruleset_flags::CIDRS)
                | flag(says_of_any, ruleset_flags::ANY)
                | flag(uses_identities, ruleset_flags::IDENTITIES)
                | flag(ruleset.isolates, ruleset_flags::ISOLATES)
                | flag(ruleset.asks_for_unknown_pods(), ruleset_flags::UNKNOWN_PODS),
        })
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

fn describe(selecting: &Selecting) -> String {
    let keys = selecting.policies.iter().map(|policy| policy.key());
    let keys: Vec<_> = keys.map(|key| key.to_string()).collect();
    format!(
        "{} of pods that {} selects",
        selecting.direction.name(),
        keys.join(", ")
    )
}

/// The pods' named ports that rules of these policies name.
fn own_ports(like: &Like, selecting: &Selecting) -> Vec<(PortName, u16)> {
    let numbers = |name: &PortName| {
        let numbers: BTreeSet<u16> = like.named_ports(name).collect();
        let name = name.clone();
        numbers.into_iter().map(move |port| (name.clone(), port))
    };
    selecting.own_names.iter().flat_map(numbers).collect()
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
