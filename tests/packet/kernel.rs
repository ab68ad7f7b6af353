//! The real programs and maps, loaded once for each mode that tests ask for.

use std::{
    collections::BTreeSet,
    env, fs,
    os::fd::{AsFd, BorrowedFd},
    path::PathBuf,
    sync::{Mutex, MutexGuard, OnceLock},
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Map, RingBuf},
    programs::{SchedClassifier, Xdp},
};
use dataplane_common::{
    abi::{Abi, Config, FlowEvent, Hook, bytes_of, capacity, config_flags, from_bytes, hook, name},
    verdict::DropReason,
};

use crate::{
    netns,
    sys::{self, Input},
};

/// Settings that programs are loaded with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// As by default: same-node traffic is redirected, generous limits.
    Redirect,
    /// Same-node traffic goes through the stack, and the pods' egress to their node is policed.
    Stack,
    /// Redirecting, with small limits (see the constants of this module); allowed flows stay allowed.
    Tight,
    /// Policies are not enforced.
    Unpoliced,
    /// As [`Mode::Redirect`], beside another implementation of Services.
    Beside,
    /// As [`Mode::Redirect`], for random clusters, which have maps of their own.
    FuzzRedirect,
    /// Same-node traffic of random clusters goes through the stack.
    FuzzStack,
}

/// Ticks per second that programs are told; expiry is tested by changing entries, not by waiting.
pub const HZ: u32 = 250;
/// First port for translated sources.
pub const SNAT_FIRST: u16 = 61_000;
/// Ports for translated sources in [`Mode::Tight`].
pub const TIGHT_SNAT_COUNT: u16 = 4;
/// Half-open flows of one pod in [`Mode::Tight`].
pub const TIGHT_PER_POD: u32 = 4;
/// Half-open flows of the node in [`Mode::Tight`].
pub const TIGHT_TOTAL: u32 = 6;
/// Entries of a conntrack map in [`Mode::Tight`].
pub const TIGHT_CONNTRACK: u32 = 64;

/// Entries of a conntrack map for random clusters.
pub const FUZZ_CONNTRACK: u32 = 65_536;
/// Rulesets that there is room for: few enough that random clusters use each number many times.
pub const RULESETS: u32 = 4_096;

/// The early program of uplinks.
const EARLY: &str = "from_net_xdp";

const HOOKS: [(Hook, &str); 4] = [
    (hook::FROM_POD, "from_pod"),
    (hook::TO_POD, "to_pod"),
    (hook::FROM_NET, "from_net"),
    (hook::TO_NET, "to_net"),
];

/// Loaded programs and their maps.
pub struct Kernel {
    ebpf: Ebpf,
    /// Array elements that were written, to be zeroed.
    written: BTreeSet<(&'static str, u32)>,
}

impl Kernel {
    /// The programs of a mode, with empty maps; the calling thread enters the tests' namespace.
    pub fn take(mode: Mode) -> MutexGuard<'static, Kernel> {
        const MODES: usize = Mode::FuzzStack as usize + 1;
        static KERNELS: [OnceLock<Mutex<Kernel>>; MODES] = [const { OnceLock::new() }; MODES];
        netns::enter();
        let kernel = KERNELS[mode as usize].get_or_init(|| Mutex::new(Kernel::load(mode)));
        // A test that failed leaves nothing but map contents.
        let mut kernel = kernel
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        kernel.clear();
        kernel
    }

    fn load(mode: Mode) -> Kernel {
        let path = object();
        let object = fs::read(&path).unwrap_or_else(|error| {
            panic!(
                "{}: {error}; build it with `cargo xtask build-ebpf`",
                path.display()
            )
        });
        let config = config(mode);
        let mut loader = EbpfLoader::new();
        loader.override_global("CONFIG", bytes_of(&config), true);
        let conntrack = match mode {
            Mode::Tight => TIGHT_CONNTRACK,
            Mode::FuzzRedirect | Mode::FuzzStack => FUZZ_CONNTRACK,
            _ => 16_384,
        };
        let small = [
            (name::CONNTRACK.as_slice(), conntrack),
            (&name::SERVICES, 1_024),
            (&name::BACKENDS, 1_024),
            (&name::AFFINITY, 1_024),
            (&name::SOCK_REV, 64),
            (&name::FRAGMENTS, 1_024),
            (&name::IDENTITIES, 1_024),
            (&name::CIDRS, 1_024),
            (&name::SOURCE_RANGES, 1_024),
            (&[name::SLOTS, name::CLASSES, name::ROWS, name::IDS], 4_096),
            (&[name::RULESETS], RULESETS),
        ];
        for (maps, entries) in small {
            for map in maps {
                loader.map_max_entries(map, entries);
            }
        }
        let mut ebpf = loader.load(&object).expect("the object's maps are created");
        for (_, program) in HOOKS {
            let program: &mut SchedClassifier = ebpf
                .program_mut(program)
                .unwrap_or_else(|| panic!("no program {program} in {}", path.display()))
                .try_into()
                .expect("a classifier");
            program.load().expect("the verifier takes the program");
        }
        let early: &mut Xdp = ebpf
            .program_mut(EARLY)
            .unwrap_or_else(|| panic!("no program {EARLY} in {}", path.display()))
            .try_into()
            .expect("an XDP program");
        early.load().expect("the verifier takes the program");
        Kernel {
            ebpf,
            written: BTreeSet::new(),
        }
    }

