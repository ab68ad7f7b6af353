//! The steps of the packet path.

pub mod audit;
pub mod conntrack;
pub mod create;
pub mod early;
pub mod enter;
pub mod errors;
pub mod forward;
pub mod fragment;
pub mod neighbour;
pub mod parse;
pub mod policy;
pub mod reject;
pub mod related;
pub mod rewrite;
pub mod service;
pub mod subject;
