//! Frames through the real programs: a frame in, the verdict, the drop counter and the frame out
//! with every checksum verified; then the reply the other way. Every case runs for IPv4 and IPv6.
//!
//! Programs run by `BPF_PROG_TEST_RUN`: redirects are decided but not carried out.

mod flows;
mod frame;
mod kernel;
mod netns;
mod rules;
mod seen;
mod service;
mod sys;
mod world;

/// Defines tests that run for both families, on the programs of a mode.
macro_rules! both_families {
    ($($(#[doc = $doc:literal])+ fn $name:ident($world:ident: $mode:ident) $body:block)+) => {
        $(
            $(#[doc = $doc])+
            mod $name {
                #[allow(unused_imports)]
                use super::*;

                #[allow(unused_mut)]
                fn case(mut $world: $crate::world::World) $body

                #[test]
                fn v4() {
                    case($crate::world::World::new($crate::kernel::Mode::$mode, $crate::world::Family::V4));
                }

                #[test]
                fn v6() {
                    case($crate::world::World::new($crate::kernel::Mode::$mode, $crate::world::Family::V6));
                }
            }
        )+
    };
}

mod arrivals;
mod audit;
mod balance;
mod beside;
mod clashes;
mod closed;
mod cluster_ip;
mod errors;
mod events;
mod fragments;
mod fuzz;
mod host_backends;
mod keep;
mod limits;
mod malformed;
mod mtu;
mod node_port;
mod policy;
mod ports;
mod proxied;
mod reach;
mod sctp;
mod spoofing;
mod tiers;
mod tracking;
mod xdp;
