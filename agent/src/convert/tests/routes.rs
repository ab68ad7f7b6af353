use dataplane_model::snapshot::{RouteKind, RouteTarget, Selector};

use super::{Kind, World, key};

/// Weights and targets of a route's only rule, in short.
fn shares(world: &World, kind: RouteKind) -> Vec<String> {
    let [rule] = &world.snapshot.routes[&(kind, key("r"))].rules[..] else {
        panic!("one rule");
    };
    let target = |target: &RouteTarget| match target {
        RouteTarget::Service { service, port } => format!("{} {port:?}", service.name),
        RouteTarget::Subset {
            service, any_of, ..
        } => {
            let any: Vec<_> = any_of.iter().map(Selector::to_string).collect();
            format!("{} [{}]", service.name, any.join(" or "))
        }
        RouteTarget::Invalid => "invalid".to_owned(),
    };
    rule.classes()
        .iter()
        .map(|class| format!("{} {}", class.weight, target(&class.target)))
        .collect()
}

fn http(rules: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: r}}\nspec:\n  \
         parentRefs: [{{group: '', kind: Service, name: web, port: 80}}]\n  rules: {rules}\n"
    )
}

#[test]
fn weights_of_an_http_route() {
    let world = World::of(&http(
        "[{backendRefs: [{name: a, port: 80, weight: 90}, {name: b, port: 80, weight: 10}]}]",
    ));
    assert_eq!(
        shares(&world, RouteKind::Http),
        ["90 a Some(80)", "10 b Some(80)"]
    );
    assert_eq!(world.problems(), [""; 0]);
    let route = &world.snapshot.routes[&(RouteKind::Http, key("r"))];
    assert_eq!(
        (
            &route.rules[0].parents[0].service,
            route.rules[0].parents[0].port
        ),
        (&key("web"), Some(80))
    );
}

#[test]
fn header_matches_are_named_and_the_default_rule_holds() {
    let world = World::of(&http(
        "[{matches: [{headers: [{name: canary, value: 'true'}]}], backendRefs: [{name: b, port: 80}]}, \
         {matches: [{path: {type: PathPrefix, value: /}}], filters: [{type: RequestHeaderModifier}], backendRefs: [{name: a, port: 80}]}]",
    ));
    assert_eq!(shares(&world, RouteKind::Http), ["1 a Some(80)"]);
    let problems = world.problems();
    assert!(
        problems[0].starts_with("spec.rules[0].matches: conditions on headers: needs the L7 proxy"),
        "{problems:#?}"
    );
    assert!(
        problems[1].starts_with("spec.rules[1].filters: needs the L7 proxy"),
        "{problems:#?}"
    );
}

#[test]
fn a_route_of_conditions_only_has_no_effect() {
    let world = World::of(&http(
        "[{matches: [{method: GET}], backendRefs: [{name: b, port: 80}]}]",
    ));
    assert!(world.snapshot.routes.is_empty());
    assert!(world.problems()[1].contains("no rule without conditions"));
}

#[test]
fn gateways_as_parents_are_left_to_others() {
    let text =
        http("[{backendRefs: [{name: a, port: 80}]}]").replace("group: '', kind: Service, ", "");
    let world = World::of(&text);
    assert!(world.snapshot.routes.is_empty());
    assert!(world.problem().contains("this parent is left to others"));
}

#[test]
fn the_core_group_may_be_spelt_out() {
    let text = http("[{backendRefs: [{name: a, port: 80}]}]").replace("group: ''", "group: core");
    assert_eq!(shares(&World::of(&text), RouteKind::Http).len(), 1);
}

#[test]
fn bad_weights_are_refused() {
    let world = World::of(&http("[{backendRefs: [{name: a, port: 80, weight: -1}]}]"));
    assert!(
        world
            .problem()
            .contains("spec.rules[0].backendRefs[0].weight: -1 is out of range")
    );
    let many = vec!["{name: a, port: 80}"; 17].join(", ");
    let world = World::of(&http(&format!("[{{backendRefs: [{many}]}}]")));
    assert!(
        world.problem().contains("17 backends in one rule"),
        "{}",
        world.problem()
    );
}

#[test]
fn tcp_and_udp_routes() {
    for (kind, model) in [("TCPRoute", RouteKind::Tcp), ("UDPRoute", RouteKind::Udp)] {
        let world = World::of(&format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: {kind}\nmetadata: {{name: r}}\nspec:\n  \
             parentRefs: [{{group: '', kind: Service, name: web}}]\n  rules: [{{backendRefs: [{{name: a, port: 1, weight: 0}}, {{kind: Thing, name: t}}]}}]\n"
        ));
        assert_eq!(shares(&world, model), ["0 a Some(1)", "1 invalid"]);
        assert!(world.problem().contains("its share is refused"));
    }
}

