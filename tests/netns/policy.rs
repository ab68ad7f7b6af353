//! NetworkPolicy on the packet path. What each selector means is the model's affair and is tested
//! there; here is what packets do.

use std::time::{Duration, Instant};

use sluice_lab::kube::objects;
use sluice_lab::wait;
use sluice_lab::workload::client::Connection;

use crate::serve::metrics;
use crate::why::explained;
use crate::world::{Client, DROPPED, PATIENCE, TCP, UDP, World, at, pod, vip};

/// A policy on the pods `app: web`; `spec` is the rest of its YAML, indented by two.
fn policy(name: &str, spec: &str) -> String {
    format!(
        "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: {name}}}
spec:
  podSelector: {{matchLabels: {{app: web}}}}
{spec}
"
    )
}

const DENY_INGRESS: &str = "  policyTypes: [Ingress]";

fn world() -> World {
    world_with(&[])
}

/// [`world`] with more arguments for the agents.
fn world_with(args: &[&str]) -> World {
    let mut world = World::with_args(args);
    world.pod_on_each_node("web");
    world.service("web", vip(1));
    world.await_service(vip(1), 80);
    world
}

/// Waits until the client gets nothing from the pods any more.
fn await_denied(world: &World, client: &Client) {
    for name in ["web-1", "web-2"] {
        for to in at(world.plane.pod(name).addrs(), TCP) {
            let failure = client.eventually_fails(to);
            assert!(failure.is_timeout(), "{} to {to}: {failure}", client.name);
        }
    }
}

fn await_allowed(world: &World, client: &Client) {
    for name in ["web-1", "web-2"] {
        for to in at(world.plane.pod(name).addrs(), TCP) {
            client.eventually_gets(to);
        }
    }
}

#[test]
fn a_pod_that_may_get_nothing_gets_only_its_own_nodes_probes() {
    let mut world = world();
    world.yaml(&policy("deny", DENY_INGRESS));
    let others = [world.pods().to_vec(), vec![world.outside()]].concat();
    for client in &others {
        await_denied(&world, client);
    }
    for node in [1_u8, 2] {
        for (pod, own) in [(node, true), (3 - node, false)] {
            for to in at(world.plane.pod(&format!("web-{pod}")).addrs(), TCP) {
                let answer = world.host(node).try_get(to);
                assert_eq!(answer.is_ok(), own, "node-{node} to {to}");
            }
        }
    }
    for client in world.pods() {
        for to in at(vip(1), 80) {
            assert!(
                client.try_get(to).is_err_and(|f| f.is_timeout()),
                "{} to {to}",
                client.name
            );
        }
        for to in at(world.plane.pod("web-1").addrs(), UDP) {
            assert!(
                client.ask(to).is_err_and(|f| f.is_timeout()),
                "{} to {to}",
                client.name
            );
        }
    }
    // Its own requests and their answers are nobody's business.
    for name in ["web-1", "web-2"] {
        for to in at(world.plane.pod("client-1").addrs(), TCP) {
            world.client_in(name).get(to).unwrap();
        }
    }
    world.plane.delete_object("NetworkPolicy", "deny").unwrap();
    for client in &others {
        await_allowed(&world, client);
    }
}

#[test]
fn a_pod_that_ends_is_under_its_policies_to_the_last() {
    let mut world = world();
    let ending = Duration::from_secs(3);
    for node in [1, 2] {
        let mut last = pod(&format!("last-{node}"), node, &[("app", "web")]);
        last.pre_stop = ending;
        world.plane.run(last).unwrap();
    }
    world.yaml(&policy(
        "closed",
        "  policyTypes: [Ingress, Egress]
  ingress: [{from: [{podSelector: {matchLabels: {role: friend}}}]}]",
    ));
    let pods = [1, 2].map(|node| world.client_in(&format!("last-{node}")));
    let clients = world.pods();
    for (client, pod) in clients.iter().zip(&pods) {
        for to in at(pod.addrs, TCP) {
            assert!(client.eventually_fails(to).is_timeout(), "{to}");
        }
    }
    for node in [1, 2] {
        world.plane.delete(&format!("last-{node}")).unwrap();
    }
    let end = Instant::now() + ending;
    while Instant::now() < end {
        for (client, pod) in clients.iter().zip(&pods) {
            for to in at(pod.addrs, TCP) {
                assert!(client.try_get(to).is_err(), "{} to {to}", client.name);
            }
            for to in at(client.addrs, TCP) {
                assert!(pod.try_get(to).is_err(), "{} to {to}", pod.name);
            }
        }
    }
    world.plane.await_deletions().unwrap();
}

