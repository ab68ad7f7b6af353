//! NetworkPolicies.
//!
//! A part that cannot be understood is left out of its list, so that what remains allows less than
//! its author meant, never more; and a list that becomes empty stays a list, which allows nothing.

use dataplane_model::snapshot::{
    self as model, NamespaceScope, Peer, Peers, PortMatch, PortRange, Ports, Rule, Selector,
};
use ipnet::IpNet;

use super::fields::{self, Fault, Note, PortRef};
use super::{mode, model_key};
use crate::source::ObjectKey;
use crate::source::core::{IpBlock, NetworkPolicy, NetworkPolicySpec, PolicyPeer, PolicyPort};

/// A policy, and what of it could not be understood.
pub struct Converted {
    /// The policy, without the parts that could not be understood.
    pub policy: model::NetworkPolicy,
    /// What could not be understood.
    pub faults: Vec<Fault>,
}

/// A NetworkPolicy.
pub fn policy(key: &ObjectKey, policy: &NetworkPolicy, notes: &mut Vec<Note>) -> Converted {
    let spec = &policy.spec;
    let mut reader = Reader {
        faults: Vec::new(),
        notes,
    };
    let pods = reader
        .keep(fields::selector("spec.podSelector", &spec.pod_selector))
        .unwrap_or_default();
    let [ingress, egress] = reader.directions(spec);
    let rules = |reader: &mut Reader<'_>, isolates: bool, list: Vec<RawRule<'_>>| {
        isolates.then(|| list.into_iter().map(|raw| reader.rule(raw)).collect())
    };
    let ingress_rules = spec
        .ingress
        .iter()
        .enumerate()
        .map(|(index, rule)| RawRule {
            field: format!("spec.ingress[{index}]"),
            side: "from",
            peers: &rule.from,
            ports: &rule.ports,
        });
    let egress_rules = spec.egress.iter().enumerate().map(|(index, rule)| RawRule {
        field: format!("spec.egress[{index}]"),
        side: "to",
        peers: &rule.to,
        ports: &rule.ports,
    });
    let mode = mode::of(&policy.metadata, reader.notes);
    let policy = model::NetworkPolicy {
        key: model_key(key),
        pods,
        mode,
        ingress: rules(&mut reader, ingress, ingress_rules.collect()),
        egress: rules(&mut reader, egress, egress_rules.collect()),
    };
    Converted {
        policy,
        faults: reader.faults,
    }
}

struct RawRule<'a> {
    field: String,
    side: &'static str,
    peers: &'a [PolicyPeer],
    ports: &'a [PolicyPort],
}

struct Reader<'a> {
    faults: Vec<Fault>,
    notes: &'a mut Vec<Note>,
}

