use dataplane_common::net::proto;

use super::*;
use crate::snapshot::{
    ClusterPolicy, ClusterPolicyKey, ClusterPolicyKind, Event, Labels, NetworkPolicy, Node, Object,
    PortMatch, Selector, TierRule,
};

const DB: [u8; 4] = [10, 0, 0, 1];
const WEB: [u8; 4] = [10, 0, 0, 2];
const OTHER: [u8; 4] = [10, 0, 0, 3];

fn app(name: &str) -> Selector {
    Selector::from(&Labels::from([("app".into(), name.into())]))
}

fn pods(name: &str) -> Peers {
    Peers::Only(vec![Peer::Pods {
        namespaces: NamespaceScope::Matching(Selector::everything()),
        pods: app(name),
    }])
}

fn tcp(port: u16) -> Ports {
    Ports::Only(vec![PortMatch {
        protocol: Protocol::Tcp,
        range: PortRange::Numbers(port, port),
    }])
}

/// A policy for the pods `app=db` about what they receive.
fn tiered(name: &str, tier: Tier, rules: Vec<(RuleAction, Peers, Ports)>) -> Object {
    let rules = rules.into_iter().map(|(action, peers, ports)| TierRule {
        name: "".into(),
        action,
        matches: Rule { peers, ports },
    });
    Object::ClusterPolicy(ClusterPolicy {
        key: ClusterPolicyKey::new(ClusterPolicyKind::Cluster, name),
        mode: PolicyMode::Enforce,
        tier,
        priority: 7,
        namespaces: Selector::everything(),
        pods: app("db"),
        ingress: rules.collect(),
        egress: Vec::new(),
    })
}

fn namespaced(name: &str, rules: Vec<(Peers, Ports)>) -> Object {
    let rules = rules
        .into_iter()
        .map(|(peers, ports)| Rule { peers, ports });
    Object::Policy(NetworkPolicy {
        key: ObjectKey::new("shop", name),
        pods: app("db"),
        mode: None,
        ingress: Some(rules.collect()),
        egress: None,
    })
}

/// A database and other pods, none of them on the node that is asked.
fn world(policies: impl IntoIterator<Item = Object>) -> Snapshot {
    let mut snapshot = Snapshot::new(
        NodeConfig {
            name: "asked".into(),
            addresses: vec![[192, 0, 2, 9].into()],
            ..NodeConfig::default()
        },
        [],
    );
    let node = Object::Node(Node {
        name: "there".into(),
        addresses: vec![[192, 0, 2, 1].into()],
        pod_ranges: vec!["10.0.0.0/24".parse().unwrap()],
        ..Node::default()
    });
    let pod = |name: &str, ip: [u8; 4]| {
        Object::Pod(Pod {
            labels: Labels::from([("app".into(), name.into())]),
            ips: vec![ip.into()],
            node: Some("there".into()),
            ..Pod::new(ObjectKey::new("shop", name))
        })
    };
    let pods = [pod("db", DB), pod("web", WEB), pod("other", OTHER), node];
    for object in pods.into_iter().chain(policies) {
        snapshot.apply(Event::Apply(object));
    }
    snapshot
}

fn packet(src: [u8; 4], port: u16) -> Packet {
    Packet {
        src: src.into(),
        dst: DB.into(),
        proto: proto::TCP,
        port,
    }
}

/// The end that receives, and how each of its rules fared.
fn ingress(snapshot: &Snapshot, src: [u8; 4], port: u16) -> (End, Vec<Outcome>) {
    let explained = explain(snapshot, &packet(src, port)).expect("it fits");
    let end = explained.ingress.expect("a pod is there");
    assert!(end.agrees, "{end:#?}");
    assert!(explained.egress.is_none_or(|end| end.allowed));
    let outcomes = end.asked.iter().map(|step| step.outcome).collect();
    (end, outcomes)
}

use Outcome::{Decides, NotAsked, OtherPeer, OtherPort, Passes};
use RuleAction::{Accept, Deny, Pass};

#[test]
fn tiers_are_walked_in_order_until_one_decides() {
    let snapshot = world([
        tiered(
            "admin",
            Tier::Admin,
            vec![
                (Pass, pods("web"), Ports::Any),
                (Accept, pods("other"), tcp(80)),
                (Deny, pods("other"), Ports::Any),
            ],
        ),
        tiered("base", Tier::Baseline, vec![(Deny, Peers::Any, Ports::Any)]),
    ]);
    let (end, outcomes) = ingress(&snapshot, WEB, 80);
    assert_eq!(outcomes, [Passes, NotAsked, NotAsked, Decides]);
    let named = "ClusterNetworkPolicy base ingress rule 1 (Deny)";
    assert_eq!((end.allowed, end.rule.as_deref()), (false, Some(named)));
    assert_eq!(end.asked[0].policy, "ClusterNetworkPolicy admin (Admin 7)");
    assert_eq!(end.asked[0].peers, "pods app=web in namespaces all");
    assert_eq!(end.nearest(), [] as [&Step; 0], "a rule decides");
    let (end, outcomes) = ingress(&snapshot, OTHER, 80);
    assert_eq!(outcomes, [OtherPeer, Decides, NotAsked, NotAsked]);
    assert!(end.allowed);
    let (end, outcomes) = ingress(&snapshot, OTHER, 81);
    assert_eq!(outcomes, [OtherPeer, OtherPort, Decides, NotAsked]);
    assert!(!end.allowed);
}

