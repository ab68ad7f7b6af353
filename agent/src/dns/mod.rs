//! The DNS proxy: it sees what the names of policies resolve to, and lets no answer out before the
//! addresses in it are in force.
//!
//! The kernel programs hand it the queries of pods that rules with domain names concern, addressed as the pods
//! sent them but for the translation of Services. It asks whom the pod asked.

pub mod message;
pub mod names;
mod places;
mod proxy;
mod room;

pub use proxy::{Answered, Proxy, Wanted};
pub use room::is_possible;

/// The host's side of the proxy's device.
pub const DEVICE: &str = "sluice-dns";
/// Hardware addresses of the device: the proxy's end and the host's. Locally administered; nobody else is on
/// that link.
pub const MACS: [[u8; 6]; 2] = [
    [0x02, 0x73, 0x6c, 0x75, 0x69, 0x01],
    [0x02, 0x73, 0x6c, 0x75, 0x69, 0x02],
];
