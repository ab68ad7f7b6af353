//! The lab: clusters of network namespaces on one machine, for tests, the demo and the benchmarks.
//!
//! Nodes, pods and an outside client are namespaces joined by veth pairs, as container network
//! plugins make them; agents, servers and load run in them for real.

pub mod agent;
pub mod bench;
pub mod bpf_check;
pub mod cni;
pub mod demo;
pub mod kube;
pub mod netns;
pub mod report;
pub mod run;
pub mod topology;
pub mod wait;
pub mod workload;