    /// Runs a hook's program on a frame: its return code, and the frame as it left it.
    pub fn run(&self, hook: Hook, frame: &[u8], input: Input) -> (i32, Vec<u8>) {
        sys::test_run(self.program(hook), frame, input)
            .unwrap_or_else(|error| panic!("{} on {frame:02x?}: {error}", hook::name(hook)))
    }

    /// Runs the early program on a frame that came by the uplink: its action, and the frame as it
    /// left it.
    pub fn run_early(&self, frame: &[u8]) -> (u32, Vec<u8>) {
        let program: &Xdp = self
            .ebpf
            .program(EARLY)
            .and_then(|program| program.try_into().ok())
            .expect("loaded above");
        let fd = program.fd().expect("loaded above").as_fd();
        sys::test_run_early(fd, frame, netns::UPLINK)
            .unwrap_or_else(|error| panic!("{EARLY} on {frame:02x?}: {error}"))
    }

    /// A count of the early program's.
    pub fn early_count(&self, what: u32) -> u64 {
        self.sum(name::XDP_FRAMES, what)
    }

    fn program(&self, hook: Hook) -> BorrowedFd<'_> {
        let program: &SchedClassifier = self
            .ebpf
            .program(hook::name(hook))
            .and_then(|program| program.try_into().ok())
            .expect("loaded above");
        program.fd().expect("loaded above").as_fd()
    }

    /// True if the kernel runs programs on frames that are not linear. The frame is run.
    pub fn takes_paged(&self, hook: Hook, frame: &[u8], input: Input) -> bool {
        sys::test_run(self.program(hook), frame, input).is_ok()
    }

    /// Reads an element of a map.
    pub fn read<K: Abi, V: Abi>(&self, map: &str, key: &K) -> Option<V> {
        let mut value = vec![0; size_of::<V>()];
        sys::lookup(self.fd(map), bytes_of(key), &mut value)
            .expect("a lookup of the map's own sizes")
            .then(|| from_bytes(&value).expect("the value's size"))
    }

    /// Writes an element of a hash or trie.
    pub fn write<K: Abi, V: Abi>(&self, map: &str, key: &K, value: &V) {
        self.write_bytes(map, bytes_of(key), bytes_of(value));
    }

    /// Writes an element.
    pub fn write_bytes(&self, map: &str, key: &[u8], value: &[u8]) {
        sys::update(self.fd(map), key, value)
            .unwrap_or_else(|error| panic!("writing to {map}: {error}"));
    }

    /// Removes an element, if it is there.
    pub fn remove(&self, map: &str, key: &[u8]) {
        sys::delete(self.fd(map), key)
            .unwrap_or_else(|error| panic!("deleting from {map}: {error}"));
    }

    /// Writes an element of an array.
    pub fn write_at<V: Abi>(&mut self, map: &'static str, index: u32, value: &V) {
        self.write(map, &index, value);
        self.written.insert((map, index));
    }

    /// All keys of a map.
    pub fn keys<K: Abi>(&self, map: &str) -> Vec<K> {
        let mut key = vec![0; size_of::<K>()];
        let mut keys = Vec::new();
        let mut more = sys::first_key(self.fd(map), &mut key).expect("a map with keys");
        while more {
            keys.push(from_bytes(&key).expect("the key's size"));
            let after = key.clone();
            more = sys::next_key(self.fd(map), &after, &mut key).expect("a map with keys");
        }
        keys
    }

    /// Packets dropped so far, by reason.
    pub fn drops(&self) -> Vec<(DropReason, u64)> {
        let read = |reason: DropReason| (reason, self.sum(name::DROPS, reason as u32));
        DropReason::ALL.iter().map(|&reason| read(reason)).collect()
    }

    /// An element of a per-CPU array, all CPUs together.
    pub fn sum(&self, map: &str, index: u32) -> u64 {
        let mut counts = vec![0; cpus() * 8];
        sys::lookup(self.fd(map), bytes_of(&index), &mut counts).expect("an element of the array");
        let words = counts.chunks_exact(8);
        words.map(|word| from_bytes::<u64>(word).unwrap_or(0)).sum()
    }

    /// Takes the flow events out of the ring.
    pub fn events(&mut self) -> Vec<FlowEvent> {
        let map = self
            .ebpf
            .map_mut(name::EVENTS)
            .expect("a map of the object");
        let mut ring = RingBuf::try_from(map).expect("a ring");
        let mut events = Vec::new();
        while let Some(item) = ring.next() {
            events.push(from_bytes(&item).expect("an event's size"));
        }
        events
    }

    fn clear(&mut self) {
        for (map, index) in std::mem::take(&mut self.written) {
            let size = self.value_size(map);
            sys::update(self.fd(map), bytes_of(&index), &vec![0; size]).expect("it was written");
        }
        let pairs = [
            name::SERVICES,
            name::AFFINITY,
            name::IDENTITIES,
            name::CIDRS,
            name::SOURCE_RANGES,
        ];
        for map in
            pairs
                .as_flattened()
                .iter()
                .chain([&name::ROWS, &name::SUBJECTS_OVERFLOW, &name::TOLD])
        {
            self.empty(map);
        }
        self.forget_flows();
        self.events();
    }

    /// Removes all flows, and the fragments that are known.
    pub fn forget_flows(&self) {
        for map in [name::CONNTRACK, name::FRAGMENTS].as_flattened() {
            self.empty(map);
        }
        for word in 0..capacity::EVENT_BUDGET {
            let zeroes = vec![0; cpus() * 8];
            sys::update(self.fd(name::EVENT_BUDGET), bytes_of(&word), &zeroes)
                .expect("an element of the array");
        }
        for place in (netns::UPLINK..netns::UPLINK + 16).chain([capacity::HALF_OPEN - 1]) {
            self.write(name::HALF_OPEN, &place, &0u32);
        }
    }

    fn empty(&self, map: &str) {
        let mut key = vec![0; self.key_size(map)];
        let mut more = sys::first_key(self.fd(map), &mut key).expect("a map with keys");
        while more {
            let gone = key.clone();
            more = sys::next_key(self.fd(map), &gone, &mut key).expect("a map with keys");
            self.remove(map, &gone);
        }
    }

    fn map(&self, name: &str) -> &aya::maps::MapData {
        match self.ebpf.map(name) {
            Some(
                Map::Array(data)
                | Map::HashMap(data)
                | Map::LruHashMap(data)
                | Map::LpmTrie(data)
                | Map::PerCpuArray(data),
            ) => data,
            _ => panic!("the object has no map {name} of a kind that is used here"),
        }
    }

    fn fd(&self, name: &str) -> BorrowedFd<'_> {
        self.map(name).fd().as_fd()
    }

    fn key_size(&self, name: &str) -> usize {
        self.map(name)
            .info()
            .expect("a map's description")
            .key_size() as usize
    }

    fn value_size(&self, name: &str) -> usize {
        self.map(name)
            .info()
            .expect("a map's description")
            .value_size() as usize
    }
}

