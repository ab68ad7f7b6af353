//! Names and default capacities of the maps.

use super::abi;

/// Version of every layout in this module: part of the pin directory's name. It changes with any
/// change of a key, a value or a meaning.
pub const ABI_VERSION: u32 = 5;

/// Map names, as in the BPF object and under the pin directory. Names that end in 4 or 6 are one
/// map for each address family.
pub mod name {
    /// HASH `ServiceKey` -> `ServiceVal`.
    pub const SERVICES: [&str; 2] = ["services4", "services6"];
    /// ARRAY index -> `SlotVal`: blocks of backends, both families.
    pub const SLOTS: &str = "slots";
    /// ARRAY index -> `BackendVal`.
    pub const BACKENDS: [&str; 2] = ["backends4", "backends6"];
    /// ARRAY index -> `ClassVal`: weighted classes, both families.
    pub const CLASSES: &str = "classes";
    /// LRU_HASH `AffinityKey` -> `AffinityVal`.
    pub const AFFINITY: [&str; 2] = ["affinity4", "affinity6"];
    /// LRU_HASH `SockRevKey` -> `SockRevVal`.
    pub const SOCK_REV: [&str; 2] = ["sock_rev4", "sock_rev6"];
    /// HASH `CtKey` -> `CtVal`.
    pub const CONNTRACK: [&str; 2] = ["ct4", "ct6"];
    /// LRU_HASH `FragKey` -> `FragVal`.
    pub const FRAGMENTS: [&str; 2] = ["frags4", "frags6"];
    /// HASH `Addr` -> `IdentityVal`.
    pub const IDENTITIES: [&str; 2] = ["identity4", "identity6"];
    /// LPM_TRIE `CidrKey` -> `CidrVal`.
    pub const CIDRS: [&str; 2] = ["cidr4", "cidr6"];
    /// LPM_TRIE `SourceRangeKey` -> u32, always 1: whom source sets allow.
    pub const SOURCE_RANGES: [&str; 2] = ["source_ranges4", "source_ranges6"];
    /// ARRAY `ifindex & (capacity - 1)` -> `Subject`.
    pub const SUBJECTS: &str = "subjects";
    /// HASH ifindex -> `Subject`: those whose place in `subjects` is taken.
    pub const SUBJECTS_OVERFLOW: &str = "subjects_over";
    /// ARRAY ruleset -> `RulesetVal`.
    pub const RULESETS: &str = "rulesets";
    /// ARRAY index -> `PortBound`.
    pub const PORT_BOUNDS: &str = "port_bounds";
    /// HASH `RowKey` -> `RowVal`.
    pub const ROWS: &str = "rows";
    /// ARRAY of one u32: the policy epoch.
    pub const EPOCH: &str = "epoch";
    /// ARRAY of one u32: how many listeners the event ring has.
    pub const LISTENERS: &str = "listeners";
    /// RINGBUF of `FlowEvent`.
    pub const EVENTS: &str = "events";
    /// LRU_HASH [`DropKey`](crate::abi::DropKey) -> [`DropVal`](crate::abi::DropVal): drops that an event told of.
    pub const TOLD: &str = "told";
    /// PERCPU_ARRAY of u64: when the budget of events is full ([`crate::decide::budget`]); the verdicts
    /// without an event since the last one; and 1 << 32 with the tick in which it was found spent.
    pub const EVENT_BUDGET: &str = "event_budget";
    /// PERCPU_ARRAY [`event_count`](crate::abi::event_count) -> u64 verdicts.
    pub const EVENT_COUNTS: &str = "event_counts";
    /// PERCPU_ARRAY `DropReason` -> u64 packets.
    pub const DROPS: &str = "drops";
    /// PERCPU_ARRAY [`audit_count`](crate::abi::audit_count) -> u64 flows.
    pub const AUDITS: &str = "audits";
    /// ARRAY hash of a sender -> u64: when its budget of ICMP errors is full.
    pub const ERROR_BUDGETS: &str = "error_budgets";
    /// PERCPU_ARRAY `DropReason` -> u64 dropped packets whose sender got no ICMP error: it had many.
    pub const ERRORS_HELD: &str = "errors_held";
    /// ARRAY: half-open flows, of the subject in the same place; the last entry is the total. Signed:
    /// a count that has gone astray may be below zero until the sweeper has set it right.
    pub const HALF_OPEN: &str = "half_open";
    /// HASH ifindex -> [`super::XdpDevice`]: uplinks with the early program, which frames may leave by.
    pub const XDP_DEVICES: &str = "xdp_devices";
    /// PERCPU_ARRAY [`super::xdp_count`] -> u64 frames.
    pub const XDP_FRAMES: &str = "xdp_frames";
    /// HASH `IdKey` -> `IdVal`: which number stands for what. Only userspace reads it, to go on
    /// with the same numbers after a restart.
    pub const IDS: &str = "ids";
}

