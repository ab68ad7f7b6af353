//! From the objects of a cluster to the contents of the BPF maps, as pure functions.
//!
//! `Snapshot` (current objects) -> `compile` -> `Desired` (one sorted table per map) -> `Plan` (ordered
//! map operations) -> `MapStore`. Nothing here does I/O.

#![forbid(unsafe_code)]

pub mod snapshot;
