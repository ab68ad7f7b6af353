//! Explanations, compared with what packets do.

use std::fs;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::process::Command;

use aya::maps::MapData;
use dataplane_common::abi::{ABI_VERSION, RowKey, RowVal, name};
use dataplane_common::decide::policy::Terms;
use serde_json::Value;
use sluice::bpf::Maps;

use crate::world::{Client, TCP, UDP, World, at, pod};

/// A policy of each tier on the pods `app: web`: the second client is denied, the first one may do what
/// NetworkPolicies let it do, and a friend everything.
const POLICIES: &str = "
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: admin}
spec:
  tier: Admin
  priority: 5
  subject: {pods: {namespaceSelector: {}, podSelector: {matchLabels: {app: web}}}}
  ingress:
  - {name: friends, action: Accept, from: [{pods: {namespaceSelector: {}, podSelector: {matchLabels: {role: friend}}}}]}
  - {action: Deny, from: [{pods: {namespaceSelector: {}, podSelector: {matchLabels: {role: foe}}}}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: some}
spec:
  podSelector: {matchLabels: {app: web}}
  ingress:
  - from: [{podSelector: {matchLabels: {role: guest}}}]
    ports: [{protocol: TCP, port: 8080}]
";

const NONE: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: none}
spec: {podSelector: {matchLabels: {role: friend}}, policyTypes: [Egress]}
";

/// Waits until these are in force on all nodes, by the first one's agent.
fn await_policies(world: &World, policies: &[&str]) -> Vec<Value> {
    let waited = policies.iter().map(|policy| {
        let command: Vec<&str> = ["policy", "wait"]
            .into_iter()
            .chain(policy.split(' '))
            .collect();
        world.plane.agents[0].query(&command).unwrap()
    });
    waited.collect()
}

fn world() -> World {
    let mut world = World::new();
    world.pod_on_each_node("web");
    for role in ["friend", "foe", "guest", "stranger"] {
        world.plane.run(pod(role, 1, &[("role", role)])).unwrap();
    }
    world
}

/// What each agent says of a connection, family by family.
pub fn explained(world: &World, from: &str, to: &str, more: &[&str]) -> Vec<Vec<Value>> {
    let agents = world.plane.agents.iter();
    let asked = agents.map(|agent| {
        let command = [&["policy", "explain", from, to], more].concat();
        let all = agent.query(&command).unwrap();
        all.as_array().expect("a list").clone()
    });
    asked.collect()
}

/// The explanations of all agents are what becomes of the packets, which take the way of `gets`.
fn compare(
    world: &World,
    from: &str,
    to: [SocketAddr; 2],
    protocol: &str,
    gets: impl Fn(SocketAddr) -> bool,
) {
    for to in to {
        let passes = gets(to);
        for of_agent in explained(world, from, &format!("{to}/{protocol}"), &[]) {
            let [why] = &of_agent[..] else {
                panic!("{of_agent:#?}");
            };
            let told = if passes { "allowed" } else { "denied" };
            assert_eq!(why["verdict"], told, "{from} to {to} {protocol}: {why:#}");
            assert_eq!(why["notes"], Value::Array(vec![]), "{why:#}");
        }
    }
}

fn compare_both(world: &World, name: &str, client: &Client) {
    for web in ["web-1", "web-2"] {
        let addrs = world.plane.pod(web).addrs();
        compare(world, name, at(addrs, TCP), "TCP", |to| {
            client.try_get(to).is_ok()
        });
        compare(world, name, at(addrs, UDP), "UDP", |to| {
            client.ask(to).is_ok()
        });
    }
}

#[test]
fn explanations_are_what_becomes_of_packets() {
    let mut world = world();
    world.yaml(POLICIES);
    world.yaml(NONE);
    await_policies(&world, &["admin --kind cnp", "some", "none"]);
    for name in ["friend", "foe", "guest", "stranger"] {
        compare_both(&world, name, &world.client_in(name));
    }
    let host = world.host(1);
    let node = world.plane.cluster().node(1).addrs();
    for (from, to) in node
        .both()
        .into_iter()
        .zip(at(world.plane.pod("web-1").addrs(), TCP))
    {
        let from = from.to_string();
        compare(&world, &from, [to, to], "TCP", |to| {
            host.try_get(to).is_ok()
        });
    }
}

#[test]
fn a_denial_names_who_isolates_and_what_came_nearest() {
    let mut world = world();
    world.yaml(POLICIES);
    await_policies(&world, &["admin --kind cnp", "some"]);
    for of_agent in explained(&world, "guest", "web-2:9090", &[]) {
        let ingress = &of_agent[0]["ingress"];
        assert_eq!(ingress["isolatedBy"][0], "default/some");
        let nearest = ingress["nearest"][0].as_str().unwrap();
        assert!(
            nearest.contains("the peer is right, the port is none of 8080/TCP"),
            "{nearest}"
        );
        let outcomes: Vec<_> = ingress["asked"]
            .as_array()
            .unwrap()
            .iter()
            .map(|step| &step["outcome"])
            .collect();
        assert_eq!(outcomes, ["other peer", "other peer", "other port"]);
    }
    // A policy that is not in force changes what is explained, and nothing else.
    let file = world.plane.agents[0].log().with_extension("yaml");
    fs::write(&file, NONE).unwrap();
    let file = file.display().to_string();
    for (more, verdict) in [(&[][..], "allowed"), (&["-f", &file][..], "denied")] {
        for of_agent in explained(&world, "friend", "web-2:8080", more) {
            assert_eq!(
                of_agent[0]["verdict"], verdict,
                "{more:?}: {:#}",
                of_agent[0]
            );
        }
    }
    let friend = world.client_in("friend");
    for to in at(world.plane.pod("web-2").addrs(), TCP) {
        friend.get(to).unwrap();
    }
}

