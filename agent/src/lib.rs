//! The agent.

pub mod args;
pub mod bpf;
pub mod config;
pub mod convert;
pub mod netlink;
pub mod observe;
pub mod source;
