//! Decisions of the packet path as pure functions: from looked-up values to an outcome. The kernel
//! programs do the lookups; tests call these on the host.

pub mod balance;
pub mod budget;
pub mod conntrack;
pub mod policy;
