//! EndpointSlices.

use std::fmt;
use std::sync::Arc;

use dataplane_model::snapshot::{self as model, Endpoint, Place, SlicePort, Text};

use super::fields::{self, Fault, Note};
use super::model_key;
use super::shared::{Common, Shared};
use crate::source::ObjectKey;
use crate::source::core::{self, SERVICE_NAME_LABEL};

/// Label of the slices of headless Services.
const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";

/// An EndpointSlice; `None` if it belongs to no Service that is served.
pub fn endpoint_slice(
    key: &ObjectKey,
    slice: &core::EndpointSlice,
    common: &mut Common,
    notes: &mut Vec<Note>,
) -> Result<Option<model::EndpointSlice>, Fault> {
    let label = |name: &str| slice.metadata.labels.get(name);
    if label(HEADLESS_LABEL).is_some() {
        return Ok(None);
    }
    let Some(service) = label(SERVICE_NAME_LABEL).filter(|name| !name.is_empty()) else {
        notes.push(Note::new(
            format!("metadata.labels[{SERVICE_NAME_LABEL}]"),
            "missing: it names the Service that the endpoints serve",
            "the endpoints serve none",
        ));
        return Ok(None);
    };
    let ipv4 = match slice.address_type.as_str() {
        "IPv4" => true,
        "IPv6" => false,
        "FQDN" => {
            notes.push(Note::unsupported("addressType FQDN"));
            return Ok(None);
        }
        other => {
            return Err(Fault::new(
                "addressType",
                format!("{other:?} is not an address type: write IPv4 or IPv6"),
            ));
        }
    };
    let mut endpoints = Vec::with_capacity(slice.endpoints.len());
    for (index, endpoint) in slice.endpoints.iter().enumerate() {
        match self::endpoint(index, endpoint, ipv4, &mut common.places) {
            Ok(endpoint) => endpoints.push(endpoint),
            Err(Fault { field, message }) => {
                notes.push(Note::new(field, message, "the other endpoints serve"));
            }
        }
    }
    Ok(Some(model::EndpointSlice {
        key: model_key(key),
        service: model::ObjectKey::new(key.namespace.as_str(), service.as_str()),
        ports: slice_ports(slice, &mut common.names, notes),
        endpoints,
    }))
}

/// The ports that have a number: without one, a port cannot be forwarded to.
fn slice_ports(
    slice: &core::EndpointSlice,
    names: &mut Shared<str>,
    notes: &mut Vec<Note>,
) -> Vec<SlicePort> {
    let mut ports = Vec::with_capacity(slice.ports.len());
    for (index, port) in slice.ports.iter().enumerate() {
        match slice_port(&format!("ports[{index}]"), port, names) {
            Ok(port) => ports.extend(port),
            Err(Fault { field, message }) => {
                notes.push(Note::new(field, message, "the other ports are served"));
            }
        }
    }
    ports
}

fn slice_port(
    field: &str,
    port: &core::EndpointPort,
    names: &mut Shared<str>,
) -> Result<Option<SlicePort>, Fault> {
    let Some(number) = port.port.filter(|&number| number != 0) else {
        return Ok(None);
    };
    Ok(Some(SlicePort {
        name: names.of(port.name.as_deref().unwrap_or_default()),
        protocol: fields::protocol(&format!("{field}.protocol"), port.protocol.as_deref())?,
        port: fields::port(&format!("{field}.port"), number)?,
    }))
}

fn endpoint(
    index: usize,
    endpoint: &core::Endpoint,
    ipv4: bool,
    places: &mut Shared<Place>,
) -> Result<Endpoint, Fault> {
    // Made into text only if there is something to say.
    let field = fmt::from_fn(|f| write!(f, "endpoints[{index}].addresses[0]"));
    let missing = || Fault::new(field.to_string(), "missing: an endpoint needs an address");
    let text = endpoint.addresses.first().ok_or_else(missing)?;
    let address = fields::address(&field, text)?;
    if address.is_ipv4() != ipv4 {
        return Err(Fault::new(
            field.to_string(),
            format!(
                "{text} is not of the slice's addressType: move it to a slice of its own family"
            ),
        ));
    }
    let conditions = &endpoint.conditions;
    Ok(Endpoint {
        address,
        ready: conditions.ready.unwrap_or(true),
        serving: conditions.serving.unwrap_or(true),
        terminating: conditions.terminating.unwrap_or(false),
        place: place(endpoint, places),
    })
}

/// The place that an endpoint names; `None` if it says nothing.
fn place(endpoint: &core::Endpoint, places: &mut Shared<Place>) -> Option<Arc<Place>> {
    let names = |hints: &[core::Hint]| hints.iter().map(|hint| Text::from(&*hint.name)).collect();
    let place = Place {
        node: endpoint.node_name.as_deref().map(Into::into),
        zones: names(&endpoint.hints.for_zones),
        nodes: names(&endpoint.hints.for_nodes),
    };
    (place != Place::default()).then(|| places.of(place))
}
