//! Chooses a backend for a new flow to a frontend.

use aya_ebpf::{
    btf_maps::{Array, PerCpuArray},
    macros::btf_map,
};
use dataplane_common::{
    abi::{
        Address, AffinityKey, AffinityVal, BackendVal, ClassVal, CtVal, MAX_CLASSES, Port,
        ServiceKey, ServiceVal, SlotVal, SourceRangeKey, capacity, service_flags,
    },
    decide::{
        balance::{BACKEND_STEP, CLASS_STEP, in_class, index},
        conntrack::is_expired,
    },
    verdict::DropReason,
};

use crate::{
    family::Family,
    maps::{self, Table, element, local_element},
    packet::{jiffies, random, repeat, zero},
};

#[btf_map(name = "slots")]
static SLOTS: Array<SlotVal, { capacity::SLOTS as usize }> = Array::new();

#[btf_map(name = "classes")]
static CLASSES: Array<ClassVal, { capacity::CLASSES as usize }> = Array::new();

/// This CPU's draws: two walks that are independent of each other.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Draws {
    class: u32,
    backend: u32,
}

#[btf_map(name = "draws")]
static DRAWS: PerCpuArray<Draws, 1> = PerCpuArray::new();

/// A chosen backend.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Choice<A> {
    /// Its address.
    pub addr: A,
    /// Its port.
    pub port: Port,
    /// Its flags.
    pub flags: u16,
    /// Its index.
    pub backend: u32,
    /// Its generation.
    pub generation: u32,
    /// First place of its block.
    pub base: u32,
    /// Places in its block.
    pub count: u32,
    /// Its place in the block.
    pub at: u32,
    /// `service_flags` of its frontend.
    pub service_flags: u32,
}

impl<A: Address> Choice<A> {
    /// A record to fill, for a client that dials an address.
    #[inline(always)]
    pub fn none(dialled: A) -> Self {
        let zero = zero();
        Self {
            addr: dialled,
            port: Port(zero as u16),
            flags: zero as u16,
            backend: zero,
            generation: zero,
            base: zero,
            count: zero,
            at: zero,
            service_flags: zero,
        }
    }
}

/// The frontend at an address and port, for a scope.
#[inline(always)]
pub fn lookup<F: Family>(
    addr: F::Addr,
    port: Port,
    proto: u8,
    scope: u8,
) -> Option<&'static ServiceVal> {
    let key = ServiceKey {
        addr,
        port,
        proto,
        scope,
        reserved: 0,
    };
    F::services().find(&key).map(|service| &*service)
}

/// True for an address all of whose ports are Services', for a scope: other ports are refused.
#[inline(always)]
pub fn owns<F: Family>(addr: F::Addr, scope: u8) -> bool {
    lookup::<F>(addr, Port(zero() as u16), zero() as u8, scope).is_some()
}

/// True unless the frontend has source ranges and the client is outside of them.
#[inline(always)]
pub fn admits<F: Family>(service: &ServiceVal, client: F::Addr) -> bool {
    if service.flags & service_flags::SOURCE_RANGES == 0 {
        return true;
    }
    let bits = size_of::<F::Addr>() as u32 * 8;
    let key = SourceRangeKey::of_source_set(service.source_set, client, bits);
    service.source_set != 0 && maps::longest_prefix(F::source_ranges(), &key).is_some()
}

/// True while the backend that the flow was given still stands in its place.
#[inline(always)]
pub fn is_backend_alive<F: Family>(entry: &CtVal<F::Addr>) -> bool {
    match element(F::backends(), entry.backend) {
        Some(backend) => backend.generation == entry.generation && backend.service_port != 0,
        None => false,
    }
}

/// Where this CPU's walks stand.
#[inline(always)]
pub fn draws() -> Draws {
    match local_element(&DRAWS, 0) {
        Some(draws) => *draws,
        None => Draws {
            class: zero(),
            backend: zero(),
        },
    }
}

/// Takes back draws: those after the given state.
#[inline(always)]
pub fn set_draws(state: Draws) {
    if let Some(draws) = local_element(&DRAWS, 0) {
        *draws = state;
    }
}

/// Chooses a backend for a client; `out` is set if the result is `Ok`.
#[inline(always)]
pub fn choose<F: Family>(
    service: &ServiceVal,
    client: F::Addr,
    out: &mut Choice<F::Addr>,
) -> Result<(), DropReason> {
    if service.affinity_secs != 0 && pinned::<F>(service, client, out) {
        return Ok(());
    }
    draw::<F>(service, out)?;
    if service.affinity_secs != 0 {
        pin::<F>(service, client, out);
    }
    Ok(())
}

/// Chooses the backend after the present one in its block.
#[inline(always)]
pub fn choose_next<F: Family>(out: &mut Choice<F::Addr>) -> bool {
    let next = out.at + 1;
    out.at = if next >= out.count { 0 } else { next };
    load::<F>(out)
}

