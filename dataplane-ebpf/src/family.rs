//! The two address families: what differs between IPv4 and IPv6.

use aya_ebpf::{
    bindings::{bpf_fib_lookup, bpf_redir_neigh, bpf_redir_neigh__bindgen_ty_1},
    btf_maps::{Array, HashMap, LruHashMap, PerCpuArray},
    macros::btf_map,
};
use dataplane_common::{
    abi::{
        Addr4, Addr6, Address, AffinityKey, AffinityVal, BackendVal, CidrVal, CtKey, CtVal,
        FragKey, FragVal, IdentityVal, ServiceKey, ServiceVal, SockRevKey, SockRevVal, Subject,
        capacity, config_flags,
    },
    net::{checksum, ipv4, ipv6, proto},
    verdict::DropReason,
};

use crate::{
    maps::{self, Trie},
    packet::{Ctx, EXT6_BAD, zero},
    stage::{
        conntrack::Scratch,
        parse::{Frag, Packet},
    },
};

type Conntrack<A> = HashMap<CtKey<A>, CtVal<A>, { capacity::CONNTRACK as usize }>;
type Services<A> = HashMap<ServiceKey<A>, ServiceVal, { capacity::SERVICES as usize }>;
type Backends<A> = Array<BackendVal<A>, { capacity::BACKENDS as usize }>;
type Affinity<A> = LruHashMap<AffinityKey<A>, AffinityVal, { capacity::AFFINITY as usize }>;
type SockRev<A> = LruHashMap<SockRevKey<A>, SockRevVal<A>, { capacity::SOCK_REV as usize }>;
type Fragments<A> = LruHashMap<FragKey<A>, FragVal, { capacity::FRAGMENTS as usize }>;
type Identities<A> = HashMap<A, IdentityVal, { capacity::IDENTITIES as usize }>;
type Cidrs<A> = Trie<A, CidrVal, { capacity::CIDRS as usize }>;
type SourceRanges<A> = Trie<A, u32, { capacity::SOURCE_RANGES as usize }>;
type Work<A> = PerCpuArray<Scratch<A>, 1>;

/// An address family: its header, and its maps.
pub trait Family: Copy + 'static {
    /// Its addresses.
    type Addr: Address;
    /// True for IPv4.
    const IS_V4: bool;
    /// Its error protocol.
    const ICMP: u8;
    /// Length of the header without options.
    const HEADER: usize;

    /// Flows.
    fn conntrack() -> &'static Conntrack<Self::Addr>;
    /// Frontends.
    fn services() -> &'static Services<Self::Addr>;
    /// Backends by index.
    fn backends() -> &'static Backends<Self::Addr>;
    /// Pinned clients.
    fn affinity() -> &'static Affinity<Self::Addr>;
    /// Translated sockets.
    fn sock_rev() -> &'static SockRev<Self::Addr>;
    /// Fragmented datagrams.
    fn fragments() -> &'static Fragments<Self::Addr>;
    /// Known addresses.
    fn identities() -> &'static Identities<Self::Addr>;
    /// Policy prefixes.
    fn cidrs() -> &'static Cidrs<Self::Addr>;
    /// Whom source sets allow.
    fn source_ranges() -> &'static SourceRanges<Self::Addr>;
    /// Room for building entries, off the stack.
    fn scratch() -> Option<&'static mut Scratch<Self::Addr>>;

    /// Reads the network header at `l3`.
    fn parse<C: Ctx>(ctx: C, l3: u32, packet: &mut Packet<Self::Addr>) -> Result<(), DropReason>;
    /// Length of the packet at `l3`, as its header states it.
    fn stated_length<C: Ctx>(ctx: C, l3: u32) -> Result<u32, DropReason>;
    /// Writes addresses at `l3`, with what the header's own checksum needs.
    fn write_addresses<C: Ctx>(
        ctx: C,
        l3: u32,
        src: Self::Addr,
        dst: Self::Addr,
    ) -> Result<(), DropReason>;
    /// Counts a hop; the packet's hop limit must exceed 1.
    fn count_hop<C: Ctx>(ctx: C, l3: u32) -> Result<(), DropReason>;
    /// The one's-complement difference of an address change.
    fn checksum_diff(old: Self::Addr, new: Self::Addr) -> u32;
    /// Flags for checksum helpers when an address changes.
    fn checksum_flags() -> u64;
    /// The unspecified address, built at run time (see [`zero`]): the host as a client.
    fn host_client() -> Self::Addr;
    /// The pod's address of this family.
    fn address_of(subject: &Subject) -> Self::Addr;
    /// True for an address that has a meaning on its link only.
    fn is_link_scope(addr: Self::Addr) -> bool;
    /// True for multicast and broadcast.
    fn is_multicast(addr: Self::Addr) -> bool;
    /// A route query for a packet of a length in octets; 0: whatever its length.
    fn route_query(ifindex: u32, dst: Self::Addr, proto: u8, length: u16) -> bpf_fib_lookup;
    /// The source address in an answered route query.
    fn route_source(answer: &bpf_fib_lookup) -> Self::Addr;
    /// The next hop in an answered route query.
    fn next_hop(answer: &bpf_fib_lookup) -> bpf_redir_neigh;
}

