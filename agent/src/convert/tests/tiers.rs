//! Policies of the tiers.

use dataplane_model::snapshot::{
    ClusterPolicy, ClusterPolicyKey, ClusterPolicyKind, DomainPattern, NamespaceScope, Peer, Peers,
    PortMatch, PortRange, Ports, RuleAction, Selector, Tier, TierRule,
};

use super::*;

fn cluster(tier: &str, rules: &str) -> World {
    World::of(&format!(
        "apiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\nmetadata: {{name: p}}\n\
         spec: {{tier: {tier}, priority: 7, subject: {{namespaces: {{}}}}, {rules}}}\n"
    ))
}

fn admin(kind: &str, rules: &str) -> World {
    let priority = if kind == "AdminNetworkPolicy" {
        "priority: 7, "
    } else {
        ""
    };
    World::of(&format!(
        "apiVersion: policy.networking.k8s.io/v1alpha1\nkind: {kind}\nmetadata: {{name: p}}\n\
         spec: {{{priority}subject: {{pods: {{namespaceSelector: {{}}, podSelector: {{matchLabels: {{app: x}}}}}}}}, {rules}}}\n"
    ))
}

fn only(world: &World, kind: ClusterPolicyKind) -> &ClusterPolicy {
    &world.snapshot.cluster_policies[&ClusterPolicyKey::new(kind, "p")]
}

fn rules(world: &World) -> Vec<TierRule> {
    let policy = only(world, ClusterPolicyKind::Cluster);
    [&policy.ingress[..], &policy.egress].concat()
}

fn selector(key: &str, value: &str) -> Selector {
    Selector::from(&[(key.into(), value.into())].into())
}

fn tcp(range: PortRange) -> PortMatch {
    PortMatch {
        protocol: Protocol::Tcp,
        range,
    }
}

#[test]
fn a_cluster_network_policy_with_everything() {
    let world = cluster(
        "Baseline",
        "ingress: [{name: a, action: Deny, from: [{namespaces: {matchLabels: {t: x}}}, \
           {pods: {namespaceSelector: {}, podSelector: {matchLabels: {app: y}}}}], \
           protocols: [{tcp: {destinationPort: {number: 80}}}, {tcp: {destinationPort: {range: {start: 90, end: 99}}}}, {tcp: {}}]}], \
         egress: [{action: Pass, to: [{nodes: {matchLabels: {role: edge}}}]}, \
           {action: Accept, to: [{networks: [10.0.0.0/8, 'fd00::/8']}], protocols: [{destinationNamedPort: web}]}]",
    );
    assert_eq!(world.problems(), [""; 0]);
    let policy = only(&world, ClusterPolicyKind::Cluster);
    assert_eq!((policy.tier, policy.priority), (Tier::Baseline, 7));
    assert_eq!(policy.namespaces, Selector::everything());
    let of_pods = |namespaces, pods| Peer::Pods {
        namespaces: NamespaceScope::Matching(namespaces),
        pods,
    };
    let everything = Selector::everything;
    let ingress = &policy.ingress[0];
    assert_eq!((&*ingress.name, ingress.action), ("a", RuleAction::Deny));
    let peers = vec![
        of_pods(selector("t", "x"), everything()),
        of_pods(everything(), selector("app", "y")),
    ];
    assert_eq!(ingress.matches.peers, Peers::Only(peers));
    let ports = vec![
        tcp(PortRange::Numbers(80, 80)),
        tcp(PortRange::Numbers(90, 99)),
        tcp(PortRange::All),
    ];
    assert_eq!(ingress.matches.ports, Ports::Only(ports));
    let [nodes, networks] = &policy.egress[..] else {
        panic!("{:?}", policy.egress);
    };
    let edge = vec![Peer::Nodes(selector("role", "edge"))];
    assert_eq!(
        (nodes.action, &nodes.matches.peers),
        (RuleAction::Pass, &Peers::Only(edge))
    );
    assert_eq!(nodes.matches.ports, Ports::Any);
    let block = |text: &str| Peer::Block {
        cidr: text.parse().expect("a block"),
        except: Vec::new(),
    };
    let blocks = vec![block("10.0.0.0/8"), block("fd00::/8")];
    assert_eq!(networks.matches.peers, Peers::Only(blocks));
    let named = Protocol::ALL.map(|protocol| PortMatch {
        protocol,
        range: PortRange::Named("web".into()),
    });
    assert_eq!(networks.matches.ports, Ports::Only(named.into()));
}

