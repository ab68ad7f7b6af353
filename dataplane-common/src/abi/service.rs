//! Services: frontends, blocks of backends, weighted classes, affinity, translated sockets.

use super::{Addr4, Addr6, Port, abi};

/// A frontend: an address and port that a client dials. Port 0 and protocol 0, with a value without
/// backends, stand for the ports of a cluster address that no Service defines.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct ServiceKey<A> {
    /// The address.
    pub addr: A,
    /// The port.
    pub port: Port,
    /// IP protocol number.
    pub proto: u8,
    /// [`scope`].
    pub scope: u8,
    /// Explicit padding.
    pub reserved: u32,
}

/// Where a client stands ([`ServiceKey::scope`]). Traffic policies differ by it, so a frontend that
/// both kinds of client may use has two entries.
pub mod scope {
    /// Pods and processes of this node.
    pub const INTERNAL: u8 = 0;
    /// Clients whose packets come by an uplink.
    pub const EXTERNAL: u8 = 1;
    /// Sockets of this node, at its loopback address. Packets never have this scope: nobody else
    /// reaches what listens there (CVE-2020-8558).
    pub const LOOPBACK: u8 = 2;

    /// The scope's name.
    pub const fn name(scope: u8) -> &'static str {
        match scope {
            INTERNAL => "internal",
            EXTERNAL => "external",
            LOOPBACK => "loopback",
            _ => "unknown",
        }
    }
}

/// A frontend's value: which block of backends serves it.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct ServiceVal {
    /// The frontend's number (revnat), never 0.
    pub frontend: u32,
    /// The Service port's number, never 0; its frontends share it, and with it their affinity.
    pub service_port: u32,
    /// First place of the block in `slots`.
    pub base: u32,
    /// First class in `classes`.
    pub class_base: u32,
    /// Seconds of client affinity; 0 for none.
    pub affinity_secs: u32,
    /// The set of source ranges that a client must be in; 0 for no such limit.
    pub source_set: u32,
    /// Backends in the block, those of this node first.
    pub count: u16,
    /// Weighted classes; 0 for a frontend without a route.
    pub classes: u16,
    /// [`service_flags`].
    pub flags: u16,
    /// Explicit padding.
    pub reserved: u16,
}

/// Bits of [`ServiceVal::flags`].
pub mod service_flags {
    /// No backend may be used, and packets are dropped instead of refused (a `Local` traffic
    /// policy without a local backend).
    pub const DROP_IF_EMPTY: u16 = 1;
    /// The source is translated when the backend is not on this node (external clients).
    pub const SNAT_REMOTE: u16 = 1 << 1;
    /// The frontend's address is one of this node's own: a packet from it never enters the stack.
    pub const NODE_ADDRESS: u16 = 1 << 2;
    /// The source is translated wherever the backend is (kube-proxy's `masqueradeAll`).
    pub const SNAT_ALWAYS: u16 = 1 << 3;
    /// A TCP flow whose backend is gone is reset by its next packet.
    pub const RESET_ON_REMOVED: u16 = 1 << 4;
    /// Only clients in [`ServiceVal::source_set`](super::ServiceVal::source_set) are served; without
    /// a set, none is.
    pub const SOURCE_RANGES: u16 = 1 << 5;
}

/// Most classes that a route has.
pub const MAX_CLASSES: usize = 16;

/// A weighted class: backends that share a route's weight.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct ClassVal {
    /// The class is taken for draws below this and not below the one before; the last class has
    /// `u32::MAX`, and a draw of `u32::MAX` belongs to it too.
    pub threshold: u32,
    /// First place of the class's block in `slots`.
    pub base: u32,
    /// Backends in the block; none: this share of connections is refused.
    pub count: u16,
    /// Explicit padding.
    pub reserved: u16,
}

/// A place in a block.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct SlotVal {
    /// Index of the backend.
    pub backend: u32,
}

/// A backend of one Service port: an endpoint's address and port. Its index is stable while it
/// lives, whatever happens to other endpoints.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct BackendVal<A> {
    /// The address.
    pub addr: A,
    /// The Service port it belongs to; 0 marks an empty place.
    pub service_port: u32,
    /// Changes each time the place is filled or emptied.
    pub generation: u32,
    /// The port.
    pub port: Port,
    /// [`backend_flags`].
    pub flags: u16,
    /// Explicit padding.
    pub reserved: u32,
}

/// Bits of [`BackendVal::flags`].
pub mod backend_flags {
    /// On this node.
    pub const LOCAL: u16 = 1;
    /// Terminating: it serves only until it goes.
    pub const TERMINATING: u16 = 1 << 1;
}

/// Whom an affinity is for.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct AffinityKey<A> {
    /// The client; unspecified for all processes of the host.
    pub client: A,
    /// The Service port.
    pub service_port: u32,
    /// Explicit padding.
    pub reserved: u32,
}

/// The backend a client is pinned to.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct AffinityVal {
    /// Index of the backend.
    pub backend: u32,
    /// Its generation: another one means that it is gone.
    pub generation: u32,
    /// Low 32 bits of jiffies at the last new connection.
    pub last_used: u32,
    /// Its place in its frontend's block when it was last looked up: a hint.
    pub at: u32,
}

/// A socket's translated peer.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct SockRevKey<A> {
    /// The socket's cookie, its low half first: as one word it would ask for padding after an IPv4
    /// address.
    pub cookie: [u32; 2],
    /// The backend.
    pub addr: A,
    /// The backend's port.
    pub port: Port,
    /// IP protocol number.
    pub proto: u16,
    /// Explicit padding.
    pub reserved: u32,
}

/// The frontend that a socket dialled.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct SockRevVal<A> {
    /// The frontend's address.
    pub addr: A,
    /// The frontend's number.
    pub frontend: u32,
    /// The frontend's port.
    pub port: Port,
    /// Explicit padding.
    pub reserved: u16,
}

abi! {
    ServiceKey<Addr4> = 12,
    ServiceKey<Addr6> = 24,
    ServiceVal = 32,
    ClassVal = 12,
    SlotVal = 4,
    BackendVal<Addr4> = 20,
    BackendVal<Addr6> = 32,
    AffinityKey<Addr4> = 12,
    AffinityKey<Addr6> = 24,
    AffinityVal = 16,
    SockRevKey<Addr4> = 20,
    SockRevKey<Addr6> = 32,
    SockRevVal<Addr4> = 12,
    SockRevVal<Addr6> = 24,
}
