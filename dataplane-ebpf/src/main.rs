//! The kernel programs: thin hooks over one pipeline, generic over packet context and address
//! family.
//!
//! * `hook`: what differs between attachment points; verdicts become return codes here.
//! * `pipeline`: the packet path, one function for each hook.
//! * `stage`: its steps. A stage owns its maps, looks up, lets `dataplane_common::decide` decide,
//!   and stores.
//! * `packet`, `maps`: bounds-checked packet access and map access; nearly all `unsafe`.
//!
//! On other targets the crate is an empty program, so that the workspace builds anywhere.

#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

#[cfg(target_arch = "bpf")]
mod family;
#[cfg(target_arch = "bpf")]
mod hook;
#[cfg(target_arch = "bpf")]
mod maps;
#[cfg(target_arch = "bpf")]
mod observe;
#[cfg(target_arch = "bpf")]
mod packet;
#[cfg(target_arch = "bpf")]
mod pipeline;
#[cfg(target_arch = "bpf")]
mod stage;

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}

/// GPL-compatible helpers are used.
#[cfg(target_arch = "bpf")]
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(not(target_arch = "bpf"))]
fn main() {}
