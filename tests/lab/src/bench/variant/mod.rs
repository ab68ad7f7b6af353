//! The ways from a client pod to a server pod of one node that are compared.

mod cluster;
pub mod nft;
mod redirect;

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result};
use aya::Ebpf;
use dataplane_common::abi::capacity;

use super::pods;
use super::rounds::To;
use super::traffic::{PORT, Target, Test};
use super::worker::{Pair, Sample};
use crate::agent::Agent;
use crate::kube::Manifests;
use crate::topology::{Cluster, Pod};
pub use cluster::Scale;

/// Address of the first Service. The others follow it; the last stays below 10.112.0.0.
const FIRST_SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 1, 0);
/// The port of every Service: another one than the server's, so that ports are translated too.
const SERVICE_PORT: u16 = 80;
/// Further addresses of the server on the bare kernel's node.
const FIRST_ALIAS: Ipv4Addr = Ipv4Addr::new(10, 112, 1, 0);
const ALIASES: &str = "10.112.0.0/14";
/// What a node does for its pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// Forwarding only; the client dials the server's own address.
    Kernel,
    /// Two programs that hand over packets; the client dials the server's own address.
    Redirect,
    /// kube-proxy's rules in nftables for so many Services.
    Nft(u32),
    /// Sluice.
    Sluice(Scale),
}

/// A node with its client and server, alive.
#[derive(Debug)]
pub struct Variant {
    name: &'static str,
    path: Path,
    pair: Pair,
    fixed: Target,
    random: Option<Target>,
    agent: Option<Agent>,
    /// Its programs stay attached as long as it lives.
    _programs: Option<[Ebpf; 2]>,
    pods: [Pod; 2],
}

impl Variant {
    /// Makes the pods of a variant on its node, with the path between them.
    ///
    /// # Errors
    /// A program is missing, or the kernel refuses something.
    pub fn make(
        cluster: &Cluster,
        node: u8,
        name: &'static str,
        path: Path,
        cpu: usize,
    ) -> Result<Variant> {
        let made = Variant::assemble(cluster, node, name, path, cpu);
        made.with_context(|| format!("cannot make the variant {name}"))
    }

    fn assemble(
        cluster: &Cluster,
        node: u8,
        name: &'static str,
        path: Path,
        cpu: usize,
    ) -> Result<Variant> {
        let [client, server] = pods::make(cluster, node)?;
        let (fixed, random) = targets(path, server.addrs().v4);
        let mut programs = None;
        let mut agent = None;
        match path {
            Path::Kernel => add_aliases(&server)?,
            Path::Redirect => programs = Some(redirect::join(&client, &server)?),
            Path::Nft(count) => nft::install(
                client.node().netns(),
                &nft::Services {
                    first: FIRST_SERVICE,
                    count,
                    port: SERVICE_PORT,
                    endpoint: (server.addrs().v4, PORT),
                    node: client.node().addrs().v4,
                },
            )?,
            Path::Sluice(scale) => agent = Some(start_agent(cluster, [&client, &server], scale)?),
        }
        let pair = Pair::start(client.netns(), server.netns(), cpu)?;
        Ok(Variant {
            name,
            path,
            pair,
            fixed,
            random,
            agent,
            _programs: programs,
            pods: [client, server],
        })
    }

    /// Its name in tables.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Waits until transactions succeed, then looks whether the path is what it should be.
    ///
    /// # Errors
    /// No transaction succeeds in time; or a policy does not hold.
    pub fn await_ready(&mut self) -> Result<()> {
        let targets = [Some(self.fixed), self.random].into_iter().flatten();
        pods::await_ready(self.name, self.agent.as_mut(), &mut self.pair, targets)?;
        let policed = matches!(self.path, Path::Sluice(scale) if scale.policies > 0);
        pods::check_policy(self.name, &self.pods, policed)
    }

    /// Lets the client work for a slot.
    ///
    /// # Errors
    /// The client is stuck or has ended.
    pub fn run(&mut self, test: Test, to: To, slot: Duration) -> Result<Sample> {
        let random = self.random.filter(|_| to == To::Random);
        self.pair.run(test, random.unwrap_or(self.fixed), slot)
    }

    /// Entries that the node's netfilter conntrack threw away, where it is in the path: 0 unless
    /// it was full.
    pub fn thrown_away(&self) -> Option<u64> {
        if !matches!(self.path, Path::Nft(_)) {
            return None;
        }
        self.pods[0].node().netns().run(nft::thrown_away)
    }
}

fn targets(path: Path, server: Ipv4Addr) -> (Target, Option<Target>) {
    let services = |count: u32| {
        let all = Target {
            first: FIRST_SERVICE,
            count,
            port: SERVICE_PORT,
        };
        let middle = Ipv4Addr::from(u32::from(FIRST_SERVICE) + count / 2);
        (
            Target::fixed(middle, SERVICE_PORT),
            Some(all).filter(|_| count > 1),
        )
    };
    match path {
        Path::Kernel => {
            let aliases = Target {
                first: FIRST_ALIAS,
                count: 10_000,
                port: PORT,
            };
            (Target::fixed(server, PORT), Some(aliases))
        }
        Path::Redirect => (Target::fixed(server, PORT), None),
        Path::Nft(count) => services(count),
        Path::Sluice(scale) => services(scale.services),
    }
}

/// Lets the server answer at thousands of addresses, by bare routing.
fn add_aliases(server: &Pod) -> Result<()> {
    server
        .netns()
        .ip([format!("route add local {ALIASES} dev lo")])?;
    let (address, device) = (server.addrs().v4, server.host_if());
    let route = format!("route add {ALIASES} via {address} dev {device}");
    server.node().netns().ip([route])
}

fn start_agent(cluster: &Cluster, pods: [&Pod; 2], scale: Scale) -> Result<Agent> {
    let node = pods[0].node();
    let manifests = Manifests::create(cluster.run(), &format!("manifests-{}", node.name()))?;
    cluster::write(&manifests, pods, FIRST_SERVICE, SERVICE_PORT, scale)?;
    // A port and all others, each in two scopes.
    let room = format!("services={}", (scale.services * 4).max(capacity::SERVICES));
    let agent = Agent::new(node, manifests.dir());
    let mut agent = agent.with_args(&["--map-capacity", &room]);
    agent.start_only()?;
    Ok(agent)
}