#[test]
fn older_kinds_are_policies_of_the_tiers() {
    let rules = "ingress: [{action: Allow, from: [{namespaces: {}}], ports: [{portNumber: {protocol: UDP, port: 53}}, \
                 {portRange: {start: 1, end: 9}}]}], egress: [{action: Deny, to: [{networks: [0.0.0.0/0]}]}]";
    for (kind, name, tier, priority) in [
        (
            ClusterPolicyKind::Admin,
            "AdminNetworkPolicy",
            Tier::Admin,
            7,
        ),
        (
            ClusterPolicyKind::Baseline,
            "BaselineAdminNetworkPolicy",
            Tier::Baseline,
            ClusterPolicy::LAST,
        ),
    ] {
        let world = admin(name, rules);
        assert_eq!(world.problems(), [""; 0]);
        let policy = only(&world, kind);
        assert_eq!((policy.tier, policy.priority), (tier, priority));
        assert_eq!(policy.pods, selector("app", "x"));
        let udp = PortMatch {
            protocol: Protocol::Udp,
            range: PortRange::Numbers(53, 53),
        };
        let ports = Ports::Only(vec![udp, tcp(PortRange::Numbers(1, 9))]);
        assert_eq!(policy.ingress[0].action, RuleAction::Accept);
        assert_eq!(policy.ingress[0].matches.ports, ports);
        assert_eq!(policy.egress[0].action, RuleAction::Deny);
    }
}

#[test]
fn what_cannot_be_understood_closes_its_rule() {
    let unknown = [
        "from: [{planets: {}}]",
        "from: [{}]",
        "from: [{namespaces: {}, pods: {namespaceSelector: {}, podSelector: {}}}]",
        "from: [{networks: [10.0.0.0/8]}]",
        "from: [{namespaces: {matchExpressions: [{key: a, operator: Like}]}}]",
        "from: [{pods: {podSelector: {}}}]",
        "from: [{namespaces: {matchLables: {a: b}}}]",
        "from: []",
        "to: [{namespaces: {}}]",
        "from: [{namespaces: {}}], protocols: [{quic: {}}]",
        "from: [{namespaces: {}}], protocols: []",
        "from: [{namespaces: {}}], protocols: [{tcp: {destinationPort: {number: 0}}}]",
        "from: [{namespaces: {}}], protocols: [{tcp: {destinationPort: {number: 1, range: {start: 1, end: 2}}}}]",
        "from: [{namespaces: {}}], ports: [{portNumber: {port: 80}}]",
        "from: [{namespaces: {}}], weather: rain",
    ];
    let good = "{name: good, action: Accept, from: [{namespaces: {}}]}";
    for rest in unknown {
        for (action, closed, effect) in [
            (
                "Accept",
                (RuleAction::Accept, Peers::Only(vec![])),
                "the rule accepts nothing",
            ),
            (
                "Deny",
                (RuleAction::Deny, Peers::Any),
                "the rule denies everyone",
            ),
            (
                "Pass",
                (RuleAction::Deny, Peers::Any),
                "the rule denies everyone",
            ),
        ] {
            let world = cluster(
                "Admin",
                &format!("ingress: [{{name: bad, action: {action}, {rest}}}, {good}]"),
            );
            let problem = world.problem();
            assert!(problem.starts_with("spec.ingress[0]"), "{problem}");
            assert!(problem.ends_with(&format!("({effect})")), "{problem}");
            let [bad, good] = &rules(&world)[..] else {
                panic!("two rules");
            };
            assert_eq!(&*bad.name, "bad");
            assert_eq!((bad.action, bad.matches.peers.clone()), closed, "{rest}");
            assert_eq!(bad.matches.ports, Ports::Any);
            assert!(matches!(&good.matches.peers, Peers::Only(peers) if peers.len() == 1));
        }
    }
}

