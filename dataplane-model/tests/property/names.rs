//! Tables with every number replaced by what it stands for: equal for equal clusters, whatever numbers
//! their histories led to.

use std::collections::BTreeMap;
use std::fmt::Debug;

use dataplane_common::abi::{BackendVal, Claim, IdKey, PortSpan, Subject, peer};
use dataplane_model::ids::IdKind;
use dataplane_model::tables::{Family, Tables};

/// One line for each entry, but for generations.
pub fn by_name(tables: &Tables) -> BTreeMap<String, String> {
    let mut names = Names {
        tables,
        keys: BTreeMap::new(),
        lines: BTreeMap::new(),
    };
    for (key, val) in &tables.ids {
        names.keys.insert((key.kind, val.id), *key);
        names.add(("id", key), val.count);
    }
    names.family::<dataplane_common::abi::Addr4>();
    names.family::<dataplane_common::abi::Addr6>();
    names.subjects();
    names.policy();
    names.lines
}

struct Names<'a> {
    tables: &'a Tables,
    keys: BTreeMap<(u32, u32), IdKey>,
    lines: BTreeMap<String, String>,
}

impl Names<'_> {
    fn add(&mut self, key: impl Debug, value: impl Debug) {
        let clash = self.lines.insert(format!("{key:?}"), format!("{value:?}"));
        assert_eq!(clash, None, "{key:?} is there twice");
    }

    fn name(&self, kind: IdKind, id: u32) -> Option<IdKey> {
        if id == 0 {
            return None;
        }
        let key = self.keys.get(&(kind as u32, id));
        Some(*key.unwrap_or_else(|| panic!("{kind:?} {id} is used and has no entry")))
    }

    fn block<A: Family>(&self, base: u32, count: u16) -> Vec<BackendVal<A>> {
        let slots = (base..base + u32::from(count)).map(|place| self.tables.slots[&place].backend);
        let backends = &A::tables(self.tables).backends;
        slots
            .map(|index| BackendVal {
                service_port: 0,
                generation: 0,
                ..backends[&index]
            })
            .collect()
    }

    fn family<A: Family>(&mut self) {
        let tables = A::tables(self.tables);
        for (key, val) in &tables.services {
            let classes = val.class_base..val.class_base + u32::from(val.classes);
            let classes: Vec<_> = classes.map(|place| self.tables.classes[&place]).collect();
            let classes: Vec<_> = classes
                .iter()
                .map(|class| (class.threshold, self.block::<A>(class.base, class.count)))
                .collect();
            let numbers = (
                self.name(IdKind::Frontend, val.frontend),
                self.name(IdKind::ServicePort, val.service_port),
            );
            let rest = (val.affinity_secs, val.source_set, val.flags);
            self.add(
                ("service", key),
                (numbers, self.block::<A>(val.base, val.count), classes, rest),
            );
        }
        for val in tables.backends.values() {
            let owner = self.name(IdKind::ServicePort, val.service_port);
            self.add(("backend", owner, val.addr, val.port), val.flags);
            assert_eq!(
                val.generation % 2,
                1,
                "a filled place has an odd generation"
            );
        }
        for (addr, val) in &tables.identities {
            self.add(
                ("identity", addr),
                (
                    self.name(IdKind::Identity, val.identity),
                    val.ifindex,
                    val.flags,
                ),
            );
        }
        for (key, val) in &tables.cidrs {
            let set = self.name(IdKind::CidrSet, val.set);
            self.add(("cidr", key), (set, val.flags));
        }
    }

    fn subjects(&mut self) {
        for (map, table) in [
            ("subject", &self.tables.subjects),
            ("overflow", &self.tables.subjects_overflow),
        ] {
            for (place, subject) in table {
                let numbers = (
                    self.name(IdKind::Identity, subject.identity),
                    self.name(IdKind::Ruleset, subject.ingress),
                    self.name(IdKind::Ruleset, subject.egress),
                    self.name(IdKind::Ruleset, subject.audited_ingress),
                    self.name(IdKind::Ruleset, subject.audited_egress),
                );
                let rest = Subject {
                    identity: 0,
                    ingress: 0,
                    egress: 0,
                    audited_ingress: 0,
                    audited_egress: 0,
                    ..*subject
                };
                self.add((map, place), (numbers, rest));
            }
        }
    }

    fn policy(&mut self) {
        for (&number, val) in &self.tables.rulesets {
            let bounds = |span: PortSpan| -> Vec<_> {
                (span.base..span.base + span.count)
                    .map(|place| self.tables.port_bounds[&place])
                    .collect()
            };
            let spans = [val.tcp, val.udp, val.sctp].map(bounds);
            self.add(
                ("ruleset", self.name(IdKind::Ruleset, number)),
                (spans, val.other_class, val.flags),
            );
        }
        for (key, val) in &self.tables.rows {
            let peer = if key.peer & peer::CIDR != 0 {
                self.name(IdKind::CidrSet, key.peer & !peer::CIDR)
            } else if key.peer >= peer::IDENTITIES {
                None
            } else {
                self.name(IdKind::Identity, key.peer)
            };
            let unknown =
                (key.peer & peer::CIDR == 0 && key.peer >= peer::IDENTITIES).then_some(key.peer);
            let claim = |claim: Claim| {
                let rule = self.name(IdKind::Rule, claim.rule);
                assert_eq!(rule.is_some(), claim != Claim::NONE);
                (claim.order, rule)
            };
            let says = (claim(val.admin), claim(val.below));
            self.add(
                (
                    "row",
                    self.name(IdKind::Ruleset, key.ruleset),
                    (peer, unknown),
                    key.class,
                ),
                says,
            );
        }
    }
}
