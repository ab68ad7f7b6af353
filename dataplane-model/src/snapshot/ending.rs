//! Namespaces that end. Their objects go in any order, so a NetworkPolicy may be gone while pods that
//! it isolates still run (CVE-2024-7598): it stays in force until the last of them is gone.

use std::collections::BTreeSet;

use super::{ObjectKey, Snapshot, Text};

/// What is known of namespaces that end.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Ending {
    namespaces: BTreeSet<Text>,
    /// Policies that are gone and in force.
    kept: BTreeSet<ObjectKey>,
}

impl Snapshot {
    /// Notes whether a namespace ends; one that does not, or is gone, keeps nothing.
    pub(super) fn mark_namespace(&mut self, name: &Text, ends: bool) {
        if ends {
            self.ending.namespaces.insert(name.clone());
        } else if self.ending.namespaces.remove(name) {
            self.drop_kept(name);
        }
    }

    /// True if a policy that is gone is to stay in force.
    pub(super) fn keeps(&mut self, policy: &ObjectKey) -> bool {
        let keeps = self.policies.contains_key(policy)
            && self.ending.namespaces.contains(&policy.namespace)
            && self.has_pods(&policy.namespace);
        if keeps {
            self.ending.kept.insert(policy.clone());
        }
        keeps
    }

    /// Notes that a policy is there again.
    pub(super) fn keep_no_more(&mut self, policy: &ObjectKey) {
        self.ending.kept.remove(policy);
    }

    /// Drops what was kept for the pods of a namespace, if they are gone.
    pub(super) fn let_go(&mut self, namespace: &Text) {
        if self.ending.namespaces.contains(namespace) && !self.has_pods(namespace) {
            self.drop_kept(namespace);
        }
    }

    fn drop_kept(&mut self, namespace: &Text) {
        let gone = |key: &ObjectKey| key.namespace == *namespace;
        for key in self.ending.kept.extract_if(.., |key| gone(key)) {
            self.policies.remove(&key);
        }
    }

    fn has_pods(&self, namespace: &Text) -> bool {
        let first = ObjectKey::new(namespace.clone(), "");
        let next = self.pods.range(first..).next();
        next.is_some_and(|(key, _)| key.namespace == *namespace)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Event, Key, Namespace, NetworkPolicy, NodeConfig, Object, Pod};
    use super::*;

    fn key(name: &str) -> ObjectKey {
        ObjectKey::new("shop", name)
    }

    fn namespace(ending: bool) -> Event {
        Event::Apply(Object::Namespace(Namespace {
            name: "shop".into(),
            ending,
            ..Namespace::default()
        }))
    }

    fn world(ending: bool) -> Snapshot {
        let mut snapshot = Snapshot::new(NodeConfig::default(), []);
        snapshot.apply(namespace(ending));
        for name in ["a", "b"] {
            snapshot.apply(Event::Apply(Object::Pod(Pod::new(key(name)))));
        }
        let policy = NetworkPolicy::unreadable(key("np"));
        snapshot.apply(Event::Apply(Object::Policy(policy)));
        snapshot
    }

    fn gone(snapshot: &mut Snapshot, key: Key) -> bool {
        snapshot.apply(Event::Delete(key))
    }

    #[test]
    fn a_namespace_that_ends_keeps_its_policies_while_it_has_pods() {
        let mut snapshot = world(true);
        assert!(!gone(&mut snapshot, Key::Policy(key("np"))));
        assert!(snapshot.policies.contains_key(&key("np")));
        assert!(gone(&mut snapshot, Key::Pod(key("a"))));
        assert!(snapshot.policies.contains_key(&key("np")));
        assert!(gone(&mut snapshot, Key::Pod(key("b"))));
        assert!(snapshot.policies.is_empty());
    }

    #[test]
    fn a_namespace_that_stays_keeps_nothing() {
        let mut snapshot = world(false);
        assert!(gone(&mut snapshot, Key::Policy(key("np"))));
        assert!(snapshot.policies.is_empty());
    }

    #[test]
    fn a_policy_that_comes_again_is_no_left_over() {
        let mut snapshot = world(true);
        gone(&mut snapshot, Key::Policy(key("np")));
        let policy = NetworkPolicy::unreadable(key("np"));
        snapshot.apply(Event::Apply(Object::Policy(policy)));
        gone(&mut snapshot, Key::Pod(key("a")));
        gone(&mut snapshot, Key::Pod(key("b")));
        assert!(snapshot.policies.contains_key(&key("np")), "it exists");
        assert!(gone(&mut snapshot, Key::Policy(key("np"))));
    }

    #[test]
    fn a_namespace_that_is_gone_leaves_nothing() {
        let mut snapshot = world(true);
        gone(&mut snapshot, Key::Policy(key("np")));
        assert!(gone(&mut snapshot, Key::Namespace("shop".into())));
        assert!(snapshot.policies.is_empty());
    }
}