/// Defines a family's maps and the functions that give them.
macro_rules! family_maps {
    ($addr:ty, $($vis:ident $name:literal $static:ident: $ty:ty;)+) => {
        $(
            #[btf_map(name = $name)]
            static $static: $ty = <$ty>::new();
        )+
    };
}

family_maps! { Addr4,
    conntrack "ct4" CT4: Conntrack<Addr4>;
    services "services4" SERVICES4: Services<Addr4>;
    backends "backends4" BACKENDS4: Backends<Addr4>;
    affinity "affinity4" AFFINITY4: Affinity<Addr4>;
    sock_rev "sock_rev4" SOCK_REV4: SockRev<Addr4>;
    fragments "frags4" FRAGMENTS4: Fragments<Addr4>;
    identities "identity4" IDENTITIES4: Identities<Addr4>;
    cidrs "cidr4" CIDRS4: Cidrs<Addr4>;
    source_ranges "source_ranges4" SOURCE_RANGES4: SourceRanges<Addr4>;
    scratch "scratch4" SCRATCH4: Work<Addr4>;
}

family_maps! { Addr6,
    conntrack "ct6" CT6: Conntrack<Addr6>;
    services "services6" SERVICES6: Services<Addr6>;
    backends "backends6" BACKENDS6: Backends<Addr6>;
    affinity "affinity6" AFFINITY6: Affinity<Addr6>;
    sock_rev "sock_rev6" SOCK_REV6: SockRev<Addr6>;
    fragments "frags6" FRAGMENTS6: Fragments<Addr6>;
    identities "identity6" IDENTITIES6: Identities<Addr6>;
    cidrs "cidr6" CIDRS6: Cidrs<Addr6>;
    source_ranges "source_ranges6" SOURCE_RANGES6: SourceRanges<Addr6>;
    scratch "scratch6" SCRATCH6: Work<Addr6>;
}

/// The functions of [`Family`] that give a family's maps.
macro_rules! map_accessors {
    (scratch = $scratch:ident $(, $name:ident: $ty:ident = $map:ident)+ $(,)?) => {
        $(
            #[inline(always)]
            fn $name() -> &'static $ty<Self::Addr> {
                &$map
            }
        )+

        #[inline(always)]
        fn scratch() -> Option<&'static mut Scratch<Self::Addr>> {
            maps::local_element(&$scratch, 0)
        }
    };
}

/// IPv4 (RFC 791).
#[derive(Clone, Copy)]
pub struct V4;

/// IPv6 (RFC 8200).
#[derive(Clone, Copy)]
pub struct V6;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

impl Family for V4 {
    type Addr = Addr4;
    const IS_V4: bool = true;
    const ICMP: u8 = proto::ICMP;
    const HEADER: usize = ipv4::LEN;