#[test]
fn selectors_namespaces_and_ports_say_who_may_come() {
    let mut world = world();
    world
        .plane
        .apply(&objects::namespace("team", &[("kind", "team")]))
        .unwrap();
    let friend = pod("friend", 1, &[("role", "friend")]);
    world.plane.run(friend).unwrap();
    let mut team = pod("team", 2, &[("role", "friend")]);
    team.namespace = Some("team".to_owned());
    world.plane.run(team).unwrap();
    world.yaml(&policy(
        "who",
        "  policyTypes: [Ingress]
  ingress:
  - from: [{podSelector: {matchExpressions: [{key: role, operator: In, values: [friend]}]}}]
    ports: [{port: http}]
  - from: [{namespaceSelector: {matchLabels: {kind: team}}}]
    ports: [{protocol: UDP, port: 9000, endPort: 9100}]",
    ));
    await_denied(&world, &world.client(1));
    for (name, tcp, udp) in [
        ("friend", true, false),
        ("team", false, true),
        ("client-2", false, false),
    ] {
        let client = world.client_in(name);
        for web in ["web-1", "web-2"] {
            let addrs = world.plane.pod(web).addrs();
            for (to_tcp, to_udp) in at(addrs, TCP).into_iter().zip(at(addrs, UDP)) {
                assert_eq!(client.try_get(to_tcp).is_ok(), tcp, "{name} to {to_tcp}");
                assert_eq!(client.ask(to_udp).is_ok(), udp, "{name} to {to_udp} by UDP");
            }
        }
        for to in at(vip(1), 80) {
            assert_eq!(client.try_get(to).is_ok(), tcp, "{name} to {to}");
        }
    }
}

#[test]
fn egress_is_judged_after_the_service_chose() {
    let mut world = world();
    world.pod("db", 2, &[("app", "db")]);
    world.service("db", vip(2));
    world.await_service(vip(2), 80);
    world.yaml(&policy(
        "out",
        "  policyTypes: [Egress]
  egress:
  - to: [{podSelector: {matchLabels: {app: db}}}]
    ports: [{protocol: TCP, port: 8080}]",
    ));
    for name in ["web-1", "web-2"] {
        let web = world.client_in(name);
        for to in at(world.plane.pod("client-1").addrs(), TCP) {
            let failure = web.eventually_fails(to);
            assert!(failure.is_timeout(), "{name} to {to}: {failure}");
        }
        for to in [at(world.plane.pod("db").addrs(), TCP), at(vip(2), 80)].concat() {
            web.get(to)
                .unwrap_or_else(|error| panic!("{name} to {to}: {error}"));
        }
        for to in at(world.plane.pod("db").addrs(), UDP) {
            assert!(
                web.ask(to).is_err_and(|failure| failure.is_timeout()),
                "{name} to {to}"
            );
        }
    }
    // Who comes in is not its affair, and is answered.
    for client in world.everywhere() {
        await_allowed(&world, &client);
    }
}

#[test]
fn blocks_of_addresses_admit_clients_outside() {
    let mut world = world();
    world.yaml(&policy(
        "blocks",
        "  policyTypes: [Ingress]
  ingress:
  - from:
    - ipBlock: {cidr: 172.30.0.0/16, except: [172.30.0.12/32]}
    - ipBlock: {cidr: 'fd30::/16', except: ['fd30::12/128']}",
    ));
    await_denied(&world, &world.client(1));
    await_allowed(&world, &world.outside());
    // node-2 is one of the exceptions; its own pod it may probe all the same.
    for (name, allowed) in [("web-1", false), ("web-2", true)] {
        for to in at(world.plane.pod(name).addrs(), TCP) {
            assert_eq!(world.host(2).try_get(to).is_ok(), allowed, "node-2 to {to}");
        }
    }
}

/// Connections of pods to the pod `web-1`, by its addresses and by the Service, in use.
fn open_connections(world: &World) -> Vec<(String, Connection)> {
    let mut open = Vec::new();
    for client in world.pods() {
        for to in [at(world.plane.pod("web-1").addrs(), TCP), at(vip(1), 80)].concat() {
            let connect = || Connection::open(None, to, 2 * DROPPED);
            let mut connection = client.netns.run(connect).unwrap();
            connection.get("/", false).unwrap();
            open.push((format!("{} to {to}", client.name), connection));
        }
    }
    open
}

/// Denies all, and waits until new connections fail.
fn deny_all(world: &mut World) {
    world.yaml(&policy("deny", DENY_INGRESS));
    for client in world.pods() {
        await_denied(world, &client);
    }
}

#[test]
fn a_live_flow_is_judged_again_when_the_rules_change() {
    let mut world = world();
    let mut open = open_connections(&world);
    deny_all(&mut world);
    for (name, connection) in &mut open {
        assert!(connection.get("/", false).is_err(), "{name} still passes");
    }
}

