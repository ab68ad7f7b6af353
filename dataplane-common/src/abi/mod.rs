//! Keys and values of the BPF maps.
//!
//! Every type is `repr(C)`, has no implicit padding and a size that is asserted at compile time.
//! Addresses and ports are in network byte order at rest ([`Addr4`], [`Addr6`], [`Port`]);
//! everything else is in the byte order of the host.

mod addr;
mod config;
mod conntrack;
mod event;
mod maps;
mod pod;
mod policy;
mod service;

pub use addr::{Addr4, Addr6, Address, Port};
pub use config::{Config, config_flags};
pub use conntrack::{CtKey, CtVal, FragKey, FragVal, ct_flags};
pub use event::{DropKey, DropVal, FlowEvent, Hook, audit_count, event_count, hook};
pub use maps::{ABI_VERSION, IdKey, IdVal, XdpDevice, capacity, name, xdp_count, xdp_mode};
pub use pod::{DNS_PROXY, IdentityVal, Subject, identity_flags, subject_flags, subject_state};
pub use policy::{
    CidrKey, CidrVal, Claim, PORT_SEARCH_STEPS, PortBound, PortSpan, RowKey, RowVal, RulesetVal,
    SourceRangeKey, action, cidr_flags, peer, ruleset_flags,
};
pub use service::{
    AffinityKey, AffinityVal, BackendVal, ClassVal, MAX_CLASSES, ServiceKey, ServiceVal, SlotVal,
    SockRevKey, SockRevVal, backend_flags, scope, service_flags,
};

/// Marks a type whose bytes may be copied to and from a BPF map.
///
/// # Safety
///
/// The type is `repr(C)` or `repr(transparent)`, has no padding bytes, and every bit pattern is a
/// valid value of it.
pub unsafe trait Abi: Copy + 'static {}

// SAFETY: integers have no padding and no invalid bit pattern.
unsafe impl Abi for u32 {}
// SAFETY: as above.
unsafe impl Abi for u64 {}

/// The bytes of a key or value, as a map holds them.
pub fn bytes_of<T: Abi>(value: &T) -> &[u8] {
    // SAFETY: `T` is `Abi`: no padding, so all its bytes are initialised; they live as long as `value`.
    unsafe { core::slice::from_raw_parts((&raw const *value).cast(), size_of::<T>()) }
}

/// The key or value with these bytes; `None` if their number is not its size.
pub fn from_bytes<T: Abi>(bytes: &[u8]) -> Option<T> {
    if bytes.len() != size_of::<T>() {
        return None;
    }
    // SAFETY: `bytes` has the size of `T`, of which every bit pattern is a valid value.
    Some(unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
}

/// Implements [`Abi`] for a type and asserts its size, which is the sum of its fields' sizes: a
/// padding byte that a program leaves undefined makes a key that nothing finds.
macro_rules! abi {
    ($($ty:ty = $size:expr),+ $(,)?) => {
        $(
            // SAFETY: `repr(C)`, integers only; the asserted size leaves no room for padding.
            unsafe impl $crate::abi::Abi for $ty {}
            const _: () = assert!(core::mem::size_of::<$ty>() == $size);
        )+
    };
}
pub(crate) use abi;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_round_trip() {
        let key = IdKey {
            high: 1,
            low: 2,
            kind: 3,
            reserved: 0,
        };
        assert_eq!(from_bytes::<IdKey>(bytes_of(&key)), Some(key));
        assert_eq!(from_bytes::<IdKey>(&bytes_of(&key)[1..]), None);
        assert_eq!(bytes_of(&Port::new(0x1234)), [0x12, 0x34]);
    }
}
