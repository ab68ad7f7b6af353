//! The agent's socket: who may open it may ask for the agent's state.

pub mod answer;
pub mod explain;
pub mod flows;
mod frontends;
pub mod names;
mod policies;
pub mod protocol;
pub mod server;
pub mod verify;
pub mod wait;
pub mod why;
