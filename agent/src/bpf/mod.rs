//! The kernel programs and maps: loading, pinning, attaching, adopting, reading and writing.

mod attach;
mod bulk;
mod cgroup;
mod cleanup;
mod clsact;
mod error;
mod layout;
mod load;
mod maps;
mod own;
mod pin;
mod probe;
mod program;
mod ring;
mod store;
mod sys;
mod xdp;

pub use attach::{AttachMode, Attached, FirstEntry};
pub use bulk::Pass;
pub use cleanup::{CleanupReport, cleanup};
pub use error::Error;
pub use layout::KeptCapacity;
pub use load::{Adoption, Dataplane, LoadOptions, is_pinned, open};
pub use maps::{Counters, Maps, Table, online_cpus};
pub use probe::{Jiffies, find_cgroup_root, kernel_hz, knows_csum_ipv6, netns_cookie};
pub use program::{Hook, SOCKET_HOOKS};
pub use ring::Ring;
pub use store::Store;
pub use sys::give_back_memory;
pub use xdp::{EARLY, Early, XdpSetting};

/// The compiled kernel programs that are embedded in this binary.
///
/// # Errors
///
/// It was built without them.
pub fn object() -> Result<&'static [u8], Error> {
    static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/sluice-ebpf"));
    if OBJECT.is_empty() {
        return Err(Error::NoObject);
    }
    Ok(OBJECT)
}
