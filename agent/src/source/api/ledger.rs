//! Which objects of a kind were delivered, so that those that a full list no longer has are known.

use std::collections::HashMap;

use crate::source::{Kind, ObjectKey};

/// The objects of one kind.
#[derive(Debug, Default)]
pub struct Ledger {
    /// By `namespace/name`, or by name.
    objects: HashMap<Box<str>, Entry>,
    epoch: u32,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    /// The list that delivered it last.
    epoch: u32,
    /// Its `resourceVersion`; 0 if it is not a number.
    version: u64,
}

impl Ledger {
    /// A full list begins.
    pub fn begin(&mut self) {
        self.epoch = self.epoch.wrapping_add(1);
    }

    /// Notes an object. False if it is one that is known already, or an older one: after a watch is
    /// resumed, or behind a balancer, events may come again. A full list (`initial`) is believed.
    pub fn apply(&mut self, namespace: &str, name: &str, version: u64, initial: bool) -> bool {
        let epoch = self.epoch;
        let key = key(namespace, name);
        let Some(entry) = self.objects.get_mut(&*key) else {
            self.objects.insert(key.into(), Entry { epoch, version });
            return true;
        };
        entry.epoch = epoch;
        let news = initial || version == 0 || version > entry.version;
        if news {
            entry.version = version;
        }
        news
    }

    /// Notes an object that cannot be read: it exists, and its next version is news.
    pub fn keep(&mut self, namespace: &str, name: &str) -> bool {
        let entry = Entry {
            epoch: self.epoch,
            version: 0,
        };
        self.objects
            .insert(key(namespace, name).into(), entry)
            .is_some()
    }

    /// Notes that an object is gone. False if it is not known, or known in a later version.
    pub fn delete(&mut self, namespace: &str, name: &str, version: u64) -> bool {
        let key = key(namespace, name);
        match self.objects.get(&*key) {
            Some(entry) if version == 0 || version >= entry.version => {
                self.objects.remove(&*key);
                true
            }
            _ => false,
        }
    }

    /// A full list is complete: forgets and returns the objects that it did not have.
    pub fn sweep(&mut self, kind: Kind) -> Vec<ObjectKey> {
        let epoch = self.epoch;
        let gone = self.objects.extract_if(|_, entry| entry.epoch != epoch);
        let gone = gone.map(|(key, _)| match key.split_once('/') {
            Some((namespace, name)) => ObjectKey::new(kind, Some(namespace), name),
            None => ObjectKey::new(kind, None, &key),
        });
        let mut gone: Vec<ObjectKey> = gone.collect();
        gone.sort();
        gone
    }

    /// How many objects are known.
    pub fn len(&self) -> usize {
        self.objects.len()
    }
}

fn key(namespace: &str, name: &str) -> String {
    if namespace.is_empty() {
        name.to_owned()
    } else {
        format!("{namespace}/{name}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_full_list_no_longer_has_is_swept_once() {
        let mut ledger = Ledger::default();
        ledger.begin();
        assert!(ledger.apply("a", "x", 1, true));
        assert!(ledger.apply("a", "y", 2, true));
        assert!(ledger.sweep(Kind::Pod).is_empty());
        ledger.begin();
        assert!(ledger.apply("a", "y", 2, true));
        assert_eq!(
            ledger.sweep(Kind::Pod),
            [ObjectKey::new(Kind::Pod, Some("a"), "x")]
        );
        assert!(ledger.sweep(Kind::Pod).is_empty());
        assert_eq!(ledger.len(), 1);
    }

    #[test]
    fn a_list_that_breaks_off_sweeps_nothing_and_the_next_one_counts_alone() {
        let mut ledger = Ledger::default();
        ledger.begin();
        ledger.apply("", "n1", 1, true);
        ledger.apply("", "n2", 2, true);
        assert!(ledger.sweep(Kind::Node).is_empty());
        ledger.begin();
        ledger.apply("", "n1", 1, true);
        ledger.begin();
        ledger.apply("", "n2", 2, true);
        assert_eq!(
            ledger.sweep(Kind::Node),
            [ObjectKey::new(Kind::Node, None, "n1")]
        );
    }

    #[test]
    fn events_that_come_again_or_late_are_no_news() {
        let mut ledger = Ledger::default();
        ledger.begin();
        assert!(ledger.apply("a", "x", 5, false));
        assert!(!ledger.apply("a", "x", 5, false));
        assert!(!ledger.apply("a", "x", 4, false));
        assert!(!ledger.delete("a", "x", 3));
        assert!(ledger.apply("a", "x", 6, false));
        assert!(ledger.delete("a", "x", 7));
        assert!(!ledger.delete("a", "x", 7));
        assert!(ledger.apply("a", "x", 8, false), "made again");
    }

    #[test]
    fn after_a_restored_etcd_a_full_list_is_believed_though_its_versions_are_lower() {
        let mut ledger = Ledger::default();
        ledger.begin();
        ledger.apply("a", "x", 500, true);
        ledger.begin();
        assert!(ledger.apply("a", "x", 100, true));
        assert!(ledger.apply("a", "x", 101, false));
    }
}
