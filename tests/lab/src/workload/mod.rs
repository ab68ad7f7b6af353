//! What runs in the pods: a small server, and clients that count.

pub mod client;
mod http;
pub mod load;
pub mod process;
pub mod server;
pub mod tally;
pub mod udp;

pub use client::{Answer, Cause, Failure, Stage};
pub use load::{Connections, Load, LoadSpec};
pub use process::Process;
pub use server::{Server, ServerSpec};
pub use tally::Tally;
