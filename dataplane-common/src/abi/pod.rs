//! Pods of this node, and the identities of addresses.

use super::{Addr4, Addr6, abi};

/// A pod of this node, found by the index of its host-side device.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Subject {
    /// The pod's IPv6 address; unspecified if it has none.
    pub addr6: Addr6,
    /// The pod's IPv4 address; unspecified if it has none.
    pub addr4: Addr4,
    /// The host-side device; 0 marks an empty place.
    pub ifindex: u32,
    /// [`subject_state`].
    pub state: u8,
    /// Explicit padding.
    pub reserved: u8,
    /// [`subject_flags`].
    pub flags: u16,
    /// The pod's identity.
    pub identity: u32,
    /// Ruleset for what it sends; 0: no policy concerns it.
    pub egress: u32,
    /// Ruleset for what it receives; 0: no policy concerns it.
    pub ingress: u32,
    /// Hardware address of the pod's end of the device.
    pub mac: [u8; 6],
    /// Hardware address of the host's end.
    pub host_mac: [u8; 6],
    /// What `egress` were if policies in audit were in force; 0: nothing else.
    pub audited_egress: u32,
    /// What `ingress` were if policies in audit were in force; 0: nothing else.
    pub audited_ingress: u32,
    /// Host-side device of the DNS proxy; [`DNS_PROXY`] while there is none yet, 0 if there will be none.
    pub dns_proxy: u32,
}

/// No device has this ifindex: it stands for the DNS proxy, whichever device that has.
pub const DNS_PROXY: u32 = u32::MAX;

/// States of a pod's device ([`Subject::state`]). A managed device without an entry is closed.
pub mod subject_state {
    /// Nothing passes.
    pub const CLOSED: u8 = 0;
    /// Services are translated; the pod is not known yet, so nothing is policed.
    pub const SERVICES: u8 = 1;
    /// The pod is known: source check and policy.
    pub const MANAGED: u8 = 2;
}

/// Bits of [`Subject::flags`].
pub mod subject_flags {
    /// Packets may be handed to the pod by `bpf_redirect_peer`: its device is a veth with no
    /// foreign egress program and no shaping queue, and its MTU is not below its neighbours'.
    pub const REDIRECT: u16 = 1;
    /// The device was attached after the pod started: TCP flows may be joined in their middle.
    pub const LATE: u16 = 1 << 1;
    /// Rules with domain names bear on what the pod sends: its queries go through the DNS proxy.
    pub const DNS: u16 = 1 << 2;
}

/// What an address is.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct IdentityVal {
    /// The identity that policy rows name; 0 for none.
    pub identity: u32,
    /// Host-side device of a pod of this node, else 0.
    pub ifindex: u32,
    /// [`identity_flags`].
    pub flags: u32,
}

/// Bits of [`IdentityVal::flags`].
pub mod identity_flags {
    /// An address of this node.
    pub const NODE: u32 = 1;
    /// An address of another node.
    pub const REMOTE_NODE: u32 = 1 << 1;
    /// A pod.
    pub const POD: u32 = 1 << 2;
    /// No CIDR of a policy holds the address: prefixes need not be asked.
    pub const NO_CIDR: u32 = 1 << 3;
}

abi! { Subject = 64, IdentityVal = 12 }
