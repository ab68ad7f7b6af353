use dataplane_model::snapshot::{
    NamespaceScope, NetworkPolicy, Peer, Peers, PolicyMode, PortMatch, PortRange, Ports, Protocol,
    Selector,
};

use super::{Kind, World, key};

fn policy_yaml(spec: &str) -> String {
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: p}}\nspec: {spec}\n"
    )
}

fn policy(spec: &str) -> NetworkPolicy {
    let world = World::of(&policy_yaml(spec));
    assert_eq!(world.problems(), [""; 0]);
    NetworkPolicy::clone(&world.snapshot.policies[&key("p")])
}

#[test]
fn an_annotation_puts_policies_in_audit() {
    let of = |value: &str| {
        let text = policy_yaml("{podSelector: {}}").replace(
            "{name: p}",
            &format!("{{name: p, annotations: {{sluice.dev/policy-mode: {value}}}}}"),
        );
        let world = World::of(&text);
        (world.snapshot.policies[&key("p")].mode, world.problems())
    };
    assert_eq!(of("audit"), (Some(PolicyMode::Audit), vec![]));
    assert_eq!(of("enforce"), (Some(PolicyMode::Enforce), vec![]));
    let (mode, problems) = of("log");
    assert_eq!(mode, None);
    assert!(
        problems[0].contains("\"log\" is unknown: write enforce or audit"),
        "{problems:?}"
    );
    let namespace = |mode| {
        World::of(&format!(
            "{}---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: default, annotations: {{sluice.dev/policy-mode: {mode}}}}}\n",
            policy_yaml("{podSelector: {}}")
        ))
    };
    for (mode, audited) in [("audit", true), ("enforce", false)] {
        let snapshot = namespace(mode).snapshot;
        assert_eq!(snapshot.is_audited(&snapshot.policies[&key("p")]), audited);
    }
}

fn app(name: &str) -> Selector {
    Selector::from(&[("app".into(), name.into())].into())
}

fn tcp(first: u16, last: u16) -> PortMatch {
    PortMatch {
        protocol: Protocol::Tcp,
        range: PortRange::Numbers(first, last),
    }
}

#[test]
fn the_guides_policy() {
    let policy = policy(
        "{podSelector: {matchLabels: {app: user-service}}, policyTypes: [Ingress, Egress], \
         ingress: [{from: [{podSelector: {matchLabels: {app: api-gateway}}}], ports: [{protocol: TCP, port: 8080}]}], \
         egress: [{to: [{podSelector: {matchLabels: {app: database}}}], ports: [{protocol: TCP, port: 5432}]}]}",
    );
    assert_eq!(policy.pods, app("user-service"));
    let ingress = &policy.ingress.expect("isolated")[0];
    let peer = Peer::Pods {
        namespaces: NamespaceScope::Own,
        pods: app("api-gateway"),
    };
    assert_eq!(ingress.peers, Peers::Only(vec![peer]));
    assert_eq!(ingress.ports, Ports::Only(vec![tcp(8080, 8080)]));
    assert_eq!(policy.egress.expect("isolated").len(), 1);
}

#[test]
fn types_default_by_the_rules_that_are_there() {
    let directions = |spec: &str| {
        let policy = policy(spec);
        (policy.ingress.is_some(), policy.egress.is_some())
    };
    assert_eq!(directions("{podSelector: {}}"), (true, false));
    assert_eq!(directions("{podSelector: {}, egress: []}"), (true, false));
    assert_eq!(directions("{podSelector: {}, egress: [{}]}"), (true, true));
    assert_eq!(
        directions("{podSelector: {}, policyTypes: []}"),
        (true, false)
    );
    assert_eq!(
        directions("{podSelector: {}, policyTypes: [Egress]}"),
        (false, true)
    );
}

#[test]
fn missing_and_empty_lists_mean_anyone() {
    for rule in ["{}", "{from: []}", "{from: [], ports: []}"] {
        let policy = policy(&format!("{{podSelector: {{}}, ingress: [{rule}]}}"));
        let rules = policy.ingress.expect("isolated");
        assert_eq!(
            (&rules[0].peers, &rules[0].ports),
            (&Peers::Any, &Ports::Any),
            "{rule}"
        );
    }
    for ingress in ["", "ingress: []"] {
        let policy = policy(&format!("{{podSelector: {{}}, {ingress}}}"));
        assert_eq!(policy.ingress, Some(Vec::new()), "no rule allows nothing");
    }
}

#[test]
fn peers_of_every_form() {
    let policy = policy(
        "{podSelector: {}, ingress: [{from: [{namespaceSelector: {}}, {namespaceSelector: {matchLabels: {a: b}}, podSelector: {matchLabels: {app: x}}}, \
         {ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}, {ipBlock: {cidr: 'fd00::/8'}}]}]}",
    );
    let rules = policy.ingress.expect("isolated");
    let Peers::Only(peers) = &rules[0].peers else {
        panic!("peers");
    };
    let all = NamespaceScope::Matching(Selector::everything());
    assert_eq!(
        peers[0],
        Peer::Pods {
            namespaces: all,
            pods: Selector::everything()
        }
    );
    let some = NamespaceScope::Matching(Selector::from(&[("a".into(), "b".into())].into()));
    assert_eq!(
        peers[1],
        Peer::Pods {
            namespaces: some,
            pods: app("x")
        }
    );
    let block = Peer::Block {
        cidr: "10.0.0.0/8".parse().unwrap(),
        except: vec!["10.1.0.0/16".parse().unwrap()],
    };
    assert_eq!(peers[2], block);
}

