use dataplane_common::abi::{Addr4, identity_flags, subject_state};
use dataplane_common::net::proto;

use super::*;
use crate::eval::{self, Packet};
use crate::ids::IdKind;
use crate::tables::Family;

fn allows(desired: &Desired, src: &str, dst: &str, port: u16) -> bool {
    let packet = Packet {
        src: ip(src),
        dst: ip(dst),
        proto: proto::TCP,
        port,
    };
    eval::judge(&desired.tables, &packet).unwrap().is_allowed()
}

/// `shop/p` for pods with app=db, with these ingress rules.
fn ingress(rules: Vec<Rule>) -> NetworkPolicy {
    NetworkPolicy {
        key: ObjectKey::new("shop", "p"),
        pods: Selector::from(&labels("app=db")),
        mode: None,
        ingress: Some(rules),
        egress: None,
    }
}

fn from_web(ports: Ports) -> Rule {
    let peer = Peer::Pods {
        namespaces: NamespaceScope::Own,
        pods: Selector::from(&labels("app=web")),
    };
    Rule {
        peers: Peers::Only(vec![peer]),
        ports,
    }
}

fn tcp(range: PortRange) -> Ports {
    Ports::Only(vec![PortMatch {
        protocol: Protocol::Tcp,
        range,
    }])
}

/// A database 10.0.0.1 on this node, a web server 10.0.0.2 and another pod 10.0.0.3.
fn shop(policies: impl IntoIterator<Item = NetworkPolicy>) -> Vec<Object> {
    let pods = [
        Object::Pod(pod("db", "10.0.0.1", "here", "app=db")),
        device(10, "10.0.0.1"),
        Object::Pod(pod("web", "10.0.0.2", "there", "app=web")),
        Object::Pod(pod("other", "10.0.0.3", "here", "app=other")),
        device(11, "10.0.0.3"),
    ];
    pods.into_iter()
        .chain(policies.into_iter().map(Object::Policy))
        .collect()
}

#[test]
fn a_pods_labels_do_not_make_it_one_of_another_namespace() {
    let named =
        |name: &str| Selector::from(&labels(&format!("kubernetes.io/metadata.name={name}")));
    let from_shop = ingress(vec![Rule {
        peers: Peers::Only(vec![Peer::Pods {
            namespaces: NamespaceScope::Matching(named("shop")),
            pods: Selector::everything(),
        }]),
        ports: Ports::Any,
    }]);
    let claims = "app=db,kubernetes.io/metadata.name=shop,io.kubernetes.pod.namespace=shop";
    let mut stranger = pod("stranger", "10.0.0.4", "there", claims);
    stranger.key = ObjectKey::new("elsewhere", "stranger");
    let mut objects = shop([from_shop]);
    objects.push(Object::Pod(stranger));
    let desired = compiled(objects);
    assert!(allows(&desired, "10.0.0.2", "10.0.0.1", 80));
    assert!(!allows(&desired, "10.0.0.4", "10.0.0.1", 80));
    // Nor does it come under the policies of a namespace that it only claims.
    assert!(allows(&desired, "10.0.0.2", "10.0.0.4", 80));
}

#[test]
fn a_selection_of_nobody_allows_nobody() {
    let nobody = Selector::from(&labels("app=nobody"));
    let peers = [
        Peers::Only(vec![]),
        Peers::Only(vec![Peer::Pods {
            namespaces: NamespaceScope::Own,
            pods: nobody.clone(),
        }]),
        Peers::Only(vec![Peer::Pods {
            namespaces: NamespaceScope::Matching(nobody),
            pods: Selector::everything(),
        }]),
    ];
    for peers in peers {
        let rule = Rule {
            peers,
            ports: Ports::Any,
        };
        let desired = compiled(shop([ingress(vec![rule])]));
        for src in ["10.0.0.2", "10.0.0.3", "203.0.113.7"] {
            assert!(!allows(&desired, src, "10.0.0.1", 80), "{src}");
        }
    }
}

#[test]
fn a_policy_isolates_what_it_selects_and_nothing_else() {
    let desired = compiled(shop([ingress(vec![from_web(tcp(PortRange::Numbers(
        5432, 5432,
    )))])]));
    assert!(allows(&desired, "10.0.0.2", "10.0.0.1", 5432));
    assert!(!allows(&desired, "10.0.0.2", "10.0.0.1", 5433));
    assert!(!allows(&desired, "10.0.0.3", "10.0.0.1", 5432));
    assert!(
        allows(&desired, "10.0.0.1", "10.0.0.2", 80),
        "what it sends is not isolated"
    );
    assert!(
        allows(&desired, "10.0.0.2", "10.0.0.3", 80),
        "another pod is not isolated"
    );
}

