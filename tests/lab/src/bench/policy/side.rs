//! A node with a set of policies in force, by Sluice or by another, and a client and a server on it.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use super::kube_router::{KubeRouter, Program};
use super::nft;
use super::objects::{create, fill_pods};
use super::set::{PEERS, Set, peer_address, peer_name};
use crate::agent::Agent;
use crate::bench::pods;
use crate::bench::rounds::Slot;
use crate::bench::server::Server;
use crate::bench::traffic::{Order, PORT, Target, Test};
use crate::bench::worker::{Pair, Sample};
use crate::kube::Manifests;
use crate::kube::objects::{self, PodManifest};
use crate::topology::{Cluster, Dual, Node, Pod};

/// Who enforces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum By {
    /// Sluice.
    Sluice,
    /// A ruleset of nftables.
    Nft,
    /// kube-router, with iptables and ipset.
    KubeRouter,
}

impl By {
    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            By::Sluice => "Sluice",
            By::Nft => "nftables",
            By::KubeRouter => "kube-router",
        }
    }
}

/// A node, alive.
pub struct Side {
    name: &'static str,
    set: Set,
    pair: Pair,
    target: Target,
    agent: Option<Agent>,
    kube_router: Option<KubeRouter>,
    pods: [Pod; 2],
}

impl Side {
    /// Makes the pods, starts who enforces and the timed processes.
    ///
    /// # Errors
    /// A program is missing, kube-router's too where it is to enforce; or the kernel refuses something.
    pub fn make(
        cluster: &Cluster,
        node: u8,
        (name, by, set): (&'static str, By, Set),
        cpu: usize,
        kube_router: Option<&Program>,
    ) -> Result<Side> {
        let [client, server] = pods::make(cluster, node)?;
        let (mut agent, mut other) = (None, None);
        match by {
            By::Sluice => agent = Some(start_agent(cluster, [&client, &server], set)?),
            By::Nft => nft::install(
                client.node().netns(),
                set,
                client.addrs().v4,
                server.addrs().v4,
            )?,
            By::KubeRouter => {
                let program = kube_router.context("no program of kube-router is given")?;
                let filled = Server::start(cluster)?;
                fill_pods(&filled.api, [&client, &server], set.count)?;
                filled.api.write_all(set.objects(false).map(create))?;
                other = Some(KubeRouter::start(program, client.node(), filled)?);
            }
        }
        let pair = Pair::start(client.netns(), server.netns(), cpu)?;
        Ok(Side {
            name,
            set,
            pair,
            target: Target::fixed(server.addrs().v4, PORT),
            agent,
            kube_router: other,
            pods: [client, server],
        })
    }

    /// Its name in tables.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Waits until all is in force, and makes sure that it is: a path that forgets to judge is not what
    /// is to be measured.
    ///
    /// # Errors
    /// No transaction succeeds in time; or the policies do not hold.
    pub fn await_ready(&mut self) -> Result<()> {
        if let Some(kube_router) = &mut self.kube_router {
            kube_router.await_settled(&self.pods)?;
        }
        pods::await_ready(
            self.name,
            self.agent.as_mut(),
            &mut self.pair,
            [self.target],
        )?;
        pods::check_policy(self.name, &self.pods, self.set.isolates())
    }

    /// The agent, if it is Sluice that enforces.
    pub fn agent(&self) -> Option<&Agent> {
        self.agent.as_ref()
    }

    /// Lets the client open connections, so many a second.
    ///
    /// # Errors
    /// The client is stuck or has ended.
    pub fn connect_at(&mut self, rate: u32, length: Duration) -> Result<Sample> {
        self.pair.obey(Order {
            test: Test::Crr,
            target: self.target,
            slot: length,
            rate: Some(rate),
        })
    }

    /// Lets the client work for a slot.
    ///
    /// # Errors
    /// The client is stuck or has ended.
    pub fn run(&mut self, slot: Slot, length: Duration) -> Result<Sample> {
        self.pair.run(slot.test, self.target, length)
    }
}

fn start_agent(cluster: &Cluster, [client, server]: [&Pod; 2], set: Set) -> Result<Agent> {
    let node = client.node();
    let manifests = Manifests::create(cluster.run(), &format!("manifests-{}", node.name()))?;
    let mut base = vec![objects::namespace("default", &[]), objects::node(node)];
    base.push(member(client, "client").object());
    base.push(member(server, "server").object());
    base.extend((0..set.count.min(PEERS)).map(|number| peer(number).object()));
    manifests.write("cluster", &base)?;
    let policies: Vec<Value> = set.policies().map(|policy| policy.object()).collect();
    manifests.write("policies", &policies)?;
    let mut agent = Agent::new(node, manifests.dir());
    agent
        .start_only()
        .with_context(|| format!("on {}", Node::name(node)))?;
    Ok(agent)
}

/// One of the two pods that are there.
pub fn member(pod: &Pod, app: &str) -> PodManifest {
    let mut manifest = PodManifest::new(pod.name(), &pod.node().name()).label("app", app);
    manifest.addrs = Some(pod.addrs());
    manifest.host = Some(IpAddr::from(pod.node().addrs().v4));
    manifest.ready = true;
    manifest
}

/// A peer: a pod of a node that is not there.
pub fn peer(number: u32) -> PodManifest {
    let name = peer_name(number);
    let node = format!("elsewhere-{}", number % 100);
    let mut manifest = PodManifest::new(&name, &node).label("app", &name);
    let [_, _, high, low] = number.to_be_bytes();
    let low = u16::from_be_bytes([high, low]);
    manifest.addrs = Some(Dual {
        v4: peer_address(number),
        v6: [0xfd44, 0x99, 0, 0, 0, 0, 1, low].into(),
    });
    manifest.ready = true;
    manifest
}
