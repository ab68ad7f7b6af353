use dataplane_common::abi::{DNS_PROXY, subject_flags};
use dataplane_common::net::proto;

use super::*;
use crate::eval::{self, Packet};
use crate::ids::IdKind;

fn judge(desired: &Desired, src: &str, dst: &str, port: u16) -> eval::Judgement {
    let packet = Packet {
        src: ip(src),
        dst: ip(dst),
        proto: proto::TCP,
        port,
    };
    eval::judge(&desired.tables, &packet).unwrap()
}

fn allows(desired: &Desired, src: &str, dst: &str) -> bool {
    judge(desired, src, dst, 80).is_allowed()
}

fn pods(selector: &str) -> Vec<Peer> {
    vec![Peer::Pods {
        namespaces: NamespaceScope::Matching(Selector::everything()),
        pods: Selector::from(&labels(selector)),
    }]
}

fn network(cidr: &str) -> Vec<Peer> {
    vec![Peer::Block {
        cidr: cidr.parse().unwrap(),
        except: Vec::new(),
    }]
}

fn rule(action: RuleAction, peers: Vec<Peer>) -> TierRule {
    TierRule {
        name: "".into(),
        action,
        matches: Rule {
            peers: Peers::Only(peers),
            ports: Ports::Any,
        },
    }
}

/// A policy for all pods with app=db.
fn policy(name: &str, tier: Tier, ingress: Vec<TierRule>, egress: Vec<TierRule>) -> Object {
    Object::ClusterPolicy(ClusterPolicy {
        key: ClusterPolicyKey::new(ClusterPolicyKind::Cluster, name),
        mode: PolicyMode::Enforce,
        tier,
        priority: 10,
        namespaces: Selector::everything(),
        pods: Selector::from(&labels("app=db")),
        ingress,
        egress,
    })
}

/// A database 10.0.0.1 on this node, a web server 10.0.0.2 and another pod 10.0.0.3 elsewhere; pods are
/// in 10.0.0.0/24.
fn shop(policies: impl IntoIterator<Item = Object>) -> Vec<Object> {
    let there = Object::Node(Node {
        name: "there".into(),
        addresses: vec![ip("192.168.0.2")],
        labels: labels("role=edge"),
        pod_ranges: vec!["10.0.0.0/24".parse().unwrap()],
        ..Node::default()
    });
    let pods = [
        there,
        Object::Pod(pod("db", "10.0.0.1", "here", "app=db")),
        device(10, "10.0.0.1"),
        Object::Pod(pod("web", "10.0.0.2", "there", "app=web")),
        Object::Pod(pod("other", "10.0.0.3", "there", "app=other")),
    ];
    pods.into_iter().chain(policies).collect()
}

use RuleAction::{Accept, Deny, Pass};

#[test]
fn baseline_holds_in_the_direction_that_no_network_policy_isolates() {
    let isolating = |ingress: bool| {
        Object::Policy(NetworkPolicy {
            key: ObjectKey::new("shop", "np"),
            pods: Selector::from(&labels("app=db")),
            mode: None,
            ingress: ingress.then(Vec::new),
            egress: (!ingress).then(Vec::new),
        })
    };
    let baseline = || {
        let accept = || {
            vec![
                rule(Accept, pods("app=web")),
                rule(Deny, network("0.0.0.0/0")),
            ]
        };
        policy("b", Tier::Baseline, accept(), accept())
    };
    let egress = compiled(shop([isolating(false), baseline()]));
    assert!(allows(&egress, "10.0.0.2", "10.0.0.1"));
    assert!(!allows(&egress, "10.0.0.3", "10.0.0.1"), "Baseline denies");
    assert!(!allows(&egress, "10.0.0.1", "10.0.0.2"), "isolated");
    let ingress = compiled(shop([isolating(true), baseline()]));
    assert!(!allows(&ingress, "10.0.0.2", "10.0.0.1"), "isolated");
    assert!(allows(&ingress, "10.0.0.1", "10.0.0.2"));
    assert!(!allows(&ingress, "10.0.0.1", "10.0.0.3"), "Baseline denies");
}

#[test]
fn a_policy_without_rules_for_a_direction_does_not_concern_it() {
    let desired = compiled(shop([policy(
        "a",
        Tier::Admin,
        vec![rule(Deny, pods(""))],
        vec![],
    )]));
    let subject = eval::subject(&desired.tables, 10).unwrap();
    assert_ne!(subject.ingress, 0);
    assert_eq!(subject.egress, 0);
}

