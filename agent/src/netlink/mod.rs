//! The devices, addresses and routes of the agent's network namespace, as events.

mod classify;
mod dump;
mod namespaces;
mod peer;
mod pods;
mod state;
mod watch;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

pub use classify::{Role, classify};
pub use peer::{Pair, PairError, host_side};
pub use state::{Link, LinkKind, NetState, Route};
pub use watch::watch;

/// How devices are told apart and pods are found.
#[derive(Clone)]
pub struct Settings {
    /// Names of the uplinks; empty: they are found.
    pub uplinks: Vec<String>,
    /// Devices of pods that a former agent attached to ([`crate::bpf::Adoption::pods`]): their
    /// pods' connections are known.
    pub adopted: BTreeSet<u32>,
    /// Pods' network namespaces are entered to read their addresses (needs `CAP_SYS_ADMIN`).
    pub enter_namespaces: bool,
    /// Says whether a device's egress has programs of others, which a redirect would pass by.
    pub foreign_egress: Arc<dyn Fn(u32) -> bool + Send + Sync>,
    /// clsact qdiscs are the agent's own ([`crate::bpf::AttachMode::Clsact`]).
    pub own_clsact: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            uplinks: Vec::new(),
            adopted: BTreeSet::new(),
            enter_namespaces: true,
            foreign_egress: Arc::new(|_| false),
            own_clsact: false,
        }
    }
}

/// What changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NetEvent {
    /// A pod's device is new, or something about it changed. At first its addresses may not be
    /// known yet: the device is to be attached to at once.
    Pod(Interface),
    /// A pod's device is gone, or is a pod's no longer.
    PodGone {
        /// The device.
        ifindex: u32,
        /// Its name.
        name: String,
    },
    /// An uplink is there.
    Uplink {
        /// The device.
        ifindex: u32,
        /// Its name.
        name: String,
        /// Its packets have Ethernet headers; tunnels of layer 3 have none.
        ethernet: bool,
        /// Its hardware address.
        mac: [u8; 6],
    },
    /// An uplink is gone, or is one no longer.
    UplinkGone {
        /// The device.
        ifindex: u32,
        /// Its name.
        name: String,
    },
    /// The node's own addresses, all of them, without loopback and link-local ones.
    NodeAddresses(BTreeSet<IpAddr>),
    /// Everything that was there at the start has been told. Once.
    InSync,
}

/// The host side of a pod's device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Interface {
    /// Its index.
    pub ifindex: u32,
    /// Its name.
    pub name: String,
    /// Addresses of the pod's end, without link-local ones.
    pub addresses: BTreeSet<IpAddr>,
    /// Hardware address of the pod's end; zeros until it is known.
    pub mac: [u8; 6],
    /// Hardware address of the host's end.
    pub host_mac: [u8; 6],
    /// MTU.
    pub mtu: u32,
    /// Packets may be handed to the pod past the host's stack: nothing of others that would miss
    /// them is attached, no queue shapes the device, and no other pod's MTU is larger.
    pub redirect_ok: bool,
    /// It was there before the agent, and no former agent had attached to it.
    pub late: bool,
}

/// A failure to read the namespace's devices.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No netlink socket.
    #[error("opening a netlink socket: {0}")]
    Socket(#[from] std::io::Error),
    /// A listing failed.
    #[error("listing {what}: {source}")]
    List {
        /// What was listed.
        what: &'static str,
        /// Why it failed.
        source: rtnetlink::Error,
    },
}

/// Devices by index.
type ByIndex<T> = BTreeMap<u32, T>;
