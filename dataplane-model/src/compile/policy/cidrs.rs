//! Prefixes and the sets of blocks that hold them.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use dataplane_common::abi::{CidrKey, CidrVal, cidr_flags};
use ipnet::IpNet;

use super::Fingerprint;
use super::state::{Block, CidrSet, PolicyState};
use crate::compile::Compiler;
use crate::ids::{IdKind, fingerprint};
use crate::snapshot::DomainPattern;
use crate::tables::Family;

/// A prefix of one family: an address with its host bits cleared, and a length.
type Prefix<A> = (A, u32);

/// What stands for a block with its exceptions.
pub(super) fn block_print(cidr: &IpNet, except: &[IpNet]) -> Fingerprint {
    let except: BTreeSet<_> = except.iter().map(IpNet::trunc).collect();
    fingerprint(&(cidr.trunc(), except))
}

/// What stands for the addresses of domain names.
pub(super) fn domain_print(pattern: &DomainPattern) -> Fingerprint {
    fingerprint(&("domain", pattern))
}

/// One family's prefix map for the blocks of a state, and for the ranges of pods.
///
/// Every block, exception and range is a prefix of the map. Its set holds the blocks that contain all
/// of it and none of whose exceptions does; the map finds the longest prefix of an address, and no
/// block or exception begins within that.
pub(super) fn table<A: Family>(
    compiler: &mut Compiler<'_>,
    state: &PolicyState,
    sets: &mut BTreeMap<u32, Arc<CidrSet>>,
) -> BTreeMap<CidrKey<A>, CidrVal> {
    let mut by_prefix: HashMap<Prefix<A>, Vec<Placed<A>>> = HashMap::new();
    let mut prefixes = BTreeSet::new();
    for (&print, block) in &state.blocks {
        let except: Vec<_> = block.except.iter().filter_map(prefix::<A>).collect();
        for own in block.cidrs.iter().filter_map(prefix::<A>) {
            prefixes.insert(own);
            prefixes.extend(except.iter().copied());
            let except = except.clone();
            let placed = by_prefix.entry(own).or_default();
            placed.push(Placed { print, except });
        }
    }
    let ranges: BTreeSet<Prefix<A>> = state.pod_ranges.iter().filter_map(prefix::<A>).collect();
    let range_lengths: BTreeSet<u32> = ranges.iter().map(|&(_, length)| length).collect();
    prefixes.extend(ranges.iter().copied());
    let lengths: BTreeSet<u32> = by_prefix.keys().map(|&(_, length)| length).collect();
    let mut table = BTreeMap::new();
    for (addr, length) in prefixes {
        let set = holding(&by_prefix, &lengths, (addr, length));
        // The empty set needs no number: no row names it.
        let number = if set.blocks.is_empty() {
            Some(0)
        } else {
            number(compiler, set, sets, &state.blocks)
        };
        let Some(set) = number else { continue };
        let key = CidrKey {
            prefix: CidrKey::<A>::LEAD_BITS + length,
            lead: 0,
            addr,
        };
        let mut shorter = range_lengths.range(..=length);
        let pods = shorter.any(|&shorter| ranges.contains(&(addr.masked(shorter), shorter)));
        let flags = if pods { cidr_flags::PODS } else { 0 };
        table.insert(key, CidrVal { set, flags });
    }
    table
}

/// One family's addresses that blocks hold, whatever their exceptions.
pub(super) struct Held<A> {
    blocks: HashSet<Prefix<A>>,
    lengths: BTreeSet<u32>,
}

impl<A: Family> Held<A> {
    /// By these blocks.
    pub(super) fn by(blocks: &BTreeMap<Fingerprint, Arc<Block>>) -> Self {
        let blocks: HashSet<Prefix<A>> = blocks
            .values()
            .flat_map(|block| &block.cidrs)
            .filter_map(prefix)
            .collect();
        let lengths = blocks.iter().map(|&(_, length)| length).collect();
        Self { blocks, lengths }
    }

    /// True if any block holds the address.
    pub(super) fn holds(&self, addr: A) -> bool {
        let mut lengths = self.lengths.iter();
        lengths.any(|&length| self.blocks.contains(&(addr.masked(length), length)))
    }
}

struct Placed<A> {
    print: Fingerprint,
    except: Vec<Prefix<A>>,
}

fn holding<A: Family>(
    by_prefix: &HashMap<Prefix<A>, Vec<Placed<A>>>,
    lengths: &BTreeSet<u32>,
    (addr, length): Prefix<A>,
) -> CidrSet {
    let within = |&(outer, outer_length): &Prefix<A>| {
        outer_length <= length && addr.masked(outer_length) == outer
    };
    let candidates = lengths
        .range(..=length)
        .filter_map(|&shorter| by_prefix.get(&(addr.masked(shorter), shorter)));
    let holds = candidates
        .flatten()
        .filter(|block| !block.except.iter().any(within));
    CidrSet {
        blocks: holds
            .map(|block| block.print)
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect(),
    }
}

fn number(
    compiler: &mut Compiler<'_>,
    set: CidrSet,
    sets: &mut BTreeMap<u32, Arc<CidrSet>>,
    blocks: &BTreeMap<Fingerprint, Arc<Block>>,
) -> Option<u32> {
    let number = compiler
        .ids
        .id(IdKind::CidrSet, &set, || describe(&set, blocks));
    let number = compiler.note(number)?;
    sets.entry(number).or_insert_with(|| Arc::new(set));
    Some(number)
}

fn describe(set: &CidrSet, blocks: &BTreeMap<Fingerprint, Arc<Block>>) -> String {
    let texts: BTreeSet<_> = set
        .blocks
        .iter()
        .filter_map(|print| blocks.get(print))
        .map(|block| block.to_string())
        .collect();
    texts.into_iter().collect::<Vec<_>>().join(", ")
}

/// The prefix with its host bits cleared, if it is of this family.
fn prefix<A: Family>(net: &IpNet) -> Option<Prefix<A>> {
    Some((A::from_ip(net.network())?, u32::from(net.prefix_len())))
}