impl Reader<'_> {
    /// Which directions the policy isolates: as listed, else ingress, and egress if it has egress
    /// rules. A type that is not known isolates both: it was meant to isolate something.
    fn directions(&mut self, spec: &NetworkPolicySpec) -> [bool; 2] {
        let types = &spec.policy_types;
        let has_egress = !spec.egress.is_empty();
        if types.is_empty() {
            return [true, has_egress];
        }
        let mut isolates = [false; 2];
        for (index, name) in types.iter().enumerate() {
            match name.as_str() {
                "Ingress" => isolates[0] = true,
                "Egress" => isolates[1] = true,
                other => {
                    self.faults.push(Fault::new(
                        format!("spec.policyTypes[{index}]"),
                        format!("{other:?} is not a direction: write Ingress or Egress"),
                    ));
                    isolates = [true; 2];
                }
            }
        }
        let has_ingress = !spec.ingress.is_empty();
        for (used, name, field) in [
            (has_ingress && !isolates[0], "Ingress", "spec.ingress"),
            (has_egress && !isolates[1], "Egress", "spec.egress"),
        ] {
            if used {
                let message = format!("policyTypes does not list {name}");
                self.notes
                    .push(Note::new(field, message, "these rules have no effect"));
            }
        }
        isolates
    }

    fn keep<T>(&mut self, result: Result<T, Fault>) -> Option<T> {
        result.map_err(|fault| self.faults.push(fault)).ok()
    }

    fn rule(&mut self, raw: RawRule<'_>) -> Rule {
        let peers = match raw.peers {
            [] => Peers::Any,
            peers => {
                let field = |index| format!("{}.{}[{index}]", raw.field, raw.side);
                let read = peers
                    .iter()
                    .enumerate()
                    .map(|(index, peer)| self.peer(&field(index), peer));
                let read: Vec<_> = read.collect();
                Peers::Only(
                    read.into_iter()
                        .filter_map(|peer| self.keep(peer))
                        .collect(),
                )
            }
        };
        let ports = match raw.ports {
            [] => Ports::Any,
            ports => {
                let field = |index| format!("{}.ports[{index}]", raw.field);
                let read = ports
                    .iter()
                    .enumerate()
                    .map(|(index, entry)| port(&field(index), entry));
                Ports::Only(read.filter_map(|port| self.keep(port)).collect())
            }
        };
        Rule { peers, ports }
    }

    fn peer(&mut self, field: &str, peer: &PolicyPeer) -> Result<Peer, Fault> {
        let selectors = (&peer.namespace_selector, &peer.pod_selector);
        match (&peer.ip_block, selectors) {
            (Some(block), (None, None)) => self.block(field, block),
            (Some(_), _) => Err(Fault::new(
                field,
                "both ipBlock and a selector: write two entries, one for each",
            )),
            (None, (None, None)) => Err(Fault::new(
                field,
                "empty: write podSelector, namespaceSelector or ipBlock; {} as a podSelector selects all pods",
            )),
            (None, (namespaces, pods)) => {
                let namespaces = match namespaces {
                    None => NamespaceScope::Own,
                    Some(selector) => NamespaceScope::Matching(fields::selector(
                        &format!("{field}.namespaceSelector"),
                        selector,
                    )?),
                };
                let pods = match pods {
                    None => Selector::everything(),
                    Some(selector) => fields::selector(&format!("{field}.podSelector"), selector)?,
                };
                Ok(Peer::Pods { namespaces, pods })
            }
        }
    }

    fn block(&mut self, field: &str, block: &IpBlock) -> Result<Peer, Fault> {
        let cidr = self.prefix(&format!("{field}.ipBlock.cidr"), &block.cidr)?;
        let mut except = Vec::new();
        for (index, text) in block.except.iter().enumerate() {
            let field = format!("{field}.ipBlock.except[{index}]");
            let part = self.prefix(&field, text)?;
            if !cidr.contains(&part) || part == cidr {
                return Err(Fault::new(
                    field,
                    format!("{text} is not a part of {cidr}: give a smaller block inside it"),
                ));
            }
            except.push(part);
        }
        Ok(Peer::Block { cidr, except })
    }

    fn prefix(&mut self, field: &str, text: &str) -> Result<IpNet, Fault> {
        let given: IpNet = text.parse().map_err(|_| {
            let remedy = match text.parse::<std::net::IpAddr>() {
                Ok(address) if address.is_ipv4() => format!("for one address write {text}/32"),
                Ok(_) => format!("for one address write {text}/128"),
                Err(_) => "write one like 10.0.0.0/8 or fd00::/8".to_owned(),
            };
            Fault::new(
                field,
                format!("{text:?} is not a block of addresses: {remedy}"),
            )
        })?;
        let block = given.trunc();
        if block != given {
            let effect = format!("it is taken as {block}");
            self.notes.push(Note::new(
                field,
                format!("{text} has bits after its length"),
                effect,
            ));
        }
        Ok(block)
    }
}

fn port(field: &str, entry: &PolicyPort) -> Result<PortMatch, Fault> {
    let protocol = fields::protocol(&format!("{field}.protocol"), entry.protocol.as_deref())?;
    let port = entry
        .port
        .as_ref()
        .map(|port| fields::port_ref(&format!("{field}.port"), port))
        .transpose()?;
    let end_field = format!("{field}.endPort");
    let range = match (port, entry.end_port) {
        (None, None) => PortRange::All,
        (Some(PortRef::Number(number)), None) => PortRange::Numbers(number, number),
        (Some(PortRef::Name(name)), None) => PortRange::Named(name.into()),
        (Some(PortRef::Number(first)), Some(end)) => {
            let last = fields::port(&end_field, end)?;
            if last < first {
                return Err(Fault::new(
                    end_field,
                    format!("{last} is below port {first}: swap the two"),
                ));
            }
            PortRange::Numbers(first, last)
        }
        (None, Some(_)) => {
            return Err(Fault::new(
                end_field,
                "given without port: add port, the first of the range",
            ));
        }
        (Some(PortRef::Name(_)), Some(_)) => {
            return Err(Fault::new(
                end_field,
                "given with the name of a port: only numbers have ranges",
            ));
        }
    };
    Ok(PortMatch { protocol, range })
}