fn cpus() -> usize {
    aya::util::nr_cpus().expect("the number of CPUs")
}

fn object() -> PathBuf {
    env::var_os("SLUICE_BPF_OBJECT").map_or_else(
        || {
            PathBuf::from(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/../target/bpf/sluice-ebpf"
            ))
        },
        PathBuf::from,
    )
}

fn config(mode: Mode) -> Config {
    use config_flags::{
        CSUM_IPV6, KEEP_FLOWS, POLICE_HAIRPIN, POLICE_NODE_EGRESS, POLICY, REDIRECT, SERVICES,
    };
    let tight = mode == Mode::Tight;
    let flags = match mode {
        Mode::Redirect => REDIRECT | POLICY,
        Mode::Tight => REDIRECT | POLICY | KEEP_FLOWS,
        Mode::Stack => POLICY | POLICE_NODE_EGRESS | POLICE_HAIRPIN,
        Mode::Unpoliced => REDIRECT,
        Mode::Beside => REDIRECT | POLICY,
        Mode::FuzzRedirect => REDIRECT | POLICY,
        Mode::FuzzStack => POLICY,
    };
    let services = if mode == Mode::Beside { 0 } else { SERVICES };
    Config {
        netns_cookie: 0,
        flags: flags | services | CSUM_IPV6,
        hz: HZ,
        snat_first: SNAT_FIRST,
        snat_count: if tight { TIGHT_SNAT_COUNT } else { 4_000 },
        half_open_per_pod: if tight { TIGHT_PER_POD } else { 0 },
        half_open_total: if tight { TIGHT_TOTAL } else { 0 },
        error_rate: if tight { 1 } else { 1_000_000 },
        event_rate: if tight { 1 } else { 1_000_000 },
        reserved: 0,
    }
}
