//! Numbers for things: the same thing keeps its number for as long as it exists, over restarts too.
//!
//! A number is looked up by what it stands for (a kind, and a hash of the thing's name or content).
//! What a compile does not ask for any more is retired; its number is free again only when a plan
//! without it has been applied in full. Numbers grow until their space is used up before one is
//! used again, so that what the kernel still remembers of an old one is long gone.

mod space;

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::sync::Arc;

use dataplane_common::abi::{IdKey, IdVal, peer};
use siphasher::sip128::{Hasher128, SipHasher13};

use crate::capacity::{Capacities, CapacityError};
use crate::compile::PolicyState;
use crate::tables::MapId;
use space::Space;

/// What a number is of.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u32)]
pub enum IdKind {
    /// A frontend (revnat).
    Frontend = 1,
    /// A Service port.
    ServicePort = 2,
    /// An IPv4 backend: its index.
    Backend4 = 3,
    /// An IPv6 backend: its index.
    Backend6 = 4,
    /// A block of slots: the first of its places.
    Block = 5,
    /// A block of weighted classes: the first of its places.
    ClassBlock = 6,
    /// An identity.
    Identity = 7,
    /// A policy rule.
    Rule = 8,
    /// A ruleset: its index.
    Ruleset = 9,
    /// A span of port boundaries: the first of its places.
    PortSpan = 10,
    /// A set of CIDRs.
    CidrSet = 11,
    /// A set of source ranges.
    SourceSet = 12,
}

impl IdKind {
    /// All kinds.
    pub const ALL: [Self; 12] = [
        Self::Frontend,
        Self::ServicePort,
        Self::Backend4,
        Self::Backend6,
        Self::Block,
        Self::ClassBlock,
        Self::Identity,
        Self::Rule,
        Self::Ruleset,
        Self::PortSpan,
        Self::CidrSet,
        Self::SourceSet,
    ];

    /// The array whose places the numbers are, if they are.
    const fn array(self) -> Option<MapId> {
        match self {
            Self::Backend4 => Some(MapId::Backends4),
            Self::Backend6 => Some(MapId::Backends6),
            Self::Block => Some(MapId::Slots),
            Self::ClassBlock => Some(MapId::Classes),
            Self::Ruleset => Some(MapId::Rulesets),
            Self::PortSpan => Some(MapId::PortBounds),
            Self::Frontend
            | Self::ServicePort
            | Self::Identity
            | Self::Rule
            | Self::CidrSet
            | Self::SourceSet => None,
        }
    }

    fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|&kind| kind as u32 == number)
    }
}

/// The numbers in use.
#[derive(Clone, Debug)]
pub struct IdTable {
    entries: HashMap<IdKey, Entry>,
    spaces: BTreeMap<IdKind, Space>,
    names: HashMap<(IdKind, u32), Arc<str>>,
    /// Generation of each backend place that was ever filled: odd while filled, even when empty.
    generations: BTreeMap<(usize, u32), u32>,
    /// Counts compiles: an entry of an earlier round is retired.
    round: u64,
    /// Policy as of the last plan that was applied in full.
    pub(crate) applied: Arc<PolicyState>,
    capacities: Capacities,
}

#[derive(Clone, Debug)]
struct Entry {
    val: IdVal,
    round: u64,
}

impl Default for IdTable {
    fn default() -> Self {
        Self::new(Capacities::default())
    }
}

impl IdTable {
    /// No number is in use; arrays have these capacities.
    pub fn new(capacities: Capacities) -> Self {
        let limit = |kind: IdKind| kind.array().map_or(peer::CIDR, |map| capacities.of(map));
        Self {
            entries: HashMap::new(),
            spaces: IdKind::ALL
                .into_iter()
                .map(|kind| (kind, Space::new(limit(kind))))
                .collect(),
            names: HashMap::new(),
            generations: BTreeMap::new(),
            round: 0,
            applied: Arc::default(),
            capacities,
        }
    }

    /// Goes on with the numbers that an earlier process used. Entries that contradict each other or
    /// lie outside of their space are left out; `generations` is by family and backend index.
    pub fn restore(
        &mut self,
        entries: &BTreeMap<IdKey, IdVal>,
        generations: BTreeMap<(usize, u32), u32>,
    ) {
        for (&key, &val) in entries {
            let Some(space) =
                IdKind::from_number(key.kind).and_then(|kind| self.spaces.get_mut(&kind))
            else {
                continue;
            };
            if space.reserve(val.id, val.count) {
                self.entries.insert(
                    key,
                    Entry {
                        val,
                        round: self.round,
                    },
                );
            }
        }
        self.generations = generations;
    }

    /// The capacities that numbers are kept within.
    pub fn capacities(&self) -> &Capacities {
        &self.capacities
    }

