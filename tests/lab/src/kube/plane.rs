//! Pods that run: namespace, server process and manifest together, with readiness and graceful ends.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::deployment::Deployment;
use super::manifests::{Manifests, from_yaml};
use super::objects::{self, PodManifest};
use crate::agent::Agent;
use crate::topology::{Cluster, Family, Pod};
use crate::wait;
use crate::workload::{Process, ServerSpec, client};

/// How long a server may take until its readiness probe succeeds.
const READY: Duration = Duration::from_secs(30);
/// How long one probe may take.
const PROBE: Duration = Duration::from_secs(1);

/// A cluster with its folder of manifests, its agents and its running pods.
#[derive(Debug)]
pub struct Plane {
    /// The agents, in the nodes' order.
    pub agents: Vec<Agent>,
    /// The folder that the agents watch.
    pub manifests: Manifests,
    pods: BTreeMap<String, Running>,
    /// Pods that are on their way out.
    leaving: Vec<JoinHandle<Result<()>>>,
    /// Pods ever made, which spreads them over the nodes and numbers them.
    made: usize,
    /// Last, so that everything in its namespaces goes first.
    cluster: Cluster,
}

/// A pod to run.
#[derive(Clone, Debug, Default)]
pub struct PodRun {
    /// Its name.
    pub name: String,
    /// Its node; none: the nodes take turns.
    pub node: Option<u8>,
    /// Its namespace; none: `default`.
    pub namespace: Option<String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The names of its ports, in the order of the server's TCP and then UDP ports.
    pub port_names: Vec<String>,
    /// What it serves; `name` is filled in.
    pub server: ServerSpec,
    /// How long it goes on as before when it is deleted.
    pub pre_stop: Duration,
}

#[derive(Debug)]
struct Running {
    process: Option<Process>,
    pod: Pod,
    manifest: PodManifest,
    owner: Option<(String, String)>,
    pre_stop: Duration,
}

impl Plane {
    /// Takes a cluster, writes its Node and Namespace objects, and makes (but does not start) an
    /// agent for each node.
    ///
    /// # Errors
    /// The files cannot be written.
    pub fn new(cluster: Cluster) -> Result<Plane> {
        let manifests = Manifests::create(cluster.run(), "manifests")?;
        let mut base = vec![objects::namespace("default", &[])];
        base.extend(cluster.nodes().iter().map(|node| objects::node(node)));
        manifests.write("cluster", &base)?;
        let agent = |node| Agent::new(node, manifests.dir());
        let agents = cluster.nodes().iter().map(agent).collect();
        let (pods, leaving) = (BTreeMap::new(), Vec::new());
        Ok(Plane {
            agents,
            manifests,
            pods,
            leaving,
            made: 0,
            cluster,
        })
    }

    /// The cluster.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Starts all agents and waits until they are in sync.
    ///
    /// # Errors
    /// One of them does not start.
    pub fn start_agents(&mut self) -> Result<()> {
        for agent in &mut self.agents {
            agent.start_only()?;
        }
        for agent in &mut self.agents {
            agent.wait_in_sync(READY)?;
        }
        Ok(())
    }

    /// A running pod's network.
    ///
    /// # Panics
    /// There is no such pod.
    pub fn pod(&self, name: &str) -> &Pod {
        &self.pods[name].pod
    }

    /// The names of the pods that belong to a Deployment.
    pub fn pods_of(&self, deployment: &str) -> Vec<String> {
        self.owned(deployment)
            .map(|(name, _)| name.clone())
            .collect()
    }

    /// Makes a pod, starts its server and, as its kubelet does, marks it ready when a probe from
    /// its node succeeds (not waited for when the server is to say that it is not ready).
    ///
    /// # Errors
    /// The name is taken, the server does not start, or is not ready in time.
    pub fn run(&mut self, run: PodRun) -> Result<()> {
        let (name, wait) = (run.name.clone(), !run.server.not_ready);
        self.launch(run, None)?;
        if wait {
            self.await_ready(&name)
        } else {
            Ok(())
        }
    }

    /// Writes a pod's Ready condition, whatever its probe says.
    ///
    /// # Errors
    /// There is no such pod, or its file cannot be written.
    pub fn set_ready(&mut self, name: &str, ready: bool) -> Result<()> {
        let running = self
            .pods
            .get_mut(name)
            .with_context(|| format!("no pod {name}"))?;
        running.manifest.ready = ready;
        self.manifests
            .write(&file_of(name), &[running.manifest.object()])
    }

