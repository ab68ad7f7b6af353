//! Rows: what rulesets say of peers, by the numbers of both.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::sync::Arc;

use dataplane_common::abi::{RowKey, RowVal, peer};

use super::Fingerprint;
use super::state::{CidrSet, ClassedRule, Identity, PolicyState, PortName, Ruleset};

impl PolicyState {
    /// Turns the rows of another state into this one's. A row says what one ruleset says of one peer, and
    /// neither changes while it keeps its number, so only rows of what comes and goes do.
    pub(super) fn renew(&self, before: &PolicyState, rows: &mut BTreeMap<RowKey, RowVal>) {
        let gone = before.beyond(self);
        if !gone.is_empty() {
            rows.retain(|key, _| {
                !gone.rulesets.contains_key(&key.ruleset) && !gone.has_peer(key.peer)
            });
        }
        rows.extend(self.rows_beyond(before));
    }

    /// Rows of this state whose ruleset or peer another has not, or has otherwise.
    pub(super) fn rows_beyond(&self, other: &PolicyState) -> Vec<(RowKey, RowVal)> {
        let all = Part {
            rulesets: by_number(&self.rulesets),
            identities: by_number(&self.identities),
            sets: by_number(&self.sets),
        };
        let beyond = self.beyond(other);
        let mut rows = Vec::new();
        if !beyond.identities.is_empty() || !beyond.sets.is_empty() {
            add_rows(&all.rulesets, &beyond, &mut rows);
        }
        add_rows(&beyond.rulesets, &all, &mut rows);
        rows
    }

    /// What this has and another has not, or has otherwise.
    fn beyond<'a>(&'a self, other: &PolicyState) -> Part<'a> {
        fn beyond<'a, T: Eq>(
            a: &'a BTreeMap<u32, Arc<T>>,
            b: &BTreeMap<u32, Arc<T>>,
        ) -> BTreeMap<u32, &'a T> {
            let beyond = a
                .iter()
                .filter(|(number, value)| b.get(number) != Some(value));
            beyond.map(|(&number, value)| (number, &**value)).collect()
        }
        Part {
            rulesets: beyond(&self.rulesets, &other.rulesets),
            identities: beyond(&self.identities, &other.identities),
            sets: beyond(&self.sets, &other.sets),
        }
    }
}

fn by_number<T>(all: &BTreeMap<u32, Arc<T>>) -> BTreeMap<u32, &T> {
    all.iter()
        .map(|(&number, value)| (number, &**value))
        .collect()
}

/// Rulesets and peers of a state.
struct Part<'a> {
    rulesets: BTreeMap<u32, &'a Ruleset>,
    identities: BTreeMap<u32, &'a Identity>,
    sets: BTreeMap<u32, &'a CidrSet>,
}

impl Part<'_> {
    fn is_empty(&self) -> bool {
        self.rulesets.is_empty() && self.identities.is_empty() && self.sets.is_empty()
    }

    fn has_peer(&self, peer: u32) -> bool {
        if peer & peer::CIDR != 0 {
            self.sets.contains_key(&(peer & !peer::CIDR))
        } else {
            self.identities.contains_key(&peer)
        }
    }
}

/// Adds the rows between rulesets and peers. Where the row for any peer says it all, there is no other.
fn add_rows(
    rulesets: &BTreeMap<u32, &Ruleset>,
    peers: &Part<'_>,
    rows: &mut Vec<(RowKey, RowVal)>,
) {
    if rulesets.is_empty() {
        return;
    }
    let peers = Peers::new(rulesets, peers);
    for (&ruleset, content) in rulesets {
        let start = rows.len();
        for rule in &content.rules {
            peers.add_rows(ruleset, rule, rows);
        }
        drop_covered(rows, start, content.isolates);
    }
}