#[test]
fn an_unknown_action_denies() {
    for (world, kind) in [
        (
            cluster(
                "Admin",
                "ingress: [{action: Allow, from: [{namespaces: {}}]}]",
            ),
            ClusterPolicyKind::Cluster,
        ),
        (
            admin(
                "AdminNetworkPolicy",
                "ingress: [{action: Accept, from: [{namespaces: {}}]}]",
            ),
            ClusterPolicyKind::Admin,
        ),
        (
            admin(
                "BaselineAdminNetworkPolicy",
                "ingress: [{action: Pass, from: [{namespaces: {}}]}]",
            ),
            ClusterPolicyKind::Baseline,
        ),
    ] {
        assert!(
            world.problem().contains("is not an action: write"),
            "{}",
            world.problem()
        );
        let rule = &only(&world, kind).ingress[0];
        assert_eq!(
            (rule.action, &rule.matches.peers),
            (RuleAction::Deny, &Peers::Any)
        );
    }
}

#[test]
fn domain_names_are_for_rules_that_accept() {
    let world = cluster(
        "Admin",
        "egress: [{action: Accept, to: [{domainNames: ['*.Example.com.', b.example.com]}]}]",
    );
    let domain = |text: &str| Peer::Domain(DomainPattern::parse(text).unwrap());
    assert_eq!(
        rules(&world)[0].matches.peers,
        Peers::Only(vec![domain("*.example.com"), domain("b.example.com")])
    );
    let world = cluster(
        "Admin",
        "egress: [{action: Accept, to: [{domainNames: [a.*.com]}, {networks: [10.0.0.0/8]}]}]",
    );
    let problem = world.problem();
    assert!(
        problem.starts_with("spec.egress[0].to[0].domainNames[0]: \"a.*.com\" is not"),
        "{problem}"
    );
    assert_eq!(rules(&world)[0].matches.peers, Peers::Only(Vec::new()));
    let world = cluster(
        "Admin",
        "egress: [{action: Deny, to: [{domainNames: [example.com]}]}]",
    );
    assert!(world.problem().ends_with("(the rule denies everyone)"));
}

const SOME_RULES: &str = "ingress: [{action: Accept, from: [{namespaces: {}}]}, {action: Pass, from: [{namespaces: {}}]}]";

fn with_spec(spec: &str) -> String {
    format!(
        "apiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\nmetadata: {{name: p}}\nspec: {spec}\n"
    )
}

