//! A proxy on two nodes, with those who connect through it: a pod to a pod of its own node, and a
//! client outside, by a node port of the first node, to a pod of the second.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::agent::Agent;
use crate::bench::control::objects::{self, SERVICE_PORT, TARGET_PORT};
use crate::bench::kube_proxy::{KubeProxy, Mode};
use crate::bench::rounds::To;
use crate::bench::traffic::{self, Target, Test};
use crate::bench::variant::nft;
use crate::bench::worker::{Pair, Sample};
use crate::kube::api::{Api, Write};
use crate::kube::objects::ServiceManifest;
use crate::topology::{Cluster, Node, Pod};
use crate::wait;

/// How long all may take to be programmed.
const PROGRAMMED: Duration = Duration::from_secs(300);
/// The node port of the system whose first node is node 0.
const FIRST_NODE_PORT: u16 = 30_080;

/// Who programs the nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proxy {
    /// kube-proxy.
    KubeProxy(Mode),
    /// Sluice.
    Sluice,
}

/// Two nodes with their proxies and those who connect.
pub struct System {
    name: &'static str,
    /// Each with its client, server and destination.
    inside: (Pair, Target),
    outside: (Pair, Target),
    kube_proxies: Vec<KubeProxy>,
    agents: Vec<Agent>,
    nodes: [Arc<Node>; 2],
    /// Last, so that the processes in their namespaces go first.
    _pods: [Pod; 3],
}

impl System {
    /// Makes the pods on two nodes, and the objects in the API.
    ///
    /// # Errors
    /// Something cannot be made.
    pub fn make(
        cluster: &Cluster,
        first: u8,
        name: &'static str,
        cpu: usize,
        api: &Api,
    ) -> Result<System> {
        let nodes = [first, first + 1].map(|index| Arc::clone(cluster.node(index)));
        let client = cluster.add_pod(first, &format!("client-{first}"))?;
        let server = cluster.add_pod(first, &format!("server-{first}"))?;
        let remote = cluster.add_pod(first + 1, &format!("remote-{first}"))?;
        traffic::leave_room_for_connections(client.netns())?;
        let service = service(first, "inside").port("http", SERVICE_PORT, TARGET_PORT);
        let node_port = FIRST_NODE_PORT + u16::from(first);
        let from_outside = self::service(first, "outside");
        let from_outside = from_outside.node_port("http", SERVICE_PORT, TARGET_PORT, node_port);
        for node in &nodes {
            api.write(objects::create_node(node))?;
        }
        for pod in [&client, &server, &remote] {
            api.write_each(objects::create_pod(pod))?;
        }
        api.write_each(create(first, "inside", &service, &server))?;
        api.write_each(create(first, "outside", &from_outside, &remote))?;
        let inside = Pair::start(client.netns(), server.netns(), cpu)?;
        let outside = Pair::start(cluster.outside(), remote.netns(), cpu)?;
        Ok(System {
            name,
            inside: (inside, Target::fixed(objects::extra(first), SERVICE_PORT)),
            outside: (outside, Target::fixed(nodes[0].addrs().v4, node_port)),
            kube_proxies: Vec::new(),
            agents: Vec::new(),
            nodes,
            _pods: [client, server, remote],
        })
    }

    /// Its name in tables.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Starts the proxies and waits until transactions succeed. What was in the API before them comes
    /// into force at once.
    ///
    /// # Errors
    /// A program is missing, or nothing answers in time.
    pub fn start(&mut self, proxy: Proxy, kubeconfig: &Path) -> Result<()> {
        for node in &self.nodes {
            match proxy {
                Proxy::KubeProxy(mode) => {
                    let started = KubeProxy::start(node, kubeconfig, mode)?;
                    self.kube_proxies.push(started);
                }
                Proxy::Sluice => {
                    let mut agent = Agent::on_api(node, kubeconfig);
                    agent.start_only()?;
                    self.agents.push(agent);
                }
            }
        }
        for agent in &mut self.agents {
            agent.wait_in_sync(PROGRAMMED)?;
        }
        let name = self.name;
        for (pair, target) in [&mut self.inside, &mut self.outside] {
            let what = format!("the first transactions of {name}");
            wait::until(PROGRAMMED, &what, || {
                let sample = pair.run(Test::Crr, *target, Duration::from_millis(5))?;
                match sample.error {
                    Some(error) => bail!("{error}"),
                    None => Ok(()),
                }
            })?;
        }
        Ok(())
    }

    /// The process ids of its proxies.
    ///
    /// # Errors
    /// One has ended.
    pub fn processes(&mut self) -> Result<Vec<u32>> {
        let kube_proxies = self.kube_proxies.iter_mut().map(KubeProxy::id);
        let agents = self.agents.iter().map(|agent| {
            let id = agent.id();
            id.context("an agent does not run")
        });
        kube_proxies.chain(agents).collect()
    }

    /// Lets a client work for a slot.
    ///
    /// # Errors
    /// The client is stuck or has ended.
    pub fn run(&mut self, test: Test, to: To, slot: Duration) -> Result<Sample> {
        let (pair, target) = match to {
            To::Fixed | To::Random => &mut self.inside,
            To::NodePort => &mut self.outside,
        };
        pair.run(test, *target, slot)
    }

    /// Entries that the nodes' netfilter conntrack threw away: 0 unless it was full.
    pub fn thrown_away(&self) -> u64 {
        let of = |node: &Arc<Node>| node.netns().run(nft::thrown_away).unwrap_or(0);
        self.nodes.iter().map(of).sum()
    }
}

fn service(system: u8, kind: &str) -> ServiceManifest {
    let address = objects::extra(match kind {
        "inside" => system,
        _ => system + 1,
    });
    ServiceManifest::new(&name(system, kind)).cluster_ips([IpAddr::from(address)])
}

fn name(system: u8, kind: &str) -> String {
    format!("{kind}-{system}")
}

fn create(system: u8, kind: &str, service: &ServiceManifest, endpoint: &Pod) -> [Write; 2] {
    objects::create_extra(&name(system, kind), service, endpoint)
}
