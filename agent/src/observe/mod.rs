//! Looking at the dataplane at work: flows, verdicts and drops.

pub mod conntrack;
pub mod drops;
pub mod events;
pub mod policies;
pub mod sample;
