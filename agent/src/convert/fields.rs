//! Fields that several kinds share.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use dataplane_model::snapshot::{Labels, Operator, Protocol, Requirement, Selector};

use crate::source::schema::{IntOrString, LabelSelector, ObjectMeta};

/// What is wrong with an object: which field, and what would cure it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, thiserror::Error)]
#[error("{field}: {message}")]
pub struct Fault {
    /// The field's path, as in `spec.ports[0].port`.
    pub field: String,
    /// What is wrong with it and what would cure it.
    pub message: String,
}

impl Fault {
    /// A fault of a field.
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            message: message.into(),
        }
    }
}

/// Something that is read and has no effect, or another one than its author may expect.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Note {
    /// The field's path.
    pub field: String,
    /// What is to be known about it.
    pub message: String,
    /// What holds instead.
    pub effect: String,
}

impl Note {
    /// A note about a field.
    pub fn new(
        field: impl Into<String>,
        message: impl Into<String>,
        effect: impl Into<String>,
    ) -> Self {
        Self {
            field: field.into(),
            message: message.into(),
            effect: effect.into(),
        }
    }

    /// A field that is not supported yet and has no effect.
    pub fn unsupported(field: impl Into<String>) -> Self {
        Self::new(field, "not supported yet", "it has no effect")
    }
}

/// An address that pods and Services may have.
pub fn address(field: impl fmt::Display, text: &str) -> Result<IpAddr, Fault> {
    let address: IpAddr = text.parse().map_err(|_| {
        Fault::new(
            field.to_string(),
            format!("{text:?} is not an IP address: write one like 10.0.0.1 or fd00::1"),
        )
    })?;
    let mapped = matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some());
    let kind = if address.is_unspecified() {
        "the unspecified address"
    } else if address.is_loopback() {
        "a loopback address"
    } else if address.is_multicast() {
        "a multicast address"
    } else if mapped {
        "an IPv4-mapped address"
    } else {
        return Ok(address);
    };
    Err(Fault::new(
        field.to_string(),
        format!("{text} is {kind}: give one that can be reached"),
    ))
}

/// A port number.
pub fn port(field: &str, number: impl Into<i64>) -> Result<u16, Fault> {
    let number = number.into();
    u16::try_from(number)
        .ok()
        .filter(|&port| port != 0)
        .ok_or_else(|| {
            Fault::new(
                field,
                format!("{number} is not a port: give one from 1 to 65535"),
            )
        })
}

/// A protocol; the API's default is TCP.
pub fn protocol(field: &str, name: Option<&str>) -> Result<Protocol, Fault> {
    let Some(name) = name else {
        return Ok(Protocol::Tcp);
    };
    Protocol::ALL
        .into_iter()
        .find(|protocol| protocol.name() == name)
        .ok_or_else(|| {
            Fault::new(
                field,
                format!("{name:?} is not a protocol: write TCP, UDP or SCTP"),
            )
        })
}

/// The name of a container port (RFC 6335 section 5.1).
pub fn port_name(field: &str, name: &str) -> Result<(), Fault> {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let letter = |byte: u8| byte.is_ascii_lowercase();
    if name.len() <= 15 && name.bytes().all(allowed) && name.bytes().any(letter) {
        return Ok(());
    }
    let remedy = if name.parse::<u16>().is_ok() {
        "write the number without quotes"
    } else {
        "use at most 15 of a-z, 0-9 and '-', with a letter"
    };
    Err(Fault::new(
        field,
        format!("{name:?} is not the name of a port: {remedy}"),
    ))
}

/// A number or a name of a port.
pub enum PortRef {
    /// A number.
    Number(u16),
    /// The name of a container port.
    Name(String),
}

/// A `targetPort`, or the port of a policy.
pub fn port_ref(field: &str, value: &IntOrString) -> Result<PortRef, Fault> {
    match value {
        IntOrString::Int(number) => port(field, *number).map(PortRef::Number),
        IntOrString::String(name) => port_name(field, name).map(|()| PortRef::Name(name.clone())),
    }
}

/// Labels.
pub fn labels(labels: &BTreeMap<String, String>) -> Labels {
    labels
        .iter()
        .map(|(key, value)| (key.as_str().into(), value.as_str().into()))
        .collect()
}

/// A label selector. An absent one is the caller's to judge.
pub fn selector(field: &str, selector: &LabelSelector) -> Result<Selector, Fault> {
    let expressions = selector.match_expressions.iter().enumerate();
    let requirements: Vec<Requirement> = expressions
        .map(|(index, expression)| {
            let field = format!("{field}.matchExpressions[{index}]");
            let values = expression.values.iter();
            let values: BTreeSet<_> = values.map(|value| value.as_str().into()).collect();
            let listed = !values.is_empty();
            let operator = match expression.operator.as_str() {
                "In" if listed => Operator::In(values),
                "NotIn" if listed => Operator::NotIn(values),
                "Exists" if !listed => Operator::Exists,
                "DoesNotExist" if !listed => Operator::DoesNotExist,
                "In" | "NotIn" => {
                    return Err(Fault::new(
                        format!("{field}.values"),
                        "empty: In and NotIn need at least one value",
                    ));
                }
                "Exists" | "DoesNotExist" => {
                    return Err(Fault::new(
                        format!("{field}.values"),
                        "not empty: Exists and DoesNotExist take no values",
                    ));
                }
                other => {
                    return Err(Fault::new(
                        format!("{field}.operator"),
                        format!(
                            "{other:?} is not an operator: write In, NotIn, Exists or DoesNotExist"
                        ),
                    ));
                }
            };
            Ok(Requirement {
                key: expression.key.as_str().into(),
                operator,
            })
        })
        .collect::<Result<_, Fault>>()?;
    Ok(Selector::new(&labels(&selector.match_labels), requirements))
}

/// `metadata.creationTimestamp` in seconds since the epoch.
///
/// # Errors
///
/// It is not a time.
pub fn created(metadata: &ObjectMeta) -> Result<Option<i64>, Fault> {
    let Some(text) = &metadata.creation_timestamp else {
        return Ok(None);
    };
    let time: jiff::Timestamp = text.parse().map_err(|_| {
        Fault::new(
            "metadata.creationTimestamp",
            format!("{text:?} is not a time: write one like 2026-01-31T08:00:00Z"),
        )
    })?;
    Ok(Some(time.as_second()))
}
