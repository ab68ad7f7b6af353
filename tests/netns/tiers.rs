//! Policies of the tiers on the packet path, from manifests of all three kinds.

use sluice_lab::kube::objects;

use crate::world::{Client, TCP, UDP, World, at, pod};

/// A policy of a tier on the pods `app: web`; `rest` is the rest of its spec, indented by two.
fn cluster(name: &str, tier: &str, priority: u16, rest: &str) -> String {
    format!(
        "
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {{name: {name}}}
spec:
  tier: {tier}
  priority: {priority}
  subject: {{pods: {{namespaceSelector: {{}}, podSelector: {{matchLabels: {{app: web}}}}}}}}
{rest}
"
    )
}

const DENY_ALL_PODS: &str = "  ingress: [{action: Deny, from: [{namespaces: {}}]}]";

/// Two web servers, a friend among the clients.
fn world() -> World {
    let mut world = World::new();
    world.pod_on_each_node("web");
    world
        .plane
        .apply(&objects::namespace("team", &[("kind", "team")]))
        .unwrap();
    let mut friend = pod("friend", 1, &[("role", "friend")]);
    friend.namespace = Some("team".to_owned());
    world.plane.run(friend).unwrap();
    world
}

/// Waits until the client gets what it should from both web servers, by TCP and UDP.
fn await_verdict(world: &World, client: &Client, allowed: bool) {
    for name in ["web-1", "web-2"] {
        let addrs = world.plane.pod(name).addrs();
        for (tcp, udp) in at(addrs, TCP).into_iter().zip(at(addrs, UDP)) {
            if allowed {
                client.eventually_gets(tcp);
            } else {
                let failure = client.eventually_fails(tcp);
                assert!(failure.is_timeout(), "{} to {tcp}: {failure}", client.name);
            }
            let answer = client.ask(udp);
            assert_eq!(answer.is_ok(), allowed, "{} to {udp} by UDP", client.name);
        }
    }
}

#[test]
fn admin_network_policies_and_baseline_are_asked_in_order() {
    let mut world = world();
    let (friend, stranger) = (world.client_in("friend"), world.client(2));
    world.yaml(&cluster("base", "Baseline", 0, DENY_ALL_PODS));
    await_verdict(&world, &friend, false);
    await_verdict(&world, &stranger, false);
    // The node's own probes and clients outside are no pods.
    for to in at(world.plane.pod("web-1").addrs(), TCP) {
        world.host(1).get(to).unwrap();
    }
    world.yaml(
        "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: open}
spec: {podSelector: {matchLabels: {app: web}}, ingress: [{}]}
",
    );
    await_verdict(&world, &friend, true);
    await_verdict(&world, &stranger, true);
    world.yaml(&cluster(
        "admin",
        "Admin",
        5,
        "  ingress:
  - {name: friends, action: Pass, from: [{namespaces: {matchLabels: {kind: team}}}]}
  - {name: others, action: Deny, from: [{namespaces: {}}]}",
    ));
    await_verdict(&world, &stranger, false);
    await_verdict(&world, &friend, true);
    world.yaml(
        "
apiVersion: policy.networking.k8s.io/v1alpha1
kind: AdminNetworkPolicy
metadata: {name: first}
spec:
  priority: 1
  subject: {namespaces: {}}
  ingress: [{action: Allow, from: [{namespaces: {}}]}]
",
    );
    await_verdict(&world, &stranger, true);
    for (kind, name) in [
        ("AdminNetworkPolicy", "first"),
        ("ClusterNetworkPolicy", "admin"),
        ("NetworkPolicy", "open"),
    ] {
        world.plane.delete_object(kind, name).unwrap();
    }
    await_verdict(&world, &friend, false);
    world
        .plane
        .delete_object("ClusterNetworkPolicy", "base")
        .unwrap();
    await_verdict(&world, &friend, true);
    await_verdict(&world, &stranger, true);
}

#[test]
fn a_rule_that_cannot_be_understood_denies_and_the_others_hold() {
    let mut world = world();
    let (friend, stranger) = (world.client_in("friend"), world.client(2));
    world.yaml(&cluster(
        "newer",
        "Admin",
        0,
        "  ingress:
  - {action: Accept, from: [{namespaces: {matchLabels: {kind: team}}}]}
  - {action: Deny, from: [{planets: {}}]}",
    ));
    await_verdict(&world, &stranger, false);
    await_verdict(&world, &friend, true);
}
