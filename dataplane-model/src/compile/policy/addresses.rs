//! Identities of addresses.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use dataplane_common::abi::{Addr4, Addr6, IdentityVal, identity_flags};

use super::Fingerprint;
use super::cidrs::Held;
use super::identities::Identities;
use super::pods::Pods;
use super::state::Block;
use crate::snapshot::{Snapshot, Text};
use crate::tables::Family;

/// Identity maps of both families.
type Tables = (BTreeMap<Addr4, IdentityVal>, BTreeMap<Addr6, IdentityVal>);

/// The identity maps that were made last, with what they were made of.
#[derive(Clone, Debug, Default)]
pub(super) struct Placed {
    /// While they stay the same, so do devices and nodes.
    pods: Arc<Pods>,
    by_kind: Vec<u32>,
    by_node: HashMap<Text, u32>,
    blocks: BTreeMap<Fingerprint, Arc<Block>>,
    tables: Tables,
}

impl Placed {
    /// True if the maps are made of these.
    pub(super) fn are_of(
        &self,
        pods: &Arc<Pods>,
        identities: &Identities,
        blocks: &BTreeMap<Fingerprint, Arc<Block>>,
    ) -> bool {
        Arc::ptr_eq(&self.pods, pods)
            && self.by_kind == identities.by_kind
            && self.by_node == identities.by_node
            && self.blocks == *blocks
    }

    /// The identity maps, where these blocks are in force.
    pub(super) fn tables(
        &mut self,
        snapshot: &Snapshot,
        pods: &Arc<Pods>,
        identities: &Identities,
        blocks: &BTreeMap<Fingerprint, Arc<Block>>,
    ) -> Tables {
        if !self.are_of(pods, identities, blocks) {
            *self = Self {
                pods: pods.clone(),
                by_kind: identities.by_kind.clone(),
                by_node: identities.by_node.clone(),
                blocks: blocks.clone(),
                tables: tables(snapshot, pods, identities, blocks),
            };
        }
        self.tables.clone()
    }
}

/// The identity maps, where these blocks are in force.
pub(super) fn tables(
    snapshot: &Snapshot,
    pods: &Pods,
    identities: &Identities,
    blocks: &BTreeMap<Fingerprint, Arc<Block>>,
) -> Tables {
    (
        table(snapshot, pods, identities, blocks),
        table(snapshot, pods, identities, blocks),
    )
}

/// One family's identity map, where these blocks are in force.
fn table<A: Family>(
    snapshot: &Snapshot,
    pods: &Pods,
    identities: &Identities,
    blocks: &BTreeMap<Fingerprint, Arc<Block>>,
) -> BTreeMap<A, IdentityVal> {
    let held = Held::by(blocks);
    let flags_of = |addr: A, flags: u32| {
        if held.holds(addr) {
            flags
        } else {
            flags | identity_flags::NO_CIDR
        }
    };
    // Of two devices with one address, the newer has it.
    let mut devices = BTreeMap::new();
    for interface in snapshot.interfaces.values() {
        devices.extend(
            interface
                .addresses
                .iter()
                .map(|&ip| (ip, interface.ifindex)),
        );
    }
    let mut table = BTreeMap::new();
    for (ip, kind) in pods.addresses() {
        let Some(addr) = A::from_ip(ip) else { continue };
        let identity = identities.of(kind);
        let ifindex = devices.get(&ip).copied().unwrap_or(0);
        table.insert(
            addr,
            IdentityVal {
                identity,
                ifindex,
                flags: flags_of(addr, identity_flags::POD),
            },
        );
    }
    let others = snapshot
        .nodes
        .values()
        .filter(|node| node.name != snapshot.node.name);
    let remote = others.map(|node| (&node.name, &node.addresses, identity_flags::REMOTE_NODE));
    let own = &snapshot.node;
    let own = (&own.name, &own.addresses, identity_flags::NODE);
    for (name, addresses, flags) in remote.chain([own]) {
        let value = |addr: A| IdentityVal {
            identity: identities.of_node(name),
            ifindex: 0,
            flags: flags_of(addr, flags),
        };
        let addresses = addresses.iter().filter_map(|&ip| A::from_ip(ip));
        table.extend(addresses.map(|addr| (addr, value(addr))));
    }
    table
}