#[test]
fn ports_of_every_form() {
    let policy = policy(
        "{podSelector: {}, ingress: [{ports: [{port: 80}, {protocol: UDP}, {port: web}, {port: 1000, endPort: 2000}]}]}",
    );
    let rules = policy.ingress.expect("isolated");
    let udp = PortMatch {
        protocol: Protocol::Udp,
        range: PortRange::All,
    };
    let named = PortMatch {
        protocol: Protocol::Tcp,
        range: PortRange::Named("web".into()),
    };
    assert_eq!(
        rules[0].ports,
        Ports::Only(vec![tcp(80, 80), udp, named, tcp(1000, 2000)])
    );
}

#[test]
fn what_cannot_be_understood_allows_nothing() {
    for (rule, expected) in [
        (
            "{from: [{podSelector: {}, ipBlock: {cidr: 10.0.0.0/8}}]}",
            "spec.ingress[0].from[0]: both ipBlock and a selector",
        ),
        ("{from: [{}]}", "spec.ingress[0].from[0]: empty"),
        (
            "{from: [{ipBlock: {cidr: 10.0.0.1}}]}",
            "for one address write 10.0.0.1/32",
        ),
        (
            "{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [11.0.0.0/16]}}]}",
            "spec.ingress[0].from[0].ipBlock.except[0]: 11.0.0.0/16 is not a part of 10.0.0.0/8",
        ),
        (
            "{from: [{podSelector: {matchExpressions: [{key: a, operator: Is, values: [b]}]}}]}",
            "podSelector.matchExpressions[0].operator: \"Is\" is not an operator",
        ),
        (
            "{from: [{podSelector: {matchExpressions: [{key: a, operator: In}]}}]}",
            "In and NotIn need at least one value",
        ),
    ] {
        let world = World::of(&policy_yaml(&format!(
            "{{podSelector: {{}}, ingress: [{rule}]}}"
        )));
        let problem = world.problem();
        assert!(problem.contains(expected), "{problem}");
        assert!(problem.contains("its pods are isolated"), "{problem}");
        let rules = world.snapshot.policies[&key("p")]
            .ingress
            .clone()
            .expect("isolated");
        assert_eq!(
            rules[0].peers,
            Peers::Only(Vec::new()),
            "nobody, not anyone"
        );
    }
}

#[test]
fn bad_ports_allow_nothing() {
    for (port, expected) in [
        ("{endPort: 90}", "endPort: given without port"),
        (
            "{port: web, endPort: 90}",
            "endPort: given with the name of a port",
        ),
        ("{port: 100, endPort: 90}", "90 is below port 100"),
        ("{port: 70000}", "70000 is not a port"),
        ("{port: '80'}", "write the number without quotes"),
        ("{port: 80, protocol: ICMP}", "\"ICMP\" is not a protocol"),
    ] {
        let world = World::of(&policy_yaml(&format!(
            "{{podSelector: {{}}, ingress: [{{ports: [{port}, {{port: 443}}]}}]}}"
        )));
        assert!(world.problem().contains(expected), "{}", world.problem());
        let rules = world.snapshot.policies[&key("p")]
            .ingress
            .clone()
            .expect("isolated");
        assert_eq!(
            rules[0].ports,
            Ports::Only(vec![tcp(443, 443)]),
            "the good one remains"
        );
    }
}

#[test]
fn an_unknown_direction_isolates_in_both() {
    let world = World::of(&policy_yaml("{podSelector: {}, policyTypes: [ingress]}"));
    assert!(world.problem().contains("write Ingress or Egress"));
    let policy = &world.snapshot.policies[&key("p")];
    assert!(policy.ingress.is_some() && policy.egress.is_some());
}

#[test]
fn a_bad_pod_selector_isolates_the_namespace() {
    let world = World::of(&policy_yaml(
        "{podSelector: {matchExpressions: [{key: a, operator: Is}]}}",
    ));
    assert_eq!(
        world.snapshot.policies[&key("p")].pods,
        Selector::everything()
    );
}

#[test]
fn a_bad_version_closes_what_the_good_one_allowed_and_goes_with_the_object() {
    let ports = |world: &World| {
        let policy = &world.snapshot.policies[&key("p")];
        let rules = policy.ingress.as_deref().expect("isolated");
        rules[0].ports.clone()
    };
    let mut world = World::of(&policy_yaml(
        "{podSelector: {}, ingress: [{ports: [{port: 80}]}]}",
    ));
    assert_eq!(ports(&world), Ports::Only(vec![tcp(80, 80)]));
    world.apply(&policy_yaml(
        "{podSelector: {}, ingress: [{ports: [{endPort: 80}]}]}",
    ));
    assert_eq!(ports(&world), Ports::Only(Vec::new()));
    let effect = "its pods are isolated, and what could not be understood allows nothing";
    assert!(world.problem().contains(effect), "{}", world.problem());
    assert_eq!(world.converter.take_fresh().len(), 1, "an Event says so");
    world.apply(&policy_yaml(
        "{podSelector: {}, ingress: [{ports: [{endPort: 80}, {port: 81}]}]}",
    ));
    assert_eq!(ports(&world), Ports::Only(vec![tcp(81, 81)]));
    world.delete(Kind::NetworkPolicy, "p");
    assert!(world.snapshot.policies.is_empty());
}

#[test]
fn host_bits_are_cut_and_said() {
    let world = World::of(&policy_yaml(
        "{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.1.2.3/8}}]}]}",
    ));
    assert!(world.problem().contains("it is taken as 10.0.0.0/8"));
}

#[test]
fn rules_of_a_direction_that_is_not_listed_are_mentioned() {
    let world = World::of(&policy_yaml(
        "{podSelector: {}, policyTypes: [Ingress], egress: [{}]}",
    ));
    assert!(world.problem().contains("policyTypes does not list Egress"));
}