    map_accessors!(
        scratch = SCRATCH4,
        conntrack: Conntrack = CT4,
        services: Services = SERVICES4,
        backends: Backends = BACKENDS4,
        affinity: Affinity = AFFINITY4,
        sock_rev: SockRev = SOCK_REV4,
        fragments: Fragments = FRAGMENTS4,
        identities: Identities = IDENTITIES4,
        cidrs: Cidrs = CIDRS4,
        source_ranges: SourceRanges = SOURCE_RANGES4,
    );

    #[inline(always)]
    fn parse<C: Ctx>(ctx: C, l3: u32, packet: &mut Packet<Addr4>) -> Result<(), DropReason> {
        let header = ctx.need::<{ ipv4::LEN }>(l3 as usize)?;
        let version_ihl = header.u8::<{ ipv4::VERSION_IHL }>();
        let length = (version_ihl & 0xf) as u32 * 4;
        if version_ihl >> 4 != 4 || length < ipv4::LEN as u32 {
            return Err(DropReason::Malformed);
        }
        let fragment = u16::from_be(header.u16::<{ ipv4::FRAGMENT }>());
        packet.src = header.get::<Addr4, { ipv4::SRC }>();
        packet.dst = header.get::<Addr4, { ipv4::DST }>();
        packet.proto = header.u8::<{ ipv4::PROTO }>();
        packet.l3 = l3;
        packet.l4 = l3 + length;
        packet.frag_id = header.u16::<{ ipv4::ID }>() as u32;
        packet.frag = if fragment & ipv4::OFFSET_MASK != 0 {
            Frag::Later
        } else if fragment & ipv4::MORE_FRAGMENTS != 0 {
            Frag::First
        } else {
            Frag::None
        };
        Ok(())
    }

    #[inline(always)]
    fn stated_length<C: Ctx>(ctx: C, l3: u32) -> Result<u32, DropReason> {
        let header = ctx.need::<{ ipv4::LEN }>(l3 as usize)?;
        Ok(u16::from_be(header.u16::<{ ipv4::TOTAL_LENGTH }>()) as u32)
    }

    #[inline(always)]
    fn write_addresses<C: Ctx>(ctx: C, l3: u32, src: Addr4, dst: Addr4) -> Result<(), DropReason> {
        let header = ctx.need::<{ ipv4::LEN }>(l3 as usize)?;
        let (old_src, old_dst) = (
            header.get::<Addr4, { ipv4::SRC }>(),
            header.get::<Addr4, { ipv4::DST }>(),
        );
        let sum = header.u16::<{ ipv4::CHECKSUM }>();
        let sum = checksum::update32(sum, old_src.0, src.0);
        header.set_u16::<{ ipv4::CHECKSUM }>(checksum::update32(sum, old_dst.0, dst.0));
        header.set::<Addr4, { ipv4::SRC }>(src);
        header.set::<Addr4, { ipv4::DST }>(dst);
        Ok(())
    }

    #[inline(always)]
    fn count_hop<C: Ctx>(ctx: C, l3: u32) -> Result<(), DropReason> {
        const TTL: usize = 8;
        let header = ctx.need::<{ ipv4::LEN }>(l3 as usize)?;
        let old = header.u16::<TTL>();
        let ttl = header.u8::<TTL>();
        if ttl <= 1 {
            return Err(DropReason::HopLimit);
        }
        header.set_u8::<TTL>(ttl - 1);
        let sum = header.u16::<{ ipv4::CHECKSUM }>();
        header.set_u16::<{ ipv4::CHECKSUM }>(checksum::update16(sum, old, header.u16::<TTL>()));
        Ok(())
    }

    #[inline(always)]
    fn checksum_diff(old: Addr4, new: Addr4) -> u32 {
        checksum::diff32(old.0, new.0)
    }

    #[inline(always)]
    fn checksum_flags() -> u64 {
        0
    }

    #[inline(always)]
    fn host_client() -> Addr4 {
        Addr4(zero())
    }

    #[inline(always)]
    fn address_of(subject: &Subject) -> Addr4 {
        subject.addr4
    }

    #[inline(always)]
    fn is_link_scope(_addr: Addr4) -> bool {
        false
    }

