//! A packet at a tc hook.

use core::{arch::asm, mem::offset_of};

use aya_ebpf::{bindings::__sk_buff, helpers::generated as helper};
use dataplane_common::verdict::DropReason::{self, Rewrite, Truncated};

use super::{Ctx, walk_extensions};
use crate::{
    family::{Family, V4, V6},
    stage::{create, related},
};

/// A packet at a tc hook.
#[derive(Clone, Copy)]
pub struct Tc {
    skb: *mut __sk_buff,
}

impl Tc {
    /// From the program's context.
    #[inline(always)]
    pub fn new(skb: *mut __sk_buff) -> Self {
        Self { skb }
    }

    #[inline(always)]
    fn field(self, read: impl Fn(&__sk_buff) -> u32) -> u32 {
        // SAFETY: the kernel passes a valid context for the whole run of the program.
        read(unsafe { &*self.skb })
    }

    /// Loads a field that holds a packet pointer. The load is fixed: the compiler would take the
    /// field for the 32 bits it is declared as, and a copy of those is no pointer to the verifier.
    #[inline(always)]
    fn pointer<const AT: usize>(self) -> usize {
        let out: usize;
        // SAFETY: the kernel passes a valid context, and `AT` is the offset of one of its fields.
        unsafe {
            asm!(
                "{out} = *(u32 *)({skb} + {at})",
                out = out(reg) out,
                skb = in(reg) self.skb,
                at = const AT,
                options(nostack, readonly),
            )
        };
        out
    }

    /// EtherType, in network byte order.
    #[inline(always)]
    pub fn protocol(self) -> u16 {
        self.field(|skb| skb.protocol) as u16
    }

    /// True if a VLAN tag was taken off the frame.
    #[inline(always)]
    pub fn is_tagged(self) -> bool {
        self.field(|skb| skb.vlan_present) != 0
    }
}

const PACKET_HOST: u32 = 0;
const ADJUST_AFTER_MAC: u32 = 1;

#[inline(always)]
fn done(status: i64) -> Result<(), DropReason> {
    if status == 0 { Ok(()) } else { Err(Rewrite) }
}

impl Ctx for Tc {
    #[inline(always)]
    fn data(self) -> usize {
        self.pointer::<{ offset_of!(__sk_buff, data) }>()
    }

    #[inline(always)]
    fn data_end(self) -> usize {
        self.pointer::<{ offset_of!(__sk_buff, data_end) }>()
    }

    #[inline(always)]
    fn len(self) -> u32 {
        self.field(|skb| skb.len)
    }

    #[inline(always)]
    fn segment(self) -> u32 {
        self.field(|skb| skb.gso_size)
    }

    #[inline(always)]
    fn ifindex(self) -> u32 {
        self.field(|skb| skb.ifindex)
    }

    #[inline(always)]
    fn ingress_ifindex(self) -> u32 {
        self.field(|skb| skb.ingress_ifindex)
    }

    #[inline(always)]
    fn pull(self, len: u32) -> Result<(), DropReason> {
        let len = if len > self.len() { self.len() } else { len };
        // SAFETY: a valid context.
        match unsafe { helper::bpf_skb_pull_data(self.skb, len) } {
            0 => Ok(()),
            _ => Err(Truncated),
        }
    }

    #[inline(always)]
    fn skip_extensions6(self, offset: u32, next: u32) -> u64 {
        tc_ext6(self.skb, offset, next)
    }

    #[inline(always)]
    fn source<F: Family>(self) -> u32 {
        if F::IS_V4 {
            tc_source4(self.skb)
        } else {
            tc_source6(self.skb)
        }
    }

    #[inline(always)]
    fn translate_error<F: Family>(self) -> u32 {
        if F::IS_V4 {
            match tc_translate4(self.skb) {
                0 => tc_translate_checksum4(self.skb),
                reason => reason,
            }
        } else {
            match tc_translate6(self.skb) {
                0 => tc_translate_checksum6(self.skb),
                reason => reason,
            }
        }
    }

    #[inline(always)]
    fn update_checksum_by(self, at: u32, diff: u32, flags: u64) -> Result<(), DropReason> {
        // SAFETY: a valid context.
        done(unsafe { helper::bpf_l4_csum_replace(self.skb, at, 0, diff as u64, flags) })
    }

    #[inline(always)]
    fn update_checksum(self, at: u32, old: u32, new: u32, flags: u64) -> Result<(), DropReason> {
        // SAFETY: a valid context.
        done(unsafe {
            helper::bpf_l4_csum_replace(self.skb, at, old as u64, new as u64, 4 | flags)
        })
    }

    #[inline(always)]
    fn set_to_host(self) {
        if self.field(|skb| skb.pkt_type) != PACKET_HOST {
            // SAFETY: a valid context. It cannot fail for the types a received frame has.
            unsafe { helper::bpf_skb_change_type(self.skb, PACKET_HOST) };
        }
    }

    #[inline(always)]
    fn truncate(self, len: u32) -> Result<(), DropReason> {
        // SAFETY: a valid context.
        done(unsafe { helper::bpf_skb_change_tail(self.skb, len, 0) })
    }

    #[inline(always)]
    fn grow_after_link(self, len: u32) -> Result<(), DropReason> {
        // SAFETY: a valid context.
        done(unsafe { helper::bpf_skb_adjust_room(self.skb, len as i32, ADJUST_AFTER_MAC, 0) })
    }

    #[inline(always)]
    fn as_raw(self) -> *mut core::ffi::c_void {
        self.skb.cast()
    }
}

/// Walks IPv6 extension headers (RFC 8200 section 4) from `next` at `offset`. Returns
/// `next | offset << 8 | fragment << 24 | identification << 32`, where `fragment` is 0 for none, 1
/// for a first and 2 for a later fragment; or [`EXT6_BAD`].
///
/// A global function: the verifier checks it once, instead of once for each path that calls it.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn tc_ext6(skb: *mut __sk_buff, offset: u32, next: u32) -> u64 {
    walk_extensions(Tc::new(skb), offset, next)
}

/// [`create::choose_source`] for IPv4. A global function, as [`tc_ext6`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn tc_source4(skb: *mut __sk_buff) -> u32 {
    create::choose_source::<V4, Tc>(Tc::new(skb))
}

/// [`create::choose_source`] for IPv6. A global function, as [`tc_ext6`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn tc_source6(skb: *mut __sk_buff) -> u32 {
    create::choose_source::<V6, Tc>(Tc::new(skb))
}

/// [`related::translate`] for IPv4. A global function, as [`tc_ext6`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn tc_translate4(skb: *mut __sk_buff) -> u32 {
    related::translate::<V4, Tc>(Tc::new(skb))
}

/// [`related::translate`] for IPv6. A global function, as [`tc_ext6`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn tc_translate6(skb: *mut __sk_buff) -> u32 {
    related::translate::<V6, Tc>(Tc::new(skb))
}

/// [`related::translate_checksum`] for IPv4. A global function, as [`tc_ext6`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn tc_translate_checksum4(skb: *mut __sk_buff) -> u32 {
    related::translate_checksum::<V4, Tc>(Tc::new(skb))
}

/// [`related::translate_checksum`] for IPv6. A global function, as [`tc_ext6`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn tc_translate_checksum6(skb: *mut __sk_buff) -> u32 {
    related::translate_checksum::<V6, Tc>(Tc::new(skb))
}
