//! Flow events: a verdict and what it came from, sent to userspace when someone listens.

use super::{Addr6, Port, abi};

/// A verdict on one packet.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FlowEvent {
    /// `CLOCK_MONOTONIC` in nanoseconds.
    pub time: u64,
    /// Source, IPv4 in its mapped form, as the packet arrived.
    pub src: Addr6,
    /// Destination, as the packet arrived.
    pub dst: Addr6,
    /// Backend the destination is translated to; unspecified for a direct flow.
    pub backend: Addr6,
    /// Source port.
    pub src_port: Port,
    /// Destination port.
    pub dst_port: Port,
    /// Port of `backend`.
    pub backend_port: Port,
    /// IP protocol number.
    pub proto: u8,
    /// [`hook`].
    pub hook: Hook,
    /// 0 for allowed, else a [`crate::verdict::DropReason`] as a number.
    pub reason: u32,
    /// The device.
    pub ifindex: u32,
    /// The rule that decided egress, 0 for none.
    pub egress_rule: u32,
    /// The rule that decided ingress, 0 for none.
    pub ingress_rule: u32,
    /// The frontend, 0 for none.
    pub frontend: u32,
    /// Packets it stands for: dropped ones like this, since the event before.
    pub packets: u32,
    /// Verdicts of this CPU since its event before, for which there was no event.
    pub skipped: u32,
    /// 0, or as `reason` what policies in audit would do.
    pub audit: u32,
    /// The rule by which they would, 0 for none.
    pub audit_rule: u32,
    /// Explicit padding.
    pub reserved: u32,
}

/// Dropped packets that one event stands for.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct DropKey {
    /// As [`FlowEvent::src`].
    pub src: Addr6,
    /// As [`FlowEvent::dst`].
    pub dst: Addr6,
    /// Destination port.
    pub dst_port: Port,
    /// IP protocol number.
    pub proto: u8,
    /// [`hook`].
    pub hook: Hook,
    /// As [`FlowEvent::reason`].
    pub reason: u32,
}

/// When an event told of them.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct DropVal {
    /// `CLOCK_MONOTONIC` in nanoseconds.
    pub told: u64,
    /// Packets since then.
    pub packets: u32,
    /// Explicit padding.
    pub reserved: u32,
}

/// Flows that policies in audit would deny.
pub mod audit_count {
    /// New ones, by their initiators' egress.
    pub const NEW_EGRESS: u32 = 0;
    /// New ones, by their responders' ingress.
    pub const NEW_INGRESS: u32 = 1;
    /// Live ones that would be cut, by their initiators' egress.
    pub const LIVE_EGRESS: u32 = 2;
    /// Live ones that would be cut, by their responders' ingress.
    pub const LIVE_INGRESS: u32 = 3;
}

/// What becomes of verdicts while someone listens.
pub mod event_count {
    /// An event was sent.
    pub const SENT: u32 = 0;
    /// A dropped packet is counted in the next event of its like.
    pub const JOINED: u32 = 1;
    /// No event: there were too many.
    pub const SAMPLED: u32 = 2;
    /// No event: the ring was full.
    pub const LOST: u32 = 3;
    /// Their names.
    pub const NAMES: [&str; 4] = ["sent", "joined", "sampled-out", "lost"];
}

abi! { FlowEvent = 104, DropKey = 40, DropVal = 16 }

/// A hook, as a number of [`hook`].
pub type Hook = u8;

/// The hooks of the packet path.
pub mod hook {
    use super::Hook;

    /// tcx ingress of a pod's host-side device.
    pub const FROM_POD: Hook = 1;
    /// tcx egress of a pod's host-side device.
    pub const TO_POD: Hook = 2;
    /// tcx ingress of an uplink.
    pub const FROM_NET: Hook = 3;
    /// tcx egress of an uplink.
    pub const TO_NET: Hook = 4;

    /// The hook's name.
    pub const fn name(hook: Hook) -> &'static str {
        match hook {
            FROM_POD => "from_pod",
            TO_POD => "to_pod",
            FROM_NET => "from_net",
            TO_NET => "to_net",
            _ => "unknown",
        }
    }
}
