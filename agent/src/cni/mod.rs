//! The CNI plugin (specification 0.3.0 to 1.1.0) and the agent's side of it.
//!
//! The plugin is this same program, called by a container runtime after the plugin that made a pod's
//! device. It hands the device over to the agent and returns when the pod's policy is in the kernel.

pub mod attachments;
pub mod config;
pub mod conflist;
pub mod install;
pub mod plugin;
pub mod protocol;
pub mod result;

/// Name of the plugin's file, and its `type` in a network configuration.
pub const PLUGIN: &str = "sluice-cni";