    /// Kills a pod's server, without a word to anybody.
    ///
    /// # Errors
    /// It does not run.
    pub fn kill_server(&mut self, name: &str) -> Result<()> {
        let running = self
            .pods
            .get_mut(name)
            .with_context(|| format!("no pod {name}"))?;
        running
            .process
            .take()
            .with_context(|| format!("{name} has no server"))?
            .kill()
    }

    /// Deletes a pod gracefully: it is marked terminating, goes on for its pre-stop time, gets
    /// SIGTERM, finishes what is under way, and is gone. Does not wait for that.
    ///
    /// # Errors
    /// There is no such pod, or its file cannot be written.
    pub fn delete(&mut self, name: &str) -> Result<()> {
        let mut running = self
            .pods
            .remove(name)
            .with_context(|| format!("no pod {name}"))?;
        running.manifest.terminating = true;
        let (manifests, file) = (self.manifests.clone(), file_of(name));
        manifests.write(&file, &[running.manifest.object()])?;
        self.leaving.push(thread::spawn(move || {
            thread::sleep(running.pre_stop);
            if let Some(process) = running.process.take() {
                process.terminate()?;
            }
            drop(running.pod);
            manifests.remove(&file)
        }));
        Ok(())
    }

    /// Waits until all deleted pods are gone.
    ///
    /// # Errors
    /// One of them did not end.
    pub fn await_deletions(&mut self) -> Result<()> {
        for leaving in self.leaving.drain(..) {
            leaving
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        }
        Ok(())
    }

    /// Takes an object as a cluster's API would: a Deployment is rolled out, anything else goes to
    /// the folder, in the place of the object of that kind and name.
    ///
    /// # Errors
    /// It has no kind or name, its file cannot be written, or a pod does not start.
    pub fn apply(&mut self, object: &Value) -> Result<()> {
        let kind = object["kind"].as_str().context("an object has no kind")?;
        if kind == "Deployment" {
            return self.roll_out(object);
        }
        let name = object["metadata"]["name"]
            .as_str()
            .context("an object has no name")?;
        self.manifests
            .write(&object_file(kind, name), std::slice::from_ref(object))
    }

    /// [`Plane::apply`] of each document of a YAML text.
    ///
    /// # Errors
    /// It is not YAML, or an object is not taken.
    pub fn apply_yaml(&mut self, text: &str) -> Result<()> {
        from_yaml(text)?
            .iter()
            .try_for_each(|object| self.apply(object))
    }

    /// Deletes an object; with a Deployment its pods, whose end is not waited for.
    ///
    /// # Errors
    /// There is no such object.
    pub fn delete_object(&mut self, kind: &str, name: &str) -> Result<()> {
        if kind == "Deployment" {
            return self
                .pods_of(name)
                .iter()
                .try_for_each(|pod| self.delete(pod));
        }
        self.manifests.remove(&object_file(kind, name))
    }

    /// Brings a Deployment's pods to what it says, as a rolling update: never more than
    /// `maxSurge` pods too many, never more than `maxUnavailable` ready ones too few. Returns when
    /// only pods of this template are left and all are ready.
    fn roll_out(&mut self, object: &Value) -> Result<()> {
        let deployment = Deployment::parse(object)?;
        let revision = object["spec"]["template"].to_string();
        loop {
            let (old, new) = self.revisions(&deployment.name, &revision);
            let ready = |names: &[String]| {
                names
                    .iter()
                    .filter(|name| self.pods[*name].manifest.ready)
                    .count()
            };
            let available = ready(&old) + ready(&new);
            let wanted = deployment.replicas.saturating_sub(new.len());
            let room =
                (deployment.replicas + deployment.max_surge).saturating_sub(old.len() + new.len());
            let least = deployment
                .replicas
                .saturating_sub(deployment.max_unavailable);
            let spare = available.saturating_sub(least);
            if old.is_empty() && new.len() <= deployment.replicas && wanted == 0 {
                break;
            }
            let surplus = new.len().saturating_sub(deployment.replicas);
            let goes = old.iter().chain(new.iter().rev().take(surplus)).take(spare);
            let started = (0..wanted.min(room))
                .map(|_| self.launch_replica(&deployment, &revision))
                .collect::<Result<Vec<_>>>()?;
            let goes: Vec<String> = goes.cloned().collect();
            ensure!(
                !(goes.is_empty() && started.is_empty()),
                "{} cannot roll",
                deployment.name
            );
            goes.iter().try_for_each(|name| self.delete(name))?;
            started.iter().try_for_each(|name| self.await_ready(name))?;
        }
        self.await_deletions()
    }

