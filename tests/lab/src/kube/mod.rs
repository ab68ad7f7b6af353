//! A stand-in for what a Kubernetes control plane and its kubelets do, on a folder of manifests; and a
//! real API server.

pub mod api;
pub mod apiserver;
mod deployment;
pub mod manifests;
pub mod objects;
mod plane;

pub use deployment::Deployment;
pub use manifests::Manifests;
pub use plane::{Plane, PodRun};