    /// What a number stands for, for people; `None` if it is not in use, or was restored and has not
    /// been compiled since.
    pub fn name(&self, kind: IdKind, id: u32) -> Option<&Arc<str>> {
        self.names.get(&(kind, id))
    }

    /// All names of a kind, by number.
    pub fn names(&self, kind: IdKind) -> BTreeMap<u32, Arc<str>> {
        let of_kind = self.names.iter().filter(|((of, _), _)| *of == kind);
        of_kind.map(|(&(_, id), name)| (id, name.clone())).collect()
    }

    /// Starts a compile: what it does not ask for is retired.
    pub(crate) fn begin(&mut self) {
        self.round += 1;
    }

    /// The number of the thing with this content, a new one if it has none.
    pub(crate) fn id(
        &mut self,
        kind: IdKind,
        content: &(impl Hash + ?Sized),
        name: impl FnOnce() -> String,
    ) -> Result<u32, CapacityError> {
        let id = self.span(kind, content, 1)?;
        self.names
            .entry((kind, id))
            .or_insert_with(|| name().into());
        Ok(id)
    }

    /// The first of `count` successive numbers for the thing with this content.
    pub(crate) fn span(
        &mut self,
        kind: IdKind,
        content: &(impl Hash + ?Sized),
        count: u32,
    ) -> Result<u32, CapacityError> {
        let key = key(kind, content);
        if let Some(entry) = self
            .entries
            .get_mut(&key)
            .filter(|entry| entry.val.count == count)
        {
            entry.round = self.round;
            return Ok(entry.val.id);
        }
        self.release(key);
        let full = self.full(kind, count);
        let id = self
            .spaces
            .get_mut(&kind)
            .and_then(|space| space.take(count))
            .ok_or(full)?;
        self.entries.insert(
            key,
            Entry {
                val: IdVal { id, count },
                round: self.round,
            },
        );
        Ok(id)
    }

    /// The generation of a backend place that is filled.
    pub(crate) fn generation(&mut self, family: usize, index: u32) -> u32 {
        let generation = self.generations.entry((family, index)).or_insert(1);
        // Even: the place was emptied, and is filled anew.
        *generation |= 1;
        *generation
    }

    /// Numbers that the current compile asked for.
    pub(crate) fn in_use(&self) -> BTreeMap<IdKey, IdVal> {
        let current = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.round == self.round);
        current.map(|(&key, entry)| (key, entry.val)).collect()
    }

    /// Notes that a plan of the current compile has been applied in full: retired numbers are free.
    pub(crate) fn settle(&mut self, policy: Arc<PolicyState>) {
        let round = self.round;
        let retired: Vec<_> = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.round < round)
            .map(|(&key, _)| key)
            .collect();
        for key in retired {
            self.release(key);
        }
        self.applied = policy;
    }

    fn release(&mut self, key: IdKey) {
        let (Some(entry), Some(kind)) = (self.entries.remove(&key), IdKind::from_number(key.kind))
        else {
            return;
        };
        if let Some(space) = self.spaces.get_mut(&kind) {
            space.give_back(entry.val.id, entry.val.count);
        }
        self.names.remove(&(kind, entry.val.id));
        let family = match kind {
            IdKind::Backend4 => 0,
            IdKind::Backend6 => 1,
            _ => return,
        };
        if let Some(generation) = self.generations.get_mut(&(family, entry.val.id)) {
            *generation = emptied(*generation);
        }
    }

    fn full(&self, kind: IdKind, count: u32) -> CapacityError {
        let map = kind.array().unwrap_or(MapId::Ids);
        let used = self.spaces.get(&kind).map_or(0, Space::used);
        // Place 0 is never used.
        CapacityError::Map {
            map,
            need: u64::from(used) + u64::from(count) + 1,
            capacity: self.capacities.of(map),
        }
    }
}

/// The generation of a backend place once it is emptied.
pub(crate) fn emptied(generation: u32) -> u32 {
    (generation | 1).wrapping_add(1)
}

/// The key of a thing: it must differ from every other thing's, whoever names them.
pub(crate) fn key(kind: IdKind, content: &(impl Hash + ?Sized)) -> IdKey {
    let (high, low) = fingerprint(content);
    IdKey {
        high,
        low,
        kind: kind as u32,
        reserved: 0,
    }
}

/// A 128-bit hash that stays the same between processes. (Were it to change with a toolchain, things
/// would get new numbers once.)
pub(crate) fn fingerprint(content: &(impl Hash + ?Sized)) -> (u64, u64) {
    let mut hasher = SipHasher13::new_with_keys(0x736c_7569_6365, 1);
    content.hash(&mut hasher);
    let hash = hasher.finish128();
    (hash.h1, hash.h2)
}

#[cfg(test)]
mod tests;