    #[inline(always)]
    fn is_multicast(addr: Addr4) -> bool {
        addr.is_multicast()
    }

    #[inline(always)]
    fn route_query(ifindex: u32, dst: Addr4, proto: u8, length: u16) -> bpf_fib_lookup {
        query(
            AF_INET,
            ifindex,
            proto,
            length,
            [dst.0, zero(), zero(), zero()],
        )
    }

    #[inline(always)]
    fn route_source(answer: &bpf_fib_lookup) -> Addr4 {
        // SAFETY: every bit pattern is an address.
        Addr4(unsafe { answer.__bindgen_anon_3.ipv4_src })
    }

    #[inline(always)]
    fn next_hop(answer: &bpf_fib_lookup) -> bpf_redir_neigh {
        // SAFETY: every bit pattern is an address.
        neighbour(AF_INET, unsafe { answer.__bindgen_anon_4.ipv6_dst })
    }
}

impl Family for V6 {
    type Addr = Addr6;
    const IS_V4: bool = false;
    const ICMP: u8 = proto::ICMPV6;
    const HEADER: usize = ipv6::LEN;

    map_accessors!(
        scratch = SCRATCH6,
        conntrack: Conntrack = CT6,
        services: Services = SERVICES6,
        backends: Backends = BACKENDS6,
        affinity: Affinity = AFFINITY6,
        sock_rev: SockRev = SOCK_REV6,
        fragments: Fragments = FRAGMENTS6,
        identities: Identities = IDENTITIES6,
        cidrs: Cidrs = CIDRS6,
        source_ranges: SourceRanges = SOURCE_RANGES6,
    );

    #[inline(always)]
    fn parse<C: Ctx>(ctx: C, l3: u32, packet: &mut Packet<Addr6>) -> Result<(), DropReason> {
        let header = ctx.need::<{ ipv6::LEN }>(l3 as usize)?;
        if header.u8::<0>() >> 4 != 6 {
            return Err(DropReason::Malformed);
        }
        packet.src = header.get::<Addr6, { ipv6::SRC }>();
        packet.dst = header.get::<Addr6, { ipv6::DST }>();
        let next = header.u8::<{ ipv6::NEXT }>();
        packet.l3 = l3;
        packet.l4 = l3 + ipv6::LEN as u32;
        packet.proto = next;
        packet.frag = Frag::None;
        packet.frag_id = 0;
        if !matches!(
            next,
            proto::HOP_BY_HOP
                | proto::ROUTING
                | proto::FRAGMENT
                | proto::AUTHENTICATION
                | proto::DESTINATION_OPTIONS
        ) {
            return Ok(());
        }
        let found = ctx.skip_extensions6(packet.l4, next as u32);
        if found == EXT6_BAD {
            return Err(DropReason::ExtensionHeader);
        }
        packet.proto = found as u8;
        packet.l4 = (found >> 8) as u32 & 0xffff;
        packet.frag = match (found >> 24) as u8 {
            0 => Frag::None,
            1 => Frag::First,
            _ => Frag::Later,
        };
        packet.frag_id = (found >> 32) as u32;
        Ok(())
    }

    #[inline(always)]
    fn stated_length<C: Ctx>(ctx: C, l3: u32) -> Result<u32, DropReason> {
        let header = ctx.need::<{ ipv6::LEN }>(l3 as usize)?;
        let payload = u16::from_be(header.u16::<{ ipv6::PAYLOAD_LENGTH }>()) as u32;
        Ok(payload + ipv6::LEN as u32)
    }

    #[inline(always)]
    fn write_addresses<C: Ctx>(ctx: C, l3: u32, src: Addr6, dst: Addr6) -> Result<(), DropReason> {
        let header = ctx.need::<{ ipv6::LEN }>(l3 as usize)?;
        header.set::<Addr6, { ipv6::SRC }>(src);
        header.set::<Addr6, { ipv6::DST }>(dst);
        Ok(())
    }

