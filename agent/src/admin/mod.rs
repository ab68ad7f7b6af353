//! The agent's socket: who may open it may ask for the agent's state.

pub mod answer;
pub mod explain;
pub mod flows;
pub mod names;
mod policies;
pub mod protocol;
pub mod server;
