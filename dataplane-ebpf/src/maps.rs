//! Access to maps and settings. The maps themselves stand in the stages that own them.

use aya_ebpf::btf_maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, lpm_trie::Key};
use dataplane_common::abi::{CidrKey, Config};

/// The programs' settings; the loader writes them before the programs are verified.
#[unsafe(no_mangle)]
static CONFIG: aya_ebpf::Global<Config> = aya_ebpf::Global::new(Config {
    netns_cookie: 0,
    flags: 0,
    hz: 250,
    snat_first: 61_000,
    snat_count: 4_000,
    half_open_per_pod: 0,
    half_open_total: 0,
    error_rate: 0,
    event_rate: 0,
    reserved: 0,
});

/// Reads one field of the settings: the verifier knows its value and prunes by it.
macro_rules! setting {
    ($name:ident: $ty:ty) => {
        /// The setting of this name.
        #[inline(always)]
        pub fn $name() -> $ty {
            let config = (&raw const CONFIG).cast::<Config>();
            // SAFETY: `Global<Config>` is a transparent wrapper of an initialised `Config`;
            // volatile, because the loader changes it after compilation.
            unsafe { (&raw const (*config).$name).read_volatile() }
        }
    };
}

setting!(netns_cookie: u64);
setting!(flags: u32);
setting!(hz: u32);
setting!(snat_first: u16);
setting!(snat_count: u16);
setting!(half_open_per_pod: u32);
setting!(half_open_total: u32);
setting!(error_rate: u32);
setting!(event_rate: u32);

/// True if a bit of `config_flags` is set.
#[inline(always)]
pub fn enabled(flag: u32) -> bool {
    flags() & flag != 0
}

/// Why an insertion failed.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum InsertError {
    /// The key is there already.
    Exists = 1,
    /// No room.
    Full = 2,
}

const EEXIST: i32 = -17;
const BPF_ANY: u64 = 0;
const BPF_NOEXIST: u64 = 1;

/// A table: lookups give references that stay valid for the run of the program, because the kernel
/// frees or reuses elements only after running programs have ended or keeps them in place; words
/// may change under them, as between CPUs.
pub trait Table<K, V> {
    /// The value of a key.
    fn find(&self, key: &K) -> Option<&'static mut V>;
    /// Adds a key that is not there.
    fn insert_new(&self, key: &K, value: &V) -> Result<(), InsertError>;
    /// Writes a key, there or not.
    fn put(&self, key: &K, value: &V) -> Result<(), InsertError>;
    /// Removes a key, if there.
    fn delete(&self, key: &K);
}

macro_rules! table {
    ($map:ident) => {
        impl<K: 'static, V: 'static, const N: usize, const F: usize> Table<K, V>
            for $map<K, V, N, F>
        {
            #[inline(always)]
            fn find(&self, key: &K) -> Option<&'static mut V> {
                // SAFETY: see `Table`.
                self.get_ptr_mut(key).map(|value| unsafe { &mut *value })
            }

            #[inline(always)]
            fn insert_new(&self, key: &K, value: &V) -> Result<(), InsertError> {
                status(self.insert(key, value, BPF_NOEXIST))
            }

            #[inline(always)]
            fn put(&self, key: &K, value: &V) -> Result<(), InsertError> {
                status(self.insert(key, value, BPF_ANY))
            }

            #[inline(always)]
            fn delete(&self, key: &K) {
                // A key that is already gone is what was asked for.
                let _ = self.remove(key);
            }
        }
    };
}

table!(HashMap);
table!(LruHashMap);

#[inline(always)]
fn status(result: Result<(), i32>) -> Result<(), InsertError> {
    match result {
        Ok(()) => Ok(()),
        Err(EEXIST) => Err(InsertError::Exists),
        Err(_) => Err(InsertError::Full),
    }
}

/// An array's element.
#[inline(always)]
pub fn element<T: 'static, const N: usize, const F: usize>(
    array: &Array<T, N, F>,
    index: u32,
) -> Option<&'static mut T> {
    // SAFETY: see `Table`; array elements are never freed while the program runs.
    array.get_ptr_mut(index).map(|value| unsafe { &mut *value })
}

/// This CPU's element of an array.
#[inline(always)]
pub fn local_element<T: 'static, const N: usize, const F: usize>(
    array: &PerCpuArray<T, N, F>,
    index: u32,
) -> Option<&'static mut T> {
    // SAFETY: as for `element`; hooks do not nest on a CPU.
    array.get_ptr_mut(index).map(|value| unsafe { &mut *value })
}

/// What an LPM trie's key holds after its length.
#[repr(C, packed)]
pub struct Prefix<A> {
    lead: u32,
    addr: A,
}

/// A trie of prefixes of one family.
pub type Trie<A, V, const N: usize> = LpmTrie<Prefix<A>, V, N>;

/// The value of the longest prefix that holds the key's address.
#[inline(always)]
pub fn longest_prefix<A: 'static, V: 'static, const N: usize>(
    trie: &'static Trie<A, V, N>,
    key: &CidrKey<A>,
) -> Option<&'static V> {
    const { assert!(size_of::<CidrKey<A>>() == size_of::<Key<Prefix<A>>>()) };
    let key: *const CidrKey<A> = key;
    // SAFETY: both are a length, a lead word and an address, in that order and without padding.
    trie.get(unsafe { &*key.cast() })
}