#[test]
fn a_default_deny_names_who_isolates_and_what_came_nearest() {
    let snapshot = world([
        namespaced("a", vec![(pods("other"), tcp(80)), (pods("web"), tcp(81))]),
        namespaced("b", Vec::new()),
        tiered(
            "base",
            Tier::Baseline,
            vec![(Accept, Peers::Any, Ports::Any)],
        ),
    ]);
    let (end, outcomes) = ingress(&snapshot, WEB, 80);
    assert_eq!(outcomes, [OtherPeer, OtherPort]);
    assert_eq!((end.allowed, &end.rule), (false, &None));
    let isolating: Vec<_> = end.isolated_by.iter().map(ToString::to_string).collect();
    assert_eq!(isolating, ["shop/a", "shop/b"]);
    let nearest = end.nearest();
    assert_eq!((nearest.len(), nearest[0].rule), (1, 2));
    assert_eq!(nearest[0].ports, "81/TCP");
    let (end, _) = ingress(&snapshot, [192, 0, 2, 77], 80);
    assert_eq!(end.nearest().len(), 2, "none of the peers is right");
    let (end, outcomes) = ingress(&snapshot, WEB, 81);
    assert_eq!(outcomes, [OtherPeer, Decides]);
    assert_eq!(end.rule.as_deref(), Some("shop/a ingress rule 2"));
}

#[test]
fn a_pod_is_judged_as_its_own_node_does() {
    let snapshot = world([
        namespaced("none", Vec::new()),
        tiered("admin", Tier::Admin, vec![(Deny, pods("web"), Ports::Any)]),
    ]);
    let (end, outcomes) = ingress(&snapshot, [192, 0, 2, 1], 80);
    assert_eq!((end.allowed, outcomes), (true, vec![]));
    assert!(end.exempt.is_some_and(|why| why.contains("node")));
    let (end, _) = ingress(&snapshot, [192, 0, 2, 9], 80);
    assert!(!end.allowed, "another node");
    // Nobody knows the address, and it may be a pod's.
    let (end, outcomes) = ingress(&snapshot, [10, 0, 0, 200], 80);
    assert_eq!((end.allowed, outcomes), (false, vec![Decides]));
    let (end, outcomes) = ingress(&snapshot, DB, 80);
    assert_eq!((end.allowed, outcomes), (true, vec![OtherPeer]));
}

#[test]
fn policies_in_audit_are_explained_beside_those_in_force() {
    let in_audit = |object: Object| match object {
        Object::Policy(policy) => Object::Policy(NetworkPolicy {
            mode: Some(PolicyMode::Audit),
            ..policy
        }),
        Object::ClusterPolicy(policy) => Object::ClusterPolicy(ClusterPolicy {
            mode: PolicyMode::Audit,
            ..policy
        }),
        other => other,
    };
    let snapshot = world([
        namespaced("in-force", vec![(pods("web"), Ports::Any)]),
        in_audit(tiered(
            "audited",
            Tier::Admin,
            vec![(Deny, pods("web"), tcp(80))],
        )),
        in_audit(namespaced("audited", Vec::new())),
    ]);
    let audit = |port| {
        let (end, outcomes) = ingress(&snapshot, WEB, port);
        assert_eq!((end.allowed, outcomes), (true, vec![Decides]));
        assert_eq!(end.isolated_by.len(), 1);
        *end.audit.expect("two are about the pod")
    };
    let end = audit(80);
    assert_eq!((end.allowed, end.agrees), (false, true));
    let named = "ClusterNetworkPolicy audited ingress rule 1 (Deny)";
    assert_eq!(end.rule.as_deref(), Some(named));
    let end = audit(81);
    assert!(end.allowed && end.agrees);
    assert_eq!(end.isolated_by.len(), 2);
    assert_eq!(ingress(&world([]), WEB, 80).0.audit, None);
}

#[test]
fn who_is_no_pod_has_no_end() {
    let snapshot = world([]);
    let explained = explain(&snapshot, &packet([198, 51, 100, 1], 80)).expect("it fits");
    assert_eq!(explained.egress, None);
    assert!(explained.is_allowed());
    let end = explained.ingress.expect("the database");
    assert_eq!((end.asked.len(), end.isolated_by.len()), (0, 0));
}