#[test]
fn passing_skips_the_rest_of_the_tier_alone() {
    let admin = vec![
        rule(Pass, pods("app=web")),
        rule(Deny, network("10.0.0.0/24")),
    ];
    let baseline = vec![rule(Deny, network("10.0.0.2/32"))];
    let only = compiled(shop([policy("a", Tier::Admin, admin.clone(), vec![])]));
    assert!(allows(&only, "10.0.0.2", "10.0.0.1"));
    assert!(!allows(&only, "10.0.0.3", "10.0.0.1"));
    let both = compiled(shop([
        policy("a", Tier::Admin, admin, vec![]),
        policy("b", Tier::Baseline, baseline, vec![]),
    ]));
    assert!(!allows(&both, "10.0.0.2", "10.0.0.1"));
}

#[test]
fn a_pod_that_nobody_knows_may_be_the_one_that_is_denied() {
    let deny = vec![
        rule(Deny, pods("app=web")),
        rule(Accept, network("0.0.0.0/0")),
    ];
    let desired = compiled(shop([policy("a", Tier::Admin, deny.clone(), deny)]));
    assert_eq!(desired.notices, []);
    for (peer, allowed) in [
        ("10.0.0.2", false),
        ("10.0.0.3", true),
        ("10.0.0.77", false),
        ("203.0.113.1", true),
        ("192.168.0.2", true),
    ] {
        assert_eq!(allows(&desired, peer, "10.0.0.1"), allowed, "from {peer}");
        assert_eq!(allows(&desired, "10.0.0.1", peer), allowed, "to {peer}");
    }
    // Whoever had an address, and is done, is nobody that is known.
    let done = Pod {
        terminal: true,
        ..pod("other", "10.0.0.3", "there", "app=other")
    };
    let deny = vec![rule(Deny, pods("app=web"))];
    let objects = shop([policy("a", Tier::Admin, deny, vec![])]);
    let desired = compiled(objects.into_iter().chain([Object::Pod(done)]));
    assert!(!allows(&desired, "10.0.0.3", "10.0.0.1"));
}

#[test]
fn a_pod_that_nobody_knows_is_not_accepted() {
    let accept = vec![rule(Accept, pods("")), rule(Deny, network("0.0.0.0/0"))];
    let desired = compiled(shop([policy("a", Tier::Admin, accept, vec![])]));
    assert!(allows(&desired, "10.0.0.2", "10.0.0.1"));
    assert!(!allows(&desired, "10.0.0.77", "10.0.0.1"));
    let pass = vec![
        rule(Pass, pods("app=web")),
        rule(Accept, network("0.0.0.0/0")),
    ];
    let desired = compiled(shop([policy("a", Tier::Admin, pass, vec![])]));
    assert!(allows(&desired, "203.0.113.1", "10.0.0.1"));
    assert!(
        !allows(&desired, "10.0.0.77", "10.0.0.1"),
        "what it would pass to may deny"
    );
}

#[test]
fn without_ranges_of_pods_everybody_may_be_one_and_a_notice_says_so() {
    let deny = vec![rule(Deny, pods("app=web"))];
    let objects = shop([policy("a", Tier::Admin, deny, vec![])]);
    let known = |object: &Object| !matches!(object, Object::Node(_));
    let desired = compiled(objects.into_iter().filter(known));
    for (peer, allowed) in [
        ("10.0.0.3", true),
        ("203.0.113.1", false),
        ("10.0.0.2", false),
    ] {
        assert_eq!(allows(&desired, peer, "10.0.0.1"), allowed, "from {peer}");
    }
    let [notice] = &desired.notices[..] else {
        panic!("{:?}", desired.notices);
    };
    assert_eq!(notice.object, "ClusterNetworkPolicy a");
    assert!(notice.text.contains("set clusterCIDR"), "{notice}");
}

#[test]
fn equal_priorities_are_ordered_by_name_and_told() {
    let first = policy(
        "a",
        Tier::Admin,
        vec![rule(Accept, pods("app=web"))],
        vec![],
    );
    let second = policy("b", Tier::Admin, vec![rule(Deny, pods("app=web"))], vec![]);
    let mut ids = IdTable::default();
    let objects = shop([second, first]);
    let desired = compile(&snapshot(objects), &mut ids).unwrap();
    let decision = judge(&desired, "10.0.0.2", "10.0.0.1", 80).ingress.unwrap();
    assert_eq!(decision.allowed, 1);
    assert_eq!(
        ids.name(IdKind::Rule, decision.rule).map(|name| &**name),
        Some("ClusterNetworkPolicy a ingress rule 1 (Accept)")
    );
    let [notice] = &desired.notices[..] else {
        panic!("{:?}", desired.notices);
    };
    assert_eq!(notice.object, "ClusterNetworkPolicy b");
}

