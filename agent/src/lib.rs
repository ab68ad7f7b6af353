//! The agent.

pub mod bpf;
pub mod convert;
pub mod source;