#[test]
fn a_live_flow_stays_if_the_settings_keep_it() {
    let file = std::env::temp_dir().join(format!("sluice-keep-{}.yaml", std::process::id()));
    std::fs::write(&file, "liveFlows: keep\n").unwrap();
    let mut world = world_with(&["--config", &file.display().to_string()]);
    let mut open = open_connections(&world);
    deny_all(&mut world);
    for (name, connection) in &mut open {
        let answer = connection.get("/", false);
        assert!(answer.is_ok(), "{name}: {answer:?}");
    }
    std::fs::remove_file(&file).unwrap();
}

/// Flows to pods of node 1 that policies in audit would deny: `new` or `live` ones.
fn audited(world: &World, flows: &str) -> u64 {
    let line = format!("sluice_audit_flows_total{{direction=\"ingress\",flow=\"{flows}\"}} ");
    let text = metrics(&world.host(1));
    let mut counts = text.lines().filter_map(|text| text.strip_prefix(&line));
    counts.next().unwrap().parse().unwrap()
}

#[test]
fn a_policy_in_audit_is_counted_and_changes_nothing() {
    let mut world = world();
    let mut open = open_connections(&world);
    let deny = policy("deny", DENY_INGRESS);
    let mode = "{name: deny, annotations: {sluice.dev/policy-mode: audit}}";
    world.yaml(&deny.replace("{name: deny}", mode));
    wait::until_true(PATIENCE, "live flows that would be cut", || {
        for (name, connection) in &mut open {
            let answer = connection.get("/", false);
            assert!(answer.is_ok(), "{name}: {answer:?}");
        }
        // Those of the client on the pod's node alone are four.
        audited(&world, "live") >= 4
    })
    .unwrap();
    let before = audited(&world, "new");
    for client in world.pods() {
        await_allowed(&world, &client);
    }
    assert!(audited(&world, "new") > before);
    for of_agent in explained(&world, "client-1", "web-1:8080", &[]) {
        for why in of_agent {
            assert_eq!(why["verdict"], "allowed", "{why:#}");
            let audit = &why["ingress"]["audit"];
            assert_eq!(audit["verdict"], "denied", "{why:#}");
            assert_eq!(audit["isolatedBy"][0], "default/deny", "{why:#}");
        }
    }
    world.yaml(&deny);
    await_denied(&world, &world.client(1));
}

#[test]
fn a_new_pod_is_under_the_policies_that_select_it() {
    let mut world = world();
    world.yaml(&policy("deny", DENY_INGRESS));
    let client = world.client(1);
    await_denied(&world, &client);
    for node in [1, 2] {
        let name = format!("web-new-{node}");
        world.pod(&name, node, &[("app", "web")]);
        for to in at(world.plane.pod(&name).addrs(), TCP) {
            let failure = client.eventually_fails(to);
            assert!(failure.is_timeout(), "{to}: {failure}");
        }
    }
}

#[test]
fn status_tells_what_is_in_force() {
    let mut world = world();
    world.yaml(&policy("deny", DENY_INGRESS));
    await_denied(&world, &world.client(1));
    wait::until_true(PATIENCE, "the policy to be listed", || {
        let listed = world.plane.agents[0].query(&["policy", "list"]);
        listed.is_ok_and(|listed| listed.to_string().contains("deny"))
    })
    .unwrap();
    let services = world.plane.agents[0]
        .query(&["service", "list"])
        .unwrap()
        .to_string();
    assert!(services.contains(&vip(1).v4.to_string()), "{services}");
    let flows = world.plane.agents[0]
        .query(&["conntrack", "list"])
        .unwrap()
        .to_string();
    assert!(
        flows.contains(&world.client(1).addrs.v4.to_string()),
        "{flows}"
    );
}

#[test]
fn a_pod_of_a_namespace_that_ends_stays_isolated_over_a_restart() {
    let mut world = world();
    let mut held = pod("held", 1, &[("app", "web")]);
    held.namespace = Some("team".to_owned());
    world.plane.run(held).unwrap();
    let to = at(world.plane.pod("held").addrs(), TCP);
    let client = world.client(1);
    world.yaml(&policy("shut", DENY_INGRESS).replace("name: shut", "name: shut, namespace: team"));
    for to in to {
        assert!(client.eventually_fails(to).is_timeout());
    }
    // The namespace ends and its policy is gone, while no agent sees it.
    world.plane.agents[0].kill().unwrap();
    world.yaml(
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: team, deletionTimestamp: '2026-01-01T00:00:00Z'}\n",
    );
    world.plane.delete_object("NetworkPolicy", "shut").unwrap();
    world.plane.agents[0].start().unwrap();
    for to in to {
        let failure = client.try_get(to).unwrap_err();
        assert!(failure.is_timeout(), "{to}: {failure}");
    }
    let notices = world.plane.agents[0].status().unwrap()["notices"].to_string();
    assert!(
        notices.contains("Namespace team: policies that isolated the pod held"),
        "{notices}"
    );
}
