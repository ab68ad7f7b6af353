//! Backends that a change removes while sockets of the host may still be connected to
//! them.

use std::collections::BTreeSet;
use std::net::SocketAddr;

/// A backend that is gone, and whose sockets are to end: those for datagrams always, since they would
/// go on sending to nobody; those of TCP if the Service asks for it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Gone {
    /// Address and port.
    pub backend: SocketAddr,
    /// IP protocol number: TCP or UDP.
    pub protocol: u8,
    /// Numbers of the frontends that led to it. A socket that came by another one stays.
    pub frontends: BTreeSet<u32>,
}