/// Of a ruleset's rows: sorts them, joins those with one key, and drops those that the row for any peer
/// covers.
fn drop_covered(rows: &mut Vec<(RowKey, RowVal)>, start: usize, isolates: bool) {
    let mut own = rows.split_off(start);
    own.sort_unstable_by_key(|&(key, _)| key);
    own.dedup_by(|(key, val), (kept, into)| {
        let same = key == kept;
        if same {
            into.join(val);
        }
        same
    });
    // Rows for any peer come first in the order of keys.
    let any: BTreeMap<u16, RowVal> = own
        .iter()
        .take_while(|(key, _)| key.peer == peer::ANY)
        .map(|(key, val)| (key.class, *val))
        .collect();
    own.retain(|(key, val)| {
        let covers = |any: &RowVal| any.covers(val, isolates);
        key.peer == peer::ANY || !any.get(&key.class).is_some_and(covers)
    });
    rows.extend(own);
}

/// Identities and sets by what rules ask of them.
struct Peers<'a> {
    identities: &'a BTreeMap<u32, &'a Identity>,
    by_selector: HashMap<Fingerprint, Vec<u32>>,
    by_port_name: HashMap<&'a PortName, Vec<u32>>,
    by_block: HashMap<Fingerprint, Vec<u32>>,
}

impl<'a> Peers<'a> {
    fn new(rulesets: &BTreeMap<u32, &Ruleset>, part: &'a Part<'a>) -> Self {
        let mut peers = Self {
            identities: &part.identities,
            by_selector: HashMap::new(),
            by_port_name: HashMap::new(),
            by_block: HashMap::new(),
        };
        let rules = rulesets.values().flat_map(|ruleset| &ruleset.rules);
        for rule in rules {
            let selectors = rule.selectors.iter();
            (peers.by_selector).extend(selectors.map(|&print| (print, Vec::new())));
            let blocks = rule.blocks.iter();
            (peers.by_block).extend(blocks.map(|&print| (print, Vec::new())));
        }
        for (&number, identity) in &part.identities {
            let matched = identity.matched.iter().copied();
            add_each(&mut peers.by_selector, matched, number);
            let mut names: Vec<_> = identity.ports.iter().map(|(name, _)| name).collect();
            names.dedup();
            for name in names {
                peers.by_port_name.entry(name).or_default().push(number);
            }
        }
        for (&number, set) in &part.sets {
            let blocks = set.blocks.iter().copied();
            add_each(&mut peers.by_block, blocks, number | peer::CIDR);
        }
        peers
    }

    fn add_rows(&self, ruleset: u32, rule: &ClassedRule, rows: &mut Vec<(RowKey, RowVal)>) {
        let key = |peer: u32, class: u16| RowKey {
            ruleset,
            peer,
            class,
            reserved: 0,
        };
        for &peer in &rule.unknown.peers {
            let classes = rule.unknown.classes.iter();
            rows.extend(classes.map(|&class| (key(peer, class), rule.unknown.says)));
        }
        let mut add = |peer: u32, class: u16| rows.push((key(peer, class), rule.says));
        let selected = rule
            .selectors
            .iter()
            .filter_map(|print| self.by_selector.get(print))
            .flatten();
        let blocks = rule
            .blocks
            .iter()
            .filter_map(|print| self.by_block.get(print))
            .flatten();
        let any = rule.any.then_some(&peer::ANY);
        for &peer in selected.clone().chain(blocks).chain(any) {
            rule.classes.iter().for_each(|&class| add(peer, class));
        }
        for (name, classes) in &rule.named {
            let with_name = self
                .by_port_name
                .get(name)
                .filter(|_| rule.any)
                .into_iter()
                .flatten();
            for &peer in selected.clone().chain(with_name) {
                let ports = self
                    .identities
                    .get(&peer)
                    .into_iter()
                    .flat_map(|identity| &identity.ports);
                let own = ports
                    .filter(|(own, _)| own == name)
                    .filter_map(|(_, port)| classes.get(port));
                own.for_each(|&class| add(peer, class));
            }
        }
    }
}

/// Adds a number to those keys that are asked for.
fn add_each<K: Eq + Hash>(
    map: &mut HashMap<K, Vec<u32>>,
    keys: impl Iterator<Item = K>,
    number: u32,
) {
    for key in keys {
        if let Some(numbers) = map.get_mut(&key) {
            numbers.push(number);
        }
    }
}