    #[inline(always)]
    fn count_hop<C: Ctx>(ctx: C, l3: u32) -> Result<(), DropReason> {
        let header = ctx.need::<{ ipv6::LEN }>(l3 as usize)?;
        let limit = header.u8::<{ ipv6::HOP_LIMIT }>();
        if limit <= 1 {
            return Err(DropReason::HopLimit);
        }
        header.set_u8::<{ ipv6::HOP_LIMIT }>(limit - 1);
        Ok(())
    }

    #[inline(always)]
    fn checksum_diff(old: Addr6, new: Addr6) -> u32 {
        let high = add(
            checksum::diff32(old.high as u32, new.high as u32),
            checksum::diff32((old.high >> 32) as u32, (new.high >> 32) as u32),
        );
        let low = add(
            checksum::diff32(old.low as u32, new.low as u32),
            checksum::diff32((old.low >> 32) as u32, (new.low >> 32) as u32),
        );
        add(high, low)
    }

    #[inline(always)]
    fn checksum_flags() -> u64 {
        const BPF_F_IPV6: u64 = 0x80;
        if maps::enabled(config_flags::CSUM_IPV6) {
            BPF_F_IPV6
        } else {
            0
        }
    }

    #[inline(always)]
    fn host_client() -> Addr6 {
        Addr6 {
            high: zero() as u64,
            low: zero() as u64,
        }
    }

    #[inline(always)]
    fn address_of(subject: &Subject) -> Addr6 {
        subject.addr6
    }

    #[inline(always)]
    fn is_link_scope(addr: Addr6) -> bool {
        addr.is_link_local() || addr == Addr6::UNSPECIFIED
    }

    #[inline(always)]
    fn is_multicast(addr: Addr6) -> bool {
        addr.is_multicast()
    }

    #[inline(always)]
    fn route_query(ifindex: u32, dst: Addr6, proto: u8, length: u16) -> bpf_fib_lookup {
        query(AF_INET6, ifindex, proto, length, words(dst))
    }

    #[inline(always)]
    fn route_source(answer: &bpf_fib_lookup) -> Addr6 {
        // SAFETY: every bit pattern is an address.
        let [a, b, c, d] = unsafe { answer.__bindgen_anon_3.ipv6_src };
        Addr6 {
            high: a as u64 | (b as u64) << 32,
            low: c as u64 | (d as u64) << 32,
        }
    }

    #[inline(always)]
    fn next_hop(answer: &bpf_fib_lookup) -> bpf_redir_neigh {
        // SAFETY: every bit pattern is an address.
        neighbour(AF_INET6, unsafe { answer.__bindgen_anon_4.ipv6_dst })
    }
}

/// Adds one's-complement sums.
#[inline(always)]
pub fn add(a: u32, b: u32) -> u32 {
    let sum = a as u64 + b as u64;
    ((sum & 0xffff_ffff) + (sum >> 32)) as u32
}

#[inline(always)]
fn words(addr: Addr6) -> [u32; 4] {
    [
        addr.high as u32,
        (addr.high >> 32) as u32,
        addr.low as u32,
        (addr.low >> 32) as u32,
    ]
}

/// A route query without a source: one of the node's own would be refused as one of a packet that
/// came in.
#[inline(always)]
fn query(family: u8, ifindex: u32, proto: u8, length: u16, dst: [u32; 4]) -> bpf_fib_lookup {
    let zero = zero();
    let [a, b, c, d] = dst;
    let first = u32::from_ne_bytes([family, proto, 0, 0]);
    let [high, low] = length.to_ne_bytes();
    let second = u32::from_ne_bytes([0, 0, high, low]);
    let words: [u32; 16] = [
        first, second, ifindex, zero, zero, zero, zero, zero, a, b, c, d, zero, zero, zero, zero,
    ];
    // SAFETY: integers of the same 64 bytes: family, protocol, ports, length; device; flow label;
    // source; destination; table; hardware addresses.
    unsafe { core::mem::transmute(words) }
}

#[inline(always)]
fn neighbour(family: u8, address: [u32; 4]) -> bpf_redir_neigh {
    bpf_redir_neigh {
        nh_family: family as u32,
        __bindgen_anon_1: bpf_redir_neigh__bindgen_ty_1 { ipv6_nh: address },
    }
}
