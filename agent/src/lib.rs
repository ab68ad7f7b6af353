//! The agent.

pub mod admin;
pub mod args;
pub mod bpf;
pub mod cli;
pub mod cni;
pub mod config;
pub mod convert;
pub mod kubeproxy;
pub mod metrics;
pub mod netlink;
pub mod observe;
pub mod run;
pub mod serve;
pub mod sockets;
pub mod source;
pub mod yaml;
