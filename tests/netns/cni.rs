//! The CNI plugin, called as a container runtime calls it: pods' objects have no addresses then.

use std::fs;
use std::thread;
use std::time::Duration;

use serde_json::json;
use sluice_lab::cni::{PLUGIN, Runtime, container};
use sluice_lab::kube::Plane;
use sluice_lab::kube::objects::PodManifest;
use sluice_lab::topology::{Cluster, Cni, Pod};
use sluice_lab::wait;
use sluice_lab::workload::{Process, ServerSpec};

use crate::world::{PATIENCE, TCP, World, at};

const DENY: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny}
spec:
  podSelector: {matchLabels: {app: web}}
  policyTypes: [Ingress, Egress]
";

/// A pod with a device and a server, of which the agent knows nothing yet.
fn sandbox(world: &World, name: &str, node: u8) -> (Pod, Process) {
    let pod = world.plane.cluster().add_pod(node, name).unwrap();
    let spec = ServerSpec {
        name: name.to_owned(),
        tcp: vec![TCP],
        ..ServerSpec::default()
    };
    let server = Process::start(pod.netns(), &spec).unwrap();
    (pod, server)
}

/// Writes the pod's object, as a scheduler leaves it.
fn schedule(world: &World, name: &str, node: u8, app: &str) {
    let node = world.plane.cluster().node(node).name();
    let object = PodManifest::new(name, &node).label("app", app).object();
    world
        .plane
        .manifests
        .write(&format!("pod-{name}"), &[object])
        .unwrap();
}

fn runtime(world: &World, node: u8) -> Runtime {
    Runtime::new(&world.plane.agents[usize::from(node) - 1]).unwrap()
}

/// Requests that arrive, of one each way and family between the pod and the client of its node and of
/// the other.
fn passing(world: &World, pod: &Pod) -> usize {
    let mut count = 0;
    for node in [1, 2] {
        let client = world.client(node);
        let get = |to| sluice_lab::workload::client::get(to, "/", Duration::from_millis(300));
        for to in at(pod.addrs(), TCP) {
            count += usize::from(client.netns.run(|| get(to)).is_ok());
        }
        for to in at(client.addrs, TCP) {
            count += usize::from(pod.netns().run(|| get(to)).is_ok());
        }
    }
    count
}

/// Waits until all of them arrive: the host may still ask for the hardware address of a pod that was closed.
fn await_open(world: &World, pod: &Pod) {
    wait::until(PATIENCE, "all requests to pass", || {
        match passing(world, pod) {
            8 => Ok(()),
            count => Err(format!("{count} of 8")),
        }
    })
    .unwrap();
}

#[test]
fn when_add_returns_the_pods_policy_is_in_force() {
    let mut world = World::new();
    world.yaml(DENY);
    for node in [1, 2] {
        let runtime = runtime(&world, node);
        for (app, is_open) in [("web", false), ("free", true)] {
            let name = format!("{app}-{node}");
            schedule(&world, &name, node, app);
            let (pod, _server) = sandbox(&world, &name, node);
            let outcome = runtime.call("ADD", &pod).unwrap();
            assert!(outcome.ok, "{outcome:?}");
            assert_eq!(outcome.output, runtime.previous(&pod));
            if is_open {
                await_open(&world, &pod);
            } else {
                assert_eq!(passing(&world, &pod), 0, "{name}");
            }
            let status = world.plane.agents[usize::from(node) - 1].status().unwrap();
            let devices = status["attachments"]["pods"].as_array().unwrap().clone();
            let device = devices
                .iter()
                .find(|device| device["name"] == pod.host_if());
            assert_eq!(
                device.unwrap()["pod"],
                format!("default/{name}"),
                "{devices:?}"
            );
        }
    }
}

#[test]
fn nothing_passes_before_the_pods_object_is_known() {
    let world = World::new();
    for node in [1, 2] {
        let name = format!("late-{node}");
        let (pod, _server) = sandbox(&world, &name, node);
        let runtime = runtime(&world, node);
        thread::scope(|scope| {
            let add = scope.spawn(|| runtime.call("ADD", &pod).unwrap());
            wait::until_true(PATIENCE, "the device to be taken over", || {
                passing(&world, &pod) == 0
            })
            .unwrap();
            let ended = add.is_finished();
            schedule(&world, &name, node, "free");
            // A busy machine may have looked for longer than the agent waits.
            let first = add.join().unwrap();
            assert!(!ended || first.code() == 11, "{first:?}");
            let outcome = if first.code() == 11 {
                runtime.call("ADD", &pod).unwrap()
            } else {
                first
            };
            assert!(outcome.ok, "{outcome:?}");
        });
        await_open(&world, &pod);
    }
}

