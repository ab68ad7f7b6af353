//! A packet at an XDP hook: a frame before the kernel has made a packet buffer of it.

use core::{arch::asm, mem::offset_of};

use aya_ebpf::bindings::xdp_md;
use dataplane_common::{
    net::checksum::{diff32, fold},
    verdict::DropReason::{self, Rewrite},
};

use super::{Ctx, EXT6_BAD, ZERO_IS_NONE};
use crate::{
    family::{Family, V4, V6},
    stage::create,
};

/// A packet at an XDP hook.
#[derive(Clone, Copy)]
pub struct Xdp {
    frame: *mut xdp_md,
}

impl Xdp {
    /// From the program's context.
    #[inline(always)]
    pub fn new(frame: *mut xdp_md) -> Self {
        Self { frame }
    }

    /// Loads a field that holds a packet pointer; see `Tc::pointer`.
    #[inline(always)]
    fn pointer<const AT: usize>(self) -> usize {
        let out: usize;
        // SAFETY: the kernel passes a valid context, and `AT` is the offset of one of its fields.
        unsafe {
            asm!(
                "{out} = *(u32 *)({frame} + {at})",
                out = out(reg) out,
                frame = in(reg) self.frame,
                at = const AT,
                options(nostack, readonly),
            )
        };
        out
    }

    /// Replaces a checksum by what `change` makes of its complement (RFC 1624).
    #[inline(always)]
    fn checksum(self, at: u32, diff: u32, flags: u64) -> Result<(), DropReason> {
        let field = self.need::<2>(at as usize)?;
        let old = field.u16::<0>();
        if flags & ZERO_IS_NONE != 0 && old == 0 {
            return Ok(());
        }
        let new = !fold(!old as u32 + fold(diff) as u32);
        // In UDP a sum of 0 is sent as its other form (RFC 768).
        let new = if flags & ZERO_IS_NONE != 0 && new == 0 {
            u16::MAX
        } else {
            new
        };
        field.set_u16::<0>(new);
        Ok(())
    }
}

/// What an XDP hook cannot do is an error: its program leaves such packets to the tc hooks.
impl Ctx for Xdp {
    #[inline(always)]
    fn data(self) -> usize {
        self.pointer::<{ offset_of!(xdp_md, data) }>()
    }

    #[inline(always)]
    fn data_end(self) -> usize {
        self.pointer::<{ offset_of!(xdp_md, data_end) }>()
    }

    #[inline(always)]
    fn len(self) -> u32 {
        (self.data_end() - self.data()) as u32
    }

    #[inline(always)]
    fn segment(self) -> u32 {
        0
    }

    #[inline(always)]
    fn ifindex(self) -> u32 {
        // SAFETY: the kernel passes a valid context for the whole run of the program.
        unsafe { (*self.frame).ingress_ifindex }
    }

    #[inline(always)]
    fn ingress_ifindex(self) -> u32 {
        self.ifindex()
    }

    /// The frame is in one buffer: what cannot be read is not there.
    #[inline(always)]
    fn pull(self, _len: u32) -> Result<(), DropReason> {
        Ok(())
    }

    #[inline(always)]
    fn skip_extensions6(self, _offset: u32, _next: u32) -> u64 {
        EXT6_BAD
    }

    #[inline(always)]
    fn source<F: Family>(self) -> u32 {
        if F::IS_V4 {
            xdp_source4(self.frame)
        } else {
            xdp_source6(self.frame)
        }
    }

    #[inline(always)]
    fn translate_error<F: Family>(self) -> u32 {
        Rewrite as u32
    }

    #[inline(always)]
    fn update_checksum_by(self, at: u32, diff: u32, flags: u64) -> Result<(), DropReason> {
        self.checksum(at, diff, flags)
    }

    #[inline(always)]
    fn update_checksum(self, at: u32, old: u32, new: u32, flags: u64) -> Result<(), DropReason> {
        self.checksum(at, diff32(old, new), flags)
    }

    #[inline(always)]
    fn set_to_host(self) {}

    #[inline(always)]
    fn truncate(self, _len: u32) -> Result<(), DropReason> {
        Err(Rewrite)
    }

    #[inline(always)]
    fn grow_after_link(self, _len: u32) -> Result<(), DropReason> {
        Err(Rewrite)
    }

    #[inline(always)]
    fn as_raw(self) -> *mut core::ffi::c_void {
        self.frame.cast()
    }
}

/// [`create::choose_source`] for IPv4. A global function: the verifier checks it once.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn xdp_source4(frame: *mut xdp_md) -> u32 {
    create::choose_source::<V4, Xdp>(Xdp::new(frame))
}

/// [`create::choose_source`] for IPv6. A global function, as [`xdp_source4`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn xdp_source6(frame: *mut xdp_md) -> u32 {
    create::choose_source::<V6, Xdp>(Xdp::new(frame))
}
