//! Prefixes and the sets of blocks that hold them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use dataplane_common::abi::{CidrKey, CidrVal};
use ipnet::IpNet;

use super::Fingerprint;
use super::state::CidrSet;
use crate::compile::Compiler;
use crate::ids::{IdKind, fingerprint};
use crate::snapshot::Peer;
use crate::tables::Family;

/// A prefix of one family: an address with its host bits cleared, and a length.
type Prefix<A> = (A, u32);

/// What stands for a block with its exceptions.
pub(super) fn block_print(cidr: &IpNet, except: &[IpNet]) -> Fingerprint {
    let except: BTreeSet<_> = except.iter().map(IpNet::trunc).collect();
    fingerprint(&(cidr.trunc(), except))
}

/// Fills one family's prefix map.
///
/// Every block and every exception is a prefix of the map. Its set holds the blocks that contain all
/// of it and none of whose exceptions does; the map finds the longest prefix of an address, and no
/// block or exception begins within that.
pub(super) fn compile<A: Family>(
    compiler: &mut Compiler<'_>,
    blocks: &[&Peer],
    sets: &mut BTreeMap<u32, Arc<CidrSet>>,
) {
    let mut by_prefix: HashMap<Prefix<A>, Vec<Block<'_, A>>> = HashMap::new();
    let mut prefixes = BTreeSet::new();
    for &peer in blocks {
        let Peer::Block { cidr, except } = peer else {
            continue;
        };
        let Some(prefix) = prefix::<A>(cidr) else {
            continue;
        };
        prefixes.insert(prefix);
        let print = block_print(cidr, except);
        let except = except.iter().filter_map(self::prefix::<A>).collect();
        let block = Block {
            print,
            except,
            peer,
        };
        prefixes.extend(block.except.iter().copied());
        by_prefix.entry(prefix).or_default().push(block);
    }
    let by_print: HashMap<Fingerprint, &Peer> = by_prefix
        .values()
        .flatten()
        .map(|block| (block.print, block.peer))
        .collect();
    let lengths: BTreeSet<u32> = by_prefix.keys().map(|&(_, length)| length).collect();
    for (addr, length) in prefixes {
        let set = holding(&by_prefix, &lengths, (addr, length));
        let number = if set.blocks.is_empty() {
            Some(0)
        } else {
            number(compiler, set, sets, &by_print)
        };
        let Some(set) = number else { continue };
        let key = CidrKey {
            prefix: CidrKey::<A>::LEAD_BITS + length,
            lead: 0,
            addr,
        };
        A::tables_mut(&mut compiler.desired.tables)
            .cidrs
            .insert(key, CidrVal { set });
    }
}

struct Block<'a, A> {
    print: Fingerprint,
    except: Vec<Prefix<A>>,
    peer: &'a Peer,
}

fn holding<A: Family>(
    by_prefix: &HashMap<Prefix<A>, Vec<Block<'_, A>>>,
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
    by_print: &HashMap<Fingerprint, &Peer>,
) -> Option<u32> {
    let number = compiler
        .ids
        .id(IdKind::CidrSet, &set, || describe(&set, by_print));
    let number = compiler.note(number)?;
    sets.entry(number).or_insert_with(|| Arc::new(set));
    Some(number)
}

fn describe(set: &CidrSet, by_print: &HashMap<Fingerprint, &Peer>) -> String {
    let text = |peer: &&Peer| match peer {
        Peer::Block { cidr, except } if except.is_empty() => cidr.to_string(),
        Peer::Block { cidr, except } => {
            let except: Vec<_> = except.iter().map(IpNet::to_string).collect();
            format!("{cidr} except {}", except.join(" "))
        }
        Peer::Pods { .. } => String::new(),
    };
    let texts: BTreeSet<_> = set
        .blocks
        .iter()
        .filter_map(|print| by_print.get(print))
        .map(text)
        .collect();
    texts.into_iter().collect::<Vec<_>>().join(", ")
}

/// The prefix with its host bits cleared, if it is of this family.
fn prefix<A: Family>(net: &IpNet) -> Option<Prefix<A>> {
    Some((A::from_ip(net.network())?, u32::from(net.prefix_len())))
}
