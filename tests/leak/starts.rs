//! Pods start as a container runtime starts them: the device, the plugin, then the first process.

use std::collections::VecDeque;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use sluice_lab::agent::Agent;
use sluice_lab::cni::{Outcome, PLUGIN, Runtime};
use sluice_lab::kube::objects::PodManifest;
use sluice_lab::kube::{Plane, PodRun};
use sluice_lab::topology::{Cluster, Cni, Dual, Pod};
use sluice_lab::wait;

use crate::traffic::{PORT, Peer};

const PATIENCE: Duration = Duration::from_secs(30);
/// Pods that run at the same time.
const TOGETHER: usize = 4;
/// Rounds of datagrams that a pod sends at least.
const ROUNDS: u64 = 50;
/// What the plugin may add to a pod's start, for half of the pods.
const MEDIAN: Duration = Duration::from_millis(10);
/// What is in force before any pod starts.
const DENY: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny}
spec:
  podSelector: {matchLabels: {app: locked}}
  policyTypes: [Ingress, Egress]
";
const CONF: &str = r#"{"cniVersion":"1.1.0","name":"lab","plugins":[{"type":"ptp"}]}"#;

fn is_long() -> bool {
    std::env::var_os("SLUICE_LONG").is_some()
}

/// Two nodes whose agents have installed the plugin, and a peer on each.
struct World {
    plane: Plane,
    peers: [Peer; 2],
    runtimes: [Runtime; 2],
}

struct Started {
    pod: Pod,
    talker: Peer,
    is_locked: bool,
}

fn targets(addrs: Dual) -> [SocketAddr; 2] {
    addrs.both().map(|ip| SocketAddr::new(ip, PORT))
}

impl World {
    fn new() -> World {
        let mut plane = Plane::new(Cluster::of(&[Cni::Ptp, Cni::Bridge]).unwrap()).unwrap();
        plane.apply_yaml(DENY).unwrap();
        let agents = std::mem::take(&mut plane.agents);
        plane.agents = agents.into_iter().map(installing).collect();
        plane.start_agents().unwrap();
        let runtimes = [0, 1].map(|index| {
            let agent: &Agent = &plane.agents[index];
            let [bin, conf] = dirs(agent);
            let list = fs::read_to_string(conf.join("00-sluice.conflist")).unwrap();
            assert!(list.contains(PLUGIN) && list.contains("ptp"), "{list}");
            Runtime::new(agent).unwrap().with_program(&bin.join(PLUGIN))
        });
        for node in [1, 2] {
            let run = PodRun {
                name: format!("peer-{node}"),
                node: Some(node),
                ..PodRun::default()
            };
            plane.run(run).unwrap();
        }
        let peers = [1, 2].map(|node| {
            let pod = plane.pod(&format!("peer-{node}"));
            Peer::start(pod.netns(), Vec::new())
        });
        World {
            plane,
            peers,
            runtimes,
        }
    }

    /// The addresses of both peers.
    fn peer_targets(&self) -> Vec<SocketAddr> {
        let peers = [1, 2].map(|node| self.plane.pod(&format!("peer-{node}")).addrs());
        peers.into_iter().flat_map(targets).collect()
    }

    fn add(&self, pod: &Pod) -> Outcome {
        let node = usize::from(pod.node().index());
        self.runtimes[node - 1].call("ADD", pod).unwrap()
    }

    /// As a kubelet: another try follows one that failed.
    fn add_until_done(&self, pod: &Pod) {
        wait::until(PATIENCE, "the plugin to succeed", || {
            let outcome = self.add(pod);
            if outcome.ok {
                return Ok(());
            }
            assert_eq!(outcome.code(), 11, "{outcome:?}");
            Err(outcome.output.to_string())
        })
        .unwrap();
    }

    /// Makes the pod number `index`, hands it to the plugin and lets it talk. Returns how long the
    /// plugin took, where nothing stood in its way.
    fn start(&mut self, index: usize) -> (Started, Option<Duration>) {
        let node = index % 2;
        let is_locked = index % 5 != 4;
        let name = format!("pod-{index}");
        let app = if is_locked { "locked" } else { "free" };
        let on = self.plane.cluster().node(node as u8 + 1).name();
        let object = PodManifest::new(&name, &on).label("app", app).object();
        self.plane.manifests.write(&name, &[object]).unwrap();
        let pod = self.plane.cluster().add_pod(node as u8 + 1, &name).unwrap();
        for peer in &self.peers {
            peer.add(&targets(pod.addrs()));
        }
        let took = match index % 7 {
            3 => {
                self.plane.agents[node].kill().unwrap();
                let refused = self.add(&pod);
                assert_eq!(refused.code(), 11, "{refused:?}");
                self.plane.agents[node].start_only().unwrap();
                self.add_until_done(&pod);
                None
            }
            5 => {
                self.add_while_the_agent_is_killed(&pod, node);
                None
            }
            _ => {
                let begun = Instant::now();
                let outcome = self.add(&pod);
                assert!(outcome.ok, "{name}: {outcome:?}");
                Some(begun.elapsed())
            }
        };
        let talker = Peer::start(pod.netns(), self.peer_targets());
        let started = Started {
            pod,
            talker,
            is_locked,
        };
        (started, took)
    }