#[test]
fn a_policy_that_may_be_about_anyone_is_closed_for_all_of_them() {
    let everything = Selector::everything;
    let some = || selector("app", "x");
    for (head, tier, priority, namespaces, pods) in [
        (
            "tier: Middle, priority: 1, subject: {namespaces: {}}",
            Tier::Admin,
            1,
            everything(),
            everything(),
        ),
        (
            "priority: 1, subject: {namespaces: {matchLabels: {app: x}}}",
            Tier::Admin,
            1,
            some(),
            everything(),
        ),
        (
            "tier: Baseline, priority: 1001, subject: {namespaces: {}}",
            Tier::Baseline,
            -1,
            everything(),
            everything(),
        ),
        (
            "tier: Admin, priority: high, subject: {namespaces: {}}",
            Tier::Admin,
            -1,
            everything(),
            everything(),
        ),
        (
            "tier: Admin, subject: {namespaces: {}}",
            Tier::Admin,
            -1,
            everything(),
            everything(),
        ),
        (
            "tier: Admin, priority: 1, subject: {}",
            Tier::Admin,
            1,
            everything(),
            everything(),
        ),
        (
            "tier: Admin, priority: 1, subject: 3",
            Tier::Admin,
            1,
            everything(),
            everything(),
        ),
        (
            "tier: Admin, priority: 1, subject: {machines: {}}",
            Tier::Admin,
            1,
            everything(),
            everything(),
        ),
        (
            "tier: Admin, priority: 1, subject: {namespaces: {matchLabels: 3}}",
            Tier::Admin,
            1,
            everything(),
            everything(),
        ),
        (
            "tier: Admin, priority: 1, subject: {pods: {namespaceSelector: {oops: 1}, podSelector: {matchLabels: {app: x}}}}",
            Tier::Admin,
            1,
            everything(),
            some(),
        ),
        (
            "tier: Admin, priority: 1, subject: {pods: {podSelector: {matchLabels: {app: x}}}}",
            Tier::Admin,
            1,
            everything(),
            some(),
        ),
    ] {
        // What was in force before is what nobody means any more.
        let mut world = cluster("Admin", "egress: []");
        world.apply(&with_spec(&format!("{{{head}, {SOME_RULES}}}")));
        let policy = only(&world, ClusterPolicyKind::Cluster);
        assert_eq!((policy.tier, policy.priority), (tier, priority), "{head}");
        assert_eq!(
            (&policy.namespaces, &policy.pods),
            (&namespaces, &pods),
            "{head}"
        );
        let [accept, pass] = &policy.ingress[..] else {
            panic!("{head}: {:?}", policy.ingress);
        };
        let nobody = Peers::Only(Vec::new());
        assert_eq!(
            (accept.action, &accept.matches.peers),
            (RuleAction::Accept, &nobody)
        );
        assert_eq!(pass.action, RuleAction::Deny, "{head}");
        assert!(matches!(&pass.matches.peers, Peers::Only(peers) if peers.len() == 1));
        let said = world.problem();
        assert!(
            said.ends_with("accept match nothing, and all others deny)"),
            "{said}"
        );
        assert_eq!(world.converter.take_fresh().len(), 1, "an Event says so");
        world.delete(Kind::ClusterNetworkPolicy, "p");
        assert!(world.snapshot.cluster_policies.is_empty());
    }
}

#[test]
fn rules_that_are_no_list_deny_everyone_in_their_direction() {
    let world = World::of(&with_spec(
        "{tier: Admin, priority: 1, subject: {namespaces: {}}, ingress: none, \
         egress: [{action: Accept, to: [{namespaces: {}}]}]}",
    ));
    let policy = only(&world, ClusterPolicyKind::Cluster);
    assert_eq!(policy.ingress.len(), 1);
    assert_eq!(
        (policy.ingress[0].action, &policy.ingress[0].matches.peers),
        (RuleAction::Deny, &Peers::Any)
    );
    assert_eq!(policy.egress[0].action, RuleAction::Accept);
    assert!(
        world
            .problem()
            .ends_with("(everyone is denied in this direction)")
    );
    let world = World::of(&with_spec("[]"));
    let policy = only(&world, ClusterPolicyKind::Cluster);
    assert_eq!((policy.ingress.len(), policy.egress.len()), (1, 1));
}

#[test]
fn a_field_that_nobody_knows_is_told() {
    let world = cluster("Admin", "ingres: []");
    assert!(world.problem().starts_with("spec.ingres: unknown field"));
}

#[test]
fn nodes_have_labels_and_ranges_of_pods() {
    let world = World::of(
        "apiVersion: v1\nkind: Node\nmetadata: {name: n, labels: {role: edge}}\n\
         spec: {podCIDR: 10.1.0.0/24, podCIDRs: [10.1.0.0/24, 'fd00:1::/64']}\n---\n\
         apiVersion: v1\nkind: Node\nmetadata: {name: old}\nspec: {podCIDR: 10.1.1.0/24}\n",
    );
    assert_eq!(world.problems(), [""; 0]);
    let node = &world.snapshot.nodes["n"];
    assert_eq!(node.labels.get("role").map(|value| &**value), Some("edge"));
    assert_eq!(node.pod_ranges.len(), 2);
    let all: Vec<_> = world
        .snapshot
        .pod_ranges()
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(all, ["10.1.0.0/23", "fd00:1::/64"]);
}
