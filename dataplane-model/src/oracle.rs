//! What must happen to a packet, from the objects alone: the rules of Kubernetes' documentation,
//! spelt out one by one with no regard for speed. It shares nothing with the compiler but the
//! snapshot's types, so that a test which compares them compares two opinions.

mod policy;
mod services;

pub use policy::{Asked, Flow, Ruling, Side, Verdict, judge};
pub use services::{Outcome, refuses_other_ports, serve};
