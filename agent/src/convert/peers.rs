//! Peers and ports of the rules of tiers.

use dataplane_model::snapshot::{
    Direction, DomainPattern, NamespaceScope, Peer, PortMatch, PortRange, Protocol, RuleAction,
    Selector,
};
use ipnet::IpNet;
use serde::Deserialize;
use serde_json::Value;

use super::fields::{self, Fault};
use super::tiers::{ExactSelector, Pods, read};

/// A peer: one of these fields.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct RawPeer {
    namespaces: Option<ExactSelector>,
    pods: Option<Pods>,
    nodes: Option<ExactSelector>,
    networks: Option<Vec<String>>,
    domain_names: Option<Vec<String>>,
}

/// The model's peers for a peer.
///
/// # Errors
///
/// It is not a peer that a rule of this direction and action can have, as far as is known.
pub(super) fn peers(
    direction: Direction,
    action: RuleAction,
    field: &str,
    value: &Value,
) -> Result<Vec<Peer>, Fault> {
    let raw: RawPeer = read(field, value)?;
    let egress = direction == Direction::Egress;
    match raw {
        RawPeer {
            namespaces: Some(selector),
            pods: None,
            nodes: None,
            networks: None,
            domain_names: None,
        } => {
            let namespaces = selector.selector(&format!("{field}.namespaces"))?;
            Ok(vec![of_pods(namespaces, Selector::everything())])
        }
        RawPeer {
            namespaces: None,
            pods: Some(pods),
            nodes: None,
            networks: None,
            domain_names: None,
        } => {
            let (namespaces, pods) = pods.selectors(&format!("{field}.pods"))?;
            Ok(vec![of_pods(namespaces, pods)])
        }
        RawPeer {
            namespaces: None,
            pods: None,
            nodes: Some(selector),
            networks: None,
            domain_names: None,
        } if egress => {
            let nodes = selector.selector(&format!("{field}.nodes"))?;
            Ok(vec![Peer::Nodes(nodes)])
        }
        RawPeer {
            namespaces: None,
            pods: None,
            nodes: None,
            networks: Some(networks),
            domain_names: None,
        } if egress => {
            let blocks = networks.iter().enumerate();
            let block = |(index, text): (usize, &String)| {
                network(&format!("{field}.networks[{index}]"), text)
            };
            blocks.map(block).collect()
        }
        RawPeer {
            namespaces: None,
            pods: None,
            nodes: None,
            networks: None,
            domain_names: Some(names),
        } if egress && action == RuleAction::Accept => {
            let names = names.iter().enumerate();
            let domain = |(index, text): (usize, &String)| {
                domain(&format!("{field}.domainNames[{index}]"), text)
            };
            names.map(domain).collect()
        }
        _ => Err(Fault::new(
            field,
            "not one peer of a known kind: write namespaces or pods; for egress also nodes or networks, and to accept, domainNames",
        )),
    }
}

fn of_pods(namespaces: Selector, pods: Selector) -> Peer {
    Peer::Pods {
        namespaces: NamespaceScope::Matching(namespaces),
        pods,
    }
}

fn domain(field: &str, text: &str) -> Result<Peer, Fault> {
    let pattern = DomainPattern::parse(text).ok_or_else(|| {
        Fault::new(
            field,
            format!("{text:?} is not a domain name: write one like example.com or *.example.com"),
        )
    })?;
    Ok(Peer::Domain(pattern))
}

fn network(field: &str, text: &str) -> Result<Peer, Fault> {
    let cidr: IpNet = text.parse().map_err(|_| {
        Fault::new(
            field,
            format!("{text:?} is not a block of addresses: write one like 10.0.0.0/8 or fd00::/8"),
        )
    })?;
    Ok(Peer::Block {
        cidr: cidr.trunc(),
        except: Vec::new(),
    })
}

