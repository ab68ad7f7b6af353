//! Namespaces that end. Their objects go in any order, so a NetworkPolicy may be gone while pods that
//! it isolates still run (CVE-2024-7598): it stays in force until the last of them is gone. A process that
//! starts meanwhile cannot know what such a policy allowed: it allows the pods nothing that one isolated.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use super::{Direction, NetworkPolicy, ObjectKey, PolicyMode, Selector, Snapshot, Text};

/// What is known of namespaces that end.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Ending {
    namespaces: BTreeSet<Text>,
    /// Policies that are gone and in force.
    kept: BTreeSet<ObjectKey>,
    /// Pods whose policies nobody knows any more.
    orphans: BTreeSet<ObjectKey>,
}

/// How a pod was policed by an earlier process.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Before {
    /// Its addresses.
    pub ips: Vec<IpAddr>,
    /// Directions in which NetworkPolicies isolated it.
    pub isolated: Vec<Direction>,
}

impl Snapshot {
    /// Notes whether a namespace ends; one that does not, or is gone, keeps nothing. Says whether
    /// policies went with that.
    pub(super) fn mark_namespace(&mut self, name: &Text, ends: bool) -> bool {
        if ends {
            self.ending.namespaces.insert(name.clone());
            return false;
        }
        self.ending.namespaces.remove(name) && self.drop_kept(name)
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

    /// Isolates pods of namespaces that end as they were isolated before, where no policy that is known
    /// does.
    pub fn keep_isolated(&mut self, before: impl IntoIterator<Item = Before>) {
        for Before { ips, mut isolated } in before {
            let pods = self.pods.values();
            let mut owners = pods.filter(|pod| pod.is_policy_pod());
            let Some(pod) = owners.find(|pod| pod.ips.iter().any(|ip| ips.contains(ip))) else {
                continue;
            };
            let namespace = &pod.key.namespace;
            if !self.ending.namespaces.contains(namespace) {
                continue;
            }
            isolated.retain(|direction| {
                let mut known = self.policies.values();
                !known.any(|policy| {
                    policy.key.namespace == *namespace
                        && policy.rules(*direction).is_some()
                        && !self.is_audited(policy)
                        && policy.pods.matches(&pod.labels)
                })
            });
            let rules = |direction| isolated.contains(&direction).then(Vec::new);
            let stand_in = NetworkPolicy {
                // No object can have this name.
                key: ObjectKey::new(namespace.clone(), format!("(gone) {}", pod.key.name)),
                pods: Selector::from(&pod.labels),
                mode: Some(PolicyMode::Enforce),
                ingress: rules(Direction::Ingress),
                egress: rules(Direction::Egress),
            };
            if !isolated.is_empty() {
                self.ending.orphans.insert(pod.key.clone());
                self.ending.kept.insert(stand_in.key.clone());
                let key = stand_in.key.clone();
                self.policies.insert(key, Arc::new(stand_in));
            }
        }
    }

    /// Pods that are isolated because nobody knows their policies any more.
    pub(crate) fn orphans(&self) -> impl Iterator<Item = &ObjectKey> {
        self.ending.orphans.iter()
    }

    fn drop_kept(&mut self, namespace: &Text) -> bool {
        let gone = |key: &ObjectKey| key.namespace == *namespace;
        self.ending.orphans.retain(|pod| !gone(pod));
        let kept = self.ending.kept.extract_if(.., |key| gone(key));
        let dropped = kept.filter(|key| self.policies.remove(key).is_some());
        dropped.count() > 0
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
    fn a_namespace_that_is_made_anew_is_told_of_if_policies_go() {
        let mut snapshot = world(true);
        gone(&mut snapshot, Key::Policy(key("np")));
        assert!(snapshot.apply(namespace(false)));
        assert!(snapshot.policies.is_empty());
        assert!(!snapshot.apply(namespace(true)), "it keeps nothing yet");
        assert!(!snapshot.apply(namespace(false)));
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

    fn isolated_before(snapshot: &mut Snapshot) -> Vec<ObjectKey> {
        let address = IpAddr::from([10, 0, 0, 1]);
        let pod = Pod {
            ips: vec![address],
            ..Pod::new(key("a"))
        };
        snapshot.apply(Event::Apply(Object::Pod(pod)));
        snapshot.keep_isolated([Before {
            ips: vec![address],
            isolated: vec![Direction::Egress],
        }]);
        snapshot.policies.keys().cloned().collect()
    }

    #[test]
    fn what_was_isolated_before_stays_so_until_it_is_gone() {
        let mut snapshot = world(true);
        assert_eq!(isolated_before(&mut snapshot), [key("np")], "one is known");
        assert_eq!(snapshot.orphans().count(), 0);

        let mut snapshot = world(true);
        snapshot.policies.clear();
        let [only] = &isolated_before(&mut snapshot)[..] else {
            panic!("{:?}", snapshot.policies);
        };
        let policy = &snapshot.policies[only];
        assert_eq!(
            (
                policy.rules(Direction::Ingress),
                policy.rules(Direction::Egress)
            ),
            (None, Some(&[][..]))
        );
        assert!(snapshot.orphans().eq([&key("a")]));
        for name in ["a", "b"] {
            gone(&mut snapshot, Key::Pod(key(name)));
        }
        assert_eq!(
            (snapshot.policies.len(), snapshot.orphans().count()),
            (0, 0)
        );

        let mut snapshot = world(false);
        snapshot.policies.clear();
        assert_eq!(isolated_before(&mut snapshot), [], "the namespace stays");
    }

    #[test]
    fn a_namespace_that_is_gone_leaves_nothing() {
        let mut snapshot = world(true);
        gone(&mut snapshot, Key::Policy(key("np")));
        assert!(gone(&mut snapshot, Key::Namespace("shop".into())));
        assert!(snapshot.policies.is_empty());
    }
}