#[test]
fn no_list_is_everyone_and_an_empty_one_is_no_one() {
    let rule = |peers, ports| vec![Rule { peers, ports }];
    let all = compiled(shop([ingress(rule(Peers::Any, Ports::Any))]));
    assert!(allows(&all, "203.0.113.1", "10.0.0.1", 1));
    for rules in [
        vec![],
        rule(Peers::Only(vec![]), Ports::Any),
        rule(Peers::Any, Ports::Only(vec![])),
    ] {
        let none = compiled(shop([ingress(rules)]));
        assert!(!allows(&none, "10.0.0.2", "10.0.0.1", 5432));
        assert_ne!(eval::subject(&none.tables, 10).unwrap().ingress, 0);
    }
}

#[test]
fn an_unreadable_policy_closes_its_namespace() {
    let unreadable = NetworkPolicy::unreadable(ObjectKey::new("shop", "bad"));
    let desired = compiled(shop([unreadable, ingress(vec![from_web(Ports::Any)])]));
    assert!(
        allows(&desired, "10.0.0.2", "10.0.0.1", 1),
        "other policies still allow"
    );
    assert!(!allows(&desired, "10.0.0.1", "10.0.0.2", 1));
    assert!(!allows(&desired, "10.0.0.2", "10.0.0.3", 1));
    assert!(
        allows(&desired, "192.168.0.1", "10.0.0.3", 1),
        "the node's own probes pass"
    );
}

#[test]
fn named_ports_are_those_of_the_receiver() {
    let to_web = tcp(PortRange::Named("web".into()));
    let egress = NetworkPolicy {
        ingress: None,
        egress: Some(vec![from_web(to_web.clone())]),
        ..ingress(vec![])
    };
    let desired = compiled(shop([egress]));
    assert!(allows(&desired, "10.0.0.1", "10.0.0.2", 8080));
    assert!(!allows(&desired, "10.0.0.1", "10.0.0.2", 80));
    let desired = compiled(shop([ingress(vec![from_web(to_web)])]));
    assert!(allows(&desired, "10.0.0.2", "10.0.0.1", 8080));
    assert!(!allows(&desired, "10.0.0.2", "10.0.0.1", 80));
}

#[test]
fn host_network_and_finished_pods_are_no_peers() {
    let host = Pod {
        host_network: true,
        ips: vec![ip("192.168.0.9")],
        ..pod("web2", "::", "there", "app=web")
    };
    let done = Pod {
        terminal: true,
        ..pod("web3", "10.0.0.9", "there", "app=web")
    };
    let objects = shop([ingress(vec![from_web(Ports::Any)])]);
    let desired = compiled(
        objects
            .into_iter()
            .chain([Object::Pod(host), Object::Pod(done)]),
    );
    assert!(!allows(&desired, "192.168.0.9", "10.0.0.1", 1));
    assert!(!allows(&desired, "10.0.0.9", "10.0.0.1", 1));
}

#[test]
fn equal_pods_share_an_identity_and_rulesets() {
    let more = [
        Object::Pod(pod("db2", "10.0.0.4", "here", "app=db,pod-template-hash=x")),
        device(12, "10.0.0.4"),
    ];
    let desired = compiled(
        shop([ingress(vec![from_web(Ports::Any)])])
            .into_iter()
            .chain(more),
    );
    let subject = |ifindex| *eval::subject(&desired.tables, ifindex).unwrap();
    assert_eq!(subject(10).ingress, subject(12).ingress);
    assert_eq!(subject(10).identity, subject(12).identity);
    assert_eq!(
        subject(10).identity,
        subject(11).identity,
        "no rule tells them apart"
    );
    assert_eq!(desired.tables.rulesets.len(), 1);
    assert_eq!(desired.tables.rows.len(), 1);
}

#[test]
fn policies_of_other_nodes_pods_cost_nothing() {
    let elsewhere = NetworkPolicy {
        pods: Selector::from(&labels("app=web")),
        ..ingress(vec![from_web(Ports::Any)])
    };
    let desired = compiled(shop([elsewhere]));
    assert!(desired.tables.rows.is_empty() && desired.tables.rulesets.is_empty());
}

#[test]
fn rules_have_names() {
    let mut ids = IdTable::default();
    let objects = shop([ingress(vec![
        from_web(tcp(PortRange::Numbers(1, 1))),
        from_web(tcp(PortRange::Numbers(2, 2))),
    ])]);
    let desired = compile(&snapshot(objects), &mut ids).unwrap();
    let packet = Packet {
        src: ip("10.0.0.2"),
        dst: ip("10.0.0.1"),
        proto: proto::TCP,
        port: 2,
    };
    let rule = eval::judge(&desired.tables, &packet)
        .unwrap()
        .ingress
        .unwrap()
        .rule;
    assert_eq!(
        ids.name(IdKind::Rule, rule).map(|name| &**name),
        Some("shop/p ingress rule 2")
    );
    let ruleset = eval::subject(&desired.tables, 10).unwrap().ingress;
    let name = ids.name(IdKind::Ruleset, ruleset).map(|name| &**name);
    assert_eq!(name, Some("ingress of pods that shop/p selects"));
}