const GUIDE: &str = "apiVersion: networking.istio.io/v1beta1\nkind: VirtualService\nmetadata: {name: r}\nspec:\n  hosts: [user-service]\n  http:\n  \
    - match: [{headers: {canary: {exact: 'true'}}}]\n    route: [{destination: {host: user-service, subset: canary}, weight: 100}]\n  \
    - route:\n    - {destination: {host: user-service, subset: stable}, weight: 90}\n    - {destination: {host: user-service, subset: canary}, weight: 10}\n";

#[test]
fn the_guides_virtual_service() {
    let world = World::of(GUIDE);
    assert_eq!(
        shares(&world, RouteKind::VirtualService),
        [
            "90 user-service [version=stable or track=stable]",
            "10 user-service [version=canary or track=canary]"
        ]
    );
    let problems = world.problems();
    assert_eq!(problems.len(), 3, "{problems:#?}");
    assert!(problems[0].contains(
        "conditions on headers (canary): needs the L7 proxy, which is not available yet"
    ));
    assert!(problems[1].contains("it is the pods whose label `version` or `track` is \"stable\""));
}

#[test]
fn destination_rules_define_subsets_whenever_they_come() {
    let rule = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: d}\nspec:\n  host: user-service.default.svc.cluster.local\n  \
        subsets: [{name: stable, labels: {rev: one}}, {name: canary, labels: {rev: two}}]\n";
    let defined = ["90 user-service [rev=one]", "10 user-service [rev=two]"];
    let mut world = World::of(GUIDE);
    world.apply(rule);
    assert_eq!(shares(&world, RouteKind::VirtualService), defined);
    let mut other = World::of(rule);
    other.apply(GUIDE);
    assert_eq!(shares(&other, RouteKind::VirtualService), defined);
    assert_eq!(other.problems(), world.problems());
    world.delete(Kind::DestinationRule, "d");
    assert_eq!(world.snapshot, World::of(GUIDE).snapshot);
}

#[test]
fn a_subset_that_is_not_defined_is_refused() {
    let world = World::of(&format!(
        "{GUIDE}---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: d}}\nspec: {{host: user-service, subsets: [{{name: stable, labels: {{a: b}}}}]}}\n"
    ));
    assert_eq!(
        shares(&world, RouteKind::VirtualService),
        ["90 user-service [a=b]", "10 invalid"]
    );
}

fn virtual_service(http: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: r}}\nspec: {{hosts: [web.shop], http: {http}}}\n"
    )
}

#[test]
fn a_single_destination_takes_all() {
    let world = World::of(&virtual_service("[{route: [{destination: {host: a}}]}]"));
    assert_eq!(shares(&world, RouteKind::VirtualService), ["1 a None"]);
    let parent = &world.snapshot.routes[&(RouteKind::VirtualService, key("r"))].rules[0].parents[0];
    assert_eq!(
        (&*parent.service.namespace, &*parent.service.name),
        ("shop", "web")
    );
}

#[test]
fn weights_that_are_all_zero_are_refused() {
    let world = World::of(&virtual_service(
        "[{route: [{destination: {host: a}}, {destination: {host: b}}]}]",
    ));
    assert!(world.problem().contains("all weights are 0 or missing"));
}

#[test]
fn wildcard_hosts_are_refused() {
    let text = virtual_service("[{route: [{destination: {host: a}}]}]").replace("web.shop", "'*'");
    assert!(
        World::of(&text)
            .problem()
            .contains("is not the name of a Service")
    );
}

#[test]
fn a_condition_on_the_port_alone_holds_per_connection() {
    let world = World::of(&virtual_service(
        "[{match: [{port: 81}], route: [{destination: {host: a}}]}, {route: [{destination: {host: b}}]}]",
    ));
    let rules = &world.snapshot.routes[&(RouteKind::VirtualService, key("r"))].rules;
    let ports: Vec<_> = rules.iter().map(|rule| rule.parents[0].port).collect();
    assert_eq!(ports, [Some(81), None]);
    assert_eq!(world.problems(), [""; 0]);
}

#[test]
fn one_for_gateways_only_has_no_effect() {
    let text = virtual_service("[{route: [{destination: {host: a}}]}]")
        .replace("hosts:", "gateways: [edge], hosts:");
    let world = World::of(&text);
    assert!(world.snapshot.routes.is_empty());
    assert!(world.problem().contains("does not list mesh"));
}
