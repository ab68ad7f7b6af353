//! The attachment points: they choose the address family and turn verdicts into return codes.

mod sock_addr;
mod tc;
mod xdp;