    fn add_while_the_agent_is_killed(&mut self, pod: &Pod, node: usize) {
        let runtime = self.runtimes[node].clone();
        let agent = &mut self.plane.agents[node];
        let outcome = std::thread::scope(|scope| {
            let add = scope.spawn(|| runtime.call("ADD", pod).unwrap());
            agent.kill().unwrap();
            add.join().unwrap()
        });
        agent.start_only().unwrap();
        if !outcome.ok {
            assert_eq!(outcome.code(), 11, "{outcome:?}");
            self.add_until_done(pod);
        }
    }

    /// Datagrams that came from a pod, and to it.
    fn passed(&self, started: &Started) -> (u64, u64) {
        let ips = started.pod.addrs().both();
        let all = self
            .peers
            .iter()
            .flat_map(|peer| ips.map(|ip| peer.received_from(ip)));
        (all.sum(), started.talker.received())
    }

    /// Lets a pod talk enough, deletes it while it still does, and says what passed.
    fn stop(&self, started: Started) {
        let name = started.pod.name().to_owned();
        wait::until_true(PATIENCE, "the pod to have sent enough", || {
            started.talker.rounds() >= ROUNDS
        })
        .unwrap();
        if !started.is_locked {
            wait::until(
                PATIENCE,
                "a pod without policy to be heard and to hear",
                || {
                    let passed = self.passed(&started);
                    if passed.0 > 0 && passed.1 > 0 {
                        Ok(())
                    } else {
                        Err(format!("{passed:?}"))
                    }
                },
            )
            .unwrap();
        }
        let node = usize::from(started.pod.node().index()) - 1;
        let deleted = self.runtimes[node].call("DEL", &started.pod).unwrap();
        assert!(deleted.ok, "{deleted:?}");
        self.plane.manifests.remove(&name).unwrap();
        wait::until_true(PATIENCE, "more datagrams after the deletion", {
            let so_far = started.talker.rounds();
            let talker = &started.talker;
            move || talker.rounds() >= so_far + ROUNDS
        })
        .unwrap();
        let passed = self.passed(&started);
        for peer in &self.peers {
            peer.remove(&targets(started.pod.addrs()));
        }
        if started.is_locked {
            assert_eq!(passed, (0, 0), "{name}: datagrams from it, and to it");
        }
    }
}

/// Folders of an agent's node for programs and configurations.
fn dirs(agent: &Agent) -> [PathBuf; 2] {
    let of = |name| agent.socket().with_extension(name);
    [of("cni-bin"), of("cni-conf")]
}

fn installing(agent: Agent) -> Agent {
    let [bin, conf] = dirs(&agent);
    fs::create_dir_all(&conf).unwrap();
    fs::write(conf.join("10-lab.conflist"), CONF).unwrap();
    let [bin, conf] = [bin, conf].map(|dir| dir.display().to_string());
    agent.with_args(&[
        "--cni-install",
        "--cni-bin-dir",
        &bin,
        "--cni-conf-dir",
        &conf,
    ])
}

#[test]
fn nothing_that_policy_forbids_passes_from_a_pods_first_instruction_to_its_last() {
    let count = if is_long() { 200 } else { 20 };
    let mut world = World::new();
    let mut running = VecDeque::new();
    let mut took = Vec::new();
    for index in 0..count {
        let (started, time) = world.start(index);
        running.push_back(started);
        took.extend(time);
        if running.len() > TOGETHER {
            let oldest = running.pop_front().unwrap();
            world.stop(oldest);
        }
    }
    for started in running {
        world.stop(started);
    }
    took.sort_unstable();
    let (median, last) = (took[took.len() / 2], took[took.len() - 1]);
    println!(
        "{count} pods, 0 datagrams; ADD took {median:?} at the median and {last:?} at most, of {}",
        took.len()
    );
    // A short run shares its machine with whatever else is tested.
    if is_long() {
        assert!(median <= MEDIAN, "ADD took {median:?} at the median");
    }
}
