//! How many ICMP errors a sender gets (RFC 1812 section 4.3.2.8, RFC 4443 section 2.4 f).

use aya_ebpf::{
    btf_maps::{Array, PerCpuArray},
    macros::btf_map,
};
use dataplane_common::{
    abi::{Addr6, Address, capacity},
    decide::budget,
    verdict::DropReason,
};

use crate::{
    maps::{self, element, local_element},
    packet::monotonic_ns,
};

/// Senders share the budget that their addresses are hashed to.
#[btf_map(name = "error_budgets")]
static BUDGETS: Array<u64, { capacity::ERROR_BUDGETS as usize }> = Array::new();

#[btf_map(name = "errors_held")]
static HELD: PerCpuArray<u64, { capacity::DROPS as usize }> = PerCpuArray::new();

/// Errors that a sender may get at once.
const BURST: u32 = 50;

/// True if a sender may be told of a packet that is dropped; else that is counted.
#[inline(always)]
pub fn may_tell<A: Address>(sender: A, reason: DropReason) -> bool {
    may_tell_hashed(hash(sender.to_mapped()), reason as u32) != 0
}

/// Not 0 if the sender with this hash may be told. A global function: the verifier checks it once.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn may_tell_hashed(hash: u32, reason: u32) -> u32 {
    // CPUs may write over each other's takings: one error too many.
    if let Some(full_at) = element(&BUDGETS, hash & (capacity::ERROR_BUDGETS - 1)) {
        let (kept, may) = budget::take(*full_at, monotonic_ns(), maps::error_rate(), BURST);
        *full_at = kept;
        if may {
            return 1;
        }
    }
    if let Some(count) = local_element(&HELD, reason) {
        *count += 1;
    }
    0
}

/// Spreads addresses over the budgets: Fibonacci hashing, whose highest bits are the mixed ones.
#[inline(always)]
fn hash(sender: Addr6) -> u32 {
    const GOLDEN_RATIO: u64 = 0x9e37_79b9_7f4a_7c15;
    let folded = sender.high.wrapping_mul(3).wrapping_add(sender.low);
    let bits = capacity::ERROR_BUDGETS.trailing_zeros();
    (folded.wrapping_mul(GOLDEN_RATIO) >> (u64::BITS - bits)) as u32
}
