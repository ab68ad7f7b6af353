//! Random clusters for tests, as strategies of proptest: few names, labels, addresses and ports, so
//! that policies, pods and Services meet.

pub mod cluster;
pub mod dice;
pub mod probes;
pub mod services;
pub mod tiers;

use dataplane_model::snapshot::{Event, Key, Object};

/// Events that turn objects into others, in the order of the objects given.
pub fn changes(old: &[Object], new: &[Object]) -> Vec<Event> {
    let stays = |key: &Option<Key>| new.iter().any(|object| object.key() == *key);
    let gone = old
        .iter()
        .map(Object::key)
        .filter(|key| !stays(key))
        .flatten();
    gone.map(Event::Delete)
        .chain(new.iter().cloned().map(Event::Apply))
        .collect()
}
