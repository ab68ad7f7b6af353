//! The agent.

pub mod bpf;