#[test]
fn every_command_answers_as_the_specification_says() {
    let world = World::new();
    let mut runtime = runtime(&world, 1);
    schedule(&world, "a", 1, "free");
    schedule(&world, "b", 1, "free");
    let (a, b) = (sandbox(&world, "a", 1), sandbox(&world, "b", 1));
    let code =
        |runtime: &Runtime, command: &str, pod: &Pod| runtime.call(command, pod).unwrap().code();
    for version in ["0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        runtime.version = version.to_owned();
        let added = runtime.call("ADD", &a.0).unwrap();
        assert_eq!(
            (added.ok, added.output),
            (true, runtime.previous(&a.0)),
            "{version}"
        );
        let check = if version == "0.3.1" { 1 } else { 0 };
        assert_eq!(code(&runtime, "CHECK", &a.0), check, "{version}");
        for _ in 0..2 {
            let deleted = runtime.call("DEL", &a.0).unwrap();
            assert_eq!(
                (deleted.ok, deleted.output),
                (true, json!(null)),
                "{version}"
            );
        }
    }
    assert_eq!(code(&runtime, "CHECK", &a.0), 101, "it was deleted");
    for pod in [&a.0, &b.0] {
        assert_eq!(code(&runtime, "ADD", pod), 0);
    }
    let valid = json!([{ "containerID": container(&b.0), "ifname": "eth0" }]);
    let swept = runtime
        .call_for_none("GC", json!({ "cni.dev/valid-attachments": valid }))
        .unwrap();
    assert!(swept.ok, "{swept:?}");
    assert_eq!(code(&runtime, "CHECK", &a.0), 101, "it was not in the list");
    assert_eq!(code(&runtime, "CHECK", &b.0), 0);
    let status = runtime.call_for_none("STATUS", json!({})).unwrap();
    assert_eq!((status.ok, status.output), (true, json!(null)));
    let versions = runtime.call_for_none("VERSION", json!({})).unwrap();
    let spoken = json!(["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]);
    assert_eq!(versions.output["supportedVersions"], spoken);
    let chainless = runtime.call_for_none("ADD", json!({})).unwrap();
    assert_eq!(chainless.code(), 7, "{chainless:?}");
    let strange = runtime.call_for_none("UPDATE", json!({})).unwrap();
    assert_eq!(strange.code(), 4, "{strange:?}");
}

#[test]
fn pods_wait_for_an_agent_that_is_away_and_those_that_run_stay_policed() {
    let mut world = World::new();
    world.yaml(DENY);
    let mut runtime = runtime(&world, 1);
    schedule(&world, "web-1", 1, "web");
    let (pod, _server) = sandbox(&world, "web-1", 1);
    assert!(runtime.call("ADD", &pod).unwrap().ok);
    world.plane.agents[0].kill().unwrap();
    schedule(&world, "next", 1, "free");
    let (next, _next) = sandbox(&world, "next", 1);
    let refused = runtime.call("ADD", &next).unwrap();
    assert_eq!(refused.code(), 11, "{refused:?}");
    assert!(
        refused.output["details"]
            .as_str()
            .unwrap()
            .contains("node-1.sock"),
        "{refused:?}"
    );
    let status = runtime.call_for_none("STATUS", json!({})).unwrap();
    assert_eq!(status.code(), 50);
    assert!(runtime.call("DEL", &next).unwrap().ok);
    runtime.more.insert("failOpen".to_owned(), true.into());
    let open = runtime.call("ADD", &next).unwrap();
    assert_eq!((open.ok, open.output), (true, runtime.previous(&next)));
    runtime.more.clear();
    assert_eq!(passing(&world, &pod), 0, "the programs go on");
    world.plane.agents[0].start().unwrap();
    assert_eq!(passing(&world, &pod), 0, "its object still has no address");
    assert_eq!(runtime.call("CHECK", &pod).unwrap().code(), 0);
    assert_eq!(runtime.call("ADD", &next).unwrap().code(), 0);
    await_open(&world, &next);
}

#[test]
fn what_is_installed_follows_the_primary_and_stays_until_it_is_uninstalled() {
    let mut plane = Plane::new(Cluster::new(1, Cni::Ptp).unwrap()).unwrap();
    let agent = plane.agents.remove(0);
    let [bin, conf] = ["cni-bin", "cni-conf"].map(|name| agent.socket().with_extension(name));
    let text = [&bin, &conf].map(|dir| dir.display().to_string());
    let args = [
        "--cni-bin-dir",
        text[0].as_str(),
        "--cni-conf-dir",
        text[1].as_str(),
    ];
    let mut agent = agent.with_args(&[&["--cni-install"], &args[..]].concat());
    agent.start().unwrap();
    let list = || fs::read_to_string(conf.join("00-sluice.conflist"));
    assert!(list().is_err(), "there is nothing to derive it from");
    let primary = |plugin: &str| {
        let text = json!({ "cniVersion": "1.0.0", "name": "net", "type": plugin }).to_string();
        fs::write(conf.join("10-net.conf"), text).unwrap();
        let what = format!("the list with {plugin}");
        wait::until_true(PATIENCE, &what, || {
            list().is_ok_and(|list| list.contains(plugin) && list.contains(PLUGIN))
        })
        .unwrap();
    };
    primary("ptp");
    primary("bridge");
    // Whoever takes it away gets it back.
    fs::remove_file(conf.join("00-sluice.conflist")).unwrap();
    wait::until(PATIENCE, "the list to come back", list).unwrap();
    let uninstall = [&["cni", "uninstall"], &args[..]].concat();
    let refused = agent.run(&uninstall).unwrap_err();
    assert!(
        format!("{refused:#}").contains("--cni-install"),
        "{refused:#}"
    );
    agent.terminate().unwrap();
    assert!(
        list().is_ok() && bin.join(PLUGIN).is_file(),
        "it outlives the agent"
    );
    agent.run(&uninstall).unwrap();
    assert!(list().is_err() && !bin.join(PLUGIN).exists());
    assert!(conf.join("10-net.conf").is_file());
}
