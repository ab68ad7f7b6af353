//! EndpointSlices.

use std::net::IpAddr;

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

/// An endpoint of a slice.
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
    /// `nodeName`.
    pub node: Option<Text>,
    /// The pod that `targetRef` names.
    pub pod: Option<ObjectKey>,
}
