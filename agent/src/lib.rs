//! The agent.

pub mod bpf;
pub mod convert;
pub mod netlink;
pub mod source;
