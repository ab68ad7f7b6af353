//! Policy as the maps have it.

use std::net::IpAddr;

use dataplane_common::abi::{
    Abi, CidrKey, CidrVal, PortBound, PortSpan, RowKey, RowVal, RulesetVal, name, peer, row_flags,
    ruleset_flags,
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
    /// Peer, class and rule of what is allowed.
    pub rows: &'a [(Peer, u16, u32)],
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
}

impl World {
    /// Writes a ruleset; its number.
    pub fn rules(&mut self, rules: Rules<'_>) -> u32 {
        self.rulesets += 1;
        let ruleset = self.rulesets;
        let mut flags = 0;
        for (whom, class, rule) in rules.rows {
            let peer = match whom {
                Peer::Any => peer::ANY,
                Peer::Of(host) => {
                    flags |= ruleset_flags::IDENTITIES;
                    identity_of(*host)
                }
                Peer::Set(set) => {
                    flags |= ruleset_flags::CIDRS;
                    peer::CIDR | set
                }
            };
            let key = RowKey {
                ruleset,
                peer,
                class: *class,
                reserved: 0,
            };
            self.kernel.write(
                name::ROWS,
                &key,
                &RowVal {
                    rule: *rule,
                    flags: row_flags::ALLOW,
                },
            );
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
        self.prefix(name::CIDRS, 0, prefix, bits, &CidrVal { set });
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
