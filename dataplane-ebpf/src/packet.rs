//! Packet access: contexts, bounds-checked windows, and the helpers that change a packet.

mod tc;
mod xdp;

use core::arch::asm;

use aya_ebpf::{
    bindings::{bpf_fib_lookup, bpf_redir_neigh},
    helpers::generated as helper,
};
use dataplane_common::{
    abi::Abi,
    verdict::DropReason::{self, Truncated},
};

pub use self::{tc::Tc, xdp::Xdp};
use crate::family::Family;

/// Largest offset at which headers are read.
const MAX_OFFSET: usize = 0x7ff;

/// Takes a value's origin from the compiler, which otherwise merges a packet pointer with the
/// unbounded form of its offset. One real instruction: an empty one would give two places one line
/// number, which the kernel refuses.
#[inline(always)]
fn opaque(value: usize) -> usize {
    let mut out = value;
    // SAFETY: the instruction assigns a register to itself.
    unsafe { asm!("{0} = {0}", inout(reg) out, options(nomem, nostack, pure)) };
    out
}

/// A zero that the compiler does not know to be one: it would turn the zeroing of a record into a
/// call of `memset`, which is a loop over bytes.
#[inline(always)]
pub fn zero() -> u32 {
    opaque(0) as u32
}

/// A packet as a hook sees it. One pipeline serves every implementation.
pub trait Ctx: Copy {
    /// First byte that may be read directly.
    fn data(self) -> usize;
    /// End of what may be read directly.
    fn data_end(self) -> usize;
    /// Length of the packet, with what is not directly readable.
    fn len(self) -> u32;
    /// Octets behind the headers of each packet that a device is to make of this one; 0: it is one
    /// packet.
    fn segment(self) -> u32;
    /// The device of the hook.
    fn ifindex(self) -> u32;
    /// The device the packet came in by; 0 if this host made it.
    fn ingress_ifindex(self) -> u32;
    /// Makes the first `len` bytes directly readable.
    fn pull(self, len: u32) -> Result<(), DropReason>;
    /// Next header and offset past IPv6 extension headers, packed as [`ext6`] says.
    fn skip_extensions6(self, offset: u32, next: u32) -> u64;
    /// Chooses a source of ours for the flow in the family's scratch room:
    /// `create::choose_source`.
    fn source<F: Family>(self) -> u32;
    /// Translates the ICMP error in the family's scratch room, and what it quotes:
    /// `related::translate` and `related::translate_checksum`.
    fn translate_error<F: Family>(self) -> u32;
    /// Updates a transport checksum by a one's-complement difference of what it covers: of its
    /// pseudo-header if the flags have [`PSEUDO_HEADER`].
    fn update_checksum_by(self, at: u32, diff: u32, flags: u64) -> Result<(), DropReason>;
    /// Updates a transport checksum for a changed 32-bit word of what it covers.
    fn update_checksum(self, at: u32, old: u32, new: u32, flags: u64) -> Result<(), DropReason>;
    /// Marks the packet as addressed to the host that receives it.
    fn set_to_host(self);
    /// Sets the packet's length, cutting its end.
    fn truncate(self, len: u32) -> Result<(), DropReason>;
    /// Makes `len` bytes of room between the link-layer and the network header.
    fn grow_after_link(self, len: u32) -> Result<(), DropReason>;
    /// The context as helpers want it.
    fn as_raw(self) -> *mut core::ffi::c_void;

    /// `N` bytes at `offset`.
    #[inline(always)]
    fn window<const N: usize>(self, offset: usize) -> Option<Window<N>> {
        let start = opaque(self.data() + (opaque(offset) & MAX_OFFSET));
        (start + N <= self.data_end()).then_some(Window { start })
    }

    /// `N` bytes at `offset`, or a drop.
    #[inline(always)]
    fn need<const N: usize>(self, offset: usize) -> Result<Window<N>, DropReason> {
        match self.window(offset) {
            Some(window) => Ok(window),
            None => Err(Truncated),
        }
    }
}

/// Packet bytes whose presence is proven. Reads and writes are checked against `N` when compiled.
#[derive(Clone, Copy)]
pub struct Window<const N: usize> {
    start: usize,
}

