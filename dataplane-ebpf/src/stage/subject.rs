//! The pods of this node, by device.

use aya_ebpf::{
    btf_maps::{Array, HashMap},
    macros::btf_map,
};
use dataplane_common::abi::{IdentityVal, Subject, capacity, identity_flags};

use crate::{
    family::Family,
    maps::{Table, element},
};

#[btf_map(name = "subjects")]
static SUBJECTS: Array<Subject, { capacity::SUBJECTS as usize }> = Array::new();

#[btf_map(name = "subjects_over")]
static OVERFLOW: HashMap<u32, Subject, { capacity::SUBJECTS_OVERFLOW as usize }> = HashMap::new();

/// The place of a device in arrays that have one for each pod.
#[inline(always)]
pub fn place(ifindex: u32) -> u32 {
    ifindex & (capacity::SUBJECTS - 1)
}

/// The pod behind a host-side device; `None` for a device that has no entry.
#[inline(always)]
pub fn by_device(ifindex: u32) -> Option<&'static Subject> {
    let subject = element(&SUBJECTS, place(ifindex))?;
    if subject.ifindex == ifindex {
        return Some(subject);
    }
    OVERFLOW.find(&ifindex).map(|subject| &*subject)
}

/// The DNS proxy, for the pod behind a host-side device.
#[inline(always)]
pub fn dns_proxy(ifindex: u32) -> Option<&'static Subject> {
    // 0 is the mark of an empty place.
    match by_device(ifindex)?.dns_proxy {
        0 => None,
        proxy => by_device(proxy),
    }
}

/// What an address is; unknown addresses are the world.
#[inline(always)]
pub fn identity<F: Family>(addr: &F::Addr) -> IdentityVal {
    match F::identities().find(addr) {
        Some(found) => *found,
        None => IdentityVal {
            identity: 0,
            ifindex: 0,
            flags: 0,
        },
    }
}

/// What nobody has asked yet ([`asked`]).
pub const UNASKED: IdentityVal = IdentityVal {
    identity: 0,
    ifindex: 0,
    flags: u32::MAX,
};

/// What an address is, looked up unless `answer` knows.
#[inline(always)]
pub fn asked<'a, F: Family>(answer: &'a mut IdentityVal, addr: &F::Addr) -> &'a IdentityVal {
    if answer.flags == UNASKED.flags {
        *answer = identity::<F>(addr);
    }
    answer
}

/// True for an address of this node.
#[inline(always)]
pub fn is_this_node<F: Family>(addr: &F::Addr) -> bool {
    identity::<F>(addr).flags & identity_flags::NODE != 0
}