/// What a number stands for: a kind and a 128-bit hash of the thing's name or content.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct IdKey {
    /// First half of the hash.
    pub high: u64,
    /// Second half of the hash.
    pub low: u64,
    /// The kind; its values belong to the model's id table.
    pub kind: u32,
    /// Explicit padding.
    pub reserved: u32,
}

/// A number in use.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct IdVal {
    /// The number.
    pub id: u32,
    /// How many successive numbers from it on, for blocks; else 1.
    pub count: u32,
}

/// An uplink that runs the early program (XDP).
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct XdpDevice {
    /// How it does: an [`xdp_mode`].
    pub mode: u32,
    /// Its hardware address: frames to another one are not for this host to route.
    pub mac: [u8; 6],
    /// Explicit padding.
    pub reserved: u16,
}

abi! { IdKey = 24, IdVal = 8, XdpDevice = 12 }

/// How a device runs the early program (XDP).
pub mod xdp_mode {
    /// By its driver.
    pub const NATIVE: u32 = 1;
    /// By the kernel, for any driver.
    pub const GENERIC: u32 = 2;
}

/// What the early program counts.
pub mod xdp_count {
    /// Frames sent back by the device they came by.
    pub const SENT_BACK: u32 = 0;
    /// Frames sent by another uplink.
    pub const REDIRECTED: u32 = 1;
}

/// Default capacities (entries).
pub mod capacity {
    /// Frontends of one family.
    pub const SERVICES: u32 = 131_072;
    /// Places in backend blocks.
    pub const SLOTS: u32 = 524_288;
    /// Backends of one family.
    pub const BACKENDS: u32 = 262_144;
    /// Weighted classes.
    pub const CLASSES: u32 = 16_384;
    /// Affinities of one family.
    pub const AFFINITY: u32 = 65_536;
    /// Translated sockets of one family.
    pub const SOCK_REV: u32 = 65_536;
    /// Flows of one family.
    pub const CONNTRACK: u32 = 262_144;
    /// Fragmented datagrams of one family.
    pub const FRAGMENTS: u32 = 8_192;
    /// Known addresses of one family.
    pub const IDENTITIES: u32 = 131_072;
    /// Prefixes of one family.
    pub const CIDRS: u32 = 16_384;
    /// Source ranges of one family.
    pub const SOURCE_RANGES: u32 = 65_536;
    /// Places for pods of this node; a power of two.
    pub const SUBJECTS: u32 = 65_536;
    /// Pods of this node whose place is taken.
    pub const SUBJECTS_OVERFLOW: u32 = 4_096;
    /// Rulesets.
    pub const RULESETS: u32 = 16_384;
    /// Port boundaries.
    pub const PORT_BOUNDS: u32 = 131_072;
    /// Policy rows.
    pub const ROWS: u32 = 262_144;
    /// Bytes of the event ring; a power of two and a multiple of the page size.
    pub const EVENTS: u32 = 1 << 20;
    /// Kinds of drops that events have told of lately.
    pub const TOLD: u32 = 8_192;
    /// Words of a CPU's budget of events.
    pub const EVENT_BUDGET: u32 = 3;
    /// Counts of verdicts by what became of their events.
    pub const EVENT_COUNTS: u32 = 4;
    /// Drop reasons.
    pub const DROPS: u32 = 64;
    /// Counts of flows that policies in audit would deny.
    pub const AUDITS: u32 = 4;
    /// Budgets of ICMP errors; a power of two.
    pub const ERROR_BUDGETS: u32 = 4_096;
    /// Uplinks with the early program.
    pub const XDP_DEVICES: u32 = 64;
    /// Counters of the early program.
    pub const XDP_FRAMES: u32 = 2;
    /// Half-open counters: one for each subject's place, and the total.
    pub const HALF_OPEN: u32 = SUBJECTS + 1;
    /// Numbers in use.
    pub const IDS: u32 = 1_048_576;
}