#[test]
fn addresses_are_told_apart() {
    let node = Object::Node(Node {
        name: "there".into(),
        addresses: vec![ip("192.168.0.2")],
        ..Node::default()
    });
    let desired = compiled(shop([]).into_iter().chain([node]));
    let of = |address| {
        desired
            .tables
            .v4
            .identities
            .get(&Addr4::from_ip(ip(address)).unwrap())
            .copied()
    };
    let device_and_flags = |address| of(address).map(|it| (it.ifindex, it.flags));
    let pod = identity_flags::POD | identity_flags::NO_CIDR;
    let node = identity_flags::NODE | identity_flags::NO_CIDR;
    let other = identity_flags::REMOTE_NODE | identity_flags::NO_CIDR;
    assert_eq!(device_and_flags("192.168.0.1"), Some((0, node)));
    assert_eq!(device_and_flags("192.168.0.2"), Some((0, other)));
    assert_eq!(device_and_flags("10.0.0.1"), Some((10, pod)));
    assert_eq!(device_and_flags("10.0.0.2"), Some((0, pod)));
    assert_eq!(of("10.0.0.77"), None);
}

#[test]
fn a_device_whose_pod_is_unknown_has_services_only() {
    let desired = compiled([device(10, "10.0.0.1")]);
    let subject = eval::subject(&desired.tables, 10).unwrap();
    assert_eq!(
        (subject.state, subject.ingress, subject.egress),
        (subject_state::SERVICES, 0, 0)
    );
    let desired = compiled(shop([]));
    assert_eq!(
        eval::subject(&desired.tables, 10).unwrap().state,
        subject_state::MANAGED
    );
}

#[test]
fn a_closed_device_opens_only_for_the_pod_that_it_was_made_for() {
    let named = |closed: bool, uid: &str| {
        Object::Interface(Interface {
            ifindex: 10,
            // Those of another pod, which has gone or is to go.
            addresses: vec![ip("10.0.0.3")],
            closed,
            pod: Some(PodRef {
                key: ObjectKey::new("shop", "db"),
                uid: uid.into(),
            }),
            ..Interface::default()
        })
    };
    let db = |uid: &str| Pod {
        uid: uid.into(),
        ..pod("db", "10.0.0.1", "here", "app=db")
    };
    let other = || Object::Pod(pod("other", "10.0.0.3", "here", "app=other"));
    let state = |objects: Vec<Object>| {
        let desired = compiled(objects);
        let subject = eval::subject(&desired.tables, 10).unwrap();
        (subject.state, subject.ingress != 0)
    };
    let deny = || Object::Policy(ingress(vec![]));
    for (objects, expected) in [
        (vec![named(true, "u")], (subject_state::CLOSED, false)),
        (vec![named(false, "u")], (subject_state::SERVICES, false)),
        (
            vec![named(true, "u"), other(), deny()],
            (subject_state::CLOSED, false),
        ),
        (
            vec![named(true, "u"), Object::Pod(db("v")), deny()],
            (subject_state::CLOSED, false),
        ),
        (
            vec![named(true, "u"), Object::Pod(db("u")), deny()],
            (subject_state::MANAGED, true),
        ),
        (
            vec![named(true, ""), Object::Pod(db("v")), deny()],
            (subject_state::MANAGED, true),
        ),
    ] {
        let names: Vec<_> = objects.iter().map(Object::key).collect();
        assert_eq!(state(objects), expected, "{names:?}");
    }
}

#[test]
fn devices_that_share_a_place_overflow() {
    let capacities = Capacities {
        subjects: 4,
        ..Capacities::default()
    };
    let devices = [
        device(6, "10.0.0.6"),
        device(10, "10.0.0.1"),
        device(11, "10.0.0.3"),
    ];
    let desired = compile(&snapshot(devices), &mut IdTable::new(capacities)).unwrap();
    let places: Vec<_> = desired
        .tables
        .subjects
        .iter()
        .map(|(&place, subject)| (place, subject.ifindex))
        .collect();
    assert_eq!(places, [(2, 6), (3, 11)]);
    assert_eq!(
        desired.tables.subjects_overflow.keys().collect::<Vec<_>>(),
        [&10]
    );
}
