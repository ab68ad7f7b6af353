//! EndpointSlices.

use std::net::IpAddr;
use std::sync::Arc;

use super::{ObjectKey, Protocol, Text};

/// An EndpointSlice of address type IPv4 or IPv6 that names its Service.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EndpointSlice {
    /// Namespace and name.
    pub key: ObjectKey,
    /// The Service, by label `kubernetes.io/service-name` and the slice's namespace.
    pub service: ObjectKey,
    /// Ports; each endpoint has all of them.
    pub ports: Vec<SlicePort>,
    /// Endpoints.
    pub endpoints: Vec<Endpoint>,
}

/// A port of a slice.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SlicePort {
    /// The Service port's name; empty for the only port.
    pub name: Text,
    /// Protocol.
    pub protocol: Protocol,
    /// The endpoints' port.
    pub port: u16,
}

/// An endpoint of a slice. A cluster may have a million of them, so what many share is apart; the pod is
/// the one that has the address.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Endpoint {
    /// Its first address: the API lets consumers ignore the others.
    pub address: IpAddr,
    /// Condition `ready`; true if unset.
    pub ready: bool,
    /// Condition `serving`; if unset, `ready`.
    pub serving: bool,
    /// Condition `terminating`; false if unset.
    pub terminating: bool,
    /// Where it is, shared by the endpoints of which the same is said; `None` if nothing is.
    pub place: Option<Arc<Place>>,
}

/// Where an endpoint is, and for whom.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Place {
    /// `nodeName`.
    pub node: Option<Text>,
    /// `hints.forZones`: its clients are preferably in these zones.
    pub zones: Box<[Text]>,
    /// `hints.forNodes`: its clients are preferably on these nodes.
    pub nodes: Box<[Text]>,
}

impl Place {
    /// On a node, for everyone.
    pub fn on(node: impl Into<Text>) -> Self {
        Self {
            node: Some(node.into()),
            ..Self::default()
        }
    }
}

impl Endpoint {
    /// `nodeName`.
    pub fn node(&self) -> Option<&Text> {
        self.place.as_ref()?.node.as_ref()
    }

    /// `hints.forZones`.
    pub fn zones(&self) -> &[Text] {
        self.place.as_ref().map_or(&[], |place| &place.zones)
    }

    /// `hints.forNodes`.
    pub fn nodes(&self) -> &[Text] {
        self.place.as_ref().map_or(&[], |place| &place.nodes)
    }
}

const _: () = assert!(size_of::<Endpoint>() <= 32);