impl<const N: usize> Window<N> {
    /// Reads a value at `AT`, in the packet's byte order.
    #[inline(always)]
    pub fn get<T: Abi, const AT: usize>(self) -> T {
        const { assert!(AT + size_of::<T>() <= N) };
        // SAFETY: `start..start + N` was compared with the packet's end, and the offset is inside;
        // any bit pattern is a `T`. Packets are loaded whole, without regard to alignment, which
        // the kernel allows on the architectures it reports efficient unaligned access for.
        unsafe { *((self.start + AT) as *const T) }
    }

    /// Writes a value at `AT`.
    #[inline(always)]
    pub fn set<T: Abi, const AT: usize>(self, value: T) {
        const { assert!(AT + size_of::<T>() <= N) };
        // SAFETY: as in `get`.
        unsafe { *((self.start + AT) as *mut T) = value }
    }

    /// Reads an octet.
    #[inline(always)]
    pub fn u8<const AT: usize>(self) -> u8 {
        const { assert!(AT < N) };
        // SAFETY: as in `get`.
        unsafe { *((self.start + AT) as *const u8) }
    }

    /// Writes an octet.
    #[inline(always)]
    pub fn set_u8<const AT: usize>(self, value: u8) {
        const { assert!(AT < N) };
        // SAFETY: as in `get`.
        unsafe { *((self.start + AT) as *mut u8) = value }
    }

    /// Reads 16 bits in the packet's byte order.
    #[inline(always)]
    pub fn u16<const AT: usize>(self) -> u16 {
        const { assert!(AT + 2 <= N) };
        // SAFETY: as in `get`.
        unsafe { *((self.start + AT) as *const u16) }
    }

    /// Writes 16 bits in the packet's byte order.
    #[inline(always)]
    pub fn set_u16<const AT: usize>(self, value: u16) {
        const { assert!(AT + 2 <= N) };
        // SAFETY: as in `get`.
        unsafe { *((self.start + AT) as *mut u16) = value }
    }

    /// Reads a hardware address.
    #[inline(always)]
    pub fn mac<const AT: usize>(self) -> [u8; 6] {
        const { assert!(AT + 6 <= N) };
        // SAFETY: as in `get`.
        let (high, low) = unsafe {
            (
                *((self.start + AT) as *const u32),
                *((self.start + AT + 4) as *const u16),
            )
        };
        let ([a, b, c, d], [e, f]) = (high.to_ne_bytes(), low.to_ne_bytes());
        [a, b, c, d, e, f]
    }

    /// Writes a hardware address.
    #[inline(always)]
    pub fn set_mac<const AT: usize>(self, mac: [u8; 6]) {
        let [a, b, c, d, e, f] = mac;
        const { assert!(AT + 6 <= N) };
        // SAFETY: as in `get`.
        unsafe {
            *((self.start + AT) as *mut u32) = u32::from_ne_bytes([a, b, c, d]);
            *((self.start + AT + 4) as *mut u16) = u16::from_ne_bytes([e, f]);
        }
    }
}

/// `BPF_F_PSEUDO_HDR`: the change is in the pseudo-header, not in what a device sums.
pub const PSEUDO_HEADER: u64 = 0x10;

/// `BPF_F_MARK_MANGLED_0`: a UDP checksum of 0 means that there is none, and stays.
pub const ZERO_IS_NONE: u64 = 0x20;

/// Delivers to the other end of a veth pair, in its namespace. Only from ingress.
#[inline(always)]
pub fn redirect_peer(ifindex: u32) -> i64 {
    // SAFETY: takes no pointers.
    unsafe { helper::bpf_redirect_peer(ifindex, 0) }
}

/// Sends by a device as it is.
#[inline(always)]
pub fn redirect(ifindex: u32) -> i64 {
    // SAFETY: takes no pointers.
    unsafe { helper::bpf_redirect(ifindex, 0) }
}

/// `BPF_F_INGRESS`.
const INGRESS: u64 = 1;

/// Hands over as if it came in by a device.
#[inline(always)]
pub fn redirect_in(ifindex: u32) -> i64 {
    // SAFETY: takes no pointers.
    unsafe { helper::bpf_redirect(ifindex, INGRESS) }
}

