//! From the objects of a cluster to the contents of the BPF maps, as pure functions.
//!
//! [`snapshot`] (current objects) -> [`compile`] (policy as a whole, Services one by one) -> ordered
//! operations -> [`MapStore`](store::MapStore); [`reconcile`] drives them. Nothing here does I/O.
//! Beside the compiler stand [`oracle`], which says from the objects alone what must happen to a
//! packet, and [`eval`], which says what the kernel makes of the compiled tables; [`explain`] shows a
//! verdict by all three, and [`verify`] compares them.

#![forbid(unsafe_code)]

pub mod capacity;
pub mod compile;
pub mod eval;
pub mod explain;
pub mod gone;
pub mod ids;
pub mod oracle;
pub mod plan;
pub mod reconcile;
pub mod snapshot;
pub mod store;
pub mod tables;
pub mod verify;