#[test]
fn a_pods_own_node_and_itself_are_policed_by_tiers_alone() {
    let isolated = Object::Policy(NetworkPolicy::unreadable(ObjectKey::new("shop", "np")));
    let admin = |action| {
        let nodes = vec![Peer::Nodes(Selector::everything())];
        let rules = vec![rule(action, nodes), rule(action, pods("app=db"))];
        policy("a", Tier::Admin, rules.clone(), rules)
    };
    for (action, allowed) in [(Accept, true), (Deny, false), (Pass, true)] {
        let desired = compiled(shop([isolated.clone(), admin(action)]));
        assert_eq!(allows(&desired, "10.0.0.1", "192.168.0.1"), allowed);
        assert_eq!(allows(&desired, "10.0.0.1", "10.0.0.1"), allowed);
        assert!(
            allows(&desired, "192.168.0.1", "10.0.0.1"),
            "its probes pass"
        );
    }
}

#[test]
fn nodes_are_peers_by_their_labels() {
    let edge = || vec![Peer::Nodes(Selector::from(&labels("role=edge")))];
    let rules = vec![rule(Accept, edge()), rule(Deny, network("0.0.0.0/0"))];
    let desired = compiled(shop([policy("a", Tier::Admin, vec![], rules)]));
    assert!(allows(&desired, "10.0.0.1", "192.168.0.2"));
    assert!(!allows(&desired, "10.0.0.1", "192.168.0.1"));
    assert!(!allows(&desired, "10.0.0.1", "203.0.113.1"));
}

#[test]
fn pods_of_the_hosts_network_are_neither_subjects_nor_peers() {
    let host = Pod {
        host_network: true,
        ips: vec![ip("192.168.0.2")],
        ..pod("web2", "::", "there", "app=web")
    };
    let deny = vec![rule(Deny, pods("app=web"))];
    let objects = shop([policy("a", Tier::Admin, deny.clone(), deny)]);
    let desired = compiled(objects.into_iter().chain([Object::Pod(host)]));
    assert!(allows(&desired, "192.168.0.2", "10.0.0.1"));
    assert!(allows(&desired, "10.0.0.1", "192.168.0.2"));
}

#[test]
fn a_domain_name_is_what_it_resolved_to_and_its_pods_ask_through_the_proxy() {
    let names = || vec![Peer::Domain(DomainPattern::parse("*.example.com").unwrap())];
    let rules = || vec![rule(Accept, names()), rule(Deny, network("0.0.0.0/0"))];
    let domain = |name: &str, address: &str| {
        Object::Domain(Domain {
            name: name.into(),
            addresses: [ip(address)].into(),
        })
    };
    let named = shop([
        policy("a", Tier::Admin, vec![], rules()),
        domain("www.example.com", "203.0.113.1"),
        domain("example.com", "203.0.113.2"),
    ]);
    let proxy = Object::Interface(Interface {
        ifindex: 20,
        is_dns_proxy: true,
        ..Interface::default()
    });
    let desired = compiled(named.clone().into_iter().chain([proxy.clone()]));
    assert!(allows(&desired, "10.0.0.1", "203.0.113.1"));
    assert!(!allows(&desired, "10.0.0.1", "203.0.113.2"));
    let wanted: Vec<_> = desired.policy.domains().map(ToString::to_string).collect();
    assert_eq!(wanted, ["*.example.com"]);
    let asks = |desired: &Desired| {
        let subject = eval::subject(&desired.tables, 10).unwrap();
        (subject.flags & subject_flags::DNS != 0, subject.dns_proxy)
    };
    assert_eq!(asks(&desired), (true, 20));
    let alone = compiled(named.clone());
    assert_eq!(asks(&alone), (true, 0));
    let reasons: Vec<_> = alone.notices.iter().map(|notice| notice.reason).collect();
    assert_eq!(reasons, ["NoDnsProxy"]);
    let awaited = Object::Config(NodeConfig {
        has_dns_proxy: true,
        ..snapshot([]).node
    });
    let waits = compiled(named.into_iter().chain([awaited]));
    assert_eq!(asks(&waits), (true, DNS_PROXY));
    assert_eq!(waits.notices, []);
    assert_eq!(asks(&compiled(shop([proxy]))), (false, 20));
}
