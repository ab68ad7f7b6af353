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
pub(crate) use space::Space;

/// What a number is of.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u32)]
pub enum IdKind {
    /// A frontend (revnat).
    Frontend = 1,
    /// A Service port.
    ServicePort = 2,
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
    pub const ALL: [Self; 8] = [
        Self::Frontend,
        Self::ServicePort,
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

    /// True if a Service holds such numbers for as long as it needs them, whatever policy is compiled.
    pub const fn is_held(self) -> bool {
        matches!(self, Self::Frontend | Self::ServicePort | Self::SourceSet)
    }

    /// The kind with this number in keys.
    pub(crate) fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|&kind| kind as u32 == number)
    }
}

/// The numbers in use.
#[derive(Clone, Debug)]
pub struct IdTable {
    /// A tree: a hash table may be more than half empty, and there are some of each Service.
    entries: BTreeMap<IdKey, Entry>,
    spaces: BTreeMap<IdKind, Space>,
    names: HashMap<(IdKind, u32), Arc<str>>,
    /// Counts compiles of policy: its entries of an earlier round are retired.
    round: u32,
    /// Policy as of the last plan that was applied in full.
    pub(crate) applied: Arc<PolicyState>,
    capacities: Capacities,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    val: IdVal,
    round: u32,
}

/// Round of what a Service holds.
const HELD: u32 = u32::MAX;

impl Default for IdTable {
    fn default() -> Self {
        Self::new(Capacities::default())
    }
}

impl IdTable {
    /// No number is in use; arrays have these capacities.
    pub fn new(capacities: Capacities) -> Self {
        let limit = |kind: IdKind| {
            kind.array()
                .map_or(peer::IDENTITIES, |map| capacities.of(map))
        };
        Self {
            entries: BTreeMap::new(),
            spaces: IdKind::ALL
                .into_iter()
                .map(|kind| (kind, Space::new(limit(kind))))
                .collect(),
            names: HashMap::new(),
            round: 0,
            applied: Arc::default(),
            capacities,
        }
    }

    /// Goes on with the numbers that an earlier process used. Entries that contradict each other or
    /// lie outside of their space are left out.
    pub(crate) fn restore(&mut self, entries: impl IntoIterator<Item = (IdKey, IdVal)>) {
        for (key, val) in entries {
            let Some(space) =
                IdKind::from_number(key.kind).and_then(|kind| self.spaces.get_mut(&kind))
            else {
                continue;
            };
            if space.reserve(val.id, val.count) {
                let round = self.round;
                self.entries.insert(key, Entry { val, round });
            }
        }
    }

    /// The capacities that numbers are kept within.
    pub fn capacities(&self) -> &Capacities {
        &self.capacities
    }

    /// What a number of policy stands for, for people; `None` if it is not in use, or was restored and
    /// has not been compiled since. For those of Services, see [`crate::compile::ServiceNames`].
    pub fn name(&self, kind: IdKind, id: u32) -> Option<&Arc<str>> {
        self.names.get(&(kind, id))
    }