/// Sends by a device, to a next hop whose hardware address the kernel resolves.
#[inline(always)]
pub fn redirect_neigh(ifindex: u32, next_hop: &mut bpf_redir_neigh) -> i64 {
    // SAFETY: the kernel reads `next_hop` for its given size.
    unsafe { helper::bpf_redirect_neigh(ifindex, next_hop, size_of::<bpf_redir_neigh>() as i32, 0) }
}

/// Looks up a route; 0 or a `BPF_FIB_LKUP_RET_*`.
#[inline(always)]
pub fn fib_lookup<C: Ctx>(ctx: C, params: &mut bpf_fib_lookup, flags: u32) -> i64 {
    // SAFETY: the kernel reads and writes `params` for its given size.
    unsafe {
        helper::bpf_fib_lookup(
            ctx.as_raw(),
            params,
            size_of::<bpf_fib_lookup>() as i32,
            flags,
        )
    }
}

/// The kernel's tick counter.
#[inline(always)]
pub fn jiffies() -> u32 {
    // SAFETY: takes no arguments.
    unsafe { helper::bpf_jiffies64() as u32 }
}

/// Monotonic time in nanoseconds.
#[inline(always)]
pub fn monotonic_ns() -> u64 {
    // SAFETY: takes no arguments.
    unsafe { helper::bpf_ktime_get_ns() }
}

/// Calls a step with 0, 1 and so on, at most `count` times, until it returns 1.
#[inline(always)]
pub fn repeat<T>(count: u32, step: extern "C" fn(u32, *mut T) -> i64, state: &mut T) {
    let state: *mut T = state;
    // SAFETY: the kernel calls `step` with an index and `state`, which outlives the call.
    unsafe { helper::bpf_loop(count, step as *mut _, state.cast(), 0) };
}

/// A random word.
#[inline(always)]
pub fn random() -> u32 {
    // SAFETY: takes no arguments.
    unsafe { helper::bpf_get_prandom_u32() }
}

/// Adds to a word that other CPUs change too.
#[inline(always)]
pub fn atomic_add(word: &mut u32, delta: u32) {
    let at: *mut u32 = word;
    // SAFETY: `at` is valid for the instruction; the kernel allows it on map values.
    unsafe { asm!("lock *(u32 *)({0} + 0) += {1}", in(reg) at, in(reg) delta as u64) };
}

/// IPv6 extension headers that are followed; RFC 8200 knows six kinds.
const MAX_EXTENSIONS: u32 = 6;

/// The result of [`tc_ext6`] for a chain that cannot be followed.
pub const EXT6_BAD: u64 = u64::MAX;

#[inline(always)]
fn walk_extensions<C: Ctx>(ctx: C, offset: u32, next: u32) -> u64 {
    use dataplane_common::net::proto;
    let (mut offset, mut next) = (offset, next as u8);
    let (mut fragment, mut id) = (0u64, 0u32);
    // Once more than there may be headers: the last round finds what is behind them.
    for _ in 0..=MAX_EXTENSIONS {
        let words = match next {
            proto::HOP_BY_HOP
            | proto::ROUTING
            | proto::DESTINATION_OPTIONS
            | proto::FRAGMENT
            | proto::AUTHENTICATION => next,
            _ => {
                return next as u64 | (offset as u64) << 8 | fragment << 24 | (id as u64) << 32;
            }
        };
        let Some(header) = ctx.window::<8>(offset as usize) else {
            return EXT6_BAD;
        };
        let length = header.u8::<1>() as u32;
        offset += match words {
            proto::FRAGMENT => {
                let field = u16::from_be(header.u16::<2>());
                id = header.get::<u32, 4>();
                let more = field & 1 != 0;
                fragment = match (field >> 3, more) {
                    (0, false) => 0,
                    (0, true) => 1,
                    _ => 2,
                };
                8
            }
            proto::AUTHENTICATION => (length + 2) * 4,
            _ => (length + 1) * 8,
        };
        next = header.u8::<0>();
        if fragment == 2 {
            return next as u64 | (offset as u64) << 8 | fragment << 24 | (id as u64) << 32;
        }
        if offset as usize > MAX_OFFSET - 64 {
            return EXT6_BAD;
        }
    }
    EXT6_BAD
}