#[inline(always)]
fn draw<F: Family>(service: &ServiceVal, out: &mut Choice<F::Addr>) -> Result<(), DropReason> {
    let Some(draws) = local_element(&DRAWS, 0) else {
        return Err(DropReason::Internal);
    };
    if draws.backend == 0 {
        draws.class = random();
        draws.backend = random() | 1;
    }
    out.base = service.base;
    out.count = service.count as u32;
    if service.classes != 0 {
        draws.class = draws.class.wrapping_add(CLASS_STEP);
        choose_class(service, draws.class, &mut out.base, &mut out.count);
    }
    if out.count == 0 {
        if service.flags & service_flags::DROP_IF_EMPTY != 0 {
            return Err(DropReason::NoLocalBackend);
        }
        return Err(DropReason::NoBackend);
    }
    draws.backend = draws.backend.wrapping_add(BACKEND_STEP);
    out.at = index(draws.backend, out.count);
    if load::<F>(out) {
        return Ok(());
    }
    Err(DropReason::NoBackend)
}

#[inline(always)]
fn choose_class(service: &ServiceVal, draw: u32, base: &mut u32, count: &mut u32) {
    *count = 0;
    for i in 0..MAX_CLASSES as u32 {
        if i >= service.classes as u32 {
            return;
        }
        let Some(class) = element(&CLASSES, service.class_base.wrapping_add(i)) else {
            return;
        };
        if in_class(draw, class.threshold) {
            *base = class.base;
            *count = class.count as u32;
            return;
        }
    }
}

/// Reads the backend at `out.at` of its block.
#[inline(always)]
fn load<F: Family>(out: &mut Choice<F::Addr>) -> bool {
    let Some(slot) = element(&SLOTS, out.base.wrapping_add(out.at)) else {
        return false;
    };
    let Some(backend) = element(F::backends(), slot.backend) else {
        return false;
    };
    fill::<F>(slot.backend, backend, out)
}

#[inline(always)]
fn fill<F: Family>(number: u32, backend: &BackendVal<F::Addr>, out: &mut Choice<F::Addr>) -> bool {
    out.backend = number;
    out.addr = backend.addr;
    out.port = backend.port;
    out.flags = backend.flags;
    out.generation = backend.generation;
    backend.service_port != 0
}

/// True if the client is pinned to a backend that still serves.
#[inline(always)]
fn pinned<F: Family>(service: &ServiceVal, client: F::Addr, out: &mut Choice<F::Addr>) -> bool {
    let Some(pin) = F::affinity().find(&affinity_key(service, client)) else {
        return false;
    };
    let now = jiffies();
    if is_expired(pin.last_used, now, service.affinity_secs, maps::hz()) {
        return false;
    }
    let Some(backend) = element(F::backends(), pin.backend) else {
        return false;
    };
    if backend.service_port != service.service_port
        || backend.generation != pin.generation
        || !is_in_block(service, pin)
    {
        return false;
    }
    pin.last_used = now;
    out.base = service.base;
    out.count = 0;
    out.at = pin.at;
    fill::<F>(pin.backend, backend, out)
}

/// True if the pinned backend stands in the frontend's present block: one that only has a weight of
/// 0 by now, or serves another scope, is none to go to. Its place is looked for if the block is another one.
#[inline(always)]
fn is_in_block(service: &ServiceVal, pin: &mut AffinityVal) -> bool {
    if pin.at < service.count as u32 && stands_at(service.base.wrapping_add(pin.at), pin.backend) {
        return true;
    }
    let mut search = Search {
        base: service.base,
        backend: pin.backend,
        at: u32::MAX,
    };
    repeat(service.count as u32, find_backend, &mut search);
    pin.at = search.at;
    search.at != u32::MAX
}

#[inline(always)]
fn stands_at(place: u32, backend: u32) -> bool {
    match element(&SLOTS, place) {
        Some(slot) => slot.backend == backend,
        None => false,
    }
}

/// A backend that is looked for in a block, and its place there.
#[repr(C)]
struct Search {
    base: u32,
    backend: u32,
    at: u32,
}

/// Looks at one place of a block; 1 ends the search.
extern "C" fn find_backend(at: u32, search: *mut Search) -> i64 {
    // SAFETY: `repeat` passes on the reference that it was given.
    let search = unsafe { &mut *search };
    if !stands_at(search.base.wrapping_add(at), search.backend) {
        return 0;
    }
    search.at = at;
    1
}

#[inline(always)]
fn pin<F: Family>(service: &ServiceVal, client: F::Addr, choice: &Choice<F::Addr>) {
    let value = AffinityVal {
        backend: choice.backend,
        generation: choice.generation,
        last_used: jiffies(),
        at: place_in_block(service, choice),
    };
    // Without room the client is balanced anew next time.
    let _ = F::affinity().put(&affinity_key(service, client), &value);
}

/// The place where [`is_in_block`] looks first: known for a backend that was drawn from the whole block.
#[inline(always)]
fn place_in_block<A>(service: &ServiceVal, choice: &Choice<A>) -> u32 {
    if choice.base == service.base {
        choice.at
    } else {
        u32::MAX
    }
}

#[inline(always)]
fn affinity_key<A: Address>(service: &ServiceVal, client: A) -> AffinityKey<A> {
    AffinityKey {
        client,
        service_port: service.service_port,
        reserved: 0,
    }
}