    /// All names of a kind of policy, by number.
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
        self.id_of(key(kind, content), name)
    }

    /// The number of the thing with this key, a new one if it has none.
    pub(crate) fn id_of(
        &mut self,
        key: IdKey,
        name: impl FnOnce() -> String,
    ) -> Result<u32, CapacityError> {
        let id = self.span_of(key, 1)?;
        if let Some(kind) = IdKind::from_number(key.kind) {
            let of = self.names.entry((kind, id));
            of.or_insert_with(|| name().into());
        }
        Ok(id)
    }

    /// Keeps the number of a thing that an earlier compile asked for. False if it has it no more.
    pub(crate) fn keep(&mut self, key: &IdKey, id: u32) -> bool {
        let entry = self.entries.get_mut(key);
        let entry = entry.filter(|entry| entry.val.id == id);
        entry.map(|entry| entry.round = self.round).is_some()
    }

    /// The first of `count` successive numbers for the thing with this key.
    pub(crate) fn span_of(&mut self, key: IdKey, count: u32) -> Result<u32, CapacityError> {
        let kind = IdKind::from_number(key.kind).unwrap_or(IdKind::PortSpan);
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

    /// The number of what a Service has, a new one if it has none, until [`Self::release`]. Says too
    /// whether it is new.
    pub(crate) fn hold(&mut self, key: IdKey) -> Result<(u32, bool), CapacityError> {
        let kind = IdKind::from_number(key.kind).unwrap_or(IdKind::Frontend);
        let known = self.entries.get_mut(&key);
        let is_new = known.is_none();
        let id = match known {
            Some(entry) => {
                entry.round = HELD;
                entry.val.id
            }
            None => self.add(kind, key)?,
        };
        Ok((id, is_new))
    }

    fn add(&mut self, kind: IdKind, key: IdKey) -> Result<u32, CapacityError> {
        let need = self.entries.len() as u64 + 1;
        let capacity = self.capacities.of(MapId::Ids);
        let map = MapId::Ids;
        let full = CapacityError::Map {
            map,
            need,
            capacity,
        };
        if need > u64::from(capacity) {
            return Err(full);
        }
        let space = self.spaces.get_mut(&kind);
        let id = space.and_then(|space| space.take(1)).ok_or(full)?;
        let val = IdVal { id, count: 1 };
        self.entries.insert(key, Entry { val, round: HELD });
        Ok(id)
    }

    /// The number in use for a key.
    pub(crate) fn get(&self, key: &IdKey) -> Option<IdVal> {
        self.entries.get(key).map(|entry| entry.val)
    }

    /// Numbers that Services hold.
    pub(crate) fn held(&self) -> impl Iterator<Item = (IdKey, IdVal)> {
        let held = self.entries.iter().filter(|(_, entry)| entry.round == HELD);
        held.map(|(&key, entry)| (key, entry.val))
    }

    /// True if a Service holds the number.
    pub(crate) fn is_held(&self, key: &IdKey) -> bool {
        self.entries
            .get(key)
            .is_some_and(|entry| entry.round == HELD)
    }

    /// Numbers that an earlier process's Services held and none of this one's does.
    pub(crate) fn unheld(&self) -> impl Iterator<Item = IdKey> {
        self.entries
            .iter()
            .filter(|(key, entry)| entry.round != HELD && is_service(key))
            .map(|(&key, _)| key)
    }

    /// How many numbers there are, of Services and of policy.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Numbers that the current compile of policy asked for.
    pub(crate) fn in_use(&self) -> BTreeMap<IdKey, IdVal> {
        self.in_use_beyond(&BTreeMap::new())
    }

    /// The same but for some that are known.
    pub(crate) fn in_use_beyond(&self, known: &BTreeMap<IdKey, IdVal>) -> BTreeMap<IdKey, IdVal> {
        let current = self
            .entries
            .iter()
            .filter(|(key, entry)| entry.round == self.round && !is_service(key));
        let beyond = current.filter(|(key, _)| !known.contains_key(key));
        beyond.map(|(&key, entry)| (key, entry.val)).collect()
    }

    /// Notes that a plan of the current compile has been applied in full: retired numbers are free.
    pub(crate) fn settle(&mut self, policy: Arc<PolicyState>) {
        let round = self.round;
        let retired: Vec<_> = self
            .entries
            .iter()
            .filter(|(key, entry)| entry.round < round && !is_service(key))
            .map(|(&key, _)| key)
            .collect();
        for key in retired {
            self.release(key);
        }
        self.applied = policy;
    }

    /// Frees a number.
    pub(crate) fn release(&mut self, key: IdKey) {
        let (Some(entry), Some(kind)) = (self.entries.remove(&key), IdKind::from_number(key.kind))
        else {
            return;
        };
        if let Some(space) = self.spaces.get_mut(&kind) {
            space.give_back(entry.val.id, entry.val.count);
        }
        self.names.remove(&(kind, entry.val.id));
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

/// True for the number of something that a Service has.
pub(crate) fn is_service(key: &IdKey) -> bool {
    IdKind::from_number(key.kind).is_some_and(IdKind::is_held)
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