/// Each web server's own node's agent alone decides: whoever waits for it needs to wait for nothing else.
#[test]
fn a_policy_that_was_waited_for_is_in_force_on_all_nodes() {
    let mut world = world();
    let stranger = world.client_in("stranger");
    let webs = ["web-1", "web-2"].map(|web| at(world.plane.pod(web).addrs(), TCP));
    for generation in 1..=4 {
        let from = if generation % 2 == 1 {
            "guest"
        } else {
            "stranger"
        };
        world.yaml(&format!(
            "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: turns, generation: {generation}}}
spec: {{podSelector: {{matchLabels: {{app: web}}}}, ingress: [{{from: [{{podSelector: {{matchLabels: {{role: {from}}}}}}}]}}]}}
"
        ));
        let waited = await_policies(&world, &[&format!("turns --generation {generation}")]);
        let nodes = waited[0]["nodes"].as_array().unwrap();
        let states: Vec<_> = nodes
            .iter()
            .map(|node| (&node["generation"], &node["state"]))
            .collect();
        let expected = (&Value::from(generation), &Value::from("in force"));
        assert_eq!(states, [expected, expected]);
        for &to in webs.iter().flatten() {
            let answer = stranger.try_get(to);
            assert_eq!(answer.is_ok(), from == "stranger", "{generation}: {to}");
        }
    }
    let agent = &world.plane.agents[0];
    let missed = agent.query(&[
        "policy",
        "wait",
        "turns",
        "--generation",
        "5",
        "--timeout",
        "300ms",
    ]);
    let missed = format!("{:#}", missed.unwrap_err());
    assert!(missed.contains("not in force everywhere"), "{missed}");
    world.plane.delete_object("NetworkPolicy", "turns").unwrap();
    let gone = await_policies(&world, &["turns --gone"]);
    assert_eq!(gone[0]["nodes"][1]["state"], "gone");
    for &to in webs.iter().flatten() {
        stranger.get(to).unwrap();
    }
}

/// A map of an agent, as it is pinned.
fn pinned(world: &World, agent: usize, name: &str) -> Maps {
    let pins = world.plane.agents[agent].bpffs();
    let pin = pins.join(format!("v{ABI_VERSION}/maps/{name}"));
    let map = MapData::from_pin(pin).unwrap();
    let mut maps = Maps::default();
    maps.insert(name, map.fd().as_fd().try_clone_to_owned().unwrap())
        .unwrap();
    maps
}

#[test]
fn maps_that_are_damaged_are_told_by_name() {
    let mut world = world();
    world.yaml(POLICIES);
    world.yaml(NONE);
    await_policies(&world, &["admin --kind cnp", "some", "none"]);
    for agent in &world.plane.agents {
        let verified = agent.query(&["policy", "verify"]).unwrap();
        assert!(verified["compared"].as_u64() > Some(100), "{verified}");
        assert_eq!(verified["differences"], Value::Array(vec![]));
    }
    let maps = pinned(&world, 1, name::ROWS);
    let rows = maps.table::<RowKey, RowVal>(name::ROWS).unwrap();
    // Without a row that denies, isolation denies as well.
    let isolated = Terms {
        isolates: true,
        exempt: false,
    };
    let mut accepting = rows.entries().unwrap();
    accepting.retain(|(_, value)| value.decide(isolated).allowed != 0);
    assert!(!accepting.is_empty());
    for (row, value) in accepting {
        assert!(rows.delete(&row).unwrap());
        let socket = world.plane.agents[1].socket().display().to_string();
        let program = std::env::var("SLUICE_BIN").unwrap();
        let told = Command::new(program)
            .args(["policy", "verify", "-o", "json", "--socket", &socket])
            .output()
            .unwrap();
        assert_eq!(told.status.code(), Some(1), "{told:?}");
        let verified: Value = serde_json::from_slice(&told.stdout).unwrap();
        let all = verified["differences"].as_array().unwrap();
        assert!(!all.is_empty(), "{row:?} is not missed");
        for one in all {
            assert_eq!(
                (&one["direction"], &one["destinationPod"]),
                (&"ingress".into(), &"default/web-2".into())
            );
            let rules = format!("{} {}", one["policies"], one["maps"]);
            assert!(
                rules.contains("admin ingress rule") || rules.contains("default/some"),
                "{one}"
            );
        }
        rows.put(&row, &value).unwrap();
    }
    world.plane.agents[1].query(&["policy", "verify"]).unwrap();
}
