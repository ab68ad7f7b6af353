//! Settings that are constant for the life of a loaded program.

use super::abi;

/// The programs' settings, in their frozen read-only data: the verifier prunes what they switch
/// off. A change needs new programs.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Cookie of the network namespace the agent serves (`SO_NETNS_COOKIE`): socket programs act
    /// for its sockets only.
    pub netns_cookie: u64,
    /// [`config_flags`].
    pub flags: u32,
    /// Jiffies per second of the running kernel.
    pub hz: u32,
    /// First port, in host order, that translation of source addresses may use.
    pub snat_first: u16,
    /// Number of ports from `snat_first` on; at least 1.
    pub snat_count: u16,
    /// New flows without an answer that one pod may have at a time.
    pub half_open_per_pod: u32,
    /// New flows without an answer that the node may have at a time.
    pub half_open_total: u32,
    /// ICMP errors that one sender may get in a second.
    pub error_rate: u32,
    /// Flow events that each CPU may send in a second.
    pub event_rate: u32,
    /// Explicit padding.
    pub reserved: u32,
}

abi! { Config = 40 }

/// Bits of [`Config::flags`].
pub mod config_flags {
    /// Services are translated.
    pub const SERVICES: u32 = 1;
    /// Policies are enforced.
    pub const POLICY: u32 = 1 << 1;
    /// Same-node traffic goes from device to device, past the host's stack.
    pub const REDIRECT: u32 = 1 << 2;
    /// NetworkPolicies police traffic from a pod to its own node like any other (Kubernetes leaves
    /// the node's own traffic unpoliced).
    pub const POLICE_NODE_EGRESS: u32 = 1 << 3;
    /// `bpf_l4_csum_replace` knows `BPF_F_IPV6` (kernel 6.16 and its stable relatives).
    pub const CSUM_IPV6: u32 = 1 << 4;
    /// NetworkPolicies police traffic of a pod to itself through a Service like any other.
    pub const POLICE_HAIRPIN: u32 = 1 << 5;
    /// An allowed flow between the same pods stays allowed when policy changes.
    pub const KEEP_FLOWS: u32 = 1 << 6;
}