    /// The Deployment's pods: those of other templates, and those of this one.
    fn revisions(&self, name: &str, revision: &str) -> (Vec<String>, Vec<String>) {
        let is_new = |running: &Running| {
            running
                .owner
                .as_ref()
                .is_some_and(|(_, template)| template == revision)
        };
        let (new, old): (Vec<_>, Vec<_>) =
            self.owned(name).partition(|(_, running)| is_new(running));
        let names = |pods: Vec<(&String, &Running)>| pods.iter().map(|pod| pod.0.clone()).collect();
        (names(old), names(new))
    }

    fn owned(&self, deployment: &str) -> impl Iterator<Item = (&String, &Running)> {
        self.pods.iter().filter(move |(_, running)| {
            running
                .owner
                .as_ref()
                .is_some_and(|(owner, _)| owner == deployment)
        })
    }

    fn launch_replica(&mut self, deployment: &Deployment, revision: &str) -> Result<String> {
        let name = format!("{}-{}", deployment.name, self.made);
        let (tcp, udp) = (&deployment.ports, &deployment.udp_ports);
        let run = PodRun {
            name: name.clone(),
            labels: deployment.labels.clone(),
            port_names: tcp
                .iter()
                .chain(udp)
                .map(|(name, _)| name.clone())
                .collect(),
            server: ServerSpec {
                version: deployment.version.clone(),
                tcp: tcp.iter().map(|(_, port)| *port).collect(),
                udp: udp.iter().map(|(_, port)| *port).collect(),
                ..ServerSpec::default()
            },
            pre_stop: deployment.pre_stop,
            ..PodRun::default()
        };
        self.launch(run, Some((deployment.name.clone(), revision.to_owned())))?;
        Ok(name)
    }

    fn launch(&mut self, run: PodRun, owner: Option<(String, String)>) -> Result<()> {
        let nodes = self.cluster.nodes().len();
        let turn = u8::try_from(self.made % nodes)? + 1;
        self.made += 1;
        let pod = self.cluster.add_pod(run.node.unwrap_or(turn), &run.name)?;
        let server = ServerSpec {
            name: run.name.clone(),
            ..run.server
        };
        let mut manifest = PodManifest::new(&run.name, &pod.node().name());
        manifest.labels = run.labels;
        manifest.namespace = run.namespace.unwrap_or(manifest.namespace);
        manifest.addrs = Some(pod.addrs());
        let ports = server.tcp.iter().map(|port| (*port, "TCP"));
        let ports = ports
            .chain(server.udp.iter().map(|port| (*port, "UDP")))
            .enumerate();
        let name_of = |index: usize, port: u16| {
            run.port_names
                .get(index)
                .cloned()
                .unwrap_or_else(|| format!("p{port}"))
        };
        manifest.ports = ports
            .map(|(i, (port, kind))| (name_of(i, port), port, kind))
            .collect();
        self.manifests
            .write(&file_of(&run.name), &[manifest.object()])?;
        let process = Some(Process::start(pod.netns(), &server)?);
        let running = Running {
            process,
            pod,
            manifest,
            owner,
            pre_stop: run.pre_stop,
        };
        self.pods.insert(run.name, running);
        Ok(())
    }

    /// The kubelet's readiness probe, in both families, until it succeeds.
    fn await_ready(&mut self, name: &str) -> Result<()> {
        let running = &self.pods[name];
        let (addrs, node) = (running.pod.addrs(), running.pod.node().netns().clone());
        let port = running
            .manifest
            .ports
            .iter()
            .find(|(_, _, protocol)| *protocol == "TCP");
        for family in Family::ALL {
            let Some((_, port, _)) = port else { break };
            let to = SocketAddr::new(addrs.ip(family), *port);
            node.run(|| {
                wait::until(READY, &format!("{name} to be ready"), || {
                    let answer = client::get(to, "/ready", PROBE)?;
                    ensure!(answer.status == 200, "/ready says {}", answer.status);
                    Ok(())
                })
            })?;
        }
        self.set_ready(name, true)
    }
}

/// The name of a pod's file.
fn file_of(pod: &str) -> String {
    format!("pod-{pod}")
}

/// The name of the file of an object that is no pod.
fn object_file(kind: &str, name: &str) -> String {
    format!("{}-{name}", kind.to_ascii_lowercase())
}