/// A protocol of a ClusterNetworkPolicy: one of these fields.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct RawProtocol {
    tcp: Option<RawPorts>,
    udp: Option<RawPorts>,
    sctp: Option<RawPorts>,
    destination_named_port: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct RawPorts {
    destination_port: Option<RawPort>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct RawPort {
    number: Option<i64>,
    range: Option<RawRange>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRange {
    start: i64,
    end: i64,
}

/// What an entry of `protocols` matches.
///
/// # Errors
///
/// It is not one protocol, or one name, of a known kind.
pub(super) fn protocol(field: &str, value: &Value) -> Result<Vec<PortMatch>, Fault> {
    let (protocol, name, ports) = match read(field, value)? {
        RawProtocol {
            tcp: Some(ports),
            udp: None,
            sctp: None,
            destination_named_port: None,
        } => (Protocol::Tcp, "tcp", ports),
        RawProtocol {
            tcp: None,
            udp: Some(ports),
            sctp: None,
            destination_named_port: None,
        } => (Protocol::Udp, "udp", ports),
        RawProtocol {
            tcp: None,
            udp: None,
            sctp: Some(ports),
            destination_named_port: None,
        } => (Protocol::Sctp, "sctp", ports),
        RawProtocol {
            tcp: None,
            udp: None,
            sctp: None,
            destination_named_port: Some(name),
        } => return named(&format!("{field}.destinationNamedPort"), &name),
        RawProtocol { .. } => {
            return Err(Fault::new(
                field,
                "write one of tcp, udp, sctp and destinationNamedPort",
            ));
        }
    };
    let field = format!("{field}.{name}.destinationPort");
    let range = match ports.destination_port {
        None => PortRange::All,
        Some(RawPort {
            number: Some(number),
            range: None,
        }) => {
            let number = fields::port(&format!("{field}.number"), number)?;
            PortRange::Numbers(number, number)
        }
        Some(RawPort {
            number: None,
            range: Some(RawRange { start, end }),
        }) => numbers(&format!("{field}.range"), start, end)?,
        Some(RawPort { .. }) => return Err(Fault::new(field, "write either number or range")),
    };
    Ok(vec![PortMatch { protocol, range }])
}

/// A port of an AdminNetworkPolicy: one of these fields.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct RawAdminPort {
    port_number: Option<RawPortNumber>,
    port_range: Option<RawPortRange>,
    named_port: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPortNumber {
    protocol: Option<String>,
    port: i64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPortRange {
    protocol: Option<String>,
    start: i64,
    end: i64,
}

/// What an entry of `ports` matches.
///
/// # Errors
///
/// It is not one port, range or name.
pub(super) fn port(field: &str, value: &Value) -> Result<Vec<PortMatch>, Fault> {
    match read(field, value)? {
        RawAdminPort {
            port_number: Some(RawPortNumber { protocol, port }),
            port_range: None,
            named_port: None,
        } => {
            let field = format!("{field}.portNumber");
            let number = fields::port(&format!("{field}.port"), port)?;
            let protocol = fields::protocol(&format!("{field}.protocol"), protocol.as_deref())?;
            let range = PortRange::Numbers(number, number);
            Ok(vec![PortMatch { protocol, range }])
        }
        RawAdminPort {
            port_number: None,
            port_range:
                Some(RawPortRange {
                    protocol,
                    start,
                    end,
                }),
            named_port: None,
        } => {
            let field = format!("{field}.portRange");
            let protocol = fields::protocol(&format!("{field}.protocol"), protocol.as_deref())?;
            let range = numbers(&field, start, end)?;
            Ok(vec![PortMatch { protocol, range }])
        }
        RawAdminPort {
            port_number: None,
            port_range: None,
            named_port: Some(name),
        } => named(&format!("{field}.namedPort"), &name),
        RawAdminPort { .. } => Err(Fault::new(
            field,
            "write one of portNumber, portRange and namedPort",
        )),
    }
}

fn numbers(field: &str, start: i64, end: i64) -> Result<PortRange, Fault> {
    let first = fields::port(&format!("{field}.start"), start)?;
    let last = fields::port(&format!("{field}.end"), end)?;
    if last < first {
        return Err(Fault::new(
            field,
            format!("{last} is below {first}: swap the two"),
        ));
    }
    Ok(PortRange::Numbers(first, last))
}

/// A container port by its name, whatever its protocol is.
fn named(field: &str, name: &str) -> Result<Vec<PortMatch>, Fault> {
    fields::port_name(field, name)?;
    let of = |protocol| PortMatch {
        protocol,
        range: PortRange::Named(name.into()),
    };
    Ok(Protocol::ALL.into_iter().map(of).collect())
}
