//! What the kernel programs and userspace share.
//!
//! * [`abi`]: keys and values of every BPF map, defined once for both sides.
//! * [`decide`]: the pure decisions of the packet path, from looked-up values to an outcome.
//! * [`net`]: protocol numbers, header layouts and checksum arithmetic.
//! * [`verdict`]: verdicts and drop reasons.
//!
//! The crate is `no_std`, has no dependencies, and is tested on the host.

#![cfg_attr(not(test), no_std)]

pub mod abi;
pub mod decide;
pub mod net;
pub mod verdict;
