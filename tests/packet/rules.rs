//! Policy as the maps have it.

use std::{collections::BTreeMap, net::IpAddr};

use dataplane_common::abi::{
    Abi, CidrKey, CidrVal, Claim, PortBound, PortSpan, RowKey, RowVal, RulesetVal, action,
    cidr_flags, name, peer, ruleset_flags,
};

use crate::world::{Host, World, addr4, addr6, identity_of};

/// A ruleset.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rules<'a> {
    /// Bounds of TCP ports and the class from each on; none: class 0.
    pub tcp: &'a [(u16, u16)],
    /// As `tcp`, of UDP.
    pub udp: &'a [(u16, u16)],
    /// As `tcp`, of SCTP.
    pub sctp: &'a [(u16, u16)],
    /// Class of what has no ports.
    pub other: u16,
    /// Peer, class and rule of what NetworkPolicies allow; the smallest rule comes first.
    pub rows: &'a [(Peer, u16, u32)],
    /// What the tiers say.
    pub tiers: &'a [Tiered],
    /// No NetworkPolicy isolates the pod.
    pub open: bool,
}

/// A rule of a tier.
#[derive(Clone, Copy, Debug)]
pub struct Tiered {
    /// Tier Admin, else Baseline.
    pub admin: bool,
    /// Whom it is about.
    pub peer: Peer,
    /// The class of ports.
    pub class: u16,
    /// Its place in the tier.
    pub place: u32,
    /// One of [`action`].
    pub action: u32,
    /// Its number.
    pub rule: u32,
}

impl Tiered {
    /// A rule of tier Admin for class 0, whose number is 100 and its place.
    pub const fn admin(place: u32, action: u32, peer: Peer) -> Self {
        Self {
            admin: true,
            peer,
            class: 0,
            place,
            action,
            rule: 100 + place,
        }
    }

    /// A rule of tier Baseline for class 0, whose number is 200 and its place.
    pub const fn baseline(place: u32, action: u32, peer: Peer) -> Self {
        Self {
            admin: false,
            rule: 200 + place,
            ..Self::admin(place, action, peer)
        }
    }
}

/// Whom a row is about.
#[derive(Clone, Copy, Debug)]
pub enum Peer {
    /// Everybody.
    Any,
    /// Those with a host's identity.
    Of(Host),
    /// Those in a set of CIDRs.
    Set(u32),
    /// Those that may be pods which nobody knows.
    Unknown,
}

impl World {
    /// Writes a ruleset; its number.
    pub fn rules(&mut self, rules: Rules<'_>) -> u32 {
        self.rulesets += 1;
        let ruleset = self.rulesets;
        let mut flags = if rules.open {
            0
        } else {
            ruleset_flags::ISOLATES
        };
        let mut rows: BTreeMap<RowKey, RowVal> = BTreeMap::new();
        let mut say = |whom: Peer, class: u16, says: RowVal| {
            let (peer, flag) = match whom {
                Peer::Any => (peer::ANY, ruleset_flags::ANY),
                Peer::Of(host) => (identity_of(host), ruleset_flags::IDENTITIES),
                Peer::Set(set) => (peer::CIDR | set, ruleset_flags::CIDRS),
                Peer::Unknown => {
                    let unknown = ruleset_flags::IDENTITIES | ruleset_flags::UNKNOWN_PODS;
                    (peer::UNKNOWN_POD, unknown)
                }
            };
            flags |= flag;
            let key = RowKey {
                ruleset,
                peer,
                class,
                reserved: 0,
            };
            rows.entry(key).or_insert(RowVal::EMPTY).join(&says);
        };
        for &(whom, class, rule) in rules.rows {
            let below = Claim::new(rule, action::ACCEPT, rule);
            say(
                whom,
                class,
                RowVal {
                    below,
                    ..RowVal::EMPTY
                },
            );
        }
        for tiered in rules.tiers {
            let claim = Claim::new(tiered.place, tiered.action, tiered.rule);
            let says = if tiered.admin {
                RowVal {
                    admin: claim,
                    ..RowVal::EMPTY
                }
            } else {
                RowVal {
                    below: claim,
                    ..RowVal::EMPTY
                }
            };
            say(tiered.peer, tiered.class, says);
        }
        for (key, says) in &rows {
            self.kernel.write(name::ROWS, key, says);
        }
        let value = RulesetVal {
            tcp: self.span(rules.tcp),
            udp: self.span(rules.udp),
            sctp: self.span(rules.sctp),
            other_class: rules.other,
            flags,
        };
        self.kernel.write_at(name::RULESETS, ruleset, &value);
        ruleset
    }

    /// A ruleset that allows peers whatever they send.
    pub fn allow(&mut self, rows: &[(Peer, u32)]) -> u32 {
        let rows: Vec<_> = rows.iter().map(|(peer, rule)| (*peer, 0, *rule)).collect();
        self.rules(Rules {
            rows: &rows,
            ..Rules::default()
        })
    }

    /// A ruleset of tiers alone, for a pod that nothing isolates.
    pub fn tiers(&mut self, tiers: &[Tiered]) -> u32 {
        self.rules(Rules {
            tiers,
            open: true,
            ..Rules::default()
        })
    }

    /// Isolates a pod for what it receives.
    pub fn isolate_ingress(&mut self, pod: Host, ruleset: u32) {
        self.change_pod(pod, |subject| subject.ingress = ruleset);
    }

    /// Isolates a pod for what it sends.
    pub fn isolate_egress(&mut self, pod: Host, ruleset: u32) {
        self.change_pod(pod, |subject| subject.egress = ruleset);
    }

    /// Says which set of CIDRs a prefix is of.
    pub fn cidr(&mut self, prefix: IpAddr, bits: u32, set: u32) {
        self.prefix(name::CIDRS, 0, prefix, bits, &CidrVal { set, flags: 0 });
    }

    /// Says that pods have addresses within a prefix.
    pub fn pod_range(&mut self, prefix: IpAddr, bits: u32) {
        let flags = cidr_flags::PODS;
        self.prefix(name::CIDRS, 0, prefix, bits, &CidrVal { set: 0, flags });
    }

    /// Allows a source set a prefix of a host's address.
    pub fn source_range(&mut self, set: u32, host: Host, bits: u32) {
        let addr = self.ip(host);
        self.prefix(name::SOURCE_RANGES, set, addr, bits, &1u32);
    }

    fn prefix(&self, map: [&'static str; 2], set: u32, addr: IpAddr, bits: u32, value: &impl Abi) {
        let map = self.of(map);
        match addr {
            IpAddr::V4(_) => {
                let key = CidrKey::of_source_set(set, addr4(addr), bits);
                self.kernel.write(map, &key, value);
            }
            IpAddr::V6(_) => {
                let key = CidrKey::of_source_set(set, addr6(addr), bits);
                self.kernel.write(map, &key, value);
            }
        }
    }

    fn span(&mut self, bounds: &[(u16, u16)]) -> PortSpan {
        let bounds = if bounds.is_empty() { &[(0, 0)] } else { bounds };
        let base = self.bounds;
        for (index, (start, class)) in (base..).zip(bounds) {
            let bound = PortBound {
                start: *start,
                class: *class,
            };
            self.kernel.write_at(name::PORT_BOUNDS, index, &bound);
        }
        self.bounds += bounds.len() as u32;
        PortSpan {
            base,
            count: bounds.len() as u32,
        }
    }
}
