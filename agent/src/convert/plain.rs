//! Objects of which nothing is to be remembered but that they are in force as they came. A cluster has
//! a hundred thousand of them.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};

use dataplane_model::snapshot::Key;

use super::model_key;
use crate::source::{Kind, ObjectKey};

/// The objects, by hashes of 128 bits that nobody can foresee: no two objects have the same.
#[derive(Debug, Default)]
pub(super) struct Plain {
    objects: HashSet<[u64; 2]>,
    hashers: [RandomState; 2],
}

impl Plain {
    /// Adds an object.
    pub(super) fn insert(&mut self, key: &ObjectKey) {
        self.objects.insert(self.hash(key));
    }

    /// True if the object is one of them.
    pub(super) fn contains(&self, key: &ObjectKey) -> bool {
        self.objects.contains(&self.hash(key))
    }

    /// Takes an object out; false if it is none of them.
    pub(super) fn remove(&mut self, key: &ObjectKey) -> bool {
        self.objects.remove(&self.hash(key))
    }

    fn hash(&self, key: &ObjectKey) -> [u64; 2] {
        [0, 1].map(|which: usize| self.hashers[which].hash_one(key))
    }
}

/// The key under which an object of a kind with many objects is in force.
pub(super) fn key_in_force(key: &ObjectKey) -> Option<Key> {
    match key.kind {
        Kind::Pod => Some(Key::Pod(model_key(key))),
        Kind::Service => Some(Key::Service(model_key(key))),
        Kind::EndpointSlice => Some(Key::Slice(model_key(key))),
        _ => None,
    }
}
